"""`keyrotd pause` and `resume`: an operator's wish about rotations to come, and the leader's word on it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from keyrotd.cli.desk import Desk, SystemWatch, Watch, observe, only_ring, open_desks, operator_key
from keyrotd.cli.follow import LONGEST_PAUSE_MS, known_events
from keyrotd.cli.options import CONFIG_OPTION, RING_OPTION, duration_ms, fit_reason
from keyrotd.cli.orders import ID_BYTES, refuse_leaderless, whoami
from keyrotd.cli.reading import prove_events
from keyrotd.cli.situation import Situation
from keyrotd.cli.words import instant, short, span
from keyrotd.config import load
from keyrotd.core.decide import latest_rotation_at
from keyrotd.core.errors import KeyrotdError, StoreUnavailable
from keyrotd.core.messages import Event, Pause, Resume
from keyrotd.core.policy import words
from keyrotd.core.window import Window
from keyrotd.seal.keyfiles import OperatorKey
from keyrotd.seal.lines import clip
from keyrotd.seal.messages import MAX_WHO, sign_request

_NO_WAIT = click.option("--no-wait", is_flag=True, help="Return once the request is handed in.")
_TIMEOUT = click.option(
    "--timeout",
    "timeout_ms",
    callback=duration_ms,
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for the leader's word.",
)
_CODES = "exit code: 0 the leader took it; 1 refused, no leader or no answer; 2 usage; 69 store away; 78 configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a pause or its end is handed in; `id` names it in the store, `timeout_ms` None does not wait."""

    operator: OperatorKey
    timeout_ms: int | None
    id: str


@click.command(epilog=_CODES)
@CONFIG_OPTION
@RING_OPTION
@click.option("--reason", callback=fit_reason, required=True, metavar="TEXT", help="Why: everyone who looks is told.")
@click.option(
    "--for", "for_ms", callback=duration_ms, required=True, metavar="DURATION", help="How long, from now: 2h, 45m."
)
@_NO_WAIT
@_TIMEOUT
def pause(config_path: Path, *, ring: str | None, reason: str, for_ms: int, no_wait: bool, timeout_ms: int) -> None:
    r"""
    Hold the rotations of a ring that are due, until the pause ends or `keyrotd resume` ends it.

    A key never seals beyond its bound, so a pause may not outlast the current key's; the refusal says until when it
    may. What somebody asks for goes through all the same: `rotate --now`, `revoke`. So does what a leader mends. Nodes
    without a leader go on in step by themselves. A store that loses the pause lets rotation go on.

    \b
    keyrotd pause --for 2h --reason "load test"
    """
    config, watch = load(config_path), SystemWatch()
    name = only_ring(config, ring)
    operator = operator_key(config)
    with open_desks(config, [name]) as (desk,):
        order = pausing(observe(desk, watch), who=whoami(), reason=reason, for_ms=for_ms)
        terms = Terms(operator=operator, timeout_ms=None if no_wait else timeout_ms, id=os.urandom(ID_BYTES).hex())
        for line in handed_in(desk, order, terms, watch):
            click.echo(line)


@click.command(epilog=_CODES)
@CONFIG_OPTION
@RING_OPTION
@click.option("--reason", callback=fit_reason, default="", metavar="TEXT", help="Why, for the history.")
@_NO_WAIT
@_TIMEOUT
def resume(config_path: Path, *, ring: str | None, reason: str, no_wait: bool, timeout_ms: int) -> None:
    r"""
    End every pause of a ring that was made so far. A rotation that is due comes at once.

    \b
    keyrotd resume
    """
    config, watch = load(config_path), SystemWatch()
    name = only_ring(config, ring)
    operator = operator_key(config)
    with open_desks(config, [name]) as (desk,):
        order = resuming(observe(desk, watch), who=whoami(), reason=reason)
        terms = Terms(operator=operator, timeout_ms=None if no_wait else timeout_ms, id=os.urandom(ID_BYTES).hex())
        for line in handed_in(desk, order, terms, watch):
            click.echo(line)


def pausing(situation: Situation, *, who: str, reason: str, for_ms: int) -> Pause:
    """Ask for a pause by the leader's clock; raises KeyrotdError where the bound of the current key forbids it."""
    window, signed_at = _led(situation)
    until, latest_at = signed_at + for_ms, latest_rotation_at(window, situation.policy)
    if until > latest_at:
        left_ms = (latest_at - signed_at) // 60_000 * 60_000
        shorter = f"--for {words(left_ms)} is possible; " if left_ms > 0 else ""
        raise KeyrotdError(
            f"ring {window.ring}: refused: key {short(window.current.name)} may seal until "
            f"{instant(window.seals_until, situation.now_at)}, so a pause may last until "
            f"{instant(latest_at, situation.now_at)}; nothing was asked for",
            hint=f"{shorter}`keyrotd rotate --now` brings a key whose bound is later",
        )
    return Pause(ring=window.ring, until=until, who=clip(who, MAX_WHO), reason=reason, made_at=signed_at)


def resuming(situation: Situation, *, who: str, reason: str) -> Resume:
    """Ask for the end of what was made until the leader last spoke; no pause made by then outlasts the current key."""
    window, signed_at = _led(situation)
    return Resume(ring=window.ring, until=window.seals_until, who=clip(who, MAX_WHO), reason=reason, made_at=signed_at)


def _led(situation: Situation) -> tuple[Window, int]:
    """Return the window and the leader's time: by it alone, pauses and their ends of several operators are in order."""
    refuse_leaderless(situation)
    window, beat = situation.reading.window, situation.reading.beat
    assert window is not None  # refused just now, as is a leader without a beat
    assert beat is not None
    return window, beat.signed_at


def handed_in(desk: Desk, order: Pause | Resume, terms: Terms, watch: Watch) -> Iterator[str]:
    """Hand in, wait for the leader's word, and tell. Raises KeyrotdError where that is no, or does not come."""
    known = known_events(desk)
    desk.store.request(id=terms.id, request=sign_request(order, terms.operator))
    until = f" until {instant(order.until, order.made_at)}" if isinstance(order, Pause) else ""
    verb = "pause" if isinstance(order, Pause) else "resume"
    yield f"ring {order.ring}: asked to {verb} rotation{until}, as {order.who}"
    if terms.timeout_ms is None:
        yield "not waiting; `keyrotd status` tells what becomes of it"
        return
    answer = _answer(desk, order, known, watch, terms.timeout_ms)
    if answer is None:
        raise KeyrotdError(
            f"ring {order.ring}: no word from the leader within {span(terms.timeout_ms)}",
            hint="its log says why: one that is older than this keyrotd finds the request to be of a later version",
        )
    if answer.kind == "decline":
        raise KeyrotdError(f"ring {order.ring}: refused by the leader: {answer.reason}")
    if isinstance(order, Pause):
        yield "paused: nothing rotates merely because it is due; `rotate --now` and `revoke` go through"
        return
    due_at = observe(desk, watch).due_at
    yield "resumed" if due_at is None else f"resumed: the next rotation is due {instant(due_at, order.made_at)}"


def _answer(desk: Desk, order: Pause | Resume, known: frozenset[bytes], watch: Watch, timeout_ms: int) -> Event | None:
    ends_ms = watch.boot_ms() + timeout_ms
    while True:
        for data in _fresh(desk, known):
            for event in prove_events([data], ring=desk.ring, verifiers=desk.verifiers):
                if isinstance(event, Event) and _answers(event, order):
                    return event
        if watch.boot_ms() >= ends_ms:
            return None
        watch.pause(min(LONGEST_PAUSE_MS, ends_ms - watch.boot_ms()))


def _fresh(desk: Desk, known: frozenset[bytes]) -> list[bytes]:
    try:
        return [data for data in known_events(desk) if data not in known]
    except StoreUnavailable:
        return []  # away for a while: the answer is waited for


def _answers(event: Event, order: Pause | Resume) -> bool:
    if event.who != order.who or event.happened_at < order.made_at:
        return False
    if event.kind == "decline":
        return isinstance(order, Pause)
    if isinstance(order, Resume):
        return event.kind == "resume"
    return event.kind == "pause" and (event.until, event.reason) == (order.until, order.reason)
