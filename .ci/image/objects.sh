# shellcheck shell=bash disable=SC2154
# Waiting, and what a client does with a cluster: stores, reads, compares. Sourced by
# check-image and check-compose.
#
# Uses: $work (a directory of our own; what was stored is in $work/objects).

# For anything to become ready on a busy machine.
readonly patience_seconds=120

# until_true WHAT COMMAND...: tries it until it succeeds or patience ends.
until_true() {
    local what=$1 deadline=$((SECONDS + patience_seconds))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || die "not within $patience_seconds s: $what"
        sleep 0.2
    done
}

put() { curl -q -s -f -o /dev/null --max-time 20 --noproxy '*' --upload-file "$3" "http://$1/objects/$2"; }

# is_same ADDRESS NAME FILE: an answer with other bytes, or a 404, is a loss and ends
# the check; what is not served yet may come.
is_same() {
    local code
    code=$(curl -q -s -o "$work/answer" --max-time 20 --noproxy '*' -w '%{http_code}' "http://$1/objects/$2") || return 1
    [[ $code != 404 ]] || die "$2 is gone"
    [[ $code == 200 ]] || return 1
    cmp -s "$3" "$work/answer" || die "$2 came back different"
}

# verify ADDRESS...: every object, from each api.
verify() {
    local address file count=0
    for address in "$@"; do
        for file in "$work"/objects/*; do
            : >"$work/answer"
            until_true "${file##*/} is served" is_same "$address" "objects-${file##*/}" "$file"
            count=$((count + 1))
        done
    done
    printf '  %d reads, all equal\n' "$count"
}
