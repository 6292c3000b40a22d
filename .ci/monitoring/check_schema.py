"""Refuses what Grafana's own model of a dashboard does not know: a field whose name
is wrong, or that is at the wrong place, would be ignored without a word. Reads each
dashboard into the model and writes it again; what does not come back is unknown."""

import copy
import json
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from expressions import dashboards, panels

plugins.register_default_plugins()


def differences(given, back, path=""):
    """Where what came back is less than what was given, or another. Defaults that the
    model adds are none of our business."""
    if isinstance(given, dict) and isinstance(back, dict):
        for key, value in given.items():
            if key in back:
                yield from differences(value, back[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for number, (one, other) in enumerate(zip(given, back)):
            yield from differences(one, other, f"{path}[{number}]")
    elif given != back:
        yield path


def unknown(dashboard):
    return list(differences(dashboard, json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))))


def with_mistakes(dashboard):
    """Copies with one mistake each, as they are easily made."""
    for misspell in (
        lambda panel: panel["fieldConfig"]["defaults"],
        lambda panel: panel["options"],
        lambda panel: panel["targets"][0],
        lambda panel: panel["gridPos"],
        lambda panel: panel,
    ):
        copied = copy.deepcopy(dashboard)
        misspell(next(panels(copied)))["untis"] = "s"
        yield copied


problems = []
for path, dashboard in dashboards():
    problems += [f"{path.name}: Grafana does not know {where}" for where in unknown(dashboard)]
    problems += [f"{path.name}: a mistake is not found" for mistaken in with_mistakes(dashboard) if not unknown(mistaken)]
if problems:
    sys.exit("\n".join(problems))
print("Grafana's model knows every field of the dashboards")
