"""Refuses dashboards that would be broken, or of no help, in somebody else's
Grafana. Writes every expression as a recording rule to the file that is named,
for promtool to parse."""

import json
import sys

from expressions import dashboards, panels, substitute

ROWS = ["Overview", "Heartbeats", "Locate", "Lists", "HTTP", "Redundancy and repair", "Storage", "Broker", "Process"]
VARIABLES = ["datasource", "namespace", "job", "instance"]
SELECTION = {"namespace": ".*", "job": ".*", "instance": ".*"}
# Of the Grafana releases that are supported now; older ones read it, too.
LEAST_SCHEMA = 39
WIDTH = 24

problems = []


def check_frame(name, dashboard):
    if not dashboard.get("uid") or "id" in dashboard:
        problems.append(f"{name}: needs a fixed uid and no id")
    if "__inputs" in dashboard or "__requires" in dashboard:
        problems.append(f"{name}: was exported for sharing: provisioning cannot fill __inputs in")
    if dashboard.get("schemaVersion", 0) < LEAST_SCHEMA:
        problems.append(f"{name}: schemaVersion is below {LEAST_SCHEMA}")
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    if variables != VARIABLES:
        problems.append(f"{name}: its variables are not {VARIABLES}")
    for variable in dashboard["templating"]["list"][1:]:
        # The label may not be there at all, which only .* matches.
        if not (variable["includeAll"] and variable["multi"] and variable["allValue"] == ".*"):
            problems.append(f"{name}: {variable['name']} has no All that is .*")
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    if rows != ROWS:
        problems.append(f"{name}: its rows are not {ROWS}")


def check_places(name, all_panels):
    ids = [panel["id"] for panel in all_panels]
    if len(ids) != len(set(ids)):
        problems.append(f"{name}: two panels have the same id")
    taken = {}
    for panel in all_panels:
        place = panel["gridPos"]
        if place["x"] < 0 or place["x"] + place["w"] > WIDTH:
            problems.append(f"{name}: {panel['title']} is wider than the page")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel)
                if other is not panel:
                    problems.append(f"{name}: {panel['title']} lies over {other['title']}")
                    return


def check_panel(name, panel):
    where = f"{name}: {panel['title']}"
    if not panel.get("description"):
        problems.append(f"{where} has no description")
    if not panel["fieldConfig"]["defaults"].get("unit"):
        problems.append(f"{where} has no unit")
    refs = [target.get("refId") for target in panel["targets"]]
    if not refs or not all(refs) or len(refs) != len(set(refs)):
        problems.append(f"{where}: its targets need refIds of their own")
    for target in panel["targets"]:
        expr = target["expr"]
        for source in (panel["datasource"], target["datasource"]):
            if source != {"type": "prometheus", "uid": "${datasource}"}:
                problems.append(f"{where} does not use ${{datasource}}")
        if "rate(" in expr and "$__rate_interval" not in expr:
            problems.append(f"{where}: a rate without $__rate_interval")
        if "holdfast_" in expr and "$namespace" not in expr:
            problems.append(f"{where} does not heed the variables")
        yield substitute(expr, SELECTION)


expressions = []
for path, dashboard in dashboards():
    check_frame(path.name, dashboard)
    shown = list(panels(dashboard))
    check_places(path.name, [panel for panel in dashboard["panels"] if panel["type"] == "row"] + shown)
    for panel in shown:
        expressions.extend(check_panel(path.name, panel))
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            expressions.append(substitute(annotation["expr"], SELECTION))
if problems:
    sys.exit("\n".join(problems))
with open(sys.argv[1], "w", encoding="utf-8") as out:
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(expressions)]
    json.dump({"groups": [{"name": "panels", "rules": rules}]}, out)
print(f"{len(expressions)} expressions of dashboards, each panel with a unit and a description")
