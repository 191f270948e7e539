"""
Following an order until every node that is live, or was since the order, has read its window back.

A node that falls silent meanwhile never drops out unsaid: nobody knows which keys it still opens. What happens comes
as values; nothing prints.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
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
#: A window that takes longer than this to be read back is waited for aloud.
PATIENCE_MS = 2_000
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
class Awaited:
    """Said once of a window: who is still to read it back. `behind` None: reports cannot be proven here."""

    behind: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Said once: nothing is published yet, and nothing seen here holds it. `leader` '': nobody has the lease."""

    leader: str


@dataclass(frozen=True, slots=True)
class Everywhere:
    """The end: every live node has it. `nodes` None: by the leader's signed word, which does not count them."""

    window: Window
    after_ms: int
    nodes: int | None
    last: Situation


@dataclass(frozen=True, slots=True)
class FellSilent:
    """The end: every live node has it, and `nodes`, live since the order, stopped speaking before they were seen to."""

    window: Window
    nodes: tuple[str, ...]
    opens_until: int


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


Step: TypeAlias = Held | Published | ReadBack | Awaited | Unanswered | Everywhere | FellSilent | Declined | Late


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
    course = _Course()
    course.note(since)
    pause_ms = FIRST_PAUSE_MS
    held: Hold | None = None
    while True:
        asked_ms = watch.boot_ms()
        after_ms = asked_ms - started_ms
        situation = _look(desk, since.now_at + after_ms, patient=after_ms < timeout_ms)
        window = None if situation is None else situation.reading.window
        if situation is not None:
            course.note(situation)
        if situation is not None and window is not None and _reached(request, window):
            if window != course.target:
                pause_ms = FIRST_PAUSE_MS
            yield from course.steps(window, situation, after_ms)
            end = course.end(window, situation, after_ms)
            if end is not None:
                yield end
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
            elif held is None and course.out_of_patience(after_ms):
                yield Unanswered(situation.reading.leader)
        if after_ms >= timeout_ms:
            yield Late(course.target, course.behind(situation), held)
            return
        took_ms = watch.boot_ms() - asked_ms
        watch.pause(min(max(pause_ms, _SHARE * took_ms), timeout_ms - after_ms))
        pause_ms = min(2 * pause_ms, LONGEST_PAUSE_MS)


@dataclass(slots=True)
class _Course:
    """What was seen since the order: the windows that stood, who was ever live, and who has read `target` back."""

    windows: dict[str, Window] = field(default_factory=dict)
    ever_live: set[str] = field(default_factory=set)
    target: Window | None = None
    published_after_ms: int = 0
    told: set[str] = field(default_factory=set)
    patient: bool = True

    def note(self, situation: Situation) -> None:
        window = situation.reading.window
        if window is not None:
            self.windows[window.digest] = window
        self.ever_live.update(node.name for node in situation.live)

    def steps(self, window: Window, situation: Situation, after_ms: int) -> Iterator[Step]:
        """Tell what is new about `window`, which is what was asked for."""
        if self.target is None or window.digest != self.target.digest:
            self.target, self.published_after_ms, self.told, self.patient = window, after_ms, set(), True
            yield Published(window, after_ms)
        for node in situation.nodes:
            if node.acknowledged and node.name in self.ever_live - self.told:
                self.told.add(node.name)
                yield ReadBack(node.name, after_ms)
        behind = self.behind(situation)
        if behind != () and self.out_of_patience(after_ms):
            yield Awaited(behind)

    def out_of_patience(self, after_ms: int) -> bool:
        """Whether it has become time to say whom one waits for: once before the publish, and once after each."""
        out = self.patient and after_ms - self.published_after_ms >= PATIENCE_MS
        self.patient = self.patient and not out
        return out

    def end(self, window: Window, situation: Situation, after_ms: int) -> Everywhere | FellSilent | None:
        behind = self.behind(situation)
        if behind is None:
            return None if situation.confirmed_at is None else Everywhere(window, after_ms, None, situation)
        if not behind:
            return Everywhere(window, after_ms, len(situation.live), situation)
        # Whoever speaks, and whoever's report the store lost, may still read it back.
        silent = {node.name for node in situation.nodes if not node.live}
        return FellSilent(window, behind, self._opens_until(window)) if silent.issuperset(behind) else None

    def behind(self, situation: Situation | None) -> tuple[str, ...] | None:
        """Name who was live since the order and was not seen to read the window back; without a report nobody was."""
        if situation is None or situation.reading.reports is None:
            return None
        return tuple(sorted(self.ever_live - {node.name for node in situation.nodes if node.acknowledged}))

    def _opens_until(self, window: Window) -> int:
        """Until when a node that never heard of `window` may open what is `previous` in it, or burnt."""
        sealing = {window.current.name, window.next.name}
        keys = (key for old in self.windows.values() for key in old.all if key.name not in sealing)
        return max((key.opens_until for key in keys), default=window.published_at)


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
