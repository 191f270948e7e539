"""
The scheduler of one ring. One tick: take or renew the lease, read, decide, act, sign the beat, record.

The lease is liveness only. Safety is the store's publish (the newest fence, over the very digest that was decided
from), and this scheduler's own memory, written before anything is signed above it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias, assert_never

from keyrotd.core.decide import (
    Bootstrap,
    Decision,
    Decline,
    Gate,
    Hold,
    Mend,
    Renew,
    Revoke,
    Rotate,
    Seen,
    View,
    acknowledged,
    decide,
    due_at,
    judge_gate,
    listed,
    live,
    owes,
    recover,
    verdict,
)
from keyrotd.core.errors import CorruptWindow, StoreUnavailable
from keyrotd.core.mend import mend
from keyrotd.core.messages import Beat, Event, Goal, NodeState, Order, Pause, Peers, Report, Request, Resume
from keyrotd.core.peers import named
from keyrotd.core.policy import Policy
from keyrotd.core.stek import SEED_BYTES, Stek
from keyrotd.core.succession import carried, renew
from keyrotd.core.window import Window, bootstrap, revoke, rotate
from keyrotd.daemon.agent import REPORTS_PER_LIFE
from keyrotd.daemon.clock import Clock, FleetTime, LeaderTime, taking_over
from keyrotd.daemon.pauses import Pauses, TooLong
from keyrotd.daemon.state import FORGOTTEN, Folder, try_recall
from keyrotd.daemon.telemetry import ALTERED, Telemetry
from keyrotd.seal.keyfiles import Keks, OperatorVerifyKey, SigningKey, VerifyKey, ids_in_change
from keyrotd.seal.messages import read_beat, read_event, read_report, read_request, sign_beat, sign_event, sign_peers
from keyrotd.seal.window import open_window, seal_window
from keyrotd.store.limits import REPORTS, REPORTS_BYTES
from keyrotd.store.port import Desk, Fenced, Moved, Published, Store

#: A node that has not reported for this long is forgotten: it was taken out of the fleet.
FORGET_AFTER_MS = 86_400_000
#: Why somebody else may be able to read what this scheduler cannot: while keys or versions change, it stays.
_FOR_OTHERS = frozenset({"unknown kek", "unknown signer", "version"})
#: A node counts its lives by the wall clock (daemon/agent), which may be this far ahead of ours.
_FUTURE_LIFE_S = 86_400
#: A fleet that looks for a new window all at once is a queue as long as itself, in which beats and leases stand too.
NODES_A_MS = 10
#: Among so many events at most, one tells of a pause that stands: nothing is published meanwhile but what is asked for.
_RECENT = 20
#: A reading of reports is followed by so many times its own duration without one.
RESTS = 3
#: Whom nodes may offer their tickets to is drawn anew this often.
PEERS_EVERY_MS = 60_000
#: A beat's instant goes to disk this often.
SIGNED_AT_EVERY_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a scheduler needs of a ring's secrets."""

    signer: SigningKey
    verifiers: tuple[VerifyKey, ...]
    operators: tuple[OperatorVerifyKey, ...]
    keks: Keks

    @property
    def accepts(self) -> tuple[str, ...]:
        return ids_in_change(self.keks, self.verifiers, self.operators)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything through which a scheduler touches anything."""

    store: Store
    state: Folder
    clock: Clock
    rand: Callable[[int], bytes]
    telemetry: Telemetry


#: By id; None for what no operator signed.
Requests: TypeAlias = dict[str, Order | None]


@dataclass
class Reign:
    """What a leader knows from one taking of the lease to its loss; a new reign begins with nothing but memory."""

    fence: int
    time: LeaderTime
    began_at: int  # and lets every node speak from then on
    ends_ms: int  # boot time at which the lease may be gone
    window: Window | None = None
    stood: str = ""  # digest of the store's window, and since when it was seen to be that
    stood_at: int = 0
    settled_at: int | None = None
    nodes: tuple[Seen, ...] = ()
    offers: dict[str, Window | None] = field(default_factory=dict)
    requests: Requests = field(default_factory=dict)
    reports_read_at: int | None = None
    rests_ms: int = 0  # boot time until which reports are not read again unless they must
    clocks_agree: bool = False
    vouched: bool = False


class RingScheduler:
    """See the module. `policy` and `trust` may be replaced between ticks."""

    def __init__(
        self, ring: str, holder: str, policy: Policy, trust: Trust, world: World, *, wait_replicas: int = 0
    ) -> None:
        self.ring, self.policy, self.trust = ring, policy, trust
        self._trusted = trust
        self._holder, self._world, self._wait_replicas = holder, world, wait_replicas
        self._memory_name = f"scheduler-{ring}.memory"
        self._remembered, fault = try_recall(world.state, self._memory_name)
        self._say("memory", fault, hint=FORGOTTEN)
        self._reign: Reign | None = None
        self._window: Window | None = None  # the last window that this scheduler published or accepted
        self._past: Window | None = None  # and the one of an earlier reign: others may have published newer ones since
        self._held_since: int | None = None
        self._written_at = 0
        self._aside_until_ms = 0
        self._heard_ms = world.clock.boot_ms()  # when a beat was last seen to move
        self._spoilt: dict[str, CorruptWindow] = {}  # reports of the last reading, by the name that they stood under
        self._proven: dict[str, tuple[bytes, Report]] = {}  # and what was proven in it, to be known again by its bytes
        self._reports_bytes = REPORTS_BYTES  # to be read at a time; fewer after a reading that failed
        self._peers_ms = 0  # when peers are named next
        self._stood = ""  # digest of the window seen last in the store
        self._apart = False  # whether it was said that clocks are
        self._shown: set[tuple[str, tuple[tuple[str, str], ...]]] = set()  # gauges of this reign, with their labels
        self._pauses = Pauses(ring, world.state)
        self._fleet = FleetTime(world.clock, 2 * (policy.tick_interval_ms + policy.store_timeout_ms))
        world.telemetry.gauge("leader", 0, ring=ring)

    @property
    def leads(self) -> bool:
        return self._reign is not None

    def tick(self) -> int:
        """Run one pass; return the wait until the next, in milliseconds."""
        self._take_trust()
        try:
            self._tick()
            self._say("store", None)
        except StoreUnavailable as away:
            self._world.telemetry.count("store_errors_total", operation=away.operation)
            self._say("store", str(away), hint=away.hint)
            self._check_lease()
        except OSError as unwritable:
            words = (
                f"ring {self.ring}: cannot write {self._memory_name}, so nothing new is signed: {unwritable.strerror}"
            )
            self._say("memory", words, hint="free space in state_dir, or mend its owner")
            self._stand_aside("its memory cannot be written")
        return self.policy.tick_interval_ms

    def stop(self) -> None:
        """Hand the lease over: whoever stands by need not wait for it to run out."""
        if self._reign is not None:
            self._abdicate("stopping")
            self._release()

    def _take_trust(self) -> None:
        """By other keys, what could not be read may be readable: look again, and at once."""
        if self.trust is self._trusted:
            return
        self._trusted = self.trust
        self._proven.clear()
        self._aside_until_ms = 0
        if self._reign is not None:
            self._reign.offers = {digest: offer for digest, offer in self._reign.offers.items() if offer is not None}
            self._reign.reports_read_at = None

    def _tick(self) -> None:
        asked_ms = self._world.clock.boot_ms()
        if asked_ms < self._aside_until_ms:
            return
        desk = self._world.store.lead(
            holder=self._holder,
            ttl_ms=self.policy.lease_ttl_ms,
            fence_above=self._remembered.fence,
            known_digest=self._stood,
        )
        self._stood = desk.digest
        self._compare_clocks()
        if desk.fence is None:
            self._abdicate(f"{desk.leader} leads")
            self._listen(desk)
            return
        reign = self._reigning(desk.fence, asked_ms)
        if not self._clocks_agree(reign, desk):
            return
        now_at = reign.time.now()
        self._settle_window(reign, self._stored(reign, desk), desk, now_at)
        if self._reign is not reign:
            return
        reign.requests = self._requests(desk)
        self._judge_pauses(reign, now_at)
        self._read_reports(reign, desk, now_at)
        self._read_offers(reign, desk, now_at)
        view = self._view(reign, desk, now_at)
        decision = decide(view, self.policy, now_at)
        self._settle_requests(reign, now_at)
        self._act(reign, decision, view, now_at)
        self._clear_offers(reign, now_at)
        self._sign_beat(reign)
        self._name_peers(reign, now_at)
        self._measure(reign, decision, now_at)

    # The lease.

    def _reigning(self, fence: int, asked_ms: int) -> Reign:
        ends_ms = asked_ms + self.policy.lease_ttl_ms
        reign = self._reign
        if reign is None or reign.fence != fence:
            self._remember(fence=fence)
            if reign is None or asked_ms >= reign.ends_ms:
                # Another one may have led meanwhile: what we remember may not be the newest, and is worth an offer.
                self._past, self._window = self._window or self._past, None
            time = LeaderTime(self._world.clock)
            self._reign = reign = Reign(fence=fence, time=time, began_at=time.now(), ends_ms=ends_ms)
        reign.ends_ms = ends_ms
        return reign

    def _listen(self, desk: Desk) -> None:
        """Whoever stands by keeps the fleet's time, to go on with it when its turn comes."""
        beat = self._beat(desk)
        if beat is not None:
            if beat.signed_at > (self._fleet.newest or 0):
                self._heard_ms = self._world.clock.boot_ms()
            self._fleet.hear(beat.signed_at)
            self._world.telemetry.gauge("beat_timestamp_seconds", beat.signed_at / 1000, ring=self.ring)
            if self._past is not None and beat.epoch > self._past.epoch:
                self._past = None  # the fleet has a newer one: what this one knew is to be forgotten
        if desk.requests:
            self._pauses.hear(_pausing(self._requests(desk)), self._world.clock.wall_ms())

    def _stand_aside(self, why: str) -> None:
        """Whoever cannot sign must not keep the lease from those who can: let it go, and come back a lease later."""
        self._aside_until_ms = self._world.clock.boot_ms() + self.policy.lease_ttl_ms
        self._abdicate(why)
        self._release()

    def _release(self) -> None:
        try:
            self._world.store.release(holder=self._holder)
        except StoreUnavailable as away:
            self._say("store", str(away), hint=away.hint)

    def _abdicate(self, why: str) -> None:
        if self._reign is not None and self._reign.clocks_agree:
            self._world.telemetry.count("lease_transitions_total", ring=self.ring)
            self._world.telemetry.event("lease.lost", ring=self.ring, fence=self._reign.fence, why=why)
        self._reign = None
        self._world.telemetry.gauge("leader", 0, ring=self.ring)
        for metric, labels in self._shown:  # what only a leader knows, whoever leads now says
            self._world.telemetry.unset(metric, ring=self.ring, **dict(labels))
        self._shown.clear()

    def _check_lease(self) -> None:
        if self._reign is not None and self._world.clock.boot_ms() >= self._reign.ends_ms:
            self._abdicate("the lease ran out")

    def _clocks_agree(self, reign: Reign, desk: Desk) -> bool:
        """Judge once a reign: whoever signs by a clock that is minutes off would age the whole fleet's keys."""
        if not reign.clocks_agree:
            beat = self._beat(desk)
            signed_at = max(self._remembered.signed_at, 0 if beat is None else beat.signed_at)
            found = reign.time.disagreement(store_at=desk.store_at, last_signed_at=signed_at)
            self._say(
                "clocks",
                None if found is None else f"ring {self.ring}: clocks disagree, nothing is signed: {found}",
                hint="run a time daemon on schedulers and store",
            )
            if found is not None:
                self._stand_aside("clocks disagree")
                return False
            reign.clocks_agree = True
            reign.time = taking_over(self._world.clock, self._fleet, signed_at)
            reign.began_at = reign.time.now()
            self._world.telemetry.count("lease_transitions_total", ring=self.ring)
            wall_at = self._world.clock.wall_ms()
            self._world.telemetry.event(
                "lease.taken",
                ring=self.ring,
                fence=reign.fence,
                store_ahead_s=(desk.store_at - wall_at) / 1000,
                fleet_ahead_s=(reign.began_at - wall_at) / 1000,
            )
        self._world.telemetry.gauge("leader", 1, ring=self.ring)
        return True

    def _compare_clocks(self) -> None:
        """Say, and no more, that this machine's clock is off by more than the ring allows for."""
        fleet_at = self._fleet.now() if self._fleet.moved else None
        apart_ms = 0 if fleet_at is None else abs(self._world.clock.wall_ms() - fleet_at)
        # Once said it stands until they are well together again: a clock on the brink is no news every second.
        self._apart = apart_ms > (self.policy.eps_ms // 2 if self._apart else self.policy.eps_ms)
        found = f"this machine's clock and the fleet's time are more than {self.policy.eps_ms} ms apart"
        self._say("clock", f"ring {self.ring}: {found}" if self._apart else None, hint=_CLOCK)

    # Reading.

    def _stored(self, reign: Reign, desk: Desk) -> Window | None:
        if reign.window is not None and desk.digest == reign.window.digest:
            self._say("window", None)
            return reign.window
        data = desk.window
        if data is None and desk.digest:
            found = self._world.store.window()  # known from standing by, and not opened then
            data = None if found is None else found[1]
        if data is None:
            return None
        try:
            window = self._opened(data)
        except CorruptWindow as corrupt:
            self._refused("window", corrupt)
            if corrupt.reason in _FOR_OTHERS and self._window is None and not self._forsaken(desk.digest, corrupt):
                # Another scheduler may well read it; to begin anew over a window that stands would cost every ticket.
                self._stand_aside(f"the window in the store cannot be read here: {corrupt.reason}")
            return None
        self._say("window", None)
        return window

    def _forsaken(self, digest: str, corrupt: CorruptWindow) -> bool:
        """Whether nodes that can be read here hold windows, and none this one, or no other scheduler leads for long."""
        reports = [self._read_report(name, data) for name, data in (self._handed_in(()) or {}).items()]
        held = {report.holds for report in reports if report is not None} - {None}
        silent_ms = self._world.clock.boot_ms() - self._heard_ms
        # What a newer keyrotd made was proven to be a scheduler's: while nodes hold it, people decide who goes on.
        alone = corrupt.reason != "version" and silent_ms > 2 * self.policy.speak_ms
        return bool(held) and (digest not in held or alone)

    def _settle_window(self, reign: Reign, window: Window | None, desk: Desk, now_at: int) -> None:
        """A window newly standing has not been read back by anybody yet, as far as this reign knows."""
        if window is not None and (reign.window is None or window.digest != reign.window.digest):
            beat = self._beat(desk)
            confirmed = beat is not None and beat.digest == window.digest
            reign.settled_at = beat.confirmed_at if confirmed and beat is not None else None
            reign.nodes = tuple(
                replace(node, behind_since=None if acknowledged(node, window) else now_at) for node in reign.nodes
            )
            reign.reports_read_at = None
        if reign.stood != self._stood or not reign.stood_at:
            reign.stood, reign.stood_at = self._stood, now_at
        reign.window = window

    def _beat(self, desk: Desk) -> Beat | None:
        beat = None
        try:
            if desk.beat is not None:
                beat = read_beat(desk.beat, verifiers=self.trust.verifiers, ring=self.ring)
        except CorruptWindow as corrupt:
            self._refused("beat", corrupt)
        else:
            self._say("beat", None)
        return beat

    def _read_reports(self, reign: Reign, desk: Desk, now_at: int) -> None:
        """
        Only when they decide something, or often enough to see a node fall silent: a fleet's reports are large.

        However much they decide, most of the time is left for beats, and for others whom the store serves.
        """
        asked_ms = self._world.clock.boot_ms()
        needed = (
            reign.settled_at is None
            or reign.window is None
            or bool(desk.offers)
            or any(not isinstance(order, Pause | Resume) for order in reign.requests.values())  # those stand for hours
            or desk.report_count > REPORTS
            or now_at >= self._may_rotate_at(reign, reign.window, now_at) - self.policy.node_ttl_ms
            or any(node.behind_since is not None for node in reign.nodes)
        )
        fresh = reign.reports_read_at is not None and now_at - reign.reports_read_at < self.policy.node_ttl_ms // 3
        if fresh and (not needed or asked_ms < reign.rests_ms):
            return
        known = {node.report.node: node for node in reign.nodes}
        self._spoilt.clear()
        handed_in = self._handed_in(sorted(known, key=lambda name: known[name].seen_at))
        reports = {name: self._read_report(name, data) for name, data in (handed_in or {}).items()}
        proven = {name: report for name, report in reports.items() if report is not None}
        self._proven = {name: ((handed_in or {})[name], report) for name, report in proven.items()}
        seen = {name: self._seen(report, known.get(name), reign, now_at) for name, report in proven.items()}
        # A report that the store lost is a node that has not spoken again yet: it stays live as long as any other.
        kept = {name: node for name, node in known.items() if live((node,), self.policy, now_at)}
        nodes = {**kept, **seen}
        silent = {name: node for name, node in nodes.items() if now_at - node.seen_at >= FORGET_AFTER_MS}
        self._forget(silent)
        reign.nodes = tuple(node for name, node in nodes.items() if name not in silent)
        reign.reports_read_at = now_at
        read_ms = self._world.clock.boot_ms()
        reign.rests_ms = read_ms + RESTS * (read_ms - asked_ms)
        self._say_refused("reports", self._spoilt)
        newer = [name for name, node in nodes.items() if node.report.newer]
        words = f"ring {self.ring}: {listed(newer)} run a newer keyrotd, and report what this one does not know"
        self._say("newer reports", words if newer else None, hint=_SCHEDULERS_TOO)
        strangers = bool(known) and desk.report_count > len(known)
        failed_twice = handed_in is None and strangers and self._reports_bytes < REPORTS_BYTES // 4
        read = REPORTS if handed_in is None else len(handed_in)
        self._clean_reports(reign, beyond=desk.report_count > read or failed_twice)
        unheard = handed_in is None and (not known or len(reign.nodes) < len(known))
        if failed_twice or unheard:
            # Perhaps nobody flooded anything, and somebody's word was thrown away unread; and whoever could not be
            # heard is not silent.
            reign.began_at = now_at

    def _may_rotate_at(self, reign: Reign, window: Window, now_at: int) -> int:
        pause = self._pauses.standing(_pausing(reign.requests), now_at)
        return max(due_at(window, self.policy), 0 if pause is None else pause.until)

    def _handed_in(self, known: Iterable[str]) -> dict[str, bytes] | None:
        """Read what nodes handed in; a reading that fails must stop no beat, so then nobody has said anything new."""
        try:
            found = self._world.store.reports(known, most_bytes=self._reports_bytes)
        except StoreUnavailable as away:
            self._reports_bytes = max(self._reports_bytes // 4, REPORTS_BYTES // 256)  # it may have been too much
            self._world.telemetry.count("store_errors_total", operation=away.operation)
            self._say("reports away", str(away), hint=away.hint)
            return None
        self._say("reports away", None)
        self._reports_bytes = min(2 * self._reports_bytes, REPORTS_BYTES)
        return found

    def _read_report(self, name: str, data: bytes) -> Report | None:
        before = self._proven.get(name)
        if before is not None and before[0] == data:
            return before[1]
        try:
            return self._proven_report(name, data)
        except CorruptWindow as corrupt:
            self._spoilt[name] = corrupt
            return None

    def _proven_report(self, name: str, data: bytes) -> Report:
        """A node's own word, and no copy or foretelling of it."""
        report = read_report(data, keks=self.trust.keks, ring=self.ring)
        if report.node != name:  # the MAC proves the ring, the name inside whose it is
            raise CorruptWindow(f"report {name}: is a copy of that of {report.node}", reason="wrong name")
        if report.counter // REPORTS_PER_LIFE > self._world.clock.wall_ms() // 1000 + _FUTURE_LIFE_S:
            # A life that has not begun would mute the node whose name it bears.
            raise CorruptWindow(f"report {name}: is of a life to come", reason="malformed")
        return report

    def _clean_reports(self, reign: Reign, *, beyond: bool) -> None:
        """
        Take out what no node of this ring can have written; where there is more than could be read, all but the known.

        Who is not known yet speaks again.
        """
        doomed = [name for name, corrupt in self._spoilt.items() if corrupt.reason not in _FOR_OTHERS]
        with self._beating():
            if beyond:
                names = (node.report.node for node in reign.nodes)
                self._world.store.prune_reports(keep=[name for name in names if name not in self._spoilt])
            elif doomed:
                self._world.store.forget(nodes=doomed)

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """However much there is to clean up, it must stop no beat."""
        try:
            yield
        except StoreUnavailable as away:
            self._world.telemetry.count("store_errors_total", operation=away.operation)

    def _seen(self, report: Report, known: Seen | None, reign: Reign, now_at: int) -> Seen:
        if known is not None and report.counter <= known.report.counter:
            report, seen_at = known.report, known.seen_at
        elif known is None and 0 < report.reported_at <= now_at - FORGET_AFTER_MS:
            seen_at = report.reported_at
        else:
            # A report found lying there counts as just come: how old it is, only another clock would tell.
            seen_at = now_at
        node = Seen(report=report, seen_at=seen_at, behind_since=None)
        if reign.window is None or acknowledged(node, reign.window):
            return node
        before = None if known is None else known.behind_since
        return replace(node, behind_since=now_at if before is None else before)

    def _forget(self, names: Collection[str]) -> None:
        if not names:
            return
        with self._beating():
            self._world.store.forget(nodes=names)
            for name in names:
                self._world.telemetry.event("node.forgotten", ring=self.ring, node=name)

    def _read_offers(self, reign: Reign, desk: Desk, now_at: int) -> None:
        """Ask for what live nodes hold by name: whatever else somebody offers, it hides nothing of that."""
        held = self._held_elsewhere(reign, now_at)
        reign.offers = {
            digest: window
            for digest, window in reign.offers.items()
            if digest in desk.offers or (digest in held and window is not None)
        }
        unread = [digest for digest in (*held, *desk.offers) if digest not in reign.offers]
        spoilt: dict[str, CorruptWindow] = {}
        for digest, data in (self._world.store.offers(unread) if unread else {}).items():
            try:
                reign.offers[digest] = self._offered(digest, data)
            except CorruptWindow as corrupt:
                spoilt[digest] = corrupt
                if corrupt.reason in _FOR_OTHERS and digest not in held:
                    reign.offers[digest] = None  # it stays, and is not read again
        doomed = [digest for digest in spoilt if digest not in reign.offers]
        with self._beating():
            if desk.offer_count > len(desk.offers):
                self._world.store.prune_offers(keep=reign.offers)
            elif doomed:
                self._world.store.withdraw(digests=doomed)  # whoever holds that window sees it gone, and offers again
        if spoilt or None not in reign.offers.values():
            self._say_refused("offers", spoilt)

    def _held_elsewhere(self, reign: Reign, now_at: int) -> list[str]:
        """Digests that live nodes hold and that no window here tells of."""
        known = [window for window in (reign.window, self._window) if window is not None]
        told = {digest for window in known for digest in (window.digest, *window.ancestors)}
        holding = {node.report.holds for node in live(reign.nodes, self.policy, now_at)}
        return sorted(digest for digest in holding if digest is not None and digest not in told)

    def _offered(self, digest: str, data: bytes) -> Window:
        window = self._opened(data)
        if window.digest != digest:  # left standing, it would keep the true one out
            raise CorruptWindow(f"offer {digest}: is window {window.digest}", reason="wrong name")
        return window

    def _opened(self, data: bytes) -> Window:
        return open_window(data, verifiers=self.trust.verifiers, keks=self.trust.keks, ring=self.ring)

    def _requests(self, desk: Desk) -> Requests:
        found: Requests = {}
        spoilt: dict[str, CorruptWindow] = {}
        for request_id, data in desk.requests.items():
            try:
                found[request_id] = read_request(data, operator_verifiers=self.trust.operators, ring=self.ring)
            except CorruptWindow as corrupt:
                spoilt[request_id], found[request_id] = corrupt, None
        self._say_refused("requests", spoilt)
        return found

    def _view(self, reign: Reign, desk: Desk, now_at: int) -> View:
        window, gate = reign.window, self._gate(reign, now_at)
        heard_at = reign.began_at + self.policy.speak_ms
        if gate is not None and gate.settled and now_at >= heard_at and reign.settled_at is None:
            reign.settled_at = now_at
        return View(
            window=window,
            remembered=self._window,
            memory=self._remembered.memory,
            nodes=reign.nodes,
            offers=tuple(offer for offer in (self._past, *reign.offers.values()) if offer is not None),
            requests=tuple(request for request in reign.requests.values() if isinstance(request, Request)),
            stood_at=reign.stood_at,
            speak_until=heard_at,
            settled_at=reign.settled_at,
            durable=desk.replicas >= self._wait_replicas,
            pause=self._pauses.standing(_pausing(reign.requests), now_at),
        )

    def _gate(self, reign: Reign, now_at: int) -> Gate | None:
        if reign.window is None or reign.reports_read_at is None:
            return None
        return judge_gate(reign.window, reign.nodes, self.policy, now_at)

    # Acting.

    def _settle_requests(self, reign: Reign, now_at: int) -> None:
        """Strike out what is reached, void or not an operator's; what is pending stays until its goal is reached."""
        if reign.window is None:
            return
        done = []
        for request_id, request in reign.requests.items():
            outcome = self._outcome(request, reign.window, now_at)
            if outcome not in {"pending", "standing"}:
                done.append(request_id)
                kind = _kind(request)
                self._world.telemetry.count("requests_total", ring=self.ring, kind=kind, outcome=outcome)
        if done:
            self._world.store.settle(ids=done)

    def _outcome(self, request: Order | None, window: Window, now_at: int) -> str:
        match request:
            case None:
                return "refused"
            case Request():
                return verdict(request, window, now_at)
            case _:
                return self._pauses.fate(request, now_at)

    def _judge_pauses(self, reign: Reign, now_at: int) -> None:
        """Take what is new of pauses and their ends, and say so in history: that is how people see them."""
        if reign.window is None:
            return
        for news in self._pauses.judge(_pausing(reign.requests), reign.window, self.policy, now_at):
            match news:
                case Pause():
                    self._tell("pause", reign.window.epoch, now_at, news)
                case Resume():
                    self._tell("resume", reign.window.epoch, now_at, news)
                case TooLong(pause, latest_at):
                    self._world.telemetry.count("requests_total", ring=self.ring, kind="pause", outcome="declined")
                    words = f"a pause may last until {_utc(latest_at)}: no key seals beyond its bound"
                    self._record("decline", reign.window.epoch, now_at, pause.who, words)
                case _:
                    assert_never(news)

    def _tell(self, kind: str, epoch: int, now_at: int, order: Pause | Resume) -> None:
        """Whoever takes over finds pauses that an earlier leader told of already."""
        until = order.until if isinstance(order, Pause) else None
        event = Event(
            ring=self.ring, kind=kind, epoch=epoch, happened_at=now_at, who=order.who, reason=order.reason, until=until
        )
        if not self._told(event, order.made_at):
            self._world.telemetry.event(_TOLD[kind], ring=self.ring, who=order.who, reason=order.reason, until=until)
            self._put_down(event)

    def _told(self, event: Event, made_at: int) -> bool:
        """Whether history tells of it, and of no later end: by that, whoever looks takes it for over."""
        for data in self._recent():
            try:
                told = read_event(data, verifiers=self.trust.verifiers, ring=self.ring)
            except CorruptWindow:
                continue
            if told.happened_at >= made_at and told == replace(event, epoch=told.epoch, happened_at=told.happened_at):
                return True
            if told.kind == "resume":
                return False
        return False

    def _recent(self) -> tuple[bytes, ...]:
        try:
            return self._world.store.history(limit=_RECENT)
        except StoreUnavailable as away:
            self._world.telemetry.count("store_errors_total", operation=away.operation)
            return ()

    def _act(self, reign: Reign, decision: Decision, view: View, now_at: int) -> None:
        terms, fence = self.policy.terms(now_at), reign.fence
        match decision:
            case Hold():
                self._accept(view, now_at)
            case Decline(request, reason, until):
                self._decline(reign, request, f"{reason}; free from {_utc(until)}", now_at)
            case Bootstrap(epoch, barrier):
                made = bootstrap(
                    ring=self.ring,
                    epoch=epoch,
                    barrier=barrier,
                    fence=fence,
                    fresh=self._fresh_pair(),
                    now_at=now_at,
                    terms=terms,
                )
                self._publish(reign, made, "bootstrap", "no node and no memory holds a window")
            case Mend(base, others, epoch, reason):
                self._world.telemetry.count("store_regressions_total", ring=self.ring)
                made = mend(base, others, epoch=epoch, fence=fence, now_at=now_at, terms=terms)
                self._publish(reign, made, "mend", reason)
            case Rotate(reason, overdue):
                assert view.window is not None  # decide rotates, renews and revokes only what stands
                made = rotate(
                    view.window,
                    fresh=self._fresh(),
                    fence=fence,
                    now_at=now_at,
                    terms=terms,
                    settled_at=view.settled_at,
                )
                made = carried(made, view.window, settled_at=view.settled_at, now_at=now_at, terms=terms)
                if self._publish(reign, made, "rotate", reason + _not_waited_for(overdue), who=_asker(view)):
                    self._count_capped(view.window, made, now_at)
            case Renew(reason, root, overdue):
                assert view.window is not None  # likewise
                made = renew(view.window, root=root, fresh=self._fresh_pair(), fence=fence, now_at=now_at, terms=terms)
                self._publish(reign, made, "renew", reason + _not_waited_for(overdue))
            case Revoke(request):
                assert view.window is not None  # likewise
                made = revoke(view.window, fresh=self._fresh_pair(), fence=fence, now_at=now_at, terms=terms)
                self._publish(reign, made, "revoke", request.reason, who=request.who)
            case _:
                assert_never(decision)

    def _accept(self, view: View, now_at: int) -> None:
        """Remember the standing window as one to go back to, once everyone had time to say that it is not the one."""
        if view.window is not None and now_at >= view.speak_until and recover(view, self.policy, now_at) is None:
            self._window = view.window
            self._remember(window=view.window)

    def _publish(self, reign: Reign, made: Window, kind: str, reason: str, *, who: str = "") -> bool:
        if self._world.clock.boot_ms() >= reign.ends_ms:
            self._abdicate("the lease ran out before a publish")
            return False
        sealed = seal_window(made, keks=self.trust.keks, signer=self.trust.signer, rand=self._world.rand)
        self._remember(window=made)  # before it can be seen: nothing is ever signed below what once was
        published = self._world.store.publish(
            window=sealed,
            digest=made.digest,
            epoch=made.epoch,
            fence=made.fence,
            parent=self._stood,
            spread_ms=len(reign.nodes) // NODES_A_MS,
        )
        match published:
            case Published():
                self._stood = made.digest
                self._published(reign, made, kind, reason, who)
                return True
            case Fenced() | Moved():
                self._abdicate(f"publish refused: {published}")
                return False
            case _:
                assert_never(published)

    def _published(self, reign: Reign, made: Window, kind: str, reason: str, who: str) -> None:
        self._window = reign.window = made
        reign.stood, reign.stood_at = made.digest, made.published_at
        reign.settled_at, reign.reports_read_at = None, None
        reign.nodes = tuple(replace(node, behind_since=made.published_at) for node in reign.nodes)
        self._world.telemetry.count("publishes_total", ring=self.ring, kind=kind)
        self._world.telemetry.event(
            "window.published", ring=self.ring, epoch=made.epoch, digest=made.digest, kind=kind, reason=reason
        )
        self._record(kind, made.epoch, made.published_at, who, reason)

    def _count_capped(self, before: Window, made: Window, now_at: int) -> None:
        """Whoever caps the keys that open pays in tickets: say in how many keys."""
        cap = self.policy.previous_keys
        kept = {key.name for key in made.all}
        for key in (before.current, *before.previous):
            if cap is not None and len(made.previous) >= cap and key.open_at(now_at) and key.name not in kept:
                self._world.telemetry.count("capped_keys_total", ring=self.ring)

    def _decline(self, reign: Reign, request: Request, reason: str, now_at: int) -> None:
        declined = [request_id for request_id, found in reign.requests.items() if found == request]
        self._world.store.settle(ids=declined)
        self._world.telemetry.count("requests_total", ring=self.ring, kind=request.goal.value, outcome="declined")
        self._record("decline", request.past_epoch, now_at, request.who, reason)

    def _clear_offers(self, reign: Reign, now_at: int) -> None:
        """Take out what the window that stands has taken in, or an earlier one had: nobody is owed anything by it."""
        window = reign.window
        if self._reign is not reign or window is None:
            return
        taken_in = [
            digest
            for digest, offer in reign.offers.items()
            if offer is not None and offer.rank <= window.rank and not owes(window, offer, now_at)
        ]
        if taken_in:
            self._world.store.withdraw(digests=taken_in)

    def _record(self, kind: str, epoch: int, happened_at: int, who: str, reason: str) -> None:
        self._put_down(Event(ring=self.ring, kind=kind, epoch=epoch, happened_at=happened_at, who=who, reason=reason))

    def _put_down(self, event: Event) -> None:
        try:
            self._world.store.record(event=sign_event(event, self.trust.signer))
        except StoreUnavailable as away:  # history may be lost; the window that it tells of is published
            self._world.telemetry.count("store_errors_total", operation=away.operation)

    def _sign_beat(self, reign: Reign) -> None:
        """Sign what stands. A leader that cannot vouch for a window stays silent, and nodes see its silence."""
        window = reign.window
        if self._reign is not reign or window is None or window.epoch < self._remembered.memory.floor:
            return
        signed_at = max(reign.time.now(), self._remembered.signed_at)
        gate = self._gate(reign, signed_at)
        confirmed = gate is not None and gate.confirmed and reign.settled_at is not None
        beat = Beat(
            ring=self.ring,
            epoch=window.epoch,
            digest=window.digest,
            confirmed_at=reign.settled_at if confirmed else None,
            signed_at=signed_at,
            accepts=self.trust.accepts,
        )
        self._fleet.hear(signed_at)
        self._heard_ms = self._world.clock.boot_ms()
        self._remember_instant(signed_at)
        if not self._world.store.beat(beat=sign_beat(beat, self.trust.signer), fence=reign.fence):
            self._abdicate("a beat was refused: another one leads, or the lease ran out")
            return
        self._world.telemetry.gauge("beat_timestamp_seconds", signed_at / 1000, ring=self.ring)
        if window.epoch == 1 and not reign.vouched:
            # A fleet's first window woke nodes that hold nothing: they may take it only now, with a beat for it.
            self._world.store.wake()
        reign.vouched = True
        self._say("beat", None)  # whatever was there, it is ours now

    def _name_peers(self, reign: Reign, now_at: int) -> None:
        """Name some of the servers that may be offered tickets, if any may; nodes trust nobody else's word on it."""
        if self._reign is not reign or self._world.clock.boot_ms() < self._peers_ms:
            return
        reports = (node.report for node in live(reign.nodes, self.policy, now_at))
        found = named(reports, rand=self._world.rand)
        if found:
            self._peers_ms = self._world.clock.boot_ms() + PEERS_EVERY_MS
            peers = Peers(ring=self.ring, signed_at=now_at, peers=found)
            with self._beating():
                self._world.store.name_peers(peers=sign_peers(peers, self.trust.signer))

    # Memory, chance and words.

    def _remember(self, *, window: Window | None = None, fence: int = 0) -> None:
        """Keep it on disk before it matters; OSError ends the tick, for who cannot remember must not sign."""
        before = self._remembered
        memory = before.memory if window is None else before.memory.after(window)
        after = replace(before, memory=memory, fence=max(before.fence, fence))
        if after != before:
            self._world.state.write(self._memory_name, after.encode())
            self._say("memory", None)
            self._remembered = after

    def _remember_instant(self, signed_at: int) -> None:
        """Beats go on without a disk: their instants only tell a later life that its clock ran backward."""
        before = self._remembered
        self._remembered = replace(before, signed_at=max(before.signed_at, signed_at))
        if signed_at - self._written_at >= SIGNED_AT_EVERY_MS:
            self._written_at = signed_at
            with suppress(OSError):
                self._world.state.write(self._memory_name, self._remembered.encode())

    def _fresh(self) -> Stek:
        return Stek(self._world.rand(SEED_BYTES), self.ring)

    def _fresh_pair(self) -> tuple[Stek, Stek]:
        return self._fresh(), self._fresh()

    def _measure(self, reign: Reign, decision: Decision, now_at: int) -> None:
        window = reign.window
        held = isinstance(decision, Hold) and (window is None or now_at >= due_at(window, self.policy))
        self._held_since = (self._held_since or now_at) if held else None
        self._say("rotation", f"ring {self.ring}: {decision.reason}" if held and isinstance(decision, Hold) else None)
        if self._reign is not reign:
            return
        self._show("rotation_held_since_timestamp_seconds", (self._held_since or 0) / 1000)
        pause = self._pauses.standing(_pausing(reign.requests), now_at)
        self._show("rotation_paused_until_timestamp_seconds", 0 if pause is None else pause.until / 1000)
        counted = dict.fromkeys(NodeState, 0)
        for node in live(reign.nodes, self.policy, now_at):
            counted[node.report.state] += 1
        for state, count in counted.items():
            self._show("nodes", count, state=state.value)
        self._show("nodes", len(reign.nodes) - sum(counted.values()), state="silent")
        if window is None:
            return
        self._say_forgotten_revoke(window, reign, now_at)
        overdue = judge_gate(window, reign.nodes, self.policy, now_at).overdue
        self._show("nodes_overdue", len(overdue))
        self._show("epoch", window.epoch)
        self._show("rotation_due_timestamp_seconds", due_at(window, self.policy) / 1000)
        self._show("key_seals_until_timestamp_seconds", window.seals_until / 1000)
        for role, key in (("current", window.current), ("next", window.next)):
            self._show("key_made_timestamp_seconds", key.made_at / 1000, role=role)
        actual_ms = max(key.opens_until - key.made_at for key in (window.current, *window.previous))
        self._show("vulnerability_window_seconds", self.policy.worst_ms / 1000, kind="worst")
        self._show("vulnerability_window_seconds", actual_ms / 1000, kind="actual")

    def _show(self, metric: str, value: float, **labels: str) -> None:
        self._shown.add((metric, tuple(labels.items())))
        self._world.telemetry.gauge(metric, value, ring=self.ring, **labels)

    def _say_forgotten_revoke(self, window: Window, reign: Reign, now_at: int) -> None:
        """Nodes keep a revocation for good; that store and schedulers lost it is for an operator to judge."""
        burnt = [n.report for n in live(reign.nodes, self.policy, now_at) if n.report.barrier > window.barrier]
        words = (
            f"ring {self.ring}: {listed(report.node for report in burnt)} remember a revoke at epoch "
            f"{max((report.barrier for report in burnt), default=0)} that no window here has, and refuse this one"
        )
        self._say(
            "forgotten revoke", words if burnt else None, hint="revoke again: `keyrotd revoke` burns what it left"
        )

    def _say_refused(self, kind: str, spoilt: Mapping[str, CorruptWindow]) -> None:
        """One line for all of a kind, whoever may write how many of them."""
        for corrupt in spoilt.values():
            self._world.telemetry.count("windows_refused_total", ring=self.ring, reason=corrupt.reason)
        if not spoilt:
            self._say(kind, None)
            return
        first = next(iter(spoilt.values()))
        words = f"ring {self.ring}: {kind} cannot be read: {listed(spoilt)} ({first})"
        self._say(kind, words, hint=first.hint or ALTERED, reason=first.reason)

    def _refused(self, kind: str, corrupt: CorruptWindow) -> None:
        self._world.telemetry.count("windows_refused_total", ring=self.ring, reason=corrupt.reason)
        self._say(kind, str(corrupt), hint=corrupt.hint or ALTERED, reason=corrupt.reason)

    def _say(self, key: str, text: str | None, *, hint: str | None = None, **fields: object) -> None:
        self._world.telemetry.fault(f"{self.ring}: {key}", text, hint=hint, ring=self.ring, **fields)


_SCHEDULERS_TOO = "upgrade the schedulers, too: until then only what both know counts (docs/upgrades.md)"

_CLOCK = (
    "run a time daemon on every scheduler: one that takes over without having heard the one before goes by its own "
    "clock, and moves every key's end with it"
)


def _utc(instant_at: int) -> str:
    return datetime.fromtimestamp(instant_at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _not_waited_for(overdue: tuple[str, ...]) -> str:
    return f"; not waited for: {', '.join(overdue)}" if overdue else ""


_TOLD = {"pause": "rotation.paused", "resume": "rotation.resumed"}


def _kind(order: Order | None) -> str:
    match order:
        case None:
            return "unknown"
        case Request():
            return order.goal.value
        case Pause():
            return "pause"
        case _:
            return "resume"


def _pausing(requests: Requests) -> tuple[Pause | Resume, ...]:
    return tuple(order for order in requests.values() if isinstance(order, Pause | Resume))


def _asker(view: View) -> str:
    """Who asked for the rotation; '' when it was due by itself."""
    return next((request.who for request in view.requests if request.goal is Goal.ROTATE), "")
