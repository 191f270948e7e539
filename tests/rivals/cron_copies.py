"""
Rival (a): a script under cron makes a key, copies the key files to every host, and each host reloads.

Source: GrapheneOS/nginx-rotate-session-ticket-keys@84f9b49 (four keys on ramfs, a timer, a reload; one host) and
Fleshgrinder/nginx-session-ticket-key-rotation@9e3641f (key files shifted, the newest first, cron and reload; making it
work for a cluster is on its list since 2015). For a fleet one adds a copy to each host. The second form is how Twitter
described its own in 2013 ("Forward Secrecy at Twitter"): the hosts fetch the files every five minutes.

The model: R is the timer's. The newest of four keys seals from the moment a host has reloaded; the hosts are served
one after the other. A copy that fails is tried again at the next run, and no sooner: the scripts have no other.

In its favour: a copy and a reload take one second; no reload drops a connection or goes wrong; the whole set is copied
each time, so that a host that missed one run is right after the next; the master never loses its files.
"""

from tests.rivals.weather import MINUTE, SECOND
from tests.rivals.world import Machine, World

KEYS = 4
COPY_MS = 1 * SECOND
FETCH_EVERY_MS = 5 * MINUTE


class CronCopies:
    #: The timer's place in the hour.
    minute_ms = 0

    def __init__(self, world: World) -> None:
        self.world = world
        self.files: tuple[str, ...] = ()

    @property
    def _master(self) -> Machine:
        return self.world.machines[-1]

    def boot(self, machine: Machine) -> None:
        if machine is self._master:
            self._arm(machine)
            if not self.files:
                self._run(machine)
        elif self.files:
            self._reload(machine)

    def _arm(self, master: Machine) -> None:
        # Cron looks at the wall clock.
        interval_ms = self.world.scale.rotation_interval_ms
        due_at = ((master.clock.wall_ms() - self.minute_ms) // interval_ms + 1) * interval_ms + self.minute_ms
        master.wait_until(due_at, lambda: self._due(master))

    def _due(self, master: Machine) -> None:
        self._arm(master)
        self._run(master)

    def _run(self, master: Machine) -> None:
        self.files = (self.world.fresh_key(), *self.files[: KEYS - 1])
        self._copy_on(master, self.world.hosts)

    def _copy_on(self, master: Machine, hosts: tuple[Machine, ...]) -> None:
        if not hosts:
            return
        if len(hosts) == len(self.world.hosts) // 2 and not self.world.rotating(master):
            return  # half of them have it
        host, *rest = hosts
        if master.reaches() and host.linked:
            self._reload(host)
        master.wait(COPY_MS, lambda: self._copy_on(master, tuple(rest)))

    def _reload(self, host: Machine) -> None:
        host.show(self.files[0], self.files)


class CronFetches(CronCopies):
    """The same, but that the hosts come and fetch."""

    #: Half-way between two fetches: on a fetch's own minute some clocks would come before it and some after.
    minute_ms = FETCH_EVERY_MS // 2

    def boot(self, machine: Machine) -> None:
        super().boot(machine)
        if machine is not self._master:
            self._arm_fetch(machine)

    def _arm_fetch(self, host: Machine) -> None:
        due_at = (host.clock.wall_ms() // FETCH_EVERY_MS + 1) * FETCH_EVERY_MS
        host.wait_until(due_at, lambda: self._fetch(host))

    def _fetch(self, host: Machine) -> None:
        self._arm_fetch(host)
        if host.reaches() and self.files and self._master.linked:
            self._reload(host)

    def _run(self, master: Machine) -> None:
        if self.world.rotating(master):
            self.files = (self.world.fresh_key(), *self.files[: KEYS - 1])
