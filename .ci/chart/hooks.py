"""The hook that grows volumes: it may do what it must, it leaves nothing behind."""

from rendering import of_kind, objects, template, title

ACCESS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def hook(one, key=""):
    return one["metadata"].get("annotations", {}).get(f"helm.sh/hook{key}")


def check_hooks(failures):
    rendered = objects(release="store", namespace="objects")
    hooks = [one for one in rendered if hook(one) == "pre-upgrade"]
    kinds = sorted(one["kind"] for one in hooks)
    failures.check(kinds == sorted([*ACCESS, "Job"]), f"hooks before an upgrade: {kinds}")
    (job,) = of_kind(hooks, "Job")
    for one in hooks:
        policy = set(hook(one, "-delete-policy").split(","))
        failures.check({"before-hook-creation", "hook-succeeded"} <= policy, f"{title(one)} stays behind: {policy}")
        if one["kind"] != "Job":
            failures.check("hook-failed" in policy, f"{title(one)} stays behind when the hook fails")
            failures.check(int(hook(one, "-weight")) < int(hook(job, "-weight")), f"{title(one)} comes after the Job")
    failures.check("ttlSecondsAfterFinished" in job["spec"], "a Job that failed stays for ever")
    spec = job["spec"]["template"]["spec"]
    check_rights(failures, hooks, spec["serviceAccountName"])
    arguments = spec["containers"][0]["args"]
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


def check_rights(failures, hooks, account):
    (role,) = of_kind(hooks, "Role")
    expected = [
        {"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": ["store-holdfast-dataserver"], "verbs": ["get", "delete"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "patch"]},
    ]
    failures.check(role["rules"] == expected, f"{title(role)} may do more or less than it must: {role['rules']}")
    (cluster,) = of_kind(hooks, "ClusterRole")
    expected = [{"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get"]}]
    failures.check(cluster["rules"] == expected, f"{title(cluster)}: {cluster['rules']}")
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        (binding,) = of_kind(hooks, kind)
        subjects = [(each["kind"], each["name"], each["namespace"]) for each in binding["subjects"]]
        failures.check(subjects == [("ServiceAccount", account, "objects")], f"{title(binding)} is for {subjects}")
        target = role if kind == "RoleBinding" else cluster
        failures.check(binding["roleRef"]["name"] == target["metadata"]["name"], f"{title(binding)} leads to {binding['roleRef']}")
    other = objects(namespace="elsewhere")
    (there,) = of_kind(other, "ClusterRole")
    failures.check(there["metadata"]["name"] != cluster["metadata"]["name"], "releases of two namespaces share a ClusterRole")


def check_off(failures):
    """Off is off: nothing of it in any object."""
    for setting in ("volumeGrowth.enabled", "dataserver.persistence.enabled"):
        text = template("--set", f"{setting}=false")
        failures.check("grow-volumes" not in text and "rbac.authorization" not in text, f"{setting}=false leaves something of the hook")
    text = template("--set", "volumeGrowth.enabled=false,selftest.enabled=false")
    failures.check("helm.sh/hook" not in text, "hooks are left although all are off")
