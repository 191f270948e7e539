"""Whatever command runs, its process leaves no core, lets nobody look in, and locks memory only where that is safe."""

import json
import resource
import subprocess
import sys

import pytest

from keyrotd.daemon.hardening import may_lock

#: Asked of the kernel in a process of its own: none of this can be undone.
ASK = """
import ctypes, json, resource, sys
from keyrotd.cli import main
libc, most = ctypes.CDLL(None), resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
try: main.main()
except SystemExit: pass
print(json.dumps([libc.prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE)]))
"""


def told(program: str, *arguments: str) -> list[object]:
    ran = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    found: list[object] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("arguments", [["init", "/dev/null/x"], ["inspect", "/dev/null"], ["check"], ["rotate"]])
def test_a_command_leaves_no_core_and_is_not_dumpable(arguments: list[str]) -> None:
    assert told(ASK, *arguments) == [0, 0, 0]


@pytest.mark.parametrize(
    ("most", "capabilities", "may"),
    [(8 << 20, 0, False), (64 << 30, 0, False), (resource.RLIM_INFINITY, 0, True), (8 << 20, 1 << 14, True)],
)
def test_memory_is_locked_where_no_limit_is_reached_some_day(most: int, capabilities: int, may: bool) -> None:  # noqa: FBT001 - a row
    assert may_lock(most, f"VmSize:\t300000 kB\nCapEff:\t{capabilities:016x}\n") is may


def test_who_cannot_be_looked_at_may_not() -> None:
    assert not may_lock(8 << 20, "")
