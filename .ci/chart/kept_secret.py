"""A generated password survives an upgrade: helm asks a small Kubernetes API, which
has the Secret of the installation, and renders the same password again.
"""

import http.server
import json
import pathlib
import tempfile
import threading

from rendering import named, objects, of_kind, secret_text, template

NAMESPACE = "objects"


def discovery(rendered):
    """What an API server says of itself: the kinds of a rendering."""
    groups, answers = {}, {"/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}}
    for one in rendered:
        groups.setdefault(one["apiVersion"], set()).add(one["kind"])
    for group_version, kinds in groups.items():
        prefix = "/apis" if "/" in group_version else "/api"
        answers[f"{prefix}/{group_version}"] = {
            "kind": "APIResourceList",
            "groupVersion": group_version,
            "resources": [
                {"name": plural(kind), "kind": kind, "namespaced": not kind.startswith("Cluster"), "verbs": ["get"]} for kind in sorted(kinds)
            ],
        }
    answers["/api"] = {"kind": "APIVersions", "versions": ["v1"]}
    versions = [{"groupVersion": each, "version": each.split("/")[1]} for each in groups if "/" in each]
    answers["/apis"] = {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": each["groupVersion"].split("/")[0], "versions": [each], "preferredVersion": each} for each in versions],
    }
    return answers


def plural(kind):
    name = kind.lower()
    return name[:-1] + "ies" if name.endswith("y") else name + "s"


class Api(http.server.BaseHTTPRequestHandler):
    """Discovery, and whatever is in `secrets`."""

    discovery = {}
    secrets = {}
    asked = []

    def do_GET(self):
        path = self.path.split("?")[0]
        self.asked.append(path)
        found = self.discovery.get(path) or self.secrets.get(path)
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(found or missing).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""


def check_kept_secret(failures):
    Api.discovery = discovery(objects(namespace=NAMESPACE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory, "config")
        config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "users": [{"name": "x", "user": {}}],
        }))
        for version in ("3", "4"):
            check_with(failures, version, config)
    server.shutdown()
    server.server_close()


def check_with(failures, version, config):
    def rendered():
        # The arguments are the same, the API's answers are not.
        template.cache_clear()
        return objects("--dry-run=server", "--kubeconfig", config, "--disable-openapi-validation",
                       version=version, namespace=NAMESPACE)

    Api.secrets = {}
    first = rendered()
    (secret,) = of_kind(first, "Secret")
    failures.check(secret["metadata"]["annotations"].get("helm.sh/resource-policy") == "keep", "an uninstall deletes the password")
    password = secret_text(secret)["password"]
    failures.check(len(password) >= 24, f"the generated password has {len(password)} characters")
    other = secret_text(of_kind(rendered(), "Secret")[0])["password"]
    failures.check(other != password, "two installations have the same password")
    # As helm writes it into what it installs.
    secret["metadata"]["annotations"] |= {"meta.helm.sh/release-name": "store", "meta.helm.sh/release-namespace": NAMESPACE}
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{secret['metadata']['name']}"
    Api.secrets = {path: secret}
    second = rendered()
    failures.check(path in Api.asked, f"helm {version} does not look for the Secret")
    again = secret_text(named(second, "Secret", secret["metadata"]["name"]))["password"]
    failures.check(again == password, f"helm {version}: an upgrade makes another password")
    stable = [one for one in first if one["kind"] != "Secret"] == [one for one in second if one["kind"] != "Secret"]
    failures.check(stable, f"helm {version}: the first upgrade changes more than nothing")
