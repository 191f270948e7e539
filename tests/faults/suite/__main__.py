"""Play the named scenarios, or all; the exit code tells whether every claim was kept."""

import argparse
import os
import sys
from pathlib import Path

from keyrotd.store.embedded import find_server
from keyrotd.testing.haproxy import find_haproxy
from tests.faults.suite.play import Verdict, play
from tests.faults.suite.scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.suite", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(SCENARIOS)}")
    parser.add_argument("--markdown", action="store_true", help="end with the table that the README shows")
    parser.add_argument("--server", type=Path, help="a valkey-server or redis-server, instead of the wheel's")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    store_exe = asked.server or find_server(os.environ)
    verdicts = []
    for name in asked.names or SCENARIOS:
        verdict = play(SCENARIOS[name], store_exe=store_exe, haproxy_exe=find_haproxy())
        _tell(verdict)
        verdicts.append(verdict)
    if asked.markdown:
        _print_table(verdicts)
    return 1 if any(verdict.broken for verdict in verdicts) else 0


def _tell(verdict: Verdict) -> None:
    tally = verdict.tally
    print(f"\n{verdict.scenario.name} ({verdict.took_s:.0f} s): {verdict.scenario.story}")
    print(f"  handshakes {tally.handshakes}, resumed {tally.resumed}, failed connections {tally.failed}")
    print(f"  keys that sealed: {verdict.keys}; healed after {_healed(verdict)}; orphan tickets {tally.orphans}")
    for remark in verdict.remarks:
        print(f"  {remark}")
    for fault in verdict.broken:
        print(f"  BROKEN: {fault}")
    sys.stdout.flush()


def _print_table(verdicts: list[Verdict]) -> None:
    rows = [
        ("what is done", "handshakes", "resumed", "orphans", "keys", "beyond bounds", "healed after"),
        *(
            (
                each.scenario.story.rstrip("."),
                str(each.tally.handshakes),
                str(each.tally.resumed),
                str(each.tally.orphans),
                str(each.keys),
                str(len(each.beyond)),
                _healed(each),
            )
            for each in verdicts
        ),
    ]
    print()
    for number, row in enumerate(rows):
        print(f"| {' | '.join(row)} |")
        if number == 0:
            print(f"|{' --- |' * len(row)}")


def _healed(verdict: Verdict) -> str:
    return ", ".join(f"{blow / 1000:.1f} s" for blow in verdict.blows) or "never"


if __name__ == "__main__":
    sys.exit(main())
