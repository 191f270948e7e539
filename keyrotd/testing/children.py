"""Child processes that never outlive us: whatever ends this process, by whatever signal, ends them."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: How long a child may take to become ready or to end before we call it stuck.
PATIENCE_S = 20.0

_PR_SET_PDEATHSIG = 1
# Loaded here, since nothing may be imported between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True)


def start_child(argv: Sequence[str], *, log: Path) -> subprocess.Popen[bytes]:
    """
    Start `argv` in a session of its own, with nothing of ours but its log.

    Call it from a thread that lives as long as the child is to: the kernel ends the child when that *thread* ends.
    """
    parent = os.getpid()

    def bind_to_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=bind_to_parent,  # noqa: PLW1509 - two system calls, nothing that could take a lock
        )


def stop_child(child: subprocess.Popen[bytes]) -> None:
    """Ask, wait, insist."""
    child.terminate()
    try:
        child.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def wait_until(claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition; raises TimeoutError naming it."""
    deadline = time.monotonic() + patience_s
    while not claim():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience_s:g} s in vain: {what}")
        time.sleep(0.005)
