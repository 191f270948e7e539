"""
What is claimed of every fleet, checked after every step of every machine.

G1, no orphan ticket. At every instant every node in sync seals a ticket for a client; a ticket is the name of its key,
the instant of its issue and the node that issued it. Until it is T old it opens on every node in sync. Checking the
youngest ticket of each key on every node after every step is all tickets of every age at every node at every instant.

*In sync* (DESIGN 2), to the letter and as strict as it can be read:

- "within node_ttl of now (or, if no node can reach the store, of the last moment any could) the node read back the
  published window or its parent": a tick of its agent that reached the store ended with that window's digest as read
  back. The published window is the highest by rank that was ever published and that anybody still has: the store, a
  node or a scheduler; not the one that a store which lost a write happens to show.
- "and has not been behind for longer than overdue_after": since the first window came out that is newer than its own.
  The clock of this, too, stands while no node can reach the store. Any older window counts for so long, not the parent
  alone: else a leader that ran two windows ahead of a live node would put it out of sync rather than in the wrong.
- Its agent lives: within node_ttl of now a tick ran to its end, and it holds a window. The clock of the agent's life
  does not stand while the store is away. What the server of a dead agent goes on sealing after `seals_until` is outside
  G1, as it is outside G3.
- A node that came without a cache to a stranded fleet, after the store had lost a seed that it went on along and the
  nodes had forgotten that seed, is not in sync until T after all have read what a leader who came back published:
  what was sealed before, only who went on can open.
- A leader who has no seed at all begins anew, and whoever has its window gives the others eps + R/8, store or no store:
  who could not read it by then, because the store went away, is not in sync.
- What the store lost and then only nodes have that the leader who mends has not heard since (cut off, frozen or down,
  so not in sync) nobody in step can have: tickets of such a key that were issued before are not counted.
- A server without a key file that was restarted is not in sync until its keys were read back again; one with a file is.
- Between the publish of a revocation and its installation a node is not in sync: what it seals is burnt by intent.
  That holds for a revocation done again because the store lost it.

A node in sync seals with a shared key: one of its window's, or without a leader one that follows those. Only
`max_stranded` after its window's `seals_until` may it seal with a key of its own, and for eps after a leader began anew
because it came back later than that: a ticket under such a key counts as any other before, and would be an orphan.

Keys that a server has no slot for are outside G1, and counted apart (`crowded`). Scenes without a lost write assert
that there were none where the policy is possible for the slots.

G3, bounded keys. No server seals with a shared key later than the highest `seals_until` that was signed for it (or the
`steps_at` up to which a stranded node seals with `next`), nor opens one later than the highest `opens_until`, plus eps
and the fault model's skew, nor does any key seal for longer than max_seal_age from the first server to the last (where
the store lost the window that promoted it, and another promoted it again, from that one's instant on); of a key that
follows another the bounds are computed here, by its place in the line. This needs a living agent: a node
counts while its agent runs, its last tick ran to its end and its servers obeyed, however long it paused since. A key
that a ring buffer may not drop before the fleet has confirmed the window lingers at most until that window's
`seals_until`. An agent that lost its cache while it cannot reach the store leaves a running server alone (G5) up to the
bound that it remembers, and does not count before it holds a window again.

Besides: `seals_until` and `opens_until` of a key are never raised once it has sealed, unless the store lost writes;
floors and barriers on disk never fall; two windows over one parent are published only if the store lost one, and fences
never fall; nothing stored and nothing on a persistent disk holds a seed.

The fault model in which this is claimed: any number of crashes at any effect, lost answers, lost polls, lost wake-ups,
outages of any length, partitions, restarts and reboots of nodes, scheduler memory lost; servers that refuse for less
than overdue_after, and where a node goes on without a leader for less than R/8; wall clocks of schedulers within
`skew_ms` of true time and boot clocks within 500 ppm; the store loses all, or its last write of a window, once within
`calm_ms`.
"""

import sys
from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from keyrotd.core.keys import Keys
from keyrotd.core.reconcile import Held
from keyrotd.core.succession import Line, after, starts_at, succession
from keyrotd.core.window import Key, Window
from keyrotd.daemon.state import recall
from keyrotd.seal.window import open_window
from keyrotd.testing.folder import MemoryFolder
from keyrotd.testing.twins import MemoryServer as Twin

if TYPE_CHECKING:
    from tests.simulation.world import Fleet, Node


class Broken(AssertionError):  # noqa: N818 - said of a claim
    """A claim does not hold."""


class Orphan(Broken):
    """G1 does not hold."""


@dataclass
class Claims:
    world: "Fleet"
    newest: Window | None = None
    windows: dict[str, Window] = field(default_factory=dict)
    out_at: dict[str, int] = field(default_factory=dict)
    skew_ms: int = 0
    handshakes: int = 0
    crowded: int = 0
    crashes: int = 0
    orphans: int = 0

    def __post_init__(self) -> None:
        self._by_rank: list[tuple[tuple[int, int, int, int], int]] = []  # and when each came out
        self._newest_digest = ""
        self._lost_at: int | None = None  # when the store last lost anything, unless a window was published since
        self._ever_lost = False
        self._fence = 0
        self._lost_until = 0  # T after a leader came back that did not know what nodes had gone on along
        self._whole_rank: tuple[int, int, int, int] | None = None  # of the first window after that which has all seeds
        self._newcomers: set[str] = set()  # nodes without the seeds that others went on along
        self._followers: set[bytes] = set()
        self._first_sealed: dict[bytes, int] = {}  # when anybody first sealed with a key
        self._sealed: dict[bytes, tuple[int, str]] = {}  # the youngest ticket of each key
        self._given: dict[bytes, tuple[int, int]] = {}  # signed
        self._promoted: dict[bytes, set[int]] = {}
        self._bounds: dict[bytes, tuple[int, int]] = {}  # signed, or by succession
        self._lines: dict[bytes, Line] = {}  # by the name of the first
        self._keys: dict[bytes, Key] = {}
        self._memories: dict[str, tuple[int, int]] = {}
        self._secrets: list[tuple[bytes, bytes, bytes]] = []
        self._combed: dict[str, bytes] = {}

    # What happens.

    def published(self, sealed: bytes) -> None:
        """A window stands in the store that was not there before."""
        world = self.world
        window = open_window(sealed, verifiers=(world.signer.verify_key,), keks=world.keks, ring="edge")
        self._check_order(window)
        self.windows[window.digest] = window
        self.out_at.setdefault(window.digest, world.now)
        self._by_rank = sorted((w.rank, self.out_at[digest]) for digest, w in self.windows.items())[-12:]
        for key in window.all:
            self._note_key(key)
        for line in succession(window).lines:
            self._lines.setdefault(line.oldest.name, line)
        if None in {window.current.stek, window.next.stek}:
            self._lost_until, self._whole_rank = sys.maxsize, None
        elif self._lost_until == sys.maxsize or (self._ever_lost and self._lost_on(window)):
            self._lost_until, self._whole_rank = sys.maxsize, window.rank
        if self.newest is None or window.rank > self.newest.rank:
            self._enthrone(window)
        self._burn(window)
        if self._lost_at is not None:
            self._give_up(window, self._lost_at)
        self._lost_at = None

    def _check_order(self, window: Window) -> None:
        if window.fence < self._fence and not self._ever_lost:
            self._broken(f"window {window.epoch} was published under fence {window.fence} after {self._fence}")
        self._fence = max(self._fence, window.fence)
        place = (window.epoch, window.ancestors)
        twins = {w.digest for w in self.windows.values() if (w.epoch, w.ancestors) == place} - {window.digest}
        if twins and self._lost_at is None:
            self._broken(f"window {window.epoch} was published twice over one parent")

    def _note_key(self, key: Key) -> None:
        self._keys[key.name] = key
        if key.seals_from is not None:
            self._promoted.setdefault(key.name, set()).add(key.seals_from)
        seals_until, opens_until = key.seals_until or 0, key.opens_until
        if key.name in self._given:
            seals_before, opens_before = self._given[key.name]
            raised = seals_before and (seals_until > seals_before or opens_until > opens_before)
            if raised and not self._ever_lost:
                self._broken(f"key {key.name.hex()[:8]} was given longer than was signed for it before")
            seals_until, opens_until = max(seals_until, seals_before), max(opens_until, opens_before)
        self._given[key.name] = seals_until, opens_until
        self._bind(key, max(seals_until, key.steps_at if key.seals_from is None else 0), opens_until)

    def _bind(self, key: Key, seals_until: int, opens_until: int) -> None:
        seals_before, opens_before = self._bounds.get(key.name, (0, 0))
        self._bounds[key.name] = max(seals_until, seals_before), max(opens_until, opens_before)

    def _follow(self) -> None:
        """Learn the keys that follow those of any window, a step ahead of the time."""
        for first, line in self._lines.items():
            key = line.oldest
            while starts_at(key) < line.ends_at and starts_at(key) <= self.world.now + 2 * key.step_ms:
                assert key.stek is not None  # the lines of an opened window
                self._keys.setdefault(key.name, key)
                self._followers.add(key.name)
                self._bind(key, key.steps_at, key.opens_until)
                self.secret(key.stek.seed)
                key = after(key)
            self._lines[first] = replace(line, oldest=key)

    def _burn(self, window: Window) -> None:
        everything = window.barrier == window.epoch  # whatever was sealed up to now, by intent
        for name in list(self._sealed):
            if everything or (name in self._keys and self._keys[name].born < window.barrier):
                del self._sealed[name]

    def _give_up(self, window: Window, lost_at: int) -> None:
        """Count no ticket from before of a key that only nodes have which were not heard since."""
        known = {key.name for key in window.all}
        for node in self.world.nodes:
            held = node.agent._held if node.up else None
            if held is not None and node.read_back is not None and node.read_back[1] >= lost_at:
                known |= {key.name for key in (*held.window.all, *held.strays, *_followers(held, node))}
        for name in self._sealed.keys() - known:
            del self._sealed[name]

    def _lost_on(self, window: Window) -> bool:
        """Whether it lacks a follower that has live tickets, or a leader began anew whom nobody told of a window."""
        if not window.ancestors:
            return True
        held = {key.name for key in window.all}
        return any(name in self._followers and name not in held for name in self._sealed)

    def store_lost(self) -> None:
        """The store went back."""
        self._lost_at, self._ever_lost = self.world.now, True
        self._choose_newest()

    def _choose_newest(self) -> None:
        """What nobody has any more was never published."""
        held = {digest for digest in self.windows if self._anybody_has(digest)}
        self._enthrone(max((self.windows[digest] for digest in held), key=lambda w: w.rank, default=None))

    def _enthrone(self, window: Window | None) -> None:
        self.newest = window
        self._newest_digest = "" if window is None else window.digest

    def _anybody_has(self, digest: str) -> bool:
        world = self.world
        stored = world.store.ring("edge").window
        if stored is not None and stored.digest == digest:
            return True
        if any(n.up and n.agent._held is not None and n.agent._held.window.digest == digest for n in world.nodes):
            return True
        if any(node.read_back is not None and node.read_back[0] == digest for node in world.nodes):
            return True  # its server does, at least
        # A standby says nothing of what it published when it led, until it leads again.
        return any(r.leads and r.daemon._window is not None and r.daemon._window.digest == digest for r in world.rulers)

    def crashed(self, name: str) -> None:
        _ = name
        self.crashes += 1

    def secret(self, seed: bytes) -> None:
        self._secrets.append((seed, seed.hex().encode(), b64encode(seed)))

    def remembered(self, name: str, state: MemoryFolder) -> None:
        for file, data in state.files.items():
            if self._combed.get(name + file) == data:
                continue
            self._comb(data, f"{name}'s {file}")
            self._combed[name + file] = data
            memory = recall(state, file).memory
            before = self._memories.get(name, (0, 0))
            if memory.floor < before[0] or memory.barrier < before[1]:
                self._broken(f"{name}: floor and barrier fell from {before} to {memory}")
            self._memories[name] = memory.floor, memory.barrier

    def forgot(self, name: str) -> None:
        """A machine's disk is new."""
        self._memories.pop(name, None)

    # What holds.

    def before(self) -> None:
        """Everybody in sync has sealed tickets up to this very instant."""
        for node in self.world.nodes:
            if self.in_sync(node):
                for twin in node.servers:
                    self._seal(node, twin)

    def _seal(self, node: "Node", twin: Twin) -> None:
        stek, now = twin.sealing, self.world.now
        name = b"" if stek is None else stek.name
        if name not in self._bounds:
            self._follow()
        if name not in self._bounds and self._may_be_alone(node):
            return
        if name in self._bounds and now > self._bounds[name][0] - self.skew_ms and not self._attentive(node):
            return
        self._sealed[name] = now, node.name

    def _may_be_alone(self, node: "Node") -> bool:
        now = self.world.now
        assert node.read_back is not None  # it is in sync
        window = self.windows[node.read_back[0]]
        forlorn_at = window.seals_until + window.max_stranded_ms
        if now >= forlorn_at - self._slack_ms or (_anew(window) and now < window.published_at + self._slack_ms):
            return True
        # The first window of the ring, mended before its nodes had it: they cannot know that nobody else had, either.
        born = {w.current.name for w in self.windows.values() if not w.ancestors}
        spread_at = (window.current.seals_from or 0) + window.eps_ms + window.current.step_ms // 8
        return window.current.name in born and now < spread_at + self._slack_ms

    def after(self) -> None:
        stored = self.world.store.ring("edge").window
        if self.newest is not None and (stored is None or stored.digest != self._newest_digest):
            self._choose_newest()  # whoever alone had it may have gone
        synced = [node for node in self.world.nodes if self.in_sync(node)]
        oldest_at = self.world.now - self.world.policy.ticket_lifetime_ms
        for name in [name for name, (at, _) in self._sealed.items() if at <= oldest_at]:
            del self._sealed[name]
        for node in synced:
            for twin in node.servers:
                opening = frozenset[bytes]() if twin.keys is None else {stek.name for stek in twin.keys.opening}
                self.handshakes += len(self._sealed)
                for name in self._sealed:
                    if name not in opening:
                        self._not_opened(name, node, twin)
        for node in self.world.nodes:
            if self._attentive(node):
                for twin in node.servers:
                    self._check_bounds(node, twin)
        self._comb_store()

    def _not_opened(self, name: bytes, node: "Node", twin: Twin) -> None:
        at, issuer = self._sealed[name]
        held = node.agent._held
        known = () if held is None else (*held.window.all, *held.strays, *_followers(held, node))
        if twin.slots is not None and any(key.name == name and key.stek is not None for key in known):
            self.crowded += 1
            return
        self.orphans += 1
        age = (self.world.now - at) / 1000
        raise Orphan(
            self._words(
                f"a ticket of {issuer}, sealed with {name.hex()[:8]} {age:.1f} s ago, does not open on {node.name}"
            )
        )

    def in_sync(self, node: "Node") -> bool:
        return self.follows(node) and not self._bereft(node)

    def follows(self, node: "Node") -> bool:
        """Whether the node is in sync by what it has read back and by when."""
        newest, policy, now = self.newest, self.world.policy, self.world.now
        if node.read_back is None or not (node.runtime.files if not node.up else node.agent._held):
            self._newcomers.add(node.name)  # its cache is gone
        if node.read_back is None or newest is None:
            return False
        digest, at = node.read_back
        window = self.windows.get(digest)
        if window is None or window.barrier != newest.barrier:
            return False
        reference_at = now if self.world.reachable else self.world.last_reach_at
        if reference_at - at >= policy.node_ttl_ms or not self._lives(node):
            return False
        if digest == self._newest_digest:
            return True
        newer = [known for known in self._by_rank if window.rank < known[0] <= newest.rank]
        if any(barrier == epoch for (barrier, epoch, *_), _ in newer) or self._missed_what_began_anew(window, newest):
            return False
        # None is newer where a node alone holds what the store lost.
        return reference_at - min((out_at for _, out_at in newer), default=reference_at) <= policy.overdue_after_ms

    def _missed_what_began_anew(self, window: Window, newest: Window) -> bool:
        if self.world.reachable:
            return False
        anew = (w for w in self.windows.values() if window.rank < w.rank <= newest.rank and _anew(w))
        return any(self.world.now >= _spread_at(w) - self.skew_ms for w in anew)

    def _bereft(self, node: "Node") -> bool:
        stored, newest = self.world.store.ring("edge").window, self.newest
        lost = newest is not None and (stored is None or stored.digest != newest.digest)
        if lost and newest is not None and self.world.now >= newest.seals_until - self._slack_ms:
            self._lost_until = sys.maxsize
        whole = self._whole_rank
        read = [self.windows.get(node.read_back[0]) for node in self.world.nodes if node.read_back is not None]
        shown = [window.rank for window in read if window is not None]
        if whole is not None and len(shown) == len(self.world.nodes) and min(shown) >= whole:
            # Until then nodes seal with what they went on along, unless they hear that all have the new keys.
            settled_at = max(self.world.now, 0 if newest is None else _spread_at(newest))
            self._lost_until = settled_at + self.world.policy.ticket_lifetime_ms + self._slack_ms
            self._whole_rank = None
        if self.world.now >= self._lost_until:
            self._newcomers.discard(node.name)
        return node.name in self._newcomers and self.world.now < self._lost_until

    def _lives(self, node: "Node") -> bool:
        if node.agent._held is None if node.up else not node.runtime.files:
            return False
        if node.refused_at is not None and self.world.now - node.refused_at > self._patience_ms(node):
            return False
        return node.ticked_at >= 0 and self.world.now - node.ticked_at < self.world.policy.node_ttl_ms

    def _patience_ms(self, node: "Node") -> int:
        """How long its servers may refuse: a key of succession is opened no earlier for a longer overdue_after."""
        patience_ms = self.world.policy.overdue_after_ms
        held = node.agent._held
        if held is None or held.succession is None:
            return patience_ms
        return min(patience_ms, held.window.current.step_ms // 8)

    def _attentive(self, node: "Node") -> bool:
        # However long it pauses: that is its own choice.
        alive = node.up and not node.frozen and node.agent._held is not None
        return alive and 0 <= node.obeyed_at == node.ticked_at and node.alarm_at > self.world.now

    @property
    def _slack_ms(self) -> int:
        return self.world.policy.eps_ms + self.skew_ms

    def _check_bounds(self, node: "Node", twin: Twin) -> None:
        now, keys = self.world.now, twin.keys
        if keys is None:
            return
        sealing = self._bounds.get(keys.current.name)
        if sealing is not None and self._attentive(node):
            first_at = self._first_sealed.setdefault(keys.current.name, now)
            promoted = self._promoted.get(keys.current.name, set())
            if len(promoted) > 1:
                first_at = max(first_at, *promoted)
            lasted_ms = now - first_at
            if lasted_ms > self.world.policy.max_seal_age_ms + self._slack_ms:
                self._broken(f"{keys.current.name.hex()[:8]} has sealed for {lasted_ms / 1000:.1f} s")
        if sealing is not None and now > sealing[0] + self._slack_ms:
            late = (now - sealing[0]) / 1000
            self._broken(f"{node.name} seals with {keys.current.name.hex()[:8]} {late:.1f} s after its seals_until")
        self._check_tenure(node, keys, sealing)
        held = node.agent._held
        for stek in keys.opening:
            if stek.name not in self._bounds:
                continue
            until = self._bounds[stek.name][1]
            if twin.ring_buffer and held is not None:
                until = max(until, held.window.seals_until)
            if now > until + self._slack_ms:
                late = (now - until) / 1000
                self._broken(f"{node.name} opens {stek.name.hex()[:8]} {late:.1f} s after its opens_until")

    def _check_tenure(self, node: "Node", keys: Keys, sealing: tuple[int, int] | None) -> None:
        """A server that keeps time is told of the bound, so that it stops even if its agent has died."""
        if keys.tenure is None or keys.tenure.boot_id != node.clock.boot_id:
            return
        until_ms = keys.tenure.seals_until_ms
        if sealing is not None and until_ms is None:
            self._broken(f"{node.name} gave a shared key without saying until when it seals")
        if sealing is not None and until_ms is not None:
            late_ms = self.world.now + until_ms - node.clock.boot_ms() - sealing[0]
            if late_ms > self._slack_ms:
                self._broken(f"{node.name} lets a server seal {late_ms / 1000:.1f} s beyond the seals_until of its key")

    def _comb_store(self) -> None:
        ring = self.world.store.ring("edge")
        values = {"window": b"" if ring.window is None else ring.window.window, "beat": ring.beat or b""}
        values |= {f"offer {k}": v for k, v in ring.offers.items()}
        values |= {f"report {k}": v for k, v in ring.reports.items()}
        values |= {f"event {i}": v for i, v in enumerate(ring.history[:1])}
        for name, value in values.items():
            if self._combed.get(name) is not value:
                self._comb(value, f"the stored {name}")
                self._combed[name] = value

    def _comb(self, data: bytes, where: str) -> None:
        for forms in self._secrets[-12:]:
            if any(form in data for form in forms):
                self._broken(f"{where} holds a seed")

    def _broken(self, found: str) -> None:
        raise Broken(self._words(found))

    def _words(self, found: str) -> str:
        newest = "none" if self.newest is None else str(self.newest.epoch)
        at = (self.world.now - self.world.began_at) / 1000
        return f"seed {self.world.seed}, at {at:.1f} s, newest window {newest}: {found}"


def _anew(window: Window) -> bool:
    """Whether a leader began anew, for want of a key to go on along."""
    sprung = window.current.made_at == window.published_at
    return sprung and bool(window.ancestors) and window.current.born != window.barrier


def _spread_at(window: Window) -> int:
    """Until when whoever has a window that began anew waits for those who have not, unless it hears that all have."""
    return window.published_at + window.eps_ms + window.current.step_ms // 8


def _followers(held: Held, node: "Node") -> tuple[Key, ...]:
    return () if held.succession is None else held.succession.open_at(node.agent._fleet.latest() or 0)
