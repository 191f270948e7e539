"""Whom the leader names and whom a node asks: by chance, within bounds, and never outside the operator's networks."""

import random
from ipaddress import ip_network

from keyrotd.core.messages import Peer
from keyrotd.core.peers import MAX_PEERS, chosen, named
from tests.unit.builders import report_of_peers

HERE = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


def test_only_servers_with_an_address_are_named() -> None:
    reports = [report_of_peers("a", haproxy="10.0.0.1:443"), report_of_peers("b", haproxy="")]

    assert named(reports, rand=random.Random(1).randbytes) == (
        Peer(node="a", driver="haproxy", address="10.0.0.1:443"),
    )


def test_a_rare_kind_is_named_however_many_others_there_are() -> None:
    reports = [report_of_peers(f"h{n}", haproxy=f"10.0.{n // 250}.{n % 250}:443") for n in range(1_000)]
    rare = report_of_peers("e", envoy="10.9.9.9:443")

    found = named([*reports, rare], rand=random.Random(1).randbytes)

    assert len(found) == len({peer.address for peer in found}) == MAX_PEERS
    assert "e" in {peer.node for peer in found}


def test_everybody_is_named_sooner_or_later() -> None:
    reports = [report_of_peers(f"h{n}", haproxy=f"10.0.0.{n}:443") for n in range(200)]
    rand = random.Random(1).randbytes

    seen = {peer.node for _ in range(40) for peer in named(reports, rand=rand)}

    assert len(seen) == len(reports)


def test_a_node_asks_others_of_its_kind_within_the_networks() -> None:
    peers = [
        Peer(node="me", driver="haproxy", address="10.0.0.1:443"),
        Peer(node="envoy", driver="envoy", address="10.0.0.2:443"),
        Peer(node="far", driver="haproxy", address="192.0.2.1:443"),
        Peer(node="within", driver="haproxy", address="127.0.0.1:22"),
        Peer(node="near", driver="haproxy", address="10.0.0.3:443"),
        Peer(node="six", driver="haproxy", address="[2001:db8::7]:443"),
    ]

    found = chosen(peers, node="me", driver="haproxy", networks=HERE, count=9, rand=random.Random(1).randbytes)

    assert {peer.node for peer in found} == {"near", "six"}


def test_a_node_asks_no_more_than_so_many_and_not_always_the_same() -> None:
    peers = [Peer(node=f"h{n}", driver="haproxy", address=f"10.0.0.{n}:443") for n in range(50)]
    rand = random.Random(1).randbytes

    rounds = [chosen(peers, node="me", driver="haproxy", networks=HERE, count=3, rand=rand) for _ in range(300)]

    assert {len(found) for found in rounds} == {3}
    assert len({peer.node for found in rounds for peer in found}) == 50


def test_without_networks_nobody_is_asked() -> None:
    peers = [Peer(node="near", driver="haproxy", address="10.0.0.3:443")]

    assert chosen(peers, node="me", driver="haproxy", networks=(), count=3, rand=random.Random(1).randbytes) == ()
