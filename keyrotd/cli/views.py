"""`keyrotd status`, `history`, `inspect` and `acl`: looking, and never changing anything."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from keyrotd import secrets
from keyrotd.cli import exits, inspection, screen
from keyrotd.cli.desk import Desk, SystemWatch, Watch, chosen, keks_at_hand, observe, only_ring, open_desks
from keyrotd.cli.inspection import Found, Keyring
from keyrotd.cli.options import CONFIG_OPTION, duration_ms
from keyrotd.cli.reading import Unproven, prove_events
from keyrotd.cli.situation import Situation
from keyrotd.cli.words import instant, iso, table
from keyrotd.config import Config, load
from keyrotd.core.errors import ConfigError, CorruptWindow, KeyrotdError, StoreUnavailable
from keyrotd.core.messages import Event
from keyrotd.seal.keyfiles import OperatorVerifyKey, VerifyKey
from keyrotd.store import acl as store_acl
from keyrotd.store.limits import HISTORY

#: Between two looks of --watch.
_WATCH_MS = 2_000

_RINGS = click.option("--ring", "rings", multiple=True, metavar="RING", help="Only this one; may be repeated.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.command(
    epilog="exit code: 0 healthy; 1 no leader, no fresh beat, or a node behind, drifting, stranded, isolated or "
    "silent; 2 usage; 69 store away; 78 configuration\n\n" + screen.JSON_HELP,
)
@CONFIG_OPTION
@_RINGS
@_JSON
@click.option("--watch", "watching", is_flag=True, help="Look every 2 s until stopped; --json prints a line each.")
@click.option("--all", "everyone", is_flag=True, help="Show every node, however many: --json always does.")
def status(config_path: Path, *, rings: tuple[str, ...], as_json: bool, watching: bool, everyone: bool) -> None:
    r"""
    Show who leads, which window stands, how old its keys are, what is due, and what each node's servers hold.

    Needs the verify key; nodes are shown where the ring's KEK is at hand, which proves their reports.

    \b
    keyrotd status
    keyrotd status --ring edge --watch
    """
    config, watch = load(config_path), SystemWatch()
    most_rows = sys.maxsize if everyone else screen.MAX_ROWS
    with open_desks(config, rings) as desks:
        if not watching:
            situations = tuple(observe(desk, watch) for desk in desks)
            click.echo(_document(situations, indent=2) if as_json else _screen(situations, most_rows))
            raise click.exceptions.Exit(health(situations))
        raise click.exceptions.Exit(keep_looking(desks, watch, as_json=as_json, most_rows=most_rows))


def keep_looking(desks: tuple[Desk, ...], watch: Watch, *, as_json: bool, most_rows: int = screen.MAX_ROWS) -> int:
    """Look again and again until a person has seen enough; return the code of the last look."""
    code = exits.DONE
    try:
        while True:
            code = _glance(desks, watch, as_json=as_json, most_rows=most_rows)
            watch.pause(_WATCH_MS)
    except KeyboardInterrupt:
        return code


def health(situations: tuple[Situation, ...]) -> int:
    return exits.DONE if all(situation.healthy for situation in situations) else exits.FAILED


def _glance(desks: tuple[Desk, ...], watch: Watch, *, as_json: bool, most_rows: int) -> int:
    """Look once of many times: a store that is away is news and not the end."""
    try:
        situations = tuple(observe(desk, watch) for desk in desks)
    except StoreUnavailable as away:
        words = json.dumps({"schema": screen.JSON_SCHEMA, "error": str(away)}) if as_json else f"error: {away}"
        code = exits.STORE_AWAY
    else:
        words = _document(situations, indent=None) if as_json else _screen(situations, most_rows)
        code = health(situations)
    if not as_json:
        click.clear()
    click.echo(words)
    return code


def _document(situations: tuple[Situation, ...], *, indent: int | None) -> str:
    rings = [screen.as_values(situation) for situation in situations]
    return json.dumps({"schema": screen.JSON_SCHEMA, "rings": rings}, indent=indent)


def _screen(situations: tuple[Situation, ...], most_rows: int) -> str:
    return "\n\n".join("\n".join(screen.as_text(found, most_rows=most_rows)) for found in situations)


@click.command(
    epilog="exit code: 0 every line is proven, 1 some are not, 2 usage, 69 store away, 78 configuration\n\n"
    "--json, schema 1: {schema, rings: [{ring, events: [{kind, epoch, happened_at, who, reason, until}]}]}, newest "
    "first; until is null unless it is a pause; an event that nobody signed is {unproven: words} in its place.",
)
@CONFIG_OPTION
@_RINGS
@click.option("--limit", type=click.IntRange(1, HISTORY), default=20, show_default=True, help="So many events at most.")
@click.option(
    "--since", "since_ms", callback=duration_ms, metavar="DURATION", help="Only the last 2d, 1h30m; all there are."
)
@_JSON
def history(config_path: Path, *, rings: tuple[str, ...], limit: int, since_ms: int | None, as_json: bool) -> None:
    r"""
    Show the signed history of rings: what was published, paused or declined, when, by whom and why.

    A store keeps the newest 1000 events of a ring, and may lose them: it is no archive.

    \b
    keyrotd history --limit 100
    keyrotd history --since 7d --json
    """
    config, now_at = load(config_path), SystemWatch().wall_ms()
    found: dict[str, tuple[Event | Unproven, ...]] = {}
    with open_desks(config, rings) as desks:
        for desk in desks:
            events = desk.store.history(limit=limit if since_ms is None else HISTORY)
            proven = prove_events(events, ring=desk.ring, verifiers=desk.verifiers)
            found[desk.ring] = proven if since_ms is None else recent(proven, now_at - since_ms)
    click.echo(history_document(found) if as_json else "\n".join(history_text(found, now_at)))
    if any(isinstance(event, Unproven) for events in found.values() for event in events):
        raise click.exceptions.Exit(exits.FAILED)


def recent(events: tuple[Event | Unproven, ...], since_at: int) -> tuple[Event | Unproven, ...]:
    """What happened since then; what nobody signed has no instant, and is not left out."""
    return tuple(event for event in events if isinstance(event, Unproven) or event.happened_at >= since_at)


def history_document(found: dict[str, tuple[Event | Unproven, ...]]) -> str:
    rings = [{"ring": ring, "events": [_event_values(event) for event in events]} for ring, events in found.items()]
    return json.dumps({"schema": screen.JSON_SCHEMA, "rings": rings}, indent=2)


def _event_values(event: Event | Unproven) -> dict[str, object]:
    return screen.event_values(event) if isinstance(event, Event) else {"unproven": event.words}


def history_text(found: dict[str, tuple[Event | Unproven, ...]], now_at: int) -> Iterator[str]:
    for at, (ring, events) in enumerate(found.items()):
        if at:
            yield ""
        yield f"ring {ring}"
        if not events:
            yield "  no history: nothing happened yet, or the store lost it"
            continue
        rows = [("when", "epoch", "what", "who", "why"), *(_event_row(event, now_at) for event in events)]
        yield from table(rows, indent="  ")


def _event_row(event: Event | Unproven, now_at: int) -> tuple[str, str, str, str, str]:
    if isinstance(event, Unproven):
        return "?", "?", "NOT PROVEN", "?", event.words
    when, reason = instant(event.happened_at, now_at), event.reason or "-"
    if event.until is not None:
        reason = f"until {iso(event.until)}: {reason}"
    return when, str(event.epoch), event.kind, event.who or "-", reason


@click.command(
    epilog="exit code: 0 well formed and not disproven, 1 malformed or a key at hand disproves it, 2 usage, "
    "69 store away, 78 configuration\n\n"
    "--json, schema 1: {schema, kind, proven, verdict, ...}; proven is null where no key at hand could tell. A window "
    "has the fields of `status --json` and ring, kek, signer, seeds, ancestors; a message has its own lines by name; "
    "a key file has holds and ids, that of a server names.",
)
@click.argument("file", required=False, type=click.Path(allow_dash=True, path_type=Path))
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="KEYROTD_CONFIG",
    help="Verify with this configuration's keys; needed without FILE.",
)
@click.option("--ring", metavar="RING", help="Without FILE: whose window, where the configuration has several.")
@_JSON
def inspect(file: Path | None, *, config_path: Path | None, ring: str | None, as_json: bool) -> None:
    r"""
    Read FILE, `-` for standard input, or without it the window in the store. Never shows a secret.

    Reads windows, beats, requests, events, reports and key files: keyrotd's own, and of a TLS server the one that
    readers inside of servers share, an Envoy secret or HAProxy's lines, of which it shows the public names. With a
    configuration it also says whether the keys at hand prove it; without one it says what is claimed.

    \b
    keyrotd inspect
    keyrotd inspect window.bin
    keyrotd inspect secrets/edge.kek
    keyrotd inspect /run/keyrotd/nginx.keys
    """
    config = None if config_path is None else load(config_path)
    if file is not None and ring is not None:
        raise click.UsageError("--ring chooses among the windows of a store; FILE names its own")
    data = _stored(config, ring) if file is None else _bytes(file)
    keyring = Keyring(keks={}) if config is None else _keyring(config)
    try:
        found = inspection.inspect(data, keyring, SystemWatch().wall_ms())
    except CorruptWindow as corrupt:
        raise KeyrotdError(f"malformed ({corrupt.reason}): {corrupt}", hint=corrupt.hint) from corrupt
    except ConfigError as refused:
        faults = [fault for fault, _ in refused.faults]
        raise KeyrotdError("; ".join(faults), hint=refused.faults[0][1]) from refused
    click.echo(inspection_document(found) if as_json else "\n".join(inspection_text(found)))
    if found.proven is False:
        raise click.exceptions.Exit(exits.FAILED)


def inspection_document(found: Found) -> str:
    values = {"schema": screen.JSON_SCHEMA, "kind": found.kind, "proven": found.proven, "verdict": found.verdict}
    return json.dumps({**values, **found.values}, indent=2)


def inspection_text(found: Found) -> Iterator[str]:
    yield f"{found.kind}: {found.verdict}"
    yield from found.text


def _stored(config: Config | None, ring: str | None) -> bytes:
    if config is None:
        raise click.UsageError("name a FILE, or the store's window with --config")
    name = only_ring(config, ring)
    with open_desks(config, [name]) as (desk,):
        found = desk.store.window()
    if found is None:
        raise KeyrotdError(f"ring {name}: the store holds no window", hint="`keyrotd status` says who should publish")
    return found[1]


def _bytes(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(inspection.MAX_BYTES + 1)
        with file.open("rb") as opened:
            return opened.read(inspection.MAX_BYTES + 1)
    except OSError as error:
        words = (error.strerror or type(error).__name__).lower()
        raise KeyrotdError(f"{file}: cannot be read: {words}") from error


def _keyring(config: Config) -> Keyring:
    operators = config.secrets.operator_verify_key_file
    keks = {ring.name: keks_at_hand(ring.kek_file) for ring in config.rings}
    return Keyring(
        verifiers=secrets.read(config.secrets.verify_key_file, VerifyKey),
        operators=() if operators is None else secrets.read(operators, OperatorVerifyKey),
        keks={ring: found for ring, found in keks.items() if found is not None},
    )


@click.command(
    epilog="exit code: 0 done, 2 usage, 78 configuration",
)
@CONFIG_OPTION
@_RINGS
def acl(config_path: Path, *, rings: tuple[str, ...]) -> None:
    r"""
    Print an ACL SETUSER line for scheduler, agent and operator: the least that each needs in the store.

    The note on passwords goes to standard error, so that the lines can be piped.

    \b
    keyrotd acl | redis-cli
    """
    config = load(config_path)
    names = [ring.name for ring in chosen(config, rings)]
    for line in store_acl.lines(config.store.namespace, names, db=config.store.address.db):
        click.echo(line)
    for line in _PASSWORDS:
        click.echo(line, err=True)


_PASSWORDS = (
    "note: a new user cannot log in until it has a password; run again, these lines leave passwords alone",
    "hint: ACL SETUSER keyrotd-agent '>...' for each user; then ACL SAVE, or paste into the server's aclfile",
)
