"""What expressions ask for: shared by the checks of rules and dashboards."""

import itertools
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "helm/holdfast/files/alerts.yaml"
DASHBOARDS = ROOT / "helm/holdfast/files/dashboards"
PAGES = ROOT / "docs/alerts"
TESTS = ROOT / ".ci/monitoring/tests"

# A metric, with the braces behind it if there are any. Quotes may hold braces.
SELECTOR = re.compile(
    r'\b((?:holdfast|process)_[a-z0-9_]+|up)\b(\{(?:[^{}"]|"[^"]*")*\})?'
)
MATCHER = re.compile(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
ALTERNATIVES = re.compile(r"[A-Za-z0-9_-]+(\|[A-Za-z0-9_-]+)+")


def substitute(expr, selection, interval="1m"):
    """The expression as Grafana sends it, with these values of the variables."""
    for name, value in selection.items():
        expr = expr.replace(f"${name}", value)
    expr = expr.replace("$__rate_interval", interval)
    left = re.search(r"\$\{?\w+", expr)
    if left:
        raise SystemExit(f"unknown variable {left.group()} in: {expr}")
    return expr


def selectors(expr):
    """Each selector in an expression; one with alternatives, a|b, once for
    each of them, so that no alternative may be a word that nobody exports."""
    found = set()
    for name, braces in SELECTOR.findall(expr):
        choices = []
        for label, op, value in MATCHER.findall(braces):
            if op == "=~" and ALTERNATIVES.fullmatch(value):
                choices.append([f'{label}="{one}"' for one in value.split("|")])
            else:
                choices.append([f'{label}{op}"{value}"'])
        for chosen in itertools.product(*choices):
            found.add(f"{name}{{{', '.join(chosen)}}}")
    return found


def dashboards():
    """Each dashboard: its path and what is in it."""
    paths = sorted(DASHBOARDS.glob("*.json"))
    if not paths:
        raise SystemExit(f"there is no dashboard in {DASHBOARDS}")
    return [(path, json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def panels(dashboard):
    """Every panel that shows data, those of collapsed rows included."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel
