"""A bug of ours or of a driver costs the ring or the server that it is in, and nobody else; and it is not hidden."""

from typing import Any, Never

import pytest

from keyrotd.core.keys import Installed, Keys
from keyrotd.core.messages import ServerState
from keyrotd.daemon.rings import Agents, Schedulers
from keyrotd.daemon.tending import Inline, Threads, Workers
from keyrotd.testing.haproxy_twin import HAProxyTwin
from keyrotd.testing.twins import MemoryServer
from tests.faults.rig import RING, Node, Rig, driver_of

#: What a careless exception may carry.
UNSPEAKABLE = "seed-of-a-key"


class Buggy(MemoryServer):
    """A driver whose author never met our servers."""

    error: BaseException = TypeError(UNSPEAKABLE)

    def observe(self) -> Installed:
        raise self.error

    def install(self, keys: Keys) -> None:  # noqa: ARG002 - the driver's signature
        raise self.error


class Odd:
    """A store whose client has a bug."""

    ring = RING

    def __getattr__(self, name: str) -> Any:
        def deed(**_: object) -> Never:
            raise KeyError(name)

        return deed


def report_of(node: Node) -> dict[str, tuple[ServerState, str]]:
    return {server.name: (server.state, server.fault) for server in node.agent._server_reports()}


@pytest.mark.parametrize("error", [TypeError(UNSPEAKABLE), SystemExit(UNSPEAKABLE)], ids=["bug", "exit"])
@pytest.mark.parametrize("workers", [Inline(), Threads(2)], ids=["inline", "threads"])
def test_a_driver_that_crashes_costs_its_own_server_only(rig: Rig, workers: Workers, error: BaseException) -> None:
    twin, buggy = rig.add_twin(), Buggy(name="buggy")
    buggy.error = error
    node = rig.add_node(buggy, driver_of(twin), workers=workers)
    rig.add_desk()
    rig.start_twin(node, twin)

    rig.pass_until(lambda: in_step(rig, node, twin), "the other server holds the ring's window")

    assert node.agent.unready() == ["buggy"]
    state, fault = report_of(node)["buggy"]
    assert state is ServerState.FAILED
    assert fault == f"server buggy: its driver memory crashed: {type(error).__name__}"
    assert node.telemetry.value("installs_total", ring=RING, server="buggy", outcome="failed") > 0
    assert node.agent._read_back() is None
    assert UNSPEAKABLE not in repr(node.telemetry.events("fault.found"))


def in_step(rig: Rig, node: Node, twin: HAProxyTwin) -> bool:
    window = rig.window()
    return (
        window is not None
        and window.current.name.hex() in [key[:16].hex() for key in twin.rings[str(twin.key_file)]]
        and report_of(node).get("haproxy", (None,))[0] is ServerState.IN_STEP
    )


def test_a_crash_of_a_driver_is_handed_up_with_each_tick_that_has_it(rig: Rig) -> None:
    buggy = Buggy(name="buggy")
    node = rig.add_node(buggy)
    rig.now_at += 2_000
    agents = Agents([node.agent], [])

    ticked = agents.tick()

    assert [crash.error for crash in ticked.crashes] == [buggy.error]
    assert ticked.pause_ms is not None


def test_a_ring_whose_tick_crashes_starves_no_other_ring(rig: Rig) -> None:
    healthy = MemoryServer(name="healthy")
    broken = rig.add_node(MemoryServer(name="unlucky"), store=Odd())
    node = rig.add_node(healthy)
    desks = rig.add_desk(store=Odd()), rig.add_desk()
    schedulers = Schedulers([desk.scheduler for desk in desks])
    agents = Agents([broken.agent, node.agent], [Odd(), rig.peek])

    for _ in range(20):
        rig.now_at += 250
        led, served = schedulers.tick(), agents.tick()

    window = rig.window()
    assert window is not None
    assert healthy.sealing is not None
    assert healthy.sealing.name == window.current.name
    assert [type(crash.error) for ticked in (led, served) for crash in ticked.crashes] == [KeyError, KeyError]
    assert led.pause_ms == rig.policy.tick_interval_ms
    assert [type(crash.error) for crash in agents.stop()] == [KeyError]


def test_a_lease_is_handed_back_although_another_ring_crashes_at_the_end(rig: Rig) -> None:
    first, second = rig.add_desk(), rig.add_desk()
    first.scheduler.stop = _bug  # type: ignore[method-assign] # a bug is put there
    schedulers = Schedulers([first.scheduler, second.scheduler])
    second.scheduler.tick()
    assert rig.leader == second.name

    crashes = schedulers.stop()

    assert [type(crash.error) for crash in crashes] == [ZeroDivisionError]
    assert not rig.leader


def _bug() -> Never:
    raise ZeroDivisionError
