"""
Rival (e): each key is handed out one period before it seals, and promoted whether or not anybody has it.

Source: nghttpx with contrib/tlsticketupdate.go (nghttp2/nghttp2@692c8d8f; the polls seen running). One process makes
two random keys when it starts, and every hour promotes the last of its list to the front, keeps up to eleven older
ones, and appends a fresh one; it sets the list in memcached, to expire after R + 300 s, and ignores errors. Nothing is
kept but in that process. Servers poll every 10 min; the first key seals, all open. A poll is tried three times, some
3 s and 10 s apart; the second in a row that fails or finds nothing turns tickets off until one that does not (these are
the defaults of nghttpx(1)).

The second form is zlabjp/nghttpx-ingress-lb@c36ba16c, where the list of twelve and the instant of the last rotation are
in a Kubernetes Secret: one of the controllers, by a Lease, promotes when it is time, under the Secret's version, and
makes a fresh list if there is no Secret; the pods watch it.

In its favour: the servers' permanent deafness after an outage, which was seen, is left out; a watch brings what it
watches within a second, or 10 s after it was lost; a Lease changes hands within 20 s; no reload goes wrong.
"""

from dataclasses import dataclass

from tests.rivals.weather import MINUTE, SECOND
from tests.rivals.world import Machine, World

KEYS = 13
EXPIRES_AFTER_MS = 300 * SECOND
POLL_MS = 10 * MINUTE
RETRIES_MS = (3_200, 10_240)
MAX_FAIL = 2

SECRET_KEYS = 12
LEASE_MS = 15 * SECOND
TEND_MS = 5 * SECOND
WATCH_MS = 1 * SECOND
REWATCH_MS = 10 * SECOND


def _promoted(keys: tuple[str, ...], fresh: str, most: int) -> tuple[str, ...]:
    *older, last = keys
    return (last, *older[: most - 2], fresh)


class Prestaged:
    def __init__(self, world: World) -> None:
        self.world = world
        self._failed: dict[Machine, int] = {}

    def boot(self, machine: Machine) -> None:
        if machine.serves:
            self._failed[machine] = 0
            machine.show(None, ())
            self._poll(machine, RETRIES_MS)
        else:
            self._publish(machine, (self.world.fresh_key(), self.world.fresh_key()))

    def _publish(self, generator: Machine, keys: tuple[str, ...]) -> None:
        if generator.reaches():
            self._set(keys)
        interval_ms = self.world.scale.rotation_interval_ms
        generator.wait(interval_ms, lambda: self._promote(generator, keys))

    def _set(self, keys: tuple[str, ...]) -> None:
        store = self.world.store
        store.put(keys)
        version = store.version
        expires_ms = self.world.scale.rotation_interval_ms + EXPIRES_AFTER_MS
        self.world.plan(expires_ms, lambda: store.put(None) if store.version == version else None)

    def _promote(self, generator: Machine, keys: tuple[str, ...]) -> None:
        if self.world.rotating(generator):
            self._publish(generator, _promoted(keys, self.world.fresh_key(), KEYS))

    def _poll(self, host: Machine, retries_ms: tuple[int, ...]) -> None:
        keys: tuple[str, ...] | None = self.world.store.value
        if not host.reaches() and retries_ms:
            host.wait(retries_ms[0], lambda: self._poll(host, retries_ms[1:]))
            return
        host.wait(POLL_MS, lambda: self._poll(host, RETRIES_MS))
        if host.linked and keys is not None:
            self._failed[host] = 0
            host.show(keys[0], keys)
            return
        self._failed[host] += 1
        if self._failed[host] >= MAX_FAIL:
            self._failed[host] = 0
            host.show(None, ())


@dataclass(frozen=True, slots=True)
class Secret:
    keys: tuple[str, ...]
    updated_at: int


class PrestagedSecret:
    """The same with its state in a Secret, and a controller beside each server."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._leader: Machine | None = None
        self._heard_at = 0

    def boot(self, machine: Machine) -> None:
        machine.show(None, ())
        self._tend(machine)
        self._watch(machine)

    def _tend(self, host: Machine) -> None:
        """A controller's turn: it leads, or looks whether anybody does."""
        host.wait(TEND_MS, lambda: self._tend(host))
        if not host.reaches():
            return
        if host is self._leader or self._leader is None or self.world.now - self._heard_at > LEASE_MS:
            self._leader, self._heard_at = host, self.world.now
            self._lead(host)

    def _lead(self, host: Machine) -> None:
        now = host.clock.wall_ms()
        secret: Secret | None = self.world.store.value
        if secret is None:
            self._put(Secret((self.world.fresh_key(), self.world.fresh_key()), now))
        elif now - secret.updated_at >= self.world.scale.rotation_interval_ms:
            self._put(Secret(_promoted(secret.keys, self.world.fresh_key(), SECRET_KEYS), now))
            self.world.rotating(host)

    def _put(self, secret: Secret) -> None:
        self.world.store.put(secret)
        for host in self.world.hosts:
            host.wait(WATCH_MS, lambda host=host: self._watch(host))  # type: ignore[misc]  # mypy infers no type for it

    def _watch(self, host: Machine) -> None:
        secret: Secret | None = self.world.store.value
        if not host.reaches():
            host.wait(REWATCH_MS, lambda: self._watch(host))
        elif secret is not None:
            host.show(secret.keys[0], secret.keys)
