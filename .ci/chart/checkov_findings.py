"""Renders what checkov looks at, and judges what it found.

usage: checkov_findings.py render                writes objects to stdout
       checkov_findings.py judge REPORT SKIPS    fails for what no line accepts
"""

import json
import re
import sys

from rendering import CHART, template


def render():
    for name in ("defaults", "everything"):
        # Of their own release each, so that objects are not there twice. It reads a
        # dashboard, which it has no check for, for ten seconds.
        values = CHART / "ci" / f"{name}-values.yaml"
        sys.stdout.write(template("-f", values, "--set", "metrics.dashboards.enabled=false", release=name))


def judge(report, skips):
    accepted = []
    for line in open(skips, encoding="utf-8"):
        if line.strip() and not line.startswith("#"):
            check, pattern, reason = line.split(maxsplit=2)
            accepted.append((check, re.compile(pattern), reason))
    with open(report, encoding="utf-8") as file:
        results = json.load(file)["results"]
    used, refused = set(), []
    for found in results["failed_checks"]:
        matching = {one for one in accepted if one[0] == found["check_id"] and one[1].fullmatch(found["resource"])}
        used |= matching
        if not matching:
            refused.append(f"{found['check_id']} {found['resource']}: {found['check_name']}")
    refused += [f"checkov-skips.txt: nothing matches any more: {one[0]} {one[1].pattern}" for one in accepted if one not in used]
    for line in sorted(set(refused)):
        print(f"check-chart: {line}", file=sys.stderr)
    if refused or len(results["passed_checks"]) < 100:
        raise SystemExit(1)
    print(f"check-chart: checkov: {len(results['passed_checks'])} checks passed, {len(results['failed_checks'])} findings are accepted")


if sys.argv[1] == "render":
    render()
else:
    judge(*sys.argv[2:])
