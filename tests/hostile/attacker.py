"""
Whoever owns the store: sees every value and every answer, and may put, keep back or repeat any of them, for anybody.

What the real adapter would refuse to hand on (a digest that is no name, an answer of a wrong shape) is left out: see
tests/contract/test_store_garbage.py. So is everything that needs a key: nobody here holds one, but for a stranger's.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random
from typing import Any

from keyrotd.core.errors import StoreUnavailable
from keyrotd.core.messages import Goal, Request
from keyrotd.core.stek import Stek
from keyrotd.core.window import Window, bootstrap
from keyrotd.seal.keyfiles import Kek, OperatorKey, SigningKey
from keyrotd.seal.messages import sign_beat, sign_request
from keyrotd.seal.window import seal_window
from keyrotd.store import limits
from keyrotd.store.memory import Lease, MemoryStore, Ring, StoredWindow
from keyrotd.store.port import Desk, Fenced, Moved, Poll, Published
from tests.hostile.stage import Stage
from tests.simulation.world import RING

#: Each of these keeps so many values to be repeated.
_KEPT = 24
PLACES = ("window", "beat", "lease", "fence", "reports", "offers", "requests", "history")


class View(Enum):
    """What the store shows to one machine."""

    HONEST = "honest"
    AWAY = "away"
    EMPTY = "empty"  # it takes everything and shows nothing
    REPEATING = "repeating"  # answers of earlier questions, anybody's, in any order
    LYING = "lying"  # it says that it did what it did not


@dataclass
class Attacker:
    world: Stage
    rng: Random
    seen: dict[str, deque[Any]] = field(default_factory=dict)
    answers: dict[str, deque[Any]] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    forged: set[bytes] = field(default_factory=set)  # names of keys that nobody of the fleet made

    def __post_init__(self) -> None:
        chance = self.rng.randbytes
        self._signer, self._operator, self._kek = SigningKey(chance(32)), OperatorKey(chance(32)), Kek(chance(32))
        for machine in self.world.machines:
            machine.store = Tapped(machine.name, machine.store, self)  # type: ignore[assignment] # it does as a store does

    @property
    def ring(self) -> Ring:
        return self.world.store.ring(RING)

    def note(self, place: str, value: object) -> None:
        self.seen.setdefault(place, deque(maxlen=_KEPT)).append(value)

    def hear(self, operation: str, answer: object) -> None:
        self.answers.setdefault(operation, deque(maxlen=_KEPT)).append(answer)

    def watch(self) -> None:
        """See what stands in the store just now."""
        ring = self.ring
        for place, value in (("window", ring.window), ("beat", ring.beat), ("lease", ring.lease)):
            if value is not None and value not in self.seen.get(place, ()):
                self.note(place, value)
        for place in ("reports", "offers", "requests"):
            for item in getattr(ring, place).items():
                if item not in self.seen.get(place, ()):
                    self.note(place, item)

    def pick(self, place: str) -> Any:
        return self.rng.choice(self.seen[place]) if self.seen.get(place) else None

    # What it does to what is stored.

    def repeat(self, place: str) -> None:
        value, ring = self.pick(place), self.ring
        match place, value:
            case _, None:
                return
            case "window", StoredWindow():
                label = self.pick("window").digest if self.rng.random() < 0.3 else value.digest
                ring.window = replace(value, digest=label, fence=self.rng.choice((value.fence, ring.fence)))
            case "beat", bytes():
                ring.beat = value
            case "lease", Lease():
                until = self.world.store.clock() + self.rng.randrange(limits.LEASE_MS)
                ring.lease = replace(value, until=until)
            case _, (name, data):
                name = self.pick(place)[0] if self.rng.random() < 0.3 else name
                getattr(ring, place)[name] = data

    def spoil(self, place: str, data: bytes) -> None:
        """Put any bytes; an empty value is as good as none."""
        ring, now = self.ring, self.world.store.clock()
        match place:
            case "window":
                label = self.pick("window").digest if self.seen.get("window") and data[:1] < b"\x80" else "f" * 64
                ring.window = StoredWindow(data, label, len(data), len(data)) if data else None
            case "beat":
                ring.beat = data or None
            case "lease":
                ring.lease = Lease("squatter", len(data), now + limits.LEASE_MS) if data else None
            case "fence":
                ring.fence = int.from_bytes(data[:5], "big")
            case "history":
                ring.history.insert(0, data)
            case _:
                names = [name for name, _ in self.seen.get(place, ())]
                name = self.rng.choice(names) if names and data[:1] < b"\x80" else "rogue"
                getattr(ring, place)[name] = data

    def flip(self, place: str) -> None:
        """Put back what stood there, but for one bit."""
        match self.pick(place):
            case StoredWindow() as stored:
                self.ring.window = replace(stored, window=self._flipped(stored.window), digest="e" * 64)
            case bytes() as beat:
                self.ring.beat = self._flipped(beat)
            case (str() as name, bytes() as data):
                getattr(self.ring, place)[name] = self._flipped(data)

    def _flipped(self, data: bytes) -> bytes:
        at = self.rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1 :]

    def delete(self, place: str) -> None:
        ring = self.ring
        match place:
            case "window" | "beat" | "lease":
                setattr(ring, place, None)
            case "fence":
                ring.fence = 0
            case _:
                getattr(ring, place).clear()

    def forge(self) -> None:
        """Write a window, a beat and a request, newer than anything and in order but for whose keys they are."""
        world, chance = self.world, self.rng.randbytes
        fresh = Stek(chance(32), RING), Stek(chance(32), RING)
        self.forged.update(stek.name for stek in fresh)
        window: Window = bootstrap(
            ring=RING,
            epoch=1_000,
            barrier=self.rng.choice((0, 1_000)),
            fence=self.ring.fence,
            fresh=fresh,
            now_at=world.now,
            terms=world.policy.terms(world.now),
        )
        keks = self.rng.choice((world.keks, (self._kek,)))  # of the KEK it may know one that was left somewhere
        sealed = seal_window(window, keks=keks, signer=self._signer, rand=chance)
        self.ring.window = StoredWindow(sealed, window.digest, window.epoch, window.fence)
        self.ring.offers[window.digest] = sealed
        beat = world.beat(window.digest, window.epoch)
        self.ring.beat = sign_beat(beat, self._signer)
        request = Request(
            ring=RING,
            goal=self.rng.choice(list(Goal)),
            past_epoch=1_000,
            drop_live_keys=True,
            who="rogue",
            reason="mine",
            made_at=world.now,
        )
        self.ring.requests[f"rogue-{world.now}"] = sign_request(request, self._operator)


class Tapped:
    """One machine's way to the store, as the attacker lets it be."""

    def __init__(self, name: str, store: MemoryStore, attacker: Attacker) -> None:
        self._name, self._store, self._attacker = name, store, attacker
        self.ring = store.ring

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        done = getattr(self._store, operation)

        def call(*args: Any, **kwargs: Any) -> Any:
            attacker = self._attacker
            if operation in {"publish", "record"}:
                attacker.world.told(operation, kwargs)
            match attacker.views.get(self._name, View.HONEST):
                case View.AWAY:
                    raise StoreUnavailable("store: the attacker does not answer", operation=operation)
                case View.EMPTY if operation in _EMPTY:
                    return _EMPTY[operation]
                case View.REPEATING if attacker.answers.get(operation) and attacker.rng.random() < 0.7:
                    return attacker.rng.choice(attacker.answers[operation])
                case View.LYING if operation in _LIES and attacker.rng.random() < 0.7:
                    return attacker.rng.choice(_LIES[operation])
            answer = done(*args, **kwargs)
            attacker.watch()
            if answer is not None:
                attacker.hear(operation, answer)
            return answer

        return call


_DESK = Desk(
    fence=7,
    leader="",
    lease_ms=10_000,
    digest="",
    window=None,
    beat=None,
    requests={},
    offers=(),
    offer_count=0,
    report_count=0,
    store_at=0,
)
_EMPTY: dict[str, Any] = {
    "poll": Poll(beat=None, digest="", window=None, offers=()),
    "lead": _DESK,
    "reports": {},
    "offers": {},
    "publish": Published(),
    "beat": True,
    "window": None,
}
_LIES: dict[str, list[Any]] = {
    "publish": [Published(), Fenced(2**40), Moved("d" * 64), Moved("")],
    "beat": [True, False],
    "report": [None],
    "offer": [None],
    "offers": [{}, {"d" * 64: b"junk"}],
    "reports": [{}, {"rogue": b"junk"}],
    "settle": [None],
    "forget": [None],
    "release": [None],
    "window": [None, ("d" * 64, b"junk")],
}
