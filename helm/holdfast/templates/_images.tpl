{{/*
holdfast.image (list $ .Values.image "default tag"): a digest wins over a tag.
*/}}
{{- define "holdfast.image" -}}
{{- $ := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default $image.registry (default (dict) $.Values.global).imageRegistry -}}
{{- $name := ternary (printf "%s/%s" $registry $image.repository) $image.repository (not (empty $registry)) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default (index . 2) $image.tag | toString) -}}
{{- end -}}
{{- end -}}

{{- define "holdfast.ownImage" -}}
{{- include "holdfast.image" (list . .Values.image .Chart.AppVersion) -}}
{{- end -}}

{{/* holdfast.pullSecrets (list $ .Values.image) */}}
{{- define "holdfast.pullSecrets" -}}
{{- $ := first . -}}
{{- $secrets := concat (default (list) (default (dict) $.Values.global).imagePullSecrets) (default (list) (last .).pullSecrets) -}}
{{- if $secrets }}
imagePullSecrets:
  {{- range $secrets }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* holdfast.storageClass (list $ .Values.dataserver.persistence): "-" is the empty class. */}}
{{- define "holdfast.storageClass" -}}
{{- $class := default (default (dict) (first .).Values.global).storageClass (last .).storageClass -}}
{{- if $class }}
storageClassName: {{ ternary "" $class (eq $class "-") | quote }}
{{- end }}
{{- end -}}
