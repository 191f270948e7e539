"""
The traces by which the protocol was broken on paper, replayed on the real thing.

Every scene is watched by the claims (see claims.py): an orphan or a key out of its bounds ends it where it happens.
"""

from typing import Any

import pytest

from keyrotd.core.messages import Goal
from keyrotd.core.policy import impossible
from keyrotd.core.window import Window
from keyrotd.store.memory import Fault, MemoryServer
from keyrotd.testing.telemetry import SilentTelemetry
from keyrotd.testing.twins import MemoryServer as Twin
from tests.simulation.claims import Orphan
from tests.simulation.mutations import constant_slack, gate_by_epoch, no_lineage, no_speaking
from tests.simulation.runs import calm_ms, heals
from tests.simulation.scenes import (
    deaf,
    epoch,
    fleet,
    hearing,
    in_step,
    sealing,
    shared,
    slow,
    until_in_step,
    until_rotation,
)
from tests.simulation.weather import BRISK, LONG, SLOW
from tests.simulation.world import Fleet, Node

MINUTE = 60_000


# F1: how long a previous key opens.


def test_a_server_that_is_slow_within_bounds_costs_no_ticket() -> None:
    """It refuses for nearly as long as is allowed, and seals with the old key until then."""
    world = fleet()
    until_rotation(world)
    (server,) = world.nodes[0].servers
    server.fail()
    world.run(world.policy.overdue_after_ms - world.policy.poll_interval_ms)
    server.heal()

    world.run(2 * world.policy.rotation_interval_ms)

    heals(world)


def test_an_outage_that_begins_at_a_publish_costs_no_ticket() -> None:
    heals(_outage_from_a_publish())


def test_a_constant_slack_after_retirement_costs_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    constant_slack(monkeypatch)

    with pytest.raises(Orphan):
        _outage_from_a_publish()


def _outage_from_a_publish() -> Fleet:
    """One node did not hear of the last window before the store went, and goes on sealing under the one before."""
    world = fleet(policy=SLOW)
    until_rotation(world)
    until_in_step(world)
    until_rotation(world)
    deaf(world.nodes[0], "poll")
    world.run(world.policy.poll_interval_ms)
    world.store_away()
    hearing(world.nodes[0])
    world.run(37 * MINUTE)
    world.store_back()
    world.run(4 * world.policy.rotation_interval_ms)
    return world


# F2: whose time it is.


def test_the_stores_clock_ages_and_rejuvenates_nothing() -> None:
    """Frozen or rushing, it is only a witness: rotation goes on by the leader's own clock."""
    world = fleet()
    before = epoch(world)
    frozen_at = world.now

    world.store.clock = lambda: max(frozen_at, world.now - 240_000)
    world.run(5 * world.policy.rotation_interval_ms)

    assert epoch(world) >= before + 4
    assert in_step(world)


def test_the_wall_clocks_of_nodes_decide_no_expiry() -> None:
    """Once they have heard a leader beat, that is: see keyrotd/daemon/clock.py."""
    world = fleet()
    world.run(3 * world.policy.poll_interval_ms)
    for node, hours in zip(world.nodes, (-3, 0, 3), strict=True):
        node.clock.skew_ms = hours * 60 * MINUTE

    world.run(4 * world.policy.rotation_interval_ms)

    heals(world)


@pytest.mark.parametrize("apart_s", [-40, -10, 10, 40])
def test_a_failover_between_clocks_that_differ_costs_no_ticket(apart_s: int) -> None:
    """Whoever stood by goes on with the fleet's time: no key's life jumps, though eps covers no such difference."""
    world = fleet(policy=LONG, schedulers=2)
    world.rulers[1].clock.skew_ms = apart_s * 1000
    world.claims.skew_ms = abs(apart_s) * 1000

    for _ in range(3):
        until_rotation(world)
        until_in_step(world)
        leader = world.leader
        assert leader is not None
        leader.die()
        leader.alarm_at = world.now + 2 * world.policy.lease_ttl_ms
        world.run(world.policy.rotation_interval_ms + world.policy.speak_ms)

    heals(world)


# F3: a revoked key comes back.


def _revoked() -> tuple[Fleet, dict[str, Any], Window]:
    """A fleet after a revocation, with the store as it was before, and the window that was burnt."""
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    before, burnt = world.store.snapshot(), world.claims.newest
    assert burnt is not None
    world.ask(Goal.REVOKE)
    until_rotation(world)
    until_in_step(world)
    return world, before, burnt


def test_a_store_put_back_to_before_a_revoke_brings_no_key_back() -> None:
    """Its owner also hides reports and offers, and waits for the scheduler to be restarted."""
    world, before, burnt = _revoked()

    world.rulers[0].die()
    world.put_back(before)
    world.store.ring("edge").reports.clear()
    world.run(4 * world.policy.rotation_interval_ms)

    burnt_names = {key.name for key in burnt.all}
    assert not any(node.servers[0].opens(name) for node in world.nodes for name in burnt_names)
    heals(world)


def test_a_revoke_that_only_the_nodes_disks_remember_stands_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store, scheduler and caches are as before it, all at once. Nobody opens a burnt key, and one order ends it."""
    said: list[str] = []
    monkeypatch.setattr(SilentTelemetry, "fault", lambda *told, **_: said.append(told[2] or ""))
    world, before, burnt = _revoked()

    (ruler,) = world.rulers
    ruler.die()
    ruler.state.files.clear()
    world.claims.forgot(ruler.name)
    for node in world.nodes:
        node.die()
        node.clock.reboot()
        node.runtime.files.clear()
        node.servers[0]._file_keys = None
        node.restart_servers()
        node.read_back = None
    world.put_back(before)
    world.run(2 * world.policy.speak_ms)

    assert not any(node.servers[0].opens(key.name) for node in world.nodes for key in burnt.all)
    assert any("remember a revoke at epoch 3 that no window here has" in text for text in said)
    world.ask(Goal.REVOKE)
    world.run(calm_ms(world.policy))
    heals(world)


def test_an_offer_of_a_window_from_before_a_revoke_is_merged_by_nobody() -> None:
    world = fleet()
    until_rotation(world)
    stored = world.store.ring("edge").window
    assert stored is not None
    world.ask(Goal.REVOKE)
    until_rotation(world)

    world.store.ring("edge").offers[stored.digest] = stored.window
    world.run(3 * world.policy.rotation_interval_ms)

    burnt = {key.name for key in world.claims.windows[stored.digest].all}
    assert not any(node.servers[0].opens(name) for node in world.nodes for name in burnt)


# F4: two windows of one number.


def test_two_windows_of_one_number_are_two_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown with a leader that does not listen, which would have seen the lost window in time."""
    no_speaking(monkeypatch)

    world = _two_windows_of_one_number()

    assert in_step(world)


def test_a_gate_by_number_costs_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    no_speaking(monkeypatch)
    gate_by_epoch(monkeypatch)

    with pytest.raises(Orphan):
        _two_windows_of_one_number()


def _two_windows_of_one_number() -> Fleet:
    """The store loses a rotation that two nodes have heard of; a forgetful leader is due and rotates at once."""
    world = fleet(policy=slow(SLOW, node_ttl_ms=50 * MINUTE, overdue_after_ms=40 * MINUTE))
    (ruler,), (lagging, *knowing) = world.rulers, world.nodes
    until_rotation(world)
    until_in_step(world)
    until_rotation(world)
    deaf(lagging, "poll")
    world.wait_for(lambda: all(_holds_newest(node, world) for node in knowing), world.policy.node_ttl_ms)
    hearing(lagging)
    for node in knowing:
        deaf(node, "poll")
    ruler.die()
    ruler.state.files.clear()
    world.claims.forgot(ruler.name)
    world.lose_write()
    world.store.ring("edge").lease = None
    ruler.alarm_at = world.now
    lost = world.claims.newest
    world.wait_for(lambda: world.claims.newest != lost, 2 * world.policy.spacing_ms)
    for node in knowing:
        _unheard(node)
    world.run(10 * MINUTE)  # a request is void after ten, and the next publish has to wait for eleven
    world.ask()
    world.run(10 * MINUTE)
    for node in knowing:
        hearing(node)
    world.run(calm_ms(world.policy))
    return world


def _holds_newest(node: Node, world: Fleet) -> bool:
    newest = world.claims.newest
    return newest is not None and node.read_back is not None and node.read_back[0] == newest.digest


def _unheard(node: Node) -> None:
    node.store.fault = lambda operation: Fault.UNANSWERED if operation == "poll" else node.luck(operation)


# Stranded (the trace F5 is of succession, which this is not).


def test_a_fleet_stranded_past_its_bound_is_isolated_and_goes_on_when_the_store_is_back() -> None:
    world = fleet()
    until_rotation(world)
    world.store_away()
    world.run(3 * world.policy.rotation_interval_ms)
    alone = [shared(world, sealing(node)) for node in world.nodes]

    world.store_back()
    world.run(calm_ms(world.policy))

    assert alone == [False, False, False]
    assert [shared(world, sealing(node)) for node in world.nodes] == [True, True, True]
    heals(world)


# F6: lineage.


def test_a_window_of_another_lineage_takes_no_key_away() -> None:
    """After a split both sides rotated; whoever comes over keeps its keys, and the leader merges them for all."""
    world, key = _split_and_healed()

    assert [node.servers[0].opens(key) for node in world.nodes] == [True, True, True]
    heals(world)


def test_without_lineage_a_split_takes_keys_away(monkeypatch: pytest.MonkeyPatch) -> None:
    no_lineage(monkeypatch)
    monkeypatch.setattr("keyrotd.daemon.agent.RingAgent._exchange_offers", lambda *_: None)

    world, key = _split_and_healed()

    assert not any(node.servers[0].opens(key) for node in world.nodes)


def _split_and_healed() -> tuple[Fleet, bytes]:
    """Return the fleet a moment after the heal, and the key that the lost side sealed with."""
    world = fleet(policy=LONG, schedulers=2)
    until_rotation(world)
    until_in_step(world)
    other = MemoryServer(lambda: world.now)
    other.restore(world.store.snapshot())
    leader = world.leader
    assert leader is not None
    strangers = [node for node in world.nodes if node is not world.nodes[0]]
    for machine in (leader, *strangers):
        machine.store.server = other
    world.claims.store_lost()  # two stores: windows of one number are to be expected
    for _ in range(2):
        _rotation_of(world, other)
    world.run(world.policy.spacing_ms)
    sealed_with = sealing(strangers[0])
    leader.die()
    leader.alarm_at = world.now + 10 * world.policy.rotation_interval_ms
    (remaining,) = [ruler for ruler in world.rulers if ruler is not leader]
    for _ in range(2):
        _rotation_of(world, remaining.store.server)
    for node in strangers:
        node.store.server = world.store
    world.run(world.policy.spacing_ms * 2)
    return world, sealed_with


def _rotation_of(world: Fleet, server: MemoryServer) -> None:
    window = server.ring("edge").window
    digest = window.digest if window else ""

    def moved() -> bool:
        found = server.ring("edge").window
        return found is not None and found.digest != digest

    world.wait_for(moved, world.policy.rotation_interval_ms + world.policy.speak_ms)


# F7: putting the ring together again.


def test_an_empty_store_and_a_rebooted_fleet_begin_above_every_floor() -> None:
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    floor = epoch(world)

    _reboot(world, *world.nodes)
    _replace_scheduler(world)
    world.flush()
    world.run(calm_ms(world.policy))

    assert epoch(world) > floor
    heals(world)


def test_the_first_to_speak_does_not_decide_what_stands() -> None:
    """A stale node offers at once; those with the newest window come back late, within the speak time."""
    world = fleet()
    stale = world.nodes[0]
    world.cut(stale)
    for _ in range(2):
        until_rotation(world)
        world.run(world.policy.poll_interval_ms * 2)
    newest = world.claims.newest
    assert newest is not None
    for node in world.nodes[1:]:
        deaf(node, "poll")
    stale.cut = False
    _replace_scheduler(world)
    world.flush()
    world.run(world.policy.poll_interval_ms * 4)
    nothing_yet = world.store.ring("edge").window is None
    for node in world.nodes[1:]:
        hearing(node)
    world.run(calm_ms(world.policy))

    assert nothing_yet
    assert world.claims.newest is not None
    assert newest.digest in world.claims.newest.ancestors
    heals(world)


def test_a_store_that_lost_a_window_tells_a_returning_node_by_the_offers_in_it() -> None:
    """No scheduler lives; the others hold what the store lost, and say so."""
    world = fleet()
    away = world.nodes[0]
    world.cut(away)
    until_rotation(world)
    world.run(world.policy.poll_interval_ms * 2)
    newest = world.claims.newest
    assert newest is not None
    world.rulers[0].die()
    world.rulers[0].alarm_at = world.now + world.policy.rotation_interval_ms
    world.lose_write()
    world.run(world.policy.poll_interval_ms * 2)

    away.cut = False
    world.run(world.policy.poll_interval_ms * 6)

    assert away.agent._held is not None
    assert away.agent._held.window.digest == newest.digest


@pytest.mark.parametrize("forgetful", [False, True])
def test_an_emptied_store_costs_no_ticket_whoever_remembers(*, forgetful: bool) -> None:
    world = fleet(policy=LONG)
    until_rotation(world)
    until_in_step(world)
    newest = world.claims.newest
    assert newest is not None
    if forgetful:
        _replace_scheduler(world)

    world.flush()
    world.run(calm_ms(world.policy))

    assert world.claims.newest is not None
    assert newest.digest in world.claims.newest.ancestors
    heals(world)


def _reboot(world: Fleet, *nodes: Node) -> None:
    for node in nodes:
        node.die()
        node.clock.reboot()
        node.runtime.files.clear()
        node.restart_servers()
        node.read_back = None
        node.alarm_at = world.now


def _replace_scheduler(world: Fleet) -> None:
    for ruler in world.rulers:
        ruler.die()
        ruler.state.files.clear()
        world.claims.forgot(ruler.name)
        ruler.alarm_at = world.now + world.policy.lease_ttl_ms


# F8: an old window for a node that holds none.


def test_a_node_that_holds_nothing_takes_no_window_older_than_its_keys_may_seal() -> None:
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    old = world.store.snapshot()
    world.run(3 * world.policy.rotation_interval_ms)
    world.rulers[0].die()
    world.rulers[0].alarm_at = world.now + world.policy.rotation_interval_ms
    world.put_back(old)

    newcomer = world.nodes[0]
    _reboot(world, newcomer)
    newcomer.state.files.clear()
    world.claims.forgot(newcomer.name)
    others = [node.store for node in world.nodes[1:]]
    for store in others:
        store.fault = lambda _: Fault.AWAY
    world.run(world.policy.rotation_interval_ms - 1)

    assert newcomer.agent._held is None


# F12: the return of the leader.


@pytest.mark.parametrize("away_s", range(50, 400, 35))
def test_whenever_the_schedulers_return_no_ticket_is_lost(away_s: int) -> None:
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    (ruler,) = world.rulers
    ruler.die()
    ruler.alarm_at = world.now + away_s * 1000
    world.run_until(ruler.alarm_at)

    world.run(calm_ms(world.policy))

    heals(world)


# F16: three slots.


def test_three_slots_hold_every_live_key_where_the_policy_is_possible() -> None:
    assert not list(impossible(BRISK, slots=3, notice_delay_ms=0))
    assert list(impossible(LONG, slots=3, notice_delay_ms=0))
    world = fleet(slots=3)

    world.run(8 * world.policy.rotation_interval_ms)

    heals(world)
    assert world.claims.crowded == 0


def test_three_slots_refuse_a_rotation_that_would_cost_tickets() -> None:
    world = fleet(slots=3)
    until_rotation(world)
    until_in_step(world)
    before = epoch(world)

    world.ask()
    world.run(2 * world.policy.spacing_ms)

    assert epoch(world) == before
    assert world.claims.crowded == 0
    assert not world.store.ring("edge").requests


def test_three_slots_lose_what_an_operator_agrees_to_lose() -> None:
    world = fleet(slots=3)
    until_rotation(world)
    until_in_step(world)
    before = epoch(world)

    world.ask(drop_live_keys=True)
    world.run(2 * world.policy.spacing_ms)

    assert epoch(world) == before + 1
    assert world.claims.crowded > 0


def test_a_ring_buffer_drops_an_expired_key_once_the_fleet_has_confirmed() -> None:
    world = fleet(slots=3)
    until_rotation(world)
    until_in_step(world)
    window = world.claims.newest
    assert window is not None
    (previous,) = window.previous

    world.run_until(previous.opens_until + world.policy.poll_interval_ms)

    assert not any(node.servers[0].opens(previous.name) for node in world.nodes)


# F18: joining.


def test_a_node_that_joins_between_two_quick_rotations_is_waited_for() -> None:
    """Its first report and the window that it takes are one round trip; the next rotation waits for it."""
    world = fleet()
    world.run(world.policy.spacing_ms)
    world.ask()
    until_rotation(world)
    before = epoch(world)
    world.run(world.policy.spacing_ms - world.policy.tick_interval_ms)
    newcomer = world.add_node(Twin(name="tls", file=True))
    newcomer.servers[0].fail()
    newcomer.alarm_at = world.now
    world.run(1)
    world.ask()
    world.run(world.policy.overdue_after_ms - world.policy.tick_interval_ms)
    held_at = epoch(world)
    newcomer.servers[0].heal()

    world.run(calm_ms(world.policy))

    assert held_at == before
    assert epoch(world) > before
    heals(world)


def test_a_node_that_lost_every_slot_is_waited_for() -> None:
    """Its server came back with an old file or none; until it is repaired it shows drift."""
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    world.nodes[0].servers[0].meddle(None)
    world.nodes[0].read_back = None

    world.run(calm_ms(world.policy))

    heals(world)


# F19: a revoke that reaches some.


def test_a_revoke_does_not_wait_and_the_rotation_after_it_does() -> None:
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    late = world.nodes[0]
    deaf(late, "poll")
    world.ask(Goal.REVOKE)
    until_rotation(world)
    revoked = epoch(world)
    world.run(world.policy.spacing_ms // 2)
    world.ask()
    world.run(world.policy.tick_interval_ms * 2)
    held_at = epoch(world)
    hearing(late)
    world.run(calm_ms(world.policy))

    assert held_at == revoked
    assert epoch(world) > revoked
    heals(world)
