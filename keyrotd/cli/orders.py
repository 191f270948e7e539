"""`keyrotd rotate` and `revoke`: what an operator may ask of a leader, followed until every live node has done it."""

import getpass
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import assert_never

import click

from keyrotd.cli.desk import Desk, SystemWatch, Watch, observe, only_ring, open_desks, operator_key
from keyrotd.cli.follow import (
    Awaited,
    Declined,
    Everywhere,
    FellSilent,
    Held,
    Late,
    Published,
    ReadBack,
    Step,
    Unanswered,
    follow,
    known_events,
)
from keyrotd.cli.forecast import asking, forecast, free_in
from keyrotd.cli.options import CONFIG_OPTION, RING_OPTION, duration_ms, fit_reason
from keyrotd.cli.screen import pause_words
from keyrotd.cli.situation import Situation, first_window_hint, foresee, leader_fault
from keyrotd.cli.words import counted, instant, iso, short, span
from keyrotd.config import load
from keyrotd.core.decide import Decline, Hold, listed
from keyrotd.core.errors import KeyrotdError
from keyrotd.core.messages import REQUEST_LIFETIME_MS, Goal, Request
from keyrotd.core.stek import SEED_BYTES, Stek
from keyrotd.seal.keyfiles import OperatorKey
from keyrotd.seal.messages import sign_request

ID_BYTES = 16


_NO_WAIT = click.option("--no-wait", is_flag=True, help="Return once the request is handed in.")
_TIMEOUT = click.option(
    "--timeout",
    "timeout_ms",
    callback=duration_ms,
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for every live node.",
)


@click.command(
    epilog="exit code: 0 read back by every live node (or said); 1 refused, no leader, late, or a node fell silent "
    "meanwhile; 2 usage; 69 store away; 78 configuration",
)
@CONFIG_OPTION
@click.option("--now", is_flag=True, help="Do it: ask the leader, and follow until every live node has it.")
@RING_OPTION
@click.option("--reason", callback=fit_reason, default="", metavar="TEXT", help="Why, for the history.")
@_NO_WAIT
@_TIMEOUT
@click.option("--drop-live-keys", is_flag=True, help="Even if a server with few slots drops a key with live tickets.")
def rotate(
    config_path: Path,
    *,
    now: bool,
    ring: str | None,
    reason: str,
    no_wait: bool,
    timeout_ms: int,
    drop_live_keys: bool,
) -> None:
    r"""
    Rotate a ring's keys, or say what that would do.

    Without --now nothing is asked for; needs the verify key only. With --now the operator key signs a request, the
    leader publishes, and each node is named as its servers are seen to hold the new window. Where this host has the
    ring's KEK the nodes' own proven reports tell; elsewhere the leader's signed word does, which names no nodes.

    \b
    keyrotd rotate
    keyrotd rotate --now --reason "leaver: carol"
    """
    config, watch = load(config_path), SystemWatch()
    name = only_ring(config, ring)
    operator = operator_key(config) if now else None
    with open_desks(config, [name]) as (desk,):
        situation = observe(desk, watch)
        request = asking(Goal.ROTATE, situation, who=whoami(), reason=reason, drop_live_keys=drop_live_keys)
        if operator is None:
            for line in forecast(situation, request, Stek(os.urandom(SEED_BYTES), name)):
                click.echo(line)
            return
        refuse_rotation(situation, request)
        if situation.pause is not None:
            click.echo(f"note: paused {pause_words(situation.pause, situation.now_at)}; this goes through all the same")
        terms = Terms(operator=operator, wait=not no_wait, timeout_ms=timeout_ms, id=os.urandom(ID_BYTES).hex())
        for line in ordered(desk, situation, request, terms, watch):
            click.echo(line)


@click.command(
    epilog="exit code: as for rotate",
)
@CONFIG_OPTION
@RING_OPTION
@click.option("--reason", callback=fit_reason, required=True, metavar="TEXT", help="Why, for the history.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can answer.")
@_NO_WAIT
@_TIMEOUT
def revoke(config_path: Path, *, ring: str | None, reason: str, yes: bool, no_wait: bool, timeout_ms: int) -> None:
    r"""
    Replace every key of a ring: no ticket sealed so far opens again, and every client makes one full handshake.

    For when a key may have leaked. Nodes that are not live cannot be told: they are listed with the instant until
    which they may still open old tickets.

    \b
    keyrotd revoke --ring edge --reason "edge-7 was broken into"
    """
    config, watch = load(config_path), SystemWatch()
    name = only_ring(config, ring)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody is there to confirm: say --yes")
    operator = operator_key(config)
    with open_desks(config, [name]) as (desk,):
        situation = observe(desk, watch)
        refuse_leaderless(situation)
        if not yes:
            click.confirm(question(situation), abort=True)
            # Whoever thinks it over for minutes means the keys of now, and wants a request that is not void by then.
            situation = observe(desk, watch)
            refuse_leaderless(situation)
        request = asking(Goal.REVOKE, situation, who=whoami(), reason=reason)
        terms = Terms(operator=operator, wait=not no_wait, timeout_ms=timeout_ms, id=os.urandom(ID_BYTES).hex())
        lines = ordered(desk, situation, request, terms, watch)
        click.echo(next(lines))
        # Before the waiting: whoever stops it, or waits in vain, needs the list all the more.
        for line in chain(still_burning(situation), lines):
            click.echo(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How an order is handed in and followed; `id` names it in the store."""

    operator: OperatorKey
    wait: bool
    timeout_ms: int
    id: str


def whoami() -> str:
    """The person, as far as the machine knows: who called sudo rather than root."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def refuse_rotation(situation: Situation, request: Request) -> None:
    """Raise if the leader is away, or would refuse by what is known here."""
    refuse_leaderless(situation)
    refusal = _foreseen_refusal(situation, request)
    if refusal is not None:
        reason, free_at = refusal
        raise KeyrotdError(
            f"ring {request.ring}: refused: {reason}; nothing was asked for",
            hint=f"free from {instant(free_at, situation.now_at)}; --drop-live-keys does it anyway, and the "
            "tickets of that key die",
        )


def _foreseen_refusal(situation: Situation, request: Request) -> tuple[str, int] | None:
    """Return why the leader would refuse, now or once it no longer holds the request, and until when."""
    decision = foresee(situation, request)
    if isinstance(decision, Decline):
        return decision.reason, decision.until
    if not isinstance(decision, Hold) or situation.confirmed_at is None or request.drop_live_keys:
        return None  # until the window is confirmed, the bounds of previous keys may still be lowered
    free_at = free_in(situation)
    if free_at is None or (decision.until is not None and free_at <= decision.until):
        return None
    return "a server has too few slots: a key whose tickets still live would be dropped", free_at


def refuse_leaderless(situation: Situation) -> None:
    ring = situation.reading.ring
    fault = leader_fault(situation)
    if fault is not None:
        raise KeyrotdError(f"ring {ring}: {fault.words}; nothing was asked for", hint=fault.hint)
    if situation.reading.window is None:
        raise KeyrotdError(
            f"ring {ring}: no window that the verify key proves is in the store; nothing was asked for",
            hint=f"{first_window_hint(situation.policy)}; `keyrotd status` tells",
        )


def question(situation: Situation) -> str:
    nodes = counted(len(situation.live), "live node") if situation.reading.reports is not None else "every node"
    return (
        f"ring {situation.reading.ring}: burn every key on {nodes}? no ticket sealed so far opens again, and every "
        "client makes a full handshake"
    )


def ordered(desk: Desk, situation: Situation, request: Request, terms: Terms, watch: Watch) -> Iterator[str]:
    """Hand in, follow, and tell. Raises KeyrotdError where the order was refused or is late."""
    known = known_events(desk)
    desk.store.request(id=terms.id, request=sign_request(request, terms.operator))
    yield f"ring {desk.ring}: asked to {request.goal.value} past epoch {request.past_epoch}, as {request.who}"
    if not terms.wait:
        yield f"not waiting; the request is void at {iso(request.made_at + REQUEST_LIFETIME_MS)}"
        return
    steps = follow(desk, request, known, since=situation, watch=watch, timeout_ms=terms.timeout_ms)
    for step in steps:
        yield from _told(step, situation, request, terms)


def _told(step: Step, situation: Situation, request: Request, terms: Terms) -> Iterator[str]:
    ring = request.ring
    match step:
        case Held(hold):
            until = "" if hold.until is None else f", until {instant(hold.until, situation.now_at)} at most"
            yield f"held: {hold.reason}{until}"
        case Published(window, after_ms):
            current, digest = short(window.current.name), short(window.digest)
            yield f"epoch {window.epoch} published within {span(after_ms)}: {current} is current, digest {digest}"
        case ReadBack(node, after_ms):
            yield f"  {node} read it back within {span(after_ms)}"
        case Awaited(behind):
            yield "waiting for " + ("the leader's word on every node" if behind is None else listed(behind, 20))
        case Unanswered(leader):
            yield f"waiting for {leader or 'a leader'} to publish"
        case Everywhere(window, after_ms, nodes, then):
            who = "by the leader's word" if nodes is None else counted(nodes, "live node")
            if request.goal is Goal.ROTATE and (
                away := [node.name for node in then.nodes if not (node.live or node.acknowledged)]
            ):
                yield f"not live, and not waited for: {listed(away, 20)}"
            yield f"epoch {window.epoch} is read back by every live node, {span(after_ms)} after the order: {who}"
        case FellSilent():
            raise _silenced(step, situation, request)
        case Declined(reason):
            hint = "--drop-live-keys does it anyway, and the tickets of that key die"
            raise KeyrotdError(f"ring {ring}: refused by the leader: {reason}", hint=hint)
        case Late():
            raise _late(step, request, terms)
        case _:
            assert_never(step)


def _late(late: Late, request: Request, terms: Terms) -> KeyrotdError:
    timeout = span(terms.timeout_ms)
    if late.window is None:
        why = "the leader did not say why" if late.held is None else late.held.reason
        void = iso(request.made_at + REQUEST_LIFETIME_MS)
        return KeyrotdError(
            f"ring {request.ring}: nothing published within {timeout}: {why}",
            hint=f"the request stands until {void}; `keyrotd status` and `history` tell what becomes of it",
        )
    return KeyrotdError(
        f"ring {request.ring}: epoch {late.window.epoch} is published, and not read back by every live node "
        f"within {timeout}: {_laggards(late.behind)}",
        hint="`keyrotd status` shows each node's servers and their faults",
    )


def _silenced(fell: FellSilent, situation: Situation, request: Request) -> KeyrotdError:
    old = "burnt keys" if request.goal is Goal.REVOKE else "the old keys"
    return KeyrotdError(
        f"ring {request.ring}: epoch {fell.window.epoch} is read back by every live node, but {listed(fell.nodes, 20)} "
        f"fell silent and may still open {old} until {instant(fell.opens_until, situation.now_at)}",
        hint="is the agent running there, and can it reach the store? a node that speaks again takes the newest window",
    )


def _laggards(behind: tuple[str, ...] | None) -> str:
    if behind is None:
        return "which nodes are behind only the ring's KEK can prove, and it is not here"
    return f"behind: {listed(behind, 20)}"


def still_burning(situation: Situation) -> Iterator[str]:
    """The nodes that were not live when all keys were burnt, and until when they may go on opening them."""
    window = situation.reading.window
    if window is None:
        return
    last_at = max(key.opens_until for key in window.all)
    until = instant(last_at, situation.now_at)
    if situation.reading.reports is None:
        yield f"note: a node that was not live may open burnt keys until {until}"
    for node in situation.nodes:
        if not node.live:
            heard = "never" if node.spoke_at is None else instant(node.spoke_at, situation.now_at)
            yield f"not live: {node.name}, last heard {heard}; it may open burnt keys until {until}"
