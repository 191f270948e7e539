"""A real nginx as the client of nginx nodes: which of its upstream handshakes resume, on any machine, however busy."""

import pytest

from keyrotd.tls.handshake import Version
from tests.resumption.measure import Plan
from tests.resumption.regimes import nginx
from tests.resumption.upstream import EVERY_ADDRESS, ONE_ADDRESS, measure
from tests.servers_found import debian_nginx_lua, wheel_valkey

_NODES = 3
_PLAN = Plan(nodes=_NODES, rotations=1, every_s=4, rate_per_s=160, one_way_ms=1)


@pytest.mark.debian
def test_behind_one_address_upstream_sessions_need_shared_keys() -> None:
    """
    About fifty connections by each way, and a rotation amidst them.

    The margins: a third and four standard deviations more; two of three where every ticket should open, since nginx
    keeps no ticket of TLS 1.2 that renewed another: a rotation costs it a full handshake or two with each address.
    """
    wheel_valkey()
    exe = debian_nginx_lua()

    routes = measure(exe, nginx(exe), _PLAN)

    share = {(route.way, route.regime, route.version): route.resumed_share for route in routes}
    fewest = min(len(route.reuses) for route in routes)
    deviation = (1 / _NODES * (1 - 1 / _NODES) / fewest) ** 0.5
    assert [route.failed for route in routes if route.regime != "cron and reload"] == [0] * 8
    for version in Version:
        assert share[ONE_ADDRESS, "per-node keys", version] < 1 / _NODES + 4 * deviation
        assert share[ONE_ADDRESS, "keyrotd", version] > 2 / 3
        assert share[EVERY_ADDRESS, "per-node keys", version] > 2 / 3
        assert share[EVERY_ADDRESS, "keyrotd", version] > 2 / 3
