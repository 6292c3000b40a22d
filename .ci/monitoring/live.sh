# shellcheck shell=bash disable=SC2154
# A real cluster that a real Prometheus scrapes, through the troubles after which
# every series exists. Sourced by check-monitoring.
#
# Uses: $work (a directory of our own), $prometheus_bin, $python, $bin_dir.

# Short, so that a silence is over within seconds. The scrape is as fast: rates
# need two of them.
readonly heartbeat_interval=500ms heartbeat_expiry=1500ms
# What one of a kind may show under the load below.
readonly -A most_series=([api]=320 [dataserver]=500)
cluster=$work/cluster
prometheus_pid='' prometheus_port=''

local_sh() {
    HOLDFAST_LOCAL_DIR=$cluster HOLDFAST_BIN_DIR=$bin_dir SHUTDOWN_DELAY=200ms \
        HEARTBEAT_INTERVAL=$heartbeat_interval HEARTBEAT_EXPIRY=$heartbeat_expiry \
        REPLICAS=3 REPAIR_INTERVAL=4s deploy/local.sh "$@"
}

# stop_live: whatever state it is in.
stop_live() {
    if [[ -n $prometheus_pid ]] && kill "$prometheus_pid" 2>/dev/null; then
        wait "$prometheus_pid" 2>/dev/null || true
    fi
    [[ ! -d $cluster ]] || local_sh down --purge >/dev/null 2>&1 || note "the cluster in $cluster did not stop"
}

# port_of COMPONENT KIND: KIND is port or admin.
port_of() { sed -n "s/^${1//-/_}_$2=//p" "$cluster/settings"; }

# wait_for SECONDS WHAT COMMAND...: polls until COMMAND succeeds.
wait_for() {
    local deadline what=$2
    deadline=$(($(now_millis) + $1 * 1000))
    shift 2
    until "$@"; do
        (($(now_millis) < deadline)) || die "waited in vain until $what"
        sleep 0.1
    done
}

# request STATUS METHOD PATH [CURL ARGUMENT...]: through both apis.
request() {
    local expected=$1 method=$2 path=$3 api got
    shift 3
    for api in api-1 api-2; do
        got=$(curl -q -s -m 10 --noproxy '*' -o /dev/null -w '%{http_code}' -X "$method" \
            "$@" "http://127.0.0.1:$(port_of "$api" port)$path") || true
        [[ $got =~ ^($expected)$ ]] || die "$method $path at $api: $got instead of $expected"
    done
}

# traffic: what clients do, all of which goes on while one data server is away.
traffic() {
    local i
    for i in 1 2 3; do
        request "200" PUT "/objects/small-$i" --data-binary "small $i"
        request "200" GET "/objects/small-$i"
    done
    request "200" PUT /objects/large -T "$work/large"
    request "200|206" GET /objects/large -r 0-99
    request "404" GET /objects/never-written
    request "200" HEAD /objects/large -I
    request "200" GET /locate/large
    request "200" GET /objects/
    request "204" DELETE /objects/small-1
    request 412 PUT /objects/small-2 -H 'if-match: "x"' --data-binary x
}

# apis_show METRIC VALUE: waits until both do.
apis_show() {
    local api
    for api in api-1 api-2; do wait_for 30 "$api shows $1 $2" metric_is "$api" "$1" "$2"; done
}

metric_is() {
    [[ $(curl -q -s -m 2 --noproxy '*' "http://127.0.0.1:$(port_of "$1" admin)/metrics" |
        sed -n "s/^$2 //p") == "$3" ]]
}

# end_component SIGNAL NAME: as a crash or an eviction would.
end_component() {
    local pid
    read -r pid _ <"$cluster/run/$2.pid"
    kill -s "$1" "$pid"
    wait_for 20 "$2 has ended" not_running "$pid"
}

not_running() { ! kill -0 "$1" 2>/dev/null; }

prometheus_config() {
    local name api_targets='' dataserver_targets=''
    for name in api-1 api-2; do api_targets+="'127.0.0.1:$(port_of "$name" admin)', "; done
    for name in dataserver-{1..3}; do
        dataserver_targets+="'127.0.0.1:$(port_of "$name" admin)', "
    done
    # Twice: with a label namespace and a job for each service, as the operator
    # does it, and without and in one job, as annotations are often used.
    cat <<CONFIG
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ['$PWD/helm/holdfast/files/alerts.yaml']
scrape_configs:
  - job_name: one-holdfast-api
    static_configs: [{targets: [$api_targets], labels: {namespace: one}}]
  - job_name: one-holdfast-dataserver
    static_configs: [{targets: [$dataserver_targets], labels: {namespace: one}}]
  - job_name: pods
    static_configs: [{targets: [$api_targets$dataserver_targets]}]
CONFIG
}

start_prometheus() {
    local attempt
    prometheus_config >"$work/prometheus.yml"
    for attempt in {1..5}; do
        prometheus_port=$(choose_port)
        "$prometheus_bin/prometheus" --config.file="$work/prometheus.yml" \
            --storage.tsdb.path="$work/prometheus" --web.listen-address="127.0.0.1:$prometheus_port" \
            --log.level=warn >"$work/prometheus.log" 2>&1 &
        prometheus_pid=$!
        for _ in {1..150}; do
            not_running "$prometheus_pid" && break
            ! prometheus_is_ready || return 0
            sleep 0.1
        done
        note "Prometheus did not start on port $prometheus_port (try $attempt)"
        kill "$prometheus_pid" 2>/dev/null || true
    done
    cat "$work/prometheus.log" >&2
    die "Prometheus does not start"
}

prometheus_is_ready() {
    curl -q -sf -m 2 --noproxy '*' -o /dev/null "http://127.0.0.1:$prometheus_port/-/ready"
}

# lint_metrics: the pages themselves, and that there are not too many series: each
# costs memory in Prometheus, for every pod, again after each restart of one.
lint_metrics() {
    local name page count most
    for name in api-1 api-2 dataserver-{1..3}; do
        page=$work/$name.metrics
        curl -q -sf -m 5 --noproxy '*' -o "$page" "http://127.0.0.1:$(port_of "$name" admin)/metrics"
        "$prometheus_bin/promtool" check metrics <"$page" || die "promtool finds fault with the metrics of $name"
        count=$(grep -vc '^#' "$page")
        most=${most_series[${name%-*}]}
        ((count <= most)) || {
            note "The largest families of $name:"
            grep -v '^#' "$page" | sed -E 's/(_bucket|_sum|_count)?[{ ].*//' | sort | uniq -c | sort -rn | head -n 12 >&2
            die "$name shows $count series, more than $most"
        }
        note "  $name: $count series of at most $most, clean"
    done
}

check_live() {
    local began outage
    head -c 300000 /dev/urandom >"$work/large"
    note "Starting a cluster ..."
    local_sh up >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2 && die "the cluster does not start"; }
    start_prometheus
    traffic
    note "A data server crashes and the broker stops ..."
    end_component KILL dataserver-2
    began=$SECONDS
    end_component TERM rabbitmq
    apis_show holdfast_broker_connected 0
    apis_show 'holdfast_dataservers{state="silent"}' 1
    traffic
    note "Another data server crashes: one is left, which is too few ..."
    end_component KILL dataserver-3
    apis_show 'holdfast_dataservers{state="silent"}' 2
    request "503" GET /objects/never-written
    request "503" PUT /objects/small-3 --data-binary "small 3"
    note "All start again ..."
    local_sh up >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2 && die "the cluster does not start again"; }
    apis_show holdfast_broker_connected 1
    apis_show 'holdfast_dataservers{state="silent"}' 0
    outage=$((SECONDS - began))
    traffic
    lint_metrics
    "$python" .ci/monitoring/check_live.py "http://127.0.0.1:$prometheus_port" "$outage" "$work"/*.metrics
}
