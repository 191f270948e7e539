"""Prints what a fleet gains, as a table: `python -m tests.resumption --help`."""

import argparse
import os
import random
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from keyrotd.testing.haproxy import find_haproxy
from keyrotd.tls.handshake import Version
from tests.resumption.measure import Found, Plan, measure
from tests.resumption.regimes import Kind, haproxy

KINDS: Mapping[str, Callable[[], Kind]] = MappingProxyType({"haproxy": lambda: haproxy(find_haproxy())})


def main() -> int:
    plain = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.resumption", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of servers: {', '.join(KINDS)} (default: all)")
    parser.add_argument("--nodes", type=int, default=plain.nodes, help="behind each balancer (default %(default)s)")
    parser.add_argument("--rotations", type=int, default=plain.rotations, help="(default %(default)s)")
    parser.add_argument("--every", type=float, default=plain.every_s, help="seconds from one to the next")
    parser.add_argument("--rate", type=float, default=plain.rate_per_s, help="connections a second, all regimes")
    parser.add_argument("--one-way-ms", type=float, default=plain.one_way_ms, help="half a round trip")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", action="store_true", help="the tables and their command alone")
    asked = parser.parse_args()
    if unknown := [name for name in asked.kinds if name not in KINDS]:
        parser.error(f"there is no kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    plan = Plan(
        nodes=asked.nodes,
        rotations=asked.rotations,
        every_s=asked.every,
        rate_per_s=asked.rate,
        one_way_ms=asked.one_way_ms,
        idle=plain.idle,
    )
    if not asked.markdown:
        load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        print(f"{os.cpu_count()} cores, load {load} before; about {plan.rotations * plan.every_s:g} s for each kind\n")
    for name in asked.kinds or KINDS:
        kind = KINDS[name]()
        print("\n".join(_table(kind, plan, measure(kind, plan, random.Random(asked.seed)))), flush=True)
    print(f"Repeat it: `{shlex.join(['python', '-m', 'tests.resumption', *sys.argv[1:]])}`")
    return 0


def _table(kind: Kind, plan: Plan, found: Sequence[Found]) -> Iterator[str]:
    yield f"{plan.nodes} {kind.title} nodes, a round trip of {2 * plan.one_way_ms:g} ms, {plan.rotations} rotations."
    yield "Ratios are to per-node keys in the same run."
    yield ""
    yield f"| | {' | '.join(regime.regime for regime in found)} |"
    yield f"|---{'|---:' * len(found)}|"
    for row in (
        _row("connections", found, lambda regime: str(len(regime.visits))),
        _row("resumed handshakes", found, lambda regime: f"{regime.resumed_share:.1%} ({regime.resumed})"),
        _ratios("server CPU per 1000 connections", found, "s", lambda regime: regime.cpu_ms_each),
        *_first_bytes(found),
        _row("failed connections", found, lambda regime: str(regime.failed)),
        _row("idle connections closed", found, lambda regime: f"{regime.idle_closed} of {regime.idle}"),
    ):
        yield f"| {' | '.join(row)} |"
    yield ""


def _row(what: str, found: Sequence[Found], cell: Callable[[Found], str]) -> Sequence[str]:
    return (what, *map(cell, found))


def _ratios(what: str, found: Sequence[Found], unit: str, figure: Callable[[Found], float]) -> Sequence[str]:
    first = figure(found[0])
    return _row(what, found, lambda regime: f"x {figure(regime) / first:.2f} ({figure(regime):.3g} {unit})")


def _first_bytes(found: Sequence[Found]) -> Iterator[Sequence[str]]:
    for version in Version:
        for place, word in enumerate(("median", "95 of 100")):

            def figure(regime: Found, version: Version = version, place: int = place) -> float:
                return regime.first_byte_ms(version)[place]

            yield _ratios(f"TLS {version.value}, first byte, {word}", found, "ms", figure)


if __name__ == "__main__":
    sys.exit(main())
