"""What every pod must be, and what data servers, apis and broker must be."""

import re

from rendering import component, named, of_kind, pods, title

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
PROGRAM = ("api", "dataserver")
HOOKS = ("grow-volumes", "drain-dataservers")
ONCE = ("selftest", *HOOKS)
WRITABLE = ("emptyDir", "persistentVolumeClaim")


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text).groups()
    return int(number) * SECONDS[unit]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def check_restricted(failures, where, spec):
    """Pod Security "restricted", by its own list."""
    pod = spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        failures.check(not spec.get(key), f"{where}: {key}")
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
        failures.check(kinds <= allowed, f"{where}: volume {volume['name']} is a {kinds}")
    for container in containers(spec):
        own = container.get("securityContext", {})
        at = f"{where}, container {container['name']}"
        failures.check(own.get("allowPrivilegeEscalation") is False, f"{at}: privileges may grow")
        failures.check(not own.get("privileged"), f"{at}: privileged")
        failures.check("ALL" in own.get("capabilities", {}).get("drop", []), f"{at}: capabilities are kept")
        added = set(own.get("capabilities", {}).get("add", []))
        failures.check(added <= {"NET_BIND_SERVICE"}, f"{at}: capabilities {added} are added")
        failures.check(own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True, f"{at}: may run as root")
        failures.check(own.get("runAsUser", pod.get("runAsUser")) != 0, f"{at}: runs as root")
        seccomp = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
        failures.check(seccomp in ("RuntimeDefault", "Localhost"), f"{at}: seccomp {seccomp}")
        failures.check(not any("hostPort" in port for port in container.get("ports", [])), f"{at}: a port of the host")
        # Not part of "restricted", but of what is promised.
        failures.check(own.get("readOnlyRootFilesystem") is True, f"{at}: its root can be written")
        failures.check("memory" in container.get("resources", {}).get("limits", {}), f"{at}: memory has no limit")


def check_user(failures, where, role, spec):
    expected = 999 if role == "rabbitmq" else 10001
    pod = spec["securityContext"]
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        failures.check(pod.get(key) == expected, f"{where}: {key} is {pod.get(key)}, not {expected}")
    failures.check(pod.get("fsGroupChangePolicy") == "OnRootMismatch", f"{where}: a restart changes the mode of every file")


def check_probes(failures, where, role, spec):
    (container,) = spec["containers"]
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        found = container.get(probe)
        if role in ONCE:
            failures.check(found is None, f"{where}: {probe} of a pod that runs once")
            continue
        failures.check(found is not None, f"{where}: no {probe}")
        if found is None:
            continue
        failures.check("exec" not in found, f"{where}: {probe} runs a command")
        if role in PROGRAM:
            expected = "/readyz" if probe == "readinessProbe" else "/livez"
            asked = found.get("httpGet", {})
            failures.check((asked.get("path"), asked.get("port")) == (expected, "admin"), f"{where}: {probe} asks {asked}")
        elif role == "rabbitmq":
            failures.check(found.get("tcpSocket", {}).get("port") == "amqp", f"{where}: {probe} is {found}")
        port = found.get("httpGet", found.get("tcpSocket", {})).get("port")
        failures.check(port in ports, f"{where}: {probe} asks the port {port}, and there are {ports}")


def check_volumes(failures, where, one, spec):
    claims = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    failures.check(not claims & volumes, f"{where}: {claims & volumes} is a volume and a claim")
    for container in containers(spec):
        for mount in container.get("volumeMounts", []):
            failures.check(mount["name"] in claims | volumes, f"{where}: mounts {mount['name']}, which is not there")


def check_ports(failures, where, role, spec, settings):
    (container,) = spec["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = {one["name"]: one.get("value") for one in container["env"]}
    failures.check(variables["LISTEN_ADDRESS"] == f":{ports['http']}", f"{where}: listens at {variables['LISTEN_ADDRESS']}, port {ports['http']}")
    failures.check(variables["ADMIN_LISTEN_ADDRESS"] == f":{ports['admin']}", f"{where}: admin port {variables['ADMIN_LISTEN_ADDRESS']}, {ports['admin']}")
    failures.check(container["command"] == [f"/usr/local/bin/holdfast-{role}"], f"{where}: runs {container['command']}")
    deadline = 2 * seconds(settings["SHUTDOWN_DELAY"]) + seconds(settings["SHUTDOWN_TIMEOUT"]) + 5
    grace = spec["terminationGracePeriodSeconds"]
    failures.check(grace > deadline, f"{where}: is killed after {grace} s, and may need {deadline} s")
    failures.check("preStop" not in container.get("lifecycle", {}), f"{where}: preStop; the program waits by itself")
    failures.check("initContainers" not in spec, f"{where}: init containers; the program waits for the broker by itself")
    annotations = [name for name in variables if name in ("SHUTDOWN_DELAY", "SHUTDOWN_TIMEOUT")]
    failures.check(not annotations, f"{where}: {annotations} differs from the ConfigMap")


def check_dataserver(failures, rendered, one, settings):
    where, spec = title(one), one["spec"]
    headless = named(rendered, "Service", spec["serviceName"])
    failures.check(headless is not None, f"{where}: no Service {spec['serviceName']}")
    if headless:
        failures.check(headless["spec"].get("clusterIP") == "None", f"{where}: its Service has an address of its own")
        failures.check(headless["spec"].get("publishNotReadyAddresses") is True, f"{where}: unready pods have no name")
    failures.check(spec["podManagementPolicy"] == "Parallel", f"{where}: pods start one by one, and wait for each other")
    failures.check(spec["updateStrategy"] == {"type": "RollingUpdate"}, f"{where}: {spec['updateStrategy']}")
    failures.check(spec["minReadySeconds"] > seconds(settings["HEARTBEAT_INTERVAL"]), f"{where}: a roll does not wait for a heartbeat")
    (container,) = spec["template"]["spec"]["containers"]
    variables = {each["name"]: each for each in container["env"]}
    domain = re.fullmatch(rf"{re.escape(spec['serviceName'])}\.{one['metadata']['namespace']}\.svc\.[a-z.]+:(\d+)", settings["DATASERVER_PEERS"])
    failures.check(domain is not None, f"{where}: peers {settings['DATASERVER_PEERS']}")
    advertised = variables["ADVERTISE_ADDRESS"]["value"]
    failures.check(advertised == f"$(POD_NAME).{settings['DATASERVER_PEERS']}", f"{where}: is known as {advertised}")
    root = variables["STORAGE_ROOT"]["value"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    failures.check(mounts.get(root) == "data", f"{where}: {root} is not the data volume")
    founding = variables["INITIAL_MEMBERS"].get("valueFrom", {}).get("configMapKeyRef", {})
    source = named(rendered, "ConfigMap", founding.get("name"))
    failures.check(source is not None, f"{where}: INITIAL_MEMBERS comes from {founding}; in the template, another number restarts all")
    if source:
        failures.check(int(source["data"]["INITIAL_MEMBERS"]) == spec["replicas"], f"{where}: INITIAL_MEMBERS {source['data']}")
    if spec.get("volumeClaimTemplates"):
        keeps = spec.get("persistentVolumeClaimRetentionPolicy")
        failures.check(keeps == {"whenDeleted": "Retain", "whenScaled": "Retain"}, f"{where}: volumes are not kept: {keeps}")
        for claim in spec["volumeClaimTemplates"]:
            failures.check(claim["metadata"]["labels"] == spec["selector"]["matchLabels"], f"{where}: labels of claims may change")
    failures.check("affinity" in spec["template"]["spec"], f"{where}: nothing spreads data servers over nodes")


def check_api(failures, rendered, one):
    where, spec = title(one), one["spec"]
    failures.check(spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, f"{where}: {spec['strategy']}")
    scaled = bool(of_kind(rendered, "HorizontalPodAutoscaler"))
    failures.check(("replicas" in spec) != scaled, f"{where}: replicas beside an autoscaler, or neither")
    soft = all(rule["whenUnsatisfiable"] == "ScheduleAnyway" for rule in spec["template"]["spec"]["topologySpreadConstraints"])
    failures.check(soft, f"{where}: one node is not enough for it")


def check_pods(failures, values, rendered):
    """Every check above, for one rendering."""
    (config,) = [one for one in of_kind(rendered, "ConfigMap") if component(one["metadata"].get("labels", {})) == "config"]
    settings = config["data"]
    by_title = {title(one): one for one in rendered}
    roles = set()
    for where, labels, annotations, spec in pods(rendered):
        role, where_all = component(labels), f"{values}: {where}"
        roles.add(role)
        check_restricted(failures, where_all, spec)
        check_user(failures, where_all, role, spec)
        check_probes(failures, where_all, role, spec)
        check_volumes(failures, where_all, by_title[where], spec)
        failures.check(spec.get("enableServiceLinks") is False, f"{where_all}: variables of other Services reach it")
        token = spec.get("automountServiceAccountToken")
        failures.check(token is (role in HOOKS), f"{where_all}: service account token: {token}")
        if role in PROGRAM:
            check_ports(failures, where_all, role, spec, settings)
            failures.check("checksum/config" in annotations, f"{where_all}: does not restart when settings change")
        if role in ONCE:
            failures.check(spec["restartPolicy"] == "Never", f"{where_all}: is started again and again")
        if role == "dataserver":
            check_dataserver(failures, rendered, by_title[where], settings)
        if role == "api":
            check_api(failures, rendered, by_title[where])
    failures.check({"api", "dataserver"} <= roles, f"{values}: there are only {roles}")
