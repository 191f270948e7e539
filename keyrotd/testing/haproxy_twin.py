"""HAProxy's runtime socket without HAProxy: the same rings, the same words, and every bad day a test asks for."""

import base64
import binascii
import os
import socket
import threading
from contextlib import suppress
from enum import Enum
from pathlib import Path

from keyrotd.testing.children import PATIENCE_S


class Mood(Enum):
    HONEST = "honest"
    HANGS = "takes the connection and says nothing"
    DRIPS = "sends a byte now and then, for ever"
    CLOSES = "closes without a word"
    LIES = "says that it took the keys and did not"
    MUMBLES = "takes the keys and does not say so"
    BABBLES = "answers with what nobody expects, full of keys"
    DENIES = "lets nobody at the keys"
    MASTER = "is the master's socket, which has other commands"


class HAProxyTwin:
    """
    Rings as HAProxy has them: [p, c*, n] + x = [c, n*, x], their size and the keys' size fixed by the file at start.

    `sealed` lists the key names that began to seal since the start; `pushes` counts keys taken. `meddler` runs after
    each of them: somebody else at the same time.
    """

    def __init__(self, directory: Path, *, slots: int = 3, key_files: tuple[str, ...] = ("tickets.keys",)) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = directory / "admin.sock"
        self.key_files = tuple(directory / name for name in key_files)
        self.mood = Mood.HONEST
        self.meddler = _nobody
        self.pid = 100
        self.started_s = 1_700_000_000
        self.pushes = 0
        self.sealed: list[bytes] = []
        self.rings: dict[str, list[bytes]] = {}
        self._slots = slots
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def key_file(self) -> Path:
        return self.key_files[0]

    def start(self) -> None:
        """Read the files; a key file that HAProxy would refuse raises ValueError."""
        self._stopping.clear()
        self._load()
        self.socket.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, args=(self._listener,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The socket's file stays, as it does after a crash."""
        if self._listener is None or self._thread is None:
            return
        self._stopping.set()
        # A blocked accept() is woken by shutdown, not by close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._listener.close()
        self._listener = None

    def reload(self) -> None:
        """A new worker, with the file's keys; what was pushed is forgotten."""
        self._load()

    def push(self, key_file: Path, key: bytes) -> None:
        ring = self.rings[str(key_file)]
        ring[:] = [*ring[1:], key]
        self.sealed.append(ring[-2][:16])

    def _load(self) -> None:
        self.pid += 1
        self.started_s += 1
        self.sealed = []
        for path in self.key_files:
            lines = path.read_bytes().split(b"\n")
            keys = [base64.b64decode(line, validate=True) for line in (lines[:-1] if lines[-1] == b"" else lines)]
            if len(keys) < self._slots or len({len(key) for key in keys}) != 1 or len(keys[0]) not in (48, 80):
                raise ValueError("please supply at least 3 keys in the tls-tickets-file")
            self.rings[str(path)] = keys[-self._slots :]
            self.sealed.append(keys[-2][:16])

    def _serve(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                conversation, _ = listener.accept()
            except OSError:
                return
            with conversation, suppress(OSError):
                self._converse(conversation)

    def _converse(self, conversation: socket.socket) -> None:
        line = conversation.makefile("rb").readline().decode().rstrip("\n")
        match self.mood:
            case Mood.HANGS:
                self._until_gone(conversation)
            case Mood.DRIPS:
                while not self._stopping.wait(0.01):
                    conversation.sendall(b"#")
            case Mood.CLOSES:
                pass
            case Mood.BABBLES:
                keys = " ".join(base64.b64encode(key).decode() for ring in self.rings.values() for key in ring)
                conversation.sendall(f"0.0 {keys} and more\n\n".encode())
            case Mood.DENIES:
                conversation.sendall(b"Permission denied\n\n")
            case Mood.MASTER:
                conversation.sendall(b"Unknown command: 'show tls-keys', but maybe one of these:\n  help\n\n")
            case Mood.HONEST | Mood.LIES | Mood.MUMBLES:
                answer = "".join(self._answer(command.strip().split(" ")) + "\n" for command in line.split(";"))
                conversation.sendall(answer.encode())

    def _until_gone(self, conversation: socket.socket) -> None:
        conversation.settimeout(0.05)
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                if not conversation.recv(1):
                    return

    def _answer(self, words: list[str]) -> str:
        match words:
            case ["show", "info"]:
                return f"Name: HAProxy\nPid: {self.pid}\nUptime_sec: 0\nStart_time_sec: {self.started_s}\n"
            case ["show", "tls-keys", path]:
                if path not in self.rings:
                    return "'show tls-keys' unable to locate referenced filename\n"
                keys = [f"0.{at} {base64.b64encode(key).decode()}\n" for at, key in enumerate(self.rings[path])]
                return f"# id secret\n# 0 ({path})\n" + "".join(keys)
            case ["set", "ssl", "tls-key", path, text]:
                return self._set(path, text)
            case _:
                return f"Unknown command: '{words[0]}', but maybe one of these:\n  help\n"

    def _set(self, path: str, text: str) -> str:
        if path not in self.rings:
            return "'set ssl tls-key' unable to locate referenced filename\n"
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            return "'set ssl tls-key' received invalid base64 encoded TLS key.\n"
        if len(key) != len(self.rings[path][0]):
            return "'set ssl tls-key' received a key of wrong size.\n"
        self.pushes += 1
        if self.mood is not Mood.LIES:
            self.push(Path(path), key)
        self.meddler()
        return "" if self.mood is Mood.MUMBLES else "TLS ticket key updated!\n"


def _nobody() -> None:
    pass


def write_strange_keys(path: Path, *, count: int = 3, size: int = 80) -> None:
    """A key file that a server can start from, of keys that are nobody's."""
    path.write_bytes(b"".join(base64.b64encode(os.urandom(size)) + b"\n" for _ in range(count)))
    path.chmod(0o600)
