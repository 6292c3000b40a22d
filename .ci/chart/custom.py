"""Custom resources fit the schemas of those who define them."""

import copy
import json
import os
import pathlib
import subprocess

from rendering import title

# Resources that others define, each of which some values file makes.
CUSTOM = {"HTTPRoute", "PrometheusRule", "ServiceMonitor", "PodMonitor"}
VALIDATE = pathlib.Path(__file__).with_name("custom") / "validate.mjs"


def complaints(objects):
    """A list of complaints about each."""
    ran = subprocess.run(
        ["node", VALIDATE, os.environ["CUSTOM_SCHEMAS"]], input=json.dumps(objects), capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        raise SystemExit(f"{VALIDATE}: {ran.stderr}")
    return json.loads(ran.stdout)


def broken(one):
    """The same with mistakes, each of which must be found: a field that nobody
    defines, deep within, and one of another type."""
    misspelt, mistyped = copy.deepcopy(one), copy.deepcopy(one)
    within = misspelt["spec"]
    while nested := [each[0] if isinstance(each, list) else each for each in within.values() if isinstance(each, list) and isinstance(each[0], dict)]:
        within = nested[0]
    within["nobodyDefinesThis"] = "x"
    key = next(iter(mistyped["spec"]))
    mistyped["spec"][key] = 1
    return [misspelt, mistyped]


def check_custom(failures, renderings):
    unique = {}
    for values, rendered in renderings.items():
        for one in rendered:
            if one["kind"] in CUSTOM:
                unique.setdefault(json.dumps(one, sort_keys=True), (values, one))
    found = [one for _, one in unique.values()]
    kinds = {one["kind"] for one in found}
    failures.check(kinds == CUSTOM, f"no values file makes these custom resources: {CUSTOM - kinds}")
    for (values, one), lines in zip(unique.values(), complaints(found)):
        failures.check(not lines, f"{values}: {title(one)}: {'; '.join(lines)}")
    mistaken = [each for one in found for each in broken(one)]
    for one, lines in zip(mistaken, complaints(mistaken)):
        failures.check(lines, f"{title(one)}: a mistake in it is not found")
