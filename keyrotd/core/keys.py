"""What one server is to hold now: keys by role, and how they fit into its slots."""

from dataclasses import dataclass
from itertools import chain

from keyrotd.core.stek import Scheme, Stek


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """
    The keys for one server at one instant: `current` seals, all open. `previous` is ordered, most useful first.

    `leaving` may no longer open, but a server built as a ring can only drop them by rewriting every slot, so it may
    keep them until the fleet has confirmed the window (see `lingering`).
    """

    current: Stek
    next: Stek
    previous: tuple[Stek, ...] = ()
    leaving: tuple[Stek, ...] = ()

    @property
    def opening(self) -> tuple[Stek, ...]:
        """Every key that opens, most useful first: current, next, then previous."""
        return (self.current, self.next, *self.previous)

    def fit(self, slots: int) -> "Keys":
        """The most useful keys that `slots` (at least 2) slots hold."""
        return Keys(current=self.current, next=self.next, previous=self.previous[: slots - 2])

    def lingering(self) -> "Keys":
        """For a ring buffer whose fleet has not confirmed this window: leaving keys stay, after all others."""
        return Keys(current=self.current, next=self.next, previous=(*self.previous, *self.leaving))


@dataclass(frozen=True, slots=True)
class Place:
    """
    What one place of a server (a ring in memory, a key file) was seen to hold; `where` names it for people.

    `seals` and `opens` are fingerprints (`Secrets.fingerprint` under `scheme`), never keys. `slots` None: unbounded.
    """

    where: str
    scheme: Scheme
    seals: bytes | None
    opens: frozenset[bytes]
    slots: int | None


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
    """Whether `place` holds exactly `keys`, as far as its slots go: the right key seals, the right ones open."""
    fitting = keys if place.slots is None else keys.fit(place.slots)
    opens = frozenset(stek.secrets(place.scheme).fingerprint for stek in fitting.opening)
    return place.seals == keys.current.secrets(place.scheme).fingerprint and place.opens == opens


def in_step(installed: Installed, keys: Keys) -> bool:
    """Whether every place of a server holds `keys`; a server that shows no place holds nothing."""
    return bool(installed.places) and all(shows(place, keys) for place in installed.places)


def names(keys: Keys) -> tuple[str, ...]:
    """The public names, for logs and people."""
    return tuple(stek.name.hex() for stek in chain(keys.opening, keys.leaving))
