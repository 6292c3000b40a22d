{{/*
How services reach the broker. The program takes the password as it is; nothing
is encoded here.
*/}}

{{- define "holdfast.broker.name" -}}
{{- include "holdfast.component" (list . "rabbitmq") -}}
{{- end -}}

{{/* The Secret with user and password that the chart's broker and services read. */}}
{{- define "holdfast.broker.secret" -}}
{{- default (include "holdfast.broker.name" .) .Values.rabbitmq.auth.existingSecret -}}
{{- end -}}

{{- define "holdfast.external.secret" -}}
{{- default (include "holdfast.component" (list . "external-rabbitmq")) .Values.externalRabbitmq.existingSecret -}}
{{- end -}}

{{- define "holdfast.external.port" -}}
{{- default (ternary 5671 5672 .Values.externalRabbitmq.tls) .Values.externalRabbitmq.port -}}
{{- end -}}

{{/* holdfast.secretVariable (list name secret key) */}}
{{- define "holdfast.secretVariable" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end -}}

{{- define "holdfast.broker.environment" -}}
{{- if .Values.rabbitmq.enabled }}
{{- $auth := .Values.rabbitmq.auth }}
{{- $secret := include "holdfast.broker.secret" . }}
- name: RABBITMQ_HOST
  value: {{ printf "%s.%s.svc.%s" (include "holdfast.broker.name" .) .Release.Namespace .Values.clusterDomain }}
- name: RABBITMQ_PORT
  value: "5672"
{{ include "holdfast.secretVariable" (list "RABBITMQ_USERNAME" $secret $auth.existingSecretUsernameKey) }}
{{ include "holdfast.secretVariable" (list "RABBITMQ_PASSWORD" $secret $auth.existingSecretPasswordKey) }}
{{- else }}
{{- $external := .Values.externalRabbitmq }}
{{- $secret := include "holdfast.external.secret" . }}
{{- if and $external.existingSecret $external.existingSecretUriKey }}
{{ include "holdfast.secretVariable" (list "RABBITMQ_SERVER" $secret $external.existingSecretUriKey) }}
{{- else }}
- name: RABBITMQ_HOST
  value: {{ $external.host | quote }}
- name: RABBITMQ_PORT
  value: {{ include "holdfast.external.port" . | quote }}
- name: RABBITMQ_VHOST
  value: {{ $external.vhost | quote }}
- name: RABBITMQ_TLS
  value: {{ $external.tls | quote }}
{{- if and $external.existingSecret $external.existingSecretUsernameKey }}
{{ include "holdfast.secretVariable" (list "RABBITMQ_USERNAME" $secret $external.existingSecretUsernameKey) }}
{{- else }}
- name: RABBITMQ_USERNAME
  value: {{ $external.username | quote }}
{{- end }}
{{ include "holdfast.secretVariable" (list "RABBITMQ_PASSWORD" $secret (ternary $external.existingSecretPasswordKey "password" (not (empty $external.existingSecret)))) }}
{{- end }}
{{- with $external.caSecret }}
- name: SSL_CERT_FILE
  value: /etc/holdfast/broker-ca/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{/* The certificate authority of an external broker. */}}
{{- define "holdfast.broker.volumes" -}}
{{- if and (not .Values.rabbitmq.enabled) .Values.externalRabbitmq.caSecret }}
- name: broker-ca
  secret:
    secretName: {{ .Values.externalRabbitmq.caSecret }}
    items:
      - key: {{ .Values.externalRabbitmq.caSecretKey }}
        path: ca.crt
{{- end }}
{{- end -}}

{{- define "holdfast.broker.volumeMounts" -}}
{{- if and (not .Values.rabbitmq.enabled) .Values.externalRabbitmq.caSecret }}
- name: broker-ca
  mountPath: /etc/holdfast/broker-ca
  readOnly: true
{{- end }}
{{- end -}}

{{/*
holdfast.environmentFrom (list $ .Values.api): settings from the ConfigMap, then
what the user adds. Single variables win over both.
*/}}
{{- define "holdfast.environmentFrom" -}}
- configMapRef:
    name: {{ include "holdfast.component" (list (first .) "config") }}
{{- with (last .).extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
A restart when a setting changes. Generated passwords never change, and Secrets of
others are not read here: restart the pods when you change one.
*/}}
{{- define "holdfast.checksums" -}}
checksum/config: {{ include (print $.Template.BasePath "/config.yaml") . | sha256sum }}
{{- $auth := .Values.rabbitmq.auth }}
checksum/secret: {{ toJson (list .Values.externalRabbitmq.password $auth.username $auth.password) | sha256sum }}
{{- end -}}
