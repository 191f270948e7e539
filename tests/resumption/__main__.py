"""Prints what a fleet gains, as a table: `python -m tests.resumption --help`."""

import argparse
import os
import random
import shlex
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

from keyrotd.core.errors import KeyrotdError
from keyrotd.testing.haproxy import find_haproxy
from keyrotd.testing.nginx import find_nginx
from tests.resumption import tables, upstream
from tests.resumption.measure import KEYS, Plan, measure
from tests.resumption.regimes import Kind, haproxy, nginx

KINDS: Mapping[str, Callable[[], Kind]] = MappingProxyType(
    {"haproxy": lambda: haproxy(find_haproxy()), "nginx": lambda: nginx(find_nginx())}
)


def main() -> int:
    plain = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.resumption", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of servers: {', '.join(KINDS)} (default: all)")
    parser.add_argument("--upstream", action="store_true", help="nginx as the fleet's client, not browsers")
    parser.add_argument("--key", choices=KEYS, default=plain.key, help="of the certificate (default %(default)s)")
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
        key=asked.key,
        nodes=asked.nodes,
        rotations=asked.rotations,
        every_s=asked.every,
        rate_per_s=asked.rate,
        one_way_ms=asked.one_way_ms,
        idle=plain.idle,
    )
    if not asked.markdown:
        load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        print(f"{os.cpu_count()} cores, load {load} before; {plan.rotations * plan.every_s:g} s of load each\n")
    try:
        for name in asked.kinds or KINDS:
            kind = KINDS[name]()
            if asked.upstream:
                table = tables.of_upstream(kind, plan, upstream.measure(find_nginx(), kind, plan))
            else:
                table = tables.of_clients(kind, plan, measure(kind, plan, random.Random(asked.seed)))
            print("\n".join(table), flush=True)
    except KeyrotdError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    print(f"`{shlex.join(['python', '-m', 'tests.resumption', *sys.argv[1:]])}` repeats it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
