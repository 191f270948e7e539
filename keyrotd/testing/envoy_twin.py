"""Envoy's SDS file and admin endpoint without Envoy: what it takes, what it refuses, what it dies of, and bad days."""

import base64
import binascii
import json
import re
import socket
import threading
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from keyrotd.testing.children import PATIENCE_S


class Mood(Enum):
    HONEST = "honest"
    HANGS = "takes the connection and says nothing"
    DRIPS = "sends a byte now and then, for ever"
    CLOSES = "closes without a word"
    MUMBLES = "says what is no HTTP, full of keys"
    BABBLES = "answers with what nobody expects, full of keys"
    DENIES = "has allow_paths that let nobody through"
    MUTE = "has its statistics switched off"
    DEAF = "does not notice that its file was replaced"
    BLIND = "may not read its file"
    REFUSES = "finds fault with whatever is in its file"


class EnvoyTwin:
    """
    It looks at its file whenever it is asked something and the file is another one: to those who ask that is at once.

    `keys` are the blobs that it goes by, None once it took a document without any: all TLS connections are reset then,
    and one comes whenever its statistics are asked for.
    `sealed` lists the key names that began to seal since the start. `boasts` stand in its statistics instead of what it
    counted.
    """

    def __init__(self, directory: Path, *, secret: str = "stek", tcp: bool = False) -> None:
        self.key_file = directory / "sds" / "stek.json"
        self.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.secret = secret
        self.mood = Mood.HONEST
        self.boasts: dict[str, str] = {}
        self.sealed: list[bytes] = []
        self.keys: list[bytes] | None = None
        self.started = 0
        self._socket = None if tcp else directory / "admin.sock"
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def admin(self) -> str:
        """As the driver's field wants it."""
        if self._socket is not None:
            return str(self._socket)
        assert self._listener is not None, "not started"
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Like Envoy, it needs the file to exist, whatever is in it."""
        if not self.key_file.exists():
            raise FileNotFoundError(self.key_file)
        self.started += 1
        self.keys, self._seen, self._starved = None, 0, 0
        self._active = self._version = ""
        self._counts = dict.fromkeys(("update_attempt", "update_success", "update_rejected", "update_failure"), 0)
        if self._socket is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
        else:
            self._socket.unlink(missing_ok=True)
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._socket))
            self._listener.listen(16)
        self._stopping = threading.Event()
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

    # Its file.

    def look(self) -> None:
        """Take the file up, if it was replaced."""
        seen = self.key_file.stat().st_ino
        if seen == self._seen or self.mood is Mood.DEAF:
            return
        self._seen = seen
        self._counts["update_attempt"] += 1
        try:
            response = json.loads(b"" if self.mood is Mood.BLIND else self.key_file.read_bytes())
        except ValueError:
            self._counts["update_failure"] += 1
            return
        if self.mood is Mood.REFUSES or not self._take(response):
            self._counts["update_rejected"] += 1
        else:
            self._counts["update_success"] += 1

    def _take(self, response: dict[str, Any]) -> bool:
        (secret,) = response.get("resources") or [{}]
        if secret.get("name") != self.secret:
            return False
        keys = None
        if "session_ticket_keys" in secret:  # else: taken, and no connection survives it
            try:
                keys = [base64.b64decode(key["inline_bytes"]) for key in secret["session_ticket_keys"]["keys"]]
            except (KeyError, binascii.Error):
                return False
            if not keys or any(len(key) != _KEY_BYTES for key in keys):
                return False
        self._version = response.get("version_info", "")
        if keys != self.keys:
            self.keys, self._active = keys, self._version
            if keys is not None and keys[0][:16] not in self.sealed[-1:]:
                self.sealed.append(keys[0][:16])
        return True

    # Its admin endpoint.

    def _serve(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line, suppress(OSError):
                self._converse(line)

    def _converse(self, line: socket.socket) -> None:
        asked, *_ = iter(line.makefile("rb").readline, b"\r\n")
        match self.mood:
            case Mood.HANGS:
                self._stopping.wait(_A_WHILE_S)
            case Mood.DRIPS:
                line.sendall(b"HTTP/1.1 200 OK\r\n")
                while not self._stopping.wait(_DRIP_S):
                    line.sendall(b"x")
            case Mood.CLOSES:
                pass
            case Mood.MUMBLES:
                line.sendall(self.key_file.read_bytes())
            case Mood.BABBLES:
                line.sendall(_said(HTTPStatus.OK, self.key_file.read_bytes()))
            case Mood.DENIES:
                line.sendall(_said(HTTPStatus.FORBIDDEN, self.key_file.read_bytes()))
            case _:
                self.look()
                line.sendall(_said(HTTPStatus.OK, self._answer(asked.split()[1].decode())))

    def _answer(self, target: str) -> bytes:
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/stats":
            return "".join(row for row in self._stats() if re.search(query["filter"], row.split(":")[0])).encode()
        if "mask" in query:
            configs = [
                {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "last_updated": self.instance}
            ]
        else:
            configs = [self._dumped] if self._version and re.fullmatch(query["name_regex"], self.secret) else []
        return json.dumps({"configs": configs} if configs else {}).encode()

    @property
    def instance(self) -> str:
        """When it started, as it says it."""
        return f"2026-01-01T00:00:{self.started:02}.000Z"

    @property
    def _dumped(self) -> dict[str, Any]:
        redacted = [{"inline_bytes": base64.b64encode(b"[redacted]").decode()}] * len(self.keys or [])
        secret = {"name": self.secret, "session_ticket_keys": {"keys": redacted} if redacted else {}}
        return {"name": self.secret, "version_info": self._active, "secret": secret}

    def _stats(self) -> list[str]:
        if self.mood is Mood.MUTE:
            return []
        self._starved += self.keys is None
        return [
            f'sds.{self.secret}.version_text: "{self._version}"\n',
            f"listener.127.0.0.1_443.server_ssl_socket_factory.downstream_context_secrets_not_ready: {self._starved}\n",
            *(f"sds.{self.secret}.{name}: {count}\n" for name, count in {**self._counts, **self.boasts}.items()),
        ]


def write_strange_secret(key_file: Path) -> None:
    """What an Envoy needs to start: a good document, of keys that are nobody's."""
    key = base64.b64encode(b"a strange key..." + bytes(range(64))).decode()
    secret = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "stek",
        "session_ticket_keys": {"keys": [{"inline_bytes": key}]},
    }
    key_file.write_text(json.dumps({"version_info": "strange", "resources": [secret]}))


def _said(status: HTTPStatus, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


_KEY_BYTES = 80
_A_WHILE_S = 60.0
_DRIP_S = 0.01
