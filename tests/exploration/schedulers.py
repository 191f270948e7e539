"""A scheduler's tick, in the order of daemon/scheduler: lease, reading, deciding, publishing, the beat."""

from dataclasses import replace
from typing import assert_never

from keyrotd.core.decide import (
    Bootstrap,
    Decision,
    Decline,
    Gate,
    Hold,
    Mend,
    Renew,
    Revoke,
    Rotate,
    Seen,
    View,
    acknowledged,
    judge_gate,
    live,
    owes,
    recover,
    verdict,
)
from keyrotd.core.mend import mend
from keyrotd.core.messages import Beat, Report
from keyrotd.core.succession import carried, renew
from keyrotd.core.window import Window, bootstrap, revoke
from tests.exploration.claims import T_MS, lost_on, out_of_turn, unsigned
from tests.exploration.ring import POLICY, Lease, Reign, Replica, Ring, Ruler, Rules, Sheet, fresh, sheet, with_ruler
from tests.unit.builders import RING


def tick(ring: Ring, index: int, rules: Rules, *, stopped: bool = False, unanswered: bool = False) -> Ring:
    """
    Let a scheduler tick; the store is there.

    `stopped`: it stands still just before a publish, if it comes to one. `unanswered`: it does not hear of its success.
    """
    ring = _lead(ring, index)
    ruler = ring.rulers[index]._replace(worked=True, stopped=stopped)
    if ruler.reign is None:
        return with_ruler(ring, index, ruler)
    reign = _read(ruler.reign, ring)
    view = View(
        window=reign.window,
        remembered=ruler.window,
        memory=ruler.memory,
        nodes=reign.nodes,
        offers=(*((ruler.past,) if ruler.past is not None else ()), *ring.store.offers),
        requests=ring.store.requests,
        stood_at=reign.stood_at,
        speak_until=reign.began_at + POLICY.speak_ms,
        settled_at=reign.settled_at,
        durable=True,
    )
    decision = rules.decide(view, POLICY, ring.now)
    ring = _settle_requests(ring, reign.window, decision)
    made = _made(decision, view, reign.fence, number=4 * ring.now + 2 * index, now_at=ring.now, rules=rules)
    if made is None:
        if isinstance(decision, Hold):
            ruler = _accepting(ruler, view, ring.now)
        return _finish(with_ruler(ring, index, ruler._replace(reign=reign)), index)
    parent = "" if ring.store.window is None else ring.store.window.digest
    ring = ring._replace(broken=ring.broken or unsigned(ring, ruler, made))
    memory = ruler.memory.after(made)  # on disk before it can be seen
    ring = with_ruler(ring, index, ruler._replace(reign=reign, memory=memory, made=made, parent=parent))
    return ring if stopped else publish(ring, index, rules, unanswered=unanswered)


def publish(ring: Ring, index: int, rules: Rules, *, unanswered: bool = False) -> Ring:
    """Let a scheduler publish what it made, now or long ago, and go on with its tick."""
    ruler, store = ring.rulers[index], ring.store
    made, reign, parent = ruler.made, ruler.reign, ruler.parent
    assert made is not None
    assert reign is not None
    standing = "" if store.window is None else store.window.digest
    ruler = ruler._replace(made=None, parent="", stopped=False, worked=True)
    if not rules.publishes(made.fence, store.fence, parent, standing):
        return with_ruler(ring, index, ruler.abdicated())
    offers = tuple(offer for offer in store.offers if offer is not made)
    ring = ring._replace(
        replica=Replica(store.window, store.beat, store.fence) if ring.luck.losses else Replica(),
        store=store._replace(window=made, offers=offers),
        out=(*ring.out, (made, ring.now)),
        past=(*ring.past, (store.window, store.beat))[-2:] if ring.luck.tricks and store.window is not None else (),
        broken=ring.broken or out_of_turn(ring, made),
        lost_until=ring.now + T_MS + POLICY.eps_ms if lost_on(ring, made) else ring.lost_until,
    )
    if unanswered:
        return with_ruler(ring, index, ruler)
    nodes = tuple(replace(node, behind_since=made.published_at) for node in reign.nodes)
    reign = reign._replace(window=made, stood=made.digest, stood_at=made.published_at, settled_at=None, nodes=nodes)
    return _finish(with_ruler(ring, index, ruler._replace(window=made, reign=reign)), index, published=True)


# The lease.


def _lead(ring: Ring, index: int) -> Ring:
    store, ruler, now_at = ring.store, ring.rulers[index], ring.now
    lease = store.lease if store.lease is not None and now_at < store.lease.until else None
    if lease is not None and lease.holder != index:
        return with_ruler(ring, index, ruler.abdicated())
    beside = 0 if store.window is None else store.window.fence
    highest = max(store.fence, beside, ruler.fence)
    kept = lease is not None and lease.fence == store.fence == highest
    fence = highest if kept else highest + 1
    until = now_at + POLICY.lease_ttl_ms
    reign = ruler.reign
    if reign is None or reign.fence != fence:
        if reign is None or now_at >= reign.ends_at:
            ruler = ruler.abdicated()
        reign = Reign(fence=fence, began_at=now_at, ends_at=until)
    ring = ring._replace(store=store._replace(fence=fence, lease=Lease(index, fence, until)))
    return with_ruler(ring, index, ruler._replace(fence=fence, reign=reign._replace(ends_at=until)))


def listening(ruler: Ruler, beat: Beat | None) -> Ruler:
    """Whoever stands by and hears of a newer window has nothing to offer."""
    outdated = ruler.past is not None and beat is not None and beat.epoch > ruler.past.epoch
    return ruler._replace(past=None) if outdated and ruler.reign is None else ruler


# Reading.


def _read(reign: Reign, ring: Ring) -> Reign:
    window, beat, now_at = ring.store.window, ring.store.beat, ring.now
    if window is not None and window is not reign.window:
        vouched = beat is not None and beat.digest == window.digest
        settled_at = beat.confirmed_at if vouched and beat is not None else None
        nodes = tuple(replace(n, behind_since=None if acknowledged(n, window) else now_at) for n in reign.nodes)
        reign = reign._replace(settled_at=settled_at, nodes=nodes)
    stood = "" if window is None else window.digest
    if reign.stood != stood or not reign.stood_at:
        reign = reign._replace(stood=stood, stood_at=now_at)
    reign = reign._replace(window=window)
    known = {node.report.node: node for node in reign.nodes}
    told = (report for report in ring.store.reports if report is not None)
    seen = {report.node: _seen(report, known.get(report.node), window, now_at) for report in told}
    kept = {name: node for name, node in known.items() if live((node,), POLICY, now_at)}
    reign = reign._replace(nodes=tuple({**kept, **seen}.values()))
    gate, heard_at = _gate(reign, now_at), reign.began_at + POLICY.speak_ms
    if gate is not None and gate.settled and now_at >= heard_at and reign.settled_at is None:
        reign = reign._replace(settled_at=now_at)
    return reign


def _seen(report: Report, known: Seen | None, window: Sheet | None, now_at: int) -> Seen:
    seen_at = now_at
    if known is not None and report.counter <= known.report.counter:
        report, seen_at = known.report, known.seen_at
    node = Seen(report=report, seen_at=seen_at, behind_since=None)
    if window is None or acknowledged(node, window):
        return node
    before = None if known is None else known.behind_since
    return replace(node, behind_since=now_at if before is None else before)


def _gate(reign: Reign, now_at: int) -> Gate | None:
    return None if reign.window is None else judge_gate(reign.window, reign.nodes, POLICY, now_at)


# Acting.


def _made(decision: Decision, view: View, fence: int, *, number: int, now_at: int, rules: Rules) -> Sheet | None:
    terms, pair, window = POLICY.terms(now_at), (fresh(number), fresh(number + 1)), view.window
    match decision:
        case Hold() | Decline():
            return None
        case Bootstrap(epoch, barrier):
            made = bootstrap(
                ring=RING, epoch=epoch, barrier=barrier, fence=fence, fresh=pair, now_at=now_at, terms=terms
            )
        case Mend(base, others, epoch, _):
            made = mend(base, others, epoch=epoch, fence=fence, now_at=now_at, terms=terms)
        case Rotate():
            assert window is not None  # decide rotates, renews and revokes only what stands
            made = rules.rotate(
                window, fresh=pair[0], fence=fence, now_at=now_at, terms=terms, settled_at=view.settled_at
            )
            made = carried(made, window, settled_at=view.settled_at, now_at=now_at, terms=terms)
        case Renew(_, root):
            assert window is not None  # likewise
            made = renew(window, root=root, fresh=pair, fence=fence, now_at=now_at, terms=terms)
        case Revoke():
            assert window is not None  # likewise
            made = revoke(window, fresh=pair, fence=fence, now_at=now_at, terms=terms)
        case _:
            assert_never(decision)
    return sheet(made)


def _settle_requests(ring: Ring, window: Window | None, decision: Decision) -> Ring:
    if window is None or not ring.store.requests:
        return ring
    declined = decision.request if isinstance(decision, Decline) else None
    pending = tuple(r for r in ring.store.requests if r != declined and verdict(r, window, ring.now) == "pending")
    return ring._replace(store=ring.store._replace(requests=pending))


def _accepting(ruler: Ruler, view: View, now_at: int) -> Ruler:
    """Remember the standing window as one to go back to, once everyone had time to say that it is not the one."""
    window = view.window
    if window is None or now_at < view.speak_until or recover(view, POLICY, now_at) is not None:
        return ruler
    assert isinstance(window, Sheet)
    return ruler._replace(window=window, memory=ruler.memory.after(window))


def _finish(ring: Ring, index: int, *, published: bool = False) -> Ring:
    """Withdraw offers that nobody is owed anything by, and sign the beat."""
    ruler, now_at, store = ring.rulers[index], ring.now, ring.store
    reign = ruler.reign
    assert reign is not None
    window = reign.window
    if window is None:
        return ring
    offers = tuple(o for o in store.offers if o.rank > window.rank or owes(window, o, now_at))
    ring = ring._replace(store=store._replace(offers=offers))
    if window.epoch < ruler.memory.floor:
        return ring
    if reign.fence != store.fence:
        return with_ruler(ring, index, ruler.abdicated())
    gate = None if published else _gate(reign, now_at)
    confirmed_at = reign.settled_at if gate is not None and gate.confirmed else None
    beat = Beat(ring=RING, epoch=window.epoch, digest=window.digest, confirmed_at=confirmed_at, signed_at=now_at)
    return ring._replace(store=ring.store._replace(beat=beat))
