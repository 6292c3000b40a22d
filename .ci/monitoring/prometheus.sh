# shellcheck shell=bash
# Where promtool and prometheus are. Sourced by check-monitoring.
#
# Debian's package is unpacked below target/ci and not installed: so it needs no
# root, and its service, its user and its data directory never come to be.

readonly prometheus_dir=target/ci/prometheus

# find_prometheus: prints the directory that holds promtool and prometheus.
find_prometheus() {
    local found
    if found=$(command -v promtool) && [[ -x ${found%/*}/prometheus ]]; then
        printf '%s\n' "${found%/*}"
        return
    fi
    [[ -x $prometheus_dir/usr/bin/promtool ]] || unpack_prometheus
    printf '%s\n' "$prometheus_dir/usr/bin"
}

unpack_prometheus() {
    local new
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        die "promtool and prometheus are needed, and this system has no apt-get; install prometheus"
    fi
    note "Downloading the package prometheus ..."
    mkdir -p target/ci
    new=$(mktemp -d target/ci/prometheus.XXXXXX)
    # apt drops its rights for downloads and then needs to enter the directory.
    chmod 755 "$new"
    if ! download_package "$new"; then
        note "Trying again with fresh package lists ..."
        as_root apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null || die "apt-get update failed"
        download_package "$new" || die "apt-get could not download the package prometheus"
    fi
    dpkg-deb --extract "$new"/*.deb "$new/root"
    # Another run may have been faster; its files are the same.
    mv -T -- "$new/root" "$prometheus_dir" 2>/dev/null || true
    rm -rf -- "$new"
    [[ -x $prometheus_dir/usr/bin/promtool ]] || die "the package prometheus has no promtool"
}

download_package() { (cd -- "$1" && apt-get -q download prometheus >/dev/null 2>&1); }

as_root() {
    if ((EUID == 0)); then "$@"; else sudo -- "$@"; fi
}
