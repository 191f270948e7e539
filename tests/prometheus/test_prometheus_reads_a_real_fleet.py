"""A real Prometheus scrapes real daemons, and works out every alert and every query of the dashboard."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.live import free_ports
from tests.alerts import RULES, alerts, dashboard_expressions
from tests.scenes import short_directory, started
from tests.scraped import Scraped
from tests.servers_found import prometheus

pytestmark = pytest.mark.debian

#: NaN for good reasons: nothing happened within the time asked for, or the key file does not say.
UNKNOWN = ("histogram_quantile", "kek_made")
#: What a fleet in good health never shows.
QUIET = ("windows_refused", "store_errors", "succession_steps", "isolated", "reload_successful == 0")


class Prometheus:
    """One process, whose HTTP API is asked."""

    def __init__(self, directory: Path, scraped: Scraped) -> None:
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        config = directory / "prometheus.yml"
        targets = [f"127.0.0.1:{port}" for port in scraped.ports.values()]
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(RULES)],
                    "scrape_configs": [{"job_name": "keyrotd", "static_configs": [{"targets": targets}]}],
                }
            )
        )
        argv = [
            str(prometheus()),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address={self._address}",
        ]
        self._child = start_child(argv, log=directory / "prometheus.log")

    def ask(self, path: str, **query: str) -> Any:
        """Return `data` of an answer; None while it does not answer. An error of the query raises HTTPError."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except ConnectionError:
            return None
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError) and error.code != 503:
                raise
            return None

    def value(self, expression: str) -> float | None:
        found = self.ask("query", query=expression)
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    def close(self) -> None:
        stop_child(self._child)


@pytest.fixture(scope="module")
def prometheus_of_a_fleet() -> Iterator[Prometheus]:
    with short_directory() as directory:
        scraped = Scraped(Path(directory, "f"), nodes=2, asks=True)
        with started(scraped.fleet) as operator:
            found = Prometheus(directory, scraped)
            try:
                wait_until(lambda: found.value("sum(up)") == len(scraped.ports), "every daemon is scraped")
                operator.rotate()
                # Two scrapes past the rotation: a rate needs them.
                wait_until(
                    lambda: found.value("min(keyrotd_epoch)") == operator.window.epoch, "the rotation is scraped"
                )
                moved = 'sum(increase(keyrotd_publishes_total{kind="rotate"}[1m])) > 0'
                wait_until(lambda: found.value(moved) is not None, "the rotation is an increase")
                asked = 'sum(increase(keyrotd_peer_probes_total{outcome="resumed"}[1m])) > 0'
                wait_until(lambda: found.value(asked) is not None, "a peer opened a ticket", patience_s=40)
                yield found
            finally:
                found.close()


def test_every_ticket_resumes_on_every_peer(prometheus_of_a_fleet: Prometheus) -> None:
    outcomes = prometheus_of_a_fleet.ask("query", query="sum by (outcome) (keyrotd_peer_probes_total) > 0")["result"]

    assert [series["metric"]["outcome"] for series in outcomes] == ["resumed"]
    assert prometheus_of_a_fleet.value("min(keyrotd_probe_resumption_ratio)") == 1


@pytest.mark.parametrize("expression", dashboard_expressions())
def test_a_query_of_the_dashboard_has_an_answer(prometheus_of_a_fleet: Prometheus, expression: str) -> None:
    asked = expression.replace("$ring", ".*")

    found = prometheus_of_a_fleet.ask("query", query=asked)["result"]

    assert found or any(word in expression for word in QUIET)
    numbers = [series["value"][1] for series in found]
    assert "NaN" not in numbers or any(word in expression for word in UNKNOWN)


def test_every_rule_is_worked_out_and_none_fires_over_a_fleet_in_good_health(prometheus_of_a_fleet: Prometheus) -> None:
    (group,) = prometheus_of_a_fleet.ask("rules")["groups"]

    told = {rule["name"]: (rule["health"], rule.get("lastError", ""), rule["state"]) for rule in group["rules"]}

    assert told == dict.fromkeys(alerts(), ("ok", "", "inactive"))
