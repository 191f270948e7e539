"""One pass over one server: observe, install if it does not hold what it should, observe again, prove."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Protocol

from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import Installed, Keys, Tenure, in_step, names
from keyrotd.core.messages import ProbeState, ServerReport, ServerState
from keyrotd.core.stek import Secrets
from keyrotd.daemon.peering import Offer
from keyrotd.daemon.turns import Crash, attempt
from keyrotd.servers.port import Driver, ServerUnreachable

#: A handshake with the server, given what it must seal with: what that showed, and words for people.
Prove = Callable[[Secrets], tuple[ProbeState, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """
    A server of this node. `prove` is None where no probe address is configured.

    `offer` offers its tickets to peers, None where it has none to offer; at `address`, if any, peers may offer theirs.
    """

    driver: Driver
    prove: Prove | None
    offer: Offer | None = None
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """
    What a server is to hold. `settled`: the fleet has confirmed the window, or there is none to confirm.

    `ours`: the keys are those of a window. Without one a running server is left alone: nothing is removed because
    something could not be read.
    """

    keys: Keys
    settled: bool
    ours: bool

    def for_driver(self, driver: Driver) -> Keys:
        # A ring buffer drops a key only by rewriting every slot, which lets `next` seal for microseconds: not before
        # every node is known to open it.
        return self.keys.lingering() if driver.facts.ring_buffer and not self.settled else self.keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Tended:
    """
    How a server was left. `wanted` are the names of the keys it was to hold, for `tenure`; `drifted`: it had lost them.

    `took_ms` is how long it took to look, install, read back and probe, `crash` what its driver did that no driver may.
    """

    report: ServerReport
    wanted: tuple[str, ...]
    tenure: Tenure | None
    instance: str
    installed: bool = False
    drifted: bool = False
    took_ms: int = 0
    hint: str | None = None
    crash: Crash | None = None


def tend(server: Server, orders: Orders, before: Tended | None) -> Tended:
    """Leave a server in step if that can be done; never raises, whatever a server or its driver does."""
    driver, keys = server.driver, orders.for_driver(server.driver)
    told = Tended(
        report=ServerReport(
            name=driver.name,
            driver=driver.kind,
            state=ServerState.INSTALLING,
            slots=driver.facts.min_slots if before is None else before.report.slots,
            probe=ProbeState.NONE if before is None else before.report.probe,
            fault="",
        ),
        wanted=names(keys),
        tenure=keys.tenure,
        instance="" if before is None else before.instance,
    )
    outcome = attempt(lambda: _tended(server, keys, orders, told, before))
    return _crashed(told, outcome) if isinstance(outcome, Crash) else outcome


def _tended(server: Server, keys: Keys, orders: Orders, told: Tended, before: Tended | None) -> Tended:
    try:
        return _proven(server, keys, _brought(server.driver, keys, orders, told, before), before)
    except ServerUnreachable as away:
        return _left(told, ServerState.UNREACHABLE, away)
    except InstallFailed as failed:
        return _left(told, ServerState.FAILED, failed)


def _brought(driver: Driver, keys: Keys, orders: Orders, told: Tended, before: Tended | None) -> Tended:
    try:
        seen = driver.observe()
    except ServerUnreachable as away:
        try:
            driver.install(keys)  # writes the file that a start needs, then says again that nobody is there
        except ServerUnreachable:
            raise away from None
        except InstallFailed as failed:
            raise InstallFailed(f"{failed}; and {away}", hint=failed.hint or away.hint) from failed
        raise
    if not orders.ours and _holds_something(seen) and not in_step(seen, keys):
        return replace(told, report=replace(told.report, slots=seen.slots), instance=seen.instance)
    if in_step(seen, keys):
        return _in_step(told, seen)
    was_ours = (
        before is not None
        and before.report.state is ServerState.IN_STEP
        and (before.wanted, before.tenure) == (told.wanted, told.tenure)
    )
    driver.install(keys)
    seen = driver.observe()
    if not in_step(seen, keys):
        raise InstallFailed(
            f"server {driver.name}: took the keys and then did not show them",
            hint="does anybody else set its keys? the next tick tries again",
        )
    return replace(_in_step(told, seen), installed=True, drifted=was_ours)


def _in_step(told: Tended, seen: Installed) -> Tended:
    report = replace(told.report, state=ServerState.IN_STEP, slots=seen.slots)
    return replace(told, report=report, instance=seen.instance)


def _proven(server: Server, keys: Keys, told: Tended, before: Tended | None) -> Tended:
    known = before is not None and before.instance == told.instance and told.report.probe is ProbeState.RESUMED
    if server.prove is None or told.report.state is not ServerState.IN_STEP or (known and not told.installed):
        return told
    probe, fault = server.prove(keys.current.secrets(server.driver.facts.scheme))
    hint = "`keyrotd probe` with the server's address shows what a client sees" if fault else None
    return replace(told, report=replace(told.report, probe=probe, fault=fault), hint=hint)


def _holds_something(seen: Installed) -> bool:
    return any(place.seals is not None for place in seen.places)


def _left(told: Tended, state: ServerState, error: InstallFailed) -> Tended:
    return replace(told, report=replace(told.report, state=state, fault=str(error)), hint=error.hint)


def _crashed(told: Tended, crash: Crash) -> Tended:
    # Reports travel, so they name the kind of the exception only: nobody vouches for the words in it.
    fault = InstallFailed(
        f"server {told.report.name}: its driver {told.report.driver} crashed: {type(crash.error).__name__}",
        hint="the log has it whole: tell whoever wrote the driver. the server keeps the keys that it has",
    )
    return replace(_left(told, ServerState.FAILED, fault), crash=crash)


Tasks = Mapping[str, Callable[[], Tended]]


class Workers(Protocol):
    """
    Runs tasks side by side; whoever is not done by the deadline is missing from the answer, and comes later.

    What came late comes before what a server was asked since: one after the other, the last is how it stands.
    """

    def run(self, tasks: Tasks, deadline_ms: int) -> dict[str, tuple[Tended, ...]]: ...


class Threads:
    """One pool thread per server: a server that hangs delays no other, and is not asked again until it is done."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=max(count, 1), thread_name_prefix="server")
        self._running: dict[str, Future[Tended]] = {}

    def run(self, tasks: Tasks, deadline_ms: int) -> dict[str, tuple[Tended, ...]]:
        late = self._ended()
        for name, task in tasks.items():
            if name not in self._running:
                self._running[name] = self._pool.submit(task)
        wait(self._running.values(), timeout=deadline_ms / 1000)
        ended = self._ended()
        return {name: tuple(done[name] for done in (late, ended) if name in done) for name in {**late, **ended}}

    def _ended(self) -> dict[str, Tended]:
        # Taken out first: a task that raised must raise once, and be tried again by the next tick.
        ended = {name: self._running.pop(name) for name in [n for n, future in self._running.items() if future.done()]}
        return {name: future.result() for name, future in ended.items()}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Inline:
    """The twin: one after the other, in the caller's thread."""

    def run(self, tasks: Tasks, deadline_ms: int) -> dict[str, tuple[Tended, ...]]:
        _ = deadline_ms
        return {name: (task(),) for name, task in tasks.items()}
