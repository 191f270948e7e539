"""
Rival (c): no leader. Whoever finds that a new key is due adds it to the store's list, to be used in 60 s.

Source: h2o's session ticket store (src/ssl.c@edd7a120b; seen running with memcached). Each server polls: memcached
every 60 s, or 10 s after a connection that failed, with add and compare-and-swap; Redis every 10 s, with GET and then
SETEX. A list of keys with their instants: a key is due when the newest began `lifetime`/4 ago, begins 60 s after it was
made (at once if none is valid) and ends `lifetime` after it began. The newest key that has begun seals; has that one
ended, each ticket gets a key of its own, which nobody keeps. Every key of the list opens. What is read replaces what
was there. After a write one reads again.

The model: that, over each server's own clock. R is no knob of it: it is `lifetime`/4.

In its favour: `lifetime` is longer than T, since it promises its clients what only the first ticket of a key gets: a
ticket opens for `lifetime` less what its key had sealed before. A server that boots reads the store before it serves;
a value is never evicted.
"""

from dataclasses import dataclass

from tests.rivals.weather import SECOND
from tests.rivals.world import THROWAWAY, Machine, World

HEAD_START_MS = 60 * SECOND
POLL_MS = 60 * SECOND
RECONNECT_MS = 10 * SECOND
REDIS_POLL_MS = 10 * SECOND
#: Between reading the store and writing to it.
ROUND_TRIP_MS = 2


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    not_before: int
    not_after: int


class Leaderless:
    poll_ms, retry_ms = POLL_MS, RECONNECT_MS
    compares = True

    def __init__(self, world: World) -> None:
        self.world = world
        self._lists: dict[Machine, tuple[Entry, ...]] = {}

    def boot(self, machine: Machine) -> None:
        self._take(machine, ())
        self._poll(machine)

    def _poll(self, host: Machine) -> None:
        if host.reaches():
            host.wait(self.poll_ms, lambda: self._poll(host))
            self._read(host)
        else:
            host.wait(self.retry_ms, lambda: self._poll(host))

    def _read(self, host: Machine) -> None:
        store, now = self.world.store, host.clock.wall_ms()
        found: tuple[Entry, ...] = tuple(sorted(store.value or (), key=lambda entry: -entry.not_before))
        kept = tuple(entry for entry in found if now <= entry.not_after)
        entries, version = self._with_due(kept, now), store.version
        if entries == found:
            self._take(host, found)
        else:
            host.wait(ROUND_TRIP_MS, lambda: self._write(host, entries, version, added=entries != kept))

    @property
    def _lifetime_ms(self) -> int:
        # A key seals for a quarter of it, and until the next was asked for, made and begun.
        return (self.world.scale.ticket_lifetime_ms + self.poll_ms + HEAD_START_MS) * 4 // 3

    def _with_due(self, entries: tuple[Entry, ...], now: int) -> tuple[Entry, ...]:
        lifetime_ms = self._lifetime_ms
        valid = _sealing(entries, now) is not None
        if valid and entries[0].not_before + lifetime_ms // 4 >= now:
            return entries
        begins_at = now + HEAD_START_MS if valid else now
        return (Entry(self.world.fresh_key(), begins_at, begins_at + lifetime_ms), *entries)

    def _write(self, host: Machine, entries: tuple[Entry, ...], version: int, *, added: bool) -> None:
        store = self.world.store
        if host.linked and (store.version == version or not self.compares):
            store.put(entries)
            if added and not self.world.rotating(host):
                return
        if host.linked:
            self._read(host)

    def _take(self, host: Machine, entries: tuple[Entry, ...]) -> None:
        self._lists[host] = entries
        self._show(host)

    def _show(self, host: Machine) -> None:
        entries, now = self._lists[host], host.clock.wall_ms()
        sealing = _sealing(entries, now)
        host.show(THROWAWAY if sealing is None else sealing.key, tuple(entry.key for entry in entries))
        turns = (turn_at for entry in entries for turn_at in (entry.not_before, entry.not_after + 1) if turn_at > now)
        turn_at = min(turns, default=None)
        if turn_at is not None:
            host.wait_until(turn_at, lambda: self._show(host) if self._lists[host] is entries else None)


class LeaderlessUnchecked(Leaderless):
    """The same over its Redis store, which does not compare before it sets."""

    poll_ms = retry_ms = REDIS_POLL_MS
    compares = False


def _sealing(entries: tuple[Entry, ...], now: int) -> Entry | None:
    begun = next((entry for entry in entries if entry.not_before <= now), None)
    return begun if begun is not None and now <= begun.not_after else None
