"""A balancer, three HAProxy nodes, clients who come back: what holds on any machine, however slow or busy."""

import random

import pytest

from tests.resumption.measure import Plan, measure
from tests.resumption.regimes import haproxy
from tests.servers_found import wheel_haproxy, wheel_valkey

_NODES = 3
_PLAN = Plan(nodes=_NODES, rotations=1, every_s=2, rate_per_s=150, one_way_ms=1, idle=4)


@pytest.mark.long
def test_only_shared_keys_resume_anywhere_and_only_keyrotd_changes_them_unnoticed() -> None:
    """
    With keys of its own a node opens the tickets that it issued: one of three. About a hundred visits to each regime.

    The margins: a third give or take four standard deviations; nineteen in twenty where every ticket should open.
    """
    wheel_valkey()

    own, cron, keyrotd = measure(haproxy(wheel_haproxy()), _PLAN, random.Random(1))

    deviation = (1 / _NODES * (1 - 1 / _NODES) / own.offered) ** 0.5
    assert abs(own.opened_share - 1 / _NODES) < 4 * deviation
    assert keyrotd.opened_share > 0.95
    assert (own.failed, keyrotd.failed) == ({}, {})
    assert (own.idle_closed, keyrotd.idle_closed) == (0, 0)
    assert cron.idle_closed == cron.idle
