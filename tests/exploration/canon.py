"""
A state as numbers that say only what matters: two states from which the same things may come are equal.

Windows are numbered by rank and keys as they are met in them, epochs and fences counted down from the highest, instants
from now, and an instant longer ago than anything asks about is just past. Which node is which matters to nobody, nor
which scheduler: both are put in order.

All of this is exact but for one thing: an epoch more than EPOCHS older than every window that still opens anything
counts as EPOCHS older. How many more rotations a leader who knows nothing of it would need to pass it is forgotten.
"""

import hashlib
import marshal
from typing import Any, TypeAlias

from keyrotd.core.decide import Memory, Seen
from keyrotd.core.messages import Beat, NodeState, Report
from keyrotd.core.reconcile import Held
from keyrotd.core.succession import Line, Succession, starts_at
from keyrotd.core.window import Key, Window
from tests.exploration.ring import PATIENCE, POLICY, Lease, Ring, Ruler, Sheet, window_of

EPOCHS = 3
#: Nothing asks about a settling further back: whatever sealed before it opens no longer.
SETTLED = POLICY.ticket_lifetime_ms + POLICY.eps_ms
#: Nor about a key so long after it sealed: its followers, too, open no longer.
SPENT = POLICY.max_stranded_ms + POLICY.max_seal_age_ms + 2 * POLICY.rotation_interval_ms + SETTLED
#: Followers are opened so long before anybody may seal with one.
AHEAD = POLICY.eps_ms + POLICY.rotation_interval_ms // 8

_STATES = {state: number for number, state in enumerate(NodeState)}

#: Tuples of numbers, nested.
Numbers: TypeAlias = tuple[Any, ...]


def canon(ring: Ring) -> bytes:
    return hashlib.blake2b(marshal.dumps(_Canon(ring).numbers(), 2), digest_size=16).digest()


class _Canon:
    def __init__(self, ring: Ring) -> None:
        self._ring, self._now = ring, ring.now
        windows = {window.digest: window for window in ring.windows()}
        self._windows = sorted(windows.values(), key=lambda w: (w.rank, w.digest))
        self._ids = {window.digest: number for number, window in enumerate(self._windows)}
        memories = [*(node.memory.floor for node in ring.nodes), *(ruler.memory.floor for ruler in ring.rulers)]
        self._epoch = max([*memories, *(window.epoch for window in self._windows)])
        opening = (window.epoch for window in self._windows if ring.now < window.seals_until + SPENT)
        self._oldest = min(opening, default=self._epoch) - EPOCHS
        fences = [ruler.fence for ruler in ring.rulers]
        self._fence = max([ring.store.fence, *fences, *(window.fence for window in self._windows)])
        self._sheets: dict[Window, Numbers] = {}
        self._keys: dict[bytes, int] = {}
        for window in self._windows:
            for key in window.all:
                if key is window.next or ring.now < (key.seals_until or key.opens_until) + SPENT:
                    self._keys.setdefault(key.name, len(self._keys))
        for line in sorted(_lines(ring), key=lambda line: (self._roots(line), starts_at(line.oldest), line.roots)):
            for key in (line.oldest, *line.open_at(ring.now)):
                self._keys.setdefault(key.name, len(self._keys))

    def numbers(self) -> Numbers:
        ring, store, lease = self._ring, self._ring.store, self._ring.store.lease
        if lease is not None and ring.now >= lease.until:
            lease = None
        rulers = [self._ruler(i, lease) for i in range(len(ring.rulers))]
        order = sorted(range(len(ring.rulers)), key=lambda i: rulers[i])
        reach = ring.now - ring.reached_at
        return (
            tuple(ring.luck),
            (ring.up, ring.lost, ring.tricked, min(reach, POLICY.node_ttl_ms + 1), ring.broken),
            tuple(self._window(window) for window in self._windows),
            (self._sheet(store.window), self._beat(store.beat), self._fence - store.fence, lease and lease.holder < 0),
            0 if lease is None else (lease.until - ring.now, self._fence - lease.fence),
            tuple(sorted(self._sheet(offer) for offer in store.offers)),
            tuple((request.goal.value, self._since(request.past_epoch)) for request in store.requests),
            (self._sheet(ring.replica.window), self._beat(ring.replica.beat), self._fence - ring.replica.fence),
            tuple(rulers[i] for i in order),
            tuple(sorted(self._node(index, order) for index in range(len(ring.nodes)))),
            tuple(sorted((self._key_id(name), ring.now - at) for name, at in ring.tickets)),
            tuple(sorted((self._ids[w.digest], *self._behind(at)) for w, at in ring.out)),
            tuple((self._sheet(window), self._beat(beat)) for window, beat in ring.past),
            max(ring.lost_until - ring.now, 0),
        )

    # Instants, epochs, names.

    def _ago(self, at: int | None, most: int) -> int:
        return -1 if at is None else min(self._now - at, most)

    def _behind(self, at: int) -> tuple[int, int]:
        # By the clock of who can reach the store, and by the other one, which it will have jumped to.
        most = max(POLICY.overdue_after_ms, POLICY.node_ttl_ms) + 1
        return self._ago(at, most), min(self._ring.reached_at - at, most)

    def _since(self, epoch: int) -> int:
        return -1 if epoch == 0 else self._epoch - max(epoch, self._oldest)

    def _key_id(self, name: bytes) -> int:
        return self._keys.get(name, -1)

    def _roots(self, line: Line) -> Numbers:
        """Return the keys of windows that `line` follows: nobody will ever ask it for another."""
        return tuple(self._keys[root] for root in line.roots if root in self._keys)

    def _id(self, digest: str | None) -> int:
        return -1 if digest is None else self._ids.get(digest, len(self._ids))

    def _sheet(self, window: Window | None) -> Numbers:
        if window is None:
            return ()
        known = self._sheets.get(window)
        if known is None:
            seedless = (self._key_id(key.name) for key in window.all if key.stek is None and key.name in self._keys)
            known = self._sheets[window] = (self._ids[window.digest], *seedless)
        return known

    def _memory(self, memory: Memory) -> Numbers:
        return self._since(memory.floor), self._since(memory.barrier)

    # Windows.

    def _window(self, window: Sheet) -> Numbers:
        current, following = window.current, window.next
        return (
            (self._since(window.epoch), self._fence - window.fence, self._since(window.barrier)),
            (self._ago(window.published_at, POLICY.spacing_ms), window.seals_until <= window.published_at),
            (self._ago(current.seals_from, POLICY.rotation_interval_ms), current.seals_from == current.made_at),
            self._ago(following.made_at, POLICY.rotation_interval_ms + POLICY.max_seal_age_ms),
            tuple(sorted(self._ids[digest] for digest in window.ancestors if digest in self._ids)),
            tuple(self._key(key) for key in (current, following)),
            tuple(sorted(self._key(key) for key in window.previous if key.name in self._keys)),
        )

    def _key(self, key: Key) -> Numbers:
        opens_ms = max(key.opens_until - self._now, 0)
        ends = () if key.seals_until is None else (self._from(key.seals_until),)
        return (self._key_id(key.name), self._since(key.born), opens_ms, self._from(key.steps_at), *ends)

    def _from(self, at: int) -> int:
        return max(at - self._now, -SPENT)

    # Who there is.

    def _beat(self, beat: Beat | None) -> Numbers:
        if beat is None:
            return ()
        instants = self._ago(beat.confirmed_at, SETTLED), self._ago(beat.signed_at, POLICY.max_seal_age_ms)
        return (self._id(beat.digest), self._since(beat.epoch), *instants)

    def _heard(self, beat: Beat | None) -> Numbers:
        if beat is None:
            return ()
        stored = (b for b in (self._ring.store.beat, self._ring.replica.beat) if b is not None)
        return (*self._beat(beat), *(b.signed_at > beat.signed_at for b in stored))

    def _ruler(self, index: int, lease: Lease | None) -> Numbers:
        ruler = self._ring.rulers[index]
        reign, holds = ruler.reign, lease is not None and lease.holder == index
        return (
            (ruler.up, ruler.stopped, ruler.worked, holds, self._memory(ruler.memory), self._fence - ruler.fence),
            (
                self._sheet(ruler.window),
                self._sheet(ruler.past),
                self._sheet(ruler.made),
                self._id(ruler.parent or None),
            ),
            ()
            if reign is None
            else (
                self._fence - reign.fence,
                self._ago(reign.began_at, POLICY.speak_ms),
                max(reign.ends_at - self._now, 0),
                self._ago(reign.settled_at, SETTLED),
                self._ago(reign.stood_at, POLICY.overdue_after_ms),
                self._sheet(reign.window),
            ),
        )

    def _node(self, index: int, order: list[int]) -> Numbers:
        node, report = self._ring.nodes[index], self._ring.store.reports[index]
        proven = () if node.proven is None else (self._id(node.proven[0].digest), *self._behind(node.proven[1]))
        return (
            (self._held(node.held), self._held(node.shown), tuple(self._sheet(source) for source in node.sources)),
            (self._memory(node.memory), node.spoken, node.cut, node.worked),
            (self._ago(node.heard_at, PATIENCE + 1), self._heard(node.beat)),
            proven,
            self._report(report),
            tuple(self._known(str(index), report, self._ring.rulers[i]) for i in order),
        )

    def _held(self, held: Held | None) -> Numbers:
        if held is None:
            return ()
        missed = held.confirmed_at is not None and held.confirmed_at > held.window.current.steps_at - AHEAD
        return (
            self._sheet(window_of(held)),
            tuple(sorted(self._key(key) for key in held.strays)),
            (held.confirmed, missed, held.spread, held.stood_in),
            tuple(self._keys[name] for name in held.sealed if name in self._keys),
            () if held.succession is None else self._lines(held.succession),
        )

    def _lines(self, lines: Succession) -> Numbers:
        others = tuple(sorted(self._line(line) for line in lines.others))
        return self._line(lines.current), self._line(lines.next), others

    def _line(self, line: Line | None) -> Numbers:
        if line is None:
            return ()
        return (self._roots(line), self._key(line.oldest), self._from(line.ends_at))

    def _report(self, report: Report | None) -> Numbers:
        if report is None:
            return ()
        memory = self._memory(Memory(floor=report.floor, barrier=report.barrier))
        digests = self._id(report.holds), self._id(report.read_back)
        return (_STATES[report.state], self._since(report.epoch), *digests, *memory)

    def _known(self, name: str, report: Report | None, ruler: Ruler) -> Numbers:
        seen: Seen | None = None
        if ruler.reign is not None:
            seen = next((node for node in ruler.reign.nodes if node.report.node == name), None)
        if seen is None:
            return ()
        news = 1 if report is None else report.counter - seen.report.counter
        ages = self._ago(seen.seen_at, POLICY.node_ttl_ms), self._ago(seen.behind_since, POLICY.overdue_after_ms)
        return (min(news, 1), *ages, self._report(seen.report) if news else ())


def _lines(ring: Ring) -> set[Line]:
    helds = [held for node in ring.nodes for held in (node.held, node.shown) if held is not None]
    return {line for held in helds if held.succession is not None for line in held.succession.lines}
