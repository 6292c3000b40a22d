"""Renders several values files into one stream, for tools that
read files, and judges what checkov found.

usage: findings.py render VALUES...      renders them into one stream
       findings.py judge REPORT SKIPS    fails for findings that no line accepts
"""

import json
import re
import sys

from rendering import CHART, template


def render(names):
    for name in names:
        # Of their own release each, so that objects are not there twice.
        sys.stdout.write(template("-f", CHART / "ci" / f"{name}-values.yaml", release=name))


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
    render(sys.argv[2:])
else:
    judge(*sys.argv[2:])
