"""A fleet whose daemons all show their metrics, and what they show."""

import http.client
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from keyrotd.testing.fleet import Fleet, Pace
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.live import free_ports
from tests.scenes import HURRIED
from tests.servers_found import wheel_haproxy, wheel_valkey


class Scraped:
    """
    `ports` by the daemon's name: `s1` and `s2` are schedulers, `a1` and so on agents.

    `asks`: agents offer their tickets to each other.
    """

    def __init__(self, directory: Path, *, nodes: int = 1, pace: Pace = HURRIED, asks: bool = False) -> None:
        self._asks = asks
        names = ("s1", "s2", *(f"a{number}" for number in range(1, nodes + 1)))
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.fleet = Fleet(
            directory,
            (partial(HAProxy, exe=wheel_haproxy()),),
            nodes=nodes,
            pace=pace,
            store_exe=wheel_valkey(),
            amend=self._listening,
        )

    def _listening(self, name: str, text: str) -> str:
        text = text.replace('listen = "off"', f'listen = "127.0.0.1:{self.ports[name]}"')
        if self._asks and name.startswith("a"):
            asking = 'peer_probes = 2\npeer_interval = "10s"\npeer_networks = ["127.0.0.0/8"]\n'
            text = text.replace("[[server]]", f"{asking}[[server]]")
            text = re.sub(r'(probe = "(.+)")', r'\1\nadvertise = "\2"', text)
        return text

    @property
    def leader(self) -> str:
        """Name of the scheduler that says it leads; '' while none does."""
        names = (name for name in self.ports if name.startswith("s"))
        return next((name for name in names if any(s.value for s in self.samples(name, "keyrotd_leader"))), "")

    def samples(self, daemon: str, name: str) -> list[Sample]:
        return [sample for family in self.families(daemon) for sample in family.samples if sample.name == name]

    def families(self, daemon: str) -> list[Metric]:
        """Everything that the daemon shows now; nothing while it cannot be asked."""
        return list(text_string_to_metric_families(self._page(daemon)))

    def _page(self, daemon: str) -> str:
        line = http.client.HTTPConnection("127.0.0.1", self.ports[daemon], timeout=5)
        try:
            line.request("GET", "/metrics")
            return line.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            line.close()


def shown(families: list[Metric]) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Name, type and labels of every metric that has a sample."""
    for family in families:
        for sample in family.samples:
            labels = frozenset(sample.labels) - {"le"}
            yield f"{family.name}_total" if family.type == "counter" else family.name, family.type, labels
