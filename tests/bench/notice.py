"""From a window's publish (the instant in it) to the first ticket under its key, on the last of two nodes of a kind."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from keyrotd.core.errors import KeyrotdError
from keyrotd.testing.children import wait_until
from keyrotd.testing.fleet import Fleet
from keyrotd.testing.kinds import KINDS, Kind
from keyrotd.tls.handshake import Handshake, Version, client_context, visit
from keyrotd.tls.target import Target
from tests.bench.lines import Lines
from tests.scenes import HURRIED, now_at, short_directory, started

_ROTATIONS = 20


def measure(lines: Lines) -> None:
    for name, kind in KINDS.items():
        try:
            delays_ms = _of(kind)
        except KeyrotdError as absent:
            lines.say(kind.title, f"not here: {absent.hint or absent}")
        else:
            lines.spread(f"{kind.title} (driver {name!r}), {_ROTATIONS} rotations", delays_ms, "ms")


def _of(kind: Kind) -> list[float]:
    maker = kind.find()
    delays_ms: list[float] = []
    with (
        short_directory() as directory,
        started(Fleet(directory, (maker,), nodes=2, pace=HURRIED)) as operator,
        _watched(operator.fleet) as first_seen_at,
    ):
        for _ in range(_ROTATIONS):
            operator.rotate()
            window = operator.window
            name = window.current.name
            wait_until(lambda name=name: all(name in seen for seen in first_seen_at), "every node seals with it")  # type: ignore[misc]
            delays_ms.append(max(seen[name] for seen in first_seen_at) - window.published_at)
    return delays_ms


@contextmanager
def _watched(fleet: Fleet) -> Iterator[list[dict[bytes, int]]]:
    """For each node, when a ticket under each key was seen first: the end of a handshake, one after the other."""
    stop = threading.Event()
    sightings: list[dict[bytes, int]] = [{} for _ in fleet.targets]

    def watch(target: Target, seen: dict[bytes, int]) -> None:
        context = client_context(Version.TLS12, fleet.trust)
        while not stop.is_set():
            answer = visit(target, context, sni="localhost", timeout_ms=5_000)
            assert isinstance(answer, Handshake), answer
            assert answer.key_name is not None
            seen.setdefault(answer.key_name, now_at())

    with ThreadPoolExecutor(len(sightings)) as pool:
        try:
            watchers = [pool.submit(watch, *pair) for pair in zip(fleet.targets, sightings, strict=True)]
            yield sightings
        finally:
            stop.set()
        for watcher in watchers:
            watcher.result()
