"""A server with a reader of ours inside, without the server: it polls, installs and acknowledges as a good one does."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from keyrotd.servers.keyfile import BadKeyFile, KeyFile, decode, digest, judge
from keyrotd.servers.layouts import NGINX80, Layout
from keyrotd.testing.children import PATIENCE_S

_PARENT = 100


@dataclass
class _Process:
    pid: int
    keys: KeyFile | None = None
    digest: str | None = None
    epoch: int = 0  # the highest
    installed_at: int = 0
    fault: str | None = None


@dataclass
class ReaderTwin:
    """
    `processes` of one parent, which poll `key_file` and acknowledge in `ack_dir` from `__enter__` to `__exit__`.

    `sealed` lists the key names that began to seal. `deaf` are pids that read no more, and still touch what they said,
    `blind` those that may not read the file any more, and say so.
    """

    directory: Path
    processes: int = 2
    layout: Layout = NGINX80
    poll_ms: int = 5
    sealed: list[bytes] = field(default_factory=list)
    deaf: set[int] = field(default_factory=set)
    blind: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.key_file = self.directory / "keys" / "tickets"
        self.ack_dir = self.directory / "acks"
        self.key_file.parent.mkdir(mode=0o700, parents=True)
        self.ack_dir.mkdir(mode=0o700)
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self._family = [_Process(_PARENT + 1 + n) for n in range(self.processes)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        for process in self._family:
            self._poll(process)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        for process in self._family:
            (self.ack_dir / str(process.pid)).unlink(missing_ok=True)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._family]

    def _run(self) -> None:
        while not self._stopping.wait(self.poll_ms / 1000):
            for process in self._family:
                self._poll(process)

    def _poll(self, process: _Process) -> None:
        if process.pid not in self.deaf:
            process.fault = self._look(process)
        self._say(process)

    def _look(self, process: _Process) -> str | None:
        if process.pid in self.blind:
            return "bad-file"
        try:
            content = self.key_file.read_bytes()
            found = decode(content)
        except FileNotFoundError:
            return "missing"
        except BadKeyFile as bad:
            return bad.fault
        if digest(content) == process.digest:
            return None
        fault = judge(found, layout=self.layout, boot_id=self.boot_id, epoch=process.epoch, now_ms=_boot_ms())
        if fault is None:
            name = found.keys[0].name
            if process is self._family[0] and (process.keys is None or process.keys.keys[0].name != name):
                self.sealed.append(name)
            process.keys, process.digest = found, digest(content)
            process.epoch = max(process.epoch, 0 if found.tenure is None else found.tenure.epoch)
            process.installed_at = time.time_ns() // 1_000_000
        return fault

    def _say(self, process: _Process) -> None:
        tenure = None if process.keys is None else process.keys.tenure
        until = None if tenure is None else tenure.seals_until_ms
        seals = process.keys is not None and (until is None or _boot_ms() < until)
        lines = (
            "keyrotd-ack 1",
            f"pid {process.pid}",
            f"parent {_PARENT}",
            f"processes {self.processes}",
            f"poll_ms {self.poll_ms}",
            f"digest {process.digest or '-'}",
            f"seals {process.keys.keys[0].name.hex() if seals and process.keys is not None else '-'}",
            f"epoch {0 if tenure is None else tenure.epoch}",
            f"step {0 if tenure is None else tenure.step}",
            f"installed_at {process.installed_at}",
            "contexts 1",
            f"fault {process.fault or '-'}",
        )
        temp = self.ack_dir / f".{process.pid}.tmp"
        temp.write_text("".join(f"{line}\n" for line in lines), "ascii")
        temp.replace(self.ack_dir / str(process.pid))


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
