"""What a process that holds keys asks of the kernel: no core dumps, no ptrace by its equals, no swap where allowed."""

import ctypes
import os
import resource
from pathlib import Path

_PR_SET_DUMPABLE = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14


def harden() -> list[str]:
    """
    Do what can be done and return what could not, in words. Done twice it is done once.

    MCL_ONFAULT locks pages as they are touched: without it every mapped page of the interpreter becomes resident.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    refused = []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        refused.append(f"PR_SET_DUMPABLE: {os.strerror(ctypes.get_errno()).lower()}")
    if not lockable():
        refused.append("memory is not locked, keys may reach swap: there is a limit to it")
    elif libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        refused.append(f"memory is not locked, keys may reach swap: {os.strerror(ctypes.get_errno()).lower()}")
    return refused


def lockable() -> bool:
    """Whether all of this process's memory may be locked, now and later."""
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if most == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
    try:
        status = Path("/proc/self/status").read_text("utf-8", "replace")
    except OSError:  # a container without /proc is no reason to stop
        status = ""
    return may_lock(most, status)


def may_lock(most: int, status: str) -> bool:
    """
    Judge by the hard limit and /proc/self/status: no limit counts, or CAP_IPC_LOCK.

    Below a limit, however high, the kernel would refuse the mapping that reaches it: a thread's stack, some day.
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return most == resource.RLIM_INFINITY or bool(int(fields.get("CapEff", "0"), 16) >> _CAP_IPC_LOCK & 1)
