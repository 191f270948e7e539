"""
HAProxy: `set ssl tls-key` on the runtime socket, proven by `show tls-keys`. No reload, no connection touched.

The file goes first, since a reload or restart starts from it and forgets what was pushed. Then of each ring only the
tail that it lacks is pushed: one key for a rotation, so that nothing but the new `current` ever begins to seal.
HAProxy has no compare-and-swap; a lock beside the file keeps two agents on one machine apart, the read-back tells of
anybody else.

Keys are 80 bytes. A HAProxy that was started with a file of 48-byte keys cannot take them until it starts anew: it
keeps what it has, the file is rewritten, and the error says to restart it once. Any reload does it too.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keyrotd.core.errors import ConfigError, InstallFailed
from keyrotd.core.keys import Installed, Keys, Place
from keyrotd.core.stek import Secrets
from keyrotd.servers import files
from keyrotd.servers.files import Access
from keyrotd.servers.haproxy_socket import Ring, RuntimeSocket
from keyrotd.servers.layouts import HAPROXY48, HAPROXY80, decode_lines, encode_lines
from keyrotd.servers.port import Facts, ServerUnreachable
from keyrotd.servers.ring import MAX_SLOTS, USUAL_SLOTS, ring, tail

#: Pushes that somebody else undid are tried again this often.
RETRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HAProxyDriver:
    """
    One HAProxy (or several alike: every socket must know every key file).

    `slots` is for its first start only, afterwards the running ring tells. `mode`, `owner`, `group`: of the files.
    """

    name: str
    socket: tuple[Path, ...]
    key_file: tuple[Path, ...]
    slots: int = USUAL_SLOTS
    timeout_ms: int = 2_000
    mode: int = 0o600
    owner: str | None = None
    group: str | None = None

    kind: ClassVar[str] = "haproxy"

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise ConfigError(faults)

    @property
    def facts(self) -> Facts:
        return Facts(
            ring_buffer=True,
            reloads=False,
            notice_delay_ms=0,
            scheme=HAPROXY80.scheme,
            min_slots=self.slots,
        )

    def observe(self) -> Installed:
        places, instances = [], []
        sizes = dict.fromkeys(self.key_file, USUAL_SLOTS)
        for runtime in self._sockets:
            instances.append(runtime.instance())
            for key_file in self.key_file:
                shown = runtime.show(key_file)
                sizes[key_file] = max(sizes[key_file], len(shown.keys))
                places.append(_place(f"{runtime.path} {key_file}", shown, len(shown.keys)))
        places += [_place(str(key_file), self._in_file(key_file), size) for key_file, size in sizes.items()]
        return Installed(tuple(places), ",".join(instances))

    def listed(self) -> tuple[str, ...]:
        """Every key file that the running HAProxy has a ring for, managed or not."""
        return tuple(dict.fromkeys(file for runtime in self._sockets for file in runtime.listed()))

    def install(self, keys: Keys) -> None:
        with self._alone():
            shown, troubles = self._look()
            for key_file in self.key_file:
                seen = [len(found.keys) for (_, at), found in shown.items() if at == key_file]
                self._write(key_file, keys, max(seen, default=self._cold_size(key_file)))
            for (runtime, key_file), found in shown.items():
                try:
                    self._bring(runtime, key_file, found, keys)
                except InstallFailed as trouble:
                    troubles.append(trouble)
        if troubles:
            raise _together(troubles)

    def _look(self) -> tuple[dict[tuple[RuntimeSocket, Path], Ring], list[InstallFailed]]:
        shown: dict[tuple[RuntimeSocket, Path], Ring] = {}
        troubles: list[InstallFailed] = []
        for runtime in self._sockets:
            try:
                for key_file in self.key_file:
                    shown[runtime, key_file] = runtime.show(key_file)
            except InstallFailed as trouble:
                # The other sockets get their keys all the same.
                troubles.append(trouble)
        return shown, troubles

    def _bring(self, runtime: RuntimeSocket, key_file: Path, held: Ring, keys: Keys) -> None:
        if held.layout != HAPROXY80:
            raise InstallFailed(
                f"server {self.name}: wants 80-byte keys, {runtime.path} holds {held.layout.size}-byte keys",
                hint="restart HAProxy once: the file holds 80-byte keys already, and the size is fixed at start",
            )
        wanted = _secrets(keys, len(held.keys))
        for _ in range(1 + RETRIES):
            missing = tail(held.keys, wanted)
            if not missing:
                return
            held = runtime.push(key_file, missing, HAPROXY80)
            if held.keys == wanted:
                return
            if len(held.keys) != len(wanted):
                break  # another HAProxy took over meanwhile: the next tick sees to it
        raise InstallFailed(
            f"server {self.name}: {runtime.path} was given the keys of {key_file} and shows others",
            hint="somebody else pushes keys: an older script, or a keyrotd that does not share the file's directory",
        )

    def _write(self, key_file: Path, keys: Keys, size: int) -> None:
        content = encode_lines(HAPROXY80, _secrets(keys, size))
        try:
            if not files.is_as(key_file, content, self._access):
                files.write(key_file, content, self._access)
        except OSError as error:
            raise self._file_trouble(key_file, "write", error) from None

    def _in_file(self, key_file: Path) -> Ring | None:
        """None when there is nothing that HAProxy could start from, or when it lets the wrong people in."""
        try:
            content = files.read(key_file)
            if content is None or not files.grants(key_file, self._access):
                return None
        except OSError as error:
            raise self._file_trouble(key_file, "read", error) from None
        return _parsed(content)

    def _cold_size(self, key_file: Path) -> int:
        # Never fewer than the file has: a HAProxy built for more slots would refuse to start.
        try:
            found = _parsed(files.read(key_file) or b"")
        except OSError:
            found = None
        lines = 0 if found is None else len(found.keys)
        return max(self.slots, lines if lines <= MAX_SLOTS else 0)

    def _file_trouble(self, key_file: Path, act: str, error: OSError) -> InstallFailed:
        find, hint = files.words(error)
        return InstallFailed(f"server {self.name}: wants to {act} {key_file}, {find}", hint=hint)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as stack:
            for key_file in sorted(self.key_file):  # one order for all, or two agents could wait for each other
                try:
                    stack.enter_context(files.locked(key_file, self.timeout_ms))
                except OSError as error:
                    raise self._file_trouble(key_file, "lock", error) from None
            yield

    @property
    def _access(self) -> Access:
        return Access(mode=self.mode, owner=self.owner, group=self.group)

    @property
    def _sockets(self) -> tuple[RuntimeSocket, ...]:
        return tuple(RuntimeSocket(server=self.name, path=path, timeout_ms=self.timeout_ms) for path in self.socket)


def _secrets(keys: Keys, slots: int) -> tuple[Secrets, ...]:
    return tuple(stek.secrets(HAPROXY80.scheme) for stek in ring(keys, slots))


def _place(where: str, found: Ring | None, slots: int) -> Place:
    if found is None:
        return Place(where, HAPROXY80.scheme, None, frozenset(), slots)
    prints = [secrets.fingerprint for secrets in found.keys]
    return Place(where, found.layout.scheme, prints[-2], frozenset(prints), slots)


def _parsed(content: bytes) -> Ring | None:
    for layout in (HAPROXY80, HAPROXY48):
        try:
            keys = decode_lines(layout, content)
        except ValueError:
            continue
        return Ring(layout, keys) if len(keys) >= USUAL_SLOTS else None
    return None


def _together(troubles: Sequence[InstallFailed]) -> InstallFailed:
    if len(troubles) == 1:
        return troubles[0]
    unreachable = all(isinstance(trouble, ServerUnreachable) for trouble in troubles)
    kind = ServerUnreachable if unreachable else InstallFailed
    return kind("; ".join(str(trouble) for trouble in troubles), hint=troubles[0].hint)


_MAX_SOCKET_PATH = 107  # unix(7): sun_path has 108 bytes, the last one is NUL


def _faults(driver: HAProxyDriver) -> Iterator[tuple[str, str | None]]:
    at = f"server {driver.name}"
    for field, paths in (("socket", driver.socket), ("key_file", driver.key_file)):
        if not paths:
            yield f"{at}: {field} is empty", None
        if len(set(paths)) != len(paths):
            yield f"{at}: {field} names a path twice", None
        for path in paths:
            if not path.is_absolute():
                yield f"{at}: {field} {path} is not an absolute path", "HAProxy and keyrotd must mean the same file"
    for path in driver.socket:
        if len(str(path).encode()) > _MAX_SOCKET_PATH:
            yield f"{at}: socket {path} is longer than {_MAX_SOCKET_PATH} bytes", "no Unix socket can be opened there"
    for path in driver.key_file:
        # The path goes into a command line, where these characters part or quote words.
        if not str(path).isascii() or not str(path).isprintable() or set(str(path)) & set(" ;\\#<\"'"):
            yield f"{at}: key_file {path} has a character that HAProxy's command line cannot take", None
    if driver.mode & 0o007 or not driver.mode & 0o400:
        yield f"{at}: mode {driver.mode:04o} lets everybody in, or not even keyrotd", 'try "0600" or "0640"'
    if not USUAL_SLOTS <= driver.slots <= MAX_SLOTS:
        yield f"{at}: slots {driver.slots} is not within {USUAL_SLOTS} and {MAX_SLOTS}", None
