{{/*
What follows from the settings: times that depend on each other are derived, and
refused in a sentence where they do not fit.
*/}}

{{/* holdfast.size 268435456: helm reads large numbers as 2.68435456e+08. */}}
{{- define "holdfast.size" -}}
{{- kindIs "string" . | ternary . (int64 . | toString) -}}
{{- end -}}

{{/* holdfast.millis "5s": milliseconds. */}}
{{- define "holdfast.millis" -}}
{{- $unit := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) (regexFind "[a-z]+$" .) -}}
{{- mul (regexFind "^[0-9]+" . | int64) $unit -}}
{{- end -}}

{{/* holdfast.seconds "1500ms": seconds, rounded up. */}}
{{- define "holdfast.seconds" -}}
{{- div (add (include "holdfast.millis" . | int64) 999) 1000 -}}
{{- end -}}

{{/* The longest that an orderly end may take. */}}
{{- define "holdfast.shutdownDeadline" -}}
{{- $config := .Values.config -}}
{{- $delay := include "holdfast.seconds" $config.shutdownDelay | int64 -}}
{{- add (mul 2 $delay) (include "holdfast.seconds" $config.shutdownTimeout | int64) 5 -}}
{{- end -}}

{{/*
holdfast.gracePeriod (list $ "api" 5): what is set, else the deadline and so many
seconds more.
*/}}
{{- define "holdfast.gracePeriod" -}}
{{- $ := index . 0 -}}
{{- $name := index . 1 -}}
{{- $deadline := include "holdfast.shutdownDeadline" $ | int64 -}}
{{- $set := (get $.Values $name).terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $set -}}
{{- add $deadline (index . 2) -}}
{{- else if le (int64 $set) $deadline -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d, but an orderly end may take %d s (2 x config.shutdownDelay + config.shutdownTimeout + 5s): set more, or leave it empty" $name (int64 $set) $deadline) -}}
{{- else -}}
{{- int64 $set -}}
{{- end -}}
{{- end -}}

{{/*
How long a data server must have been ready before the next one is replaced: more
than a heartbeat, so that every api has heard it.
*/}}
{{- define "holdfast.dataserverMinReady" -}}
{{- $heartbeat := include "holdfast.seconds" .Values.config.heartbeatInterval | int64 -}}
{{- $set := .Values.dataserver.minReadySeconds -}}
{{- if kindIs "invalid" $set -}}
{{- add $heartbeat 5 -}}
{{- else if le (int64 $set) $heartbeat -}}
{{- fail (printf "dataserver.minReadySeconds is %d, but must be above config.heartbeatInterval (%s): else the next data server stops before this one is heard" (int64 $set) .Values.config.heartbeatInterval) -}}
{{- else -}}
{{- int64 $set -}}
{{- end -}}
{{- end -}}

{{/*
What the schema cannot say. Refused here and not by the program: pods that crash
are a worse answer than a sentence.
*/}}
{{- define "holdfast.checks" -}}
{{- $config := .Values.config -}}
{{- $interval := include "holdfast.millis" $config.heartbeatInterval | int64 -}}
{{- if gt (mul 2 $interval) (include "holdfast.millis" $config.heartbeatExpiry | int64) -}}
{{- fail (printf "config.heartbeatExpiry (%s) must be at least twice config.heartbeatInterval (%s)" $config.heartbeatExpiry $config.heartbeatInterval) -}}
{{- end -}}
{{- if ge (include "holdfast.millis" $config.locateTimeout | int64) (include "holdfast.millis" $config.bodyTimeout | int64) -}}
{{- fail (printf "config.locateTimeout (%s) must be below config.bodyTimeout (%s)" $config.locateTimeout $config.bodyTimeout) -}}
{{- end -}}
{{- include "holdfast.copiesChecks" . -}}
{{- range $component := list "api" "dataserver" -}}
{{- range (get $.Values $component).extraEnv -}}
{{- $setting := get (fromYaml (include "holdfast.ownedVariables" $)) .name -}}
{{- if $setting -}}
{{- fail (printf "%s.extraEnv must not set %s: %s" $component .name $setting) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor would scrape every pod twice: enable one of them" -}}
{{- end -}}
{{- if and .Values.rabbitmq.enabled (or .Values.externalRabbitmq.host .Values.externalRabbitmq.existingSecret) -}}
{{- fail "externalRabbitmq is set, but rabbitmq.enabled is true: set rabbitmq.enabled=false to use the external broker" -}}
{{- end -}}
{{- end -}}

{{/*
The copies that a write waits for: what is set, else more than half.
*/}}
{{- define "holdfast.writeQuorum" -}}
{{- $set := .Values.config.writeQuorum -}}
{{- kindIs "invalid" $set | ternary (add (div (int .Values.config.replicas) 2) 1) $set -}}
{{- end -}}

{{/*
How many data servers may be away while every object is read and written: fewer
than the copies that a write waits for, and so few that as many are left.
*/}}
{{- define "holdfast.mayBeAway" -}}
{{- $quorum := include "holdfast.writeQuorum" . | int -}}
{{- max 0 (min (sub $quorum 1) (sub (int .Values.dataserver.replicaCount) $quorum)) -}}
{{- end -}}

{{/*
A schema could compare both numbers, with an `if` for each number of copies. But helm
looks at it first, and stops with "at '/dataserver/replicaCount': minimum: got 3, want
5", which names neither the copies nor what to do.
*/}}
{{- define "holdfast.copiesChecks" -}}
{{- $copies := int .Values.config.replicas -}}
{{- $dataservers := int .Values.dataserver.replicaCount -}}
{{- if lt $dataservers $copies -}}
{{- fail (printf "config.replicas is %d, but there are %d data servers (dataserver.replicaCount): no two copies of an object are on the same one, so set as many data servers, or fewer copies" $copies $dataservers) -}}
{{- end -}}
{{- $quorum := include "holdfast.writeQuorum" . | int -}}
{{- $least := add (div $copies 2) 1 | int -}}
{{- if or (lt $quorum $least) (gt $quorum $copies) -}}
{{- fail (printf "config.writeQuorum is %d: with config.replicas %d it is from %d, more than half, to %d" $quorum $copies $least $copies) -}}
{{- end -}}
{{- $budget := .Values.dataserver.podDisruptionBudget -}}
{{- if and $budget.enabled (ge $copies 2) -}}
{{/* At least one: else no node could ever be emptied. */}}
{{- $most := include "holdfast.mayBeAway" . | int | max 1 -}}
{{- $many := $budget.maxUnavailable -}}
{{/* Kubernetes rounds a percentage up. */}}
{{- if kindIs "string" $many -}}
{{- $many = div (add (mul (trimSuffix "%" $many | int) $dataservers) 99) 100 -}}
{{- end -}}
{{- if gt (int $many) $most -}}
{{- fail (printf "dataserver.podDisruptionBudget.maxUnavailable (%v) lets %d data servers be evicted at once, but with config.replicas %d%s only %d may be away" $budget.maxUnavailable (int $many) $copies (eq $quorum $least | ternary "" (printf " and config.writeQuorum %d" $quorum)) $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Variables that other parts of the chart depend on, and what to set instead.
*/}}
{{- define "holdfast.ownedVariables" -}}
LISTEN_ADDRESS: set <component>.containerPorts.http instead
ADMIN_LISTEN_ADDRESS: set <component>.containerPorts.admin instead
ADVERTISE_ADDRESS: it must be the pod's stable name
STORAGE_ROOT: it must be the data volume
INITIAL_MEMBERS: set dataserver.initialMembers instead
DATASERVER_PEERS: it must be the headless Service
HEARTBEAT_INTERVAL: set config.heartbeatInterval instead
HEARTBEAT_EXPIRY: set config.heartbeatExpiry instead
SHUTDOWN_DELAY: set config.shutdownDelay instead
SHUTDOWN_TIMEOUT: set config.shutdownTimeout instead
REPLICAS: set config.replicas instead
WRITE_QUORUM: set config.writeQuorum instead
{{- end -}}
