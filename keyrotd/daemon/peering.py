"""
Own tickets, offered to peers: what clients meet behind a balancer, tried before they do.

Rounds run aside, one at a time: a tick begins one and takes up one that is over, and never waits for either. Whoever
may be asked, a leader signed; whoever is asked, the operator's networks allow; what is said there is a TLS handshake.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from keyrotd.core.errors import CorruptWindow, StoreUnavailable
from keyrotd.core.messages import Peer, Peers, ProbeState
from keyrotd.core.peers import Network, chosen
from keyrotd.core.policy import jittered_ms
from keyrotd.daemon.clock import Clock
from keyrotd.daemon.telemetry import Telemetry
from keyrotd.daemon.turns import Crash, attempt
from keyrotd.seal.keyfiles import VerifyKey
from keyrotd.seal.messages import read_peers
from keyrotd.store.port import Store

#: A list that is older names nobody: addresses get other owners.
PEERS_LIFETIME_MS = 86_400_000

#: Offers one fresh ticket of a server to each of the addresses; nothing when it has none to offer.
Offer: TypeAlias = Callable[[tuple[str, ...]], tuple[ProbeState, ...]]
#: By server, what its peers did.
Answers: TypeAlias = Mapping[str, tuple[ProbeState, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How many peers of each server are asked how often, and where they may be."""

    count: int
    interval_ms: int
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """Of tickets that a peer decided on in the last round; one that could not be reached decided nothing."""

    resumed: int
    tried: int


class Aside(Protocol):
    """Runs one round at a time. `begin` returns at once; `ended` is what came of it, once, and None until then."""

    def begin(self, round_: Callable[[], Answers]) -> None: ...
    def ended(self) -> Answers | Crash | None: ...


class AsideThread:
    """A thread for each round, which keeps no process from ending."""

    def __init__(self) -> None:
        self._outcome: Answers | Crash | None = None

    def begin(self, round_: Callable[[], Answers]) -> None:
        self._outcome = None
        threading.Thread(target=self._run, args=(round_,), daemon=True, name="peers").start()

    def ended(self) -> Answers | Crash | None:
        outcome = self._outcome
        if outcome is not None:  # not before: it may be told just now, and would be lost
            self._outcome = None
        return outcome

    def _run(self, round_: Callable[[], Answers]) -> None:
        self._outcome = attempt(round_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offering:
    """A server of this node that has tickets to offer."""

    name: str
    driver: str
    offer: Offer


class Peering:
    """One ring's rounds. `tallies` are of the last one, by server."""

    def __init__(
        self,
        asking: Asking,
        *,
        ring: str,
        node: str,
        offerings: tuple[Offering, ...],
        store: Store,
        aside: Aside,
        clock: Clock,
        rand: Callable[[int], bytes],
        telemetry: Telemetry,
    ) -> None:
        self._asking, self._ring, self._node, self._offerings = asking, ring, node, offerings
        self._store, self._aside, self._clock, self._rand, self._telemetry = store, aside, clock, rand, telemetry
        self._known: Peers | None = None
        self._running = False
        # Not at once: a fleet that starts together must not ask together for ever.
        self._next_ms = clock.boot_ms() + asking.interval_ms * rand(1)[0] // 256
        self.tallies: dict[str, Tally] = {}

    def turn(self, *, verifiers: tuple[VerifyKey, ...], now_at: int | None, reached: bool) -> Crash | None:
        """Take up the round that is over, and begin one that is due. `reached`: the store answered just now."""
        crash = self._take_up()
        if self._running or now_at is None or self._clock.boot_ms() < self._next_ms:
            return crash
        self._next_ms = self._clock.boot_ms() + jittered_ms(self._asking.interval_ms)
        if reached:
            self._learn(verifiers)
        tasks = {offering.name: partial(offering.offer, asked) for offering, asked in self._asked(now_at)}
        if tasks:
            self._running = True
            self._aside.begin(lambda: {name: task() for name, task in tasks.items()})
        return crash

    def _take_up(self) -> Crash | None:
        outcome = self._aside.ended() if self._running else None
        if outcome is None:
            return None
        self._running = False
        if isinstance(outcome, Crash):
            return outcome
        self.tallies = {}
        for server, states in outcome.items():
            for state in states:
                self._telemetry.count("peer_probes_total", ring=self._ring, server=server, outcome=state.value)
            resumed, refused = states.count(ProbeState.RESUMED), states.count(ProbeState.REFUSED)
            self.tallies[server] = Tally(resumed, resumed + refused)
        return None

    def _learn(self, verifiers: tuple[VerifyKey, ...]) -> None:
        """Read who may be asked; what cannot be read or proven leaves those known before."""
        try:
            data = self._store.peers()
            found = None if data is None else read_peers(data, verifiers=verifiers, ring=self._ring)
        except StoreUnavailable as away:
            self._telemetry.count("store_errors_total", operation=away.operation)
            self._say(str(away), away.hint)
        except CorruptWindow as corrupt:
            self._telemetry.count("windows_refused_total", ring=self._ring, reason=corrupt.reason)
            self._say(str(corrupt), corrupt.hint)
        else:
            self._say(None, None)
            if found is not None and (self._known is None or found.signed_at >= self._known.signed_at):
                self._known = found

    def _asked(self, now_at: int) -> list[tuple[Offering, tuple[str, ...]]]:
        known = self._known
        if known is None or now_at - known.signed_at >= PEERS_LIFETIME_MS:
            return []
        found = [(offering, self._chosen(known.peers, offering.driver)) for offering in self._offerings]
        return [(offering, tuple(peer.address for peer in peers)) for offering, peers in found if peers]

    def _chosen(self, peers: tuple[Peer, ...], driver: str) -> tuple[Peer, ...]:
        asking = self._asking
        return chosen(
            peers, node=self._node, driver=driver, networks=asking.networks, count=asking.count, rand=self._rand
        )

    def _say(self, text: str | None, hint: str | None) -> None:
        self._telemetry.fault(f"{self._ring}: peers", text, hint=hint, ring=self._ring)
