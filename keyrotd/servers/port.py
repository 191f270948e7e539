"""What the agent asks of a TLS server: show what you hold, and hold this. Read first by whoever writes a driver."""

from dataclasses import dataclass
from typing import Protocol

from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import Installed, Keys
from keyrotd.core.stek import Scheme


class ServerUnreachable(InstallFailed):
    """The server could not be asked: it is down, starting, hanging, or its door is shut to us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """
    What is known of a kind of server before any one of them is seen.

    `ring_buffer`: it drops a key only by rewriting every slot, so the agent lets keys linger until the fleet is in
    step. `reloads`: installing reloads the server, and connections may feel it. `notice_delay_ms`: how long a server
    may take to seal with what was installed. `min_slots`: keys that it surely holds at once, None for any number.
    """

    ring_buffer: bool
    reloads: bool
    notice_delay_ms: int
    scheme: Scheme
    min_slots: int | None


class Driver(Protocol):
    """
    One server of one node.

    Whatever fails raises InstallFailed, ServerUnreachable where the server could not be asked. Its message and hint
    go to logs and reports: they hold words of our own, never what the server said, for that may hold keys.

    What must hold, sorted by how much depends on it (`keyrotd.testing.driver` checks it):

    - After `install(keys)` returned, `observe()` shows `keys` in every place, as far as its slots go.
    - At no moment does the server lack a key that seals; a failed install leaves the running server's keys alone.
    - At a distance of one epoch no key but the former and the new `current` ever seals.
    - Installing what is held already changes nothing.
    - Every wait is bounded.
    """

    @property
    def name(self) -> str:
        """The server's name in the configuration."""

    @property
    def kind(self) -> str:
        """The driver's word in the catalogue."""

    @property
    def facts(self) -> Facts: ...

    def observe(self) -> Installed:
        """
        Read back what every place of the server holds now, believing no memory of one's own.

        Raises ServerUnreachable while the server is down, even if its key file can be read.
        """

    def install(self, keys: Keys) -> None:
        """
        Bring every place to `keys`: first the file that a (re)start reads, then the memory of the running server.

        With the server down the file is written all the same, so that the server can start at all; then
        ServerUnreachable is raised.
        """
