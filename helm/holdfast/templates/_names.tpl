{{/*
Names and labels. A workload that changes its name, or a selector that changes a
label, gives users a second, empty cluster: nothing here may ever change.
*/}}

{{- define "holdfast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/*
At most 40 characters: a StatefulSet's name and the 11 characters of a revision
make a label of at most 63, and `-dataserver` is the longest name of one. A longer
name ends in a hash, so that two long ones stay two.
*/}}
{{- define "holdfast.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- if gt (len $full) 40 -}}
{{- $full = printf "%s-%s" ($full | trunc 31 | trimSuffix "-") (sha256sum $full | trunc 8) -}}
{{- end -}}
{{- $full | trimSuffix "-" -}}
{{- end -}}

{{/* holdfast.component (list $ "api"): the name of a component's objects. */}}
{{- define "holdfast.component" -}}
{{- printf "%s-%s" (include "holdfast.fullname" (first .)) (last .) -}}
{{- end -}}

{{- define "holdfast.headless" -}}
{{- printf "%s-dataserver-headless" (include "holdfast.fullname" .) -}}
{{- end -}}

{{- define "holdfast.headlessDomain" -}}
{{- printf "%s.%s.svc.%s" (include "holdfast.headless" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{- define "holdfast.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "holdfast.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Selectors: these three, for ever. */}}
{{- define "holdfast.selector" -}}
{{- $ := first . -}}
app.kubernetes.io/name: {{ include "holdfast.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{/* Labels of an object. */}}
{{- define "holdfast.labels" -}}
{{- $ := first . -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: holdfast
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Labels of a pod: without the chart's version, which would restart every pod for a
change of the documentation.
*/}}
{{- define "holdfast.podLabels" -}}
{{- $ := index . 0 -}}
{{ include "holdfast.selector" (list $ (index . 1)) }}
app.kubernetes.io/part-of: holdfast
{{- with merge (dict) (default (dict) (index . 2)) $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
