"""What must hold for the objects of a rendering together."""

import base64
import json

from rendering import LONG_RELEASE, component, named, objects, of_kind, pods, secret_text, selects, title

LABELS = ("name", "instance", "component", "version", "part-of", "managed-by")
SELECTOR = {f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")}
# The operator's own kinds name ports as Services and pods do.
MONITORS = {"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"}


def ports_of(rendered, selector):
    """The names of the ports of all pods that a selector picks."""
    return {
        port["name"]
        for _, labels, _, spec in pods(rendered)
        if selects(selector, labels)
        for container in spec["containers"]
        for port in container.get("ports", [])
    }


def check_names(failures, values, rendered):
    seen = set()
    for one in rendered:
        key = (one["apiVersion"].split("/")[0], one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        failures.check(key not in seen, f"{values}: {title(one)} is there twice")
        seen.add(key)
        labels = one["metadata"].get("labels", {})
        for part in LABELS:
            missing = f"app.kubernetes.io/{part}" not in labels and "-as-" not in one["metadata"]["name"]
            failures.check(not missing, f"{values}: {title(one)} has no label {part}")
        for key, value in labels.items():
            failures.check(len(value) <= 63, f"{values}: {title(one)}: label {key} is too long")


def check_long_names(failures, values_file):
    """Releases with long names, up to the longest that helm takes, in a namespace with the longest."""
    namespace = "n" * 63
    for release in (LONG_RELEASE, LONG_RELEASE[:40]):
        if "fullnameOverride" in values_file.read_text():
            continue
        rendered = objects("-f", values_file, release=release, namespace=namespace)
        for one in rendered:
            name = one["metadata"]["name"]
            # A StatefulSet's pods carry a label of its name and 11 characters.
            limit = 52 if one["kind"] == "StatefulSet" else 63
            if "-as-map" not in name:
                failures.check(len(name) <= limit, f"{values_file.name}: {title(one)} has {len(name)} characters")
    short = objects("-f", values_file, release=LONG_RELEASE[:-1] + "x")
    same = {title(one) for one in short} & {title(one) for one in objects("-f", values_file, release=LONG_RELEASE)}
    if "fullnameOverride" not in values_file.read_text() and "name: holdfast" not in values_file.read_text():
        failures.check(not same, f"{values_file.name}: two long names become one: {sorted(same)[:3]}")


def check_services(failures, values, rendered):
    for one in of_kind(rendered, "Service"):
        selector = one["spec"]["selector"]
        failures.check(set(selector) == SELECTOR, f"{values}: {title(one)} selects by {set(selector)}")
        named_ports = ports_of(rendered, selector)
        for port in one["spec"]["ports"]:
            failures.check(port["targetPort"] in named_ports, f"{values}: {title(one)}: no pod has the port {port['targetPort']}")
    for one in of_kind(rendered, "Deployment", "StatefulSet", "PodDisruptionBudget"):
        selector = one["spec"]["selector"]["matchLabels"]
        failures.check(set(selector) == SELECTOR, f"{values}: {title(one)} selects by {set(selector)}")
        failures.check(ports_of(rendered, selector), f"{values}: {title(one)} selects no pod")
    for one in of_kind(rendered, "HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        failures.check(named(rendered, target["kind"], target["name"]), f"{values}: {title(one)} scales nothing")


def check_entrances(failures, values, rendered):
    for one in of_kind(rendered, "Ingress"):
        for rule in one["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = named(rendered, "Service", backend["name"])
                known = {port["name"] for port in service["spec"]["ports"]} if service else set()
                failures.check(backend["port"]["name"] in known, f"{values}: {title(one)} leads to {backend}")
    for one in of_kind(rendered, "HTTPRoute"):
        for backend in (each for rule in one["spec"]["rules"] for each in rule["backendRefs"]):
            service = named(rendered, "Service", backend["name"])
            known = {port["port"] for port in service["spec"]["ports"]} if service else set()
            failures.check(backend["port"] in known, f"{values}: {title(one)} leads to {backend}")


def check_policies(failures, values, rendered):
    policies = of_kind(rendered, "NetworkPolicy")
    for one in policies:
        own = one["spec"]["podSelector"]["matchLabels"]
        failures.check(set(own) == SELECTOR, f"{values}: {title(one)} selects by {set(own)}")
        failures.check(set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"}, f"{values}: {title(one)} leaves a direction open")
        for rule in one["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                failures.check(port["port"] in ports_of(rendered, own), f"{values}: {title(one)}: no port {port['port']}")
        for rule in one["spec"].get("egress", []):
            for peer in rule.get("to", []):
                selector = peer.get("podSelector", {}).get("matchLabels")
                if not selector:
                    continue
                reached = ports_of(rendered, selector)
                for port in (port["port"] for port in rule["ports"]):
                    failures.check(isinstance(port, int) or port in reached, f"{values}: {title(one)}: {selector} has no port {port}")
    if policies:
        covered = [one["spec"]["podSelector"]["matchLabels"] for one in policies]
        for where, labels, _, _ in pods(rendered):
            failures.check(any(selects(own, labels) for own in covered), f"{values}: no policy for {where}")
        check_who_reaches(failures, values, rendered, policies)


def check_who_reaches(failures, values, rendered, policies):
    """Public ports of data servers and broker: only from apis and data servers."""
    for role, port in (("dataserver", "http"), ("rabbitmq", "amqp")):
        for one in policies:
            if component(one["spec"]["podSelector"]["matchLabels"]) != role:
                continue
            sources = [rule.get("from") for rule in one["spec"]["ingress"] if port in [each["port"] for each in rule["ports"]]]
            roles = {component(peer.get("podSelector", {}).get("matchLabels", {})) for peer in sources[0] or [{}]}
            failures.check(len(sources) == 1 and roles == {"api", "dataserver"}, f"{values}: {port} of {role} can be reached from {sources}")


def check_monitors(failures, values, rendered):
    for kind, endpoints in MONITORS.items():
        for one in of_kind(rendered, kind):
            selector = one["spec"]["selector"]["matchLabels"]
            if kind == "PodMonitor":
                known = ports_of(rendered, selector)
            else:
                services = [each for each in of_kind(rendered, "Service") if selects(selector, each["metadata"]["labels"])]
                known = [port["name"] for service in services for port in service["spec"]["ports"]]
            for endpoint in one["spec"][endpoints]:
                times = sum(1 for port in known if port == endpoint["port"])
                failures.check(times == 1, f"{values}: {title(one)} finds the port {endpoint['port']} {times} times")
    for where, labels, annotations, spec in pods(rendered):
        port = annotations.get("prometheus.io/port")
        numbers = [str(each["containerPort"]) for container in spec["containers"] for each in container.get("ports", [])]
        failures.check(port is None or port in numbers, f"{values}: {where} is scraped at {port}, and has {numbers}")
        failures.check(port is None or not of_kind(rendered, *MONITORS), f"{values}: {where} is scraped twice")


def check_references(failures, values, rendered, foreign):
    """ConfigMaps, Secrets and keys that containers read."""
    for where, _, _, spec in pods(rendered):
        for container in spec["containers"]:
            sources = [("ConfigMap", each["configMapRef"]) for each in container.get("envFrom", []) if "configMapRef" in each]
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                sources += [("ConfigMap", source["configMapKeyRef"])] if "configMapKeyRef" in source else []
                sources += [("Secret", source["secretKeyRef"])] if "secretKeyRef" in source else []
            for kind, reference in sources:
                found = named(rendered, kind, reference["name"])
                if found is None:
                    failures.check(reference["name"] in foreign, f"{values}: {where} reads {kind}/{reference['name']}, which is not there")
                elif "key" in reference:
                    failures.check(reference["key"] in found.get("data", {}), f"{values}: {where}: {reference} has no such key")


def check_secrets(failures, values_file):
    """A password reaches Secrets and nothing else, whole."""
    password = "pass/W0rd: \"'#%20&"
    for path in ("rabbitmq.auth.password", "externalRabbitmq.password"):
        everything = objects("-f", values_file, "--set-json", f"{path}={json.dumps(password)}")
        rendered = [one for one in everything if one["kind"] != "Secret"]
        encoded = base64.b64encode(password.encode()).decode()
        for needle in (password, encoded, "W0rd"):
            failures.check(needle not in json.dumps(rendered, ensure_ascii=False), f"{values_file.name}: {path} is outside of a Secret")
        for one in of_kind(everything, "Secret"):
            if one["metadata"]["name"].endswith("-external-rabbitmq") == path.startswith("external"):
                failures.check(password in secret_text(one).values(), f"{values_file.name}: {path} is changed on its way")


def check_whole(failures, values, rendered, foreign):
    check_names(failures, values, rendered)
    check_services(failures, values, rendered)
    check_entrances(failures, values, rendered)
    check_policies(failures, values, rendered)
    check_monitors(failures, values, rendered)
    check_references(failures, values, rendered, foreign)
