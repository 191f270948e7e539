"""
A conversation with HAProxy's runtime socket, one line a time.

An answer may hold keys, so none ever gets into a message: known texts are told in words of ours, of all others only
the length is.
"""

import base64
import errno
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from keyrotd.core.errors import InstallFailed
from keyrotd.core.stek import Secrets
from keyrotd.servers.layouts import HAPROXY48, HAPROXY80, Layout, decode_base64
from keyrotd.servers.port import ServerUnreachable
from keyrotd.servers.ring import MAX_SLOTS, USUAL_SLOTS

#: A ring of 64 (nobody builds more) in base64 is 8 KiB; `show info` is 4.
MAX_ANSWER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Ring:
    """What `show tls-keys` told of one key file: its keys, oldest first; the last but one seals."""

    layout: Layout
    keys: tuple[Secrets, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSocket:
    """`server` is who to name in errors. Each call is one connection, and takes at most `timeout_ms`."""

    server: str
    path: Path
    timeout_ms: int

    def instance(self) -> str:
        """The worker that answers: another one after each reload or restart, even if the pid is the same again."""
        answer = self._ask("show info")
        found = [re.search(rf"^{field}: (\d+)$", answer, re.MULTILINE) for field in ("Pid", "Start_time_sec")]
        numbers = [match[1] for match in found if match is not None]
        if not numbers:
            raise self._trouble(answer)
        return "/".join(numbers)

    def listed(self) -> tuple[str, ...]:
        """The key files of every ring that HAProxy has: without an argument the command shows names and no key."""
        lines = [line for line in self._ask("show tls-keys").splitlines() if line and not line.startswith("#")]
        found = [_FILE_LINE.fullmatch(line) for line in lines]
        if None in found:
            raise self._trouble("\n".join(lines))
        return tuple(match[1] for match in found if match is not None)

    def show(self, key_file: Path) -> Ring:
        """Read the keys in memory back."""
        pushed, ring = self._told(self._ask(_show(key_file)))
        if pushed or ring is None:
            raise self.unknown(0)
        return ring

    def push(self, key_file: Path, keys: Sequence[Secrets], layout: Layout) -> Ring:
        """
        Push `keys` in order and read back, in one line: thereby a push of three is as good as atomic.

        Raises InstallFailed unless HAProxy says that it took every single one.
        """
        blobs = (base64.b64encode(layout.encode(secrets)).decode() for secrets in keys)
        commands = [f"set ssl tls-key {key_file} {blob}" for blob in blobs]
        pushed, ring = self._told(self._ask(";".join([*commands, _show(key_file)])))
        if ring is None or pushed != len(keys):
            raise InstallFailed(
                f"server {self.server}: wants {len(keys)} keys taken, HAProxy took {pushed}",
                hint="the next tick reads them back and tries again; if this stays, see HAProxy's log",
            )
        return ring

    def unknown(self, length: int) -> InstallFailed:
        return InstallFailed(
            f"server {self.server}: {self.path} gave an answer that keyrotd does not know ({length} bytes)",
            hint="the socket must be a worker's `stats socket`, not the master's, of HAProxy 2.6 or newer",
        )

    def _told(self, answer: str) -> tuple[int, Ring | None]:
        lines = [line for line in answer.splitlines() if line and not line.startswith("#")]
        pushed = lines.count(_UPDATED)
        shown = [_KEY_LINE.fullmatch(line) for line in lines if line != _UPDATED]
        blobs = []
        for index, match in enumerate(shown):
            if match is None or int(match[1]) != index:
                raise self._trouble(answer)
            blobs.append(match[2])
        if not blobs:
            return pushed, None
        try:
            return pushed, _ring([decode_base64(blob.encode()) for blob in blobs])
        except ValueError:
            raise self.unknown(len(answer)) from None

    def _trouble(self, answer: str) -> InstallFailed:
        for text, (want_and_find, hint) in _COMPLAINTS.items():
            if text in answer:
                return InstallFailed(f"server {self.server}: {self.path} {want_and_find}", hint=hint)
        return self.unknown(len(answer))

    def _ask(self, line: str) -> str:
        try:
            answer = _converse(self.path, line.encode() + b"\n", self.timeout_ms)
        except OSError as error:
            raise self._unreachable(error) from None
        if not answer:
            raise ServerUnreachable(
                f"server {self.server}: {self.path} closed without an answer",
                hint="HAProxy may be ending, or have no connection to spare for its socket: see its log",
            )
        if len(answer) > MAX_ANSWER_BYTES:
            raise self.unknown(len(answer))
        return answer.decode("ascii", errors="replace")

    def _unreachable(self, error: OSError) -> ServerUnreachable:
        find: str = (error.strerror or type(error).__name__).lower()
        hint: str | None = None
        if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:  # EAGAIN: the backlog is full
            find, hint = f"gave no answer within {self.timeout_ms} ms", "is HAProxy stopped, or its machine overloaded?"
        elif error.errno is not None and error.errno in _AWAY:
            find, hint = _AWAY[error.errno]
        return ServerUnreachable(f"server {self.server}: {self.path} {find}", hint=hint)


def _show(key_file: Path) -> str:
    # By name: ids change with the configuration.
    return f"show tls-keys {key_file}"


def _ring(blobs: Sequence[bytes]) -> Ring:
    if not USUAL_SLOTS <= len(blobs) <= MAX_SLOTS:
        raise ValueError("no ring has so many keys")
    layout = HAPROXY48 if len(blobs[0]) == HAPROXY48.size else HAPROXY80
    return Ring(layout, tuple(layout.decode(blob) for blob in blobs))


def _converse(path: Path, line: bytes, timeout_ms: int) -> bytes:
    # HAProxy closes after one line of commands. The deadline is for all of it: a drip of bytes shall not extend it.
    deadline = time.monotonic() + timeout_ms / 1000
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conversation:
        conversation.settimeout(_left(deadline))
        conversation.connect(str(path))
        conversation.sendall(line)
        answer = bytearray()
        while len(answer) <= MAX_ANSWER_BYTES:
            conversation.settimeout(_left(deadline))
            chunk = conversation.recv(65536)
            if not chunk:
                break
            answer += chunk
        return bytes(answer)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


_UPDATED = "TLS ticket key updated!"
_FILE_LINE = re.compile(r"\d+ \((.+)\)")
_KEY_LINE = re.compile(r"\d+\.(\d{1,3}) ([A-Za-z0-9+/=]+)")

# Replies carry no status code; these are the texts of 2.6 and 2.8.
_COMPLAINTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "unable to locate referenced filename": (
            "knows no such key file",
            "the bind line must say `tls-ticket-keys` with the very path of key_file, letter by letter",
        ),
        "received a key of wrong size": (
            "takes keys of another size only",
            "restart HAProxy once: the file holds 80-byte keys already, and the size is fixed at start",
        ),
        "ermission denied": (
            "may not be asked for keys",
            "give that `stats socket` line `level admin` and mode 600",
        ),
        "Unknown command": (
            "does not know the commands for ticket keys",
            "the socket must be a worker's `stats socket`, not the master's, of a HAProxy built with OpenSSL",
        ),
    }
)

_AWAY: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        errno.ENOENT: ("does not exist", "is HAProxy running, and does its `stats socket` line say this path?"),
        errno.ECONNREFUSED: ("is there and nobody listens", "is HAProxy running? it makes the socket anew at start"),
        errno.EACCES: (
            "may not be opened: permission denied",
            "let keyrotd's user in: `stats socket ... level admin mode 660 group <its group>`",
        ),
    }
)
