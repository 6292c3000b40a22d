{{/*
What follows from the settings: times that depend on each other are derived, and
refused in a sentence where they do not fit.
*/}}

{{/* holdfast.size 268435456: helm reads large numbers as 2.68435456e+08. */}}
{{- define "holdfast.size" -}}
{{- kindIs "string" . | ternary . (int64 . | toString) -}}
{{- end -}}

{{/* holdfast.sizeInBytes "32MiB": the same as a number. int64 would take 010 for octal. */}}
{{- define "holdfast.sizeInBytes" -}}
{{- $size := include "holdfast.size" . -}}
{{- $unit := get (dict "" 1 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 "TiB" 1099511627776) (regexFind "[KMGT]iB$" $size) -}}
{{- mul (regexFind "^[0-9]+" $size | atoi) $unit -}}
{{- end -}}

{{/* holdfast.millis "5s": milliseconds. */}}
{{- define "holdfast.millis" -}}
{{- $unit := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) (regexFind "[a-z]+$" .) -}}
{{- mul (regexFind "^[0-9]+" . | atoi) $unit -}}
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
{{- include "holdfast.timesChecks" . -}}
{{- include "holdfast.volumeChecks" . -}}
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
Durations, alone and against each other. A lookup and a write take what the program
says: two lookups and a write of 20 s must end before the shutdown does, and before
the 60 s are over for which a received payload waits.
*/}}
{{- define "holdfast.timesChecks" -}}
{{- $config := .Values.config -}}
{{- range $key := list "heartbeatInterval" "heartbeatExpiry" "locateTimeout" "shutdownTimeout" "headerTimeout" "bodyTimeout" -}}
{{- if eq 0 (include "holdfast.millis" (get $config $key) | int) -}}
{{- fail (printf "config.%s is %s, but must be longer than 0: set more, or leave it out" $key (get $config $key)) -}}
{{- end -}}
{{- end -}}
{{- $interval := include "holdfast.millis" $config.heartbeatInterval | int64 -}}
{{- $expiry := include "holdfast.millis" $config.heartbeatExpiry | int64 -}}
{{- if gt (mul 2 $interval) $expiry -}}
{{- fail (printf "config.heartbeatExpiry (%s) must be at least twice config.heartbeatInterval (%s)" $config.heartbeatExpiry $config.heartbeatInterval) -}}
{{- end -}}
{{- $locate := include "holdfast.millis" $config.locateTimeout | int64 -}}
{{- if ge $locate (include "holdfast.millis" $config.bodyTimeout | int64) -}}
{{- fail (printf "config.locateTimeout (%s) must be below config.bodyTimeout (%s)" $config.locateTimeout $config.bodyTimeout) -}}
{{- end -}}
{{- $longest := add (mul 2 $locate) 20000 -}}
{{- if ge $longest 60000 -}}
{{- fail (printf "config.locateTimeout is %s, but two lookups and a write (2 x config.locateTimeout + 20s) must take less than the 60s for which a received payload waits: set less than 20s" $config.locateTimeout) -}}
{{- end -}}
{{- if ge $longest (include "holdfast.millis" $config.shutdownTimeout | int64) -}}
{{- fail (printf "config.shutdownTimeout is %s, but two lookups and a write may take %d ms (2 x config.locateTimeout + 20s): set more, or a shorter config.locateTimeout" $config.shutdownTimeout $longest) -}}
{{- end -}}
{{- $dataserver := .Values.dataserver -}}
{{- if le (include "holdfast.millis" $dataserver.repairDelay | int64) $expiry -}}
{{- fail (printf "dataserver.repairDelay (%s) must be longer than config.heartbeatExpiry (%s): set it longer than a restart takes, so that who is late is not given up" $dataserver.repairDelay $config.heartbeatExpiry) -}}
{{- end -}}
{{- if lt (include "holdfast.millis" $dataserver.repairInterval | int64) 1000 -}}
{{- fail (printf "dataserver.repairInterval is %s: set 1s or more" $dataserver.repairInterval) -}}
{{- end -}}
{{- end -}}

{{/* Sizes of the volume, and what is read and copied a second. */}}
{{- define "holdfast.volumeChecks" -}}
{{- $dataserver := .Values.dataserver -}}
{{- $bytes := dict -}}
{{- range $key := list "inlineLimitBytes" "segmentBytes" "compactionRateBytes" "repairRateBytes" -}}
{{- $_ := set $bytes $key (include "holdfast.sizeInBytes" (get $dataserver $key) | int64) -}}
{{- end -}}
{{- range $key := list "compactionRateBytes" "repairRateBytes" -}}
{{- if lt (get $bytes $key) 1048576 -}}
{{- fail (printf "dataserver.%s is %s: set 1MiB or more" $key (include "holdfast.size" (get $dataserver $key))) -}}
{{- end -}}
{{- end -}}
{{- if or (lt $bytes.segmentBytes 1048576) (gt $bytes.segmentBytes 2147483648) -}}
{{- fail (printf "dataserver.segmentBytes is %s: set 1MiB to 2GiB" (include "holdfast.size" $dataserver.segmentBytes)) -}}
{{- end -}}
{{- if gt $bytes.inlineLimitBytes 16777216 -}}
{{- fail (printf "dataserver.inlineLimitBytes is %s: set 16MiB or less" (include "holdfast.size" $dataserver.inlineLimitBytes)) -}}
{{- end -}}
{{- if gt (mul 2 $bytes.inlineLimitBytes) $bytes.segmentBytes -}}
{{- fail (printf "dataserver.inlineLimitBytes (%s) is more than half of dataserver.segmentBytes (%s): set less, or longer segments" (include "holdfast.size" $dataserver.inlineLimitBytes) (include "holdfast.size" $dataserver.segmentBytes)) -}}
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
