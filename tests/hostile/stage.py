"""A simulated fleet whose store has a hostile owner, and what must hold whatever that one does."""

from dataclasses import dataclass, field
from typing import Any

from keyrotd.core.messages import Beat, Goal
from keyrotd.core.window import Key, Window
from keyrotd.seal.messages import read_event
from keyrotd.seal.window import open_window
from keyrotd.testing.twins import MemoryServer as Twin
from tests.simulation.claims import Claims
from tests.simulation.weather import BRISK
from tests.simulation.world import RING, Fleet, Node

#: As long as an operator's word counts (core/decide).
_WORD_MS = 600_000


@dataclass
class Watch(Claims):
    """
    Promises that need no honest store: nothing unsigned, nothing ordered, no key lost, nothing beyond its bound.

    That tickets resume everywhere is not among them: a store that keeps things back costs resumption.
    """

    asked_at: int | None = None
    barrier: int = 0
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)
    held: dict[str, Window | None] = field(default_factory=dict)
    strays: dict[str, tuple[Key, ...]] = field(default_factory=dict)
    forged: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ever_lost = True

    def _check_order(self, window: Window) -> None:
        if window.barrier > self.barrier:
            self.barrier = window.barrier
            self._check_asked(f"window {window.epoch} burns all before it")

    def recorded(self, event: bytes) -> None:
        signed = read_event(event, verifiers=(self.world.signer.verify_key,), ring=RING)
        if signed.who:
            self._check_asked(f"{signed.kind} for {signed.who}")

    def _check_asked(self, what: str) -> None:
        if self.asked_at is None or self.world.now - self.asked_at > _WORD_MS + self.world.policy.speak_ms:
            self._broken(f"{what}, and nobody asked for it")

    def before(self) -> None:
        """Tickets are no matter here."""

    def after(self) -> None:
        for node in self.world.nodes:
            self._check_node(node)
            if self._attentive(node):
                self._follow()
                for twin in node.servers:
                    self._check_bounds(node, twin)
        self._comb_store()

    def _check_node(self, node: Node) -> None:
        if not node.up:
            return
        held = node.agent._held
        if held is not None:
            window = held.window
            if window.digest not in self.windows:
                self._broken(f"{node.name} took window {window.epoch} {window.digest[:8]}, which nobody signed")
            rank = (window.barrier, window.epoch)
            if rank < self.ranks.get(node.name, (0, 0)):
                self._broken(f"{node.name} went back from {self.ranks[node.name]} to {rank}")
            self._check_dropped(node, window, {key.name for key in (*window.all, *held.strays)})
            self.ranks[node.name], self.held[node.name], self.strays[node.name] = rank, window, held.strays
        for twin in node.servers:
            self._check_served(node, twin)

    def _check_dropped(self, node: Node, window: Window, names: set[bytes]) -> None:
        before = self.held.get(node.name)
        if before is None or before.digest == window.digest:
            return
        past = self.world.now + self._slack_ms
        owed = self.strays[node.name] if before.digest in window.ancestors else (*before.all, *self.strays[node.name])
        lost = [
            key
            for key in owed
            if key.stek is not None and key.opens_until > past and key.born >= window.barrier and key.name not in names
        ]
        if lost:
            self._broken(f"{node.name} lost {', '.join(key.name.hex()[:8] for key in lost)} for window {window.epoch}")

    def _check_served(self, node: Node, twin: Twin) -> None:
        if twin.keys is None:
            if node.ticked_at - self.world.began_at > 3 * self.world.policy.poll_interval_ms:
                self._broken(f"the server of {node.name} has no keys")
            return
        opening = {stek.name for stek in twin.keys.opening}
        if opening & self.forged:
            self._broken(f"{node.name} opens what the attacker made")
        held = node.agent._held
        if held is None or not self._attentive(node):
            return
        past = self.world.now + self._slack_ms
        lacking = [
            key
            for key in (*held.window.all, *held.strays)
            if key.stek is not None and key.opens_until > past and key.name not in opening
        ]
        if lacking:
            self._broken(f"{node.name} holds {', '.join(key.name.hex()[:8] for key in lacking)} and does not open it")


class Stage(Fleet):
    """A fleet in order, one revoke away from anything that the attacker could wish for."""

    claims: Watch

    def __init__(self, seed: int) -> None:
        super().__init__(BRISK, seed=seed, schedulers=2)
        self.claims = Watch(self)
        for _ in range(2):
            self.add_node(Twin(name="tls", file=True))

    def told(self, operation: str, words: dict[str, Any]) -> None:
        """Hear what a scheduler signs, whether or not it ever gets anywhere."""
        if operation == "publish":
            self.claims.published(words["window"])
        else:
            self.claims.recorded(words["event"])

    def look_for_publish(self) -> None:
        """See `told`."""

    def keep_replica(self) -> None:
        """Leave it to the attacker."""

    def ask(self, goal: Goal = Goal.ROTATE, *, drop_live_keys: bool = False) -> None:
        self.claims.asked_at = self.now
        super().ask(goal, drop_live_keys=drop_live_keys)

    def beat(self, digest: str, epoch: int) -> Beat:
        return Beat(ring=RING, epoch=epoch, digest=digest, confirmed_at=self.now, signed_at=self.now)

    def opened(self, sealed: bytes) -> Window:
        return open_window(sealed, verifiers=(self.signer.verify_key,), keks=self.keks, ring=RING)
