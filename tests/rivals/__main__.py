"""The table of docs/rivals.md: python -m tests.rivals [--seeds N]."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from statistics import fmean

from tests.rivals.load import Cause
from tests.rivals.runs import PROTOCOLS, Outcome, Protocol, run
from tests.rivals.weather import FLUSHED, HOSTS, HOUR, QUIET, WEATHERS, Scale

SCALE = Scale()

#: By the names of protocol and weather, one for each seed.
Found = dict[tuple[str, str], list[Outcome]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rivals", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to take the mean of (default 1)")
    asked = parser.parse_args()
    # keyrotd first: its real ticks take longest.
    pairs = [(p, w) for p, w in product(reversed(PROTOCOLS), WEATHERS) if p.stores or w is not FLUSHED]
    tasks = [(p.name, w.name, seed) for p, w in pairs for seed in range(1, asked.seeds + 1)]
    found: Found = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for (protocol, weather, _), outcome in zip(tasks, pool.map(_run, tasks), strict=True):
            found.setdefault((protocol, weather), []).append(outcome)
    print("\n".join(_table(found, asked.seeds)))
    return 0


def _run(task: tuple[str, str, int]) -> Outcome:
    protocol = next(p for p in PROTOCOLS if p.name == task[0])
    weather = next(w for w in WEATHERS if w.name == task[1])
    return run(protocol, weather, task[2], SCALE)


def _table(found: Found, seeds: int) -> list[str]:
    r, t = SCALE.rotation_interval_ms / HOUR, SCALE.ticket_lifetime_ms / HOUR
    heads = ["protocol", *(w.name for w in WEATHERS), "a flush costs", "longest key life, quiet", "and at worst"]
    return [
        f"R {r:g} h, T {t:g} h, {HOSTS} servers, {SCALE.duration_ms / HOUR:g} h each, mean of {seeds} seeds.",
        "Orphan tickets per million handshakes, and the commonest cause:",
        "",
        f"| {' | '.join(heads)} |",
        f"|---{'|---:' * (len(heads) - 1)}|",
        *(f"| {' | '.join(_row(protocol, found))} |" for protocol in PROTOCOLS),
    ]


def _row(protocol: Protocol, found: Found) -> list[str]:
    cells = [_orphans(found.get((protocol.name, weather.name), [])) for weather in WEATHERS]
    quiet = found[protocol.name, QUIET.name]
    every = [outcome for weather in WEATHERS for outcome in found.get((protocol.name, weather.name), [])]
    return [protocol.name, *cells, _flush_cost(protocol, found), _longest(quiet), _longest(every)]


def _orphans(outcomes: list[Outcome]) -> str:
    if not outcomes:
        return "no store"
    causes = {cause: fmean(1e6 * o.whole.orphans[cause] / o.whole.offered for o in outcomes) for cause in Cause}
    words = _number(sum(causes.values()))
    return words if words == "0" else f"{words} {max(causes, key=lambda cause: causes[cause])}"


def _flush_cost(protocol: Protocol, found: Found) -> str:
    if not protocol.stores:
        return "no store"
    pairs = zip(found[protocol.name, FLUSHED.name], found[protocol.name, QUIET.name], strict=True)
    return _number(fmean(flushed.after_flush.per_million - quiet.after_flush.per_million for flushed, quiet in pairs))


def _number(per_million: float) -> str:
    if abs(per_million) < 0.005:  # less than one ticket in two hundred million
        return "0"
    return f"{per_million:,.2f}" if per_million < 1 else f"{per_million:,.0f}"


def _longest(outcomes: list[Outcome]) -> str:
    longest = max(outcomes, key=lambda o: o.life_ms)
    return f"{'> ' if longest.still_open else ''}{longest.life_ms / HOUR:.1f} h"


if __name__ == "__main__":
    sys.exit(main())
