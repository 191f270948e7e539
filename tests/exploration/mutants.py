"""The protocol with one of its safeguards taken out, each by a function put in the place of the real one."""

from dataclasses import dataclass, replace

from keyrotd.core.decide import Decision, Memory, Seen, View, decide
from keyrotd.core.messages import NodeState
from keyrotd.core.policy import Policy
from keyrotd.core.reconcile import Adopt, Held, Keep, Refuse, accept
from keyrotd.core.window import Window, rotate
from tests.exploration.ring import Luck, Rules
from tests.exploration.scopes import UNREVOKED, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """What is missing, where it is missed, and the first word of what is broken then."""

    name: str
    rules: Rules
    scope: Scope
    broken: str


def ungated(view: View, policy: Policy, now_at: int) -> Decision:
    """Decide as if every node had read the window back."""
    return decide(replace(view, nodes=tuple(_shows(node, view.window) for node in view.nodes)), policy, now_at)


def _shows(node: Seen, window: Window | None) -> Seen:
    if window is None:
        return node
    report = replace(node.report, state=NodeState.IN_STEP, holds=window.digest, read_back=window.digest)
    return replace(node, report=report, behind_since=None)


def unfenced(fence: int, newest: int, parent: str, standing: str) -> bool:
    """Take whatever comes, as a plain SET does."""
    _ = fence, newest, parent, standing
    return True


def forgiving_decide(view: View, policy: Policy, now_at: int) -> Decision:
    """Decide without one's own memory of a barrier."""
    return decide(replace(view, memory=replace(view.memory, barrier=0)), policy, now_at)


def forgiving_accept(
    seen: Window, held: Held | None, memory: Memory, *, fresh: bool, now_at: int
) -> Adopt | Keep | Refuse:
    """Accept without one's own memory of a barrier."""
    return accept(seen, held, replace(memory, barrier=0), fresh=fresh, now_at=now_at)


def straight_accept(
    seen: Window, held: Held | None, memory: Memory, *, fresh: bool, now_at: int
) -> Adopt | Keep | Refuse:
    """Accept as if every newer window descended from ours: keep no key of our own."""
    answer = accept(seen, held, memory, fresh=fresh, now_at=now_at)
    return replace(answer, held=replace(answer.held, strays=())) if isinstance(answer, Adopt) else answer


def hasty_rotate(window: Window, **given: object) -> Window:
    """Rotate to the fresh key, which nobody knows yet; what was to be next stays next."""
    made = rotate(window, **given)  # type: ignore[arg-type]  # as rotate is given
    current, known = made.current, made.next
    return replace(
        made,
        current=replace(
            known,
            seals_from=current.seals_from,
            seals_until=current.seals_until,
            opens_until=current.opens_until,
        ),
        next=replace(current, seals_from=None, seals_until=None, opens_until=known.opens_until),
    )


MUTANTS = (
    Mutant(
        name="gate",
        rules=Rules(decide=ungated),
        scope=Scope(name="asked and cut", luck=Luck(asks=1, cuts=1)),
        broken="orphan",
    ),
    Mutant(
        name="fence",
        rules=Rules(publishes=unfenced),
        scope=Scope(name="stopped", luck=Luck(stops=1)),
        broken="fence",
    ),
    Mutant(
        name="barrier",
        rules=Rules(decide=forgiving_decide, accept=forgiving_accept),
        scope=UNREVOKED,
        broken="barrier",
    ),
    Mutant(
        name="lineage",
        rules=Rules(accept=straight_accept),
        scope=Scope(name="cut", luck=Luck(cuts=1)),
        broken="orphan",
    ),
    Mutant(
        name="next",
        rules=Rules(rotate=hasty_rotate),
        scope=Scope(name="missed", luck=Luck(mishaps=1)),
        broken="orphan",
    ),
)
