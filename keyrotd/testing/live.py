"""What a fleet asks of a real TLS server that it starts, whatever its kind."""

import socket
from pathlib import Path
from typing import Protocol


class LiveServer(Protocol):
    """
    One server process on loopback, which reads its keys from `key_file` and shows one page over TLS 1.2 and 1.3.

    The page says `name=`, `pid=` (who answered) and, where the server can know, `resumed=`, each once, with blanks
    between. Sessions live well above any T, there is no session cache: whatever resumes, resumes by a ticket.
    """

    @property
    def name(self) -> str:
        """Its node's."""

    @property
    def kind(self) -> str:
        """The driver's word in the catalogue."""

    @property
    def port(self) -> int: ...

    @property
    def address(self) -> str: ...

    @property
    def pid(self) -> int:
        """Of the process that a reload or restart replaces; 0 while none runs."""

    @property
    def key_file(self) -> Path: ...

    @property
    def section(self) -> str:
        """The lines of its [[server]] that only its kind has: `driver`, and what the driver wants."""

    def start(self) -> None:
        """Return once it serves. Raises KeyrotdError with the last words of its log (never keys) if it does not."""

    def reload(self) -> None:
        """What its operator does to make it read its configuration again."""

    def restart(self) -> None:
        """End it, and start it again on the same port."""

    def stop(self) -> None: ...


class Maker(Protocol):
    """How a fleet gets one: `functools.partial` of a kind of server with whatever else that kind wants."""

    def __call__(self, *, name: str, directory: Path, certificate: Path) -> LiveServer:
        """`directory` will be its own; `certificate` is one PEM: certificate, then key."""


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of loopback that nobody has now, all different."""
    # All bound before any is let go. The server binds them a moment later.
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(listener.getsockname()[1] for listener in listeners)
    for listener in listeners:
        listener.close()
    return ports
