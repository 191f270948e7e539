"""
Whom a node offers its own tickets to: the leader names some servers of all, each node asks a few of these.

Chance is given. An address is the word of another node, so it is asked only within networks that the operator named.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeAlias, TypeVar

from keyrotd.core.messages import Peer, Report

Network: TypeAlias = IPv4Network | IPv6Network

#: As many as one list names: enough that they are no few nodes' burden, few enough to be read by every node.
MAX_PEERS = 64

_T = TypeVar("_T")


def named(reports: Iterable[Report], *, rand: Callable[[int], bytes]) -> tuple[Peer, ...]:
    """Some of the servers that have an address, at most MAX_PEERS, of every kind as evenly as may be."""
    found = {
        server.address: Peer(node=report.node, driver=server.driver, address=server.address)
        for report in reports
        for server in report.servers
        if server.address
    }
    ahead: Counter[str] = Counter()
    ranked = []
    for peer in _shuffled(found.values(), rand):
        ranked.append((ahead[peer.driver], peer))
        ahead[peer.driver] += 1
    ranked.sort(key=lambda pair: pair[0])
    return tuple(peer for _, peer in ranked[:MAX_PEERS])


def chosen(
    peers: Iterable[Peer],
    *,
    node: str,
    driver: str,
    networks: tuple[Network, ...],
    count: int,
    rand: Callable[[int], bytes],
) -> tuple[Peer, ...]:
    """At most `count` of the peers that run the same kind of server on another node, within `networks`."""
    fit = [peer for peer in peers if peer.driver == driver and peer.node != node and _within(peer.address, networks)]
    return tuple(_shuffled(fit, rand)[:count])


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    host = ip_address(address.rpartition(":")[0].strip("[]"))
    return any(host in network for network in networks)


def _shuffled(items: Iterable[_T], rand: Callable[[int], bytes]) -> list[_T]:
    return [item for _, item in sorted(((rand(8), item) for item in items), key=lambda pair: pair[0])]
