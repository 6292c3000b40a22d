{{/*
What every pod of the chart shares. enableServiceLinks is off: Kubernetes would
write variables such as RABBITMQ_PORT for Services of that name.
*/}}

{{/* holdfast.podBasics (list $ .Values.image securityContext) */}}
{{- define "holdfast.podBasics" -}}
{{- $ := index . 0 -}}
{{- include "holdfast.pullSecrets" (list $ (index . 1)) }}
enableServiceLinks: false
securityContext:
  {{- toYaml (index . 2) | nindent 2 }}
{{- end -}}

{{/* holdfast.scheduling .Values.api: where a pod may run. */}}
{{- define "holdfast.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/*
Probes of the program. Liveness asks neither the broker nor a peer, so a failing
neighbour never restarts a pod.
*/}}
{{- define "holdfast.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ .startupFailureThreshold }}
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* holdfast.podAnnotations (list $ component port): for a scrape without the operator. */}}
{{- define "holdfast.podAnnotations" -}}
{{- $ := index . 0 -}}
{{- $metrics := $.Values.metrics -}}
{{- $annotations := dict -}}
{{- if and $metrics.annotations (not $metrics.serviceMonitor.enabled) (not $metrics.podMonitor.enabled) -}}
{{- $annotations = dict "prometheus.io/scrape" "true" "prometheus.io/port" (index . 2 | toString) "prometheus.io/path" "/metrics" -}}
{{- end -}}
{{- with merge (dict) (default (dict) (index . 1).podAnnotations) $annotations -}}
{{ toYaml . }}
{{- end -}}
{{- end -}}
