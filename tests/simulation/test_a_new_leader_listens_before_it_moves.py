"""What a leader does not know: who lives, what the store lost, and what another one published meanwhile."""

import pytest

from keyrotd.core.messages import Goal
from tests.simulation.claims import Orphan
from tests.simulation.mutations import no_speaking
from tests.simulation.runs import calm_ms, heals
from tests.simulation.scenes import deaf, epoch, fleet, hearing, in_step, until_in_step, until_rotation
from tests.simulation.world import Fleet


def test_it_takes_no_node_for_gone_because_its_own_clock_is_ahead() -> None:
    """Reports found lying in the store are old by its clock; one node has not heard of the last window yet."""
    world = fleet(schedulers=2)
    first, second = world.rulers
    second.clock.skew_ms = 4 * world.policy.node_ttl_ms
    until_rotation(world)
    deaf(world.nodes[0], "poll")
    first.die()
    first.alarm_at = world.now + world.policy.rotation_interval_ms
    world.ask()
    before = epoch(world)

    world.run(world.policy.lease_ttl_ms + 2 * world.policy.tick_interval_ms)
    took_over, stayed_at = second.leads, epoch(world)
    hearing(world.nodes[0])
    world.run(calm_ms(world.policy))

    assert (took_over, stayed_at) == (True, before)
    assert epoch(world) > before


def test_it_begins_nothing_anew_before_it_knows_that_the_store_lost_everything() -> None:
    heals(_emptied_under_a_new_leader())


def test_a_leader_that_does_not_listen_costs_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    no_speaking(monkeypatch)

    with pytest.raises(Orphan):
        _emptied_under_a_new_leader()


def _emptied_under_a_new_leader() -> Fleet:
    """It remembers nothing, and the nodes are slow to look."""
    world = fleet()
    (ruler,) = world.rulers
    ruler.die()
    ruler.alarm_at = world.now + world.policy.tick_interval_ms
    ruler.state.files.clear()
    world.claims.forgot(ruler.name)
    world.flush()
    world.wakes_lost = 1.0
    world.run(calm_ms(world.policy))
    return world


def test_a_renewal_that_the_store_lost_is_found_again() -> None:
    """After a long absence; who published it died with it, and comes back without a memory."""
    world = fleet()
    (ruler,) = world.rulers
    window = world.claims.newest
    assert window is not None
    ruler.die()
    ruler.alarm_at = window.seals_until + 3 * world.policy.rotation_interval_ms
    world.run_until(ruler.alarm_at - 1)
    until_rotation(world)
    renewed = world.claims.newest
    assert renewed is not None
    assert renewed.current.born == window.next.born  # a follower of next
    ruler.die()
    ruler.alarm_at = world.now + 2 * world.policy.rotation_interval_ms
    world.run_until(ruler.alarm_at - 1)
    assert in_step(world)

    world.lose_write()
    ruler.state.files.clear()
    world.claims.forgot(ruler.name)
    world.run(calm_ms(world.policy))

    heals(world)
    assert world.claims.newest is not None
    assert renewed.digest in world.claims.newest.ancestors


def test_a_rotation_is_never_to_a_next_that_dies_before_all_have_heard() -> None:
    """Nodes that have not heard yet open the new current as `next`, and no longer than their window says."""
    world = fleet()
    (ruler,) = world.rulers
    window = world.claims.newest
    assert window is not None
    ruler.die()
    ruler.alarm_at = window.next.opens_until - world.policy.speak_ms - 2 * world.policy.tick_interval_ms
    world.wakes_lost = 1.0

    world.run_until(window.next.opens_until + world.policy.spacing_ms)

    assert world.claims.newest is not None
    assert world.claims.newest.current.name != window.next.name
    heals(world)


def test_lost_reports_are_no_proof_that_everybody_moved_on() -> None:
    """The previous key keeps its long bound until nodes are seen to have left it."""
    world = fleet()
    until_rotation(world)
    for node in world.nodes:
        deaf(node, "poll")
    world.store.ring("edge").reports.clear()
    world.run(world.policy.poll_interval_ms)
    (reign,) = [ruler.daemon._reign for ruler in world.rulers]

    assert reign is not None
    assert reign.settled_at is None


def test_whoever_stood_by_knows_nothing_of_the_newest_window() -> None:
    """It led once; another one has led since. When the store is emptied it lets the nodes speak first."""
    world = fleet(schedulers=2)
    first, second = world.rulers
    assert first.leads
    world.cut(first)
    world.run(2 * world.policy.lease_ttl_ms)
    assert second.leads
    first.cut = False
    until_rotation(world)
    until_in_step(world)
    newest = world.claims.newest
    assert newest is not None
    second.die()
    second.alarm_at = world.now + world.policy.rotation_interval_ms

    world.flush()
    world.run(world.policy.speak_ms + world.policy.spacing_ms)

    assert first.leads
    assert world.claims.newest is not None
    assert newest.digest in world.claims.newest.ancestors
    assert world.claims.newest.epoch == newest.epoch + 1


def test_a_revoke_waits_for_nobody() -> None:
    world = fleet()
    until_rotation(world)
    world.rulers[0].die()  # whoever comes back has to listen before it rotates
    world.ask(Goal.REVOKE)
    before = epoch(world)

    world.run(world.policy.lease_ttl_ms + 2 * world.policy.poll_interval_ms)

    assert world.claims.newest is not None
    assert world.claims.newest.barrier == world.claims.newest.epoch > before


def test_a_leader_that_threw_reports_away_unread_listens_again() -> None:
    """Reading failed again and again, as in a flood: what strangers wrote goes, and with it a returned node's word."""
    world = fleet()
    back, leader = world.nodes[0], world.rulers[0]
    back.frozen = True
    world.run(2 * world.policy.node_ttl_ms)
    deaf(leader, "reports")
    back.frozen = False
    world.wait_for(lambda: back.name not in world.store.ring("edge").reports, world.policy.rotation_interval_ms)
    deaf(back, "poll", "report")
    hearing(leader)
    before = epoch(world)
    world.ask()

    world.run(world.policy.speak_ms // 2)

    assert epoch(world) == before
