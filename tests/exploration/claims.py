"""
What must hold in every reachable state. "In sync" and G1 are those of tests/simulation/claims, to the letter.

Every node in sync seals a ticket at every instant at which it is looked at: under each key the youngest ticket is kept,
and until it is T old it opens on every node in sync. G1 is not claimed once the store's owner has put something there.

Always, whatever the store's owner does: who has its state never holds, shows or signs a key from before its barrier;
floors and barriers never fall; a node that holds a window never goes back behind it; no server seals with a key later
than was signed for it. No key is signed to seal for longer than max_seal_age, nor to open T + eps after; and until the
store loses something or is tricked, none is given longer than was signed for it before, fences never fall, and no two
windows are published over one parent.
"""

from keyrotd.core.decide import Memory
from keyrotd.core.reconcile import Held
from tests.exploration.agents import OWN, serving
from tests.exploration.ring import POLICY, Node, Ring, Ruler, Sheet, window_of

T_MS = POLICY.ticket_lifetime_ms


def judged(before: Ring, after: Ring) -> Ring:
    """Return `after` with its tickets, and broken if a claim does not hold in it."""
    fault = after.broken or _memories(before, after) or _burnt(after) or _late(after)
    if fault:
        return after._replace(broken=fault)
    if after.up and not all(node.cut for node in after.nodes):
        after = after._replace(reached_at=after.now)
    after = after._replace(nodes=tuple(_in_time(after, node) for node in after.nodes))
    newest = _newest(after)
    if newest is None or after.tricked:
        return after._replace(tickets=(), out=())
    after = after._replace(out=_recent(after))
    synced = [index for index, node in enumerate(after.nodes) if in_sync(after, node, newest)]
    after = after._replace(tickets=_tickets(after, synced, newest))
    return after._replace(broken=_orphan(after, synced))


def _in_time(ring: Ring, node: Node) -> Node:
    """What was read back longer than node_ttl ago counts no more."""
    out = node.proven is not None and ring.reached_at - node.proven[1] >= POLICY.node_ttl_ms
    return node._replace(proven=None) if out else node


def in_sync(ring: Ring, node: Node, newest: Sheet) -> bool:
    if node.proven is None or node.shown is None:
        return False
    window, _ = node.proven
    if window.barrier != newest.barrier or _bereft(ring, node):
        return False
    if window.digest == newest.digest:
        return True
    newer = [(w, at) for w, at in ring.out if window.rank < w.rank <= newest.rank]
    if any(w.barrier == w.epoch for w, _ in newer):
        return False  # what it seals is burnt by intent
    # Not at that very instant: a leader waits no longer then, and here whatever it publishes is installed at once.
    return bool(newer) and ring.reached_at - min(at for _, at in newer) < POLICY.overdue_after_ms


def _newest(ring: Ring) -> Sheet | None:
    """The highest by rank of all published windows that anybody still has."""
    found = [ring.store.window, *ring.store.offers, *(w for ruler in ring.rulers for w in (ruler.window, ruler.past))]
    for node in ring.nodes:
        found += [window_of(held) for held in (node.held, node.shown) if held is not None]
        found += [] if node.proven is None else [node.proven[0]]
    return max((w for w in found if w is not None), key=lambda w: w.rank, default=None)


def _recent(ring: Ring) -> tuple[tuple[Sheet, int], ...]:
    """Keep what came out lately, and what says since when a node is behind."""
    proven = [node.proven[0].rank for node in ring.nodes if node.proven is not None]
    kept: list[tuple[Sheet, int]] = []
    for window, at in ring.out:  # the oldest first
        ranks = [rank for rank in proven if rank < window.rank]
        says = any(not any(rank < w.rank <= window.rank for w, _ in kept) for rank in ranks)
        if says or ring.reached_at - at < POLICY.overdue_after_ms or (ranks and window.barrier == window.epoch):
            kept.append((window, at))
    return tuple(kept)


def _tickets(ring: Ring, synced: list[int], newest: Sheet) -> tuple[tuple[bytes, int], ...]:
    tickets = dict(ring.tickets)
    for node in (ring.nodes[index] for index in synced):
        assert node.shown is not None  # it is in sync
        name, _ = serving(node.shown, ring.now)
        if name not in OWN or not _may_be_alone(ring, node):
            tickets[name] = ring.now
    if newest.barrier:
        for name in {key.name for window in ring.windows() for key in window.all if key.born < newest.barrier}:
            tickets.pop(name, None)  # burnt by intent
    return tuple(sorted(item for item in tickets.items() if ring.now - item[1] < T_MS))


def _may_be_alone(ring: Ring, node: Node) -> bool:
    """Only so long without a leader, or just after one began anew, a node in sync seals with a key of its own."""
    assert node.proven is not None  # it is in sync
    window = node.proven[0]
    anew = window.current.made_at == window.published_at and bool(window.ancestors)
    anew = anew and window.current.born != window.barrier and ring.now < window.published_at + POLICY.eps_ms
    return anew or ring.now >= window.seals_until + window.max_stranded_ms


def _bereft(ring: Ring, node: Node) -> bool:
    """Whether it lacks seeds that others went on along, which the store and every scheduler had lost."""
    held, shown = node.held, node.shown
    if held is None or shown is None or (held.succession is not None and not held.succession.lines):
        return True
    return ring.now < ring.lost_until and not _followed(ring) <= serving(shown, ring.now)[1]


def lost_on(ring: Ring, made: Sheet) -> bool:
    """Whether a window lacks a key that nodes went on along and that has live tickets, because it was lost."""
    return ring.lost and not _followed(ring) <= {key.name for key in made.all}


def _followed(ring: Ring) -> set[bytes]:
    """Return the keys with live tickets that no window has: they follow one by succession."""
    given = {key.name for window in ring.published() for key in window.all}
    return {name for name, _ in ring.tickets} - given - OWN


def _orphan(ring: Ring, synced: list[int]) -> str:
    for index in synced:
        node = ring.nodes[index]
        assert node.shown is not None  # it is in sync
        _, opening = serving(node.shown, ring.now)
        for name, at in ring.tickets:
            if name not in opening or name in OWN:
                key = name.hex()[:8]
                return f"orphan: a ticket sealed with {key} {ring.now - at} ago does not open on node {index}"
    return ""


def _burnt(ring: Ring) -> str:
    for index, node in enumerate(ring.nodes):
        # What its server refuses to let go, its report says.
        shown = node.shown if node.shown is not None and node.held is not None else node.held
        refused = shown is not None and node.held is not None and shown.window.digest != node.held.window.digest
        for held in (node.held, None if refused else shown):
            keys = () if held is None else (*held.window.all, *held.strays)
            if any(key.born < node.memory.barrier and key.open_at(ring.now) for key in keys):
                return f"barrier: node {index} has the barrier {node.memory.barrier} and a key from before it"
    return ""


def _late(ring: Ring) -> str:
    for index, node in enumerate(ring.nodes):
        if node.shown is not None:
            sealing, _ = serving(node.shown, ring.now)
            until = _until(node.shown, sealing)
            if until is not None and ring.now >= until:
                return f"bound: node {index} seals with {sealing.hex()[:8]} after its seals_until"
    return ""


def _until(shown: Held, name: bytes) -> int | None:
    """Until when a key may seal: a `next`, at a stranded node, until the key that follows it does."""
    followers = () if shown.succession is None else (line.oldest for line in shown.succession.lines)
    for key in (*shown.window.all, *shown.strays):
        if key.name == name:
            return key.steps_at if key.seals_until is None else key.seals_until
    return max((key.steps_at for key in followers if key.name == name), default=None)


def _memories(before: Ring, after: Ring) -> str:
    for index, (was, node) in enumerate(zip(before.nodes, after.nodes, strict=True)):
        if _fell(was.memory, node.memory):
            return f"floor: that of node {index}, or its barrier, fell"
        if was.held is not None and node.held is not None and node.held.window.rank < was.held.window.rank:
            return f"floor: node {index} went back to an older window"
    for index, (had, ruler) in enumerate(zip(before.rulers, after.rulers, strict=True)):
        if ruler.up and had.up and _fell(had.memory, ruler.memory):
            return f"floor: that of scheduler {index}, or its barrier, fell"
    return ""


def _fell(before: Memory, after: Memory) -> bool:
    return after.floor < before.floor or after.barrier < before.barrier


def unsigned(ring: Ring, ruler: Ruler, made: Sheet) -> str:
    """Say what a scheduler may not sign, by its own memory or by what was signed before."""
    if made.epoch <= ruler.memory.floor:
        return f"floor: a scheduler with floor {ruler.memory.floor} signs window {made.epoch}"
    if min(key.born for key in made.all) < ruler.memory.barrier or made.barrier < ruler.memory.barrier:
        return f"barrier: a scheduler with barrier {ruler.memory.barrier} signs a window with a key from before it"
    most = POLICY.ticket_lifetime_ms + POLICY.eps_ms
    for key in made.all:
        if key.seals_until is None or key.seals_from is None:
            continue
        if key.seals_until - key.seals_from > POLICY.max_seal_age_ms or key.opens_until - key.seals_until > most:
            return f"bound: window {made.epoch} signs a key for longer than the policy"
        before = [k for w in ring.published() for k in w.all if k.name == key.name and k.seals_until is not None]
        raised = any(key.seals_until > (k.seals_until or 0) or key.opens_until > k.opens_until for k in before)
        if raised and not ring.lost and not ring.tricked:
            return f"bound: window {made.epoch} gives a key longer than was signed for it before"
    return ""


def out_of_turn(ring: Ring, made: Sheet) -> str:
    """Say what a store that forgot nothing may not take."""
    if ring.lost or ring.tricked:
        return ""
    published = [*ring.published()]
    newest = max((window.fence for window in published), default=0)
    if made.fence < newest:
        return f"fence: window {made.epoch} was published under fence {made.fence} after {newest}"
    twins = (w for w in published if (w.epoch, w.ancestors) == (made.epoch, made.ancestors) and w is not made)
    return f"fence: window {made.epoch} was published twice over one parent" if any(twins) else ""
