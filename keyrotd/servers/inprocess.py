"""
Servers with a reader of ours inside: one file for all of their processes, and a word back from each.

The file is the way in, so it is all that is ever written, and a server that is down starts from it. What counts is
what every living process acknowledges: the digest of that very file, and that its first key seals.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from keyrotd.core.errors import ConfigError, InstallFailed
from keyrotd.core.keys import Installed, Keys, Place
from keyrotd.servers import acks, files, keyfile
from keyrotd.servers.acks import Ack
from keyrotd.servers.files import Access
from keyrotd.servers.keyfile import BadKeyFile, KeyFile
from keyrotd.servers.layouts import NGINX80, Layout
from keyrotd.servers.port import Facts, ServerUnreachable

#: While it waits for the processes, the driver looks this often.
LOOK_EVERY_MS = 20


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessDriver:
    """
    One server whose processes read `key_file` and acknowledge in `ack_dir`; see docs/key-file.md.

    `timeout_ms`: for all of them to take what was written up; more than the reader's poll interval.
    """

    name: str
    key_file: Path
    ack_dir: Path
    timeout_ms: int = 3_000
    mode: int = 0o640
    owner: str | None = None
    group: str | None = None
    clock: Callable[[], int] = field(default=wall_clock_ms, repr=False, compare=False)

    kind: ClassVar[str]
    layout: ClassVar[Layout]

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise ConfigError(faults)

    @property
    def facts(self) -> Facts:
        return Facts(
            ring_buffer=False,
            reloads=False,
            notice_delay_ms=self.timeout_ms,
            scheme=self.layout.scheme,
            min_slots=None,
        )

    def observe(self) -> Installed:
        living = self._living()
        content = self._content()
        written = self._in_file(content)
        lacking = acks.absent(living)
        places = [self._place(str(self.key_file), written, seals=True)]
        for ack in living:
            # One that has the right keys and finds fault with the file would miss the next ones.
            sound = written is not None and content is not None and ack.fault is None
            took = sound and content is not None and ack.digest == keyfile.digest(content)
            seals = took and written is not None and ack.seals == written.keys[0].name.hex()
            places.append(self._place(f"process {ack.pid}", written if took else None, seals=seals))
        if lacking:
            places.append(self._place(f"{lacking} more of its processes", None, seals=False))
        return Installed(tuple(places), instance=",".join(f"{ack.parent}/{ack.pid}" for ack in living))

    def install(self, keys: Keys) -> None:
        fitting = keys.fit(keyfile.MAX_RECORDS)
        secrets = tuple(stek.secrets(self.layout.scheme) for stek in fitting.opening)
        content = KeyFile(layout=self.layout, keys=secrets, tenure=keys.tenure).encode()
        with self._told_apart(), files.locked(self.key_file, self.timeout_ms):
            if not files.is_as(self.key_file, content, self._access):
                files.write(self.key_file, content, self._access)
                self.hurry()
        self._await(keyfile.digest(content), secrets[0].name.hex())

    def hurry(self) -> None:
        """Tell the server that there is something new, where it can be told; it would find out by itself."""

    def _await(self, digest: str, seals: str) -> None:
        deadline = time.monotonic() + self.timeout_ms / 1000
        while True:
            living = self._living()
            behind = [ack for ack in living if (ack.digest, ack.seals, ack.fault) != (digest, seals, None)]
            lacking = acks.absent(living)
            if not behind and not lacking:
                return
            if time.monotonic() > deadline:
                raise self._behind(living, behind, lacking)
            time.sleep(LOOK_EVERY_MS / 1000)

    def _behind(self, living: Sequence[Ack], behind: Sequence[Ack], lacking: int) -> InstallFailed:
        say = "" if not lacking else f", {lacking} more are missing"
        faults = sorted({ack.fault for ack in behind if ack.fault is not None})
        known = (hint for fault, hint in _HINTS.items() if fault in faults)
        why = f": {', '.join(faults)}" if faults else ""
        return InstallFailed(
            f"server {self.name}: wrote {self.key_file}, after {self.timeout_ms} ms {len(behind)} of {len(living)}"
            f" processes have not taken it{say}{why}",
            hint=next(known, _TOLD) if faults else "does it read this very file, and more often than `timeout`?",
        )

    def _living(self) -> tuple[Ack, ...]:
        try:
            living = acks.living(self.ack_dir, self.clock())
        except OSError as error:
            find, _ = files.words(error)
            raise ServerUnreachable(
                f"server {self.name}: wants to see what {self.ack_dir} acknowledges, {find}", hint=_START
            ) from None
        if not living:
            raise ServerUnreachable(
                f"server {self.name}: wants to see who acknowledges in {self.ack_dir}, nobody does", hint=_START
            )
        return living

    def _content(self) -> bytes | None:
        with self._told_apart():
            content = files.read(self.key_file)
            # Whom it lets in is a part of it.
            return content if content is not None and files.grants(self.key_file, self._access) else None

    def _in_file(self, content: bytes | None) -> KeyFile | None:
        try:
            found = None if content is None else keyfile.decode(content)
        except BadKeyFile:
            return None
        return found if found is not None and found.layout == self.layout else None

    def _place(self, where: str, held: KeyFile | None, *, seals: bool) -> Place:
        prints = () if held is None else tuple(secrets.fingerprint for secrets in held.keys)
        return Place(
            where,
            self.layout.scheme,
            prints[0] if prints and seals else None,
            frozenset(prints),
            keyfile.MAX_RECORDS,
            None if held is None else held.tenure,
        )

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            find, hint = files.words(error)
            raise InstallFailed(f"server {self.name}: wants {self.key_file} in place, {find}", hint=hint) from None

    @property
    def _access(self) -> Access:
        return Access(mode=self.mode, owner=self.owner, group=self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxDriver(InProcessDriver):
    """One nginx or OpenResty with deploy/nginx in it, the C module or the Lua."""

    kind: ClassVar[str] = "nginx"
    layout: ClassVar[Layout] = NGINX80


_TOLD = "the server's own log says more; docs/key-file.md says what the words mean"

_HINTS = {
    "other-boot": "is it in a container with a boot id of its own, as LXC's are? then the agent must be in there, too",
    "older": "has it come from another ring, or did this one begin anew? reload nginx, or restart another server, once",
}

_START = "does the server run, with keyrotd's reader in it, and does that acknowledge in this directory?"


def _faults(driver: InProcessDriver) -> Iterator[tuple[str, str | None]]:
    at = f"server {driver.name}"
    for key, path in ("key_file", driver.key_file), ("ack_dir", driver.ack_dir):
        if not path.is_absolute():
            yield f"{at}: {key} {path} is not an absolute path", None
    if driver.ack_dir == driver.key_file.parent:
        yield (
            f"{at}: ack_dir {driver.ack_dir} is where key_file lies",
            "the server must be able to write in the one and must not in the other",
        )
    if driver.mode & 0o027 or not driver.mode & 0o400:
        yield (
            f"{at}: mode {driver.mode:04o} lets too many in, or not even keyrotd",
            'try "0640", with `group` the one that the server runs as',
        )
