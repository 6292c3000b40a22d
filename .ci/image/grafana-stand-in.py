#!/usr/bin/env python3
"""Reads what is provisioned where Grafana reads it, and answers like its health
check: 200 once all of it can be used, else 503 and what is wrong.
"""

import http.server
import json
import pathlib
import signal
import sys
import urllib.request

import yaml

PROVISIONING = pathlib.Path("/etc/grafana/provisioning")
DATA = pathlib.Path("/var/lib/grafana")


def provisioned(kind):
    """What the files of one directory list under its name in them."""
    files = [path for path in (PROVISIONING / kind).iterdir() if path.suffix in (".yml", ".yaml")]
    return [one for path in files for one in yaml.safe_load(path.read_text())[{"dashboards": "providers"}.get(kind, kind)]]


def look():
    """What there is, in words; raises when something is missing."""
    (DATA / "written").write_text("by uid 472")
    sources = provisioned("datasources")
    for one in sources:
        with urllib.request.urlopen(f"{one['url']}/api/v1/query?query=1", timeout=5) as answer:
            if json.load(answer)["status"] != "success":
                raise ValueError(f"{one['name']} does not answer a query")
    kept = [path for one in provisioned("dashboards") for path in pathlib.Path(one["options"]["path"]).rglob("*.json")]
    titles = [json.loads(path.read_text())["title"] for path in kept]
    if not sources or not titles:
        raise ValueError(f"{len(sources)} sources of data, {len(titles)} dashboards")
    return {"sources": [one["name"] for one in sources], "dashboards": titles}


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, said = 200, look()
        except Exception as error:  # pylint: disable=broad-except
            status, said = 503, {"error": f"{type(error).__name__}: {error}"}
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""


# The first process of a container ends by no signal that it does not handle.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("", 3000), Health).serve_forever()
