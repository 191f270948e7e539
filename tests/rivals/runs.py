"""One protocol, one weather, one seed: what its clients saw."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.rivals.added_first import AddedFirst, AddedFirstRepaired
from tests.rivals.cron_copies import CronCopies, CronFetches
from tests.rivals.keyrotd_itself import Keyrotd
from tests.rivals.leader_first import LeaderFirst
from tests.rivals.leaderless import Leaderless, LeaderlessUnchecked
from tests.rivals.load import Ledger, Span
from tests.rivals.prestaged import Prestaged, PrestagedSecret
from tests.rivals.weather import Scale, Stage, Weather, flush_at
from tests.rivals.world import Rival, World


@dataclass(frozen=True, slots=True)
class Protocol:
    """`stores` is whether there is a store that can forget."""

    name: str
    stage: Callable[[Scale, int], Stage]
    stores: bool = True


def _rival(make: Callable[[World], Rival], *, others: int = 0) -> Callable[[Scale, int], Stage]:
    return lambda scale, seed: World(scale, seed, make, others)


PROTOCOLS = (
    Protocol("cron, files copied", _rival(CronCopies, others=1), stores=False),
    Protocol("cron, files fetched every 5 min", _rival(CronFetches, others=1), stores=False),
    Protocol("leader switches first", _rival(LeaderFirst), stores=False),
    Protocol("leaderless, 60 s head start", _rival(Leaderless)),
    Protocol("the same without compare-and-set", _rival(LeaderlessUnchecked)),
    Protocol("added first, own timers", _rival(AddedFirst)),
    Protocol("the same, its timer repaired", _rival(AddedFirstRepaired)),
    Protocol("pre-staged one period", _rival(Prestaged, others=1)),
    Protocol("the same, its state in a Secret", _rival(PrestagedSecret)),
    Protocol("keyrotd", Keyrotd),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`after_flush` is the T that follows the instant of the flush, whether or not there was one."""

    whole: Span
    after_flush: Span
    life_ms: int
    still_open: bool


def run(protocol: Protocol, weather: Weather, seed: int, scale: Scale) -> Outcome:
    stage = protocol.stage(scale, seed)
    began_at = stage.began_at
    end_at, flushed_at = began_at + scale.duration_ms, began_at + flush_at(scale, seed)
    ledger = Ledger(
        began_at=began_at,
        ticket_lifetime_ms=scale.ticket_lifetime_ms,
        spans=((began_at + scale.measured_from, end_at), (flushed_at, flushed_at + scale.ticket_lifetime_ms)),
    )
    weather.prepare(stage, scale, seed)
    while stage.now < end_at:
        stage.run_until(end_at)
        ledger.see(stage.now, stage.shown())
    life_ms, still_open = ledger.longest_life()
    return Outcome(ledger.span(0), ledger.span(1), life_ms, still_open)
