"""
The agent of one ring on one node. One tick: one round trip to the store, then whatever the servers need.

Order of effects when a window comes: cache, install, read back, floor, report. A tick may die after any of them and
the next one heals: the cache says what was accepted, the servers say what they hold, and nothing else is believed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from keyrotd.core.decide import listed, owes
from keyrotd.core.errors import CorruptWindow, StoreUnavailable
from keyrotd.core.keys import Tenure, names
from keyrotd.core.messages import Beat, NodeState, ProbeState, Report, ServerReport, ServerState
from keyrotd.core.policy import MAX_BACKOFF_DOUBLINGS, jittered_ms
from keyrotd.core.reconcile import (
    Adopt,
    Footing,
    Held,
    Keep,
    Refuse,
    accept,
    along,
    changes_at,
    footing,
    keys_at,
    opens_until,
    seals_until,
    steady,
    steps,
)
from keyrotd.core.stek import SEED_BYTES, Stek
from keyrotd.core.window import Window
from keyrotd.daemon.clock import Clock, FleetTime
from keyrotd.daemon.peering import Aside, AsideThread, Asking, Offering, Peering, Tally
from keyrotd.daemon.state import FORGOTTEN, Bound, Cache, Folder, Remembered, decode_cache, refuse_downgrade, try_recall
from keyrotd.daemon.telemetry import ALTERED, Telemetry
from keyrotd.daemon.tending import Orders, Server, Tended, Workers, tend
from keyrotd.daemon.turns import Crash
from keyrotd.seal.keyfiles import Keks, VerifyKey, ids_in_change
from keyrotd.seal.links import Links, open_links, seal_links
from keyrotd.seal.messages import read_beat, write_report
from keyrotd.seal.window import forget, open_window, read_header
from keyrotd.store.port import Poll, Store

#: A node without a window changes the keys of its own this often.
OWN_KEYS_MS = 3_600_000
#: What a round trip to a slow store may add to a pause.
STORE_MS = 1000
#: Older windows that still owe a key; more forks than this within one key's life and the oldest goes.
MAX_SOURCES = 8
#: A life's reports before its counter would touch the next life's.
REPORTS_PER_LIFE = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What an agent needs of a ring's secrets."""

    verifiers: tuple[VerifyKey, ...]
    keks: Keks

    @property
    def accepts(self) -> tuple[str, ...]:
        return ids_in_change(self.keks, self.verifiers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    ring: str
    node: str
    poll_interval_ms: int
    start_grace_ms: int
    asking: Asking | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything through which an agent touches anything."""

    store: Store
    servers: tuple[Server, ...]
    workers: Workers
    runtime: Folder
    state: Folder
    clock: Clock
    rand: Callable[[int], bytes]
    telemetry: Telemetry
    aside: Aside = field(default_factory=AsideThread)


class RingAgent:
    """See the module. `trust` may be replaced between ticks."""

    def __init__(self, settings: Settings, trust: Trust, world: World) -> None:
        self.settings, self.trust, self._world = settings, trust, world
        self._trusted = trust
        self._cache_name, self._memory_name = f"agent-{settings.ring}.cache", f"agent-{settings.ring}.memory"
        self._remembered, fault = try_recall(world.state, self._memory_name)
        self._say("memory", fault, hint=FORGOTTEN)
        life = max(self._remembered.life + 1, world.clock.wall_ms() // 1000)
        self._remembered = replace(self._remembered, life=life)
        self._counter = life * REPORTS_PER_LIFE
        self._started_ms = world.clock.boot_ms()
        self._steady_ms = jittered_ms(settings.poll_interval_ms) + STORE_MS
        self._patience_ms = jittered_ms(settings.poll_interval_ms * 2**MAX_BACKOFF_DOUBLINGS) + STORE_MS
        self._heard_ms = self._started_ms  # when a leader was heard last
        self._footing: tuple[Footing, int] | None = None
        self._tenure: Tenure | None = None  # what servers were told last of how long they may use their keys
        self._fleet = FleetTime(world.clock, self._steady_ms)
        self._beat: Beat | None = None
        self._held: Held | None = None
        self._sources: dict[str, bytes] = {}  # sealed windows by digest, the held one first
        self._stood = ""  # digest of the store's window that was judged last, so that it is not sent again
        self._unvouched: str | None = None  # digest of a window that no fresh beat vouched for at the last look
        self._unopened: Window | None = None  # the store's window, if it is proven and no KEK here opens it
        self._judged: set[str] = set()  # offers looked at while that window stood
        self._spoilt: dict[str, CorruptWindow] = {}  # those of them that cannot be read
        self._tended: dict[str, Tended] = {}
        self._own = self._own_keys()
        self._spoken = False
        self._crashes: tuple[Crash, ...] = ()
        self._failures = 0
        self._unproven_at: int | None = None
        self._orders: Orders | None = None
        self._ordered: str | None = None  # digest of the window that the orders are for
        self._ordered_at: int | None = None  # the instant that they are for
        self._cache_owed = False
        self._addresses = {server.driver.name: server.address for server in world.servers}
        self._peering = None if settings.asking is None else self._new_peering(settings.asking)
        self._write_memory(self._remembered)
        self._dormant = self._restore()

    # One tick.

    def tick(self) -> int:
        """Run one pass; return the longest wait until the next, in milliseconds, before jitter."""
        self._take_trust()
        found = self._poll()
        if found is not None:
            self._hear(found.beat)
            self._consider(found)
        self._go_on()
        told = self._told()
        self._crashes = ()
        self._tend()
        self._ask_peers(reached=found is not None)
        if self._told() != told and found is not None:
            self._speak()
        return self._pause_ms(reached=found is not None)

    def unready(self) -> list[str]:
        """Name the servers that were not seen to hold keys that may seal: shared ones, or while alone one's own."""
        names_ready = {n for n, tended in self._tended.items() if tended.report.state is ServerState.IN_STEP}
        return [s.driver.name for s in self._world.servers if s.driver.name not in names_ready]

    @property
    def crashes(self) -> tuple[Crash, ...]:
        """What drivers did in the last tick that no driver may do."""
        return self._crashes

    def _take_trust(self) -> None:
        """By other keys, what was judged may be judged otherwise: let it be sent again, if only to say so."""
        if self.trust is not self._trusted:
            self._trusted = self.trust
            self._stood = ""
            self._judged.clear()
            self._cache_owed = True  # sealed with a KEK that may not be here for long

    @property
    def _silent(self) -> bool:
        """Whether no leader was heard for longer than this node ever pauses."""
        return self._world.clock.boot_ms() - self._heard_ms > self._patience_ms

    def _poll(self) -> Poll | None:
        report = self._report()
        # Where no leader is heard, what stands under a digest that is known here may be somebody's junk.
        known = "" if self._silent else self._stood
        try:
            found = self._world.store.poll(known_digest=known, node=self.settings.node, report=report)
        except StoreUnavailable as away:
            self._store_failed(away)
            return None
        self._spoken = True
        self._say("store", None)
        if found.report_fault:
            self._world.telemetry.count("store_errors_total", operation="report")
        if found.offers_unread:
            self._world.telemetry.count("store_errors_total", operation="offers")
        self._say("report", found.report_fault or None, hint="the agent's user needs the rights of `keyrotd acl`")
        return found

    def _hear(self, data: bytes | None) -> None:
        if data is None:
            return
        try:
            beat = read_beat(data, verifiers=self.trust.verifiers, ring=self.settings.ring)
        except CorruptWindow as corrupt:
            self._refused("beat", corrupt.reason, str(corrupt), corrupt.hint)
            return
        if self._fleet.from_the_future(beat.signed_at):
            self._refused("beat", "from the future", "a beat is signed minutes ahead of this node's clocks", _CLOCKS)
            return
        if self._beat is not None and beat.signed_at < self._beat.signed_at:
            self._refused("beat", "replayed beat", "the store shows an older beat than it did before", _REPLAYED)
            return
        self._say("beat", None)
        if self._beat is None or beat.signed_at > self._beat.signed_at:
            self._heard_ms = self._world.clock.boot_ms()
        self._beat = beat
        moved = self._fleet.moved
        self._fleet.hear(beat.signed_at)
        self._cache_owed |= self._fleet.moved != moved
        self._world.telemetry.gauge("beat_timestamp_seconds", beat.signed_at / 1000, ring=self.settings.ring)
        if self._dormant is not None:
            dormant, self._dormant = self._dormant, None
            self._awake(dormant)
        if self._held is not None and not self._held.confirmed:
            self._held = self._confirmed(self._held)
            self._cache_owed |= self._held.confirmed

    def _confirmed(self, held: Held) -> Held:
        beat = self._beat
        if beat is None or beat.confirmed_at is None or beat.digest != held.window.digest:
            return held
        return held.heard(beat.confirmed_at)

    # Windows.

    def _consider(self, found: Poll) -> None:
        if found.digest != self._stood:
            self._judged.clear()
        if found.window is not None:
            settled = self._judge(found.window)
            self._stood = found.digest if settled else ""
        elif not found.digest:
            self._stood = ""
        try:
            self._exchange_offers(found)
        except StoreUnavailable as away:
            self._world.telemetry.count("store_errors_total", operation=away.operation)
            self._say("offers", str(away), hint=away.hint)
        else:
            self._say("offers", None)

    def _exchange_offers(self, found: Poll) -> None:
        held = self._held
        known = {*self._sources, *self._judged, found.digest, *(held.window.ancestors if held else ())}
        self._judged &= set(found.offers)  # whoever fills the store with offers must not fill this process
        unknown = [digest for digest in found.offers if digest not in known]
        if unknown:
            self._judged.update(unknown)
            for digest, data in self._world.store.offers(unknown).items():
                self._judge_offer(digest, data)
        self._spoilt = {digest: corrupt for digest, corrupt in self._spoilt.items() if digest in found.offers}
        self._say_spoilt()
        judged = found.digest in {self._stood, "" if self._unopened is None else self._unopened.digest}
        if not judged and not self._silent:
            return  # the store's window could not be judged: nobody knows yet what it lacks
        for digest, sealed in self._sources.items():
            if not self._covered(digest, found.digest) and digest not in found.offers:
                self._world.store.offer(digest=digest, window=sealed)
                self._world.telemetry.event("window.offered", ring=self.settings.ring, digest=digest)

    def _covered(self, digest: str, stored: str) -> bool:
        """Whether the store has this window, or one that descends from it."""
        known = (self._unopened, None if self._held is None else self._held.window)
        standing = next((window for window in known if window is not None and window.digest == stored), None)
        stands = stored == self._stood or standing is self._unopened is not None
        return stands and (digest == stored or (standing is not None and digest in standing.ancestors))

    def _judge_offer(self, digest: str, data: bytes) -> None:
        """Adopt what another node holds if it is newer; that others hold older ones is no fault of theirs."""
        try:
            self._weigh(self._opened(data), data)
        except CorruptWindow as corrupt:
            self._world.telemetry.count("windows_refused_total", ring=self.settings.ring, reason=corrupt.reason)
            self._spoilt[digest] = corrupt

    def _say_spoilt(self) -> None:
        """One line for all offers that cannot be read, however many somebody makes."""
        corrupt = next(iter(self._spoilt.values()), None)
        words = f"ring {self.settings.ring}: offers cannot be read: {listed(self._spoilt)} ({corrupt})"
        hint = None if corrupt is None else corrupt.hint
        self._say("offer", None if corrupt is None else words, hint=hint or ALTERED)

    def _judge(self, data: bytes) -> bool:
        """Adopt a window if it is newer. False: it might be judged otherwise later, so let it be sent again."""
        self._unopened = None
        try:
            seen = self._opened(data)
        except CorruptWindow as corrupt:
            self._refused("window", corrupt.reason, str(corrupt), corrupt.hint)
            if corrupt.reason == "unknown kek":
                self._unopened = read_header(data, verifiers=self.trust.verifiers, ring=self.settings.ring)
            return corrupt.reason not in {"unknown kek", "unknown signer"}
        reason = self._weigh(seen, data)
        if reason is None:
            self._say("window", None)
            return True
        unvouched, self._unvouched = self._unvouched, seen.digest if reason == "stale window" else None
        if reason == "stale window" and unvouched != seen.digest:
            return False  # its first beat is signed a moment after its publish: only at the next look is it overdue
        words = f"ring {seen.ring}: window {seen.epoch} refused, {reason}; this node holds {self._holding()}"
        self._refused("window", reason, words, _HINTS[reason])
        return reason != "stale window"

    def _opened(self, data: bytes) -> Window:
        return open_window(data, verifiers=self.trust.verifiers, keks=self.trust.keks, ring=self.settings.ring)

    def _weigh(self, seen: Window, data: bytes) -> str | None:
        """Adopt or keep; return why not, if not."""
        now_at = self._fleet.now()
        fresh = now_at is not None and self._fresh(seen)
        match accept(seen, self._held, self._remembered.memory, fresh=fresh, now_at=now_at or 0):
            case Adopt(held, fork):
                self._adopt(held, data, fork=fork)
            case Keep():
                pass
            case Refuse(reason):
                return reason
        return None

    def _fresh(self, seen: Window) -> bool:
        beat = self._beat
        if beat is None or not (beat.digest == seen.digest or seen.epoch > beat.epoch):
            return False
        max_seal_age_ms = seen.seals_until - (seen.current.seals_from or seen.published_at)
        return self._world.clock.wall_ms() - beat.signed_at < max_seal_age_ms

    def _adopt(self, held: Held, data: bytes, *, fork: bool) -> None:
        before, window = self._sources, held.window
        self._held = self._confirmed(held)
        self._sources = {window.digest: data}
        if held.strays:
            older = [item for item in before.items() if item[0] not in window.ancestors]
            self._sources.update(older[: MAX_SOURCES - 1])
        if fork:
            self._world.telemetry.count("forks_total", ring=window.ring)
        self._world.telemetry.event(
            "window.adopted", ring=window.ring, epoch=window.epoch, digest=window.digest, fork=fork
        )
        self._unproven_at = window.published_at
        self._write_cache()

    def _go_on(self) -> None:
        """Go on alone if no leader is heard, and forget what may no longer open, here and in the cache."""
        now_at, latest_at = self._fleet.now(), self._fleet.latest()
        if self._held is None or now_at is None or latest_at is None:
            return
        faded = self._held.on(latest_at, silent=self._silent).at(now_at)
        if faded == self._held and not self._cache_owed:
            return
        self._held = faded
        keep = frozenset(key.name for key in (*faded.window.all, *faded.strays) if key.stek is not None)
        kept = {digest: forget(sealed, keep=keep) for digest, sealed in self._sources.items()}
        owing = {faded.window.digest, *(kept if faded.strays else ())}
        self._sources = {digest: sealed for digest, sealed in kept.items() if digest in owing}
        self._write_cache()

    # Servers.

    def _tend(self) -> None:
        now_at = self._fleet.latest()
        held = None if now_at is None else self._held
        if held is None and self._world.clock.boot_ms() - self._started_ms < self.settings.start_grace_ms:
            return
        standing = footing(held, now_at or 0)
        if standing is Footing.ISOLATED:
            self._refresh_own()
        self._tenure = self._measured(held, now_at or 0)
        self._orders = orders = Orders(
            keys=replace(keys_at(held, self._own, now_at or 0), tenure=self._tenure),
            settled=steady(held, now_at or 0),
            ours=held is not None or self._past_bound(),
        )
        self._ordered = None if held is None else held.window.digest
        self._ordered_at = now_at
        self._note(standing, held, now_at or 0)
        self._remember_bound(held, now_at or 0)
        tasks = {
            server.driver.name: _task(server, orders, self._tended.get(server.driver.name), self._world.clock)
            for server in self._world.servers
        }
        done = self._world.workers.run(tasks, self.settings.poll_interval_ms)
        self._late({*tasks} - {*done})
        for name, told in done.items():
            for tended in told:
                self._take_note(name, tended)
        self._crashes = tuple(tended.crash for told in done.values() for tended in told if tended.crash is not None)
        self._measure_probes()
        if held is not None:
            self._raise_floor(held.window)

    def _measured(self, held: Held | None, now_at: int) -> Tenure:
        """Return the bounds of the keys for now by this machine's boot clock, and those already given while they do."""
        clock = self._world.clock
        # Keys of one's own are changed in time by whoever lives: a server that is told no more outlasts that by little.
        own_until_ms = self._own_since_ms + 2 * self._own_every_ms
        own_opens_ms = own_until_ms + self._own_every_ms
        if held is None:
            return Tenure(
                boot_id=clock.boot_id, epoch=0, step=0, seals_until_ms=own_until_ms, opens_until_ms=own_opens_ms
            )
        ahead_ms, seals, opens = clock.boot_ms() - now_at, seals_until(held, now_at), opens_until(held, now_at)
        opens_ms = 0 if opens is None else opens + ahead_ms
        tenure = Tenure(
            boot_id=clock.boot_id,
            epoch=held.window.epoch,
            step=steps(held, now_at),
            seals_until_ms=own_until_ms if seals is None else seals + ahead_ms,
            opens_until_ms=max(opens_ms, own_opens_ms) if seals is None else opens_ms,
        )
        if self._tenure is not None and tenure.agrees(self._tenure, held.window.eps_ms):
            return self._tenure
        return tenure

    def _remember_bound(self, held: Held | None, now_at: int) -> None:
        """Before a shared key goes into a server, write down when it has to stop: caches get lost."""
        if held is None or seals_until(held, now_at) is None:
            return
        assert self._tenure is not None  # measured for these very keys
        assert self._tenure.seals_until_ms is not None  # as above
        bound = Bound(self._tenure.boot_id, self._tenure.seals_until_ms)
        if bound != self._remembered.bound:
            self._write_memory(replace(self._remembered, bound=bound))

    def _past_bound(self) -> bool:
        return self._remembered.bound is not None and self._remembered.bound.passed(self._world.clock)

    def _take_note(self, name: str, tended: Tended) -> None:
        self._tended[name] = tended
        ring, report, telemetry = self.settings.ring, tended.report, self._world.telemetry
        if tended.drifted:
            telemetry.count("drift_total", ring=ring, server=name)
            telemetry.event("drift.repaired", ring=ring, server=name, instance=tended.instance)
        if tended.installed:
            telemetry.count("installs_total", ring=ring, server=name, outcome="installed")
            telemetry.observe("install_duration_seconds", tended.took_ms / 1000, server=name)
            epoch = 0 if self._held is None else self._held.window.epoch
            telemetry.event("window.installed", ring=ring, server=name, epoch=epoch, took_s=tended.took_ms / 1000)
        elif report.state in {ServerState.FAILED, ServerState.UNREACHABLE}:
            telemetry.count("installs_total", ring=ring, server=name, outcome=report.state.value)
        if tended.installed and self._drops_tickets(report.slots):
            telemetry.count("dropped_keys_total", ring=ring, server=name)
        self._say(f"server {name}", report.fault or None, hint=tended.hint, server=name)

    def _drops_tickets(self, slots: int | None) -> bool:
        """Whether a key that this node has sealed with, and that should still open, finds no slot."""
        if slots is None or self._held is None or self._orders is None:
            return False
        return any(stek.name in self._held.sealed for stek in self._orders.keys.opening[slots:])

    def _late(self, names: Iterable[str]) -> None:
        for name in names:
            before = self._tended.get(name)
            words = f"server {name}: has not answered within {self.settings.poll_interval_ms} ms"
            if before is not None:
                # Whatever the probe says in the end, it is asked again: the run that follows may know only what was.
                report = replace(before.report, state=ServerState.UNREACHABLE, probe=ProbeState.NONE, fault=words)
                self._tended[name] = replace(before, report=report)
            self._say(f"server {name}", words, hint=_LATE, server=name)

    def _raise_floor(self, window: Window) -> None:
        memory = self._remembered.memory.after(window)
        if memory != self._remembered.memory:
            self._write_memory(replace(self._remembered, memory=memory))
        published_at, now_at = self._unproven_at, self._fleet.now()
        if self._read_back() is None:
            return
        self._world.telemetry.gauge("epoch", window.epoch, ring=window.ring)
        if published_at is not None and now_at is not None:
            self._unproven_at = None
            took_s = max(0, now_at - published_at) / 1000
            self._world.telemetry.observe("propagation_duration_seconds", took_s, ring=window.ring)

    # Peers.

    def _new_peering(self, asking: Asking) -> Peering:
        world = self._world
        return Peering(
            asking,
            ring=self.settings.ring,
            node=self.settings.node,
            offerings=tuple(
                Offering(name=server.driver.name, driver=server.driver.kind, offer=server.offer)
                for server in world.servers
                if server.offer is not None
            ),
            store=world.store,
            aside=world.aside,
            clock=world.clock,
            rand=world.rand,
            telemetry=world.telemetry,
        )

    def _ask_peers(self, *, reached: bool) -> None:
        if self._peering is None:
            return
        crash = self._peering.turn(verifiers=self.trust.verifiers, now_at=self._fleet.now(), reached=reached)
        self._crashes += () if crash is None else (crash,)

    @property
    def _tallies(self) -> dict[str, Tally]:
        return {} if self._peering is None else self._peering.tallies

    # Own keys.

    def _own_keys(self) -> tuple[Stek, Stek]:
        self._own_since_ms = self._world.clock.boot_ms()
        rand, ring = self._world.rand, self.settings.ring
        return Stek(rand(SEED_BYTES), ring), Stek(rand(SEED_BYTES), ring)

    def _refresh_own(self) -> None:
        if self._world.clock.boot_ms() - self._own_since_ms >= self._own_every_ms:
            self._own = (self._own[1], self._own_keys()[1])

    @property
    def _own_every_ms(self) -> int:
        return OWN_KEYS_MS if self._held is None else min(OWN_KEYS_MS, self._held.window.current.step_ms)

    # Words.

    def _note(self, standing: Footing, held: Held | None, now_at: int) -> None:
        """Tell, once a change, what this node seals with when it is not what a leader gave it."""
        telemetry, ring = self._world.telemetry, self.settings.ring
        gone = 0 if held is None else steps(held, now_at)
        telemetry.gauge("isolated", float(standing is Footing.ISOLATED), ring=ring)
        telemetry.gauge("succession_steps", gone, ring=ring)
        for alone in (Footing.ISOLATED, Footing.STRANDED):
            self._say(alone.value, self._why_alone(standing, held) if standing is alone else None, hint=_JOINS)
        if self._footing != (standing, gone) and (standing is Footing.STRANDED or gone):
            telemetry.event("succession.stepped", ring=ring, steps=gone, epoch=held.window.epoch if held else 0)
        self._footing = standing, gone

    def _measure_probes(self) -> None:
        reports = self._server_reports()
        probed = [report.probe for report in reports if report.probe is not ProbeState.NONE]
        tried = len(probed) + sum(report.tried for report in reports)
        if tried:
            ratio = (probed.count(ProbeState.RESUMED) + sum(report.resumed for report in reports)) / tried
            self._world.telemetry.gauge("probe_resumption_ratio", ratio, ring=self.settings.ring)

    def _told(self) -> tuple[object, ...]:
        """What a report says beside its counter."""
        return (self._state(), self._steps(), self._along(), self._holding(), self._read_back(), self._server_reports())

    def _server_reports(self) -> tuple[ServerReport, ...]:
        return tuple(self._with_peers(tended.report) for tended in self._tended.values())

    def _with_peers(self, report: ServerReport) -> ServerReport:
        tally = self._tallies.get(report.name, Tally(0, 0))
        return replace(report, address=self._addresses[report.name], resumed=tally.resumed, tried=tally.tried)

    def _report(self) -> bytes:
        self._counter += 1
        held = self._held
        return write_report(
            Report(
                ring=self.settings.ring,
                node=self.settings.node,
                counter=self._counter,
                reported_at=self._reported_at,
                state=self._state(),
                steps=self._steps(),
                epoch=0 if held is None else held.window.epoch,
                holds=None if held is None else held.window.digest,
                read_back=self._read_back(),
                floor=self._remembered.memory.floor,
                barrier=self._remembered.memory.barrier,
                poll_interval_ms=self.settings.poll_interval_ms,
                servers=self._server_reports(),
                accepts=self.trust.accepts,
                along=self._along(),
            ),
            self.trust.keks,
        )

    def _speak(self) -> None:
        try:
            self._world.store.report(node=self.settings.node, report=self._report())
        except StoreUnavailable as away:
            self._world.telemetry.count("store_errors_total", operation=away.operation)
            self._say("report", str(away), hint=away.hint)

    def _state(self) -> NodeState:
        if not self._spoken:
            return NodeState.JOINING
        now_at = self._fleet.latest()
        standing = footing(self._held, now_at or 0)
        if now_at is None or standing is Footing.ISOLATED:
            return NodeState.ISOLATED
        if standing is Footing.STRANDED:
            return NodeState.STRANDED
        if any(tended.drifted for tended in self._tended.values()):
            return NodeState.DRIFT
        return NodeState.BEHIND if self._read_back() is None else NodeState.IN_STEP

    def _steps(self) -> int:
        return 0 if self._held is None else steps(self._held, self._fleet.latest() or 0)

    def _along(self) -> bytes | None:
        return None if self._held is None else along(self._held, self._fleet.latest() or 0)

    def _read_back(self) -> str | None:
        """Return the digest of the window that every server was seen to hold, if it is the one held now."""
        if self._held is None or self._orders is None or self._ordered != self._held.window.digest or not self._spoken:
            return None
        if not self._fleet.moved:
            # Served by a wall clock that is ahead, while nothing says how old the beats are that are heard?
            by_beat = keys_at(self._held, self._own, self._fleet.now() or 0)
            if names(by_beat) != names(self._orders.keys):
                return None
        for server in self._world.servers:
            tended = self._tended.get(server.driver.name)
            if tended is None or tended.report.state is not ServerState.IN_STEP:
                return None
            if tended.wanted != names(self._orders.for_driver(server.driver)):
                return None
        return self._ordered

    @property
    def _reported_at(self) -> int:
        """The instant for which servers were tended last: a leader must not take them for further than they are."""
        now_at = self._fleet.now() or 0
        return now_at if self._ordered_at is None else min(self._ordered_at, now_at)

    def _holding(self) -> str:
        return "no window" if self._held is None else f"window {self._held.window.epoch}"

    def _why_alone(self, standing: Footing, held: Held | None) -> str | None:
        ring = self.settings.ring
        if standing is Footing.LED:
            return None
        if held is None:
            return f"ring {ring}: this node holds no window yet and seals with keys of its own"
        what = "goes on by succession" if standing is Footing.STRANDED else "seals with keys of its own"
        return f"ring {ring}: no leader is heard since window {held.window.epoch}: this node {what}"

    # Effects that may fail without harm.

    def _write_cache(self) -> None:
        heard = self._fleet.heard
        if self._held is None or heard is None:
            return
        cache = Cache(
            windows=tuple(self._sources.values()),
            links=self._sealed_links(self._held),
            confirmed_at=self._held.confirmed_at,
            spread=self._held.spread,
            stood_in=self._held.stood_in,
            sealed=self._held.sealed,
            heard=heard,
        )
        self._cache_owed = not self._written(self._world.runtime, self._cache_name, cache.encode())
        if not self._cache_owed:
            self._say("cache", None)

    def _sealed_links(self, held: Held) -> bytes:
        if held.succession is None and not held.strays:
            return b""
        links = Links(succession=held.succession, strays=held.strays)
        return seal_links(links, ring=self.settings.ring, keks=self.trust.keks, rand=self._world.rand)

    def _write_memory(self, remembered: Remembered) -> None:
        if self._written(self._world.state, self._memory_name, remembered.encode()):
            self._remembered = remembered
            self._say("memory", None)

    def _written(self, folder: Folder, name: str, data: bytes) -> bool:
        try:
            folder.write(name, data)
        except OSError as error:
            self._say(name, f"cannot write {name}: {error.strerror}", hint="free space, or mend the folder's owner")
            return False
        self._say(name, None)
        return True

    def _restore(self) -> Cache | None:
        """Take up the cache where the last life left it; return it if there is no telling yet how old it is."""
        try:
            data = self._world.runtime.read(self._cache_name)
            cache = None if data is None else decode_cache(data)
        except (CorruptWindow, OSError) as unreadable:
            refuse_downgrade(unreadable, self._cache_name)
            self._say("cache", f"the cache cannot be read: {unreadable}", hint="it is made anew with the next window")
            return None
        if cache is None:
            return None
        self._fleet = FleetTime(self._world.clock, self._steady_ms, cache.heard)
        if self._fleet.now() is None:
            return cache
        self._awake(cache)
        return None

    def _awake(self, cache: Cache) -> None:
        now_at = self._fleet.now()
        assert now_at is not None  # whoever calls knows the time
        ring = self.settings.ring
        opened: dict[bytes, Window] = {}
        for data in cache.windows:
            try:
                opened[data] = self._opened(data)
            except CorruptWindow as corrupt:
                self._refused("cache", corrupt.reason, str(corrupt), corrupt.hint)
                if data == cache.windows[0]:
                    return
        window, *older = opened.values()
        links = self._opened_links(cache.links)
        if window.barrier < self._remembered.memory.barrier:
            self._refused("cache", "below barrier", f"ring {ring}: the cache holds revoked keys", None)
            return
        owed = (key for other in older for key in owes(window, other, now_at))
        strays = {key.name: key for key in (*links.strays, *owed) if key.born >= window.barrier}
        held = Held(
            window=window,
            strays=tuple(strays.values()),
            confirmed_at=cache.confirmed_at,
            spread=cache.spread,
            stood_in=cache.stood_in,
            sealed=cache.sealed,
            succession=links.succession,
        )
        self._held = held.on(now_at, silent=False).at(now_at)
        self._sources = {each.digest: data for data, each in opened.items()}
        self._stood = window.digest
        self._world.telemetry.event("cache.restored", ring=ring, epoch=window.epoch, digest=window.digest)

    def _opened_links(self, data: bytes) -> Links:
        """What cannot be opened any more costs a few tickets, and not the window beside it."""
        try:
            return open_links(data, ring=self.settings.ring, keks=self.trust.keks) if data else Links(None, ())
        except CorruptWindow as corrupt:
            self._refused("cache", corrupt.reason, str(corrupt), corrupt.hint)
            return Links(None, ())

    def _store_failed(self, away: StoreUnavailable) -> None:
        self._failures += 1
        self._world.telemetry.count("store_errors_total", operation=away.operation)
        self._say("store", str(away), hint=away.hint)

    def _pause_ms(self, *, reached: bool) -> int:
        if reached:
            self._failures = 0
        pause_ms = int(self.settings.poll_interval_ms * 2 ** min(self._failures, MAX_BACKOFF_DOUBLINGS))
        now_at, ordered_at = self._fleet.latest(), self._ordered_at
        if self._held is None or now_at is None or ordered_at is None:
            return pause_ms
        # However patient with the store: a key's bound is kept to the instant, or others forget it before we do. And
        # if it passed while this very tick hung, or the machine slept, the next one follows at once.
        until = changes_at(self._held, ordered_at)
        return pause_ms if until is None else min(pause_ms, max(0, until - now_at))

    def _refused(self, kind: str, reason: str, text: str, hint: str | None) -> None:
        self._world.telemetry.count("windows_refused_total", ring=self.settings.ring, reason=reason)
        self._say(kind, text, hint=hint or ALTERED, reason=reason)

    def _say(self, key: str, text: str | None, *, hint: str | None = None, **fields: object) -> None:
        ring = self.settings.ring
        self._world.telemetry.fault(f"{ring}: {key}", text, hint=hint, ring=ring, **fields)


_CLOCKS = "which clock is wrong, the leader's or this node's? run a time daemon on both"

_LATE = "it keeps the keys that it has, and no other server waits for it; is it stopped or overloaded?"

_REPLAYED = "the store lost its last seconds, or somebody puts old beats there: the leader's next one ends it"

_JOINS = "it joins by itself once it reads a window and a fresh beat: `keyrotd status` tells whether a scheduler leads"

_HINTS = {
    "below barrier": "the store went back to before a revoke: the next mend or publish heals it",
    "older epoch": "the store lost windows: this node offers its own, and the leader mends",
    "incomplete": "the window lacks the seed of a live key: somebody altered the store",
    "stale window": "no fresh beat vouches for it: is a scheduler running, and are the clocks right?",
}


def _task(server: Server, orders: Orders, before: Tended | None, clock: Clock) -> Callable[[], Tended]:
    def task() -> Tended:
        began_ms = clock.boot_ms()
        return replace(tend(server, orders, before), took_ms=clock.boot_ms() - began_ms)

    return task
