"""The screen of `keyrotd status`, as text for people and as values for --json. Times come in as arguments."""

from collections import Counter
from collections.abc import Iterable, Iterator

from keyrotd.cli.reading import Reading
from keyrotd.cli.situation import Node, Situation, Standing
from keyrotd.cli.words import counted, instant, relative, sheet, short, span, table
from keyrotd.core.messages import Event, Pause, ProbeState, ServerReport, ServerState
from keyrotd.core.policy import words
from keyrotd.core.window import Key, Window

#: Grows when a field of any --json goes or changes its meaning; a new field does not count.
JSON_SCHEMA = 1

#: A larger fleet's screen shows so many rows of nodes, the worst first, and counts the others.
MAX_ROWS = 24

JSON_HELP = """\
--json, schema 1 (docs/status.schema.json): instants are Unix milliseconds (`_at`, `_until`, `_from`), names and
digests full hex, null is unknown or none. {schema, rings: [{ring, now_at, healthy, faults: [{words, hint}], leader:
{name, lease_ms, fence}, beat: {epoch, digest, confirmed_at, signed_at}, window: {epoch, fence, barrier, digest,
published_at, seals_until, worst_ms, keys: [{role, name, born, made_at, seals_from, seals_until, opens_until}]},
due_at, held: {reason, until}, pause: {who, reason, until}, last_event: {kind, epoch, happened_at, who, reason,
until}, reports, nodes: [{node, standing, state, steps, along, live, spoke_at, epoch, holds, read_back,
acknowledged, servers: [{name, driver, state, slots, probe, fault, address, peers: {resumed, tried}}]}]}]}. `until` of
an event is null unless it is a pause, `nodes` is null without the ring's KEK, which alone proves reports."""


def as_text(situation: Situation, *, most_rows: int = MAX_ROWS) -> Iterator[str]:
    """One screen: of a fleet with more rows than `most_rows` only nodes that are not well, the worst first."""
    reading, now_at = situation.reading, situation.now_at
    yield f"ring {reading.ring}: {'healthy' if situation.healthy else 'NOT HEALTHY'}"
    yield from sheet(_facts(situation))
    for fault in situation.faults:
        yield f"error: {fault.words}"
        yield f"hint: {fault.hint}"
    if reading.window is not None:
        yield ""
        yield from table(_key_rows(reading.window, now_at))
    if situation.nodes:
        yield ""
        yield from _node_table(situation, most_rows)


def _facts(situation: Situation) -> Iterator[tuple[str, str]]:
    reading, policy, now_at = situation.reading, situation.policy, situation.now_at
    yield "leader", _leader(reading)
    if reading.beat is not None:
        yield "beat", f"{relative(reading.beat.signed_at, now_at)}, for epoch {reading.beat.epoch}"
    window = reading.window
    if window is not None:
        yield (
            "window",
            f"epoch {window.epoch}, digest {short(window.digest)}, published {instant(window.published_at, now_at)}",
        )
        yield "", _read_back(situation, window)
    if situation.due_at is not None:
        yield "next due", instant(situation.due_at, now_at)
    if situation.pause is not None:
        yield "paused", pause_words(situation.pause, now_at)
    if situation.held is not None:
        until = "" if situation.held.until is None else f", until {instant(situation.held.until, now_at)} at most"
        yield "held", f"{situation.held.reason}{until}"
    yield "bound", f"while rotations are on time, a key is gone within {words(policy.worst_ms)} of being made (V)"
    if reading.last_event is not None:
        yield "last event", event_words(reading.last_event, now_at)
    yield "nodes", _nodes(situation)


def _leader(reading: Reading) -> str:
    if not reading.leader:
        return "none"
    return f"{reading.leader}, lease for another {span(reading.lease_ms)}, fence {reading.fence}"


def _read_back(situation: Situation, window: Window) -> str:
    if situation.confirmed_at is not None:
        took_ms = max(0, situation.confirmed_at - window.published_at)
        return f"read back by every live node within {span(took_ms)}"
    if situation.behind or not situation.live:
        return "not read back by every live node yet"
    confirmer = "the next beat" if situation.led else "a leader's beat"
    return f"read back by every live node; waiting for {confirmer} to confirm"


def _nodes(situation: Situation) -> str:
    if situation.reading.reports is None:
        return (
            f"{counted(situation.reading.report_count, 'report')}, unread: the ring's KEK proves them, and is not here"
        )
    silent = len(situation.nodes) - len(situation.live)
    return f"{len(situation.live)} live, {silent} silent; {len(situation.behind)} still to read the window back"


def pause_words(pause: Pause, now_at: int) -> str:
    return f"until {instant(pause.until, now_at)} by {pause.who}: {pause.reason}"


def event_words(event: Event, now_at: int) -> str:
    who = f" by {event.who}" if event.who else ""
    why = event.reason or "-"
    return f"{event.kind}{who}, epoch {event.epoch}, {relative(event.happened_at, now_at)}: {why}"


_KEY_HEAD = ("key", "name", "age", "seals", "opens until")


def _key_rows(window: Window, now_at: int) -> Iterator[tuple[str, ...]]:
    yield _KEY_HEAD
    for role, key in roles(window):
        yield (role, short(key.name), span(max(0, now_at - key.made_at)), *_bounds(role, key, now_at))


def _bounds(role: str, key: Key, now_at: int) -> tuple[str, str]:
    opens = instant(key.opens_until, now_at) if key.open_at(now_at) else f"{instant(key.opens_until, now_at)}: gone"
    if role == "next" or key.seals_until is None:
        return "not yet" if role == "next" else "never did", opens
    if role == "current":
        return f"until {instant(key.seals_until, now_at)}", opens
    return "no more", opens


def roles(window: Window) -> Iterator[tuple[str, Key]]:
    yield "current", window.current
    yield "next", window.next
    yield from (("previous", key) for key in window.previous)


_NODE_HEAD = ("node", "standing", "epoch", "spoke", "server", "driver", "state", "slots", "probe", "fault")


#: The worst first: a server that has not got the keys, then one that has keys that no other has, then who may be gone.
_WORST = (
    Standing.BEHIND,
    Standing.DRIFT,
    Standing.ISOLATED,
    Standing.STRANDED,
    Standing.HOLDS_NEWER,
    Standing.SILENT,
    Standing.JOINING,
    Standing.CATCHING_UP,
    Standing.IN_STEP,
)
_RANK = {standing: rank for rank, standing in enumerate(_WORST)}


def _node_table(situation: Situation, most_rows: int) -> Iterator[str]:
    nodes = situation.nodes
    if sum(map(_rows_of, nodes)) <= most_rows:
        yield from table(_node_rows(situation, nodes))
        return
    yield ", ".join(f"{count} {standing.value}" for standing, count in _counted(nodes))
    shown = tuple(_worst(nodes, most_rows))
    if shown:
        yield from table(_node_rows(situation, shown))
    yield f"{counted(len(nodes) - len(shown), 'node')} not shown, the best first; --all shows every one"


def _counted(nodes: Iterable[Node]) -> Iterator[tuple[Standing, int]]:
    counts = Counter(node.standing for node in nodes)
    return ((standing, counts[standing]) for standing in _WORST if counts[standing])


def _worst(nodes: Iterable[Node], most_rows: int) -> Iterator[Node]:
    """Those that are not well, as far as they have room."""
    for node in sorted((node for node in nodes if not _well(node)), key=lambda node: _RANK[node.standing]):
        most_rows -= _rows_of(node)
        if most_rows < 0:
            return
        yield node


def _well(node: Node) -> bool:
    servers = node.report.servers
    proven = all(server.probe in {ProbeState.RESUMED, ProbeState.NONE} and not server.refused for server in servers)
    return node.standing is Standing.IN_STEP and proven


def _rows_of(node: Node) -> int:
    return max(1, len(node.report.servers))


def _node_rows(situation: Situation, nodes: Iterable[Node]) -> Iterator[tuple[str, ...]]:
    yield _NODE_HEAD
    for node in nodes:
        spoke = "never" if node.spoke_at is None else relative(node.spoke_at, situation.now_at)
        stepped = f", step {node.report.steps}" if node.standing is Standing.STRANDED else ""
        first = (node.name, f"{node.standing.value}{stepped}", str(node.report.epoch or "-"), spoke)
        servers = [_server_cells(server, "" if node.live else spoke) for server in node.report.servers] or [("-",) * 6]
        for at, cells in enumerate(servers):
            yield (*(first if at == 0 else ("",) * len(first)), *cells)


def _server_cells(server: ServerReport, last_known: str) -> tuple[str, ...]:
    """`last_known`: how long ago a node that is silent now said this, '' for one that speaks."""
    aged = f" ({last_known})" if last_known else ""
    return (
        server.name,
        server.driver,
        f"{_STATES[server.state]}{aged}",
        "-" if server.slots is None else str(server.slots),
        f"{_probe_words(server)}{aged}" if server.probe is not ProbeState.NONE or server.tried else "-",
        server.fault,
    )


def _probe_words(server: ServerReport) -> str:
    own = () if server.probe is ProbeState.NONE else (server.probe.value.replace("_", " "),)
    peers = (f"peers {server.resumed}/{server.tried}",) if server.tried else ()
    return ", ".join((*own, *peers))


_STATES = {
    ServerState.IN_STEP: "in step",
    ServerState.INSTALLING: "installing",
    ServerState.FAILED: "FAILED",
    ServerState.UNREACHABLE: "UNREACHABLE",
}


def as_values(situation: Situation) -> dict[str, object]:
    """One element of `rings` in --json."""
    reading, beat = situation.reading, situation.reading.beat
    held, pause = situation.held, situation.pause
    return {
        "ring": reading.ring,
        "now_at": situation.now_at,
        "healthy": situation.healthy,
        "faults": [{"words": fault.words, "hint": fault.hint} for fault in situation.faults],
        "leader": {"name": reading.leader, "lease_ms": reading.lease_ms, "fence": reading.fence}
        if reading.leader
        else None,
        "beat": None
        if beat is None
        else {
            "epoch": beat.epoch,
            "digest": beat.digest,
            "confirmed_at": beat.confirmed_at,
            "signed_at": beat.signed_at,
        },
        "window": None if reading.window is None else window_values(reading.window, situation.policy.worst_ms),
        "due_at": situation.due_at,
        "held": None if held is None else {"reason": held.reason, "until": held.until},
        "pause": None if pause is None else {"who": pause.who, "reason": pause.reason, "until": pause.until},
        "last_event": None if reading.last_event is None else event_values(reading.last_event),
        "reports": reading.report_count,
        "nodes": None if reading.reports is None else [_node_values(node) for node in situation.nodes],
    }


def window_values(window: Window, worst_ms: int | None = None) -> dict[str, object]:
    return {
        "epoch": window.epoch,
        "fence": window.fence,
        "barrier": window.barrier,
        "digest": window.digest,
        "published_at": window.published_at,
        "seals_until": window.seals_until,
        "worst_ms": worst_ms,
        "keys": [
            {
                "role": role,
                "name": key.name.hex(),
                "born": key.born,
                "made_at": key.made_at,
                "seals_from": key.seals_from,
                "seals_until": key.seals_until,
                "opens_until": key.opens_until,
            }
            for role, key in roles(window)
        ],
    }


def event_values(event: Event) -> dict[str, object]:
    return {
        "kind": event.kind,
        "epoch": event.epoch,
        "happened_at": event.happened_at,
        "who": event.who,
        "reason": event.reason,
        "until": event.until,
    }


def _node_values(node: Node) -> dict[str, object]:
    report = node.report
    return {
        "node": node.name,
        "standing": node.standing.value,
        "state": report.state.value,
        "steps": report.steps,
        "along": None if report.along is None else report.along.hex(),
        "live": node.live,
        "spoke_at": node.spoke_at,
        "epoch": report.epoch,
        "holds": report.holds,
        "read_back": report.read_back,
        "acknowledged": node.acknowledged,
        "servers": [
            {
                "name": server.name,
                "driver": server.driver,
                "state": server.state.value,
                "slots": server.slots,
                "probe": server.probe.value,
                "fault": server.fault,
                "address": server.address or None,
                "peers": {"resumed": server.resumed, "tried": server.tried} if server.tried else None,
            }
            for server in report.servers
        ],
    }
