"""
Acknowledgements: what each process of a server says it has installed (docs/key-file.md). Read strictly.

Whoever runs the server writes them, so they are bounded, and believed only about that server. Every living process
counts, also of a master about to hand over: both serve meanwhile. One that serves nobody new takes its own away.
"""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from keyrotd.servers.keyfile import FAULTS

#: No more are looked at: no server has as many processes, and whoever fills the directory shall not stop us.
MAX_ACKS = 4096

#: A process that has not touched its acknowledgement for so many of its polls, and this slack, is gone.
GONE_AFTER_POLLS = 5
GONE_SLACK_MS = 2_000

#: No reader of ours looks less often. Whoever says so would seem to live, and be waited for, long after its end.
MAX_POLL_MS = 60_000

#: What was left by a process that was killed is swept up after this time.
SWEPT_AFTER_MS = 10 * 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """
    One process of a server; `parent` started it, and `processes` of its children should acknowledge.

    `digest` is None while no file of ours is installed, `seals` while none of its keys seals. `contexts`: in how many
    SSL contexts the keys are, 0 where that says nothing. `touched_at`: its last poll, by the file system's clock.
    """

    pid: int
    parent: int
    processes: int
    poll_ms: int
    digest: str | None
    seals: str | None
    epoch: int
    step: int
    installed_at: int
    contexts: int
    fault: str | None
    touched_at: int

    def lives(self, now_at: int) -> bool:
        # A touch in the future says that a clock was set back: a living process will touch it anew.
        return abs(now_at - self.touched_at) <= GONE_AFTER_POLLS * self.poll_ms + GONE_SLACK_MS


def parse(text: bytes, *, touched_at: int) -> Ack:
    """Accepts what docs/key-file.md says, byte for byte. Raises ValueError."""
    found = _ACK.fullmatch(text)
    if found is None:
        raise ValueError("not an acknowledgement")
    word = {name: value.decode("ascii") for name, value in found.groupdict().items()}
    if int(word["poll_ms"]) > MAX_POLL_MS:
        raise ValueError("not an acknowledgement of a reader that polls often enough")
    return Ack(
        pid=int(word["pid"]),
        parent=int(word["parent"]),
        processes=int(word["processes"]),
        poll_ms=int(word["poll_ms"]),
        digest=_unless_dash(word["digest"]),
        seals=_unless_dash(word["seals"]),
        epoch=int(word["epoch"]),
        step=int(word["step"]),
        installed_at=int(word["installed_at"]),
        contexts=int(word["contexts"]),
        fault=_unless_dash(word["fault"]),
        touched_at=touched_at,
    )


def living(directory: Path, now_at: int) -> tuple[Ack, ...]:
    """Every living process, by pid. Sweeps up what others left behind long ago. Raises OSError for the directory."""
    found = _read(directory)
    for ack in found:
        if abs(now_at - ack.touched_at) > SWEPT_AFTER_MS + GONE_AFTER_POLLS * ack.poll_ms:
            with suppress(OSError):
                (directory / str(ack.pid)).unlink()
    return tuple(sorted((ack for ack in found if ack.lives(now_at)), key=lambda ack: ack.pid))


def absent(acks: Iterable[Ack]) -> int:
    """How many processes should be among `acks` and are not."""
    children = defaultdict(list)
    for ack in acks:
        children[ack.parent].append(ack)
    # After a reload the youngest knows how many there are to be.
    wanted = (max(family, key=lambda ack: ack.installed_at).processes for family in children.values())
    return sum(max(0, want - len(family)) for want, family in zip(wanted, children.values(), strict=True))


def _read(directory: Path) -> list[Ack]:
    acks = []
    with os.scandir(directory) as entries:
        for entry in islice(entries, MAX_ACKS):
            if _PID.fullmatch(entry.name):
                # Gone meanwhile, or not what it seems: then it speaks for nobody.
                with suppress(OSError, ValueError):
                    acks.append(_read_one(Path(entry.path)))
    return acks


def _read_one(path: Path) -> Ack:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("not a plain file")
        ack = parse(file.read(_MAX_BYTES + 1), touched_at=found.st_mtime_ns // 1_000_000)
    if str(ack.pid) != path.name:
        raise ValueError("another process speaks")
    return ack


def _unless_dash(word: str) -> str | None:
    return None if word == "-" else word


_MAX_BYTES = 512
_NUMBER = "0|[1-9][0-9]{0,19}"
_PID = re.compile("[1-9][0-9]{0,19}")
_ACK = re.compile(
    "".join(
        (
            "keyrotd-ack 1\n",
            *(f"{name} (?P<{name}>{_NUMBER})\n" for name in ("pid", "parent", "processes", "poll_ms")),
            "digest (?P<digest>[0-9a-f]{64}|-)\n",
            "seals (?P<seals>[0-9a-f]{32}|-)\n",
            *(f"{name} (?P<{name}>{_NUMBER})\n" for name in ("epoch", "step", "installed_at", "contexts")),
            f"fault (?P<fault>{'|'.join(FAULTS)}|-)\n",
        )
    ).encode()
)
