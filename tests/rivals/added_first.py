"""
Rival (d): the new key seals at once where it is made; every other server learns of it by its own timer.

Source: Caddy's distributed STEK (modules/caddytls/distributedstek/distributedstek.go@0cf03d32f; seen running with
2.6.2 and 2.11.7). A file in shared storage holds the keys, newest first, four of them, and when the next rotation is.
At that instant, by its own clock, each server locks the file and loads it; the first to find that the time has come
adds a key; everybody uses what stands there then. There is no next key. If the file is missing, a list of one fresh key
is stored. After an error of the storage the timer is not set again: that server stays on its keys until it is restarted
(read in the source, and seen).

The model: that, with `rotation_interval` = R. The second form sets the timer again a minute after an error, as a repair
might; that minute is ours.

In its favour: the lock of a server that died in the middle is gone at once; a server that boots reads the storage
before it serves, however long that takes.
"""

from dataclasses import dataclass

from tests.rivals.weather import MINUTE
from tests.rivals.world import Machine, World

KEYS = 4


@dataclass(frozen=True, slots=True)
class File:
    keys: tuple[str, ...]
    next_at: int


class AddedFirst:
    retry_ms: int | None = None

    def __init__(self, world: World) -> None:
        self.world = world

    def boot(self, machine: Machine) -> None:
        if machine.linked:
            self._use(machine, self._current(machine))
        else:
            machine.wait(MINUTE, lambda: self.boot(machine))

    def _turn(self, host: Machine) -> None:
        if host.reaches():
            self._use(host, self._current(host))
        elif self.retry_ms is not None:
            host.wait(self.retry_ms, lambda: self._turn(host))

    def _current(self, host: Machine) -> File:
        store, now = self.world.store, host.clock.wall_ms()
        file: File | None = store.value
        if file is None or now >= file.next_at:
            before = () if file is None else file.keys[: KEYS - 1]
            file = File((self.world.fresh_key(), *before), now + self.world.scale.rotation_interval_ms)
            store.put(file)
            self.world.rotating(host)
        return file

    def _use(self, host: Machine, file: File) -> None:
        if host.up:
            host.show(file.keys[0], file.keys)
            host.wait_until(file.next_at, lambda: self._turn(host))


class AddedFirstRepaired(AddedFirst):
    retry_ms = 1 * MINUTE
