"""Small values for tests of the core: one ring, four nodes, round numbers, and chance that is the same every time."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from keyrotd.core.decide import (
    NO_MEMORY,
    Bootstrap,
    Decision,
    Decline,
    Hold,
    Memory,
    Mend,
    Renew,
    Revoke,
    Rotate,
    Seen,
    View,
)
from keyrotd.core.mend import mend
from keyrotd.core.messages import Goal, NodeState, ProbeState, Report, Request, ServerReport, ServerState
from keyrotd.core.policy import Interval, Policy, Schedule
from keyrotd.core.stek import Stek
from keyrotd.core.succession import renew
from keyrotd.core.window import Terms, Window, bootstrap, revoke, rotate

RING = "edge"
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
#: The story's first instant.
T0 = 1_800_000_000_000


def policy(
    schedule: Schedule | None = None,
    *,
    ticket_lifetime_ms: int = 2 * HOUR,
    max_seal_age_ms: int = 8 * HOUR,
    overdue_after_ms: int = 30 * MINUTE,
    max_stranded_ms: int = 5 * DAY,
    previous_keys: int | None = None,
    node_ttl_ms: int = 30 * SECOND,
    tick_interval_ms: int = SECOND,
    lease_ttl_ms: int = 10 * SECOND,
    poll_interval_ms: int = 5 * SECOND,
    store_timeout_ms: int = SECOND,
) -> Policy:
    return Policy(
        schedule=Interval(4 * HOUR) if schedule is None else schedule,
        ticket_lifetime_ms=ticket_lifetime_ms,
        max_seal_age_ms=max_seal_age_ms,
        overdue_after_ms=overdue_after_ms,
        max_stranded_ms=max_stranded_ms,
        previous_keys=previous_keys,
        node_ttl_ms=node_ttl_ms,
        tick_interval_ms=tick_interval_ms,
        lease_ttl_ms=lease_ttl_ms,
        poll_interval_ms=poll_interval_ms,
        store_timeout_ms=store_timeout_ms,
    )


POLICY = policy()


@dataclass(frozen=True, slots=True)
class Daily:
    """An uneven schedule: due every day at these hours, UTC, as a cron line would be."""

    hours: tuple[int, ...]

    @property
    def _gaps_ms(self) -> list[int]:
        following = (*self.hours[1:], self.hours[0] + 24)
        return [(later - hour) * HOUR for hour, later in zip(self.hours, following, strict=True)]

    @property
    def longest_ms(self) -> int:
        return max(self._gaps_ms)

    @property
    def shortest_ms(self) -> int:
        return min(self._gaps_ms)

    def next_due(self, after_at: int) -> int:
        midnight = after_at - after_at % DAY
        return min(at for day in (0, DAY) for hour in self.hours if (at := midnight + day + hour * HOUR) > after_at)


def chance(seed: int = 0) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def stek(number: int, ring: str = RING) -> Stek:
    """Key `number` of the story, K1 and so on."""
    return Stek(chance(1_000_000 + number)(32), ring)


def terms(now_at: int, rules: Policy = POLICY) -> Terms:
    return rules.terms(now_at)


def first(now_at: int = T0, *, rules: Policy = POLICY, keys: tuple[int, int] = (1, 2), epoch: int = 1) -> Window:
    """The ring's first window: K1 seals, K2 is next."""
    fresh = (stek(keys[0]), stek(keys[1]))
    return bootstrap(ring=RING, epoch=epoch, barrier=0, fence=1, fresh=fresh, now_at=now_at, terms=rules.terms(now_at))


def rotated(
    window: Window,
    now_at: int,
    *,
    key: int | None = None,
    settled_at: int | None = None,
    fence: int = 1,
    rules: Policy = POLICY,
) -> Window:
    """The window after `window`, bringing key `key` (by default K2 with epoch 1, K3 with epoch 2 and so on)."""
    fresh = stek(window.epoch + 2 if key is None else key)
    return rotate(window, fresh=fresh, fence=fence, now_at=now_at, terms=rules.terms(now_at), settled_at=settled_at)


def reigned(count: int, *, start_at: int = T0, every_ms: int = 4 * HOUR, rules: Policy = POLICY) -> list[Window]:
    """Windows 1 to `count`, each settled one minute after its publish."""
    windows = [first(start_at, rules=rules)]
    for number in range(1, count):
        before = windows[-1]
        now_at = start_at + number * every_ms
        windows.append(rotated(before, now_at, settled_at=before.published_at + MINUTE, rules=rules))
    return windows


def revoked(window: Window, now_at: int, *, keys: tuple[int, int], rules: Policy = POLICY) -> Window:
    fresh = (stek(keys[0]), stek(keys[1]))
    return revoke(window, fresh=fresh, fence=1, now_at=now_at, terms=rules.terms(now_at))


def names(window: Window) -> set[bytes]:
    return {key.name for key in window.all}


def report(
    node: str = "a",
    window: Window | None = None,
    *,
    read_back: Window | None = None,
    state: NodeState = NodeState.IN_STEP,
    floor: int | None = None,
    barrier: int | None = None,
    slots: int | None = None,
    poll_interval_ms: int = 5 * SECOND,
    counter: int = 1,
    holds: str | None = None,
    steps: int = 0,
) -> Report:
    """The word of a node that holds `window` and, unless told otherwise, shows it on its one server."""
    shown = window if read_back is None else read_back
    server = ServerReport(
        name="haproxy", driver="haproxy", state=ServerState.IN_STEP, slots=slots, probe=ProbeState.NONE, fault=""
    )
    return Report(
        ring=RING,
        node=node,
        counter=counter,
        reported_at=T0,
        state=state,
        steps=steps,
        epoch=0 if window is None else window.epoch,
        holds=holds if window is None else window.digest,
        read_back=None if shown is None else shown.digest,
        floor=(0 if window is None else window.epoch) if floor is None else floor,
        barrier=(0 if window is None else window.barrier) if barrier is None else barrier,
        poll_interval_ms=poll_interval_ms,
        servers=(server,),
    )


def report_of_peers(node: str, **addresses: str) -> Report:
    """The word of a node with one server of each kind that is named, and where peers may offer it tickets."""
    plain = report(node)
    servers = tuple(
        replace(plain.servers[0], name=kind, driver=kind, address=address) for kind, address in addresses.items()
    )
    return replace(plain, servers=servers)


def seen(said: Report, seen_at: int, *, behind_since: int | None = None) -> Seen:
    return Seen(report=said, seen_at=seen_at, behind_since=behind_since)


def in_step(window: Window, seen_at: int, nodes: Iterable[str] = "abcd", *, slots: int | None = None) -> list[Seen]:
    return [seen(report(node, window, slots=slots), seen_at) for node in nodes]


def view(
    window: Window | None,
    nodes: Iterable[Seen] = (),
    *,
    remembered: Window | None = None,
    memory: Memory = NO_MEMORY,
    offers: Iterable[Window] = (),
    requests: Iterable[Request] = (),
    stood_at: int = 0,
    speak_until: int = 0,
    settled_at: int | None = None,
    durable: bool = True,
) -> View:
    return View(
        window=window,
        remembered=remembered,
        memory=memory,
        nodes=tuple(nodes),
        offers=tuple(offers),
        requests=tuple(requests),
        stood_at=stood_at,
        speak_until=speak_until,
        settled_at=settled_at,
        durable=durable,
    )


def request(
    goal: Goal = Goal.ROTATE, *, past_epoch: int, made_at: int, drop_live_keys: bool = False, who: str = "olga"
) -> Request:
    return Request(
        ring=RING,
        goal=goal,
        past_epoch=past_epoch,
        drop_live_keys=drop_live_keys,
        who=who,
        reason="drill",
        made_at=made_at,
    )


def enact(decision: Decision, seen_by: View, rules: Policy, now_at: int, rand: Callable[[int], bytes]) -> Window | None:
    """The window that a leader would publish for `decision`, None for a Hold or a Decline."""
    window, now_terms = seen_by.window, rules.terms(now_at)
    fresh = (Stek(rand(32), RING), Stek(rand(32), RING))
    match decision:
        case Hold() | Decline():
            return None
        case Bootstrap(epoch, barrier):
            return bootstrap(
                ring=RING, epoch=epoch, barrier=barrier, fence=1, fresh=fresh, now_at=now_at, terms=now_terms
            )
        case Mend(base, others, epoch, _):
            return mend(base, others, epoch=epoch, fence=1, now_at=now_at, terms=now_terms)
    assert window is not None
    match decision:
        case Rotate():
            return rotate(
                window, fresh=fresh[0], fence=1, now_at=now_at, terms=now_terms, settled_at=seen_by.settled_at
            )
        case Renew(_, root):
            return renew(window, root=root, fresh=fresh, fence=1, now_at=now_at, terms=now_terms)
        case Revoke():
            return revoke(window, fresh=fresh, fence=1, now_at=now_at, terms=now_terms)
