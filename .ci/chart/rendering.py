"""Renders the chart, and says what is in a rendering."""

import base64
import concurrent.futures
import functools
import json
import os
import pathlib
import subprocess

import yaml

CHART = pathlib.Path("helm/holdfast")
HELM = {name: os.environ[f"HELM_{name}"] for name in ("3", "4")}
# Kubernetes ends a name of a release at 53 characters.
LONG_RELEASE = "release-with-a-name-that-is-as-long-as-helm-lets-it-be"[:53]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Failures:
    """What is wrong, gathered, so that one run tells all of it."""

    def __init__(self):
        self.lines = []
        self.checked = 0

    def check(self, holds, line):
        self.checked += 1
        if not holds:
            self.lines.append(line)


def ci_values():
    """The values files that every rendering is made from."""
    files = sorted(CHART.glob("ci/*-values.yaml"))
    assert len(files) >= 5, "there are fewer values files than there were"
    return files


def load(text):
    return [one for one in yaml.load_all(text, LOADER) if one]


def helm(version, *arguments):
    return subprocess.run([HELM[version], *map(str, arguments)], capture_output=True, text=True, check=False)


@functools.lru_cache(maxsize=None)
def template(*arguments, version="4", release="store", namespace="objects", chart=CHART):
    """The text of a rendering; ends the check when there is none."""
    ran = helm(version, "template", release, chart, "--namespace", namespace, *arguments)
    if ran.returncode != 0:
        raise SystemExit(f"helm {version} template {' '.join(map(str, arguments))}:\n{ran.stderr}")
    return ran.stdout


def objects(*arguments, **options):
    return load(template(*arguments, **options))


def together(function, items):
    """A function over items, two at a time: helm is a process of its own."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(function, items))


def of_kind(rendered, *kinds):
    return [one for one in rendered if one["kind"] in kinds]


def named(rendered, kind, name):
    """The one object of that kind and name, or None."""
    found = [one for one in of_kind(rendered, kind) if one["metadata"]["name"] == name]
    return found[0] if found else None


def title(one):
    return f"{one['kind']}/{one['metadata']['name']}"


def pods(rendered):
    """(title, labels, annotations, pod spec) of everything that makes pods."""
    for one in rendered:
        if one["kind"] == "Pod":
            yield title(one), one["metadata"]["labels"], one["metadata"].get("annotations", {}), one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet", "CronJob"):
            pod = one["spec"]["template"]
            yield title(one), pod["metadata"]["labels"], pod["metadata"].get("annotations", {}), pod["spec"]


def component(labels):
    return labels.get("app.kubernetes.io/component")


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def secret_text(one):
    return {key: base64.b64decode(value).decode() for key, value in one.get("data", {}).items()}


def without_generated(rendered):
    """The same, with the password that each rendering makes anew taken out."""
    for one in of_kind(rendered, "Secret"):
        if one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep":
            one["data"]["password"] = "generated"
    # The order of objects is helm's own business.
    return sorted(json.dumps(one, sort_keys=True) for one in rendered)
