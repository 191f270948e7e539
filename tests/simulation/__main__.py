"""Long runs: python -m tests.simulation --seeds 1000 --first 1."""

import argparse
import sys
import time

from tests.simulation.claims import Broken, Orphan
from tests.simulation.runs import Tally, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--log", action="store_true", help="print what happened under each seed that broke a claim")
    asked = parser.parse_args()
    total, broken, orphans, began_s = Tally(), 0, 0, time.monotonic()
    for seed in range(asked.first, asked.first + asked.seeds):
        log: list[str] = []
        try:
            total += run(seed, log=log)
        except Broken as claim:
            broken += 1
            orphans += isinstance(claim, Orphan)
            print("\n".join(log) if asked.log else "", claim, sep="\n" if asked.log else "")
            print(f"  replay: python -m tests.simulation --seeds 1 --first {seed} --log", flush=True)
    took_s = time.monotonic() - began_s
    print(
        f"{asked.seeds} seeds in {took_s:.0f} s, {total.ticks / took_s:.0f} ticks/s: {total.ticks} ticks, "
        f"{total.crashes} crashes, {total.publishes} windows, {total.handshakes} handshakes, "
        f"{total.crowded} outside G1 for want of slots; "
        f"orphan tickets under {orphans} seeds, any claim broken under {broken}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
