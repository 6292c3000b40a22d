#!/usr/bin/env bash
# Installs RabbitMQ with apt-get if it is missing, and leaves neither a broker
# nor an epmd of the whole machine running or enabled by it: the package's
# programs are wanted, its service is not. Does nothing where it is installed.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$here/lib/common.sh"

# The policy that package scripts ask before they start a service. Overridable
# for tests of this script alone.
policy=${HOLDFAST_POLICY_RC_D:-/usr/sbin/policy-rc.d}
kept_policy=$policy.holdfast-kept
marker='# Written by holdfast deploy/install-broker.sh'

# Refuses RabbitMQ and epmd; about all others a policy that was there decides.
deny_broker_services() {
    # Left over from a run that was killed: the kept one is the system's own.
    restore_policy
    if [[ -e $policy || -L $policy ]]; then
        mv -- "$policy" "$kept_policy"
    fi
    cat >"$policy" <<POLICY
#!/bin/sh
$marker
case "\$1" in
rabbitmq-server | rabbitmq-server.service | epmd | epmd.service | epmd.socket) exit 101 ;;
esac
if [ -x "$kept_policy" ]; then
    exec "$kept_policy" "\$@"
fi
exit 0
POLICY
    chmod 755 "$policy"
}

restore_policy() {
    if [[ -f $policy ]] && grep -qxF "$marker" "$policy"; then
        rm -f -- "$policy"
    fi
    if [[ -e $kept_policy || -L $kept_policy ]]; then
        mv -f -- "$kept_policy" "$policy"
    fi
}

is_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# disable SERVICE UNIT...: not at boot either, with systemd or without.
disable() {
    local service=$1 unit
    shift
    if command -v systemctl >/dev/null; then
        for unit in "$@"; do
            systemctl --quiet disable "$unit" >/dev/null 2>&1 || true
        done
    fi
    if [[ -e /etc/init.d/$service ]] && command -v update-rc.d >/dev/null; then
        update-rc.d "$service" disable >/dev/null 2>&1 || true
    fi
}

install_as_root() {
    local had_erlang=no
    is_installed erlang-base && had_erlang=yes
    if command -v flock >/dev/null; then
        exec 8>/var/lock/holdfast-install-broker.lock
        flock 8
    fi
    # Somebody else may have installed it while this waited.
    rabbitmq_scripts_dir >/dev/null && return

    # From here to the end of the script, whatever ends it.
    trap restore_policy EXIT
    trap 'exit 130' INT TERM HUP
    deny_broker_services
    export DEBIAN_FRONTEND=noninteractive
    local apt=(apt-get -y -q -o DPkg::Lock::Timeout=300)
    note "Installing rabbitmq-server with apt-get ..."
    if ! "${apt[@]}" --no-install-recommends install rabbitmq-server >/dev/null; then
        note "Trying again with fresh package lists ..."
        "${apt[@]}" update >/dev/null || die "apt-get update failed"
        "${apt[@]}" --no-install-recommends install rabbitmq-server >/dev/null ||
            die "apt-get could not install rabbitmq-server"
    fi
    disable rabbitmq-server rabbitmq-server.service
    [[ $had_erlang == yes ]] || disable epmd epmd.socket epmd.service
}

if rabbitmq_scripts_dir >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    die "RabbitMQ is missing and this system has no apt-get; install the package" \
        "rabbitmq-server (Arch: rabbitmq), or name the directory of its start script in" \
        "RABBITMQ_SCRIPTS_DIR"
fi
if ((EUID == 0)); then
    install_as_root
elif command -v sudo >/dev/null; then
    note "RabbitMQ is missing; installing it needs root, so sudo may ask for a password."
    sudo -- "$BASH" "$here/install-broker.sh"
else
    die "RabbitMQ is missing; as root, run: $here/install-broker.sh"
fi
rabbitmq_scripts_dir >/dev/null || die "rabbitmq-server was installed, but its scripts were not found"
