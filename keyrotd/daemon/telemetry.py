"""What a daemon says of itself: one log event per fact, one count per outcome. No key material ever comes here."""

import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from keyrotd import __version__
from keyrotd.core.messages import OFFERED, Goal

#: A daemon that shows metrics.
Role: TypeAlias = Literal["agent", "scheduler"]

# One more series for each counter, with an instant that nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class Metric:
    """
    What a metric means, which labels it has in which order, and which daemons show it.

    `closed`: the values of labels that are not a ring's or a server's name. A counter or histogram that has them all
    starts at 0 in each: a count that nobody saw begin would be no increase to whoever scrapes.
    """

    says: str
    labels: tuple[str, ...]
    by: tuple[Role, ...]
    closed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_BOTH: tuple[Role, ...] = ("agent", "scheduler")
_AGENT: tuple[Role, ...] = ("agent",)
_SCHEDULER: tuple[Role, ...] = ("scheduler",)

GAUGES: Mapping[str, Metric] = MappingProxyType(
    {
        "epoch": Metric("Epoch of the window in force.", ("ring",), _BOTH),
        "key_made_timestamp_seconds": Metric("When the key in this role was made.", ("ring", "role"), _SCHEDULER),
        "key_seals_until_timestamp_seconds": Metric(
            "When current stops sealing, at the latest.", ("ring",), _SCHEDULER
        ),
        "rotation_due_timestamp_seconds": Metric("When the next rotation is due.", ("ring",), _SCHEDULER),
        "rotation_held_since_timestamp_seconds": Metric(
            "Since when a due rotation is held; 0 while none is.", ("ring",), _SCHEDULER
        ),
        "rotation_paused_until_timestamp_seconds": Metric(
            "Until when an operator paused rotation; 0 while none did.", ("ring",), _SCHEDULER
        ),
        "vulnerability_window_seconds": Metric(
            "How long one stolen key is worth anything.", ("ring", "kind"), _SCHEDULER
        ),
        "nodes": Metric("Nodes by state, as the leader sees them.", ("ring", "state"), _SCHEDULER),
        "nodes_overdue": Metric("Live nodes so long behind that no rotation waits for them.", ("ring",), _SCHEDULER),
        "leader": Metric("1 while this scheduler leads the ring.", ("ring",), _SCHEDULER),
        "beat_timestamp_seconds": Metric("Signing instant of the newest verified beat.", ("ring",), _BOTH),
        "kek_made_timestamp_seconds": Metric(
            "When the first KEK of the file was made; NaN if the file does not say.", ("ring",), _BOTH
        ),
        "server_info": Metric(
            "Always 1: the driver of a server, and whether it installs by a reload.",
            ("ring", "server", "driver", "reloads"),
            _AGENT,
        ),
        "probe_resumption_ratio": Metric("Share of this agent's last probes that resumed.", ("ring",), _AGENT),
        "succession_steps": Metric("Steps that this node went without a leader.", ("ring",), _AGENT),
        "isolated": Metric("1 while this node seals with keys of its own.", ("ring",), _AGENT),
        "last_tick_timestamp_seconds": Metric("When the last tick ran to its end.", (), _BOTH),
        "config_last_reload_successful": Metric("0 while the last reload is refused, else 1.", (), _BOTH),
        "build_info": Metric("Always 1.", ("version",), _BOTH),
    }
)
COUNTERS: Mapping[str, Metric] = MappingProxyType(
    {
        "lease_transitions_total": Metric("Times that this scheduler gained or lost the lease.", ("ring",), _SCHEDULER),
        "publishes_total": Metric(
            "Windows published, by kind of decision.",
            ("ring", "kind"),
            _SCHEDULER,
            {"kind": ("bootstrap", "mend", "rotate", "renew", "revoke")},
        ),
        "capped_keys_total": Metric(
            "Keys with live tickets that previous_keys left out of a window.", ("ring",), _SCHEDULER
        ),
        "requests_total": Metric(
            "Operators' requests, by what became of them.",
            ("ring", "kind", "outcome"),
            _SCHEDULER,
            {
                "kind": (*(goal.value for goal in Goal), "pause", "resume", "unknown"),
                "outcome": ("reached", "declined", "expired", "over", "future", "refused"),
            },
        ),
        "store_regressions_total": Metric("Times that the store was seen to have lost windows.", ("ring",), _SCHEDULER),
        "installs_total": Metric(
            "Installs into a server, by outcome.",
            ("ring", "server", "outcome"),
            _AGENT,
            {"outcome": ("installed", "failed", "unreachable")},
        ),
        "drift_total": Metric("Times that a server had lost or changed our keys.", ("ring", "server"), _AGENT),
        "dropped_keys_total": Metric(
            "Keys with live tickets that a server had no slot for.", ("ring", "server"), _AGENT
        ),
        "peer_probes_total": Metric(
            "Tickets offered to peers, by what they did.",
            ("ring", "server", "outcome"),
            _AGENT,
            {"outcome": tuple(state.value for state in OFFERED)},
        ),
        "forks_total": Metric("Windows adopted that do not descend from the one held.", ("ring",), _AGENT),
        "windows_refused_total": Metric("Windows, beats and reports refused, by reason.", ("ring", "reason"), _BOTH),
        "store_errors_total": Metric("Store operations that failed.", ("operation",), _BOTH),
        "tick_errors_total": Metric(
            "Unexpected exceptions: of a tick, a ring in it, a driver, or a page of ours.", (), _BOTH
        ),
    }
)
HISTOGRAMS: Mapping[str, Metric] = MappingProxyType(
    {
        "install_duration_seconds": Metric("Look, install, read back and probe, per server.", ("server",), _AGENT),
        "propagation_duration_seconds": Metric("From published to read back on this node.", ("ring",), _AGENT),
        "tick_duration_seconds": Metric("One tick, from its start to its end.", (), _BOTH),
    }
)

#: The hint for bytes that no honest party wrote and that nothing more is known of.
ALTERED = "no keyrotd writes this: who else may write to the store? all keys stay as they are"


class Telemetry(Protocol):
    """
    `fault` is said once when it begins or changes, and once more when it is over (text None).

    `unset` takes a gauge back: whoever no longer knows shows no number.
    """

    def event(self, name: str, **fields: object) -> None: ...
    def fault(self, key: str, text: str | None, *, hint: str | None = None, **fields: object) -> None: ...
    def count(self, metric: str, **labels: str) -> None: ...
    def gauge(self, metric: str, value: float, **labels: str) -> None: ...
    def unset(self, metric: str, **labels: str) -> None: ...
    def observe(self, metric: str, value: float, **labels: str) -> None: ...


class Reporter:
    """Telemetry to structlog on standard error and to a Prometheus registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges = {
            name: Gauge(f"keyrotd_{name}", metric.says, metric.labels, registry=self.registry)
            for name, metric in GAUGES.items()
        }
        self._counters = {
            name: Counter(f"keyrotd_{name}", metric.says, metric.labels, registry=self.registry)
            for name, metric in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(f"keyrotd_{name}", metric.says, metric.labels, registry=self.registry, buckets=_SECONDS)
            for name, metric in HISTOGRAMS.items()
        }
        self._log: structlog.stdlib.BoundLogger = structlog.get_logger()
        self._faults: dict[str, str] = {}
        self.gauge("build_info", 1, version=__version__)

    def expect(self, role: Role, ring: str, servers: Iterable[str] = ()) -> None:
        """Start every count of a ring at 0, for each of `servers`, as far as its labels are known beforehand."""
        known = {"ring": (ring,), "server": tuple(servers)}
        counting: dict[str, Counter | Histogram] = {**self._counters, **self._histograms}
        for name, metric in {**COUNTERS, **HISTOGRAMS}.items():
            values = {**known, **metric.closed}
            if metric.labels and role in metric.by and values.keys() >= set(metric.labels):
                for labels in product(*(values[label] for label in metric.labels)):
                    counting[name].labels(*labels)

    def event(self, name: str, **fields: object) -> None:
        self._log.info(name, **fields)

    def fault(self, key: str, text: str | None, *, hint: str | None = None, **fields: object) -> None:
        if self._faults.get(key) == text:
            return
        if text is None:
            del self._faults[key]
            self._log.info("fault.cleared", fault=key, **fields)
            return
        self._faults[key] = text
        self._log.warning("fault.found", fault=key, text=text, hint=hint, **fields)

    def crash(self, error: BaseException) -> None:
        """Say everything about an exception that nobody expected; only service.run tells of one."""
        self._counters["tick_errors_total"].inc()
        self._log.error("tick.crashed", exc_info=error)

    def count(self, metric: str, **labels: str) -> None:
        counter = self._counters[metric]
        (counter.labels(**labels) if labels else counter).inc()

    def gauge(self, metric: str, value: float, **labels: str) -> None:
        gauge = self._gauges[metric]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def unset(self, metric: str, **labels: str) -> None:
        with suppress(KeyError):  # nobody had set it
            self._gauges[metric].remove(*(labels[label] for label in GAUGES[metric].labels))

    def observe(self, metric: str, value: float, **labels: str) -> None:
        histogram = self._histograms[metric]
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


def configure_logging(*, form: str, level: str) -> None:
    """Write one line per event to standard error: JSON, or words for a person at a terminal."""
    # Its warnings tell of ticks that overlap or come late, which service.py knows and says in its own words.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    last: Any = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
