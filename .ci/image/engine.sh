# shellcheck shell=bash disable=SC2154
# podman with a store, networks and a configuration of its own, and the images that
# no registry gives. Sourced by check-image and check-compose; uses
# deploy/lib/common.sh.

readonly state=$PWD/target/ci/image
readonly broker_image=localhost/holdfast-check/rabbitmq
readonly slim_image=docker.io/library/debian:bookworm-slim
readonly rust_image=docker.io/library/rust:1-bookworm
readonly debian_mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

# Without the lock: what watches over a container would keep it beyond the end of a
# check that is killed, and the next one could not clean up.
engine() {
    CONTAINERS_CONF=$state/containers.conf podman --root "$state/store" --runroot "$run_dir" "$@" 9>&-
}

install_tools() {
    local missing=() tool package
    for tool in podman:podman runc:runc catatonit:catatonit mmdebstrap:mmdebstrap \
        iptables:iptables curl:curl flock:util-linux; do
        package=${tool#*:}
        command -v "${tool%:*}" >/dev/null || missing+=("$package")
    done
    for package in netavark aardvark-dns; do
        [[ -x /usr/lib/podman/$package ]] || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0
    install_packages "${missing[@]}"
}

prepare_engine() {
    install_tools
    mkdir -p "$state/networks"
    exec 9>"$state/lock"
    flock -n 9 || die "another check is at work in $state"
    # Sockets below it: its path must be short. One for each checkout.
    run_dir=/run/holdfast-image-$(cksum <<<"$state" | cut -d ' ' -f 1)
    work=$(mktemp -d)
    # The limits are those that a container in a container may still set.
    cat >"$state/containers.conf" <<CONFIG
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$run_dir/tmp"
[network]
network_backend = "netavark"
network_config_dir = "$state/networks"
CONFIG
    # What an earlier run left that was killed.
    remove_containers
}

remove_containers() {
    engine pod rm --all --force --time 0 >/dev/null 2>&1 || true
    engine rm --all --force --volumes --time 0 >/dev/null 2>&1 || true
    engine volume prune --force >/dev/null 2>&1 || true
    engine network prune --force >/dev/null 2>&1 || true
}

# release_mounts: those of the store, and of a build that was cut off.
release_mounts() {
    local mounts
    mapfile -t mounts < <(awk -v store="$state/store/" 'index($2, store) == 1 { print $2 }' /proc/mounts | sort -r)
    ((${#mounts[@]} == 0)) || umount --lazy -- "${mounts[@]}" || note "mounts below $state/store are left"
}

# release_rules: netavark leaves its chains of packet filters behind. They are nobody's
# when no network of it is left, be it ours or the machine's.
release_rules() {
    local table chain
    ! compgen -G '/sys/class/net/podman*' >/dev/null || return 0
    for table in filter nat; do
        iptables-save -t "$table" | sed -n 's/^-A \(.*NETAVARK.*\)/-D \1/p' |
            xargs -r -L 1 iptables -t "$table" || note "rules of podman are left in $table"
        iptables-save -t "$table" | sed -n 's/^:\(NETAVARK[^ ]*\) .*/\1/p' |
            while read -r chain; do
                iptables -t "$table" -X "$chain" || note "the chain $chain of podman is left in $table"
            done
    done
}

clean_engine() {
    local status=$?
    trap - EXIT
    ((status == 0)) || show_logs
    remove_containers
    release_mounts
    release_rules
    rm -rf -- "$work" "$run_dir"
    exit "$status"
}

show_logs() {
    local container
    for container in $(engine ps --all --format '{{.Names}}' 2>/dev/null); do
        note "---- the last lines of $container:"
        engine logs --tail 15 "$container" 2>&1 | cut -c -400 | sed 's/^/  | /' >&2 || true
    done
}

# ---- images

have() { engine image exists "$1"; }

build_bases() {
    if ! have "$slim_image"; then
        note "Making $slim_image ..."
        mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Acquire::Languages "none"' \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            bookworm "$work/slim.tar" "$debian_mirror"
        engine import --quiet --change 'CMD ["bash"]' \
            --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
            "$work/slim.tar" "$slim_image" >/dev/null
        rm -f -- "$work/slim.tar"
    fi
    build_stand_in rust "$rust_image"
    build_stand_in rabbitmq "$broker_image"
}

# build_stand_in NAME TAG
build_stand_in() { build .ci/image --file ".ci/image/Containerfile.$1" --tag "$2"; }

# build CONTEXT ARGUMENT...: layers of an earlier run are used again. chroot: a
# container in a container may not mount what the other isolations mount.
build() {
    local context=$1
    shift
    engine build --quiet --isolation chroot --pull=never --layers "$@" "$context" >/dev/null
}

cargo_version() { sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1; }

# build_image PROFILE TAG: with the host's toolchain and crates in place of the
# official image's and of the network.
build_image() {
    local revision
    revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    need cargo "of Rust, see https://rustup.rs"
    cargo fetch --locked --quiet
    build . --build-arg "PROFILE=$1" --build-arg "REVISION=$revision" --tag "$2" \
        --volume "$(rustc --print sysroot):/usr/local/rustup:ro" \
        --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry"
}
