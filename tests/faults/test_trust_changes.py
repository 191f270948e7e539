"""Daemons whose key files change under them, over a real store: nothing is lost, and who is locked out is named."""

import os
from dataclasses import replace

from keyrotd.daemon import agent
from keyrotd.seal.keyfiles import Kek
from tests.faults.rig import GRACE_MS, POLICY, Rig


def other_kek() -> Kek:
    return Kek(os.urandom(32))


def test_a_node_whose_kek_is_wrong_is_named_by_itself_and_by_the_leader(rig: Rig) -> None:
    rig.start(nodes=2)
    lost, right, wrong = rig.nodes[0], rig.nodes[0].agent.trust, other_kek()

    lost.agent.trust = replace(right, keks=(wrong,))
    rig.pass_time(2 * POLICY.node_ttl_ms)

    said, hint = lost.telemetry.said_once("window")
    assert f"is sealed with KEK {rig.keks[0].id}, which is not at hand" in said
    assert "key files" in hint
    said, hint = rig.desks[0].telemetry.said_once("reports")
    assert f"a report in the name of node-1 is under KEK {wrong.id}, which is not at hand" in said
    assert hint == ("does node-1 have this ring's KEK file? until it has, nobody waits for it and it takes no window")

    lost.agent.trust = right
    rig.settle(above=1)
    assert lost.telemetry.standing() == rig.desks[0].telemetry.standing() == []


def test_a_node_offers_what_it_holds_though_it_cannot_open_what_stands(rig: Rig) -> None:
    """And a leader that could not read the offer does as soon as it is given the KEK: the old tickets live on."""
    held = rig.start()
    stranger_kek = other_kek()
    rig.desks.pop().scheduler.stop()
    with rig.owner() as owner:
        owner.delete(rig.key("window"), rig.key("beat"))
    stranger = rig.add_desk()
    stranger.scheduler.trust = replace(rig.trust, keks=(stranger_kek,))
    rig.pass_until(lambda: rig.peek.window() is not None, "the stranger begins anew")
    rig.pass_until(lambda: rig.peek.offers([held.digest]) != {}, "the node offers its window")

    both = (stranger_kek, *rig.keks)
    rig.keks = both
    stranger.scheduler.trust = replace(rig.trust, keks=both)
    rig.nodes[0].agent.trust = agent.Trust(verifiers=rig.verifiers, keks=both)
    mended = rig.settle(above=held.epoch)

    assert held.digest in mended.ancestors
    assert held.current.name in {key.name for key in mended.all}


def test_a_window_that_stands_is_no_reason_to_offer_its_own_ancestor(rig: Rig) -> None:
    held = rig.start()
    (right,) = rig.keks
    rig.keks = (other_kek(), right)
    rig.desks[0].scheduler.trust = replace(rig.trust, keks=rig.keks)

    rig.pass_until(lambda: rig.peek.look().digest != held.digest, "the next window is under the new KEK")
    rig.pass_time(GRACE_MS)

    assert "is sealed with KEK" in rig.nodes[0].telemetry.said_once("window")[0]
    assert rig.peek.offers([held.digest]) == {}
