#!/usr/bin/env bash
# Stores every file below a directory in Holdfast, reads each one back and
# compares its SHA-256. Needs bash, curl, coreutils and findutils.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
source "$here/lib/common.sh"

usage() {
    cat <<'USAGE'
Usage: deploy/store-tree.sh DIR URL [--read-url URL2] [--prefix P] [--jobs J]

Stores each file as URL/objects/P/<its path below DIR>, then reads all of them
from URL2 (default: URL) and compares. Symbolic links are left out.

  --read-url URL2  read from another api than the one written to
  --prefix P       put before every name (default: none)
  --jobs J         connections at a time (default: 8)

Exits 0 when everything came back equal, 1 otherwise.
USAGE
}

bad_usage() {
    note "${0##*/}: $*"
    usage >&2
    exit 64
}

# A batch is what one curl process moves over one connection.
readonly batch_files=64
readonly batch_bytes=$((16 << 20))
# A refused or failed transfer is tried again, each time after the server's
# Retry-After, or as many seconds as there were attempts, up to the limit.
readonly attempts=6
readonly longest_wait_seconds=15
readonly listed_problems=20

# ---- names

# encode NAME: percent-encodes all but unreserved bytes and slashes, in $REPLY.
encode() {
    # Bytes, not characters.
    local LC_ALL=C name=$1 i byte
    REPLY=$name
    [[ ! $name =~ ^[A-Za-z0-9._~/-]*$ ]] || return 0
    REPLY=
    for ((i = 0; i < ${#name}; i++)); do
        case ${name:i:1} in
        [A-Za-z0-9._~/-]) REPLY+=${name:i:1} ;;
        *)
            printf -v byte %d "'${name:i:1}"
            printf -v byte %%%02X $((byte & 255))
            REPLY+=$byte
            ;;
        esac
    done
}

# quote TEXT: in quotes as curl's configuration files want it, in $REPLY.
quote() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    text=${text//$'\r'/\\r}
    text=${text//$'\t'/\\t}
    text=${text//$'\v'/\\v}
    REPLY="\"$text\""
}

# ---- one batch; runs in a process of its own, several at a time

# read_batch NUMBER: its paths below the directory, in $paths, and their $sizes.
read_batch() {
    local size path
    while IFS= read -r -d '' size && IFS= read -r -d '' path; do
        sizes+=("$size") paths+=("$path")
    done <"$work/$1.list"
}

# run_curl MODE NUMBER INDEX...: moves these files of the batch; what each was
# answered goes to $codes, and the longest Retry-After to $retry_after.
run_curl() {
    local mode=$1 batch=$2 i line value
    shift 2
    {
        for i in "$@"; do
            encode "$prefix${paths[i]}"
            quote "$base/objects/$REPLY" && printf 'url = %s\n' "$REPLY"
            if [[ $mode == put ]]; then
                quote "$directory/${paths[i]}" && printf 'upload-file = %s\n' "$REPLY"
            fi
            quote "$work/$batch.body/$i" && printf 'output = %s\n' "$REPLY"
            # curl makes no file for an empty body.
            : >"$work/$batch.body/$i"
        done
    } >"$work/$batch.curl"
    : >"$work/$batch.headers"
    # The names of the body files tell the answers apart. Its exit status is of
    # the last transfer only; what has no answer here failed.
    curl -q --silent --globoff --path-as-is --connect-timeout 10 --speed-limit 1 --speed-time 60 \
        --dump-header "$work/$batch.headers" --write-out '%{filename_effective} %{http_code}\n' \
        --config "$work/$batch.curl" >"$work/$batch.answers" 2>/dev/null || true
    while read -r line; do
        line=${line##*/}
        codes[${line% *}]=${line#* }
    done <"$work/$batch.answers"
    retry_after=0
    while IFS=': ' read -r line value; do
        value=${value%$'\r'}
        if [[ ${line,,} == retry-after && $value =~ ^[0-9]{1,6}$ ]] && ((10#$value > retry_after)); then
            retry_after=$((10#$value))
        fi
    done <"$work/$batch.headers"
}

# transfer MODE NUMBER: all files of a batch, with retries; fills $codes.
transfer() {
    local mode=$1 batch=$2 attempt i wait todo again
    todo=()
    for i in "${!paths[@]}"; do
        codes[i]=000
        if [[ $mode == put && ! -r $directory/${paths[i]} ]]; then
            codes[i]=unreadable
        else
            todo+=("$i")
        fi
    done
    mkdir -- "$work/$batch.body"
    for ((attempt = 1; attempt <= attempts && ${#todo[@]} > 0; attempt++)); do
        [[ ! -e $work/give-up ]] || return 0
        if ((attempt > 1)); then
            wait=$((retry_after > attempt ? retry_after : attempt))
            sleep $((wait < longest_wait_seconds ? wait : longest_wait_seconds))
        fi
        run_curl "$mode" "$batch" "${todo[@]}"
        again=()
        for i in "${todo[@]}"; do
            [[ ${codes[i]} != @(000|408|429|5??) ]] || again+=("$i")
        done
        # Nobody is served any more: the batches still to come need not try.
        ((${#again[@]} < ${#paths[@]} || attempt < attempts)) || : >"$work/give-up"
        todo=("${again[@]}")
    done
}

# hash_files ARRAY FILE...: the SHA-256 of each file goes into ARRAY, in order;
# one that cannot be read leaves its place empty.
hash_files() {
    local -n into=$1
    local line i=0
    shift
    local files=("$@")
    # The sum, two spaces, the path; -z leaves the path as it is.
    while IFS= read -r -d '' line; do
        while [[ ${files[i]} != "${line:66}" ]]; do i=$((i + 1)); done
        # shellcheck disable=SC2034 # it names the caller's array
        into[i++]=${line:0:64}
    done < <(sha256sum -z -- "${files[@]}" 2>/dev/null)
}

problem() {
    printf '  %q: %s\n' "$2" "$3" >>"$work/$1.problems"
    errors=$((errors + 1))
}

put_batch() {
    local batch=$1 i errors=0 bytes=0 answer paths=() sizes=() codes=() sums=() retry_after=0
    read_batch "$batch"
    # Before they are stored: what the server holds has to be this.
    hash_files sums "${paths[@]/#/$directory/}"
    transfer put "$batch"
    for i in "${!paths[@]}"; do
        case ${codes[i]} in
        2??) bytes=$((bytes + sizes[i])) ;;
        000) problem "$batch" "${paths[i]}" "not stored: no answer" && sums[i]= ;;
        unreadable) problem "$batch" "${paths[i]}" "not stored: it cannot be read" && sums[i]= ;;
        *)
            answer=$(head -c 200 -- "$work/$batch.body/$i" | head -n 1 | tr -d '\0')
            problem "$batch" "${paths[i]}" "not stored: ${codes[i]} $answer"
            sums[i]=
            ;;
        esac
    done
    for i in "${!paths[@]}"; do printf '%s\n' "${sums[i]:-}"; done >"$work/$batch.sums"
    rm -rf -- "$work/$batch.body"
    printf '%d %d %d\n' $((${#paths[@]} - errors)) "$bytes" "$errors" >>"$work/put.progress"
}

get_batch() {
    local batch=$1 i errors=0 bytes=0 missing=0 paths=() sizes=() codes=() sums=() came_back=()
    local retry_after=0
    read_batch "$batch"
    mapfile -t sums <"$work/$batch.sums"
    transfer get "$batch"
    # The body files are named by the indices of the paths.
    mapfile -t came_back < <(printf '%s\n' "${!paths[@]}")
    hash_files came_back "${came_back[@]/#/$work/$batch.body/}"
    for i in "${!paths[@]}"; do
        if [[ -z ${sums[i]} ]]; then
            # Already counted when it was not stored.
            missing=$((missing + 1))
        elif [[ ${codes[i]} != 200 ]]; then
            problem "$batch" "${paths[i]}" "not read: ${codes[i]/#000/no answer}"
        elif [[ ${came_back[i]} != "${sums[i]}" ]]; then
            problem "$batch" "${paths[i]}" "different: SHA-256 ${sums[i]} was stored, ${came_back[i]} came back"
        else
            bytes=$((bytes + sizes[i]))
        fi
    done
    rm -rf -- "$work/$batch.body"
    printf '%d %d %d\n' $((${#paths[@]} - errors - missing)) "$bytes" "$errors" >>"$work/get.progress"
}

# ---- all batches

# megabytes BYTES: with one digit after the point.
megabytes() { printf '%d.%d' $(($1 / 1000000)) $(($1 % 1000000 / 100000)); }

# report WORD: one line of progress from $done_files, $done_bytes, $done_errors.
report() {
    local millis
    millis=$(($(now_millis) - began))
    ((millis > 0)) || millis=1
    printf '%-8s %d of %d files, %s of %s MB, %d files/s, %s MB/s, %d errors' "$1" \
        "$done_files" "$file_count" "$(megabytes "$done_bytes")" "$(megabytes "$byte_count")" \
        $((done_files * 1000 / millis)) "$(megabytes $((done_bytes * 1000 / millis)))" "$done_errors"
}

# run_all MODE WORD: every batch, as many at a time as there are jobs.
run_all() {
    local files bytes errors pid shown=0 interval=5000
    [[ ! -t 2 ]] || interval=300
    done_files=0 done_bytes=0 done_errors=0 began=$(now_millis)
    : >"$work/$1.progress"
    rm -f -- "$work/give-up"
    seq 1 "$batch_count" | xargs -r -P "$jobs" -I '{}' "$BASH" "$here/store-tree.sh" "--$1-batch" '{}' &
    pid=$!
    exec 5<"$work/$1.progress"
    while true; do
        local running=yes
        kill -0 "$pid" 2>/dev/null || running=no
        while read -r files bytes errors <&5; do
            done_files=$((done_files + files)) done_bytes=$((done_bytes + bytes))
            done_errors=$((done_errors + errors))
        done
        [[ $running == yes ]] || break
        if (($(now_millis) - began - shown >= interval)); then
            shown=$(($(now_millis) - began))
            if [[ -t 2 ]]; then printf '\r%s\033[K' "$(report "$2")" >&2; else note "$(report "$2")"; fi
        fi
        sleep 0.1
    done
    exec 5<&-
    if [[ -t 2 ]]; then printf '\r%s\033[K\n' "$(report "$2")" >&2; else note "$(report "$2")"; fi
    wait "$pid" || die "a batch could not be processed"
}

# make_batches: lists of NUL-terminated sizes and paths in $work/1.list, $work/2.list, ...
make_batches() {
    local size path in_batch=0 bytes=0
    while IFS= read -r -d '' size && IFS= read -r -d '' path; do
        if ((batch_count == 0 || in_batch == batch_files || (in_batch > 0 && bytes + size > batch_bytes))); then
            batch_count=$((batch_count + 1)) in_batch=0 bytes=0
            exec 6>"$work/$batch_count.list"
        fi
        printf '%s\0' "$size" "$path" >&6
        in_batch=$((in_batch + 1)) bytes=$((bytes + size))
        file_count=$((file_count + 1)) byte_count=$((byte_count + size))
    done <"$work/files"
    exec 6>&-
}

check_url() {
    [[ $1 =~ ^https?://[^/]+ ]] || bad_usage "'$1' is not a URL like http://127.0.0.1:8080"
}

main() {
    local read_url='' arguments=() stored_files stored_errors file
    prefix='' jobs=8
    while (($#)); do
        case $1 in
        --read-url | --prefix | --jobs)
            (($# > 1)) || bad_usage "$1 needs a value"
            case $1 in
            --read-url) read_url=$2 ;;
            --prefix) prefix=${2%/}/ ;;
            --jobs) jobs=$2 ;;
            esac
            shift
            ;;
        -h | --help) usage && return ;;
        -*) bad_usage "unknown option: $1" ;;
        *) arguments+=("$1") ;;
        esac
        shift
    done
    ((${#arguments[@]} == 2)) || bad_usage "a directory and a URL are needed"
    [[ -d ${arguments[0]} ]] || bad_usage "'${arguments[0]}' is not a directory"
    is_count "$jobs" 1 256 || bad_usage "--jobs takes a number from 1 to 256"
    base=${arguments[1]%/} read_url=${read_url:-${arguments[1]}}
    check_url "$base"
    check_url "$read_url"
    [[ $prefix != / ]] || prefix=''
    need curl curl
    need find findutils
    need xargs findutils

    directory=$(cd -- "${arguments[0]}" && pwd)
    work=$(mktemp -d)
    trap 'rm -rf -- "$work"' EXIT
    trap 'exit 130' INT TERM
    batch_count=0 file_count=0 byte_count=0
    find "$directory" -type f -printf '%s\0%P\0' >"$work/files" || die "$directory cannot be read completely"
    make_batches
    export work directory prefix base

    run_all put stored
    stored_files=$done_files stored_errors=$done_errors
    base=${read_url%/} done_files=0 done_errors=0
    ((stored_files == 0)) || run_all get read
    printf '%s: %d files, %s MB: %d stored, %d read back equal, %d failed or different\n' "$directory" \
        "$file_count" "$(megabytes "$byte_count")" "$stored_files" "$done_files" \
        $((stored_errors + done_errors))
    for file in "$work"/*.problems; do
        [[ ! -e $file ]] || cat -- "$file"
    done >"$work/problems"
    head -n "$listed_problems" -- "$work/problems"
    if ((stored_errors + done_errors > listed_problems)); then
        printf '  ... and %d more\n' $((stored_errors + done_errors - listed_problems))
    fi
    ((done_files == file_count))
}

case ${1:-} in
--put-batch) put_batch "$2" ;;
--get-batch) get_batch "$2" ;;
*) main "$@" ;;
esac
