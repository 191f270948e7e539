"""Following an order until every live node has read its window back. What happens comes as values; nothing prints."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from keyrotd.cli.desk import Desk, Watch
from keyrotd.cli.reading import prove_events
from keyrotd.cli.situation import Situation, foresee, judge
from keyrotd.core.decide import Hold, verdict
from keyrotd.core.errors import StoreUnavailable
from keyrotd.core.messages import Event, Request
from keyrotd.core.window import Window

#: How soon to look again at first, and when nothing happens.
FIRST_PAUSE_MS = 50
LONGEST_PAUSE_MS = 500
#: Of a large fleet's reports we read at most one part in so many of the time.
_SHARE = 4
#: A refusal is among the newest events.
_EVENTS = 20


@dataclass(frozen=True, slots=True)
class Held:
    """The leader has the request and holds it, as far as can be told from here."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Published:
    """`after_ms`, here and below: from handing the order in to seeing it, so at most that long."""

    window: Window
    after_ms: int


@dataclass(frozen=True, slots=True)
class ReadBack:
    node: str
    after_ms: int


@dataclass(frozen=True, slots=True)
class Everywhere:
    """The end: every live node has it. `nodes` None: by the leader's signed word, which does not count them."""

    window: Window
    after_ms: int
    nodes: int | None
    last: Situation


@dataclass(frozen=True, slots=True)
class Declined:
    """The end: the leader refused."""

    reason: str


@dataclass(frozen=True, slots=True)
class Late:
    """The end: time is up. `window` None: nothing was published. `behind` None: reports cannot be proven here."""

    window: Window | None
    behind: tuple[str, ...] | None
    held: Hold | None


Step: TypeAlias = Held | Published | ReadBack | Everywhere | Declined | Late


def follow(
    desk: Desk,
    request: Request,
    known: frozenset[bytes],
    *,
    since: Situation,
    watch: Watch,
    timeout_ms: int,
) -> Iterator[Step]:
    """
    Look until `request` is done, refused or late. `known` are the events that stood before it was handed in.

    A store that is away for a while is waited for; StoreUnavailable is raised when it still is at the end.
    """
    started_ms = watch.boot_ms()
    target: Window | None = None
    pause_ms = FIRST_PAUSE_MS
    told: set[str] = set()
    held: Hold | None = None
    while True:
        asked_ms = watch.boot_ms()
        left_ms = started_ms + timeout_ms - asked_ms
        situation = _look(desk, since.now_at + asked_ms - started_ms, patient=left_ms > 0)
        window = None if situation is None else situation.reading.window
        if situation is not None and window is not None and _reached(request, window):
            if target is None or window.digest != target.digest:
                target, pause_ms = window, FIRST_PAUSE_MS
                told.clear()
                yield Published(window, asked_ms - started_ms)
            for node in situation.live:
                if node.acknowledged and node.name not in told:
                    told.add(node.name)
                    yield ReadBack(node.name, asked_ms - started_ms)
            if _everywhere(situation, since):
                count = None if situation.reading.reports is None else len(situation.live)
                yield Everywhere(window, asked_ms - started_ms, count, situation)
                return
        elif situation is not None:
            refused = _refused(desk, request, known)
            if refused is not None:
                yield Declined(refused.reason)
                return
            decision = foresee(situation, request)
            if isinstance(decision, Hold) and (held is None or decision.reason != held.reason):
                held = decision
                yield Held(decision)
        if left_ms <= 0:
            yield Late(target, _behind(situation, since), held)
            return
        took_ms = watch.boot_ms() - asked_ms
        watch.pause(min(max(pause_ms, _SHARE * took_ms), left_ms))
        pause_ms = min(2 * pause_ms, LONGEST_PAUSE_MS)


def _look(desk: Desk, now_at: int, *, patient: bool) -> Situation | None:
    try:
        return judge(desk.read(), desk.policy, now_at)
    except StoreUnavailable:
        if not patient:
            raise
        return None


def _reached(request: Request, window: Window) -> bool:
    # As when it was made: what is published counts however long its nodes take.
    return verdict(request, window, request.made_at) == "reached"


def _everywhere(situation: Situation, since: Situation) -> bool:
    if situation.reading.reports is None:
        return situation.confirmed_at is not None
    return not _behind(situation, since)


def _behind(situation: Situation | None, since: Situation) -> tuple[str, ...] | None:
    """Name who is live and has not read the window back; a node whose report the store lost has not."""
    if situation is None or situation.reading.reports is None:
        return None
    lost = {node.name for node in since.live} - {node.name for node in situation.nodes}
    return (*(node.name for node in situation.behind), *sorted(lost))


def _refused(desk: Desk, request: Request, known: frozenset[bytes]) -> Event | None:
    try:
        fresh = [data for data in desk.store.history(limit=_EVENTS) if data not in known]
    except StoreUnavailable:
        return None
    for event in prove_events(fresh, ring=desk.ring, verifiers=desk.verifiers):
        if isinstance(event, Event) and event.kind == "decline" and _answers(event, request):
            return event
    return None


def _answers(event: Event, request: Request) -> bool:
    return event.who == request.who and event.epoch == request.past_epoch


def known_events(desk: Desk) -> frozenset[bytes]:
    return frozenset(desk.store.history(limit=_EVENTS))
