"""
Who would be locked out by changing a key, judged from what a ring's store shows and the keys at hand prove.

Whoever cannot be seen may be the one that is locked out: a report that is not proven, or not shown, stands for a node,
and what was lost comes again within the longest pause of an agent, so the store is looked at twice.

Promoted is what everyone is proven to accept: the leader names its keys in the beat, a node in its report, while either
has several of a kind. Retired is what nothing needs any more: seen with the keys that will be left, all that stands
must still prove itself. An agent caches the window that it reads back, so who has read that window back has no other.
Offers are not looked at: what is owed to anybody a leader takes into the window within a tick, or it confirms none.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from keyrotd.cli.desk import Desk, Watch, observe
from keyrotd.cli.reading import prove
from keyrotd.cli.situation import Node, Situation, judge, leader_fault
from keyrotd.cli.words import counted, instant
from keyrotd.core.decide import listed
from keyrotd.core.errors import CorruptWindow
from keyrotd.core.policy import MAX_BACKOFF_DOUBLINGS, Policy, jittered_ms
from keyrotd.seal.keyfiles import Keks, VerifyKey
from keyrotd.seal.messages import read_beat, read_report
from keyrotd.seal.window import open_window, read_header
from keyrotd.store.port import Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a store showed of a ring, as it came. `unread` is how many more reports it counts than it showed."""

    look: Look
    reports: Mapping[str, bytes]
    unread: int = 0


#: What a ring's desk saw, and what it means; the words are hindrances.
Judge = Callable[[Desk, Shown, Situation], Iterator[str]]


def look_twice(desks: Sequence[Desk], watch: Watch, judged: Judge, *, again: Callable[[int], None]) -> list[str]:
    """
    Every hindrance, in words. Where a first look shows none, pause so long that every agent speaks, and unite the two.

    `again` is told the pause, in milliseconds, before it begins.
    """
    first = [_look(desk, watch, {}) for desk in desks]
    found = [words for desk, seen in zip(desks, first, strict=True) for words in judged(desk, *seen)]
    if found:
        return found
    pause_ms = max(_longest_pause_ms(desk.policy) for desk in desks)
    again(pause_ms)
    watch.pause(pause_ms)
    second = [_look(desk, watch, shown.reports) for desk, (shown, _) in zip(desks, first, strict=True)]
    return [words for desk, seen in zip(desks, second, strict=True) for words in judged(desk, *seen)]


def _look(desk: Desk, watch: Watch, earlier: Mapping[str, bytes]) -> tuple[Shown, Situation]:
    now_at = observe(desk, watch).now_at
    look, reports = desk.store.look(), desk.store.reports()
    shown = Shown(look=look, reports={**earlier, **reports}, unread=max(0, look.report_count - len(reports)))
    reading = prove(look, shown.reports, ring=desk.ring, verifiers=desk.verifiers, keks=desk.keks)
    return shown, judge(reading, desk.policy, now_at)


def _longest_pause_ms(policy: Policy) -> int:
    return jittered_ms(policy.poll_interval_ms * 2**MAX_BACKOFF_DOUBLINGS) + policy.store_timeout_ms


def unaware_of(
    key_id: str, shown: Shown, situation: Situation, *, nodes: bool, given_up: Collection[str] = ()
) -> Iterator[str]:
    """Who does not accept a key, in words: the leader, and where `nodes` every node but those that were `given_up`."""
    fault = leader_fault(situation)
    beat = situation.reading.beat
    if fault is not None or beat is None:
        yield "there is no leader to ask" if fault is None else fault.words
        return
    if key_id not in beat.accepts:
        yield f"the leader {situation.reading.leader} does not accept it yet"
    if not nodes:
        return
    for node in situation.nodes:
        if key_id not in node.report.accepts and node.name not in given_up:
            yield f"{_named(node, situation)} does not accept it yet"
    yield from _unseen(shown, situation, given_up)


def bound_to_others(
    shown: Shown,
    situation: Situation,
    *,
    verifiers: tuple[VerifyKey, ...],
    keks: Keks,
    given_up: Collection[str] = (),
) -> Iterator[str]:
    """What stands and could not be read with these keys alone, in words. `situation` is judged with all keys."""
    ring, fault = situation.reading.ring, leader_fault(situation)
    if fault is not None or shown.look.window is None or shown.look.beat is None:
        yield "there is no window that a leader vouches for" if fault is None else fault.words
        return
    try:
        read_beat(shown.look.beat, verifiers=verifiers, ring=ring)
    except CorruptWindow:
        yield f"the leader {situation.reading.leader} still signs with another key"
    try:
        open_window(shown.look.window, verifiers=verifiers, keks=keks, ring=ring)
    except CorruptWindow as corrupt:
        yield _why_not(shown.look.window, corrupt, ring, verifiers)
    if situation.confirmed_at is None:
        yield "the leader has not confirmed the window yet"
    for node in situation.nodes:
        if node.name in given_up:
            continue
        if node.live and not node.acknowledged:
            yield f"{node.name} has not read the window back"
        if not _reads(shown.reports.get(node.name), keks, ring):
            yield f"{_named(node, situation)} still reports under another KEK"
    yield from _unseen(shown, situation, given_up)


def _unseen(shown: Shown, situation: Situation, given_up: Collection[str]) -> Iterator[str]:
    proven = {node.name for node in situation.nodes}
    unproven = sorted(shown.reports.keys() - proven - {*given_up})
    if unproven:
        yield f"not proven: the report of {listed(unproven)}"
    if shown.unread:
        told = f"the store counts {counted(shown.unread, 'report')} more than it shows"
        yield f"{told}: the leader is about to drop what is too much"
    if not any(node.live or node.name in given_up for node in situation.nodes):
        yield "no live node is seen, so nobody can say what nodes accept"


def _why_not(window: bytes, corrupt: CorruptWindow, ring: str, verifiers: tuple[VerifyKey, ...]) -> str:
    if corrupt.reason == "unknown signer":
        return "the window that stands is signed with another key: the next one will not be"
    if corrupt.reason == "unknown kek":
        epoch = read_header(window, verifiers=verifiers, ring=ring).epoch
        return f"window {epoch}, which stands, is sealed with another KEK: the next one will not be"
    return str(corrupt)


def _reads(report: bytes | None, keks: Keks, ring: str) -> bool:
    try:
        return report is not None and read_report(report, keks=keks, ring=ring).ring == ring
    except CorruptWindow:
        return False


def _named(node: Node, situation: Situation) -> str:
    if node.live:
        return node.name
    heard = "ever" if node.spoke_at is None else instant(node.spoke_at, situation.now_at)
    return f"{node.name}, silent since {heard},"
