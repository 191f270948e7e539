"""What deploy/ ships for Prometheus and Grafana: alerts, expressions, and the metrics that these ask for."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from keyrotd.daemon.telemetry import COUNTERS, GAUGES, HISTOGRAMS

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "keyrotd.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "keyrotd.json"
_METRIC = re.compile(r"\bkeyrotd_(\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')


def alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)


def dashboard_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def unknown_metrics(expression: str) -> Iterator[str]:
    """Every metric in `expression` that no daemon shows, and every label asked for that it does not have."""
    labels = {name: {*metric.labels} for table in (GAUGES, COUNTERS) for name, metric in table.items()}
    for name, metric in HISTOGRAMS.items():
        labels |= {f"{name}_{part}": {*metric.labels, "le"} for part in ("bucket", "count", "sum")}
    for name, matchers in _METRIC.findall(expression):
        if name not in labels:
            yield name
        else:
            yield from (
                f"{name}{{{label}}}" for label in _MATCHER.findall(matchers) if label not in _known(labels[name])
            )


def _known(labels: set[str]) -> set[str]:
    return {*labels, "job", "instance"}
