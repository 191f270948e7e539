"""
What a ring's state means to a person: who leads, who has the window, what is due and what is wrong.

A pure judgement of one reading at one instant; the decisions are core's own, asked again with what is public. That is
all the store shows except the scheduler's memory and its queue of requests, so the leader may know better.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from keyrotd.cli.reading import Reading
from keyrotd.cli.words import counted, instant, short, span
from keyrotd.core.decide import NO_MEMORY, Decision, Hold, Seen, View, acknowledged, due_at, listed, proceed
from keyrotd.core.messages import NodeState, Pause, ProbeState, Report, Request, ServerReport, ServerState
from keyrotd.core.policy import Policy
from keyrotd.core.window import Window

#: Ticks without a beat after which nobody is believed to lead.
BEATS_MISSED = 3


class Standing(Enum):
    """A node in this reading's eyes."""

    IN_STEP = "in step"
    CATCHING_UP = "catching up"  # the window is so young that a healthy node may not have it yet
    JOINING = "joining"
    BEHIND = "behind"
    DRIFT = "drift"
    STRANDED = "stranded"
    ISOLATED = "isolated"
    HOLDS_NEWER = "holds newer"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`spoke_at` None: it never had the fleet's time. `live`: it counts for the acknowledgement gate."""

    report: Report
    standing: Standing
    spoke_at: int | None
    acknowledged: bool

    @property
    def name(self) -> str:
        return self.report.node

    @property
    def live(self) -> bool:
        return self.standing is not Standing.SILENT


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong and what to do about it."""

    words: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """
    One reading, judged.

    `led`: a fresh beat proves a scheduler. `confirmed_at`: since when, by the leader's word, all live nodes have the
    window. `nodes` is empty where the reports could not be proven. `pause` is what the leader told of last.
    """

    reading: Reading
    policy: Policy
    now_at: int
    led: bool
    confirmed_at: int | None
    due_at: int | None
    nodes: tuple[Node, ...]
    held: Hold | None
    faults: tuple[Fault, ...]

    @property
    def pause(self) -> Pause | None:
        """The standing pause that lasts longest, by the leader's signed word."""
        told = (event for event in self.reading.pauses if event.until is not None and self.now_at < event.until)
        last = max(told, key=lambda event: event.until or 0, default=None)
        if last is None:
            return None
        return Pause(ring=last.ring, until=last.until or 0, who=last.who, reason=last.reason, made_at=last.happened_at)

    @property
    def healthy(self) -> bool:
        return not self.faults

    @property
    def live(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.live)

    @property
    def behind(self) -> tuple[Node, ...]:
        """The live nodes that have not read the window back."""
        return tuple(node for node in self.live if not node.acknowledged)


def judge(reading: Reading, policy: Policy, now_at: int) -> Situation:
    window, beat = reading.window, reading.beat
    confirmed = window is not None and beat is not None and beat.digest == window.digest
    nodes = tuple(_node(report, window, policy, now_at) for report in reading.reports or ())
    before = Situation(
        reading=reading,
        policy=policy,
        now_at=now_at,
        led=beat is not None and now_at - beat.signed_at <= _longest_silence_ms(policy),
        confirmed_at=beat.confirmed_at if confirmed and beat is not None else None,
        due_at=None if window is None else due_at(window, policy),
        nodes=nodes,
        held=None,
        faults=(),
    )
    held = _held(before)
    return Situation(
        reading=reading,
        policy=policy,
        now_at=now_at,
        led=before.led,
        confirmed_at=before.confirmed_at,
        due_at=before.due_at,
        nodes=nodes,
        held=held,
        faults=tuple(_faults(before)),
    )


def foresee(situation: Situation, request: Request | None = None) -> Decision | None:
    """What the leader would decide now, also if it were asked; None while no window or no report can be read."""
    reading = situation.reading
    if reading.window is None or reading.reports is None:
        return None
    view = View(
        window=reading.window,
        remembered=None,
        memory=NO_MEMORY,
        nodes=seen(situation),
        offers=(),
        requests=() if request is None else (request,),
        stood_at=0,
        speak_until=0,
        settled_at=situation.confirmed_at,
        durable=True,
        pause=situation.pause,
    )
    return proceed(view, reading.window, situation.policy, situation.now_at)


def seen(situation: Situation) -> tuple[Seen, ...]:
    """The nodes as the leader may see them, as far as a report tells."""
    return tuple(
        Seen(
            report=node.report,
            seen_at=situation.now_at if node.spoke_at is None else node.spoke_at,
            behind_since=_behind_since(node, situation),
        )
        for node in situation.nodes
    )


def _behind_since(node: Node, situation: Situation) -> int | None:
    window = situation.reading.window
    if node.acknowledged or window is None:
        return None
    # One that took the window may have lost a server just now: the longest that it can still be waited for.
    return situation.now_at if node.report.holds == window.digest else window.published_at


def _longest_silence_ms(policy: Policy) -> int:
    return BEATS_MISSED * policy.tick_interval_ms + policy.store_timeout_ms


def _node(report: Report, window: Window | None, policy: Policy, now_at: int) -> Node:
    spoke_at = min(report.reported_at, now_at) if report.reported_at else None
    seen_now = Seen(report=report, seen_at=now_at, behind_since=None)
    return Node(
        report=report,
        standing=_standing(report, spoke_at, window, policy, now_at),
        spoke_at=spoke_at,
        acknowledged=window is not None and acknowledged(seen_now, window),
    )


def _standing(report: Report, spoke_at: int | None, window: Window | None, policy: Policy, now_at: int) -> Standing:
    if spoke_at is not None and now_at - spoke_at >= policy.node_ttl_ms:
        return Standing.SILENT
    if report.state is NodeState.JOINING:
        return Standing.JOINING
    if report.state is NodeState.ISOLATED:
        return Standing.ISOLATED
    if report.state is NodeState.STRANDED:
        return Standing.STRANDED
    if report.state is NodeState.DRIFT:
        return Standing.DRIFT
    if window is not None and report.read_back == window.digest:
        return Standing.IN_STEP
    if window is None or report.epoch > window.epoch:
        return Standing.HOLDS_NEWER
    broken = any(server.state in {ServerState.FAILED, ServerState.UNREACHABLE} for server in report.servers)
    young = now_at < window.published_at + max(policy.spacing_ms, 3 * report.poll_interval_ms)
    return Standing.CATCHING_UP if young and not broken else Standing.BEHIND


def _held(situation: Situation) -> Hold | None:
    """Why a rotation that is due has not come, if core's own decision gives a reason."""
    if situation.due_at is None or situation.now_at < situation.due_at:
        return None
    decision = foresee(situation)
    return decision if isinstance(decision, Hold) else None


# What is wrong.


def _faults(situation: Situation) -> Iterator[Fault]:
    leaderless = leader_fault(situation)
    if leaderless is not None:
        yield leaderless
    yield from _window_faults(situation)
    yield from _node_faults(situation)
    if situation.reading.newer:
        yield Fault(
            "; ".join(situation.reading.newer),
            "upgrade keyrotd here, too: docs/upgrades.md; until then this is all that can be said of it from here",
        )
    if situation.reading.refused:
        yield Fault(
            f"not proven: {'; '.join(situation.reading.refused[:3])}{_more(len(situation.reading.refused) - 3)}",
            "are the verify keys and KEKs of all files the same fleet's? if so, someone writes to the store",
        )


def leader_fault(situation: Situation) -> Fault | None:
    """What keeps the ring from being led, as far as the store tells: it does not say when the lease was taken."""
    reading, beat, policy = situation.reading, situation.reading.beat, situation.policy
    if situation.led:
        return None
    last = "no beat was ever signed" if beat is None else f"the last beat was {_ago(beat.signed_at, situation.now_at)}"
    if not reading.leader:
        return Fault(f"no leader: nobody has the lease, {last}", "is a scheduler running, and can it reach the store?")
    killed = f"or it was killed: it is succeeded within lease_ttl, {span(policy.lease_ttl_ms)}"
    logged = "its log says why: clocks that disagree, a window that it cannot open, or a full disk"
    if _may_be_speaking(situation):
        return Fault(
            f"{reading.leader} has the lease and signs nothing yet: a new leader lets every node speak first, {last}",
            f"this takes up to {span(policy.speak_ms)} from when it took the lease; if longer, {logged}; {killed}",
        )
    return Fault(f"no leader: {reading.leader} has the lease and signs nothing, {last}", f"{logged}; {killed}")


def _may_be_speaking(situation: Situation) -> bool:
    """Whether the store shows what a leader meets with silence at first: no window, or not the newest."""
    reading = situation.reading
    newer = any(node.standing is Standing.HOLDS_NEWER for node in situation.live)
    return reading.window is None or reading.beat is None or reading.beat.epoch > reading.window.epoch or newer


def first_window_hint(policy: Policy) -> str:
    return (
        "a leading scheduler lets every node speak first, then publishes: up to "
        f"{span(policy.speak_ms)} after it took the lease"
    )


def _window_faults(situation: Situation) -> Iterator[Fault]:
    window, beat, now_at = situation.reading.window, situation.reading.beat, situation.now_at
    if window is None:
        yield Fault("the store holds no window", first_window_hint(situation.policy))
        return
    if now_at >= window.seals_until:
        yield Fault(
            f"key {short(window.current.name)} may no longer seal since {instant(window.seals_until, now_at)}",
            "nodes go on in step without a leader (see stranded below), and a leader takes them up where they are",
        )
    if beat is not None and beat.epoch > window.epoch:
        yield Fault(
            f"the store shows window {window.epoch}, the last beat speaks of {beat.epoch}",
            "the store lost windows: nodes keep their keys and the leader mends within seconds",
        )
    decision = foresee(situation)
    late_at = (situation.due_at or now_at) + max(_longest_silence_ms(situation.policy), situation.policy.spacing_ms)
    renewing = now_at >= window.seals_until  # said above; a new leader listens first
    if situation.led and not renewing and now_at >= late_at and decision and not isinstance(decision, Hold):
        yield Fault(
            f"a rotation is due since {instant(situation.due_at or now_at, now_at)} and nothing seen here holds it",
            "the leader's log says why; so does `keyrotd history`",
        )


_FOR_NODES = {
    Standing.BEHIND: ("behind", "its agent's log says which server does not take the keys, and why"),
    Standing.DRIFT: ("drifting", "something else changes these servers' keys: a reload without the key file, a person"),
    Standing.STRANDED: ("stranded", "they go on in step until a leader renews the window, once every node could speak"),
    Standing.ISOLATED: (
        "isolated",
        "it seals with keys of its own: it has no window yet, or its log says why it takes none",
    ),
    Standing.HOLDS_NEWER: ("ahead of the store", "the store lost windows: the leader mends within seconds"),
    Standing.SILENT: ("silent", "is its agent running, and can it reach the store? it is forgotten after a day"),
}


def _node_faults(situation: Situation) -> Iterator[Fault]:
    if situation.reading.reports is None:
        yield from _unread_faults(situation)
        return
    if not situation.nodes:
        yield Fault("no node reports", "is an agent running, for this ring and on this store?")
    for standing, (words, hint) in _FOR_NODES.items():
        names = [node.name for node in situation.nodes if node.standing is standing]
        if names:
            yield Fault(f"{counted(len(names), 'node')} {words}: {listed(names)}", hint)
    for state, hint in _FOR_PROBES.items():
        unproven = [f"{node.name}/{server.name}" for node, server in _servers(situation) if server.probe is state]
        if unproven:
            yield Fault(f"a handshake shows {state.value.replace('_', ' ')}: {listed(unproven)}", hint)
    refused = [
        f"{node.name}/{server.name} by {server.refused} of {server.tried}"
        for node, server in _servers(situation)
        if server.refused
    ]
    if refused:
        hint = "`keyrotd probe` with the addresses of two such servers shows which ticket does not open where"
        yield Fault(f"peers refuse tickets of {listed(refused)}", hint)


def _unread_faults(situation: Situation) -> Iterator[Fault]:
    window, now_at = situation.reading.window, situation.now_at
    if window is None or situation.confirmed_at is not None or not situation.led:
        return
    if now_at >= window.published_at + situation.policy.spacing_ms + _longest_silence_ms(situation.policy):
        published = instant(window.published_at, now_at)
        yield Fault(
            f"window {window.epoch}, published {published}, is not read back by every live node, by the leader's word",
            "look from a host that has the ring's KEK: it proves the reports that name the nodes",
        )


_FOR_PROBES = {
    ProbeState.WRONG_KEY: "the probe address is another server's, or that server seals with other keys",
    ProbeState.NO_TICKETS: "turn session tickets on in that server",
    ProbeState.REFUSED: "the server refuses its own tickets; `keyrotd probe` shows the handshakes",
    ProbeState.UNREACHABLE: "is `probe` the address that the server listens on?",
    ProbeState.RESET: "is `probe` a TLS port, and `sni` a name that the server knows?",
    ProbeState.CERTIFICATE: "is `sni` a name in the server's certificate?",
}


def _servers(situation: Situation) -> Iterator[tuple[Node, ServerReport]]:
    return ((node, server) for node in situation.live for server in node.report.servers)


def _ago(at: int, now_at: int) -> str:
    return f"{span(max(0, now_at - at))} ago"


def _more(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""
