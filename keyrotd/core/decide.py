"""
What the leader of one ring does next. A decision is a value; whoever asked for it does the deed.

The order is the order of harm: a store that lost or forked windows is mended first, then what an operator burnt is
revoked, then keys move on. Nothing rotates before every live node has read back the very window that stands
(equal digest, not merely equal epoch), because only then is `next` known to open everywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from keyrotd.core.messages import REQUEST_LIFETIME_MS, Goal, NodeState, Pause, Report, Request
from keyrotd.core.policy import DRIFT_DIVISOR, Policy
from keyrotd.core.window import MAX_KEYS, Key, Window, settled, usefulness

#: A compromised node may lie about its floor; nobody believes a jump over this.
MAX_FLOOR_JUMP = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What outlives every cache: the highest epoch ever accepted, and the highest barrier. No key material."""

    floor: int
    barrier: int

    def after(self, window: Window) -> "Memory":
        return Memory(floor=max(self.floor, window.epoch), barrier=max(self.barrier, window.barrier))


NO_MEMORY = Memory(floor=0, barrier=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    One node in the leader's eyes. `seen_at`: when its report's counter last grew, by the leader's clock.

    `behind_since` is when it was first seen not to have read back the window that stands, None while it has.
    """

    report: Report
    seen_at: int
    behind_since: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """
    All that a decision rests on.

    `window` is the verified window in the store, None when there is none. `remembered` is the last window that this
    leader itself published or accepted. `stood_at` is when it first saw the store as it is now, `speak_until` the end
    of the speak time. `settled_at` is when the gate was first seen open for `window`. `durable` is False while a wanted
    replica has not acknowledged. `pause` is the one that stands, see core/pauses.
    """

    window: Window | None
    remembered: Window | None
    memory: Memory
    nodes: tuple[Seen, ...]
    offers: tuple[Window, ...]
    requests: tuple[Request, ...]
    stood_at: int
    speak_until: int
    settled_at: int | None
    durable: bool
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Publish the ring's first window, or the first above every floor: no live node and no memory holds any."""

    epoch: int
    barrier: int


@dataclass(frozen=True, slots=True)
class Rotate:
    """`overdue` names the live nodes that were not waited for any longer."""

    reason: str
    overdue: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revoke:
    request: Request


@dataclass(frozen=True, slots=True)
class Renew:
    """
    Nodes went on by succession, along `root`: take them up there. None: nobody can tell, so begin anew.

    `overdue` have not gone the last step.
    """

    reason: str
    root: Key | None
    overdue: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mend:
    """Republish `base` above `epoch` - 1 with every key that `others` still owe the fleet."""

    base: Window
    others: tuple[Window, ...]
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decline:
    """A request that would break a promise, with the instant from which it would not."""

    request: Request
    reason: str
    until: int


@dataclass(frozen=True, slots=True)
class Hold:
    reason: str
    until: int | None


Decision = Bootstrap | Rotate | Revoke | Renew | Mend | Decline | Hold


def decide(view: View, policy: Policy, now_at: int) -> Decision:
    recovery = recover(view, policy, now_at)
    if recovery is not None:
        return recovery
    assert view.window is not None  # recover answers for an empty store
    return proceed(view, view.window, policy, now_at)


def proceed(view: View, window: Window, policy: Policy, now_at: int) -> Decision:
    """Decide what comes after `window`, which stands where everyone's memory does; no seed is needed."""
    pending = [request for request in view.requests if verdict(request, window, now_at) == "pending"]
    for request in pending:
        if request.goal is Goal.REVOKE:
            return Revoke(request)
    if now_at >= window.seals_until:
        return _renewal(view, window, policy, now_at)
    asked = next(iter(pending), None)
    if asked is None and now_at < due_at(window, policy):
        return Hold("not due", due_at(window, policy))
    return _rotation(view, window, policy, asked, now_at)


def due_at(window: Window, policy: Policy) -> int:
    """Return when `window` is to be rotated, if nothing holds it."""
    scheduled_at = policy.schedule.next_due(window.current.seals_from or window.published_at)
    # A schedule that was lengthened since the window's publish must not let its current run out.
    return min(scheduled_at, window.seals_until - policy.overdue_after_ms - policy.eps_ms)


def _rotation(view: View, window: Window, policy: Policy, asked: Request | None, now_at: int) -> Decision:
    reason = "due" if asked is None else asked.reason or "asked for"
    latest_at = latest_rotation_at(window, policy)
    gate = judge_gate(window, view.nodes, policy, now_at)
    free_at = free_from(window, fewest_slots(view.nodes, policy, now_at), view.settled_at, policy.eps_ms, now_at)
    spaced_at = window.published_at + policy.spacing_ms
    if now_at < spaced_at:
        return Hold("the last publish is too fresh", spaced_at)
    if now_at >= latest_at:
        return Rotate(f"{reason}; current may not seal for longer", overdue=gate.waiting + gate.overdue)
    if asked is None and view.pause is not None and now_at < view.pause.until:
        return Hold(f"paused by {view.pause.who}: {view.pause.reason}", min(view.pause.until, latest_at))
    # What nodes say of their own pace and slots can only delay, and never past the bound above.
    spaced_at = window.published_at + _slowest_spacing_ms(view.nodes, policy, now_at)
    if now_at < spaced_at:
        return Hold("the last publish is too fresh for the slowest node", min(spaced_at, latest_at))
    listening = _listen(view, now_at)
    if listening is not None:
        return listening
    if gate.waiting:
        return Hold(f"waiting for {listed(gate.waiting)}", gate.until)
    if not view.durable:
        return Hold("too few replicas have the window", latest_at)
    if free_at is None or (asked is not None and asked.drop_live_keys):
        return Rotate(reason, overdue=gate.overdue)
    crowded = "a server has too few slots: a key whose tickets still live would be dropped"
    return Hold(crowded, free_at) if asked is None else Decline(asked, crowded, free_at)


def _renewal(view: View, window: Window, policy: Policy, now_at: int) -> Decision:
    spaced_at = window.published_at + policy.spacing_ms
    if now_at < spaced_at:
        return Hold("the last publish is too fresh", spaced_at)
    listening = _listen(view, now_at)
    if listening is not None:
        return listening
    if now_at >= window.seals_until + window.max_stranded_ms:
        return Renew("the fleet was without a leader for too long", None)
    root = _root(view, window, policy, now_at)
    stepped_at = now_at - (now_at - root.steps_at) % root.step_ms
    ends_at = stepped_at + root.step_ms - 2 * policy.tick_interval_ms
    if root.stek is None:
        # What comes then follows nothing: nodes wait for it, and meanwhile seal with what followed so far.
        ends_at -= window.eps_ms + root.step_ms // 8  # see core/reconcile
    ready_at = _ready_at(view, window, policy, now_at, root=root, stepped_at=stepped_at)
    if now_at < min(ready_at, ends_at):
        return Hold("nodes have just gone a step of succession", min(ready_at, ends_at))
    if root.stek is None and ready_at < ends_at <= now_at:
        return Hold("nodes are about to go a step of succession", stepped_at + root.step_ms)
    taken = _step_taken(view.nodes, window, stepped_at, policy, now_at)
    # However many nodes say that they are slow, the ring gets its keys within one step.
    latest_at = ends_at - (2 * policy.tick_interval_ms if root.stek is None else 0)  # or it would be held as above
    until = min(taken.until or 0, ready_at + max(policy.overdue_after_ms, policy.node_ttl_ms), latest_at)
    if now_at < until:
        return Hold(f"waiting for {listed(taken.waiting)} to go a step of succession", until)
    return Renew("the fleet went on without a leader", root, overdue=(*taken.waiting, *taken.overdue))


def _root(view: View, window: Window, policy: Policy, now_at: int) -> Key:
    """
    Return the key of `window` whose followers are taken up, one that has its seed.

    That is what more nodes say that they go on along, for one step; or else what a leader knows. Whoever has room opens
    both ways, so an error, or a lie, costs tickets only of servers with few slots.
    """
    spread = view.settled_at is not None and view.settled_at < window.seals_until
    known, other = (window.next, window.current) if spread else (window.current, window.next)
    told = [node.report.along for node in live(view.nodes, policy, now_at)]
    # Only for a step: whoever changed his word with every step would hold the renewal for as long as he likes.
    asked_at = max(view.speak_until, window.seals_until, window.published_at)
    if now_at < asked_at + window.current.step_ms and told.count(other.name) > told.count(known.name):
        known, other = other, known
    return known if known.stek is not None or other.stek is None else other


def _ready_at(view: View, window: Window, policy: Policy, now_at: int, *, root: Key, stepped_at: int) -> int:
    """Return the instant of this step from which the follower that is to be `current` can be, by the time alone."""
    # Until all have taken the step, whatever their clocks, that follower is not open everywhere; until max_seal_age
    # before the end of its own step, it could seal for longer than it may.
    taken_at = stepped_at + window.eps_ms + (now_at - window.seals_until) // DRIFT_DIVISOR
    if root.stek is None:
        return taken_at  # it will be no follower
    ready_at = max(taken_at, stepped_at + 2 * root.step_ms - policy.max_seal_age_ms)
    slots = fewest_slots(view.nodes, policy, now_at)
    if slots is None:
        return ready_at
    # Where there are few slots the renewal drops a follower, whose tickets are given the time to end.
    return max(ready_at, stepped_at - (slots - 3) * root.step_ms + window.ticket_lifetime_ms + window.eps_ms)


def _step_taken(nodes: Iterable[Seen], window: Window, stepped_at: int, policy: Policy, now_at: int) -> "Gate":
    """Judge every live node by whether it said, after the step by its own time, that its servers are where it is."""
    gate = judge_gate(window, nodes, policy, now_at)
    silent = [
        node
        for node in live(nodes, policy, now_at)
        if acknowledged(node, window) and node.report.reported_at < stepped_at
    ]
    untils = [node.seen_at + policy.node_ttl_ms for node in silent] + ([] if gate.until is None else [gate.until])
    waiting = sorted((*gate.waiting, *(node.report.node for node in silent)))
    return replace(gate, waiting=tuple(waiting), until=max(untils, default=None))


def _listen(view: View, now_at: int) -> Hold | None:
    # Whoever has just begun to lead knows neither all live nodes nor whether the store lost the newest window: before
    # everyone had the time to speak, an open gate means nothing.
    if now_at >= view.speak_until:
        return None
    return Hold("letting every node speak first", view.speak_until)


def latest_rotation_at(window: Window, policy: Policy) -> int:
    """Return the instant from which nothing holds the rotation of `window`, no pause either."""
    # No hold outlasts seals_until: healthy nodes would stop sealing for the sake of one that is not. Once they have
    # stopped, waiting for the gate costs nothing more.
    return window.seals_until - 2 * policy.tick_interval_ms


@dataclass(frozen=True, slots=True)
class Gate:
    """
    Who has not read the window back: `waiting` holds a rotation until `until`, `overdue` no longer does.

    `shown` counts the live nodes that have. Without any, a rotation may go on, but nobody can be said to have moved
    on from the previous key: perhaps the whole fleet is cut off from the store, and seals with it still.
    """

    waiting: tuple[str, ...]
    overdue: tuple[str, ...]
    until: int | None
    shown: int

    @property
    def confirmed(self) -> bool:
        return not self.waiting and not self.overdue

    @property
    def settled(self) -> bool:
        """Whether every node in step has moved on; the overdue ones are out of step by definition."""
        return not self.waiting and self.shown > 0


def judge_gate(window: Window, nodes: Iterable[Seen], policy: Policy, now_at: int) -> Gate:
    """Judge every live node by the digest that it read back, and those behind by how long they have been."""
    alive = live(nodes, policy, now_at)
    behind = [(node, overdue_at(node, policy)) for node in alive if not acknowledged(node, window)]
    waiting = [(node.report.node, until) for node, until in behind if now_at < until]
    return Gate(
        waiting=tuple(sorted(name for name, _ in waiting)),
        overdue=tuple(sorted(node.report.node for node, until in behind if now_at >= until)),
        until=max((until for _, until in waiting), default=None),
        shown=len(alive) - len(behind),
    )


def acknowledged(node: Seen, window: Window) -> bool:
    """Whether it shows this very window and holds no other. A node that goes on alone does: it opens `next` too."""
    report = node.report
    return report.state in _STEADY and report.holds == report.read_back == window.digest


_STEADY = frozenset({NodeState.IN_STEP, NodeState.STRANDED, NodeState.ISOLATED})


def overdue_at(node: Seen, policy: Policy) -> int:
    behind_since = node.seen_at if node.behind_since is None else node.behind_since
    return behind_since + policy.overdue_after_ms


def live(nodes: Iterable[Seen], policy: Policy, now_at: int) -> tuple[Seen, ...]:
    return tuple(node for node in nodes if now_at - node.seen_at < policy.node_ttl_ms)


def verdict(request: Request, window: Window, now_at: int) -> str:
    """Return pending, reached, expired or future. A replayed request finds its goal reached, or has expired."""
    if now_at >= request.made_at + REQUEST_LIFETIME_MS:
        return "expired"
    if request.made_at > now_at + REQUEST_LIFETIME_MS or request.past_epoch > window.epoch:
        return "future"  # nobody can have seen that epoch: such a goal would be asked for again at every tick
    # Every rotation brings a fresh `next` and no mend does, so its birth says whether keys moved on past the epoch.
    reached = window.next.born if request.goal is Goal.ROTATE else window.barrier
    return "reached" if reached > request.past_epoch else "pending"


def fewest_slots(nodes: Iterable[Seen], policy: Policy, now_at: int) -> int | None:
    return min((n.report.slots for n in live(nodes, policy, now_at) if n.report.slots is not None), default=None)


def free_from(window: Window, slots: int | None, settled_at: int | None, eps_ms: int, now_at: int) -> int | None:
    """Return when a rotation would drop no key with live tickets from `slots` slots; None: already now."""
    slots = MAX_KEYS if slots is None else min(slots, MAX_KEYS)
    would_open = [window.current, *settled(window, settled_at=settled_at, eps_ms=eps_ms)]
    sealed = sorted(
        (key for key in would_open if key.seals_until is not None and key.open_at(now_at)), key=usefulness, reverse=True
    )
    return max((key.opens_until for key in sealed[max(slots - 2, 0) :]), default=None)


def _slowest_spacing_ms(nodes: Iterable[Seen], policy: Policy, now_at: int) -> int:
    polls = [n.report.poll_interval_ms for n in live(nodes, policy, now_at)]
    return max((2 * poll + poll // 5 + policy.store_timeout_ms for poll in polls), default=0)


def recover(view: View, policy: Policy, now_at: int) -> Decision | None:
    """Return what a store that lost, forked or forgot needs; None when it stands where everyone's memory does."""
    known = _known(view, now_at)
    base = max(known, key=lambda window: window.rank, default=None)
    believed = _believed(view, base, policy, now_at)
    floor = max([view.memory.floor, *(report.floor for report in believed)])
    if base is None:
        barrier = max([view.memory.barrier, *(report.barrier for report in believed)])
        return _speak(view, base, known, policy, now_at) or Bootstrap(floor + 1, barrier)
    others = tuple(window for window in known if owes(base, window, now_at))
    if base is view.window and _may_stand(view, base, policy, now_at, lost=floor > base.epoch, forked=bool(others)):
        return None
    epoch = max(base.epoch, floor, view.window.epoch if view.window else 0) + 1
    reason = "the store lost windows" if base is not view.window or floor > base.epoch else "windows forked"
    return _speak(view, base, known, policy, now_at) or Mend(base, others, epoch, reason)


def _may_stand(view: View, base: Window, policy: Policy, now_at: int, *, lost: bool, forked: bool) -> bool:
    """Whether `base`, though a floor or a fork speaks against it, is to be burnt or rotated before it is mended."""
    if base.epoch < view.memory.floor:
        return False  # this leader's own word: it signs nothing at or below what it signed before
    burning = any(r.goal is Goal.REVOKE and verdict(r, base, now_at) == "pending" for r in view.requests)
    # Only a node says that windows were lost: if it lies, the leader publishes no more often for it.
    lost = lost and now_at >= base.published_at + policy.spacing_ms
    # No lie and no replayed offer may keep the keys from moving on, so the end of `current` belongs to the rotation,
    # and so does the time after it once a mend has been had.
    ending_at = latest_rotation_at(base, policy) - policy.spacing_ms
    if ending_at <= now_at < base.seals_until or (now_at >= base.seals_until <= base.published_at):
        lost = False
        forked = forked and now_at >= base.seals_until
    return not lost and (burning or not forked)  # what a revoke burns need not be merged


def _known(view: View, now_at: int) -> list[Window]:
    candidates = [window for window in (view.window, view.remembered, *view.offers) if window is not None]
    # Nothing born before the highest barrier that anyone remembers is ever built upon (or revoke could be undone).
    barrier = _highest_barrier(view)
    fit = (window for window in reversed(candidates) if window.barrier >= barrier and window.whole_at(now_at))
    return list({window.digest: window for window in fit}.values())


def _highest_barrier(view: View) -> int:
    windows = (window for window in (view.window, view.remembered, *view.offers) if window is not None)
    return max([view.memory.barrier, *(window.barrier for window in windows)])


def _speak(view: View, base: Window | None, known: list[Window], policy: Policy, now_at: int) -> Hold | None:
    if not _remembers(view) and now_at < view.speak_until:
        found = "the store has no window" if base is None else "the store lost windows"
        return Hold(f"{found}; letting every node speak", view.speak_until)
    # What was burnt is never built upon, what is known needs no offer, and what is older than the base is in it.
    barrier = _highest_barrier(view)
    spoken = {digest for window in known for digest in (window.digest, *window.ancestors)}
    silent = [
        node.report.node
        for node in live(view.nodes, policy, now_at)
        if node.report.holds is not None
        and node.report.holds not in spoken
        and node.report.barrier >= barrier
        and (base is None or node.report.epoch >= base.epoch)
    ]
    # One bound for all, from the instant at which the store was found like this: whoever invents nodes that never offer
    # must not keep a ring from its keys.
    until = max(view.stood_at, view.speak_until) + policy.overdue_after_ms
    if not silent or now_at >= until:
        return None
    return Hold(f"{listed(silent)} hold a window that they have not offered yet", until)


def _remembers(view: View) -> bool:
    """Whether the remembered window is the newest that this leader knows of; after a crash its memory may be ahead."""
    window, memory = view.remembered, view.memory
    return window is not None and window.epoch >= memory.floor and window.barrier >= memory.barrier


def _believed(view: View, base: Window | None, policy: Policy, now_at: int) -> list[Report]:
    ceiling = max(view.memory.floor, base.epoch if base else 0) + MAX_FLOOR_JUMP
    reports = (node.report for node in live(view.nodes, policy, now_at))
    return [report for report in reports if report.barrier <= report.floor <= ceiling]


def owes(base: Window, other: Window, now_at: int) -> tuple[Key, ...]:
    """Return the keys of `other` that still open, that `base` lacks, and that no barrier burnt."""
    if other.digest == base.digest or other.digest in base.ancestors:
        return ()
    held = {key.name for key in base.all}
    if other.next.name in held:
        # Born with `other`, so base descends from it, however far: what it lacks was retired, its bounds lowered since.
        return ()
    return tuple(
        key
        for key in other.all
        if key.stek is not None and key.open_at(now_at) and key.born >= base.barrier and key.name not in held
    )


def listed(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
