#!/usr/bin/env bash
# A Holdfast cluster on this machine: a private RabbitMQ node, data servers and
# apis on free loopback ports. See usage below, or deploy/README.md.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname -- "$here")
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$here/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/process.sh
source "$here/lib/process.sh"
# shellcheck source-path=SCRIPTDIR source=lib/broker.sh
source "$here/lib/broker.sh"

usage() {
    cat <<'USAGE'
Usage: deploy/local.sh COMMAND

  up [--dataservers N] [--apis M] [--release|--debug]
               build, start what is not running, wait until all is ready
               (default: 3 data servers, or as many as have data; 2 apis)
  status       list components, addresses and readiness
  logs [-f] [NAME]
               show, or follow, the log of one component or of all
  down [--purge]
               stop what up started; --purge deletes the data, too

Environment:
  HOLDFAST_LOCAL_DIR      where data, logs and pid files live (default: .local)
  HOLDFAST_BIN_DIR        use the binaries there instead of building
  HOLDFAST_READY_TIMEOUT  seconds until up gives up waiting (default: 120)
  RABBITMQ_SCRIPTS_DIR    where RabbitMQ's own rabbitmq-server is, if unusual

  REPLICAS                copies of each object (default: 3, or as many as there
                          were data servers at the first start); WRITE_QUORUM
                          says how many of them a write waits for

Every other variable, such as HEARTBEAT_INTERVAL, LOG_FORMAT or RUST_LOG, is
passed on to the services.
USAGE
}

bad_usage() {
    note "${0##*/}: $*"
    usage >&2
    exit 64
}

readonly max_components=64
readonly stop_seconds=60
ready_timeout=${HOLDFAST_READY_TIMEOUT:-120}
state_dir=${HOLDFAST_LOCAL_DIR:-$repository/.local}
[[ $state_dir == /* ]] || state_dir=$PWD/$state_dir
run_dir=$state_dir/run
log_dir=$state_dir/log
data_dir=$state_dir/data
instance=''
amqp_port='' dist_port='' epmd_port=''

# ---- what is remembered from one run to the next: numbers, one a line

load_settings() {
    local name value
    [[ -f $state_dir/instance ]] || return 0
    instance=$(<"$state_dir/instance")
    [[ -f $state_dir/settings ]] || return 0
    while IFS='=' read -r name value; do
        [[ $name =~ ^[a-z][a-z0-9_]*$ && $value =~ ^[0-9]+$ ]] || continue
        printf -v "setting_$name" %s "$value"
    done <"$state_dir/settings"
    amqp_port=${setting_amqp_port:-} dist_port=${setting_dist_port:-} epmd_port=${setting_epmd_port:-}
}

save_settings() {
    local name
    setting_amqp_port=$amqp_port setting_dist_port=$dist_port setting_epmd_port=$epmd_port
    for name in $(compgen -v setting_); do
        printf '%s=%s\n' "${name#setting_}" "${!name}"
    done >"$state_dir/settings.new"
    mv -- "$state_dir/settings.new" "$state_dir/settings"
}

make_state_dir() {
    mkdir -p -- "$state_dir"
    if [[ ! -f $state_dir/instance ]]; then
        [[ -z $(find "$state_dir" -mindepth 1 ! -name lock ! -name instance.new -print -quit) ]] ||
            die "$state_dir is not empty and was not made by this script"
        od -An -N 6 -tx1 /dev/urandom | tr -d ' \n' >"$state_dir/instance.new"
        mv -- "$state_dir/instance.new" "$state_dir/instance"
    fi
    mkdir -p -- "$run_dir" "$log_dir" "$data_dir"
}

# One command at a time may change a state directory; held until the script
# ends. The started processes close descriptor 9.
take_lock() {
    need flock util-linux
    exec 9>"$state_dir/lock"
    flock -w 10 9 || die "another ${0##*/} is at work in $state_dir"
}

# ---- components: api-1, dataserver-1, ...

# port_setting NAME KIND: the variable that holds its port; KIND is port or admin.
port_setting() { printf 'setting_%s_%s' "${1//-/_}" "$2"; }

address() {
    local variable
    variable=$(port_setting "$1" "$2")
    printf '127.0.0.1:%s' "${!variable:-?}"
}

# components KIND COUNT: KIND-1 ... KIND-COUNT, one a line.
components() {
    local i
    for ((i = 1; i <= $2; i++)); do printf '%s-%s\n' "$1" "$i"; done
}

# known KIND: the components that have a pid file, in order.
known() {
    local file
    for file in "$run_dir/$1"-*.pid; do
        [[ ! -e $file ]] || basename -- "$file" .pid
    done | sort -V
}

is_ready() {
    [[ $(curl -q -s -o /dev/null -m 2 --noproxy '*' -w '%{http_code}' \
        "http://$(address "$1" admin)/readyz") == 200 ]]
}

# component_failed NAME REASON: the end of its log, then the end of the script.
component_failed() {
    note ""
    note "The last lines of $log_dir/$1.log:"
    this_run_log "$1" | tail -n 25 | sed 's/^/  | /' >&2
    note "What did start still runs; '${0##*/} down' stops it."
    die "$2"
}

start_dataserver() {
    local name=$1 root=$data_dir/$1
    mkdir -p -- "$root"
    start "$name" env "${service_environment[@]}" "STORAGE_ROOT=$root" \
        "INITIAL_MEMBERS=$setting_initial_members" \
        "LISTEN_ADDRESS=$(address "$name" port)" "ADVERTISE_ADDRESS=$(address "$name" port)" \
        "ADMIN_LISTEN_ADDRESS=$(address "$name" admin)" "$bin_dir/holdfast-dataserver"
}

start_api() {
    local name=$1
    start "$name" env -u STORAGE_ROOT -u INITIAL_MEMBERS "${service_environment[@]}" \
        "LISTEN_ADDRESS=$(address "$name" port)" "ADVERTISE_ADDRESS=$(address "$name" port)" \
        "ADMIN_LISTEN_ADDRESS=$(address "$name" admin)" "$bin_dir/holdfast-api"
}

# start_missing NAME...: starts those that do not run; they are in just_started.
start_missing() {
    local name kind peers='' copies=3
    ((setting_initial_members >= copies)) || copies=$setting_initial_members
    just_started=()
    for name in "$@"; do
        is_running "$name" && continue
        just_started+=("$name")
        for kind in port admin; do
            keep_or_choose_port "$(port_setting "$name" "$kind")"
        done
    done
    save_settings
    for name in "$@"; do
        [[ $name != dataserver-* ]] || peers+=${peers:+,}$(address "$name" port)
    done
    service_environment=(
        # %2f: the default virtual host, whose name is a slash.
        "RABBITMQ_SERVER=amqp://guest:guest@127.0.0.1:$amqp_port/%2f"
        "DATASERVER_PEERS=$peers"
        "REPLICAS=${REPLICAS:-$copies}"
        "LOG_FORMAT=${LOG_FORMAT:-text}"
        # Nobody has to be told elsewhere that a local process goes away.
        "SHUTDOWN_DELAY=${SHUTDOWN_DELAY:-1s}"
    )
    for name in "${just_started[@]}"; do
        "start_${name%-*}" "$name"
    done
}

# wait_until_ready NAME...: fails, with the name in $refused, when one found its
# port taken; ends the script when one ended otherwise or the time is up.
wait_until_ready() {
    local deadline name pending=("$@") still said=-1
    deadline=$(($(now_millis) + ready_timeout * 1000))
    while true; do
        still=()
        for name in "${pending[@]}"; do
            if ! is_running "$name"; then
                refused=$name
                ! port_was_refused "$name" || return 1
                component_failed "$name" "$name ended before it was ready"
            fi
            is_ready "$name" || still+=("$name")
        done
        pending=("${still[@]}")
        if ((${#pending[@]} != said)); then
            said=${#pending[@]}
            note "  ready: $(($# - said)) of $#${pending[*]:+, waiting for ${pending[*]}}"
        fi
        ((said > 0)) || return 0
        (($(now_millis) < deadline)) ||
            component_failed "${pending[0]}" "not ready within $ready_timeout s: ${pending[*]}"
        sleep 0.2
    done
}

find_binaries() {
    local name target
    if [[ -n ${HOLDFAST_BIN_DIR:-} ]]; then
        bin_dir=$(cd -- "$HOLDFAST_BIN_DIR" && pwd)
    else
        need cargo "of Rust, see https://rustup.rs"
        note "Building holdfast-api and holdfast-dataserver ($profile) ..."
        local flags=()
        [[ $profile == debug ]] || flags=(--release)
        (cd -- "$repository" && cargo build "${flags[@]}" -p holdfast-api -p holdfast-dataserver) ||
            die "the build failed"
        target=$(cd -- "$repository" && cargo metadata --no-deps --format-version 1 |
            sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
        bin_dir=$target/$profile
    fi
    for name in holdfast-api holdfast-dataserver; do
        [[ -x $bin_dir/$name ]] || die "there is no $bin_dir/$name"
    done
}

count_running() {
    local name count=0
    for name in "$@"; do
        if is_running "$name"; then count=$((count + 1)); fi
    done
    printf '%s\n' "$count"
}

# ---- commands

up() {
    local dataservers='' apis='' profile=release names name attempt with_data=0
    while (($#)); do
        case $1 in
        --dataservers) dataservers=${2:-} && shift ;;
        --apis) apis=${2:-} && shift ;;
        --release) profile=release ;;
        --debug) profile=debug ;;
        *) bad_usage "unknown argument of up: $1" ;;
        esac
        shift || bad_usage "a number is missing"
    done
    make_state_dir
    take_lock
    load_settings
    for name in "$data_dir"/dataserver-*; do
        [[ ! -d $name ]] || with_data=$((with_data + 1))
    done
    : "${dataservers:=$((with_data > 0 ? with_data : 3))}" "${apis:=${setting_apis:-2}}"
    is_count "$dataservers" 1 "$max_components" ||
        bad_usage "--dataservers takes a number from 1 to $max_components"
    is_count "$apis" 1 "$max_components" || bad_usage "--apis takes a number from 1 to $max_components"
    mapfile -t names < <(components dataserver "$dataservers" && components api "$apis")
    refuse_fewer "$dataservers" "$apis"
    ((dataservers >= with_data)) ||
        note "Note: $with_data data servers hold data; what only the missing ones hold answers 503."

    if is_running rabbitmq && (($(count_running "${names[@]}") == ${#names[@]})); then
        note "Already up:"
        status
        return
    fi
    need curl curl
    find_binaries
    "$here/install-broker.sh"
    trap 'note "Interrupted; ${0##*/} down stops what was started."; exit 130' INT TERM
    setting_apis=$apis
    # How many empty data servers found a cluster together is settled once.
    [[ -n ${setting_founded:-} ]] || setting_initial_members=$dataservers

    if ! is_running rabbitmq; then
        note "Starting a private RabbitMQ node ..."
        start_broker
    fi
    for attempt in {1..5}; do
        start_missing "${names[@]}"
        note "Started ${just_started[*]:-nothing new}"
        if wait_until_ready "${names[@]}"; then
            setting_founded=1
            save_settings
            announce "$apis"
            return
        fi
        note "$refused found its port taken; trying others ($attempt) ..."
        stop_all "$stop_seconds" "${just_started[@]}"
        unset "$(port_setting "$refused" port)" "$(port_setting "$refused" admin)"
    done
    component_failed "$refused" "no free port found for $refused"
}

# refuse_fewer DATASERVERS APIS: up adds, it takes nothing away.
refuse_fewer() {
    local name wanted
    for name in $(known dataserver) $(known api); do
        wanted=$1
        [[ $name == dataserver-* ]] || wanted=$2
        if ((${name##*-} > wanted)) && is_running "$name"; then
            die "$name is running, and up stops nothing; use 'down', then 'up' with the new number"
        fi
    done
}

announce() {
    local first last
    first=$(address api-1 port)
    last=$(address "api-$1" port)
    printf '\n'
    status || true
    cat <<TRY

Try it:
  curl -T README.md http://$first/objects/README.md
  curl http://$last/objects/README.md
  curl http://$first/locate/README.md

Stop it with 'deploy/local.sh down'; the data stays.
TRY
}

row() { printf '%-14s %8s  %-22s %-22s %s\n' "$@"; }

# status: the table; returns 0 when all is ready, 1 when not, 3 when nothing runs.
status() {
    local name pid ready running=0 unready=0 names
    load_settings
    mapfile -t names < <(
        [[ ! -e $run_dir/epmd.pid ]] || echo epmd
        [[ ! -e $run_dir/rabbitmq.pid ]] || echo rabbitmq
        known dataserver
        known api
    )
    if [[ -z $instance ]] || ((${#names[@]} == 0)); then
        echo "Nothing is running. Start with 'deploy/local.sh up'."
        return 3
    fi
    row COMPONENT PID ADDRESS ADMIN READY
    for name in "${names[@]}"; do
        ready=no
        if ! pid=$(running_pid "$name"); then
            pid=- ready=stopped
        else
            running=$((running + 1))
            case $name in
            epmd) ! port_is_taken "$epmd_port" || ready=yes ;;
            rabbitmq) ! amqp_answers "$amqp_port" || ready=yes ;;
            *) ! is_ready "$name" || ready=yes ;;
            esac
        fi
        [[ $ready == yes ]] || unready=$((unready + 1))
        case $name in
        epmd) row "$name" "$pid" "127.0.0.1:$epmd_port" - "$ready" ;;
        rabbitmq) row "$name" "$pid" "127.0.0.1:$amqp_port" - "$ready" ;;
        *) row "$name" "$pid" "$(address "$name" port)" "$(address "$name" admin)" "$ready" ;;
        esac
    done
    ((running > 0)) || return 3
    ((unready == 0)) || return 1
}

logs() {
    local follow=() name='' files
    while (($#)); do
        case $1 in
        -f) follow=(-F) ;;
        -*) bad_usage "unknown argument of logs: $1" ;;
        *) name=$1 ;;
        esac
        shift
    done
    files=("$log_dir"/*.log)
    [[ -e ${files[0]} ]] || die "there are no logs in $log_dir"
    if [[ -n $name ]]; then
        [[ $name != */* && -f $log_dir/$name.log ]] ||
            die "there is no log of '$name'; there are: $(basename -s .log -- "${files[@]}" | tr '\n' ' ')"
        files=("$log_dir/$name.log")
    fi
    exec tail -n 100 "${follow[@]}" -- "${files[@]}"
}

down() {
    local purge=no count names
    case ${1:-} in
    '') ;;
    --purge) purge=yes ;;
    *) bad_usage "unknown argument of down: $1" ;;
    esac
    if [[ ! -f $state_dir/instance ]]; then
        note "There is nothing to stop in $state_dir."
        return
    fi
    take_lock
    load_settings
    mapfile -t names < <(known api && known dataserver && printf '%s\n' rabbitmq epmd)
    count=$(count_running "${names[@]}")
    ((count == 0)) || note "Stopping $count processes ..."
    # Each group is told at once; the next one while nobody needs it any more.
    mapfile -t names < <(known api)
    stop_all "$stop_seconds" "${names[@]}"
    mapfile -t names < <(known dataserver)
    stop_all "$stop_seconds" "${names[@]}"
    stop_all "$stop_seconds" rabbitmq
    stop_all "$stop_seconds" epmd
    stop_marked
    if [[ $purge == yes ]]; then
        # What up made, by name: the directory may be anybody's choice.
        rm -rf -- "$data_dir" "$run_dir" "$log_dir" "$state_dir/rabbitmq"
        rm -f -- "$state_dir"/{settings,settings.new,instance,lock}
        rmdir -- "$state_dir" 2>/dev/null || note "$state_dir holds other files and stays."
        note "Stopped; the data is deleted."
    else
        note "Stopped. The data stays in $state_dir; 'down --purge' deletes it."
    fi
}

[[ -r /proc/self/environ && -r /proc/self/stat ]] || die "this script needs Linux and its /proc"
[[ $ready_timeout =~ ^[1-9][0-9]{0,5}$ ]] || die "HOLDFAST_READY_TIMEOUT is a number of seconds"
command=${1:-}
(($# == 0)) || shift
case $command in
up) up "$@" ;;
status) status ;;
logs) logs "$@" ;;
down) down "$@" ;;
help | -h | --help) usage ;;
'') bad_usage "a command is missing" ;;
*) bad_usage "unknown command: $command" ;;
esac
