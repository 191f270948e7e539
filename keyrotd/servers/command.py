"""
Any server that reads its keys from files: write them, run a command. The command is a reload, and is named as such.

Writing proves nothing: what counts is what a command was done with. That stands in a record beside the key file,
as fingerprints, and is struck out before anything is written: after a crash anywhere nothing counts as installed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from keyrotd.core.errors import ConfigError, InstallFailed
from keyrotd.core.keys import Installed, Keys, Place
from keyrotd.servers import files
from keyrotd.servers.files import Access
from keyrotd.servers.layouts import KEY_FILES, KeyFiles, Shape
from keyrotd.servers.port import Facts
from keyrotd.servers.ring import MAX_SLOTS, USUAL_SLOTS


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandDriver:
    """
    One server that takes keys by `command` after `key_file` was written; `{n}` in it counts where each key has a file.

    The command runs without a shell, at most once in `min_interval_ms` (also when it failed), with an empty
    environment but PATH, and what it prints is thrown away: it may hold anything. Only its exit code counts.
    """

    name: str
    key_file: Path
    layout: str
    command: tuple[str, ...]
    slots: int | None = None
    min_interval_ms: int = 60_000
    timeout_ms: int = 30_000
    mode: int = 0o600
    owner: str | None = None
    group: str | None = None
    clock: Callable[[], int] = field(default=wall_clock_ms, repr=False, compare=False)

    kind: ClassVar[str] = "command"

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise ConfigError(faults)

    @property
    def facts(self) -> Facts:
        return Facts(
            ring_buffer=False,
            reloads=True,
            notice_delay_ms=self.min_interval_ms + self.timeout_ms,
            scheme=self._form.layout.scheme,
            min_slots=self._slots,
        )

    def observe(self) -> Installed:
        """What the files hold, and what the last command was done with: both must be the window."""
        record = self._read_record()
        places = (
            self._place(" ".join(map(str, self._paths)), self._in_files()),
            self._place(f"what {self.command[0]} was done with", record.taken),
        )
        return Installed(places, instance=str(record.ran_at))

    def install(self, keys: Keys) -> None:
        contents = self._form.encode(keys, self._slots)
        wanted = _prints(self._form, contents)
        with self._told_apart(), files.locked(self.key_file, self.timeout_ms):
            record = self._read_record()
            written = all(
                files.is_as(path, content, self._access) for path, content in zip(self._paths, contents, strict=True)
            )
            if written and record.taken == wanted:
                return
            if not written:
                self._write_record(_Record(record.ran_at, ()))
                for path, content in zip(self._paths, contents, strict=True):
                    files.write(path, content, self._access)
            self._wait_for_turn(record.ran_at)
            ran_at = self.clock()
            self._write_record(_Record(ran_at, ()))
            self._run()
            self._write_record(_Record(ran_at, wanted))

    def _wait_for_turn(self, ran_at: int) -> None:
        elapsed_ms = self.clock() - ran_at
        # Negative: the clock was set back, which must not hold the command up.
        if 0 <= elapsed_ms < self.min_interval_ms:
            raise InstallFailed(
                f"server {self.name}: wrote the keys, {self.command[0]} runs in {self.min_interval_ms - elapsed_ms} ms",
                hint="min_interval says how often it may run",
            )

    def _run(self) -> None:
        try:
            child = subprocess.Popen(  # noqa: S603 - the operator's own words, no shell
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            find, _ = files.words(error)
            raise InstallFailed(f"server {self.name}: wants to run {self.command[0]}, {find}") from None
        try:
            code = child.wait(self.timeout_ms / 1000)
        except subprocess.TimeoutExpired:
            raise InstallFailed(
                f"server {self.name}: {self.command[0]} did not end within {self.timeout_ms} ms and was killed"
            ) from None
        finally:
            # The whole session: a command that timed out may have children.
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if code != 0:
            raise InstallFailed(
                f"server {self.name}: {self.command[0]} ended with code {code}",
                hint="run it by hand as keyrotd's user; what it prints is not kept, since it may hold keys",
            )

    def _in_files(self) -> tuple[bytes, ...]:
        with self._told_apart():
            contents = [files.read(path) for path in self._paths]
            present = [content for content in contents if content is not None]
            if len(present) < len(contents) or not all(files.grants(path, self._access) for path in self._paths):
                return ()
        try:
            return _prints(self._form, tuple(present))
        except ValueError:
            return ()

    def _place(self, where: str, prints: tuple[bytes, ...]) -> Place:
        seals = prints[0] if prints else None
        return Place(where, self._form.layout.scheme, seals, frozenset(prints), self._slots)

    def _read_record(self) -> "_Record":
        with self._told_apart():
            return _Record.decode(files.read(self._record_path) or b"")

    def _write_record(self, record: "_Record") -> None:
        files.write(self._record_path, record.encode())

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            find, hint = files.words(error)
            raise InstallFailed(f"server {self.name}: wants {self.key_file} in place, {find}", hint=hint) from None

    @property
    def _form(self) -> KeyFiles:
        return KEY_FILES[self.layout]

    @property
    def _slots(self) -> int | None:
        return self._form.slots if self.slots is None else self.slots

    @property
    def _paths(self) -> tuple[Path, ...]:
        if self._form.shape is not Shape.SPLIT:
            return (self.key_file,)
        return tuple(Path(str(self.key_file).replace("{n}", str(n))) for n in range(self._slots or 0))

    @property
    def _record_path(self) -> Path:
        return self.key_file.with_name(f".{self.key_file.name}.installed")

    @property
    def _access(self) -> Access:
        return Access(mode=self.mode, owner=self.owner, group=self.group)


@dataclass(frozen=True, slots=True)
class _Record:
    """When the command last began, and the fingerprints, the sealing one first, that it was done with."""

    ran_at: int
    taken: tuple[bytes, ...]

    def encode(self) -> bytes:
        return "".join(f"{word}\n" for word in (self.ran_at, *(print_.hex() for print_ in self.taken))).encode()

    @classmethod
    def decode(cls, content: bytes) -> "_Record":
        """Whatever is not what `encode` writes counts as: never ran."""
        try:
            ran_at, *taken = content.decode("ascii").splitlines()
            record = cls(int(ran_at), tuple(bytes.fromhex(word) for word in taken))
        except ValueError:
            return cls(0, ())
        return record if record.encode() == content else cls(0, ())


def _prints(form: KeyFiles, contents: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(secrets.fingerprint for secrets in form.decode(contents))


def _faults(driver: CommandDriver) -> Iterator[tuple[str, str | None]]:
    at = f"server {driver.name}"
    if driver.layout not in KEY_FILES:
        yield f"{at}: layout {driver.layout} is not known", f"known: {', '.join(sorted(KEY_FILES))}"
    else:
        shape = KEY_FILES[driver.layout].shape
        split, least = shape is Shape.SPLIT, USUAL_SLOTS if shape is Shape.LINES else 2
        if split != ("{n}" in driver.key_file.name):
            yield f"{at}: key_file {driver.key_file} {'lacks' if split else 'has'} a {{n}}", "one file per key counts"
        least = USUAL_SLOTS if KEY_FILES[driver.layout].shape is Shape.LINES else 2
        if driver.slots is not None and not least <= driver.slots <= MAX_SLOTS:
            yield f"{at}: slots {driver.slots} is not within {least} and {MAX_SLOTS}", None
    if not driver.key_file.is_absolute():
        yield f"{at}: key_file {driver.key_file} is not an absolute path", None
    if not driver.command or not Path(driver.command[0]).is_absolute():
        yield f"{at}: command must begin with the absolute path of a program", 'like ["/usr/bin/systemctl", ...]'
    if driver.mode & 0o007 or not driver.mode & 0o400:
        yield f"{at}: mode {driver.mode:04o} lets everybody in, or not even keyrotd", 'try "0600" or "0640"'
