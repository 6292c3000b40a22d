"""Every check of the chart that reads renderings. `.ci/check-chart` calls it.

usage: check.py KUBERNETES...   with versions of Kubernetes whose schemas to use
       check.py --pin           writes pinned.txt anew
"""

import json
import pathlib
import sys

import kubernetes_validate

from custom import CUSTOM, check_custom
from hooks import check_hooks, check_off
from kept_secret import check_kept_secret
from pods import check_pods
from programs import check_programs
from refusals import check_refusals
from rendering import CHART, Failures, ci_values, component, helm, load, of_kind, objects, pods, template, title, together, without_generated
from whole import check_long_names, check_secrets, check_whole

PINNED = pathlib.Path(__file__).with_name("pinned.txt")
# Secrets and ConfigMaps that the values files take from others.
FOREIGN = {"broker-default-user", "rabbitmq", "broker-login", "more"}
IMAGES = {
    "image": "registry.invalid/ours",
    "rabbitmq.image": "registry.invalid/theirs",
}


def pinned_text():
    """Everything that cannot be changed in a running release, or must not."""
    lines = []
    for arguments, about in (([], "defaults"), (["--set", "fullnameOverride=mine,nameOverride=yours"], "overridden names")):
        lines.append(f"# {about}")
        for one in objects(*arguments):
            spec = one.get("spec", {})
            if one["kind"] in ("Deployment", "StatefulSet"):
                lines.append(f"{title(one)} selects {json.dumps(spec['selector']['matchLabels'], sort_keys=True)}")
            if one["kind"] == "StatefulSet":
                lines.append(f"{title(one)} serviceName {spec['serviceName']} podManagementPolicy {spec['podManagementPolicy'] if 'podManagementPolicy' in spec else 'default'}")
                for claim in spec["volumeClaimTemplates"]:
                    labels = json.dumps(claim["metadata"]["labels"], sort_keys=True)
                    lines.append(f"{title(one)} claim {claim['metadata']['name']} {claim['spec']['accessModes']} {labels}")
            if one["kind"] in ("Secret", "Service"):
                lines.append(f"{title(one)}")
    return "\n".join(lines) + "\n"


def check_pinned(failures):
    pinned, now = PINNED.read_text().splitlines(), pinned_text().splitlines()
    for line in pinned:
        failures.check(line in now, f"pinned.txt: no longer so: {line}")
    for line in now:
        failures.check(line in pinned, f"pinned.txt does not have: {line}")


def check_same_in_both(failures):
    """helm 3 and helm 4 render the same; returns what helm 4 renders."""
    renderings = {}
    files = ci_values()
    both = together(lambda version: [template("-f", file, version=version) for file in files], ("4", "3"))
    for file, newer, older in zip(files, *([load(text) for text in texts] for texts in both)):
        same = without_generated(older) == without_generated(newer)
        failures.check(same, f"{file.name}: helm 3 and helm 4 render different objects")
        renderings[file.name] = newer
    return renderings


def check_kubernetes(failures, renderings, versions):
    """Every object fits the schemas of Kubernetes, which knows no custom resources:
    check_custom has those."""
    failures.check(len(versions) >= 2, f"schemas of Kubernetes: {versions}")
    for version in versions:
        # Most values files change few objects, and each takes a while.
        seen = set()
        for values, rendered in renderings.items():
            for one in rendered:
                text = json.dumps(one, sort_keys=True)
                if text in seen:
                    continue
                seen.add(text)
                try:
                    kubernetes_validate.validate(one, version, strict=True)
                    failures.checked += 1
                except kubernetes_validate.ValidationError as error:
                    failures.check(False, f"{values}: Kubernetes {version}: {title(one)}: {error.message} at {'.'.join(map(str, error.path))}")
                except kubernetes_validate.SchemaNotFoundError:
                    failures.check(one["kind"] in CUSTOM, f"{values}: Kubernetes {version} has no {one['kind']} {one['apiVersion']}")


def check_lint(failures):
    for file in ci_values():
        for version, ran in zip("34", together(lambda version: helm(version, "lint", "--strict", CHART, "-f", file), "34")):
            failures.check(ran.returncode == 0, f"{file.name}: helm {version} lint --strict: {ran.stdout}{ran.stderr}")


def check_notes(failures):
    """What an installation says: how to reach it, and what to be afraid of. helm 3
    does not say it without a cluster."""
    cases = (
        (["--set", "config.writeQuorum=3,dataserver.replicaCount=5"], ("has 3 copies. Data servers that may be away at a time: 2.",), ()),
        (["--set", "config.writeQuorum=3"], ("Data servers that may be away at a time: 0.",), ()),
        ([], ("port-forward service/store-holdfast-api 8080:8080", "-X PUT http", "no keys of its own", "keeps the volumes", "has 3 copies. Data servers that may be away at a time: 1.", "With one more"), ("persistence.enabled is false", "config.replicas is 1")),
        (["--set", "config.replicas=5,dataserver.replicaCount=6"], ("may be away at a time: 2.",), ("With one more",)),
        (["--set", "config.replicas=1"], ("config.replicas is 1. A lost volume loses",), ("may be away", "With one more")),
        (["--set", "dataserver.persistence.enabled=false"], ("dataserver.persistence.enabled is false",), ("keeps the volumes",)),
        (["--set", "ingress.enabled=true,metrics.serviceMonitor.enabled=true"], ("reachable from outside", "labels.release="), ()),
    )
    for arguments, present, absent in cases:
        ran = helm("4", "install", "store", CHART, "--namespace", "objects", "--dry-run=client", *arguments)
        notes = ran.stdout.partition("NOTES:")[2]
        for phrase in present:
            failures.check(phrase in notes, f"NOTES.txt with {arguments}: does not say {phrase!r}: {ran.stderr}")
        for phrase in absent:
            failures.check(phrase not in notes, f"NOTES.txt with {arguments}: says {phrase!r}")


def check_sizes(failures):
    """Sizes in bytes stay whole numbers."""
    # No more than half of a segment lies in it.
    sizes = {"dataserver.inlineLimitBytes": 16777216}
    for path in ("config.maxObjectBytes", *(f"dataserver.{name}Bytes" for name in ("reserve", "segment", "compactionRate", "repairRate"))):
        sizes[path] = 268435456
    text = template(*(each for path, size in sizes.items() for each in ("--set-json", f"{path}={size}")))
    whole = text.count('"268435456"') == len(sizes) - 1 and text.count('"16777216"') == 1
    failures.check(whole and "e+0" not in text, "sizes as numbers are not rendered as they are")


def check_images(failures):
    settings = ",".join(
        f"{path}.registry={name.split('/')[0]},{path}.repository={name.split('/')[1]},{path}.tag=t,{path}.digest=" for path, name in IMAGES.items()
    )
    seen = set()
    for file in ci_values():
        for where, _, _, spec in pods(objects("-f", file, "--set", settings + ",global.imageRegistry=")):
            for container in spec["containers"]:
                image = container["image"]
                seen.add(image)
                failures.check(image in {f"{name}:t" for name in IMAGES.values()}, f"{file.name}: {where}: image {image} is not from the values")
        for where, _, _, spec in pods(objects("-f", file, "--set", "global.imageRegistry=mirror.invalid")):
            for container in spec["containers"]:
                failures.check(container["image"].startswith("mirror.invalid/"), f"{file.name}: {where}: {container['image']} is not from the mirror")
    failures.check(len(seen) == len(IMAGES), f"images: {seen}")


def check_copies(failures):
    """The number of copies, and the write quorum, reach data servers alone: another one restarts no api."""
    for copies, quorum in ((1, None), (3, None), (3, 3), (5, 4)):
        settings = f"config.replicas={copies},dataserver.replicaCount=5" + (f",config.writeQuorum={quorum}" if quorum else "")
        rendered = objects("--set", settings)
        seen = {}
        for _, labels, _, spec in pods(rendered):
            for one in spec["containers"]:
                values = {each["name"]: each.get("value") for each in one.get("env", [])}
                told = {name: values[name] for name in ("REPLICAS", "WRITE_QUORUM") if name in values}
                if told:
                    seen[component(labels)] = told
        expected = {"REPLICAS": str(copies), **({"WRITE_QUORUM": str(quorum)} if quorum else {})}
        failures.check(seen == {"dataserver": expected}, f"{settings}: {seen}")
        failures.check(not any("REPLICAS" in one["data"] for one in of_kind(rendered, "ConfigMap")), f"{settings}: apis are told")
        (founding,) = [one for one in of_kind(rendered, "ConfigMap") if "INITIAL_MEMBERS" in one["data"]]
        failures.check(founding["data"]["INITIAL_MEMBERS"] == "5", "fewer than all data servers found a cluster")
    budgets = {one["metadata"]["name"]: one["spec"]["maxUnavailable"] for one in of_kind(objects(), "PodDisruptionBudget")}
    failures.check(budgets.get("store-holdfast-dataserver") == 1, f"data servers that may be evicted at once: {budgets}")


def check_scaling(failures):
    """Another number of data servers restarts none of those that are there."""
    three, five = (
        next(one for one in of_kind(objects("--set", f"dataserver.replicaCount={count}"), "StatefulSet") if one["metadata"]["name"].endswith("-dataserver"))
        for count in (3, 5)
    )
    failures.check(three["spec"]["template"] == five["spec"]["template"], "another number of data servers restarts all of them")
    settings = objects("--set", "config.logFilter=debug")
    before = {where: spec for where, *spec in pods(objects())}
    for where, *spec in pods(settings):
        restarts = where.endswith(("-api", "-dataserver"))
        failures.check((before[where] != spec) == restarts, f"{where}: a changed setting {'does not restart' if restarts else 'restarts'} it")


def check_monitoring(failures, renderings):
    everything = renderings["everything-values.yaml"]
    (rule,) = of_kind(everything, "PrometheusRule")
    shipped = load((CHART / "files/alerts.yaml").read_text())[0]["groups"]
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]
    plain = [each for group in shipped for each in group["rules"] if "alert" in each]
    expressions = [each["expr"] for each in plain]
    (default,) = of_kind(objects("--set", "metrics.prometheusRule.enabled=true"), "PrometheusRule")
    same = [each["expr"] for group in default["spec"]["groups"] for each in group["rules"]] == expressions
    failures.check(len(plain) > 5 and same, "PrometheusRule: expressions differ from files/alerts.yaml")
    # heartbeatExpiry 7500ms and heartbeatInterval 2500ms.
    for name, old, new in (("HoldfastHeartbeatStale", "> 15", "> 10"), ("HoldfastDataServerFlapping", "> bool 10", "> bool 7.5")):
        place = next(place for place, each in enumerate(plain) if each["alert"] == name)
        failures.check(expressions[place].count(old) == 1, f"{name}: nothing to put the settings for")
        expressions[place] = expressions[place].replace(old, new)
    failures.check([each["expr"] for each in alerts] == expressions, "PrometheusRule: expressions do not follow from the settings")
    for one, source in zip(alerts, plain):
        failures.check(one["labels"] == {**source["labels"], "team": "storage"}, f"{one['alert']}: labels {one['labels']}")
        failures.check(one["annotations"]["runbook_url"].startswith("https://"), f"{one['alert']}: {one['annotations']['runbook_url']}")
    files = sorted(CHART.glob("files/dashboards/*.json"))
    maps = [one for one in of_kind(everything, "ConfigMap") if one["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    failures.check(len(files) == len(maps) > 0, f"{len(files)} dashboards, {len(maps)} ConfigMaps")
    for file in files:
        texts = [one["data"][file.name] for one in maps if file.name in one["data"]]
        failures.check([json.loads(text) for text in texts] == [json.loads(file.read_text())], f"{file.name}: the ConfigMap has something else")


def check_schema(failures):
    """The schema knows every value, and no value that is not there."""
    values = load((CHART / "values.yaml").read_text())[0]
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(node, value, path):
        properties = node.get("properties")
        if properties is None or not isinstance(value, dict) or node.get("additionalProperties") is None:
            return
        failures.check(set(properties) == set(value), f"values.schema.json: {path or 'top'}: {sorted(set(properties) ^ set(value))}")
        loose = node["additionalProperties"] is not False and path != "global"
        failures.check(not loose, f"values.schema.json: {path} takes typos")
        for key in set(properties) & set(value):
            walk(properties[key], value[key], f"{path}.{key}".lstrip("."))

    walk(schema, values, "")


def main():
    if "--pin" in sys.argv:
        PINNED.write_text(pinned_text())
        return
    failures = Failures()
    renderings = check_same_in_both(failures)
    check_kubernetes(failures, renderings, sys.argv[1:])
    check_custom(failures, renderings)
    for values, rendered in renderings.items():
        check_pods(failures, values, rendered)
        check_whole(failures, values, rendered, FOREIGN)
    for file in ci_values():
        check_long_names(failures, file)
        check_secrets(failures, file)
    for check in (check_lint, check_notes, check_sizes, check_pinned, check_images, check_copies, check_scaling, check_schema, check_hooks, check_off, check_refusals, check_kept_secret):
        check(failures)
    check_monitoring(failures, renderings)
    check_programs(failures, renderings)
    for line in failures.lines:
        print(f"check-chart: {line}", file=sys.stderr)
    if failures.lines:
        raise SystemExit(1)
    print(f"check-chart: {failures.checked} assertions hold for {len(renderings)} renderings")


main()
