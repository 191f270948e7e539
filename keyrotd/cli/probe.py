"""keyrotd probe: what any TLS servers do with tickets, as a table, as JSON and as an exit code."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from keyrotd.cli.options import duration_ms
from keyrotd.core.errors import KeyrotdError
from keyrotd.core.messages import ProbeState
from keyrotd.core.stek import NAME_BYTES, Stek
from keyrotd.tls.handshake import Fault, Trust, Version
from keyrotd.tls.probe import Matrix, Sighting, matrix
from keyrotd.tls.target import Target, parse_server_name, parse_target
from keyrotd.tls.ticket import sealed
from keyrotd.tls.verdict import Expected, Finding, findings

#: Grows when a field of --json goes or changes its meaning; a new field does not count.
JSON_SCHEMA = 1

#: A matrix has as many cells as targets squared, and each is a handshake with somebody's server.
MAX_TARGETS = 64

_VERSIONS = {"1.2": (Version.TLS12,), "1.3": (Version.TLS13,), "both": (Version.TLS12, Version.TLS13)}


def _targets(_ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]) -> tuple[Target, ...]:
    try:
        targets = tuple(dict.fromkeys(parse_target(word) for word in words))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if len(targets) > MAX_TARGETS:
        raise click.BadParameter(f"{len(targets)} are more than {MAX_TARGETS}")
    return targets


def _key_name(_ctx: click.Context, _param: click.Parameter, word: str | None) -> bytes | None:
    if word is None:
        return None
    if not re.fullmatch(f"[0-9a-fA-F]{{{2 * NAME_BYTES}}}", word):
        raise click.BadParameter(f"a key's name is {2 * NAME_BYTES} hexadecimal digits")
    return bytes.fromhex(word)


def _server_name(_ctx: click.Context, _param: click.Parameter, word: str | None) -> str | None:
    try:
        return None if word is None else parse_server_name(word)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(epilog="exit code: 0 every ticket resumes everywhere, 1 something is broken, 2 usage")
@click.argument("targets", nargs=-1, required=True, callback=_targets, metavar="TARGET...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--tls", type=click.Choice(list(_VERSIONS)), default="both", show_default=True)
@click.option("--sni", callback=_server_name, metavar="NAME", help="Ask for this name; the certificate must have it.")
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False), help="Trust the certificates in this PEM file only."
)
@click.option("--insecure", is_flag=True, help="Accept any certificate: look at tickets alone.")
@click.option(
    "--timeout",
    "timeout_ms",
    callback=duration_ms,
    default="5s",
    metavar="DURATION",
    show_default=True,
    help="Per handshake.",
)
@click.option(
    "--lifetime", "lifetime_ms", callback=duration_ms, metavar="DURATION", help="Flag lifetime hints above this."
)
@click.option("--ring", metavar="NAME", help="Hold what seals against this ring's keys; needs --config and its KEK.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), envvar="KEYROTD_CONFIG", help="For --ring.")
@click.option("--expect-key", "key_name", callback=_key_name, metavar="NAME", help="The key that should seal, in hex.")
def probe(
    targets: tuple[Target, ...],
    *,
    as_json: bool,
    tls: str,
    sni: str | None,
    ca: str | None,
    insecure: bool,
    timeout_ms: int,
    lifetime_ms: int | None,
    key_name: bytes | None,
    ring: str | None,
    config_path: Path | None,
) -> None:
    """
    Show who issues session tickets under which key, and whose tickets resume on whom.

    TARGET is HOST:PORT, [IPV6]:PORT or unix:/PATH of any TLS server; nothing of keyrotd need be installed there.
    """
    if ca and insecure:
        raise click.UsageError("--ca and --insecure exclude each other")
    try:
        seen = matrix(targets, _VERSIONS[tls], sni=sni, trust=Trust(ca, insecure), timeout_ms=timeout_ms)
    except KeyrotdError as error:
        raise click.UsageError(f"{error}; {error.hint}") from error
    lifetime_s = None if lifetime_ms is None else lifetime_ms // 1000
    keys = () if ring is None else _ring_keys(ring, config_path)
    found = findings(seen, Expected(lifetime_s=lifetime_s, key_name=key_name, keys=keys))
    click.echo(as_document(seen, found) if as_json else "\n".join(as_text(seen, found)))
    if not seen.resumes or any(finding.grave for finding in found):
        raise click.exceptions.Exit(1)


def _ring_keys(name: str, config_path: Path | None) -> tuple[tuple[str, Stek], ...]:
    """Open the ring's window in the store: to check a ticket's MAC takes the very key, not only its name."""
    from keyrotd.cli.desk import open_desks
    from keyrotd.config import load
    from keyrotd.seal.window import open_window

    if config_path is None:
        raise click.UsageError("--ring needs --config, or KEYROTD_CONFIG")
    with open_desks(load(config_path), [name]) as (desk,):
        stored = desk.store.window()
        if desk.keks is None or stored is None:
            lacking = "this host has not its KEK" if desk.keks is None else "the store has no window"
            raise KeyrotdError(f"ring {name}: its keys cannot be compared, {lacking}", hint="probe without --ring")
        window = open_window(stored[1], verifiers=desk.verifiers, keks=desk.keks, ring=name)
    roles = (("current", window.current), ("next", window.next), *(("previous", key) for key in window.previous))
    return tuple((role, key.stek) for role, key in roles if key.stek is not None)


def as_document(seen: Matrix, found: Sequence[Finding]) -> str:
    """
    The JSON of `--json`: `sightings` (one per target and version), `offers` (one per ordered pair), `findings`.

    States: issues, numbers (no sealed tickets), no_tickets; resumed, refused; unreachable, reset, certificate.
    """
    return json.dumps(
        {
            "schema": JSON_SCHEMA,
            "resumes": seen.resumes,
            "sightings": [_sighting_fields(sighting) for sighting in seen.sightings],
            "offers": [
                {
                    "issuer": str(offer.issuer),
                    "taker": str(offer.taker),
                    "tls": offer.version.value,
                    "state": offer.state.value,
                    "words": offer.words,
                }
                for offer in seen.offers
            ],
            "findings": [{"grave": finding.grave, "words": finding.words, "hint": finding.hint} for finding in found],
        },
        indent=2,
    )


def _sighting_fields(sighting: Sighting) -> dict[str, object]:
    outcome = sighting.outcome
    seen = None if isinstance(outcome, Fault) else outcome
    name = None if seen is None else seen.key_name
    return {
        "target": str(sighting.target),
        "tls": sighting.version.value,
        "state": _state(sighting),
        "words": outcome.words if isinstance(outcome, Fault) else "",
        "key_name": None if name is None else name.hex(),
        "lifetime_hint_s": None if seen is None else seen.lifetime_hint_s,
        "certificate_sha256": None if seen is None else seen.certificate,
        "took_ms": None if seen is None else seen.took_ms,
    }


def _state(sighting: Sighting) -> str:
    seen = sighting.outcome
    if isinstance(seen, Fault):
        return seen.state.value
    if seen.ticket is None:
        return ProbeState.NO_TICKETS.value
    return "issues" if sealed(seen.ticket) else "numbers"


def as_text(seen: Matrix, found: Sequence[Finding]) -> Iterator[str]:
    """What people read: sightings, a table for each version, findings, and a last word."""
    targets = list(dict.fromkeys(sighting.target for sighting in seen.sightings))
    for target in targets:
        yield str(target)
        for sighting in seen.sightings:
            if sighting.target == target:
                yield f"  TLS {sighting.version.value}  {_sighting_words(sighting)}"
    for version in dict.fromkeys(sighting.version for sighting in seen.sightings):
        yield ""
        yield from _table(seen, version, targets)
    yield ""
    for finding in found:
        yield f"{'error' if finding.grave else 'note'}: {finding.words}"
        yield f"hint: {finding.hint}"
    yield "every ticket resumes everywhere" if seen.resumes else "not every ticket resumes everywhere"


def _sighting_words(sighting: Sighting) -> str:
    seen = sighting.outcome
    if isinstance(seen, Fault):
        return f"{seen.state.value}: {seen.words}"
    if seen.key_name is None:
        return "no tickets" if seen.ticket is None else "session numbers, no sealed tickets"
    return f"tickets under key {seen.key_name.hex()}, lifetime hint {seen.lifetime_hint_s} s, {seen.took_ms} ms"


_CELLS = {ProbeState.RESUMED: "yes", ProbeState.REFUSED: "NO", ProbeState.NO_TICKETS: "-"}


def _table(seen: Matrix, version: Version, targets: Sequence[Target]) -> Iterator[str]:
    cells = {
        (offer.issuer, offer.taker): _CELLS.get(offer.state, "fault")
        for offer in seen.offers
        if offer.version is version
    }
    width = max(len(str(target)) for target in targets)
    yield f"TLS {version.value}: does a ticket of the row resume on the column?"
    yield " " * (width + 5) + "".join(f"{column:>6}" for column, _ in enumerate(targets, 1))
    for row, issuer in enumerate(targets, 1):
        yield f"{row:>3}  {issuer!s:<{width}}" + "".join(f"{cells[issuer, taker]:>6}" for taker in targets)
