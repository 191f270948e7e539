"""
Envoy: its SDS file is replaced by a rename, which it notices by itself. No reload, no listener touched.

Envoy shows no key to anybody, so read back are the version that it goes by, a digest of our keys' public names, and
how many keys it has: a document without any bears a version, too. Without an admin endpoint the file is all there is
to see, and the probe is the proof.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keyrotd.core.errors import ConfigError, InstallFailed
from keyrotd.core.keys import Installed, Keys, Place
from keyrotd.servers import envoy_admin, files
from keyrotd.servers.envoy_admin import Admin, Setup, Sight
from keyrotd.servers.envoy_secret import Document, decode
from keyrotd.servers.files import Access
from keyrotd.servers.layouts import NGINX80
from keyrotd.servers.port import Facts

#: Envoy takes a new file up within milliseconds.
_LOOK_EVERY_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyDriver:
    """
    One Envoy, or several that watch one file.

    `secret` is the name in `session_ticket_keys_sds_secret_config`, `admin` one Envoy's endpoint: http://HOST:PORT on
    loopback, or the absolute path of its socket. `timeout_ms` is for each look at it, and for Envoy to take keys up.
    """

    name: str
    key_file: Path
    secret: str = "stek"  # noqa: S105 - the name of one
    admin: str | None = None
    timeout_ms: int = 2_000
    mode: int = 0o600
    owner: str | None = None
    group: str | None = None

    kind: ClassVar[str] = "envoy"

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise ConfigError(faults)

    @property
    def facts(self) -> Facts:
        return Facts(
            ring_buffer=False,
            reloads=False,
            # With an admin endpoint nothing counts as installed before it is noticed.
            notice_delay_ms=self.timeout_ms if self.admin is None else 0,
            scheme=NGINX80.scheme,
            min_slots=None,
        )

    def observe(self) -> Installed:
        """With an admin endpoint, what Envoy itself goes by, too; without one nobody can tell that it is down."""
        admin = self._admin
        sight = None if admin is None else admin.look(self.secret)
        document = self._in_file()
        places = [_place(str(self.key_file), document)]
        if sight is None:
            return Installed(tuple(places), instance="")
        taken = document is not None and sight.holds(document.version, len(document.keys))
        places.append(_place(f"{self.admin} {self.secret}", document if taken else None))
        return Installed(tuple(places), sight.instance)

    def setup(self) -> Setup | None:
        """What no read-back shows of Envoy, for people; None without an admin endpoint."""
        return None if self._admin is None else self._admin.setup(self.secret)

    def install(self, keys: Keys) -> None:
        content = self._vetted(keys)
        with self._told_apart("lock"), files.locked(self.key_file, self.timeout_ms):
            admin = self._admin
            if admin is None:
                self._write(content)
                return
            try:
                before = admin.look(self.secret)
            except InstallFailed:
                self._write(content)  # what a start needs
                raise
            document = decode(content, self.secret)
            if not (self._is_written(content) and before.holds(document.version, len(document.keys))):
                self._replace(content)
                self._await(admin, document, before)

    def _vetted(self, keys: Keys) -> bytes:
        """The content of the file, which reads back as what it is made of: Envoy takes worse, and dies of it."""
        try:
            document = Document(self.secret, tuple(stek.secrets(NGINX80.scheme) for stek in keys.opening))
            content = document.encode()
            if decode(content, self.secret) == document:
                return content
            find = "they read back as others"
        except ValueError as fault:
            find = str(fault)
        raise InstallFailed(f"server {self.name}: wants keys that Envoy can do with, found {find}; wrote nothing")

    def _await(self, admin: Admin, document: Document, before: Sight) -> None:
        deadline = time.monotonic() + self.timeout_ms / 1000
        while True:
            now = admin.look(self.secret)
            if now.instance == before.instance:
                self._heed(now, before)
            # The counter, too: somebody may have edited the file and left the version in it.
            looked = now.instance != before.instance or now.taken is None or now.taken != before.taken
            if looked and now.holds(document.version, len(document.keys)):
                return
            if time.monotonic() > deadline:
                raise self._ignored(starved=_grew(now.starved, before.starved))
            time.sleep(_LOOK_EVERY_S)

    def _heed(self, now: Sight, before: Sight) -> None:
        if _grew(now.unread, before.unread):
            raise InstallFailed(
                f"server {self.name}: Envoy cannot read {self.key_file}, and keeps the keys that it had",
                hint='mode = "0640" and group = Envoy\'s let it; it must be allowed into the directory, too',
            )
        if _grew(now.refused, before.refused):
            raise InstallFailed(
                f"server {self.name}: Envoy refused {self.key_file}, and keeps the keys that it had",
                hint="its log says why; keep that to yourself, for it may show keys",
            )

    def _ignored(self, *, starved: bool) -> InstallFailed:
        resets = ", and resets TLS connections for want of a secret" if starved else ""
        return InstallFailed(
            f"server {self.name}: wrote {self.key_file}, Envoy did not take it up within {self.timeout_ms} ms{resets}",
            hint=f"its session_ticket_keys_sds_secret_config must say name {self.secret} and this very path",
        )

    def _write(self, content: bytes) -> None:
        if not self._is_written(content):
            self._replace(content)

    def _is_written(self, content: bytes) -> bool:
        with self._told_apart("read"):
            return files.is_as(self.key_file, content, self._access)

    def _replace(self, content: bytes) -> None:
        # Also where the same stands there: Envoy looks only when something is renamed.
        with self._told_apart("write"):
            files.write(self.key_file, content, self._access)

    def _in_file(self) -> Document | None:
        """None when it is not what Envoy could rightly start from, or when it lets the wrong people in."""
        with self._told_apart("read"):
            content = files.read(self.key_file)
            if content is None or not files.grants(self.key_file, self._access):
                return None
        try:
            return decode(content, self.secret)
        except ValueError:
            return None

    @contextmanager
    def _told_apart(self, act: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            find, hint = files.words(error)
            raise InstallFailed(f"server {self.name}: wants to {act} {self.key_file}, {find}", hint=hint) from None

    @property
    def _access(self) -> Access:
        return Access(mode=self.mode, owner=self.owner, group=self.group)

    @property
    def _admin(self) -> Admin | None:
        if self.admin is None:
            return None
        return Admin(server=self.name, address=self.admin, timeout_ms=self.timeout_ms)


def _place(where: str, document: Document | None) -> Place:
    if document is None:
        return Place(where, NGINX80.scheme, None, frozenset(), None)
    prints = [key.fingerprint for key in document.keys]
    return Place(where, NGINX80.scheme, prints[0], frozenset(prints), None)


def _grew(now: int | None, before: int | None) -> bool:
    return (now or 0) > (before or 0)


_SECRET_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


def _faults(driver: EnvoyDriver) -> Iterator[tuple[str, str | None]]:
    at = f"server {driver.name}"
    if not driver.key_file.is_absolute():
        yield f"{at}: key_file {driver.key_file} is not an absolute path", "Envoy and keyrotd must mean the same file"
    if driver.key_file.suffix != ".json":
        yield f"{at}: key_file {driver.key_file} does not end in .json", "Envoy tells formats apart by that"
    if not _SECRET_NAME.fullmatch(driver.secret):
        yield f"{at}: secret {driver.secret!r} is no name for one", "letters, digits, dots, dashes and underscores"
    if driver.admin is not None and (fault := envoy_admin.unfit(driver.admin)):
        yield f"{at}: admin {driver.admin} {fault}", 'like "http://127.0.0.1:9901" or "/run/envoy/admin.sock"'
    if driver.mode & 0o007 or not driver.mode & 0o400:
        yield f"{at}: mode {driver.mode:04o} lets everybody in, or not even keyrotd", 'try "0600" or "0640"'
