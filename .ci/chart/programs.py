"""The chart against the real binaries: every variable is one that they read, every
one that they read can be set, and with the rendered environment they start and
answer the rendered probes.
"""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import certifi
import yaml

from rendering import CHART, component, named, objects, pods

BINARIES = pathlib.Path(os.environ["HOLDFAST_BINARIES"])
# What only passes something on to other variables.
OWN = {"POD_NAME"}
DEADLINE_SECONDS = 20


def help_variables(binary):
    text = subprocess.run([BINARIES / binary, "--help"], capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"^  ([A-Z][A-Z0-9_]+) ", text, re.MULTILINE))
    assert len(found) > 20, f"{binary} --help lists {found}"
    return found


def environment(rendered, spec):
    """Every variable of a pod's container, as the kubelet would set it."""
    (container,) = spec["containers"]
    variables = {}
    for source in container.get("envFrom", []):
        found = named(rendered, "ConfigMap", source.get("configMapRef", {}).get("name"))
        variables.update(found["data"] if found else {})
    for one in container["env"]:
        source = one.get("valueFrom", {})
        if "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            value = named(rendered, "ConfigMap", reference["name"])["data"][reference["key"]]
        elif "fieldRef" in source:
            value = "pod-0"
        elif source:
            value = "amqp://user:secret@broker.invalid/" if one["name"] == "RABBITMQ_SERVER" else "secret"
        else:
            value = one["value"]
        variables[one["name"]] = re.sub(r"\$\((\w+)\)", lambda name: variables[name.group(1)], value)
    return variables


def check_variables(failures, values, rendered, known):
    """What the chart sets, the program reads."""
    extra = {"NODE_NAME"} if "everything" in values else set()
    for where, labels, _, spec in pods(rendered):
        if component(labels) in known:
            unknown = set(environment(rendered, spec)) - known[component(labels)] - OWN - extra
            failures.check(not unknown, f"{values}: {where} sets {sorted(unknown)}, which the program does not read")


def has_value(values, keys):
    first, *rest = keys
    return first in values and (not rest or has_value(values[first], rest))


def check_documented(failures, known):
    """README.md says of each variable what sets it, and that is so."""
    table = dict(re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \| (.+?) \|$", (CHART / "README.md").read_text(), re.MULTILINE))
    everything = set().union(*known.values())
    failures.check(set(table) == everything, f"README.md: variables that differ from --help: {sorted(set(table) ^ everything)}")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    owned = set(re.findall(r"^([A-Z_]+): ", (CHART / "templates/_settings.tpl").read_text(), re.MULTILINE))
    rendered = objects()
    set_by_chart = {name for _, labels, _, spec in pods(rendered) if component(labels) in known for name in environment(rendered, spec)}
    for name, how in table.items():
        by_extra = how == "`extraEnv`"
        for path in [] if by_extra else re.findall(r"`([^`]+)`", how):
            failures.check(has_value(values, path.split(".")), f"README.md: {name}: there is no value {path}")
        failures.check(not (by_extra and name in owned), f"README.md: {name}: extraEnv refuses it")
        failures.check(not (by_extra and name in set_by_chart), f"README.md: {name}: the chart sets it already")
        fixed = how.startswith("the chart")
        failures.check(by_extra or fixed or "`" in how, f"README.md: {name}: nothing sets it: {how}")
        failures.check(not fixed or name in owned, f"README.md: {name} is the chart's own, and extraEnv takes it")


def answer(url):
    """(status, body), or None when nobody listens yet."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


def check_run(failures, values, where, role, spec, variables):
    """Starts the program with this environment and asks it what the probes ask."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        changed = {"LISTEN_ADDRESS": "127.0.0.1:0", "ADMIN_LISTEN_ADDRESS": f"127.0.0.1:{port}"}
        if "STORAGE_ROOT" in variables:
            changed["STORAGE_ROOT"] = directory
        if "SSL_CERT_FILE" in variables:
            changed["SSL_CERT_FILE"] = certifi.where()
        log = open(os.path.join(directory, "..", os.path.basename(directory) + ".log"), "w+b")
        os.unlink(log.name)
        process = subprocess.Popen([BINARIES / f"holdfast-{role}"], env={**variables, **changed}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while answer(f"http://127.0.0.1:{port}/livez") is None and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            log.seek(0)
            failures.check(process.poll() is None, f"{values}: {where}: the program ended at once: {log.read().decode()[-2000:]}")
            (container,) = spec["containers"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                path = container[probe]["httpGet"]["path"]
                status, _ = answer(f"http://127.0.0.1:{port}{path}") or (None, None)
                expected = (200, 503) if probe == "readinessProbe" else (200,)
                failures.check(status in expected, f"{values}: {where}: {probe} {path} is answered {status}")
            status, body = answer(f"http://127.0.0.1:{port}/metrics") or (None, "")
            failures.check(status == 200 and "holdfast_build_info" in body, f"{values}: {where}: /metrics is answered {status}")
        finally:
            # An orderly end takes its delay; there is nothing to finish.
            process.kill()
            process.wait()
            log.close()


def check_arguments(failures, values, rendered):
    """Commands and options of holdfastctl, by its own help."""
    text = subprocess.run([BINARIES / "holdfastctl", "--help"], capture_output=True, text=True, check=True).stdout
    for where, labels, _, spec in pods(rendered):
        (container,) = spec["containers"]
        if container.get("command") != ["/usr/local/bin/holdfastctl"]:
            continue
        command, *rest = container["args"]
        usage = re.search(rf"holdfastctl {command} .*?(?=\n\n|\Z)", text, re.DOTALL)
        failures.check(usage is not None, f"{values}: {where}: holdfastctl has no command {command}")
        for option in (each for each in rest if each.startswith("--")):
            failures.check(usage is not None and option in usage.group(), f"{values}: {where}: {command} has no option {option}")


def check_programs(failures, renderings):
    known = {role: help_variables(f"holdfast-{role}") for role in ("api", "dataserver")}
    check_documented(failures, known)
    for values, rendered in renderings.items():
        check_variables(failures, values, rendered, known)
        check_arguments(failures, values, rendered)
        for where, labels, _, spec in pods(rendered):
            role = component(labels)
            if role in known:
                check_run(failures, values, where, role, spec, environment(rendered, spec))
