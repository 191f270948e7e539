"""What one server is to hold now: keys by role, and how they fit into its slots."""

from dataclasses import dataclass, replace
from itertools import chain

from keyrotd.core.stek import Scheme, Stek


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """
    How long a server may use its keys if nobody tells it more; `epoch` and `step` say where they come from.

    Bounds are CLOCK_BOOTTIME ms of the boot `boot_id`, which no wall clock moves: from `seals_until_ms` on `current`
    may no longer seal, from `opens_until_ms` on nothing may open. None where no bound is known.
    """

    boot_id: str
    epoch: int
    step: int
    seals_until_ms: int | None
    opens_until_ms: int | None

    def agrees(self, other: "Tenure", within_ms: int) -> bool:
        """Whether both say the same, but for how exactly the fleet's time was known."""
        moved = replace(self, seals_until_ms=other.seals_until_ms, opens_until_ms=other.opens_until_ms)
        return (
            moved == other
            and _near(self.seals_until_ms, other.seals_until_ms, within_ms)
            and _near(self.opens_until_ms, other.opens_until_ms, within_ms)
        )


def _near(one: int | None, other: int | None, within_ms: int) -> bool:
    return one == other if one is None or other is None else abs(one - other) <= within_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """
    The keys for one server at one instant: `current` seals, all open. `previous` is ordered, most useful first.

    `leaving` may no longer open, but a server built as a ring can only drop them by rewriting every slot, so it may
    keep them until the fleet has confirmed the window (see `lingering`). `tenure` is for servers that keep time
    themselves, None where nobody measured any.
    """

    current: Stek
    next: Stek
    previous: tuple[Stek, ...] = ()
    leaving: tuple[Stek, ...] = ()
    tenure: Tenure | None = None

    @property
    def opening(self) -> tuple[Stek, ...]:
        """Every key that opens, most useful first: current, next, then previous."""
        return (self.current, self.next, *self.previous)

    def fit(self, slots: int) -> "Keys":
        """The most useful keys that `slots` (at least 2) slots hold."""
        return replace(self, previous=self.previous[: slots - 2], leaving=())

    def lingering(self) -> "Keys":
        """For a ring buffer whose fleet has not confirmed this window: leaving keys stay, after all others."""
        return replace(self, previous=(*self.previous, *self.leaving), leaving=())


@dataclass(frozen=True, slots=True)
class Place:
    """
    What one place of a server (a ring in memory, a key file) was seen to hold; `where` names it for people.

    `seals` and `opens` are fingerprints (`Secrets.fingerprint` under `scheme`), never keys. `slots` None: unbounded.
    `tenure` None: the server keeps no time.
    """

    where: str
    scheme: Scheme
    seals: bytes | None
    opens: frozenset[bytes]
    slots: int | None
    tenure: Tenure | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """What a driver read back. `instance` changes when the server was restarted or reloaded (a pid, a start time)."""

    places: tuple[Place, ...]
    instance: str

    @property
    def slots(self) -> int | None:
        """The least that any place holds; None when all are unbounded."""
        return min((place.slots for place in self.places if place.slots is not None), default=None)


def shows(place: Place, keys: Keys) -> bool:
    """Whether `place` holds exactly `keys`, as far as its slots go, and for as long."""
    fitting = keys if place.slots is None else keys.fit(place.slots)
    opens = frozenset(stek.secrets(place.scheme).fingerprint for stek in fitting.opening)
    sealing = place.seals == keys.current.secrets(place.scheme).fingerprint
    return sealing and place.opens == opens and place.tenure in (None, keys.tenure)


def in_step(installed: Installed, keys: Keys) -> bool:
    """Whether every place of a server holds `keys`; a server that shows no place holds nothing."""
    return bool(installed.places) and all(shows(place, keys) for place in installed.places)


def names(keys: Keys) -> tuple[str, ...]:
    """The public names, for logs and people."""
    return tuple(stek.name.hex() for stek in chain(keys.opening, keys.leaving))
