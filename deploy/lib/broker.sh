# shellcheck shell=bash disable=SC2154
# A RabbitMQ node of our own next to whatever brokers the machine has: own
# epmd, ports, node name, cookie, configuration and directories, all on
# loopback. Sourced by local.sh.
#
# Uses: $state_dir, $log_dir, $instance, $ready_timeout, the ports that local.sh
# remembers, save_settings and component_failed there, and process.sh.

# amqp_answers PORT: whether an AMQP 0-9-1 broker greets there.
amqp_answers() {
    local greeting
    # A frame of type 1 on channel 0 is Connection.Start.
    greeting=$(
        exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf 'AMQP\0\0\11\1' >&3
        timeout 5 head -c 3 <&3 | od -An -tx1
    ) || return 1
    [[ $greeting == " 01 00 00" ]]
}

broker_env() {
    # Nothing of the caller's environment: variables meant for another broker
    # must not reach this one. /dev/null as the environment file hides the
    # system's own, /etc/rabbitmq/rabbitmq-env.conf.
    broker_environment=(
        "PATH=$PATH"
        "LANG=C.UTF-8"
        "HOME=$state_dir/rabbitmq/home"
        "$mark_name=$instance"
        "ERL_EPMD_PORT=$epmd_port"
        "ERL_EPMD_ADDRESS=127.0.0.1"
        "ERL_CRASH_DUMP_SECONDS=0"
        "RABBITMQ_NODENAME=holdfast-$instance@localhost"
        "RABBITMQ_BASE=$state_dir/rabbitmq"
        "RABBITMQ_CONF_ENV_FILE=/dev/null"
        "RABBITMQ_CONFIG_FILE=$state_dir/rabbitmq/rabbitmq.conf"
        "RABBITMQ_ADVANCED_CONFIG_FILE=$state_dir/rabbitmq/advanced.config"
        "RABBITMQ_ENABLED_PLUGINS_FILE=$state_dir/rabbitmq/enabled_plugins"
        "RABBITMQ_MNESIA_BASE=$state_dir/rabbitmq/data"
        "RABBITMQ_LOG_BASE=$log_dir"
        "RABBITMQ_LOGS=-"
        "RABBITMQ_UPGRADE_LOG=$state_dir/rabbitmq/upgrade.log"
        "RABBITMQ_PID_FILE=$state_dir/rabbitmq/node.pid"
        "RABBITMQ_DIST_PORT=$dist_port"
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
        # Makes the start script become the node instead of watching over it,
        # so that the pid is the node's and SIGTERM stops it in order.
        "RUNNING_UNDER_SYSTEMD=true"
    )
}

broker_files() {
    local dir=$state_dir/rabbitmq
    mkdir -p -- "$dir/home" "$dir/data"
    if [[ ! -s $dir/home/.erlang.cookie ]]; then
        (
            umask 077
            od -An -N 20 -tx1 /dev/urandom | tr -d ' \n' >"$dir/home/.erlang.cookie"
        )
        chmod 400 "$dir/home/.erlang.cookie"
    fi
    printf '[].\n' >"$dir/enabled_plugins"
    cat >"$dir/rabbitmq.conf" <<CONFIG
listeners.tcp.default = 127.0.0.1:$amqp_port
loopback_users.guest = true
log.console = true
log.console.level = info
log.file = false
CONFIG
    printf '[].\n' >"$dir/advanced.config"
}

# start_epmd: the name service of our node, on loopback alone.
start_epmd() {
    local attempt
    for attempt in {1..5}; do
        keep_or_choose_port epmd_port
        start epmd env -i "PATH=$PATH" "$mark_name=$instance" \
            "$epmd_program" -address 127.0.0.1 -port "$epmd_port"
        while is_running epmd; do
            ! port_is_taken "$epmd_port" || return 0
            sleep 0.1
        done
        epmd_port=
    done
    component_failed epmd "epmd did not start in $attempt attempts"
}

# start_broker: until it greets. Retries when another process took a port.
start_broker() {
    local scripts attempt deadline
    scripts=$(rabbitmq_scripts_dir) || die "RabbitMQ is missing"
    epmd_program=$(command -v epmd) || epmd_program=$(find_erlang_epmd) ||
        die "epmd, a part of Erlang, was not found"
    for attempt in {1..5}; do
        is_running epmd || start_epmd
        keep_or_choose_port amqp_port
        keep_or_choose_port dist_port
        save_settings
        broker_env
        broker_files
        start rabbitmq env -i "${broker_environment[@]}" "$scripts/rabbitmq-server"
        deadline=$(($(now_millis) + ready_timeout * 1000))
        while is_running rabbitmq; do
            ! amqp_answers "$amqp_port" || return 0
            (($(now_millis) < deadline)) ||
                component_failed rabbitmq "RabbitMQ did not answer within $ready_timeout s"
            sleep 0.3
        done
        broker_port_was_refused || break
        note "A port was taken by another process meanwhile; trying others ($attempt) ..."
        amqp_port='' dist_port=''
    done
    component_failed rabbitmq "RabbitMQ ended while starting"
}

broker_port_was_refused() {
    this_run_log rabbitmq | grep -qE 'eaddrinuse|address already in use|port_already_used|could_not_start_listener'
}

find_erlang_epmd() {
    local candidate
    for candidate in /usr/lib/erlang/erts-*/bin/epmd /usr/local/lib/erlang/erts-*/bin/epmd \
        /opt/erlang/lib/erlang/erts-*/bin/epmd; do
        if [[ -x $candidate ]]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}
