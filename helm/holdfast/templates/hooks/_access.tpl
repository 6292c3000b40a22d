{{/* What every object has that lets the hook do its work. */}}
{{- define "holdfast.growth.access" -}}
labels:
  {{- include "holdfast.labels" (list . "grow-volumes") | nindent 2 }}
annotations:
  helm.sh/hook: pre-upgrade
  helm.sh/hook-weight: "-10"
  # Gone after the upgrade, whether it went well or not: nothing that may patch
  # claims lies about.
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}
