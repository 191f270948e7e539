"""Every step that there is from a state, by name: what parts do, what befalls them, what people and thieves do."""

from collections.abc import Iterator

from keyrotd.core.messages import Goal, Request
from tests.exploration import schedulers
from tests.exploration.agents import Mishap, alone, rebooted, restarted, visit
from tests.exploration.claims import judged
from tests.exploration.ring import Replica, Ring, Ruler, Rules, Store, with_node, with_ruler
from tests.unit.builders import RING

Steps = Iterator[tuple[str, Ring]]


def steps(ring: Ring, rules: Rules) -> Steps:
    """Yield each step from here and the state that it leads to, judged."""
    for name, after in _steps(ring, rules):
        yield name, judged(ring, after)


def _steps(ring: Ring, rules: Rules) -> Steps:
    if ring.up:
        yield from _work(ring, rules)
    else:
        yield "the store is back", ring._replace(up=True)
    yield from _passing(ring)
    begun = any(node.worked for node in ring.nodes) or any(ruler.worked for ruler in ring.rulers)
    for kind, befalls in (_AT_ANY_TIME if begun else _AT_ANY_TIME | _BETWEEN_POLLS).items():
        if getattr(ring.luck, kind):
            yield from befalls(_spent(ring, kind), rules)
    if not begun:
        yield from _mending(ring)


def _spent(ring: Ring, kind: str) -> Ring:
    return ring._replace(luck=ring.luck._replace(**{kind: getattr(ring.luck, kind) - 1}))


# Work and time.


def _work(ring: Ring, rules: Rules) -> Steps:
    for index, ruler in enumerate(ring.rulers):
        if _able(ring, index):
            yield f"scheduler {index} ticks", schedulers.tick(ring, index, rules)
        elif ruler.made is not None:
            yield f"scheduler {index} goes on to publish", schedulers.publish(ring, index, rules)
    for index, node in enumerate(ring.nodes):
        if not node.cut and not node.worked:
            yield f"node {index} ticks", visit(ring, index, rules)


def _able(ring: Ring, index: int) -> bool:
    """Whether a scheduler has something to do: whoever stands by while another one leads has not."""
    ruler, lease = ring.rulers[index], ring.store.lease
    idle = ruler.reign is None and lease is not None and lease.holder != index and ring.now < lease.until
    return ruler.up and not ruler.stopped and not ruler.worked and not idle


def _passing(ring: Ring) -> Steps:
    """Time passes once everybody who can has worked."""
    waited = [n for n in ring.nodes if not n.cut and not n.worked] or any(
        _able(ring, i) for i in range(len(ring.rulers))
    )
    if not (ring.up and waited):
        nodes = tuple(alone(node, ring.now + 1) for node in ring.nodes)
        rulers = tuple(_passed(ring, ruler) for ruler in ring.rulers)
        yield "a poll's time passes", ring._replace(now=ring.now + 1, nodes=nodes, rulers=rulers)


def _passed(ring: Ring, ruler: Ruler) -> Ruler:
    ruler = ruler._replace(worked=False)
    return schedulers.listening(ruler, ring.store.beat) if ring.up and ruler.up and not ruler.stopped else ruler


def _mending(ring: Ring) -> Steps:
    """Whatever befell a machine ends when it likes."""
    for index, ruler in enumerate(ring.rulers):
        if not ruler.up:
            yield f"scheduler {index} starts", with_ruler(ring, index, ruler._replace(up=True))
        elif ruler.stopped and ruler.made is None:
            yield f"scheduler {index} goes on", with_ruler(ring, index, ruler._replace(stopped=False))
    for index, node in enumerate(ring.nodes):
        if node.cut:
            yield f"node {index} is joined", with_node(ring, index, node._replace(cut=False))


# What befalls machines.


def _reboots(ring: Ring, _: Rules) -> Steps:
    for index, node in enumerate(ring.nodes):
        yield f"node {index} reboots", with_node(ring, index, rebooted(node, ring.now))
        yield f"agent {index} restarts", with_node(ring, index, restarted(node, ring.now))


def _cuts(ring: Ring, _: Rules) -> Steps:
    for index, node in enumerate(ring.nodes):
        if not node.cut:
            yield f"node {index} is cut off", with_node(ring, index, node._replace(cut=True))
    if not all(node.cut for node in ring.nodes):
        yield "all nodes are cut off", ring._replace(nodes=tuple(node._replace(cut=True) for node in ring.nodes))


def _outages(ring: Ring, _: Rules) -> Steps:
    if ring.up:
        yield "the store is away", ring._replace(up=False)


def _deaths(ring: Ring, _: Rules) -> Steps:
    for index, ruler in enumerate(ring.rulers):
        if not ruler.up:
            continue
        left, lease = ring, ring.store.lease
        if lease is not None and lease.holder == index:
            # A next life has another holder's name, and must wait until the lease of this one has run out.
            left = ring._replace(store=ring.store._replace(lease=lease._replace(holder=-1)))
        dead = Ruler(up=False, memory=ruler.memory, fence=ruler.fence)
        yield f"scheduler {index} dies", with_ruler(left, index, dead)
        yield f"scheduler {index} dies and forgets", with_ruler(left, index, Ruler(up=False))


def _stops(ring: Ring, rules: Rules) -> Steps:
    for index in range(len(ring.rulers)):
        if ring.up and _able(ring, index):
            name = f"scheduler {index}"
            yield f"{name} stops before its publish", schedulers.tick(ring, index, rules, stopped=True)
            yield f"{name} publishes unanswered", schedulers.tick(ring, index, rules, unanswered=True)


def _mishaps(ring: Ring, rules: Rules) -> Steps:
    for index, node in enumerate(ring.nodes):
        if ring.up and not node.cut and not node.worked:
            yield f"node {index} misses its tick", with_node(ring, index, node._replace(worked=True))
            for mishap in (Mishap.UNANSWERED, Mishap.CUT_SHORT, Mishap.REFUSED):
                words = mishap.name.lower().replace("_", " ")
                yield f"node {index} ticks, {words}", visit(ring, index, rules, mishap)


def _losses(ring: Ring, _: Rules) -> Steps:
    if not ring.up:
        return
    (window, beat, fence), silence = ring.replica, (None,) * len(ring.nodes)
    ring = ring._replace(lost=True, replica=Replica())
    yield "the store loses everything", ring._replace(store=Store(reports=silence))
    store = ring.store
    if window is not None:
        back = store._replace(window=window, beat=beat, fence=fence)
        yield "the store loses its last write", ring._replace(store=back)
        back = back._replace(lease=None, reports=silence, offers=(), requests=())
        yield "the store loses its last write and all since", ring._replace(store=back)


# People and thieves.


def _asks(ring: Ring, _: Rules) -> Steps:
    yield from _asking(ring, "for a rotation", Goal.ROTATE)


def _revokes(ring: Ring, _: Rules) -> Steps:
    yield from _asking(ring, "to revoke", Goal.REVOKE)


def _asking(ring: Ring, words: str, goal: Goal) -> Steps:
    store = ring.store
    if ring.up and store.window is not None and not store.requests:
        request = Request(
            ring=RING,
            goal=goal,
            past_epoch=store.window.epoch,
            drop_live_keys=False,
            who="op",
            reason="asked",
            made_at=ring.now,
        )
        yield f"an operator asks {words}", ring._replace(store=store._replace(requests=(request,)))


def _tricks(ring: Ring, _: Rules) -> Steps:
    ring = ring._replace(tricked=True)
    store = ring.store
    hidden = store._replace(reports=(None,) * len(ring.nodes), offers=())
    yield "the owner hides what nodes say", ring._replace(store=hidden)
    yield "the owner ends the lease and forgets the fence", ring._replace(store=store._replace(lease=None, fence=0))
    for window, beat in ring.past:
        words = f"window {window.epoch} of fence {window.fence}"
        if window is not store.window:
            yield f"the owner puts back {words}", ring._replace(store=store._replace(window=window, beat=beat))
        if window not in store.offers:
            offers = tuple(sorted((*store.offers, window), key=lambda offer: offer.digest))
            yield f"the owner offers {words}", ring._replace(store=store._replace(offers=offers))


_AT_ANY_TIME = {"mishaps": _mishaps, "stops": _stops, "outages": _outages, "losses": _losses, "tricks": _tricks}
#: What one machine alone can notice: it comes to the same whichever of the others have worked in this poll by then.
_BETWEEN_POLLS = {"reboots": _reboots, "cuts": _cuts, "deaths": _deaths, "asks": _asks, "revokes": _revokes}
