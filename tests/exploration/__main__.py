"""Explore: python -m tests.exploration [--scope NAME]... [--mutant NAME]... [--most STATES]; all scopes by default."""

import argparse
import sys

from tests.exploration.explorer import explore, told
from tests.exploration.mutants import MUTANTS
from tests.exploration.ring import Rules
from tests.exploration.scopes import SCOPES, Scope


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exploration", description=__doc__)
    parser.add_argument("--scope", action="append", default=[], choices=[scope.name for scope in SCOPES])
    parser.add_argument("--mutant", action="append", default=[], choices=[mutant.name for mutant in MUTANTS])
    parser.add_argument("--most", type=int, default=10**6, help="states to see before a scope is left")
    asked = parser.parse_args()
    chosen = asked.scope or ([] if asked.mutant else [scope.name for scope in SCOPES])
    wrong = 0
    for scope in (scope for scope in SCOPES if scope.name in chosen):
        wrong += _say(scope.name, scope, Rules(), asked.most) != "holds"
    for mutant in (mutant for mutant in MUTANTS if mutant.name in asked.mutant):
        wrong += _say(f"without {mutant.name}", mutant.scope, mutant.rules, asked.most) != "broken"
    return 1 if wrong else 0


def _say(name: str, scope: Scope, rules: Rules, most: int) -> str:
    found = explore(scope.start(), rules, most=most)
    verdict = "broken" if found.broken else "holds" if found.complete else "not all seen"
    print(
        f"{name}: {found.states} states, {found.steps} steps, depth {found.depth}, {found.took_s:.1f} s: {verdict}",
        flush=True,
    )
    if found.broken:
        print(told(scope.start(), rules, found.trace), flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main())
