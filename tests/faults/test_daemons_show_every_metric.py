"""What real daemons show is what docs/metrics.md lists for them, label by label, and all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrotd.daemon.telemetry import COUNTERS, GAUGES, HISTOGRAMS, Role
from keyrotd.testing.children import wait_until
from tests.scenes import Operator, short_directory
from tests.scraped import Scraped, shown


@pytest.fixture(scope="module")
def scraped() -> Iterator[Scraped]:
    with short_directory() as directory:
        scene = Scraped(Path(directory, "f"))
        try:
            scene.fleet.start()
            yield scene
        finally:
            scene.fleet.close()


def listed(role: Role) -> set[tuple[str, str, frozenset[str]]]:
    tables = {"gauge": GAUGES, "counter": COUNTERS, "histogram": HISTOGRAMS}
    return {
        (f"keyrotd_{name}", kind, frozenset(metric.labels))
        for kind, table in tables.items()
        for name, metric in table.items()
        if role in metric.by
    }


def test_each_daemon_shows_the_metrics_that_are_listed_for_it_and_no_other(scraped: Scraped) -> None:
    operator = Operator(scraped.fleet)
    operator.rotate()
    wait_until(lambda: scraped.leader != "", "somebody leads")
    daemons: dict[str, Role] = {scraped.leader: "scheduler", "a1": "agent"}
    seen: dict[str, set[tuple[str, str, frozenset[str]]]] = {name: set() for name in daemons}

    def complete() -> bool:
        for name in daemons:
            seen[name].update(shown(scraped.families(name)))
        return all(seen[name] >= listed(role) for name, role in daemons.items())

    def refused() -> bool:
        # By both, and whoever comes first takes it away from the other.
        operator.store.offer(digest="00" * 32, window=b"nobody's window")
        return all(scraped.samples(name, "keyrotd_windows_refused_total") for name in daemons)

    wait_until(refused, "refused")
    complete()
    scraped.fleet.stop_store()  # an error for both
    try:
        wait_until(complete, "everything that is listed is shown")
    finally:
        scraped.fleet.start_store()

    assert [seen[name] - listed(role) for name, role in daemons.items()] == [set(), set()]


def test_whoever_stands_by_shows_nothing_that_only_a_leader_knows(scraped: Scraped) -> None:
    wait_until(lambda: scraped.leader != "", "somebody leads")
    standby = ({"s1", "s2"} - {scraped.leader}).pop()

    wait_until(lambda: [s.value for s in scraped.samples(standby, "keyrotd_leader")] == [0], "it stands by")

    leaders_only = ("epoch", "nodes", "nodes_overdue", "rotation_due_timestamp_seconds", "key_made_timestamp_seconds")
    assert [name for name in leaders_only if scraped.samples(standby, f"keyrotd_{name}")] == []
