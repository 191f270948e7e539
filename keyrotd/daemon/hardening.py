"""What a process that holds keys asks of the kernel: no core dumps, no ptrace by its equals, no swap where allowed."""

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def harden() -> list[str]:
    """
    Do what can be done and return what could not, in words.

    MCL_ONFAULT locks pages as they are touched: without it every mapped page of the interpreter becomes resident.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    refused = []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        refused.append(f"PR_SET_DUMPABLE: {os.strerror(ctypes.get_errno()).lower()}")
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        refused.append(f"memory is not locked, keys may reach swap: {os.strerror(ctypes.get_errno()).lower()}")
    return refused
