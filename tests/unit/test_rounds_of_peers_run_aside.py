"""Offering tickets to peers: who is asked is proven and allowed, and no tick waits for anybody's answer."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest

from keyrotd.core.messages import Peer, Peers, ProbeState
from keyrotd.daemon.peering import PEERS_LIFETIME_MS, Answers, AsideThread, Asking, Offering, Peering, Tally
from keyrotd.daemon.turns import Crash, attempt
from keyrotd.seal.keyfiles import SigningKey
from keyrotd.seal.messages import sign_peers
from keyrotd.store.memory import Fault, MemoryServer, MemoryStore
from keyrotd.testing.children import wait_until
from keyrotd.testing.clock import FakeClock
from tests.vectors import make

SIGNER, STRANGER = SigningKey(make.SIGNING), SigningKey(make.STRANGER)
INTERVAL_MS = 60_000
T0 = 1_700_000_000_000
NEAR, FAR = "10.0.0.2:443", "192.0.2.1:443"


@dataclass
class Slow:
    """The twin of a thread aside, which is done when the test says so."""

    waiting: list[Callable[[], Answers]] = field(default_factory=list)
    outcome: Answers | Crash | None = None

    def begin(self, round_: Callable[[], Answers]) -> None:
        self.waiting.append(round_)

    def ended(self) -> Answers | Crash | None:
        outcome, self.outcome = self.outcome, None
        return outcome

    def finish(self) -> None:
        self.outcome = attempt(self.waiting.pop())


@dataclass
class Counts:
    """Telemetry that counts, and remembers what is at fault."""

    counted: list[dict[str, str]] = field(default_factory=list)
    faults: list[str | None] = field(default_factory=list)

    def event(self, name: str, **fields: object) -> None: ...
    def gauge(self, metric: str, value: float, **labels: str) -> None: ...
    def unset(self, metric: str, **labels: str) -> None: ...
    def observe(self, metric: str, value: float, **labels: str) -> None: ...

    def count(self, metric: str, **labels: str) -> None:
        self.counted.append({"metric": metric, **labels})

    def fault(self, key: str, text: str | None, *, hint: str | None = None, **fields: object) -> None:
        _ = key, hint, fields
        self.faults.append(text)


class Scene:
    """One node that has tickets to offer, on a store that a leader wrote to."""

    def __init__(self) -> None:
        self.now_at = T0
        self.store = MemoryStore("edge", MemoryServer(lambda: self.now_at))
        self.aside, self.telemetry = Slow(), Counts()
        self.asked: list[str] = []
        self.answers = ProbeState.RESUMED
        self.peering = Peering(
            Asking(count=3, interval_ms=INTERVAL_MS, networks=(ip_network("10.0.0.0/8"),)),
            ring="edge",
            node="me",
            offerings=(Offering(name="h", driver="haproxy", offer=self.offer),),
            store=self.store,
            aside=self.aside,
            clock=FakeClock(lambda: self.now_at),
            rand=random.Random(1).randbytes,
            telemetry=self.telemetry,
        )

    def offer(self, addresses: tuple[str, ...]) -> tuple[ProbeState, ...]:
        self.asked += addresses
        return (self.answers,) * len(addresses)

    def name(self, *addresses: str, signer: SigningKey = SIGNER, at: int = 0) -> None:
        peers = tuple(Peer(node=f"n{n}", driver="haproxy", address=address) for n, address in enumerate(addresses))
        self.store.name_peers(peers=sign_peers(Peers(ring="edge", signed_at=self.now_at + at, peers=peers), signer))

    def turn(self, *, reached: bool = True) -> Crash | None:
        return self.peering.turn(verifiers=(SIGNER.verify_key,), now_at=self.now_at, reached=reached)

    def round(self) -> None:
        """From one round that is due to its end."""
        self.now_at += 2 * INTERVAL_MS
        self.turn()
        if self.aside.waiting:
            self.aside.finish()
        self.turn()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_round_asks_whom_the_leader_named_and_the_networks_allow(scene: Scene) -> None:
    scene.name(NEAR, FAR, "127.0.0.1:22", "169.254.169.254:80")

    scene.round()

    assert scene.asked == [NEAR]
    assert scene.peering.tallies == {"h": Tally(1, 1)}
    assert scene.telemetry.counted == [
        {"metric": "peer_probes_total", "ring": "edge", "server": "h", "outcome": "resumed"}
    ]


def test_a_list_that_no_leader_signed_makes_nobody_ask(scene: Scene) -> None:
    scene.name(NEAR, signer=STRANGER)

    scene.round()

    assert scene.asked == []
    assert [count["metric"] for count in scene.telemetry.counted] == ["windows_refused_total"]
    assert "unknown signer" in {count["reason"] for count in scene.telemetry.counted}


def test_an_older_list_replaces_no_newer_one(scene: Scene) -> None:
    scene.name(NEAR)
    scene.round()
    scene.name("10.6.6.6:443", at=-3 * INTERVAL_MS)

    scene.round()

    assert scene.asked == [NEAR, NEAR]


def test_a_list_from_yesterday_names_nobody(scene: Scene) -> None:
    scene.name(NEAR, at=-PEERS_LIFETIME_MS)

    scene.round()

    assert scene.asked == []


def test_no_tick_waits_for_a_round_and_none_begins_beside_it(scene: Scene) -> None:
    scene.name(NEAR)
    for _ in range(5):
        scene.now_at += 2 * INTERVAL_MS
        scene.turn()

    assert len(scene.aside.waiting) == 1
    assert scene.peering.tallies == {}


def test_nobody_is_asked_more_often_than_the_interval_says(scene: Scene) -> None:
    scene.name(NEAR)
    scene.round()

    for _ in range(59):
        scene.now_at += 1_000
        scene.turn()

    assert scene.asked == [NEAR]
    assert scene.aside.waiting == []


def test_while_the_store_is_away_those_known_are_asked(scene: Scene) -> None:
    scene.name(NEAR)
    scene.round()
    scene.store.fault = lambda _: Fault.AWAY

    scene.round()

    assert scene.asked == [NEAR, NEAR]
    assert any(scene.telemetry.faults)


def test_a_store_that_was_just_not_reached_is_not_asked_again_in_the_same_tick(scene: Scene) -> None:
    asked: list[str] = []

    def listening(operation: str) -> None:
        asked.append(operation)

    scene.store.fault = listening
    scene.now_at += 2 * INTERVAL_MS

    scene.turn(reached=False)

    assert asked == []


@pytest.mark.parametrize(
    ("state", "tally"),
    [
        (ProbeState.REFUSED, Tally(0, 1)),
        (ProbeState.UNREACHABLE, Tally(0, 0)),
        (ProbeState.RESET, Tally(0, 0)),
        (ProbeState.CERTIFICATE, Tally(0, 0)),
    ],
)
def test_only_a_handshake_that_succeeded_decides(scene: Scene, state: ProbeState, tally: Tally) -> None:
    scene.name(NEAR)
    scene.answers = state

    scene.round()

    assert scene.peering.tallies == {"h": tally}
    assert scene.telemetry.counted[0]["outcome"] == state.value


def test_a_round_that_crashed_is_told_and_the_next_one_comes(scene: Scene) -> None:
    scene.name(NEAR)
    scene.now_at += 2 * INTERVAL_MS
    scene.turn()
    scene.aside.outcome = Crash(ArithmeticError("unexpected"))

    crash = scene.turn()
    scene.round()

    assert crash is not None
    assert scene.asked == [NEAR]


def test_a_thread_aside_answers_once_it_is_done() -> None:
    go, aside = threading.Event(), AsideThread()

    def late() -> Answers:
        go.wait(10)
        return {"h": (ProbeState.RESUMED,)}

    aside.begin(late)
    assert aside.ended() is None
    go.set()
    found: list[Answers | Crash] = []

    def done() -> bool:
        found.extend(filter(None, [aside.ended()]))
        return bool(found)

    wait_until(done, "it is done")

    assert found == [{"h": (ProbeState.RESUMED,)}]
    assert aside.ended() is None
