"""What a daemon says of itself: one log event per fact, one count per outcome. No key material ever comes here."""

import logging
import sys
from typing import Any, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from keyrotd import __version__

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

_GAUGES = {
    "epoch": ("Epoch of the window in force.", ("ring",)),
    "key_made_timestamp_seconds": ("When the key in this role was made.", ("ring", "role")),
    "key_seals_until_timestamp_seconds": ("When current stops sealing, at the latest.", ("ring",)),
    "kek_made_timestamp_seconds": ("When the first KEK of the file was made; NaN if the file does not say.", ("ring",)),
    "vulnerability_window_seconds": ("How long one stolen key is worth anything.", ("ring", "kind")),
    "nodes": ("Nodes by state, as the leader sees them.", ("ring", "state")),
    "leader": ("1 while this scheduler leads the ring.", ("ring",)),
    "beat_timestamp_seconds": ("Signing instant of the newest verified beat.", ("ring",)),
    "rotation_held_since_timestamp_seconds": ("Since when a due rotation is held; 0 while none is.", ("ring",)),
    "probe_resumption_ratio": ("Share of this agent's last probes that resumed.", ("ring",)),
    "last_tick_timestamp_seconds": ("When the last tick ran to its end.", ()),
    "succession_steps": ("Steps that this node went without a leader.", ("ring",)),
    "isolated": ("1 while this node seals with keys of its own.", ("ring",)),
    "config_last_reload_successful": ("1 if the configuration in force is the one on disk.", ()),
    "build_info": ("Always 1.", ("version",)),
}
_COUNTERS = {
    "lease_transitions_total": ("Times that this scheduler gained or lost the lease.", ("ring",)),
    "publishes_total": ("Windows published, by kind of decision.", ("ring", "kind")),
    "installs_total": ("Installs into a server, by outcome.", ("ring", "server", "outcome")),
    "drift_total": ("Times that a server had lost or changed our keys.", ("ring", "server")),
    "windows_refused_total": ("Windows, beats and reports refused, by reason.", ("ring", "reason")),
    "requests_total": ("Operators' requests, by what became of them.", ("ring", "kind", "outcome")),
    "store_errors_total": ("Store operations that failed.", ("operation",)),
    "store_regressions_total": ("Times that the store was seen to have lost windows.", ("ring",)),
    "forks_total": ("Windows adopted that do not descend from the one held.", ("ring",)),
    "dropped_keys_total": ("Keys with live tickets that a server had no slot for.", ("ring", "server")),
    "tick_errors_total": ("Unexpected exceptions: of a tick, a ring in it, a driver, or a page of ours.", ()),
}
_HISTOGRAMS = {
    "install_duration_seconds": ("Install and read back, per server.", ("server",)),
    "propagation_duration_seconds": ("From published to read back on this node.", ("ring",)),
    "tick_duration_seconds": ("One tick, from its start to its end.", ()),
}

#: The hint for bytes that no honest party wrote and that nothing more is known of.
ALTERED = "no keyrotd writes this: who else may write to the store? all keys stay as they are"


class Telemetry(Protocol):
    """`fault` is said once when it begins or changes, and once more when it is over (text None)."""

    def event(self, name: str, **fields: object) -> None: ...
    def fault(self, key: str, text: str | None, *, hint: str | None = None, **fields: object) -> None: ...
    def count(self, metric: str, **labels: str) -> None: ...
    def gauge(self, metric: str, value: float, **labels: str) -> None: ...
    def observe(self, metric: str, value: float, **labels: str) -> None: ...


class Reporter:
    """Telemetry to structlog on standard error and to a Prometheus registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges = {n: Gauge(f"keyrotd_{n}", d, ls, registry=self.registry) for n, (d, ls) in _GAUGES.items()}
        self._counters = {n: Counter(f"keyrotd_{n}", d, ls, registry=self.registry) for n, (d, ls) in _COUNTERS.items()}
        self._histograms = {
            n: Histogram(f"keyrotd_{n}", d, ls, registry=self.registry, buckets=_SECONDS)
            for n, (d, ls) in _HISTOGRAMS.items()
        }
        self._log: structlog.stdlib.BoundLogger = structlog.get_logger()
        self._faults: dict[str, str] = {}
        self.gauge("build_info", 1, version=__version__)

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
