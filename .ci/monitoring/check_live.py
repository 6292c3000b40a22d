"""Asks a Prometheus that scrapes a real cluster whether everything that rules
and dashboards ask for is there. Arguments: its URL, for how many seconds the
broker was away, pages of /metrics."""

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request

import yaml

from expressions import ROOT, RULES, dashboards, panels, selectors, substitute

# Everything; one service's job, as the variables choose it; targets without
# the label namespace.
SELECTIONS = {
    "all": {"namespace": ".*", "job": ".*", "instance": ".*"},
    "with namespace": {"namespace": "one", "job": "one-holdfast-api|one-holdfast-dataserver", "instance": ".*"},
    "without namespace": {"namespace": ".*", "job": "pods", "instance": ".*"},
}
# What rates look back on here: longer than all of this takes.
INTERVAL = "2m"
# Scrapes come every second; rates need two.
DEADLINE_SECONDS = 15

# Less than the `for` of HoldfastBrokerDown; a machine may be so busy that a
# restart of the broker takes longer.
SHORT_OUTAGE_SECONDS = 50

base, outage_seconds = sys.argv[1], int(sys.argv[2])
problems = []


def ask(path, **parameters):
    query = urllib.parse.urlencode(parameters)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{base}/api/v1/{path}?{query}", timeout=20) as answer:
        return json.load(answer)["data"]


def has_data(expr):
    """Whether it gives at least one number."""
    result = ask("query", query=expr)["result"]
    return any(math.isfinite(float(sample["value"][1])) for sample in result)


def missing(expressions):
    """Those of (what for, expression) that have no data, given some time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        expressions = [(what, expr) for what, expr in expressions if not has_data(expr)]
        if not expressions or time.monotonic() > deadline:
            return expressions
        time.sleep(0.5)


def check_panels():
    asked = []
    for path, dashboard in dashboards():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                for chosen, selection in SELECTIONS.items():
                    what = f"{path.name}, {panel['title']}, {chosen}"
                    asked.append((what, substitute(target["expr"], selection, INTERVAL)))
    problems.extend(f"no data for {what}: {expr}" for what, expr in missing(asked))
    return len(asked)


def check_selectors():
    """Names and values of labels, too: a code that nobody exports is as wrong
    as a metric that nobody exports."""
    asked = set()
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            asked |= {(rule["alert"], one) for one in selectors(rule["expr"])}
    for path, dashboard in dashboards():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                expr = substitute(target["expr"], SELECTIONS["all"], INTERVAL)
                asked |= {(f"{path.name}, {panel['title']}", one) for one in selectors(expr)}
    problems.extend(f"{what} asks for {one}, which nobody exports" for what, one in sorted(missing(list(asked))))
    return len({one for _, one in asked})


def check_evaluation():
    """Prometheus evaluates every rule without error. What happened here was a
    crash and a planned restart: seen, and no alert."""
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule["health"] != "ok":
            problems.append(f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}")
    fired = ask("query", query='count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[5m]))')
    names = {sample["metric"]["alertname"] for sample in fired["result"]}
    if outage_seconds > SHORT_OUTAGE_SECONDS:
        names.discard("HoldfastBrokerDown")
    problems.extend(f"{name} has fired" for name in sorted(names))
    if not has_data('count_over_time(ALERTS{alertname="HoldfastBrokerDown", alertstate="pending"}[5m])'):
        problems.append("HoldfastBrokerDown has not even been pending while the broker was away")
    return len(rules)


def check_readme():
    """README.md lists just the metrics that there are."""
    exported = set()
    for page in sys.argv[3:]:
        with open(page, encoding="utf-8") as text:
            exported |= set(re.findall(r"^# TYPE (holdfast_\w+) ", text.read(), re.M))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `holdfast_")]
    told = {name for row in rows for name in re.findall(r"`(holdfast_\w+)`", row)}
    problems.extend(f"README.md does not list {name}" for name in sorted(exported - told))
    problems.extend(f"README.md lists {name}, which nobody exports" for name in sorted(told - exported))
    return len(exported)


counts = (check_panels(), check_selectors(), check_readme(), check_evaluation())
if problems:
    sys.exit("\n".join(problems))
print("with data: %d queries of panels, %d selectors; %d metrics as in README.md; %d rules evaluated, none fired" % counts)
