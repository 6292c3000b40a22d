{{/* holdfast.policy.metadata (list $ component) */}}
{{- define "holdfast.policy.head" -}}
{{- $ := first . -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "holdfast.component" . }}
  namespace: {{ $.Release.Namespace }}
  labels:
    {{- include "holdfast.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "holdfast.selector" . | nindent 6 }}
  policyTypes:
    - Ingress
    - Egress
{{- end -}}

{{/* holdfast.policy.peers (list $ "api" "dataserver"): pods of this release. */}}
{{- define "holdfast.policy.peers" -}}
{{- $ := first . -}}
{{- range rest . }}
- podSelector:
    matchLabels:
      {{- include "holdfast.selector" (list $ .) | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Who reads metrics and probes: this namespace, and what monitoring is said to be. */}}
{{- define "holdfast.policy.monitoring" -}}
- podSelector: {}
{{- with .Values.networkPolicy.monitoring }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where apis and data servers connect to. */}}
{{- define "holdfast.policy.egress" -}}
{{- $policy := .Values.networkPolicy -}}
- ports:
    - protocol: UDP
      port: 53
    - protocol: TCP
      port: 53
    {{- range $policy.dnsPorts }}
    - protocol: UDP
      port: {{ . }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
  {{- with $policy.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
- to:
    {{- include "holdfast.policy.peers" (list . "dataserver") | trim | nindent 4 }}
  ports:
    - protocol: TCP
      port: http
- ports:
    - protocol: TCP
      port: {{ ternary 5672 (include "holdfast.external.port" . | int) .Values.rabbitmq.enabled }}
  {{- if .Values.rabbitmq.enabled }}
  to:
    {{- include "holdfast.policy.peers" (list . "rabbitmq") | trim | nindent 4 }}
  {{- else if $policy.externalRabbitmq }}
  to:
    {{- toYaml $policy.externalRabbitmq | nindent 4 }}
  {{- end }}
{{- with .Values.tracing.endpoint }}
- ports:
    - protocol: TCP
      port: {{ default "80" (regexFind ":[0-9]+" . | trimPrefix ":") }}
  {{- with $policy.tracing }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with $policy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
