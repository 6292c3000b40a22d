"""The hooks that empty data servers and that grow volumes: each may do what it must,
they come in this order, and they leave nothing behind.
"""

from rendering import component, named, objects, of_kind, selects, template, title

ACCESS = ("ServiceAccount", "Role", "RoleBinding")
CLUSTER_ACCESS = ("ClusterRole", "ClusterRoleBinding")
BEFORE = {"grow-volumes": {"pre-upgrade"}, "drain-dataservers": {"pre-upgrade", "pre-rollback"}}
READS = {"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": ["store-holdfast-dataserver"]}


def hook(one, key=""):
    return one["metadata"].get("annotations", {}).get(f"helm.sh/hook{key}")


def weight(one):
    return int(hook(one, "-weight"))


def of_hook(rendered, name):
    return [one for one in rendered if hook(one) and component(one["metadata"]["labels"]) == name]


def check_hooks(failures):
    rendered = objects(release="store", namespace="objects")
    before = [one for one in rendered if hook(one) and hook(one).startswith("pre-")]
    failures.check({component(one["metadata"]["labels"]) for one in before} == set(BEFORE), f"hooks before an upgrade: {[title(one) for one in before]}")
    jobs = {name: check_hook(failures, name, of_hook(rendered, name)) for name in BEFORE}
    drain, growth = jobs["drain-dataservers"], jobs["grow-volumes"]
    # Growth takes the StatefulSet away, of which the drain reads how many there are.
    first = min(weight(one) for one in of_hook(rendered, "grow-volumes"))
    failures.check(weight(drain) < first, "volumes grow before data servers are emptied")
    check_drain(failures, rendered, drain)
    check_growth(failures, rendered, growth)


def check_hook(failures, name, hooks):
    """What holds for each; returns its Job."""
    kinds = sorted(one["kind"] for one in hooks)
    cluster = CLUSTER_ACCESS if name == "grow-volumes" else ()
    failures.check(kinds == sorted([*ACCESS, *cluster, "Job"]), f"hook {name}: {kinds}")
    (job,) = of_kind(hooks, "Job")
    for one in hooks:
        failures.check(set(hook(one).split(",")) == BEFORE[name], f"{title(one)} is made at {hook(one)}")
        policy = set(hook(one, "-delete-policy").split(","))
        failures.check({"before-hook-creation", "hook-succeeded"} <= policy, f"{title(one)} stays behind: {policy}")
        if one["kind"] != "Job":
            failures.check("hook-failed" in policy, f"{title(one)} stays behind when the hook fails")
            failures.check(weight(one) < weight(job), f"{title(one)} comes after the Job")
    failures.check("ttlSecondsAfterFinished" in job["spec"], f"{name}: a Job that failed stays for ever")
    failures.check(job["spec"].get("activeDeadlineSeconds", 0) > 0, f"{name}: a Job without an end")
    account = job["spec"]["template"]["spec"]["serviceAccountName"]
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for binding in of_kind(hooks, kind):
            subjects = [(each["kind"], each["name"], each["namespace"]) for each in binding["subjects"]]
            failures.check(subjects == [("ServiceAccount", account, "objects")], f"{title(binding)} is for {subjects}")
            (target,) = of_kind(hooks, kind.removesuffix("Binding"))
            failures.check(binding["roleRef"]["name"] == target["metadata"]["name"], f"{title(binding)} leads to {binding['roleRef']}")
    return job


def check_drain(failures, rendered, job):
    (role,) = of_kind(of_hook(rendered, "drain-dataservers"), "Role")
    failures.check(role["rules"] == [{**READS, "verbs": ["get"]}], f"{title(role)} may do more or less than it must: {role['rules']}")
    failures.check(job["spec"]["backoffLimit"] == 0, "a drain that was refused is tried again")
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    given = dict(zip(arguments[1::2], arguments[2::2]))
    dataservers = named(rendered, "StatefulSet", given["--statefulset"])
    expected = {
        "--statefulset": "store-holdfast-dataserver",
        "--keep": str(dataservers["spec"]["replicas"]),
        "--admin": "http://store-holdfast-api-admin:9090",
        "--namespace": "objects",
        "--timeout": "1h",
    }
    failures.check(arguments[0] == "drain-dataservers" and given == expected, f"the hook runs {arguments}, not {expected}")
    failures.check(job["spec"]["activeDeadlineSeconds"] > 3600 + 60, "the Job ends before the program has said why")
    check_reached(failures, rendered, job)


def check_reached(failures, rendered, job):
    """The hook reaches the admin port: through its Service, and the policies of both."""
    service = named(rendered, "Service", "store-holdfast-api-admin")
    (port,) = service["spec"]["ports"]
    failures.check(port["port"] == 9090 and port["targetPort"] == "admin", f"{title(service)} has {port}")
    labels = job["spec"]["template"]["metadata"]["labels"]
    sources = []
    for one in of_kind(rendered, "NetworkPolicy"):
        own = one["spec"]["podSelector"]["matchLabels"]
        if selects(own, service["spec"]["selector"]):
            rules = [rule for rule in one["spec"]["ingress"] if "admin" in [each["port"] for each in rule["ports"]]]
            sources = [peer.get("podSelector", {}).get("matchLabels", {}) for rule in rules for peer in rule["from"] if "namespaceSelector" not in peer]
        if selects(own, labels):
            failures.check(one["spec"]["egress"] == [{}], f"{title(one)}: the hook cannot reach everything")
    failures.check(any(selects(each, labels) for each in sources), f"the admin port is for {sources}, and not for the hook")


def check_growth(failures, rendered, job):
    hooks = of_hook(rendered, "grow-volumes")
    (role,) = of_kind(hooks, "Role")
    expected = [
        {**READS, "verbs": ["get", "delete"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["list", "patch"]},
    ]
    failures.check(role["rules"] == expected, f"{title(role)} may do more or less than it must: {role['rules']}")
    (cluster,) = of_kind(hooks, "ClusterRole")
    expected = [{"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get"]}]
    failures.check(cluster["rules"] == expected, f"{title(cluster)}: {cluster['rules']}")
    (there,) = of_kind(objects(namespace="elsewhere"), "ClusterRole")
    failures.check(there["metadata"]["name"] != cluster["metadata"]["name"], "releases of two namespaces share a ClusterRole")
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    (dataservers,) = [one for one in of_kind(rendered, "StatefulSet") if one["metadata"]["name"] in arguments]
    (claim,) = dataservers["spec"]["volumeClaimTemplates"]
    expected = {
        "--statefulset": dataservers["metadata"]["name"],
        "--claim": claim["metadata"]["name"],
        "--size": claim["spec"]["resources"]["requests"]["storage"],
        "--namespace": "objects",
    }
    given = dict(zip(arguments[1::2], arguments[2::2]))
    failures.check(arguments[0] == "grow-volumes" and given == expected, f"the hook runs {arguments}, not {expected}")
    grown = template("--set", "dataserver.persistence.size=77Gi")
    failures.check(grown.count("77Gi") == 2, "a size reaches either the hook or the claims, not both")


def check_off(failures):
    """Off is off: nothing of it in any object."""
    for setting, name in (("volumeGrowth.enabled", "grow-volumes"), ("dataserver.persistence.enabled", "grow-volumes"), ("scaleDown.enabled", "drain-dataservers")):
        text = template("--set", f"{setting}=false")
        failures.check(name not in text, f"{setting}=false leaves something of the hook")
    text = template("--set", "volumeGrowth.enabled=false,scaleDown.enabled=false,selftest.enabled=false")
    failures.check("helm.sh/hook" not in text and "rbac.authorization" not in text, "hooks are left although all are off")
    # Without volumes data servers can be emptied all the same.
    text = template("--set", "dataserver.persistence.enabled=false")
    failures.check("drain-dataservers" in text, "dataserver.persistence.enabled=false leaves data servers full")
