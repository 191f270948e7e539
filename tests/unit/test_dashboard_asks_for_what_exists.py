"""deploy/grafana/keyrotd.json asks for metrics and labels that daemons show, for all of them; no panels overlap."""

import json
import re
from itertools import combinations
from typing import Any

import pytest

from keyrotd.daemon.telemetry import COUNTERS, GAUGES, HISTOGRAMS
from tests.alerts import DASHBOARD, dashboard_expressions, unknown_metrics

BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())


@pytest.mark.parametrize("expression", dashboard_expressions())
def test_a_query_names_metrics_and_labels_that_exist(expression: str) -> None:
    assert list(unknown_metrics(expression)) == []


def test_every_metric_is_somewhere_on_the_dashboard() -> None:
    asked = " ".join(dashboard_expressions())

    known = [*GAUGES, *COUNTERS, *HISTOGRAMS]
    assert [name for name in known if not re.search(rf"\bkeyrotd_{name}(_bucket)?\b", asked)] == []


def test_no_panel_lies_on_another() -> None:
    tiles = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in BOARD["panels"])
    ]

    assert [pair for pair in combinations(tiles, 2) if pair[0] & pair[1]] == []
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in BOARD["panels"])
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_it_asks_the_prometheus_that_its_reader_chose() -> None:
    sources = {json.dumps(found) for found in _values(BOARD, "datasource")}

    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}


def _values(found: Any, key: str) -> list[Any]:
    if isinstance(found, list):
        return [value for item in found for value in _values(item, key)]
    if isinstance(found, dict):
        below = [value for item in found.values() for value in _values(item, key)]
        return [found[key], *below] if key in found else below
    return []
