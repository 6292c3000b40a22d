{{/* holdfast.bytes "512Mi": bytes of a Kubernetes quantity. */}}
{{- define "holdfast.bytes" -}}
{{- $quantity := toString . -}}
{{- if not (regexMatch "^[0-9]+(k|M|G|Ki|Mi|Gi)?$" $quantity) -}}
{{- fail (printf "rabbitmq.resources.limits.memory is %q: give it as a whole number with Mi or Gi, because the broker's watermark follows from it" $quantity) -}}
{{- end -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- mul (regexFind "^[0-9]+" $quantity | int64) (get $units (regexFind "[a-zA-Z]*$" $quantity)) -}}
{{- end -}}
