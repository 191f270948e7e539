"""Ways to be wrong: each replaces one decision of keyrotd by a plausible other one, in the test alone."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from keyrotd.core import decide
from keyrotd.core.decide import Gate, Memory, Seen
from keyrotd.core.policy import Policy
from keyrotd.core.reconcile import Adopt, Held, Keep, Refuse, accept
from keyrotd.core.stek import Stek
from keyrotd.core.window import Terms, Window, rotate
from keyrotd.daemon import agent, scheduler
from keyrotd.daemon.clock import FleetTime

Mutation = Callable[[pytest.MonkeyPatch], None]


def no_gate(patch: pytest.MonkeyPatch) -> None:
    """Rotate whenever it is due."""

    def judge(*_: object) -> Gate:
        return Gate(waiting=(), overdue=(), until=None, shown=1)

    patch.setattr(decide, "judge_gate", judge)
    patch.setattr(scheduler, "judge_gate", judge)


def gate_by_epoch(patch: pytest.MonkeyPatch) -> None:
    """Believe that two windows of one number are one window (F4)."""

    def acknowledged(node: Seen, window: Window) -> bool:
        return node.report.read_back is not None and node.report.epoch == window.epoch

    patch.setattr(decide, "acknowledged", acknowledged)
    patch.setattr(scheduler, "acknowledged", acknowledged)


def no_next(patch: pytest.MonkeyPatch) -> None:
    """Let a fresh key seal at once."""

    def hasty(window: Window, *, fresh: Stek, fence: int, now_at: int, terms: Terms, settled_at: int | None) -> Window:
        follower = Stek(sha256(fresh.seed).digest(), window.ring)
        made = rotate(window, fresh=follower, fence=fence, now_at=now_at, terms=terms, settled_at=settled_at)
        brought = replace(made.current, name=fresh.name, stek=fresh, born=made.epoch, made_at=now_at)
        return replace(made, current=brought)

    patch.setattr(scheduler, "rotate", hasty)


def constant_slack(patch: pytest.MonkeyPatch) -> None:
    """Let a previous key open for T and some slack after its retirement, whoever still seals with it (F1)."""

    def hasty(window: Window, *, fresh: Stek, fence: int, now_at: int, terms: Terms, settled_at: int | None) -> Window:
        made = rotate(window, fresh=fresh, fence=fence, now_at=now_at, terms=terms, settled_at=settled_at)
        until = now_at + terms.ticket_lifetime_ms + terms.eps_ms
        retired = (
            replace(key, seals_until=min(key.seals_until, now_at), opens_until=min(key.opens_until, until))
            for key in made.previous
            if key.seals_until is not None
        )
        return replace(made, previous=tuple(retired))

    patch.setattr(scheduler, "rotate", hasty)


def no_lineage(patch: pytest.MonkeyPatch) -> None:
    """Drop whatever a newer window does not have (F6)."""

    def forgetful(
        seen: Window, held: Held | None, memory: Memory, *, fresh: bool, now_at: int
    ) -> Adopt | Keep | Refuse:
        answer = accept(seen, held, memory, fresh=fresh, now_at=now_at)
        return replace(answer, held=replace(answer.held, strays=())) if isinstance(answer, Adopt) else answer

    patch.setattr(agent, "accept", forgetful)


def no_speaking(patch: pytest.MonkeyPatch) -> None:
    """Decide as soon as there is a store, whatever it lost (F7)."""
    patch.setattr(Policy, "speak_ms", property(lambda _: 0))


def patient_servers(patch: pytest.MonkeyPatch) -> None:
    """Look at the keys only as often as at the store."""
    patch.setattr(agent, "changes_at", lambda *_: None)


def any_beat_is_now(patch: pytest.MonkeyPatch) -> None:
    """Take the time from a beat that may have lain in the store for hours."""
    patch.setattr(FleetTime, "latest", FleetTime.now)


MUTATIONS: tuple[Mutation, ...] = (
    no_gate,
    gate_by_epoch,
    no_next,
    constant_slack,
    no_lineage,
    no_speaking,
    patient_servers,
    any_beat_is_now,
)
