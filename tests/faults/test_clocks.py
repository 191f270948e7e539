"""Clocks that are stepped: keys live by the leader's signed time and by boot time, whatever a wall clock says."""

import pytest

from keyrotd.core.messages import Beat
from keyrotd.core.window import Window
from keyrotd.seal.messages import read_beat
from tests.faults.rig import POLICY, RING, Rig, driver_of, names_in, sealing

HOUR_MS = 3_600_000
STEPS_MS = [-5 * HOUR_MS, 5 * HOUR_MS]


def beat(rig: Rig) -> Beat:
    data = rig.peek.look().beat
    assert data is not None
    return read_beat(data, verifiers=rig.verifiers, ring=RING)


@pytest.mark.parametrize("step_ms", STEPS_MS)
def test_a_stepped_wall_clock_changes_no_keys_life_on_a_node(rig: Rig, step_ms: int) -> None:
    window = rig.start(nodes=2)
    stepped, steady = rig.nodes
    rig.desks[0].away = True
    stepped.clock.skew_ms = step_ms

    for _ in range(12):
        rig.pass_time(6_000)  # past seals_until, and past the end of what `current` sealed
        assert stepped.agent._fleet.now() == steady.agent._fleet.now()
        shared = [[name for name in names_in(twin) if name in known(window)] for twin in rig.twins]
        assert shared[0] == shared[1]

    assert known(window)[0] not in shared[0]
    assert stepped.telemetry.said("beat") == []


def known(window: Window) -> list[str]:
    return [key.name.hex() for key in window.all]


@pytest.mark.parametrize("step_ms", STEPS_MS)
def test_a_leaders_stepped_wall_clock_does_not_move_the_fleets_time(rig: Rig, step_ms: int) -> None:
    window = rig.start()
    (desk,) = rig.desks
    rig.pass_time(1_000)
    desk.clock.skew_ms = step_ms

    rig.pass_time(10_000)

    assert desk.telemetry.standing() == ["clock"]
    assert abs(beat(rig).signed_at - rig.now_at) < 50  # 500 ppm of 10 s
    assert rig.window() == window
    rig.now_at = rig.policy.schedule.next_due(window.published_at)
    newer = rig.settle(above=window.epoch)
    assert newer.current.seals_until == window.stands_in_at + POLICY.max_seal_age_ms
    assert abs(newer.published_at - rig.now_at) < 2_000


def test_a_node_whose_clock_is_behind_joins_once_it_is_right(rig: Rig) -> None:
    rig.start()
    twin = rig.add_twin()
    late = rig.add_node(driver_of(twin))
    late.clock.skew_ms = -5 * HOUR_MS

    rig.start_twin(late, twin)
    rig.pass_time(3_000)

    assert "signed minutes ahead" in late.telemetry.said_once("beat")[0]
    assert late.telemetry.value("windows_refused_total", ring=RING, reason="from the future") > 2
    assert late.telemetry.value("isolated", ring=RING) == 1

    late.clock.skew_ms = 0
    rig.pass_time(2_000)
    assert late.telemetry.standing() == []
    assert sealing(twin) == sealing(rig.twins[0])


def test_a_node_whose_clock_is_ahead_takes_no_window_until_it_is_right(rig: Rig) -> None:
    rig.start()
    twin = rig.add_twin()
    early = rig.add_node(driver_of(twin))
    early.clock.skew_ms = 5 * HOUR_MS

    rig.start_twin(early, twin)
    rig.pass_time(3_000)

    assert "stale window" in early.telemetry.said_once("window")[0]
    assert "are the clocks right" in early.telemetry.said_once("window")[1]
    assert early.telemetry.value("isolated", ring=RING) == 1

    early.clock.skew_ms = 0
    rig.pass_time(2_000)
    assert early.telemetry.standing() == []
    assert sealing(twin) == sealing(rig.twins[0])


def test_a_standby_whose_clock_is_off_says_so_before_it_ever_leads(rig: Rig) -> None:
    rig.start(desks=2)
    leader, standby = rig.desks
    standby.clock.skew_ms = 4 * 60_000  # less than what would keep it from leading

    rig.pass_time(5_000)

    words, hint = standby.telemetry.said_once("clock")
    assert words == f"ring edge: this machine's clock and the fleet's time are more than {POLICY.eps_ms} ms apart"
    assert "moves every key's end with it" in hint
    assert leader.telemetry.standing() == []

    standby.clock.skew_ms = POLICY.eps_ms * 3 // 4
    rig.pass_time(1_000)
    assert standby.telemetry.standing() == ["clock"]  # better is not well

    standby.clock.skew_ms = 0
    rig.pass_time(1_000)
    assert standby.telemetry.standing() == []


def test_a_leader_tells_by_how_much_clocks_differ_when_it_begins(rig: Rig) -> None:
    desk = rig.add_desk()
    desk.clock.skew_ms = 60_000
    rig.pass_time(500)

    (taken,) = desk.telemetry.events("lease.taken")

    assert taken["fleet_ahead_s"] == 0
    assert -61 < taken["store_ahead_s"] < -55
