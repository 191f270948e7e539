"""A node's tick, in the order of daemon/agent: report and read in one round trip, judge, offer, install, tell."""

from dataclasses import replace
from enum import Enum, auto
from functools import lru_cache

from keyrotd.core.decide import owes
from keyrotd.core.messages import Beat, NodeState, Report
from keyrotd.core.reconcile import Adopt, Footing, Held, Refuse, along, footing, keys_at, steps
from tests.exploration.ring import (
    PATIENCE,
    POLICY,
    Node,
    Ring,
    Rules,
    Sheet,
    fresh,
    gone_on,
    sheet,
    window_of,
    with_node,
)
from tests.unit.builders import RING

#: Keys that are no one's but a node's.
_OWN = fresh(-1), fresh(-2)
OWN = frozenset(stek.name for stek in _OWN)


class Mishap(Enum):
    """How a tick may go wrong; of several round trips any may be the last."""

    NONE = auto()
    UNANSWERED = auto()  # the report came, the answer did not
    CUT_SHORT = auto()  # the first round trip was the last: nothing offered, nothing told of the install
    REFUSED = auto()  # the server did not take the keys


def visit(ring: Ring, index: int, rules: Rules, mishap: Mishap = Mishap.NONE) -> Ring:
    """Let a node tick; the store is there."""
    node = ring.nodes[index]._replace(worked=True)
    ring = _speak(ring, index, node, 0)
    if mishap is Mishap.UNANSWERED:
        return with_node(ring, index, node)
    node = _hear(node._replace(spoken=True), ring.store.beat, ring.now)
    node, settled = _judge(node, ring, rules)
    if mishap is not Mishap.CUT_SHORT:
        ring, node = _exchange_offers(ring, node, rules, settled=settled)
    told = word(node, ring.now)
    node = _tend(node, ring.now, refused=mishap is Mishap.REFUSED)
    if word(node, ring.now) != told and mishap is not Mishap.CUT_SHORT:
        ring = _speak(ring, index, node, 1)
    return with_node(ring, index, node)


def word(node: Node, now_at: int) -> tuple[NodeState, str | None, str | None]:
    """What a report says of the moment: state, digest held, digest read back."""
    held = node.held
    holds = None if held is None else held.window.digest
    shows = node.spoken and node.shown is not None and node.shown.window.digest == holds
    read_back = holds if shows else None
    if not node.spoken:
        return NodeState.JOINING, holds, None
    standing = footing(held, now_at)
    if standing is not Footing.LED:
        return NodeState.STRANDED if standing is Footing.STRANDED else NodeState.ISOLATED, holds, read_back
    return NodeState.IN_STEP if shows else NodeState.BEHIND, holds, read_back


def _speak(ring: Ring, index: int, node: Node, part: int) -> Ring:
    state, holds, read_back = word(node, ring.now)
    report = Report(
        ring=RING,
        node=str(index),
        counter=2 * ring.now + part,  # it only grows
        reported_at=ring.now,
        state=state,
        steps=0 if node.held is None else steps(node.held, ring.now),
        epoch=0 if node.held is None else node.held.window.epoch,
        holds=holds,
        read_back=read_back,
        floor=node.memory.floor,
        barrier=node.memory.barrier,
        poll_interval_ms=POLICY.poll_interval_ms,
        servers=(),
        along=None if node.held is None else along(node.held, ring.now),
    )
    reports = ring.store.reports
    return ring._replace(store=ring.store._replace(reports=(*reports[:index], report, *reports[index + 1 :])))


def _hear(node: Node, beat: Beat | None, now_at: int) -> Node:
    if beat is None or (node.beat is not None and beat.signed_at < node.beat.signed_at):
        return node
    new = node.beat is None or beat.signed_at > node.beat.signed_at
    node = node._replace(beat=beat, heard_at=now_at if new else node.heard_at)
    return node._replace(held=_confirmed(node.held, beat)) if node.held is not None else node


def _confirmed(held: Held, beat: Beat | None) -> Held:
    if held.confirmed or beat is None or beat.confirmed_at is None or beat.digest != held.window.digest:
        return held
    return held.heard(beat.confirmed_at)


def _judge(node: Node, ring: Ring, rules: Rules) -> tuple[Node, bool]:
    if ring.store.window is None:
        return node, True
    node, refused = _weigh(node, ring.store.window, ring.now, rules)
    return node, refused != "stale window"


def _weigh(node: Node, seen: Sheet, now_at: int, rules: Rules) -> tuple[Node, str | None]:
    fresh_enough = node.beat is not None and _fresh(node.beat, seen, now_at)
    match rules.accept(seen, node.held, node.memory, fresh=fresh_enough, now_at=now_at):
        case Adopt(held, _):
            older = [source for source in node.sources if source.digest not in seen.ancestors] if held.strays else []
            return node._replace(held=_confirmed(held, node.beat), sources=(seen, *older)), None
        case Refuse(reason):
            return node, reason
    return node, None


def _fresh(beat: Beat, seen: Sheet, now_at: int) -> bool:
    if beat.digest != seen.digest and seen.epoch <= beat.epoch:
        return False
    return now_at - beat.signed_at < seen.seals_until - (seen.current.seals_from or seen.published_at)


def _exchange_offers(ring: Ring, node: Node, rules: Rules, *, settled: bool) -> tuple[Ring, Node]:
    stored, offered = ring.store.window, {offer.digest for offer in ring.store.offers}
    known = {source.digest for source in node.sources} | set(() if node.held is None else node.held.window.ancestors)
    for offer in ring.store.offers:
        if offer.digest not in known and offer is not stored:
            node, _ = _weigh(node, offer, ring.now, rules)
    if not settled:
        return ring, node
    in_force = node.held is not None and stored is not None and node.held.window.digest == stored.digest
    covered = set() if stored is None else {stored.digest, *(stored.ancestors if in_force else ())}
    lacking = [source for source in node.sources if source.digest not in covered | offered]
    offers = tuple(sorted((*ring.store.offers, *lacking), key=lambda offer: offer.digest))
    return ring._replace(store=ring.store._replace(offers=offers)), node


def _tend(node: Node, now_at: int, *, refused: bool) -> Node:
    """Go on, forget what may no longer open, install, read back, raise the floor."""
    node = _gone_on(node, now_at)
    if node.held is None:
        return node
    node = node._replace(memory=node.memory.after(node.held.window))
    if refused:
        return node
    return node._replace(shown=node.held, proven=(node.sources[0], now_at))


def _gone_on(node: Node, now_at: int) -> Node:
    if node.held is None:
        return node
    held = gone_on(node.held, now_at, silent=now_at - node.heard_at > PATIENCE)
    keep = frozenset(key.name for key in (*held.window.all, *held.strays) if key.stek is not None)
    sources = tuple(_forgotten(source, keep) for source in (node.sources if held.strays else node.sources[:1]))
    return node._replace(held=held, sources=sources)


def alone(node: Node, now_at: int) -> Node:
    """Let time pass for a node: the bounds of its keys are kept to the instant, whether it reaches the store or not."""
    held, shown = node.held, node.shown
    node = _gone_on(node._replace(worked=False), now_at)
    if held is None or shown is None or shown.window is held.window:
        return node._replace(shown=node.held if shown is not None else None)
    return node._replace(shown=gone_on(shown, now_at, silent=False))  # its server had refused the keys


@lru_cache(maxsize=2**16)
def _forgotten(source: Sheet, keep: frozenset[bytes]) -> Sheet:
    """The sealed window without the seeds that the node no longer has, as seal.forget leaves it."""
    keys = [key if key.name in keep else replace(key, stek=None) for key in source.all]
    return sheet(replace(source, current=keys[0], next=keys[1], previous=tuple(keys[2:])))


def restarted(node: Node, now_at: int) -> Node:
    """A new life takes up the cache where the last one left it; the server ran on."""
    held = node.held
    if held is not None:
        window, older = window_of(held), node.sources[1:]
        owed = (key for other in older for key in owes(window, other, now_at))
        strays = {key.name: key for key in (*held.strays, *owed) if key.born >= window.barrier}
        held = gone_on(replace(held, strays=tuple(strays.values())), now_at, silent=False)
    return node._replace(held=held, beat=None, heard_at=now_at, spoken=False)


def rebooted(node: Node, now_at: int) -> Node:
    """The cache and the server's memory are gone; floor and barrier are not."""
    return Node(memory=node.memory, heard_at=now_at, cut=node.cut)


@lru_cache(maxsize=2**18)
def serving(shown: Held, now_at: int) -> tuple[bytes, frozenset[bytes]]:
    """Return the names of the key that a server seals with and of all that it opens."""
    keys = keys_at(shown, _OWN, now_at)
    return keys.current.name, frozenset(stek.name for stek in keys.opening)
