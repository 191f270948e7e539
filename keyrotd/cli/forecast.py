"""What a rotation asked for now would do, computed with core's own functions. Nothing here asks for one."""

from collections.abc import Iterator

from keyrotd.cli.screen import pause_words
from keyrotd.cli.situation import Situation, Standing, foresee, seen
from keyrotd.cli.words import counted, instant, sheet, short, span
from keyrotd.core.decide import Decision, Decline, Hold, Mend, Renew, Revoke, Rotate, fewest_slots, free_from, listed
from keyrotd.core.messages import Goal, Request
from keyrotd.core.stek import Stek
from keyrotd.core.window import MAX_KEYS, Key, Window, rotate, usefulness
from keyrotd.seal.lines import clip
from keyrotd.seal.messages import MAX_WHO


def forecast(situation: Situation, request: Request, fresh: Stek) -> Iterator[str]:
    """Say it line by line. `fresh` stands for the key that the leader would make, and is thrown away."""
    window, now_at = situation.reading.window, situation.now_at
    if window is None:
        yield f"ring {situation.reading.ring}: the store holds no window, so there is nothing to rotate"
        return
    after = rotate(
        window,
        fresh=fresh,
        fence=window.fence,
        now_at=now_at,
        terms=situation.policy.terms(now_at),
        settled_at=situation.confirmed_at,
    )
    yield f"ring {window.ring}: what `keyrotd rotate --now` would do"
    yield from sheet(_facts(situation, request, window, after), width=16)
    for fault in situation.faults:
        yield f"error: {fault.words}"
        yield f"hint: {fault.hint}"


def asking(goal: Goal, situation: Situation, *, who: str, reason: str, drop_live_keys: bool = False) -> Request:
    """Ask for a window past the one that was seen, so that a replay finds it there."""
    window = situation.reading.window
    return Request(
        ring=situation.reading.ring,
        goal=goal,
        past_epoch=0 if window is None else window.epoch,
        drop_live_keys=drop_live_keys,
        who=clip(who, MAX_WHO),
        reason=reason,
        made_at=situation.now_at,
    )


def _facts(situation: Situation, request: Request, window: Window, after: Window) -> Iterator[tuple[str, str]]:
    now_at = situation.now_at
    yield "window", f"epoch {window.epoch} to {after.epoch}"
    yield "current", f"{short(after.current.name)}, now next; would seal until {instant(after.seals_until, now_at)}"
    yield "next", "a fresh key, which only opens until the rotation after this one"
    for key in after.previous:
        was = "now current" if key.name == window.current.name else "previous already"
        yield "previous", f"{short(key.name)}, {was}; would leave {instant(key.opens_until, now_at)}"
    staying = {key.name for key in after.all}
    for key in window.all:
        if key.name not in staying:
            why = "previous_keys allows no more" if key.open_at(now_at) else "its time is over"
            yield "leaves at once", f"{short(key.name)}: {why}"
    yield from _waiting(situation)
    yield from _slots(situation, window)
    if situation.pause is not None:
        yield "paused", f"{pause_words(situation.pause, now_at)}; an order goes through"
    yield "the leader", _decided(foresee(situation, request), situation)
    if situation.due_at is not None:
        yield "due by itself", instant(situation.due_at, now_at)


def _waiting(situation: Situation) -> Iterator[tuple[str, str]]:
    if situation.reading.reports is None:
        count = counted(situation.reading.report_count, "node")
        yield "waits for", f"up to {count}, unnamed: the ring's KEK proves reports, and is not here"
        return
    live = situation.live
    yield "waits for", f"{counted(len(live), 'live node')}: {listed(node.name for node in live)}" if live else "nobody"
    if situation.behind:
        yield (
            "before that",
            f"{listed(node.name for node in situation.behind)} must read back epoch {_epoch(situation)}",
        )
    for node in situation.nodes:
        if node.standing is Standing.SILENT:
            spoke = "never" if node.spoke_at is None else f"{span(situation.now_at - node.spoke_at)} ago"
            yield "not waited for", f"{node.name}, which last spoke {spoke}"


def _epoch(situation: Situation) -> int:
    return 0 if situation.reading.window is None else situation.reading.window.epoch


def _slots(situation: Situation, window: Window) -> Iterator[tuple[str, str]]:
    slots = fewest_slots(seen(situation), situation.policy, situation.now_at)
    free_at = free_in(situation)
    if free_at is None:
        if slots is not None:
            yield "slots", f"{slots} at the fewest: no key with live tickets would be dropped"
        return
    dropped = _dropped(situation, window, min(slots or MAX_KEYS, MAX_KEYS))
    yield (
        "slots",
        f"{slots or MAX_KEYS} at the fewest: {listed(short(key.name) for key in dropped)} would be dropped with live "
        f"tickets; free from {instant(free_at, situation.now_at)}",
    )


def free_in(situation: Situation) -> int | None:
    """Return from when a rotation drops no key with live tickets; None: now, as far as reports tell."""
    window = situation.reading.window
    if window is None:
        return None
    slots = fewest_slots(seen(situation), situation.policy, situation.now_at)
    return free_from(window, slots, situation.confirmed_at, situation.policy.eps_ms, situation.now_at)


def _dropped(situation: Situation, window: Window, slots: int) -> tuple[Key, ...]:
    now_at = situation.now_at
    sealed = [key for key in (window.current, *window.previous) if key.seals_until is not None and key.open_at(now_at)]
    return tuple(sorted(sealed, key=usefulness, reverse=True)[max(slots - 2, 0) :])


def _decided(decision: Decision | None, situation: Situation) -> str:
    now_at = situation.now_at
    if not situation.led:
        return "is away: nothing would happen"
    match decision:
        case None:
            return "decides by the nodes' reports, which cannot be proven here"
        case Hold(reason, until):
            return f"would hold it: {reason}" + ("" if until is None else f", until {instant(until, now_at)} at most")
        case Decline(_, reason, until):
            return f"would refuse it: {reason}; free from {instant(until, now_at)}, or with --drop-live-keys"
        case Rotate(_, overdue):
            return "would do it at once" + (f", not waiting for {listed(overdue)}, overdue" if overdue else "")
        case Renew(reason, _):
            return f"would take the nodes up where they are: {reason}"
        case Mend(_, _, _, reason):
            return f"would mend first: {reason}"
        case Revoke():
            return "would revoke every key first"
        case _:
            return "would publish the ring's first window"
