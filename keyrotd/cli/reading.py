"""What a store shows of a ring: each piece proven, or the words why not. Nothing unproven goes further."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from keyrotd.core.errors import CorruptWindow
from keyrotd.core.messages import Beat, Event, Report
from keyrotd.core.window import Window
from keyrotd.seal.keyfiles import Keks, VerifyKey
from keyrotd.seal.messages import read_beat, read_event, read_report
from keyrotd.seal.window import read_header
from keyrotd.store.port import Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    One look at a ring. `window` holds no stek, since none is needed to tell people of it.

    `reports` is None where no KEK is at hand: they are proven by it alone, and `report_count` is all that can be said.
    `pauses` are those that a leader told of since the last resume, the newest first. `refused` are the words for what
    did not prove itself, `newer` for what did, in a version that is not read here. `leader` and `lease_ms` are the
    store's word: only a beat proves that a scheduler is alive.
    """

    ring: str
    leader: str
    lease_ms: int
    fence: int
    window: Window | None
    beat: Beat | None
    reports: tuple[Report, ...] | None
    report_count: int
    last_event: Event | None
    pauses: tuple[Event, ...]
    refused: tuple[str, ...]
    newer: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unproven:
    """A piece of history that is not the scheduler's word."""

    words: str


def prove(
    look: Look,
    reports: Mapping[str, bytes],
    events: Iterable[bytes] = (),
    *,
    ring: str,
    verifiers: tuple[VerifyKey, ...],
    keks: Keks | None,
) -> Reading:
    refused: list[str] = []
    newer: list[str] = []
    window = beat = None
    if look.window is not None:
        try:
            window = read_header(look.window, verifiers=verifiers, ring=ring)
        except CorruptWindow as corrupt:
            (newer if corrupt.reason == "version" else refused).append(f"the stored window: {corrupt}")
    if look.beat is not None:
        try:
            beat = read_beat(look.beat, verifiers=verifiers, ring=ring)
        except CorruptWindow as corrupt:
            (newer if corrupt.reason == "version" else refused).append(f"the stored beat: {corrupt}")
    told = None if keks is None else _proven_reports(reports, keks, ring, refused)
    proven = prove_events(events, ring=ring, verifiers=verifiers)
    history = tuple(event for event in proven if isinstance(event, Event))
    since_resume = takewhile(lambda event: event.kind != "resume", history)
    return Reading(
        ring=ring,
        leader=look.leader,
        lease_ms=look.lease_ms,
        fence=look.fence,
        window=window,
        beat=beat,
        reports=told,
        report_count=len(reports),
        last_event=next(iter(history), None),
        pauses=tuple(event for event in since_resume if event.kind == "pause"),
        refused=tuple(refused),
        newer=tuple(newer),
    )


def _proven_reports(reports: Mapping[str, bytes], keks: Keks, ring: str, refused: list[str]) -> tuple[Report, ...]:
    proven = []
    for name, data in sorted(reports.items()):
        try:
            report = read_report(data, keks=keks, ring=ring)
        except CorruptWindow as corrupt:
            refused.append(f"the report of {name}: {corrupt}")
            continue
        if report.node == name:
            proven.append(report)
        else:
            refused.append(f"the report of {name}: it is a copy of one by {report.node}")
    return tuple(proven)


def prove_events(
    events: Iterable[bytes], *, ring: str, verifiers: tuple[VerifyKey, ...]
) -> tuple[Event | Unproven, ...]:
    """History as it stands, newest first, with what nobody signed in its place."""
    proven: list[Event | Unproven] = []
    for data in events:
        try:
            proven.append(read_event(data, verifiers=verifiers, ring=ring))
        except CorruptWindow as corrupt:
            proven.append(Unproven(str(corrupt)))
    return tuple(proven)
