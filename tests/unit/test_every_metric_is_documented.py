"""docs/metrics.md lists exactly the metrics that the code has."""

import re
from pathlib import Path

from keyrotd.daemon.telemetry import COUNTERS, GAUGES, HISTOGRAMS, Metric

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
PACKAGE = Path(__file__).parents[2] / "keyrotd"
#: Where a reason is given: to CorruptWindow, by core/reconcile, and for beats by the agent.
REASON = re.compile(r'(?:reason=|Refuse\(|_refused\("beat", )"([^"]+)"')
ROW = re.compile(r"\| `keyrotd_(\w+)` \| (\w+) \| (.+?) \| (.+?) \| (.+?) \| (.+) \|")


def test_the_page_has_a_row_for_every_metric_and_none_besides() -> None:
    listed = [row.groups() for row in map(ROW.fullmatch, PAGE.read_text().splitlines()) if row is not None]

    tables = {"gauge": GAUGES, "counter": COUNTERS, "histogram": HISTOGRAMS}
    assert listed == [row(name, kind, metric) for kind, table in tables.items() for name, metric in table.items()]


def test_the_page_names_every_value_of_a_closed_label() -> None:
    text = PAGE.read_text()

    closed = [value for metric in COUNTERS.values() for values in metric.closed.values() for value in values]
    assert [value for value in closed if f"`{value}`" not in text] == []


def test_the_page_names_every_reason_to_refuse() -> None:
    text = PAGE.read_text()
    sources = [path.read_text() for part in ("seal", "daemon", "core") for path in PACKAGE.glob(f"{part}/*.py")]

    given = {word for source in sources for word in REASON.findall(source)}

    assert given >= {"bad signature", "stale window", "replayed beat"}
    assert sorted(word for word in given if f"`{word}`" not in text) == []


def row(name: str, kind: str, metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
    return (name, kind, labels, unit(name), ", ".join(metric.by), metric.says)


def unit(name: str) -> str:
    if name.endswith("_timestamp_seconds"):
        return "Unix s"
    return {"seconds": "s", "ratio": "ratio"}.get(name.rpartition("_")[2], "-")
