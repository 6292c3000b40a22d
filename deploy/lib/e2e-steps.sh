# shellcheck shell=sh disable=SC2154
# The steps of e2e.sh. Each runs in a shell of its own, ends with every object
# verified, and leaves the cluster as it found it but for what it is about.
# Sourced, not run.

step_install() {
    make_namespace
    ! chart status "$E2E_RELEASE" >/dev/null 2>&1 ||
        die "a release $E2E_RELEASE is there already: 'deploy/e2e.sh clean' removes it"
    write_small_values
    set -- --values "$E2E_WORK/small.yaml" --set "dataserver.persistence.size=$E2E_SIZE"
    [ -z "$E2E_STORAGE_CLASS" ] || set -- "$@" --set "dataserver.persistence.storageClass=$E2E_STORAGE_CLASS"
    [ -z "$E2E_IMAGE" ] || set -- "$@" --set image.registry= --set "image.repository=${E2E_IMAGE%:*}" \
        --set-string "image.tag=${E2E_IMAGE##*:}"
    [ -z "$E2E_VALUES" ] || set -- "$@" --values "$E2E_VALUES"
    [ -z "$E2E_DATASERVERS" ] || set -- "$@" --set "dataserver.replicaCount=$E2E_DATASERVERS"
    [ -z "$E2E_COPIES" ] || set -- "$@" --set "config.replicas=$E2E_COPIES"
    deploy_chart install "$@"
    wait_ready
    no_restarts
    kube get pods --output wide >&2
}

# Without --logs: most releases of helm look for the pod after they have deleted it,
# as its policy says, and fail. One that failed stays, and is shown at the end.
step_test() {
    chart test "$E2E_RELEASE" --timeout "${E2E_TIMEOUT}s" >&2
}

step_tree() {
    forward_api
    object_url=$forward_url/objects/e2e/hello
    printf 'hello' | fetch --upload-file - "$object_url" >/dev/null
    [ "$(fetch "$object_url")" = hello ] || die "another content came back"
    [ "$(fetch --range 1-3 "$object_url")" = ell ] || die "another range came back"
    fetch --request DELETE "$object_url" >/dev/null
    [ "$(status_of "$object_url")" = 404 ] || die "a deleted object is still there"
    stop_forward
    store_tree
    verify_tree
}

# restart WORKLOAD: all its pods, as its strategy says.
restart() {
    kube rollout restart "$1" >/dev/null
    kube rollout status "$1" --timeout "${E2E_TIMEOUT}s" >/dev/null || die "$1 is not back"
}

# start_data_load NAME: while data servers are rolled. With two copies or more a
# client sees nothing; with one, what a data server alone holds cannot be read or
# told for a while.
start_data_load() {
    if [ "$(copies)" -gt 1 ]; then
        start_load "$1"
    else
        start_load "$1" --allow incomplete --allow read-failed
    fi
}

step_roll() {
    all_before=$(pods api dataserver rabbitmq)
    roll_broker=$(broker)
    # Of the apis and of the broker, a client sees nothing.
    start_load roll
    restart "$(workload deployment api)"
    [ -z "$roll_broker" ] || restart "$roll_broker"
    wait_ready
    end_load roll
    start_data_load roll-data
    restart "$(workload statefulset dataserver)"
    wait_ready
    end_load roll-data
    no_restarts "$all_before"
    verify_tree
}

# kill_pods POD...: no warning, no grace.
kill_pods() {
    kube delete "$@" --grace-period=0 --force --wait=false >/dev/null 2>&1 || die "$* could not be deleted"
}

first_pod() { kube get pods --selector "$(selector "$1")" --output name | sed -n 1p; }

# replaced BEFORE COMPONENT: whether no pod of it is left of those before.
replaced() {
    pods "$2" >"$E2E_WORK/pods.now"
    # An API server that does not answer has shown nothing.
    [ -s "$E2E_WORK/pods.now" ] || return 1
    printf '%s\n' "$1" | awk 'NR == FNR { old[$2]; next } $2 in old { found = 1 } END { exit found }' \
        - "$E2E_WORK/pods.now"
}

step_kill() {
    for victim in dataserver api; do
        kill_before=$(first_pod "$victim")
        kill_uid=$(kube get "$kill_before" --output 'jsonpath={.metadata.name} {.metadata.uid}')
        kill_pods "$kill_before"
        until_true "$kill_before is replaced" replaced "$kill_uid" "$victim"
        wait_ready
        verify_tree
    done
    kill_all=$(pods dataserver)
    # shellcheck disable=SC2046 # one word a pod
    kill_pods $(kube get pods --selector "$(selector dataserver)" --output name)
    until_true "all data servers are replaced" replaced "$kill_all" dataserver
    wait_ready
    verify_tree
}

pod_gone() { [ -z "$(kube get pod "$1" --ignore-not-found --output name)" ]; }

# where_objects_are: "number address" of each file, in $E2E_WORK/located.
where_objects_are() {
    make_tree
    rm -rf "$E2E_WORK/back"
    mkdir "$E2E_WORK/back"
    forward_api
    read_numbers "$(numbers)" locate
    stop_forward
    ! grep -v ' 200$' "$E2E_WORK/get.codes" >&2 || die "not every object was located"
    for number in $(numbers); do
        printf '%d %s\n' "$number" "$(tr -d '"' <"$E2E_WORK/back/$number")"
    done >"$E2E_WORK/located"
}

# retired: how many data servers have retired, as an api tells.
retired() {
    retired_pod=$(first_pod api)
    forward "$retired_pod" "$(admin_port "$retired_pod")" || die "no admin port of $retired_pod"
    fetch "$forward_url/admin/dataservers" |
        awk '{ count += gsub(/"state": *"retired"/, "") } END { print count + 0 }'
    stop_forward
}

step_scale() {
    scale_set=$(workload statefulset dataserver)
    scale_from=$(replicas "$scale_set")
    scale_to=$((scale_from + 2))
    scale_apis=$(($(replicas "$(workload deployment api)") + 1))
    all_before=$(pods api dataserver rabbitmq)
    scale_before=$(pods dataserver)
    scale_retired=$(retired)
    deploy_chart upgrade --reuse-values --set "dataserver.replicaCount=$scale_to" --set "api.replicaCount=$scale_apis"
    wait_ready
    [ "$(replicas "$scale_set")" = "$scale_to" ] || die "there is no new data server"
    # The pods that were there are not restarted for a newcomer's sake.
    still_there "$scale_before"
    no_restarts "$all_before"
    verify_tree
    scale_claims=$(claims)
    # Fewer than copies: refused before anything happens.
    if deploy_chart upgrade --reuse-values --set dataserver.replicaCount=1 --set config.replicas=2 2>"$E2E_WORK/refused"; then
        die "the chart took fewer data servers than copies"
    fi
    grep -q 'there are 1 data servers' "$E2E_WORK/refused" || die "refused without a reason: $(cat "$E2E_WORK/refused")"
    deploy_chart upgrade --reuse-values --set "dataserver.replicaCount=$scale_from"
    # Not one of them is missed, so all have handed over and retired.
    wait_ready
    [ "$(retired)" = $((scale_retired + 2)) ] || die "the data servers that went have not retired"
    still_there "$scale_before"
    [ "$(claims)" = "$scale_claims" ] || die "claims of data servers that went were touched"
    no_restarts "$all_before"
    verify_tree
}

# still_there PODS: fails when one of these was replaced.
still_there() {
    pods dataserver >"$E2E_WORK/pods.now"
    printf '%s\n' "$1" | while read -r line; do
        grep -qxF "$line" "$E2E_WORK/pods.now" || die "a data server was replaced: $line"
    done
}

# One more than there was is added and taken away, so that what remains suffices
# for the copies. Not by kubectl: the field is helm's, and helm 4 would see a
# conflict. Without the hook it comes to the same.
step_away() {
    away_set=$(workload statefulset dataserver)
    away_count=$(replicas "$away_set")
    away_pod=${away_set#*/}-$away_count
    deploy_chart upgrade --reuse-values --set "dataserver.replicaCount=$((away_count + 1))"
    wait_ready
    # New versions of all, so that some are on it.
    store_tree
    where_objects_are
    on_it=$(awk -v pod="$away_pod." 'index($2, pod) == 1 { print $1 }' "$E2E_WORK/located")
    elsewhere=$(awk -v pod="$away_pod." 'index($2, pod) != 1 { print $1 }' "$E2E_WORK/located")
    [ -n "$elsewhere" ] || die "every object is on $away_pod"
    deploy_chart upgrade --reuse-values --set "dataserver.replicaCount=$away_count,scaleDown.enabled=false"
    until_true "$away_pod is gone" pod_gone "$away_pod"
    forward_api
    if [ "$(copies)" -gt 1 ]; then
        # At once, and every one of them.
        read_numbers "$(numbers)"
        ! grep -v ' 200$' "$E2E_WORK/get.codes" >&2 || die "not every object is served"
        [ "$(status_of "$forward_url/objects/e2e/never")" = 404 ] || die "an absence cannot be told"
    else
        read_numbers "$elsewhere"
        ! grep -v ' 200$' "$E2E_WORK/get.codes" >&2 || die "objects of others are not served"
        if [ -n "$on_it" ]; then
            read_numbers "$on_it"
            ! grep -v ' 503$' "$E2E_WORK/get.codes" >&2 || die "an object that is away is not answered 503"
        else
            note "$away_pod held no object"
        fi
        note "served: $(printf '%s\n' "$elsewhere" | wc -l) objects of others"
    fi
    printf 'meanwhile' | fetch --upload-file - "$forward_url/objects/e2e/meanwhile" >/dev/null
    [ "$(fetch "$forward_url/objects/e2e/meanwhile")" = meanwhile ] || die "a write was lost"
    stop_forward
    # Back with its volume, it is heard again; and now it is taken away as it should.
    deploy_chart upgrade --reuse-values --set "dataserver.replicaCount=$((away_count + 1)),scaleDown.enabled=true"
    wait_ready
    verify_tree
    deploy_chart upgrade --reuse-values --set "dataserver.replicaCount=$away_count"
    wait_ready
    # An empty volume that nobody mounts: some drivers could not let it grow.
    claims | awk -v count="$away_count" '{ ordinal = $1; sub(/.*-/, "", ordinal) } ordinal + 0 >= count { print $1 }' |
        while read -r claim; do kube delete persistentvolumeclaim "$claim" >/dev/null; done
    verify_tree
}

step_broker() {
    broker_set=$(broker)
    if [ -z "$broker_set" ]; then
        note "Skipped: the broker is not this release's."
        return 0
    fi
    broker_before=$(pods api dataserver)
    start_load broker
    kube scale "$broker_set" --replicas 0 >/dev/null
    until_true "the broker is gone" pod_gone "${broker_set#*/}-0"
    # Without it, from the start: an api that knows nothing yet, and a data server.
    verify_tree
    [ "$(pods api dataserver)" = "$broker_before" ] || die "the broker's absence restarted a pod"
    kube scale "$broker_set" --replicas 1 >/dev/null
    wait_ready
    until_true "every api is connected again" all_connected
    end_load broker
    [ "$(pods api dataserver)" = "$broker_before" ] || die "the broker's return restarted a pod"
    verify_tree
}

# all_connected: whether every api hears its own messages through the broker.
all_connected() {
    api_pods=$(kube get pods --selector "$(selector api)" --output name)
    [ -n "$api_pods" ] || return 1
    for pod in $api_pods; do
        forward "$pod" "$(admin_port "$pod")" || return 1
        connected=$(fetch "$forward_url/metrics" | awk '$1 == "holdfast_broker_connected" { print $2 }')
        stop_forward
        [ "$connected" = 1 ] || return 1
    done
}

step_upgrade() {
    all_before=$(pods api dataserver rabbitmq)
    upgrade_before=$(pods api)
    start_load upgrade
    deploy_chart upgrade --reuse-values --set-string "api.podAnnotations.e2e=$(date +%s)" \
        --set api.resources.requests.cpu=60m
    wait_ready
    end_load upgrade
    # Those that are on their way out are listed until they are gone.
    until_true "the upgrade has replaced every api" replaced "$upgrade_before" api
    upgrade_before=$(pods dataserver)
    # A setting of all: data servers are rolled, too.
    start_data_load upgrade-all
    deploy_chart upgrade --reuse-values --set config.locateTimeout=1500ms
    wait_ready
    end_load upgrade-all
    until_true "the upgrade has replaced every data server" replaced "$upgrade_before" dataserver
    no_restarts "$all_before"
    verify_tree
}

# grown [asked]: whether every claim has the new size, in what it asks for and what
# it has; or only in the former.
grown() {
    [ -n "$(claims)" ] && [ -z "$(claims |
        awk -v size="$E2E_GROWN_SIZE" -v asked="${1:-}" '$3 != size || (asked == "" && $4 != size)')" ]
}

# nobody_resizes CLASS: whether it is of a provisioner for clusters of one node whose
# volumes are directories: such a class may allow growth, and nothing comes of it.
nobody_resizes() {
    case $(cluster get storageclass "$1" --output 'jsonpath={.provisioner}') in
    rancher.io/local-path | */local-path | k8s.io/minikube-hostpath | microk8s.io/hostpath | docker.io/hostpath) ;;
    *) return 1 ;;
    esac
}

step_grow() {
    grow_set=$(workload statefulset dataserver)
    grow_class=$(kube get persistentvolumeclaims --selector "$(selector dataserver)" \
        --output 'jsonpath={.items[0].spec.storageClassName}')
    grow_before=$(pods dataserver)
    claims_before=$(claims)
    grow_uid=$(kube get "$grow_set" --output 'jsonpath={.metadata.uid}')
    if [ "$(cluster get storageclass "$grow_class" --output 'jsonpath={.allowVolumeExpansion}')" = true ]; then
        deploy_chart upgrade --reuse-values --set "dataserver.persistence.size=$E2E_GROWN_SIZE"
        if nobody_resizes "$grow_class"; then
            note "The storage class $grow_class makes directories, which nobody grows: only what is asked for is looked at."
            grown asked || die "not every claim asks for $E2E_GROWN_SIZE"
        else
            until_true "every volume has $E2E_GROWN_SIZE" grown
        fi
        wait_ready
    else
        note "Skipped: the storage class $grow_class cannot grow volumes. It must say so instead:"
        if deploy_chart upgrade --reuse-values --set "dataserver.persistence.size=$E2E_GROWN_SIZE"; then
            die "the upgrade took a size that the volumes cannot have"
        fi
        [ "$(claims)" = "$claims_before" ] || die "the refusal changed a claim"
        [ "$(kube get "$grow_set" --output 'jsonpath={.metadata.uid}')" = "$grow_uid" ] ||
            die "the refusal replaced the StatefulSet"
        # Else the release would stay failed.
        deploy_chart upgrade --reuse-values --set "dataserver.persistence.size=$E2E_SIZE"
    fi
    [ "$(pods dataserver)" = "$grow_before" ] || die "a data server was restarted"
    verify_tree
}

no_pods() { [ -z "$(pods api dataserver rabbitmq)" ]; }

step_reinstall() {
    reinstall_claims=$(claims)
    chart get values "$E2E_RELEASE" --output yaml >"$E2E_WORK/values.yaml"
    reinstall_secrets=$(kube get secrets --selector "$(selector rabbitmq)" --output 'jsonpath={.items[*].metadata.uid}')
    chart uninstall "$E2E_RELEASE" --wait --timeout "${E2E_TIMEOUT}s" >/dev/null
    until_true "no pod is left" no_pods
    [ "$(claims)" = "$reinstall_claims" ] || die "uninstall touched the claims"
    deploy_chart install --values "$E2E_WORK/values.yaml"
    wait_ready
    [ "$(claims)" = "$reinstall_claims" ] || die "the volumes are others"
    [ "$(kube get secrets --selector "$(selector rabbitmq)" --output 'jsonpath={.items[*].metadata.uid}')" = \
        "$reinstall_secrets" ] || die "the broker's Secret did not outlive the release"
    verify_tree
}

step_clean() { clean; }
