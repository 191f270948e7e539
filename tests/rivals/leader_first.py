"""
Rival (b): an elected leader switches to its new key and then tells the others, who look every 10 s.

Source: Apache Traffic Server's `stek_share` (plugins/experimental/stek_share/stek_share.cc@1372b5efba; 9.2 and 10.x).
Raft among the servers; the leader makes a key once the last is R old, installs it and only then appends it to the log;
every server looks every 10 s whether a new one has come; two keys, the newer seals; a server that boots goes live with
a key of its own, and gets one key by snapshot. An append that fails is not repeated.

The model: that, each server looking on its own beat. A server that is the leader keeps to the same 10 s.

In its favour: an election takes no time; what was committed is there at the next look of everybody who is not cut off,
however many messages are lost, since Raft repeats them; a leader without a majority knows it at once and makes no key;
a server that boots has joined within 250 ms; a new leader first takes what it had not looked at yet. Its configuration
reload, which starts Raft and the key anew, is left out. There is no store to flush.
"""

from tests.rivals.weather import SECOND
from tests.rivals.world import Machine, World

LOOK_MS = 10 * SECOND
JOIN_MS = 250


class LeaderFirst:
    def __init__(self, world: World) -> None:
        self.world = world
        self.log: list[str] = []
        self._leads: Machine | None = None
        self._keys: dict[Machine, tuple[str, ...]] = {}
        self._seen: dict[Machine, int] = {}
        self._updated_at: dict[Machine, int] = {}

    def boot(self, machine: Machine) -> None:
        self._seen[machine] = 0
        self._install(machine, self.world.fresh_key(), ())
        machine.wait(JOIN_MS, lambda: self._look(machine))

    def _leader(self) -> Machine | None:
        voters = [host for host in self.world.hosts if host.linked]
        if 2 * len(voters) <= len(self.world.hosts):
            self._leads = None
        elif self._leads not in voters:
            self._leads = max(voters, key=lambda host: self._seen[host])
        return self._leads

    def _look(self, host: Machine) -> None:
        host.wait(LOOK_MS, lambda: self._look(host))
        leads = host is self._leader()
        if host.linked and self._seen[host] < len(self.log):
            self._install(host, self.log[-1], self._keys[host])
            self._seen[host] = len(self.log)
        elif leads and not self.log:
            self._append(host)
        elif leads and host.clock.wall_ms() - self._updated_at[host] >= self.world.scale.rotation_interval_ms:
            self._install(host, self.world.fresh_key(), self._keys[host])
            if self.world.rotating(host) and host is self._leader():
                self._append(host)

    def _append(self, leader: Machine) -> None:
        self.log.append(self._keys[leader][0])
        self._seen[leader] = len(self.log)

    def _install(self, host: Machine, key: str, before: tuple[str, ...]) -> None:
        self._keys[host] = (key, *before[:1])
        self._updated_at[host] = host.clock.wall_ms()
        host.show(key, self._keys[host])
