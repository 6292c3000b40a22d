# shellcheck shell=bash disable=SC2154
# Processes that outlive the script that starts them. Sourced by local.sh.
#
# A process is told from another that got its number later by three things
# written when it starts: the boot it belongs to, its start time, and a mark in
# its environment that only processes of this state directory carry.
#
# Uses: $run_dir (one file a component), $log_dir, $instance (the mark's value).

readonly mark_name=HOLDFAST_LOCAL_INSTANCE

# start_time PID: prints when PID started, in ticks since boot. Fails when
# there is no such process or only its exit status is left.
start_time() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    # The second field is the program's name in parentheses and may hold
    # anything; field 3, the state, and field 22 are counted from behind it.
    local fields
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]:-Z} != [ZX] ]] || return 1
    printf '%s\n' "${fields[19]}"
}

boot_id() { cat /proc/sys/kernel/random/boot_id; }

# carries_mark PID: whether PID was started for this state directory.
carries_mark() {
    grep -qsxzF "$mark_name=$instance" "/proc/$1/environ"
}

# start NAME COMMAND...: runs COMMAND in the background with the mark, its
# output appended to the component's log. Sets nothing else in its environment.
start() {
    local name=$1 pid started
    shift
    # Where this run's lines begin.
    log_size "$name" >"$run_dir/$name.log-from"
    # setsid: a ^C meant for this script must not reach it. As it is no leader
    # of a group here, setsid becomes the command and $! is the command's.
    env "$mark_name=$instance" setsid "$@" </dev/null >>"$log_dir/$name.log" 2>&1 9>&- &
    pid=$!
    disown "$pid"
    started=$(start_time "$pid") || started=gone
    printf '%s %s %s\n' "$pid" "$started" "$(boot_id)" >"$run_dir/$name.pid"
    # The mark shows once the new process has replaced this script's image.
    while start_time "$pid" >/dev/null && ! carries_mark "$pid"; do
        sleep 0.02
    done
}

# running_pid NAME: prints the component's pid if it runs. Fails otherwise.
running_pid() {
    local pid started boot attempt
    { read -r pid started boot <"$run_dir/$1.pid"; } 2>/dev/null || return 1
    [[ $boot == "$(boot_id)" ]] || return 1
    # More than once: the environment of a process is empty for a moment when
    # it replaces its program, as start scripts do.
    for attempt in {1..10}; do
        [[ $(start_time "$pid") == "$started" ]] || return 1
        if carries_mark "$pid"; then
            printf '%s\n' "$pid"
            return
        fi
        sleep 0.0"$attempt"
    done
    return 1
}

is_running() { running_pid "$1" >/dev/null; }

# stop_all SECONDS NAME...: SIGTERM to each that runs, at once, then waits for
# all of them; after SECONDS those that are left get SIGKILL.
stop_all() {
    local deadline name pid signal=TERM again
    deadline=$(($(now_millis) + $1 * 1000))
    again=$(($(now_millis) + 3000))
    shift
    local left=("$@")
    while ((${#left[@]})); do
        local still=()
        for name in "${left[@]}"; do
            if pid=$(running_pid "$name"); then
                [[ $signal == none ]] || kill -s "$signal" "$pid" 2>/dev/null || true
                still+=("$name")
            else
                rm -f -- "$run_dir/$name.pid" "$run_dir/$name.log-from"
            fi
        done
        left=("${still[@]}")
        if ((${#left[@]})) && (($(now_millis) > deadline)); then
            note "Not gone in time, killed: ${left[*]}"
            signal=KILL
            deadline=$(($(now_millis) + 10000))
        elif [[ ${left[*]} == rabbitmq ]] && (($(now_millis) > again)); then
            # The Erlang machine drops a signal that comes while it boots.
            signal=TERM
            again=$(($(now_millis) + 3000))
        else
            signal=none
        fi
        ((${#left[@]} == 0)) || sleep 0.1
    done
}

# marked_pids: prints every process that carries the mark, such as one whose
# pid file was never written or a helper that outlived its parent.
marked_pids() {
    local file pid
    while IFS= read -r file; do
        pid=${file//[!0-9]/}
        if start_time "$pid" >/dev/null; then printf '%s\n' "$pid"; fi
    done < <(grep -lsxzF "$mark_name=$instance" /proc/[0-9]*/environ 2>/dev/null)
}

# stop_marked: ends what stop_all left, which is normally nothing.
stop_marked() {
    local signal pid attempt
    # Helpers end by themselves soon after their parent.
    for attempt in {1..20}; do
        [[ -n $(marked_pids) ]] || return 0
        sleep 0.1
    done
    for signal in TERM KILL; do
        for pid in $(marked_pids); do
            note "Sending SIG$signal to process $pid, which was left over"
            carries_mark "$pid" && kill -s "$signal" "$pid" 2>/dev/null
        done
        for attempt in {1..50}; do
            [[ -n $(marked_pids) ]] || return 0
            sleep 0.1
        done
    done
    die "these processes do not end, tried $attempt times: $(marked_pids | tr '\n' ' ')"
}

log_size() {
    if [[ -f $log_dir/$1.log ]]; then stat -c %s -- "$log_dir/$1.log"; else echo 0; fi
}

# this_run_log NAME: the log since the component was last started.
this_run_log() {
    local from=0
    [[ ! -f $run_dir/$1.log-from ]] || from=$(<"$run_dir/$1.log-from")
    [[ ! -f $log_dir/$1.log ]] || tail -c "+$((from + 1))" -- "$log_dir/$1.log"
}

# port_was_refused NAME: whether it ended because its port was taken.
port_was_refused() {
    this_run_log "$1" | grep -qiE 'address (already )?in use|addrinuse|os error 98'
}
