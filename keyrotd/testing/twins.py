"""A TLS server that is two attributes and a clock's tick fast: what the agent and the simulation are tried with."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import Installed, Keys, Place
from keyrotd.core.stek import Scheme, Stek
from keyrotd.servers.port import Facts, ServerUnreachable

#: A test that forgets to heal a hanging twin ends all the same.
LONGEST_HANG_S = 30.0


@dataclass
class MemoryServer:
    """
    Seals with `keys.current` and opens `keys.opening`, as far as `slots` go. None: started without keys.

    A file survives `restart`, as with a server that reads its keys from one; without `file` a restart loses all.
    """

    name: str = "memory"
    slots: int | None = None
    ring_buffer: bool = False
    scheme: Scheme = Scheme.AES256
    reloads: bool = False
    notice_delay_ms: int = 0
    file: bool = False
    keys: Keys | None = field(default=None, init=False)
    starts: int = field(default=1, init=False)

    kind: ClassVar[str] = "memory"

    def __post_init__(self) -> None:
        self._trouble: Callable[[], None] = _none
        self._healed = threading.Event()
        self._file_keys: Keys | None = None
        self._seen = Installed((Place("memory", self.scheme, None, frozenset(), self.slots),), "1")

    @property
    def facts(self) -> Facts:
        return Facts(
            ring_buffer=self.ring_buffer,
            reloads=self.reloads,
            notice_delay_ms=self.notice_delay_ms,
            scheme=self.scheme,
            min_slots=self.slots,
        )

    def observe(self) -> Installed:
        self._trouble()
        return self._seen

    def install(self, keys: Keys) -> None:
        fitting = keys if self.slots is None else keys.fit(self.slots)
        if self.file:
            self._file_keys = fitting
        self._trouble()
        self._take(fitting)

    # What a client would see.

    @property
    def sealing(self) -> Stek | None:
        return None if self.keys is None else self.keys.current

    def opens(self, name: bytes) -> bool:
        return self.keys is not None and any(stek.name == name for stek in self.keys.opening)

    # What happens to servers.

    def restart(self) -> None:
        """A reload or restart, by whomever: only what is in a file is left."""
        self.starts += 1
        self._take(self._file_keys)

    def meddle(self, keys: Keys | None) -> None:
        """Somebody else puts keys into the running server."""
        self._take(keys)

    def fail(self, error: InstallFailed | None = None) -> None:
        """Every call raises until `heal`."""
        failure = error or InstallFailed(f"server {self.name}: refuses the keys", hint="a test asked for this")
        self._trouble = _raising(failure)

    def stop(self) -> None:
        """Every call finds nobody there until `heal`; a running server's keys are gone, its file is not."""
        self._take(None)
        self._trouble = _raising(ServerUnreachable(f"server {self.name}: nobody is there"))

    def hang(self) -> None:
        """Every call blocks until `heal`, and then goes on as if nothing had been."""
        self._healed.clear()
        self._trouble = self._wait

    def heal(self) -> None:
        """End of trouble; a server that was stopped starts from its file."""
        if self.keys is None:
            self.restart()
        self._trouble = _none
        self._healed.set()

    def _wait(self) -> None:
        self._healed.wait(LONGEST_HANG_S)

    def _take(self, keys: Keys | None) -> None:
        self.keys = keys
        seals = None if keys is None else keys.current.secrets(self.scheme).fingerprint
        opening = () if keys is None else keys.opening
        opens = frozenset(stek.secrets(self.scheme).fingerprint for stek in opening)
        tenure = None if keys is None else keys.tenure
        self._seen = Installed((Place("memory", self.scheme, seals, opens, self.slots, tenure),), str(self.starts))


def _none() -> None:
    pass


def _raising(error: InstallFailed) -> Callable[[], None]:
    def trouble() -> None:
        # A fresh one each time: an exception raised twice drags its first traceback along.
        raise type(error)(str(error), hint=error.hint)

    return trouble
