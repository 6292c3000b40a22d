{{/*
holdfast.hook.access (list $ "grow-volumes" "-10" "pre-upgrade"): what every object
has that lets a hook do its work.
*/}}
{{- define "holdfast.hook.access" -}}
{{- $ := index . 0 -}}
labels:
  {{- include "holdfast.labels" (list $ (index . 1)) | nindent 2 }}
annotations:
  helm.sh/hook: {{ index . 3 }}
  helm.sh/hook-weight: {{ index . 2 | quote }}
  # Gone after the upgrade, whether it went well or not: nothing that may change
  # something lies about.
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}

{{/*
holdfast.hook.account (list $ "grow-volumes" "-10" "pre-upgrade"): a service account,
and the binding to the Role of its name.
*/}}
{{- define "holdfast.hook.account" -}}
{{- $ := index . 0 -}}
{{- $name := include "holdfast.component" (list $ (index . 1)) -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $.Release.Namespace }}
  {{- include "holdfast.hook.access" . | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $.Release.Namespace }}
  {{- include "holdfast.hook.access" . | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $.Release.Namespace }}
{{- end -}}
