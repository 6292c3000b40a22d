# shellcheck shell=bash
# Messages, waiting and ports: what every script here needs. Sourced, not run.

# note MESSAGE...: one line for the reader, on stderr.
note() { printf '%s\n' "$*" >&2; }

# die MESSAGE...: says why and ends the script.
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# need COMMAND PACKAGE: dies unless COMMAND can be run.
need() {
    command -v "$1" >/dev/null 2>&1 || die "$1 is needed; install the package $2"
}

# install_packages PACKAGE...: with apt-get, as root or with sudo. For packages
# that start no service.
install_packages() {
    command -v apt-get >/dev/null 2>&1 || die "needed, and there is no apt-get to install them: $*"
    local as_root=() apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300)
    if ((EUID != 0)); then
        command -v sudo >/dev/null 2>&1 || die "needed; as root, run: apt-get install $*"
        as_root=(sudo --)
    fi
    note "Installing $* with apt-get ..."
    "${as_root[@]}" "${apt[@]}" --no-install-recommends install "$@" >/dev/null && return
    "${as_root[@]}" "${apt[@]}" update >/dev/null || die "apt-get update failed"
    "${as_root[@]}" "${apt[@]}" --no-install-recommends install "$@" >/dev/null ||
        die "apt-get could not install $*"
}

# install_missing COMMAND PACKAGE: installs PACKAGE unless COMMAND can be run.
install_missing() {
    command -v "$1" >/dev/null 2>&1 || install_packages "$2"
}

# is_count TEXT LEAST MOST: whether TEXT is a whole number within bounds.
is_count() {
    [[ $1 =~ ^[1-9][0-9]{0,3}$ || $1 == 0 ]] && (($1 >= $2 && $1 <= $3))
}

# now_millis: milliseconds since 1970.
now_millis() { date +%s%3N; }

# port_is_taken PORT: whether something listens there on loopback.
port_is_taken() {
    # The subshell closes the connection; its stderr carries "refused".
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# choose_port: prints a port nobody listens on, below the range from which
# systems take the ports of outgoing connections. Another process may take it
# before it is used, so whoever binds it must be ready to be refused.
choose_port() {
    local port attempt
    for attempt in {1..100}; do
        port=$(shuf -i 20000-31999 -n 1)
        if ! port_is_taken "$port"; then
            printf '%s\n' "$port"
            return
        fi
    done
    die "no free port found from 20000 to 31999 in $attempt attempts"
}

# keep_or_choose_port VARIABLE: another port unless the one it holds is free.
keep_or_choose_port() {
    local chosen=${!1:-}
    if [[ -z $chosen ]] || port_is_taken "$chosen"; then
        chosen=$(choose_port)
    fi
    printf -v "$1" %s "$chosen"
}

# rabbitmq_scripts_dir: prints the directory with RabbitMQ's own start script.
# Not /usr/sbin: the wrapper there switches to the user of the system's broker.
rabbitmq_scripts_dir() {
    local candidate
    for candidate in "${RABBITMQ_SCRIPTS_DIR:-}" /usr/lib/rabbitmq/bin \
        /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin /opt/rabbitmq/sbin /usr/local/sbin; do
        if [[ -n $candidate && -x $candidate/rabbitmq-server && -e $candidate/rabbitmq-env ]]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}
