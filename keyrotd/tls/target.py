"""Where a handshake goes: HOST:PORT, [::1]:443 or unix:/path."""

import re
import socket
import time
from dataclasses import dataclass

DEFAULT_PORT = 443

_HOST_PORT = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%\w+)?)\]|(?P<host>[^\s:\[\]/]+))(?::(?P<port>[0-9]{1,5}))?"
)

_HOST_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")


@dataclass(frozen=True, slots=True)
class Target:
    """A TLS server's address. `port` None: `host` is the path of a Unix socket."""

    host: str
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def server_name(self) -> str:
        """The name that a client asks for unless told otherwise."""
        return "localhost" if self.port is None else self.host

    def connect(self, deadline_s: float) -> socket.socket:
        """A connected socket, by `deadline_s` of time.monotonic(). Raises OSError. A name server may take longer."""
        if self.port is None:
            return _connected(socket.AF_UNIX, self.host, deadline_s)
        fault: OSError | None = None
        for family, _, _, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            try:
                return _connected(family, address, deadline_s)
            except OSError as error:
                fault = error
        raise fault or OSError("the name has no address")


def parse_target(text: str) -> Target:
    """Raises ValueError, in words for people."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"{text!r}: unix: wants an absolute path")
        return Target(path, None)
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is none of HOST:PORT, [IPV6]:PORT, unix:/PATH")
    port = int(found["port"] or DEFAULT_PORT)
    if not 0 < port < 2**16:
        raise ValueError(f"{text!r}: port {port} is not between 1 and 65535")
    return Target(found["six"] or parse_server_name(found["host"]), port)


def parse_server_name(text: str) -> str:
    """A host's name or address as TLS and DNS take it. Raises ValueError, in words for people."""
    try:
        text.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{text!r} is no host name") from error
    if not _HOST_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no host name")
    return text


def _connected(family: int, address: object, deadline_s: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(max(deadline_s - time.monotonic(), 0.001))
        sock.connect(address)  # type: ignore[arg-type]  # typeshed's address is private
    except BaseException:
        sock.close()
        raise
    return sock
