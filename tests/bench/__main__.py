"""
Run the named sections, or all; the exit code tells whether every target was met.

`scale` runs by itself, with options of its own: it takes minutes.
"""

import os
import platform
import sys

from tests.bench import baselines, footprint, notice, propagation, scale
from tests.bench.lines import Lines

SECTIONS = {
    "propagation": propagation.measure,
    "notice": notice.measure,
    "memory": footprint.memory,
    "cpu": footprint.cpu,
    "store": footprint.store,
    "help": footprint.help_time,
    "baselines": baselines.measure,
}


def main(names: list[str]) -> int:
    if names[:1] == ["scale"]:
        return scale.main(names[1:])
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(
            f"error: there is no section {unknown[0]!r}\nhint: known: {', '.join([*SECTIONS, 'scale'])}",
            file=sys.stderr,
        )
        return 2
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load} before")
    missed = 0
    for name in names or SECTIONS:
        lines = Lines(name)
        SECTIONS[name](lines)
        missed += lines.missed
    print(f"\ntargets missed: {missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
