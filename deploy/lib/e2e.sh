# shellcheck shell=sh
# What the steps of e2e.sh have in common: the cluster, waiting, ports, a tree of
# files to store and compare, load from within the cluster. Sourced, not run.

: "${E2E_NAMESPACE:=holdfast-e2e}" "${E2E_RELEASE:=holdfast}" "${E2E_FILES:=200}"
: "${E2E_SIZE:=1Gi}" "${E2E_GROWN_SIZE:=2Gi}" "${E2E_TIMEOUT:=300}"
: "${E2E_CHART:=$here/../helm/holdfast}"
export E2E_NAMESPACE E2E_RELEASE E2E_FILES E2E_SIZE E2E_GROWN_SIZE E2E_TIMEOUT
export E2E_CHART E2E_CONTEXT E2E_IMAGE E2E_VALUES E2E_STORAGE_CLASS
E2E_CONTEXT=${E2E_CONTEXT:-} E2E_IMAGE=${E2E_IMAGE:-} E2E_VALUES=${E2E_VALUES:-}
E2E_STORAGE_CLASS=${E2E_STORAGE_CLASS:-} E2E_DATASERVERS=${E2E_DATASERVERS:-} E2E_COPIES=${E2E_COPIES:-}
export E2E_DATASERVERS E2E_COPIES

note() { printf '%s\n' "$*" >&2; }

die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

check_settings() {
    for tool in kubectl helm curl awk; do
        command -v "$tool" >/dev/null 2>&1 || die "$tool is needed"
    done
    for number in "$E2E_FILES" "$E2E_TIMEOUT" "${E2E_DATASERVERS:-1}" "${E2E_COPIES:-1}"; do
        case $number in
        '' | 0* | *[!0-9]*) die "'$number' is not a number of files, seconds, data servers or copies" ;;
        esac
    done
    # The last part of the name: a registry may have a port.
    case ${E2E_IMAGE:+${E2E_IMAGE##*/}} in
    *@* | *: | :*) die "E2E_IMAGE is '$E2E_IMAGE', and not a name with a tag" ;;
    *:*) ;;
    *) [ -z "$E2E_IMAGE" ] || die "E2E_IMAGE is '$E2E_IMAGE', and not a name with a tag" ;;
    esac
    [ -f "$E2E_CHART/Chart.yaml" ] || die "there is no chart in $E2E_CHART"
    cluster version >/dev/null || die "kubectl reaches no cluster"
}

# ---- the cluster

cluster() { kubectl ${E2E_CONTEXT:+--context "$E2E_CONTEXT"} "$@"; }

kube() { cluster --namespace "$E2E_NAMESPACE" "$@"; }

chart() { helm ${E2E_CONTEXT:+--kube-context "$E2E_CONTEXT"} --namespace "$E2E_NAMESPACE" "$@"; }

# deploy_chart install|upgrade ARGUMENT...: a drain takes longer than anything
# else, since it waits between its steps.
deploy_chart() {
    deploy_command=$1
    shift
    chart "$deploy_command" "$E2E_RELEASE" "$E2E_CHART" --wait --timeout "$((E2E_TIMEOUT * 4))s" "$@" >/dev/null
}

selector() { printf 'app.kubernetes.io/instance=%s,app.kubernetes.io/component=%s' "$E2E_RELEASE" "$1"; }

# workload KIND COMPONENT: its name; the chart may have been told other names.
workload() {
    workload_name=$(kube get "$1" --selector "$(selector "$2")" --output name)
    case $workload_name in
    */*) printf '%s\n' "$workload_name" ;;
    *) die "there is no $1 of the component $2" ;;
    esac
}

# replicas WORKLOAD: how many it asks for.
replicas() { kube get "$1" --output 'jsonpath={.spec.replicas}'; }

# copies: how many of each object.
copies() {
    kube get "$(workload statefulset dataserver)" --output \
        'jsonpath={.spec.template.spec.containers[*].env[?(@.name=="REPLICAS")].value}'
}

# wait_ready: until api, data servers and broker are as wanted and rolled out.
wait_ready() {
    for wanted in "$(workload deployment api)" "$(workload statefulset dataserver)" $(broker); do
        kube rollout status "$wanted" --timeout "${E2E_TIMEOUT}s" >/dev/null || die "$wanted is not ready"
    done
    until_true "every data server is an active member" all_active
}

# broker: the chart's broker, or nothing where an external one is used.
broker() { kube get statefulset --selector "$(selector rabbitmq)" --output name; }

# until_true WHAT COMMAND...: tries it until it succeeds or the time is over.
until_true() {
    until_what=$1
    shift
    until_deadline=$(($(date +%s) + E2E_TIMEOUT))
    while ! "$@"; do
        [ "$(date +%s)" -lt "$until_deadline" ] || die "not within $E2E_TIMEOUT s: $until_what"
        sleep 1
    done
}

# all_active: whether every api counts as many active members as there should be,
# and misses none: one that went without a drain would be silent.
all_active() {
    active_wanted=$(replicas "$(workload statefulset dataserver)")
    [ -n "$active_wanted" ] || return 1
    api_pods=$(kube get pods --selector "$(selector api)" --field-selector status.phase=Running --output name)
    [ -n "$api_pods" ] || return 1
    for pod in $api_pods; do
        forward "$pod" "$(admin_port "$pod")" || return 1
        active_count=$(fetch "$forward_url/metrics" | awk '
            $1 == "holdfast_dataservers{state=\"active\"}" { active = $2 }
            $1 ~ /^holdfast_dataservers\{state="(silent|lost|draining)"\}$/ { others += $2 }
            END { print active + 0, others + 0 }')
        stop_forward
        [ "$active_count" = "$active_wanted 0" ] || return 1
    done
}

admin_port() {
    kube get "$1" --output 'jsonpath={.spec.containers[0].ports[?(@.name=="admin")].containerPort}'
}

# pods: name, uid and restarts of each pod, one a line, to compare.
pods() {
    for component in "$@"; do
        kube get pods --selector "$(selector "$component")" --output \
            'jsonpath={range .items[*]}{.metadata.name}{" "}{.metadata.uid}{" "}{.status.containerStatuses[*].restartCount}{"\n"}{end}'
    done | sort
}

# no_restarts [BEFORE]: no container was started again within its pod since `pods`
# of all said BEFORE. A pod that was killed may have met the end of the one before.
no_restarts() {
    printf '%s\n' "${1:-}" >"$E2E_WORK/before"
    restarted=$(pods api dataserver rabbitmq | awk '
        NR == FNR { known[$0]; next }
        $3 > 0 && !($0 in known) { print $1 " (" $3 ")" }' "$E2E_WORK/before" -)
    [ -z "$restarted" ] || die "restarted containers:" "$restarted"
}

claims() {
    kube get persistentvolumeclaims --selector "$(selector dataserver)" --output \
        'jsonpath={range .items[*]}{.metadata.name}{" "}{.metadata.uid}{" "}{.spec.resources.requests.storage}{" "}{.status.capacity.storage}{"\n"}{end}' | sort
}

# ---- ports; one at a time

forward_pid=''

# forward TARGET PORT: a local port for it, in $forward_url.
forward() {
    stop_forward
    : >"$E2E_WORK/forward"
    kubectl ${E2E_CONTEXT:+--context "$E2E_CONTEXT"} --namespace "$E2E_NAMESPACE" \
        port-forward --address 127.0.0.1 "$1" ":$2" >"$E2E_WORK/forward" 2>"$E2E_WORK/forward.errors" &
    forward_pid=$!
    forward_deadline=$(($(date +%s) + 30))
    while kill -0 "$forward_pid" 2>/dev/null && [ "$(date +%s)" -lt "$forward_deadline" ]; do
        forward_port=$(sed -n 's/^Forwarding from 127\.0\.0\.1:\([0-9]*\) .*/\1/p' "$E2E_WORK/forward")
        if [ -n "$forward_port" ]; then
            forward_url=http://127.0.0.1:$forward_port
            return 0
        fi
        sleep 0.2 2>/dev/null || sleep 1
    done
    note "no port of $1: $(cat "$E2E_WORK/forward.errors")"
    stop_forward
    return 1
}

stop_forward() {
    [ -n "$forward_pid" ] || return 0
    kill "$forward_pid" 2>/dev/null || true
    wait "$forward_pid" 2>/dev/null || true
    forward_pid=''
}

# The logs that start_load follows.
followers=''

stop_children() {
    stop_forward
    for follower in $followers; do kill "$follower" 2>/dev/null || true; done
    followers=''
}

forward_api() {
    api_service=$(kube get services --selector "$(selector api)" --output \
        'jsonpath={range .items[*]}{.metadata.name}{" "}{.spec.ports[?(@.name=="http")].port}{"\n"}{end}' |
        awk 'NF == 2 { print; exit }')
    [ -n "$api_service" ] || die "there is no Service of the api with a port 'http'"
    forward "service/${api_service% *}" "${api_service#* }"
}

fetch() { curl -q --silent --show-error --fail --noproxy '*' --max-time 60 "$@"; }

# status_of URL [ARGUMENT...]: the HTTP status, 000 for none.
status_of() { curl -q --silent --noproxy '*' --max-time 60 --output /dev/null --write-out '%{http_code}' "$@" || true; }

# ---- a tree of files, the same at every call

# make_tree: the files in $E2E_WORK/tree/NUMBER, and their sums.
make_tree() {
    [ ! -d "$E2E_WORK/tree" ] || return 0
    mkdir "$E2E_WORK/tree.new"
    # One of 20 MB, empty ones, and sizes on both sides of what the log takes.
    awk -v files="$E2E_FILES" -v dir="$E2E_WORK/tree.new" 'BEGIN {
        split("0 1 100 1000 11900 12000 60000", tokens, " ")
        for (i = 1; i <= files; i++) {
            count = (i == 1) ? 2000000 : tokens[i % 7 + 1]
            file = dir "/" i
            printf "" >file
            x = i
            for (n = 0; n < count; n++) {
                x = (x * 69069 + 1) % 4294967296
                printf "%010d\n", x >file
            }
            close(file)
        }
    }'
    (cd "$E2E_WORK/tree.new" && sums ./*) >"$E2E_WORK/sums"
    mv "$E2E_WORK/tree.new" "$E2E_WORK/tree"
}

# sums FILE...: SHA-256 where there is a program for it, else what POSIX has.
sums() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum "$@"
    elif command -v shasum >/dev/null 2>&1; then
        shasum -a 256 "$@"
    else
        cksum "$@"
    fi
}

# object NUMBER: its name; some with a space and a letter beyond ASCII.
object() { printf 'tree/dir-%d/file%%20%%C3%%A4-%d' $(($1 % 10)) "$1"; }

# get_config PATH NUMBERS: curl's configuration to get objects/ or locate/ of them
# into back/.
get_config() {
    for number in $2; do
        printf 'url = "%s/%s/%s"\noutput = "%s/back/%d"\n' "$forward_url" "$1" \
            "$(object "$number")" "$E2E_WORK" "$number"
    done
}

store_tree() {
    make_tree
    forward_api
    numbers >"$E2E_WORK/todo"
    while read -r number; do
        printf 'url = "%s/objects/%s"\nupload-file = "%s"\noutput = "/dev/null"\n' "$forward_url" \
            "$(object "$number")" "$E2E_WORK/tree/$number"
    done <"$E2E_WORK/todo" >"$E2E_WORK/put.config"
    curl -q --silent --show-error --noproxy '*' --write-out '%{http_code}\n' \
        --config "$E2E_WORK/put.config" >"$E2E_WORK/put.codes" || true
    stop_forward
    stored=$(grep -c '^200$' "$E2E_WORK/put.codes" || true)
    [ "$stored" = "$E2E_FILES" ] || die "$stored of $E2E_FILES files were stored"
    note "stored $stored files"
}

numbers() { awk -v files="$E2E_FILES" 'BEGIN { for (i = 1; i <= files; i++) print i }'; }

# verify_tree: every file comes back with its sum. A 404 or another content is a
# loss and fails at once; what else is not served is tried until the time is over.
verify_tree() {
    make_tree
    rm -rf "$E2E_WORK/back"
    mkdir "$E2E_WORK/back"
    numbers >"$E2E_WORK/todo"
    until_true "the whole tree is served" read_back
    (cd "$E2E_WORK/back" && sums ./*) >"$E2E_WORK/sums.back"
    cmp -s "$E2E_WORK/sums" "$E2E_WORK/sums.back" || {
        diff "$E2E_WORK/sums" "$E2E_WORK/sums.back" >&2 || true
        die "what came back is not what was stored"
    }
    rm -rf "$E2E_WORK/back"
    note "verified $E2E_FILES files"
}

# read_back: reads what is in todo, and leaves there what was not served.
read_back() {
    forward_api || return 1
    read_numbers "$(cat "$E2E_WORK/todo")"
    stop_forward
    if grep ' 404$' "$E2E_WORK/get.codes" >&2; then die "objects are gone: 404"; fi
    awk '$2 != 200 { print $1 }' "$E2E_WORK/get.codes" >"$E2E_WORK/todo"
    [ ! -s "$E2E_WORK/todo" ]
}

# read_numbers NUMBERS [PATH]: into back/; "number status" of each in get.codes.
read_numbers() {
    # curl makes no file for an empty body.
    for number in $1; do : >"$E2E_WORK/back/$number"; done
    get_config "${2:-objects}" "$1" >"$E2E_WORK/get.config"
    curl -q --silent --noproxy '*' --write-out '%{filename_effective} %{http_code}\n' \
        --config "$E2E_WORK/get.config" 2>/dev/null | sed 's|.*/||' >"$E2E_WORK/get.codes" || true
    [ "$(wc -l <"$E2E_WORK/get.codes")" -eq "$(printf '%s\n' "$1" | wc -l)" ] || die "curl left files out"
}

# ---- load from within the cluster

# start_load NAME [ARGUMENT...]: a Job that stores, reads and deletes through the
# Service, with kept connections and without; returns when it is under way.
start_load() {
    load_name=$1
    shift
    load_image=$(kube get "$(workload deployment api)" --output 'jsonpath={.spec.template.spec.containers[0].image}')
    load_pull=$(kube get "$(workload deployment api)" --output 'jsonpath={.spec.template.spec.containers[0].imagePullPolicy}')
    load_secrets=$(kube get "$(workload deployment api)" --output 'jsonpath={.spec.template.spec.imagePullSecrets}')
    load_service=$(kube get services --selector "$(selector api)" --output \
        'jsonpath={range .items[*]}{.metadata.name}{" "}{.spec.ports[?(@.name=="http")].port}{"\n"}{end}' |
        awk 'NF == 2 { print $1 ":" $2; exit }')
    load_extra=''
    for argument in "$@"; do load_extra="$load_extra, \"$argument\""; done
    for manner in keep-alive no-keep-alive; do
        kube delete job "load-$load_name-$manner" --ignore-not-found --wait >/dev/null
        kube apply --filename - >/dev/null <<JOB
apiVersion: batch/v1
kind: Job
metadata: {name: load-$load_name-$manner}
spec:
  backoffLimit: 0
  template:
    metadata:
      labels: {app.kubernetes.io/name: holdfast-e2e, job: load-$load_name-$manner}
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 30
      imagePullSecrets: ${load_secrets:-[]}
      securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: load
          image: "$load_image"
          imagePullPolicy: $load_pull
          command: [/usr/local/bin/holdfastctl, load, --api, "http://$load_service", --clients, "4", --for, 6h, --json, --prefix, "load-$load_name-$manner", --$manner$load_extra]
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
          # Bounded: on one node it must not starve what it looks at.
          resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {cpu: 250m, memory: 256Mi}}
JOB
        until_true "the load runs" load_phase "load-$load_name-$manner" Running
        # Not by kube, which would be a shell of its own to kill.
        kubectl ${E2E_CONTEXT:+--context "$E2E_CONTEXT"} --namespace "$E2E_NAMESPACE" \
            logs --follow "job/load-$load_name-$manner" >"$E2E_WORK/load-$load_name-$manner" 2>&1 &
        followers="$followers $!"
    done
}

# load_phase JOB PHASE: whether its pod is in it.
load_phase() {
    [ "$(kube get pods --selector "job=$1" --output 'jsonpath={.items[*].status.phase}')" = "$2" ]
}

# end_load NAME: ends it, shows what it saw, and fails if a request did.
end_load() {
    for manner in keep-alive no-keep-alive; do
        load_phase "load-$1-$manner" Running || die "the load ended before its time"
        # SIGTERM makes it sum up, which the log that is being followed shows.
        kube delete job "load-$1-$manner" --cascade=foreground --wait >/dev/null
    done
    for manner in keep-alive no-keep-alive; do
        load_log=$E2E_WORK/load-$1-$manner
        until_true "the load sums up ($manner)" grep -q '^{"seconds":' "$load_log"
        grep '^{"seconds":' "$load_log" >&2
        load_counts=$(sed -n 's/^{"seconds":[^,]*,"requests":\([0-9]*\),"failed":\([0-9]*\),.*/\1 \2/p' "$load_log")
        case $load_counts in
        '0 '*) die "the load sent nothing ($manner)" ;;
        *' 0') note "load, $manner: ${load_counts% *} requests, none failed" ;;
        *)
            cat "$load_log" >&2
            die "requests failed ($manner)"
            ;;
        esac
    done
    stop_children
}

# write_small_values: what pods ask for at the least. Five data servers, three apis
# and one more while they are rolled then fit on a node of two cores, beside what the
# cluster itself runs there. Limits stay the chart's.
write_small_values() {
    cat >"$E2E_WORK/small.yaml" <<VALUES
api: {resources: {requests: {cpu: 20m, memory: 64Mi}}}
dataserver: {resources: {requests: {cpu: 50m, memory: 128Mi}}}
rabbitmq: {resources: {requests: {cpu: 50m, memory: 256Mi}}}
VALUES
}

# ---- the namespace, which a label marks as ours to remove

make_namespace() {
    [ -z "$(cluster get namespace "$E2E_NAMESPACE" --ignore-not-found --output name)" ] || return 0
    cluster create namespace "$E2E_NAMESPACE" >/dev/null
    cluster label namespace "$E2E_NAMESPACE" "holdfast.dev/e2e=$E2E_RELEASE" \
        pod-security.kubernetes.io/enforce=restricted >/dev/null
}

diagnose() {
    note "---- the state of the cluster:"
    {
        kube get all,persistentvolumeclaims --output wide
        kube get events --sort-by .lastTimestamp | tail -n 40
        for pod in $(kube get pods --output name); do
            printf -- '---- %s\n' "$pod"
            kube logs "$pod" --all-containers --tail 30 || true
            kube logs "$pod" --all-containers --tail 15 --previous 2>/dev/null || true
        done
    } >&2 2>&1 || true
}

# clean: the release, and the namespace if it is ours; the claims go with it.
clean() {
    chart uninstall "$E2E_RELEASE" --wait --timeout "${E2E_TIMEOUT}s" >/dev/null 2>&1 || true
    [ "$(cluster get namespace "$E2E_NAMESPACE" --ignore-not-found --output "jsonpath={.metadata.labels.holdfast\.dev/e2e}")" = "$E2E_RELEASE" ] || return 0
    cluster delete namespace "$E2E_NAMESPACE" --wait --timeout "${E2E_TIMEOUT}s" >/dev/null
}
