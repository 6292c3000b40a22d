# shellcheck shell=bash disable=SC2154
# What the kubelet does for a pod. Sourced by check-image; uses objects.sh.

pods_of() { awk -v component="$1" '$6 == "runs" && $3 == component { print $1 }' "$work/pods"; }

pod_address() { awk -v pod="$1" '$1 == pod { print $2 }' "$work/pods"; }

container_of() { awk -v pod="$1" '$1 == pod { print pod "-" $5 }' "$work/pods"; }

process_of() { engine inspect --format '{{.State.Pid}}' "$(container_of "$1")"; }

# The port of the api is not in a probe; its environment has it.
api_address() {
    local listen
    listen=$(engine inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$(container_of "$1")" |
        sed -n 's/^LISTEN_ADDRESS=//p')
    printf '%s%s\n' "$(pod_address "$1")" "$listen"
}

# play POD: as it was rendered, at its address.
play() {
    engine kube play --quiet --network "$network" --ip "$(pod_address "$1")" "$work/$1.yaml" \
        >"$work/play.log" 2>&1 || {
        cat "$work/play.log" >&2
        die "$1 does not start"
    }
}

# stop_pod POD: SIGTERM, and no more than its own grace period; then it is removed,
# its volumes are not.
stop_pod() {
    local grace began=$SECONDS status
    grace=$(sed -n 's/^  terminationGracePeriodSeconds: //p' "$work/$1.yaml")
    [[ -n $grace ]] || die "$1 has no grace period"
    engine stop --time "$grace" "$(container_of "$1")" >/dev/null
    status=$(engine inspect --format '{{.State.ExitCode}}' "$(container_of "$1")")
    ((status == 0)) || die "$1 ended with status $status"
    printf '  %s ended in order after %d s of %d\n' "$1" $((SECONDS - began)) "$grace"
    engine pod rm --force "$1" >/dev/null
}

# run_to_end POD: a pod that does its work and ends.
run_to_end() {
    local container status
    play "$1"
    container=$(container_of "$1")
    status=$(timeout "$patience_seconds" env CONTAINERS_CONF="$state/containers.conf" podman \
        --root "$state/store" --runroot "$run_dir" wait "$container") || die "$1 does not end"
    engine logs "$container" 2>&1 | sed 's/^/  | /'
    ((status == 0)) || die "$1 ended with status $status"
    engine pod rm --force "$1" >/dev/null
}

# pass_probes POD: each kind of probe, in the kubelet's order; the first has as long
# as its own period and threshold give it, the others as patience does.
pass_probes() {
    local kind period threshold how port path deadline passed=()
    while read -r _ kind period threshold how port path; do
        deadline=$((SECONDS + period * threshold))
        [[ $kind == startupProbe ]] || deadline=$((SECONDS + patience_seconds))
        until "probe_$how" "$(pod_address "$1")" "$port" "$path"; do
            ((SECONDS < deadline)) || die "$1: $kind ($how $port $path) fails"
            sleep 0.2
        done
        passed+=("$kind $how:$port$path")
    done < <(awk -v pod="$1" '$1 == pod' "$work/probes")
    ((${#passed[@]} == 3)) || die "$1 has ${#passed[@]} probes"
    printf '  %s passes %s\n' "$1" "${passed[*]}"
}

probe_http() { curl -q -s -f -o /dev/null --max-time 3 --noproxy '*' "http://$1:$2$3"; }

probe_tcp() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# check_confinement POD: what the kernel says of its process, not what was asked.
check_confinement() {
    local pid uid wanted status
    pid=$(process_of "$1")
    status=/proc/$pid/status
    wanted=$(sed -n '/^  securityContext:/,/^  [a-z]*:/s/^    runAsUser: //p' "$work/$1.yaml" | head -n 1)
    uid=$(awk '$1 == "Uid:" { print $2 }' "$status")
    [[ -n $wanted && $uid == "$wanted" ]] || die "$1 runs as $uid and not as $wanted"
    [[ $(awk '$1 ~ /^Cap(Eff|Prm|Bnd):$/ && $2 != "0000000000000000"' "$status") == '' ]] ||
        die "$1 has capabilities"
    [[ $(awk '$1 == "NoNewPrivs:" { print $2 }' "$status") == 1 ]] || die "$1 may gain privileges"
    [[ $(awk '$1 == "Seccomp:" { print $2 }' "$status") == 2 ]] || die "$1 has no seccomp filter"
    awk '$5 == "/" { exit $6 !~ /^ro(,|$)/ }' "/proc/$pid/mountinfo" || die "the root of $1 can be written"
    printf '  %s: uid %s, no capabilities, no new privileges, seccomp, read-only root\n' "$1" "$uid"
}

kill_container() {
    killed_process=$(process_of "$1")
    ((killed_process > 0)) || die "$1 does not run"
    kill -9 "$killed_process"
}

is_restarted() {
    local now
    now=$(process_of "$1")
    ((now > 0 && now != killed_process))
}

# Its restart policy is the pod's own.
wait_restarted() { until_true "$1 is restarted" is_restarted "$1"; }

kill_and_wait() {
    kill_container "$1"
    wait_restarted "$1"
    pass_probes "$1"
}
