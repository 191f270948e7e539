"""
Beats, requests, reports, events and lists of peers as bytes. A reader proves who wrote them, and for which ring, first.

The scheduler signs beats, events and lists of peers, an operator requests. A report carries a MAC under a key derived
from the ring's KEK: any holder of that KEK can write one, so it proves the ring's membership and not which node.
"""

import hmac
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from keyrotd.core.errors import CorruptWindow
from keyrotd.core.messages import (
    Beat,
    Event,
    Goal,
    NodeState,
    Order,
    Pause,
    Peer,
    Peers,
    ProbeState,
    Report,
    Request,
    Resume,
    ServerReport,
    ServerState,
)
from keyrotd.core.peers import MAX_PEERS
from keyrotd.seal import lines, versions
from keyrotd.seal.keyfiles import Kek, Keks, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey
from keyrotd.seal.lines import Frame, Lines, line
from keyrotd.seal.signed import Envelope, envelope, prove, refuse_other_ring, signed

#: With the ids of three full key files, which it names while keys change.
MAX_BEAT_BYTES = 2_048
MAX_REQUEST_BYTES = 2_048
MAX_EVENT_BYTES = 2_048
MAX_REPORT_BYTES = 32_768
#: With all names at their longest.
MAX_PEERS_BYTES = 32_768

#: In bytes of UTF-8; percent-encoded they may take three times as much.
MAX_WHO = 128
MAX_REASON = 400
MAX_FAULT = 200
#: What one node may report about; with every fault at its longest it fits MAX_REPORT_BYTES.
MAX_SERVERS = 32

M = TypeVar("M", bound=Beat | Order | Event | Peers | Report)

#: The goals that version 2 of a request brought; those of version 1 are in Goal.
_PAUSING: dict[str, type[Pause] | type[Resume]] = {"pause": Pause, "resume": Resume}


def sign_beat(beat: Beat, signer: SigningKey) -> bytes:
    body = versions.body(
        "beat",
        (
            line("ring", beat.ring),
            line("epoch", beat.epoch),
            line("digest", beat.digest or "-"),
            line("confirmed_at", lines.or_dash(beat.confirmed_at)),
            line("signed_at", beat.signed_at),
            *_accepts_lines(beat.accepts),
        ),
    )
    data = signed(body, kind="beat", signer=signer).encode()
    return _as_meant(beat, data, _beat(envelope(data, kind="beat", limit=MAX_BEAT_BYTES).body_lines()))


def read_beat(data: bytes, *, verifiers: tuple[VerifyKey, ...], ring: str) -> Beat:
    found = envelope(data, kind="beat", limit=MAX_BEAT_BYTES)
    found.tail_lines().end()
    prove(found, verifiers=verifiers)
    return _of_ring("beat", _beat(found.body_lines()), ring)


def sign_request(order: Order, operator: OperatorKey) -> bytes:
    """Version 2 for a pause or its end, so that a scheduler that knows neither says so; version 1 for the rest."""
    until: tuple[str, ...] = ()
    if isinstance(order, Request):
        goal, past_epoch, drops = order.goal.value, order.past_epoch, order.drop_live_keys
    else:
        goal = next(goal for goal, kind in _PAUSING.items() if isinstance(order, kind))
        past_epoch, drops, until = 0, False, (line("until", order.until),)
    body = versions.body(
        "request",
        (
            line("ring", order.ring),
            line("goal", goal),
            line("past_epoch", past_epoch),
            line("drop_live_keys", "yes" if drops else "no"),
            line("who", lines.to_text(order.who)),
            line("reason", lines.to_text(order.reason)),
            line("made_at", order.made_at),
        ),
        until,
    )
    data = signed(body, kind="request", signer=operator).encode()
    return _as_meant(order, data, _order(envelope(data, kind="request", limit=MAX_REQUEST_BYTES)))


def read_request(data: bytes, *, operator_verifiers: tuple[OperatorVerifyKey, ...], ring: str) -> Order:
    found = envelope(data, kind="request", limit=MAX_REQUEST_BYTES)
    found.tail_lines().end()
    prove(found, verifiers=operator_verifiers)
    return _of_ring("request", _order(found), ring)


def sign_event(event: Event, signer: SigningKey) -> bytes:
    """One line of history. Its words are clipped to what may be printed: history never stops a scheduler."""
    body = versions.body(
        "event",
        (
            line("ring", event.ring),
            line("kind", event.kind),
            line("epoch", event.epoch),
            line("happened_at", event.happened_at),
            line("who", lines.to_text(lines.clip(event.who, MAX_WHO))),
            line("reason", lines.to_text(lines.clip(event.reason, MAX_REASON))),
        ),
        () if event.until is None else (line("until", event.until),),
    )
    data = signed(body, kind="event", signer=signer).encode()
    clipped = replace(event, who=lines.clip(event.who, MAX_WHO), reason=lines.clip(event.reason, MAX_REASON))
    return _as_meant(clipped, data, _event(envelope(data, kind="event", limit=MAX_EVENT_BYTES)))


def read_event(data: bytes, *, verifiers: tuple[VerifyKey, ...], ring: str) -> Event:
    found = envelope(data, kind="event", limit=MAX_EVENT_BYTES)
    found.tail_lines().end()
    prove(found, verifiers=verifiers)
    return _of_ring("event", _event(found), ring)


def sign_peers(peers: Peers, signer: SigningKey) -> bytes:
    body = versions.body(
        "peers",
        (
            line("ring", peers.ring),
            line("signed_at", peers.signed_at),
            *(line("peer", peer.node, peer.driver, peer.address) for peer in peers.peers),
        ),
    )
    data = signed(body, kind="peers", signer=signer).encode()
    return _as_meant(peers, data, _peers(envelope(data, kind="peers", limit=MAX_PEERS_BYTES).body_lines()))


def read_peers(data: bytes, *, verifiers: tuple[VerifyKey, ...], ring: str) -> Peers:
    found = envelope(data, kind="peers", limit=MAX_PEERS_BYTES)
    found.tail_lines().end()
    prove(found, verifiers=verifiers)
    return _of_ring("peers", _peers(found.body_lines()), ring)


def write_report(report: Report, keks: Keks) -> bytes:
    """A node's word under the first of `keks`. Faults are clipped to what may be printed, so that none mutes a node."""
    body = versions.body(
        "report",
        (
            line("ring", report.ring),
            line("node", report.node),
            line("counter", report.counter),
            line("reported_at", report.reported_at),
            line("state", report.state.value),
            line("steps", report.steps),
            line("epoch", report.epoch),
            line("holds", lines.or_dash(report.holds)),
            line("read_back", lines.or_dash(report.read_back)),
            line("floor", report.floor),
            line("barrier", report.barrier),
            line("poll_interval_ms", report.poll_interval_ms),
            *_accepts_lines(report.accepts),
            *(_server_line(server) for server in report.servers),
        ),
        (
            *(() if report.along is None else (line("along", report.along.hex()),)),
            *(_peers_line(server) for server in report.servers if _has_peers(server)),
        ),
    )
    data = (body + line("mac", keks[0].id, _mac(keks[0], report.ring, body).hex())).encode()
    _report(lines.frame(data, kind="report", limit=MAX_REPORT_BYTES).body(end=-1))
    return data


def read_report(data: bytes, *, keks: Keks, ring: str) -> Report:
    """A node's proven word. What a newer keyrotd reports is read as far as this one goes: see `Report.newer`."""
    found = lines.frame(data, kind="report", limit=MAX_REPORT_BYTES)
    rows = found.rows
    kek_id, mac = Lines("report", rows[-1:], first=len(rows)).take("mac", _mac_words)
    kek = next((kek for kek in keks if kek.id == kek_id), None)
    if kek is None:
        node = Lines("report", rows[2:3], first=3).take("node", lines.node)
        raise CorruptWindow(
            f"ring {ring}: a report in the name of {node} is under KEK {kek_id}, which is not at hand",
            reason="unknown kek",
            hint=f"does {node} have this ring's KEK file? until it has, nobody waits for it and it takes no window",
        )
    # Under the key of the ring that it names: a report cannot be moved to another ring that has the same KEK.
    claimed = Lines("report", rows[1:2], first=2).take("ring", lines.name)
    if not hmac.compare_digest(mac, _mac(kek, claimed, "".join(row + "\n" for row in rows[:-1]))):
        raise CorruptWindow(f"ring {ring}: the MAC of a report does not fit", reason="bad signature")
    if found.newer:
        return _of_ring("report", _newer_report(found), ring)
    versions.refuse_unread("report", found.version)
    return _of_ring("report", _report(found.body(end=-1)), ring)


def _beat(body: Lines) -> Beat:
    beat = Beat(
        ring=body.take("ring", lines.name),
        epoch=body.take("epoch", lines.number),
        digest=body.take("digest", lines.maybe(lines.digest)) or "",
        confirmed_at=body.take("confirmed_at", lines.maybe(lines.number)),
        signed_at=body.take("signed_at", lines.number),
        accepts=_accepts(body),
    )
    body.end()
    return beat


def _order(found: Envelope) -> Order:
    body = found.body_lines()
    goal = next((row.removeprefix("goal ") for row in found.body if row.startswith("goal ")), "")
    # By its goal: whoever writes no version 1 any more writes a rotation as version 2.
    return _pausing(body) if found.version > 1 and goal in _PAUSING else _request(body)


def _pausing(body: Lines) -> Pause | Resume:
    ring, kind = body.take("ring", lines.name), body.take("goal", _pausing_kind)
    if (body.take("past_epoch", lines.number), body.take("drop_live_keys", lines.yes_or_no)) != (0, False):
        lines.refuse("request: a pause is past no epoch, and drops no keys")
    order = kind(
        ring=ring,
        who=body.take("who", lines.text(MAX_WHO)),
        reason=body.take("reason", lines.text(MAX_REASON)),
        made_at=body.take("made_at", lines.number),
        until=body.take("until", lines.number),
    )
    body.end()
    return order


def _pausing_kind(word: str) -> type[Pause] | type[Resume]:
    if word not in _PAUSING:
        raise ValueError
    return _PAUSING[word]


def _request(body: Lines) -> Request:
    request = Request(
        ring=body.take("ring", lines.name),
        goal=body.take("goal", Goal),
        past_epoch=body.take("past_epoch", lines.number),
        drop_live_keys=body.take("drop_live_keys", lines.yes_or_no),
        who=body.take("who", lines.text(MAX_WHO)),
        reason=body.take("reason", lines.text(MAX_REASON)),
        made_at=body.take("made_at", lines.number),
    )
    body.end()
    return request


def _event(found: Envelope) -> Event:
    body = found.body_lines()
    event = Event(
        ring=body.take("ring", lines.name),
        kind=body.take("kind", lines.name),
        epoch=body.take("epoch", lines.number),
        happened_at=body.take("happened_at", lines.number),
        who=body.take("who", lines.text(MAX_WHO)),
        reason=body.take("reason", lines.text(MAX_REASON)),
        until=body.take("until", lines.number) if body.next_is("until", since=2) else None,
    )
    body.end()
    return event


def _report(body: Lines) -> Report:
    report = Report(
        ring=body.take("ring", lines.name),
        node=body.take("node", lines.node),
        counter=body.take("counter", lines.number),
        reported_at=body.take("reported_at", lines.number),
        state=body.take("state", NodeState),
        steps=body.take("steps", lines.number),
        epoch=body.take("epoch", lines.number),
        holds=body.take("holds", lines.maybe(lines.digest)),
        read_back=body.take("read_back", lines.maybe(lines.digest)),
        floor=body.take("floor", lines.number),
        barrier=body.take("barrier", lines.number),
        poll_interval_ms=body.take("poll_interval_ms", lines.number),
        accepts=_accepts(body),
        servers=tuple(_servers(body)),
        along=body.take("along", lines.key_name) if body.next_is("along", since=2) else None,
    )
    report = replace(report, servers=_with_peers(report.servers, body))
    body.end()
    if len(report.servers) > MAX_SERVERS:
        raise CorruptWindow(f"report: want at most {MAX_SERVERS} servers", reason="too large")
    if len({server.name for server in report.servers}) != len(report.servers):
        lines.refuse("report: names a server twice")
    return report


def _newer_report(found: Frame) -> Report:
    """Every line that is known here; where one has words that are not, that the node lives, and no more."""
    try:
        return replace(_report(found.body(end=-1)), newer=found.version)
    except CorruptWindow:
        body = found.body(end=-1)
        return Report(
            ring=body.take("ring", lines.name),
            node=body.take("node", lines.node),
            counter=body.take("counter", lines.number),
            reported_at=body.take("reported_at", lines.number),
            state=NodeState.BEHIND,
            steps=0,
            epoch=0,
            holds=None,
            read_back=None,
            floor=0,
            barrier=0,
            poll_interval_ms=0,
            servers=(),
            newer=found.version,
        )


def _accepts_lines(ids: tuple[str, ...]) -> tuple[str, ...]:
    return (line("accepts", *ids),) if ids else ()


def _accepts(body: Lines) -> tuple[str, ...]:
    return body.take("accepts", _ids) if body.next_is("accepts") else ()


def _ids(rest: str) -> tuple[str, ...]:
    return tuple(lines.key_id(word) for word in rest.split(" "))


def _servers(body: Lines) -> Iterator[ServerReport]:
    while body.next_is("server"):
        yield body.take("server", _server)


@lru_cache(maxsize=256)  # the servers of a fleet say the same, thousands of times
def _server(rest: str) -> ServerReport:
    name, driver, state, slots, probe, fault = rest.split(" ")
    return ServerReport(
        name=lines.name(name),
        driver=lines.name(driver),
        state=ServerState(state),
        slots=lines.maybe(lines.number)(slots),
        probe=ProbeState(probe),
        fault=lines.text(MAX_FAULT)(fault),
    )


def _server_line(server: ServerReport) -> str:
    fault = lines.to_text(lines.clip(server.fault, MAX_FAULT))
    slots = lines.or_dash(server.slots)
    return line("server", server.name, server.driver, server.state.value, slots, server.probe.value, fault)


def _has_peers(server: ServerReport) -> bool:
    return server.address != "" or server.tried > 0


def _peers_line(server: ServerReport) -> str:
    return line("peers", server.name, server.address or "-", server.resumed, server.tried)


def _with_peers(servers: tuple[ServerReport, ...], body: Lines) -> tuple[ServerReport, ...]:
    """Take the lines of version 2: in the order of the servers, and none that says nothing."""
    completed = []
    told = body.take("peers", _peers_words) if body.next_is("peers", since=2) else None
    for server in servers:
        if told is None or told[0] != server.name:
            completed.append(server)
            continue
        _, address, resumed, tried = told
        completed.append(replace(server, address=address or "", resumed=resumed, tried=tried))
        told = body.take("peers", _peers_words) if body.next_is("peers", since=2) else None
    if told is not None:
        lines.refuse("report: tells of peers of a server that it does not have, or out of turn")
    return tuple(completed)


def _peers_words(rest: str) -> tuple[str, str | None, int, int]:
    name, address, resumed, tried = rest.split(" ")
    told = lines.name(name), lines.maybe(lines.address)(address), lines.number(resumed), lines.number(tried)
    if told[2] > told[3] or (told[1] is None and told[3] == 0):
        raise ValueError
    return told


def _peers(body: Lines) -> Peers:
    ring, signed_at = body.take("ring", lines.name), body.take("signed_at", lines.number)
    found = []
    while body.next_is("peer"):
        found.append(body.take("peer", _peer))
    body.end()
    if len(found) > MAX_PEERS:
        raise CorruptWindow(f"peers: want at most {MAX_PEERS}", reason="too large")
    return Peers(ring=ring, signed_at=signed_at, peers=tuple(found))


def _peer(rest: str) -> Peer:
    node, driver, address = rest.split(" ")
    return Peer(node=lines.node(node), driver=lines.name(driver), address=lines.address(address))


def _mac(kek: Kek, ring: str, body: str) -> bytes:
    return hmac.digest(kek.derive("report", ring), f"keyrotd/1 report\x00{body}".encode(), "sha256")


def _mac_words(rest: str) -> tuple[str, bytes]:
    kek_id, mac = rest.split(" ")
    return lines.key_id(kek_id), bytes.fromhex(lines.digest(mac))


def _as_meant(value: M, data: bytes, read: M) -> bytes:
    # What is written is read before it leaves: a name or a number that no reader takes is refused where it was made.
    if read != value:
        lines.refuse(f"ring {value.ring}: a {type(value).__name__.lower()} holds what cannot be written")
    return data


def _of_ring(kind: str, value: M, ring: str) -> M:
    refuse_other_ring(kind, found=value.ring, ring=ring)
    return value
