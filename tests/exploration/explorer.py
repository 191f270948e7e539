"""Breadth first through all orders of events, each state visited once; what is found first is found by fewest steps."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from keyrotd.core.window import Window
from tests.exploration.canon import canon
from tests.exploration.events import steps
from tests.exploration.ring import Ring, Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """
    `states` distinct ones were reached by `steps`, the furthest by `depth`; `trace` leads to a broken claim.

    `complete`: no other state can be reached at all.
    """

    states: int
    steps: int
    depth: int
    complete: bool
    took_s: float
    trace: tuple[str, ...]
    broken: str


def explore(start: Ring, rules: Rules, *, most: int) -> Found:
    """Visit every state that can be reached from `start`, but no more than `most`."""
    began_s, root = time.process_time(), canon(start)
    parents: dict[bytes, tuple[bytes, str]] = {root: (b"", "")}
    layer, depth, taken = [(root, start)], 0, 0
    while layer and len(parents) < most:
        depth += 1
        following: list[tuple[bytes, Ring]] = []
        for parent, ring in layer:
            for name, after in steps(ring, rules):
                taken += 1
                key = canon(after)
                if key in parents:
                    continue
                parents[key] = parent, name
                if after.broken:
                    trace = tuple(reversed([*_back(key, parents)]))
                    took_s = time.process_time() - began_s
                    return Found(
                        states=len(parents),
                        steps=taken,
                        depth=depth,
                        complete=False,
                        took_s=took_s,
                        trace=trace,
                        broken=after.broken,
                    )
                following.append((key, after))
        layer = following
    took_s = time.process_time() - began_s
    return Found(states=len(parents), steps=taken, depth=depth, complete=not layer, took_s=took_s, trace=(), broken="")


def _back(key: bytes, parents: dict[bytes, tuple[bytes, str]]) -> Iterator[str]:
    while parents[key][1]:
        key, name = parents[key]
        yield name


def play(ring: Ring, rules: Rules, names: Iterable[str]) -> Iterator[tuple[str, Ring]]:
    """Take the named steps, one after the other."""
    for name in names:
        found = [after for known, after in steps(ring, rules) if known == name]
        assert found, f"there is no step {name!r} from here"
        ring = found[0]
        yield name, ring


def played(ring: Ring, rules: Rules, names: Iterable[str]) -> Ring:
    """Return where the named steps lead."""
    return [ring, *(after for _, after in play(ring, rules, names))][-1]


def told(start: Ring, rules: Rules, names: Iterable[str]) -> str:
    """Tell a trace, line by line: when, what, and which window (epoch.fence) stands where then."""
    lines = []
    for name, ring in play(start, rules, names):
        held = [_short(None if node.held is None else node.held.window) for node in ring.nodes]
        lines.append(f"  {ring.now:4d}  {name:52s} store {_short(ring.store.window):6s} nodes {' '.join(held)}")
        if ring.broken:
            lines.append(f"        {ring.broken}")
    return "\n".join(lines)


def _short(window: Window | None) -> str:
    return "-" if window is None else f"{window.epoch}.{window.fence}"
