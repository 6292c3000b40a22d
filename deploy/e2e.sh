#!/bin/sh
# Installs the chart in a Kubernetes cluster, does to it what happens to a cluster
# in its life, and checks after each step that nothing was lost. Needs kubectl,
# helm 3.14 or newer or helm 4, curl and a POSIX sh, and works against whatever
# cluster kubectl reaches. See usage below, deploy/kubernetes.md for clusters on
# a laptop, and deploy/lib/e2e.sh for how the checks are made.
#
# What only a real cluster can show, and is shown here:
#   - the API server admits every object, and Pod Security "restricted" every pod,
#     the broker's, the hook's and the test's included
#   - images are pulled or found, claims are bound, fsGroup gives the volumes to
#     uid 10001, the broker's to 999
#   - the kubelet's own probes, start to end; no pod is restarted in any step but
#     those that are killed
#   - DNS: the headless Service before pods are ready, a pod's stable name after it
#     was replaced under another address
#   - the api's Service, its endpoints and kube-proxy: a load Job in the cluster
#     sees no failed request, with and without kept connections, while apis are
#     rolled, scaled and reconfigured, or the broker is rolled or away
#   - with two copies or more a data server that is rolled, or taken away without a
#     word, makes no request fail; with one copy only its own objects are
#     unavailable, and answer 503, never 404
#   - more data servers and fewer again: the hook, its Role, its way to the admin
#     port through Services and policies; those that go are empty and have retired
#     before their pods end, and their claims stay
#   - helm's own view: --wait, helm test, upgrade, rollback of nothing, uninstall,
#     and a Secret and claims that outlive a release
#   - growth of volumes by the hook, its ServiceAccount and Role, pods left alone;
#     or, where the storage class cannot, a refusal that changes nothing
#   - graceful ends within the grace period, and ends without any
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib/e2e.sh
. "$here/lib/e2e.sh"
# shellcheck source-path=SCRIPTDIR source=lib/e2e-steps.sh
. "$here/lib/e2e-steps.sh"

all_steps='install test tree roll kill scale away broker upgrade grow reinstall'

usage() {
    cat <<USAGE
Usage: deploy/e2e.sh [STEP...]

Without a STEP all of them, in this order, then everything is removed:

  install    helm install, wait, look at every pod
  test       helm test
  tree       port-forward and curl: PUT, GET, DELETE, 404; store a tree
  roll       restart api, data servers and broker, one after the other, under load
  kill       delete pods without grace: a data server, an api, all data servers
  scale      two data servers and one api more, then two data servers less, which
             the hook empties before
  away       one data server taken away unprepared: all is served with two copies
             or more; with one, its objects 503 and all others served
  broker     no broker for a while, under load
  upgrade    other values, under load
  grow       larger volumes, or the refusal to grow them
  reinstall  helm uninstall, then helm install on the volumes that it kept
  clean      remove the release and the namespace (not among "all")

Single steps work on what an earlier call with KEEP=1 has left; they remove
nothing but what they made, except that 'clean' removes all.

Environment:
  KUBECONFIG, E2E_CONTEXT   which cluster (default: kubectl's own choice)
  E2E_NAMESPACE             default: $E2E_NAMESPACE; made, and removed, by this script
  E2E_RELEASE               default: $E2E_RELEASE
  E2E_CHART                 default: helm/holdfast beside this script
  E2E_IMAGE                 name:tag of the image (default: the chart's)
  E2E_VALUES                a file of further values; without it, pods ask for so little
                            CPU and memory that all fit on one node of two cores
  E2E_STORAGE_CLASS         default: the cluster's
  E2E_DATASERVERS           how many to begin with (default: the chart's)
  E2E_COPIES                of each object, at most as many (default: the chart's)
  E2E_SIZE, E2E_GROWN_SIZE  volumes, before and after 'grow' (default: $E2E_SIZE, $E2E_GROWN_SIZE)
  E2E_FILES                 files in the tree (default: $E2E_FILES)
  E2E_TIMEOUT               seconds for anything to become ready (default: $E2E_TIMEOUT)
  KEEP=1                    remove nothing at the end
USAGE
}

# run_step NAME: in a shell of its own, where an error ends it even though its
# status is looked at here.
run_step() {
    printf '\n==> %s\n' "$1"
    step_began=$(date +%s)
    step_status=0
    sh "$here/e2e.sh" --step "$1" || step_status=$?
    step_seconds=$(($(date +%s) - step_began))
    if [ "$step_status" = 0 ]; then
        summary="$summary$(printf '  passed  %-10s %5d s' "$1" "$step_seconds")
"
    else
        summary="$summary$(printf '  FAILED  %-10s %5d s' "$1" "$step_seconds")
"
        failed=$1
    fi
}

finish() {
    finish_status=$?
    trap - EXIT INT TERM HUP
    [ -z "$failed" ] || diagnose
    if [ "${KEEP:-}" = 1 ]; then
        note "Kept: release $E2E_RELEASE in namespace $E2E_NAMESPACE; 'deploy/e2e.sh clean' removes it."
    elif [ "$installed" = yes ]; then
        note "Removing everything (KEEP=1 would keep it) ..."
        clean || { note "It could not be removed completely."; finish_status=1; }
    fi
    rm -rf -- "$E2E_WORK"
    if [ -n "$summary" ]; then
        printf '\n%s' "$summary"
        for step in $not_run; do printf '  not run %s\n' "$step"; done
        if [ -z "$failed" ] && [ "$finish_status" = 0 ] && [ -z "$not_run" ]; then
            printf 'PASSED\n'
        else
            printf 'FAILED%s\n' "${failed:+ in $failed}"
            [ "$finish_status" != 0 ] || finish_status=1
        fi
    fi
    exit "$finish_status"
}

case ${1:-} in
-h | --help | help)
    usage
    exit 0
    ;;
--step)
    # Of run_step; $E2E_WORK is its caller's.
    trap stop_children EXIT
    trap 'exit 130' INT TERM HUP
    "step_$2"
    exit 0
    ;;
esac
for step in "$@"; do
    case " $all_steps clean " in
    *" $step "*) ;;
    *)
        note "there is no step '$step'"
        usage >&2
        exit 64
        ;;
    esac
done
[ $# -gt 0 ] || eval "set -- $all_steps"
check_settings
E2E_WORK=$(mktemp -d)
export E2E_WORK
failed='' summary='' not_run="$*" installed=no
trap finish EXIT
trap 'exit 130' INT TERM HUP
for step in "$@"; do
    [ "$step" != install ] || installed=yes
    not_run=${not_run#"$step"}
    not_run=${not_run# }
    run_step "$step"
    [ -z "$failed" ] || exit 1
done
