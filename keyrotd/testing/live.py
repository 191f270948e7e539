"""What a fleet asks of a real TLS server that it starts, whatever its kind."""

import itertools
import random
import socket
from collections.abc import Iterator
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


def free_port() -> int:
    """
    A port of loopback that nobody has now; a process is given none twice until it has had them all.

    It lies below those that Linux hands out by itself (ip(7), ip_local_port_range): until the server binds it, a moment
    later, neither an outgoing connection nor anybody who binds port 0 can have got it.
    """
    return next(filter(_free, _PORTS))


def free_ports(count: int) -> tuple[int, ...]:
    """So many, all different."""
    return tuple(free_port() for _ in range(count))


def _ports() -> Iterator[int]:
    first_of_linux = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    ours = range(10_000, first_of_linux)
    # In an order of its own for each process, since several run tests at once.
    return itertools.cycle(random.sample(ours, len(ours)))


_PORTS = _ports()


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what only lingers in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
