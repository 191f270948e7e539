"""The leader says who may be offered tickets: live nodes that want to be, by its signature, and nobody else."""

from dataclasses import replace

from keyrotd.core.messages import Peer, Peers, Report
from keyrotd.daemon.scheduler import PEERS_EVERY_MS
from keyrotd.seal.messages import read_peers, read_report, write_report
from tests.faults.rig import RING, Rig


def peers(rig: Rig) -> Peers | None:
    data = rig.peek.peers()
    return None if data is None else read_peers(data, verifiers=rig.verifiers, ring=RING)


def advertise(rig: Rig, node: str, address: str) -> None:
    """Hand in the word of another node: that of the rig's own, but for its name and an address."""
    own = rig.nodes[0].name
    said = read_report(rig.peek.reports()[own], keks=rig.keks, ring=RING)
    told: Report = replace(said, node=node, servers=tuple(replace(server, address=address) for server in said.servers))
    rig.peek.report(node=node, report=write_report(told, rig.keks))


def test_nobody_is_named_while_nobody_wants_to_be(rig: Rig) -> None:
    rig.start()

    rig.pass_time(2 * PEERS_EVERY_MS)

    assert peers(rig) is None


def test_a_node_is_named_while_it_is_live(rig: Rig) -> None:
    rig.start()
    advertise(rig, "edge-9", "10.0.0.9:443")

    rig.pass_until(lambda: peers(rig) is not None, "it is named")
    first = peers(rig)
    rig.pass_time(PEERS_EVERY_MS + rig.policy.node_ttl_ms)

    assert first is not None
    assert first.peers == (Peer(node="edge-9", driver="haproxy", address="10.0.0.9:443"),)
    assert peers(rig) == first  # it is silent since, and whoever reads the list goes by its age
