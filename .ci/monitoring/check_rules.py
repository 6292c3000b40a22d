"""Refuses alerts without annotations, tests of both kinds or a page."""

import re
import sys

import yaml

from expressions import PAGES, ROOT, RULES, TESTS

SEVERITIES = {"info", "warning", "critical"}
ANNOTATIONS = {"summary", "description", "runbook_url"}
# What every page has, in this order.
SECTIONS = ["What it means", "What users notice", "What to look at", "What to do", "When it is harmless"]

problems = []


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def check_alert(rule):
    name = rule["alert"]
    if not re.fullmatch(r"Holdfast[A-Za-z]+", name):
        problems.append(f"{name}: the name does not begin with Holdfast")
    if rule.get("labels", {}).get("severity") not in SEVERITIES:
        problems.append(f"{name}: severity is none of {sorted(SEVERITIES)}")
    annotations = rule.get("annotations", {})
    if set(annotations) != ANNOTATIONS or not all(annotations.values()):
        problems.append(f"{name}: needs just these annotations: {sorted(ANNOTATIONS)}")
    if annotations.get("runbook_url") != f"docs/alerts/{name}.md":
        problems.append(f"{name}: runbook_url is not docs/alerts/{name}.md")


def check_tests(names):
    """One test must see the alert fire, annotations included, and one must see
    it silent while there are series that it looks at."""
    fires, silent = set(), set()
    for path in sorted(TESTS.glob("*.yaml")):
        for test in load(path)["tests"]:
            for case in test.get("alert_rule_test", []):
                name = case["alertname"]
                if name not in names:
                    problems.append(f"{path.name}: tests {name}, which there is not")
                if case["exp_alerts"] == []:
                    silent.add(name)
                elif all(ANNOTATIONS <= set(alert.get("exp_annotations", {})) for alert in case["exp_alerts"]):
                    fires.add(name)
    problems.extend(f"{name}: no test sees it fire" for name in sorted(names - fires))
    problems.extend(f"{name}: no test sees it silent" for name in sorted(names - silent))


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def check_links(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists():
            problems.append(f"{path.relative_to(ROOT)}: {target} is not there")
        elif anchor and anchor not in anchors(linked):
            problems.append(f"{path.relative_to(ROOT)}: {target} has no such heading")


def check_pages(alerts):
    runbook = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    for name, rule in alerts.items():
        page = PAGES / f"{name}.md"
        if not page.exists():
            problems.append(f"{name}: there is no page docs/alerts/{name}.md")
            continue
        text = page.read_text(encoding="utf-8")
        if re.findall(r"^# (.+)$", text, re.M) != [name]:
            problems.append(f"{page.name}: its title is not {name}")
        if re.findall(r"^## (.+)$", text, re.M) != SECTIONS:
            problems.append(f"{page.name}: its sections are not {SECTIONS}")
        if f"**{rule['labels']['severity']}**" not in text:
            problems.append(f"{page.name}: does not say that it is {rule['labels']['severity']}")
        if "../runbook.md" not in text:
            problems.append(f"{page.name}: has no link to the runbook")
        if f"({name}.md)" not in index:
            problems.append(f"docs/alerts/README.md: does not list {name}")
        if f"(alerts/{name}.md)" not in runbook:
            problems.append(f"docs/runbook.md: has no link to {name}")
    known = {f"{name}.md" for name in alerts} | {"README.md"}
    extra = {page.name for page in PAGES.glob("*.md")} - known
    problems.extend(f"docs/alerts/{name}: there is no such alert" for name in sorted(extra))
    for path in [*sorted(PAGES.glob("*.md")), ROOT / "docs/runbook.md"]:
        check_links(path)


rules = [rule for group in load(RULES)["groups"] for rule in group["rules"]]
alerts = {rule["alert"]: rule for rule in rules}
if len(alerts) != len(rules):
    problems.append("two alerts have the same name")
for rule in rules:
    check_alert(rule)
check_tests(set(alerts))
check_pages(alerts)
if problems:
    sys.exit("\n".join(problems))
print(f"{len(alerts)} alerts have annotations, tests of both kinds and a page")
