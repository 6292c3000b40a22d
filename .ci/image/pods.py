"""From a rendered chart, what `podman kube play` can run: a Pod for each replica.

    pods.py RENDERED PREFIX OUT

RENDERED is the output of `helm template`, PREFIX the first three numbers of the
network's addresses, OUT a directory. For each pod there is OUT/NAME.yaml, with its
ConfigMaps, and in OUT/pods one line

    name address component image container runs|test

and in OUT/probes one line for each probe:

    pod kind period threshold http|tcp port path

Nothing of a pod's own specification is changed but for what a cluster does, too:
claims and host names are given, references to the pod's name and to Secrets are
resolved, and probes are taken out, for .ci/check-image executes them.
"""

import base64
import copy
import pathlib
import re
import sys

import yaml

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
# The addresses of pods begin here; below is the network's own.
FIRST_ADDRESS = 10


def replicas(workload):
    """The pods that a Deployment or StatefulSet makes: names and specifications."""
    name = workload["metadata"]["name"]
    for ordinal in range(workload["spec"].get("replicas", 1)):
        pod = copy.deepcopy(workload["spec"]["template"])
        pod.setdefault("metadata", {})["name"] = f"{name}-{ordinal}"
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            kind = claim["metadata"]["name"]
            source = {"claimName": f"{kind}-{name}-{ordinal}"}
            pod["spec"].setdefault("volumes", []).append(
                {"name": kind, "persistentVolumeClaim": source}
            )
        pod["spec"]["subdomain"] = workload["spec"].get("serviceName", "")
        yield pod


def names_of(services, pods, namespace, domain):
    """Host names, as the cluster's DNS has them, by address."""
    hosts = {}

    def add(address, name):
        for suffix in (f".{namespace}.svc.{domain}", f".{namespace}.svc", f".{namespace}", ""):
            hosts.setdefault(address, []).append(name + suffix)

    for service in services:
        name = service["metadata"]["name"]
        chosen = [
            pod
            for pod in pods
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ]
        headless = service["spec"].get("clusterIP") == "None"
        # One stands for the others, as with a virtual address.
        for pod in chosen if headless else chosen[:1]:
            add(pod["address"], name)
        for pod in chosen:
            if headless and pod["spec"]["subdomain"] == name:
                add(pod["address"], f"{pod['metadata']['name']}.{name}")
    return hosts


def resolve(container, pod, namespace, secrets):
    """What the kubelet fills in before it starts a container."""
    fields = {"metadata.name": pod["metadata"]["name"], "metadata.namespace": namespace}
    known = {}
    for variable in container.get("env", []):
        field = variable.get("valueFrom", {}).get("fieldRef")
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        if field:
            variable["value"] = fields[field["fieldPath"]]
        if secret:
            encoded = secrets[secret["name"]]["data"][secret["key"]]
            variable["value"] = base64.b64decode(encoded).decode()
        if field or secret:
            del variable["valueFrom"]
        if "value" in variable:
            variable["value"] = re.sub(
                r"\$\(([A-Za-z_0-9]+)\)",
                lambda match: known.get(match[1], match[0]),
                variable["value"],
            )
            known[variable["name"]] = variable["value"]


def probe_lines(container, name):
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    for kind in PROBES:
        probe = container.pop(kind, None)
        if probe is None:
            raise SystemExit(f"pods.py: {name} has no {kind}")
        http, tcp = probe.get("httpGet"), probe.get("tcpSocket")
        port = (http or tcp)["port"]
        path = http["path"] if http else "-"
        yield [name, kind, probe["periodSeconds"], probe["failureThreshold"],
               "http" if http else "tcp", ports.get(port, port), path]


def main(rendered, prefix, out):
    objects = [o for o in yaml.safe_load_all(pathlib.Path(rendered).read_text()) if o]
    out = pathlib.Path(out)
    plain, probes, pods, services, secrets = [], [], [], [], {}
    for item in objects:
        if item["kind"] == "ConfigMap":
            plain.append(item)
        elif item["kind"] == "Secret":
            secrets[item["metadata"]["name"]] = item
        elif item["kind"] == "Service":
            services.append(item)
        elif item["kind"] in ("Deployment", "StatefulSet"):
            namespace = item["metadata"]["namespace"]
            pods.extend(replicas(item))
        elif item["kind"] == "Pod":
            # A test: it runs once, and has no probes.
            item["spec"]["subdomain"] = ""
            item["metadata"].setdefault("labels", {})
            pods.append(item)
    for number, pod in enumerate(pods):
        pod["address"] = f"{prefix}.{FIRST_ADDRESS + number}"
    hosts = names_of(services, pods, namespace, "cluster.local")
    lines = []
    for pod in pods:
        name, address = pod["metadata"]["name"], pod.pop("address")
        component = pod["metadata"]["labels"].get("app.kubernetes.io/component", "-")
        (container,) = pod["spec"]["containers"]
        resolve(container, pod, namespace, secrets)
        if pod.get("kind") != "Pod":
            probes.extend(probe_lines(container, name))
        # A declaration only, which podman would take as a wish for ports of the host.
        container.pop("ports", None)
        pod["spec"]["hostAliases"] = [
            {"ip": ip, "hostnames": [n for n in names]} for ip, names in hosts.items()
        ]
        del pod["spec"]["subdomain"]
        lines.append([name, address, component, container["image"], container["name"],
                      "test" if pod.get("kind") == "Pod" else "runs"])
        # podman takes a label's rules for those of annotations; no program reads them.
        pod["metadata"].pop("annotations", None)
        pod.update(apiVersion="v1", kind="Pod")
        (out / f"{name}.yaml").write_text(yaml.safe_dump_all([*plain, pod]))
    for file, rows in (("pods", lines), ("probes", probes)):
        text = "".join(" ".join(str(field) for field in row) + "\n" for row in rows)
        (out / file).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
