"""Fuzzes each target, or the one that is named, from its seeds. What made one fail is printed, to become a vector."""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

#: For one target: a minute in all.
SECONDS = 4
#: The largest that any format takes, roughly, and small enough to be quick.
MOST_BYTES = 8_192
_RUNS = re.compile(rb"Done (\d+) runs in")


def main() -> int:
    try:
        from tests.fuzz.targets import TARGETS
    except ImportError as error:
        print(f"error: {error}\nhint: pip install atheris: its wheels are for Linux on x86-64", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    wanted = parser.parse_args()
    names = [wanted.target] if wanted.target else list(TARGETS)
    failed = [name for name in names if not fuzz(name, TARGETS[name][1], wanted.seconds)]
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def fuzz(name: str, seeds: object, seconds: int) -> bool:
    """Whether `name` held for so long; what it failed on goes to standard output."""
    assert hasattr(seeds, "__iter__")
    with TemporaryDirectory(prefix="fuzz") as place:
        corpus, crashes = Path(place, "corpus"), Path(place, "crashes")
        corpus.mkdir()
        crashes.mkdir()
        for count, seed in enumerate(seeds):
            corpus.joinpath(str(count)).write_bytes(seed)
        bounds = (f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-artifact_prefix={crashes}/", "-timeout=10")
        argv = [sys.executable, "-m", "tests.fuzz.child", name, *bounds, str(corpus)]
        ran = subprocess.run(argv, capture_output=True, check=False, timeout=seconds + 120)
        runs = _RUNS.search(ran.stderr)
        if ran.returncode == 0 and runs is not None:
            print(f"{name}: {int(runs[1]):,} runs, nothing found")
            return True
        print(f"{name}: FAILED\n{ran.stdout.decode(errors='replace')[-4_000:]}")
        for crash in crashes.iterdir():
            print(f"{name}: on {crash.read_bytes()!r}")
        print(ran.stderr.decode(errors="replace")[-2_000:])
        return False


if __name__ == "__main__":
    sys.exit(main())
