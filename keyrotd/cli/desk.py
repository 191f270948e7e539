"""Where a person's command meets a ring: its policy, its store and whatever keys are at hand, opened in one place."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click

from keyrotd import secrets
from keyrotd.cli.reading import Reading, prove
from keyrotd.cli.situation import Situation, judge
from keyrotd.config import Config, RingConfig, needs
from keyrotd.core.errors import ConfigError
from keyrotd.core.messages import Beat
from keyrotd.core.policy import Policy
from keyrotd.daemon.clock import SystemClock
from keyrotd.seal.keyfiles import Kek, Keks, OperatorKey, VerifyKey
from keyrotd.store.port import Store
from keyrotd.store.redis import RedisStore

#: A beat that did not come within so many ticks of watching does not come.
_WATCHED_TICKS = 2
#: A pause that stands is told of among so many events, as the scheduler sees to.
_EVENTS = 20


class Watch(Protocol):
    """What a command needs of time. `boot_ms` never steps."""

    def wall_ms(self) -> int: ...
    def boot_ms(self) -> int: ...
    def pause(self, duration_ms: int) -> None: ...


class SystemWatch(SystemClock):
    def pause(self, duration_ms: int) -> None:
        time.sleep(duration_ms / 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One ring, open to look at. `keks` None: not at hand, so reports cannot be proven."""

    ring: str
    policy: Policy
    store: Store
    verifiers: tuple[VerifyKey, ...]
    keks: Keks | None

    def read(self, *, events: int = 0) -> Reading:
        """Look once. Names of nodes and counts are the store's word, all else is proven or refused."""
        return prove(
            self.store.look(),
            self.store.reports(),
            self.store.history(limit=events),
            ring=self.ring,
            verifiers=self.verifiers,
            keks=self.keks,
        )


def observe(desk: Desk, watch: Watch) -> Situation:
    """Look, and where a leader's beat seems old look again: a beat that moves is alive whatever our wall clock says."""
    reading = desk.read(events=_EVENTS)
    situation = judge(reading, desk.policy, _now_at(reading.beat, watch))
    if situation.led or not reading.leader or reading.beat is None:
        return situation
    watch.pause(_WATCHED_TICKS * desk.policy.tick_interval_ms)
    again = desk.read(events=_EVENTS)
    if again.beat is not None and again.beat.signed_at > reading.beat.signed_at:
        return judge(again, desk.policy, again.beat.signed_at)
    return judge(again, desk.policy, _now_at(again.beat, watch))


def _now_at(beat: Beat | None, watch: Watch) -> int:
    # The fleet's time is its leader's. Our wall clock may lag behind it, and only then is it surely wrong.
    return watch.wall_ms() if beat is None else max(watch.wall_ms(), beat.signed_at)


@contextmanager
def open_desks(config: Config, names: Iterable[str]) -> Iterator[tuple[Desk, ...]]:
    """Open the named rings, or all if none is named."""
    verifiers = secrets.read(config.secrets.verify_key_file, VerifyKey)
    with ExitStack() as stack:
        desks = []
        for ring in chosen(config, names):
            store = RedisStore(
                config.store.address,
                ring=ring.name,
                namespace=config.store.namespace,
                timeout_ms=config.store.timeout_ms,
            )
            stack.callback(store.close)
            keks = keks_at_hand(ring.kek_file)
            desks.append(Desk(ring=ring.name, policy=ring.policy, store=store, verifiers=verifiers, keks=keks))
        yield tuple(desks)


def chosen(config: Config, names: Iterable[str]) -> tuple[RingConfig, ...]:
    wanted = tuple(dict.fromkeys(names))
    known = {ring.name: ring for ring in config.rings}
    for name in wanted:
        if name not in known:
            raise click.UsageError(f"there is no ring {name!r} in {config.path}; known: {', '.join(known)}")
    return tuple(known[name] for name in wanted) if wanted else config.rings


def only_ring(config: Config, name: str | None) -> str:
    """Return the ring that an order is for: nobody rotates or revokes several by leaving one word out."""
    if name is None and len(config.rings) > 1:
        raise click.UsageError(f"name the ring with --ring: {', '.join(ring.name for ring in config.rings)}")
    return chosen(config, () if name is None else (name,))[0].name


def keks_at_hand(path: Path) -> Keks | None:
    """Return the ring's KEKs; None where this host or this user has not got them, which is how operators live."""
    try:
        with path.open("rb"):
            pass
    except OSError:
        return None
    return secrets.read(path, Kek)


def operator_key(config: Config) -> OperatorKey:
    faults = needs(config, "operator")
    if faults or config.secrets.operator_key_file is None:
        raise ConfigError(list(faults))
    return secrets.read(config.secrets.operator_key_file, OperatorKey)[0]
