"""sd_notify(3): what systemd is told. Eight lines of a datagram; no package for it is kept well enough to depend on."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notify:
    """Speaks to NOTIFY_SOCKET, or to nobody when there is none. `watched`: systemd wants WATCHDOG=1 of this process."""

    address: str | None
    watched: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Notify":
        pid = environment.get("WATCHDOG_PID")
        watched = "WATCHDOG_USEC" in environment and pid in {None, str(os.getpid())}
        return cls(address=environment.get("NOTIFY_SOCKET"), watched=watched)

    def ready(self) -> None:
        self._send("READY=1")

    def status(self, words: str) -> None:
        self._send(f"STATUS={words}")

    def reloading(self, boot_ms: int) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={boot_ms * 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        if self.watched:
            self._send("WATCHDOG=1")

    def _send(self, words: str) -> None:
        if self.address is None:
            return
        # An abstract address is written with @ and meant with NUL.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
                speaker.connect(address)
                speaker.sendall(words.encode())
        except OSError:
            pass  # systemd is away: it will find out by itself
