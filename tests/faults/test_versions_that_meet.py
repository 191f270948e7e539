"""
Hosts of two versions in one fleet: what the newer ones say is read, or refused with words, and costs no key.

A later version is played by today's daemons whose messages are written anew on their way to the store: as version 9,
with a line more, under the same keys.
"""

import hmac
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from keyrotd.core.errors import ConfigError
from keyrotd.core.messages import Goal, Request
from keyrotd.seal.keyfiles import Kek, OperatorKey, SigningKey
from keyrotd.seal.messages import sign_request
from keyrotd.seal.signed import signed
from tests.faults.rig import POLICY, RING, Rig, driver_of, names_in


class Newer:
    """A store to which everything is written as a later version of keyrotd would."""

    def __init__(self, store: Any, **rewrites: Callable[[bytes], bytes]) -> None:
        self._store, self._rewrites = store, rewrites

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: found(*args, **{key: self._as_newer(key, arg) for key, arg in kwargs.items()})

    def _as_newer(self, key: str, argument: Any) -> Any:
        rewrite = self._rewrites.get(key)
        return argument if rewrite is None else rewrite(argument)


def newer_signed(data: bytes, kind: str, signer: SigningKey | OperatorKey) -> bytes:
    body, _, rest = data.decode().partition("signed ")
    body = body.replace(f"keyrotd {kind} v1\n", f"keyrotd {kind} v9\n") + "hue green\n"
    return (signed(body, kind=kind, signer=signer) + rest.partition("\n")[2]).encode()


def newer_report(data: bytes, kek: Kek, *, words: dict[str, str]) -> bytes:
    body = data.decode().partition("mac ")[0].replace("keyrotd report v1\n", "keyrotd report v9\n") + "hue green\n"
    for field, word in words.items():
        body = re.sub(rf"^{field} .*$", f"{field} {word}", body, flags=re.MULTILINE)
    mac = hmac.digest(kek.derive("report", RING), f"keyrotd/1 report\x00{body}".encode(), "sha256")
    return f"{body}mac {kek.id} {mac.hex()}\n".encode()


def node_of_a_newer_version(rig: Rig, **words: str) -> None:
    twin = rig.add_twin()
    store = Newer(rig.store(), report=partial(newer_report, kek=rig.keks[0], words=words))
    rig.start_twin(rig.add_node(driver_of(twin), store=store), twin)


def test_an_agent_that_was_upgraded_first_is_heard_and_waited_for_like_any_other(rig: Rig) -> None:
    first = rig.start(nodes=1)
    node_of_a_newer_version(rig)
    rig.settle()

    second = rig.settle(above=first.epoch)

    desk = rig.desks[0]
    assert second.published_at - first.published_at <= POLICY.rotation_interval_ms + 2 * POLICY.tick_interval_ms
    assert desk.telemetry.value("nodes", ring=RING, state="in_step") == 2
    assert desk.telemetry.said_once("newer reports") == (
        "ring edge: node-2 run a newer keyrotd, and report what this one does not know",
        "upgrade the schedulers, too: until then only what both know counts (docs/upgrades.md)",
    )


def test_an_agent_whose_words_are_too_new_is_live_waited_for_and_named(rig: Rig) -> None:
    first = rig.start(nodes=1)
    node_of_a_newer_version(rig, state="asleep")
    rig.pass_time(2 * POLICY.node_ttl_ms)
    desk = rig.desks[0]
    assert desk.telemetry.value("nodes", ring=RING, state="behind") == 1

    took_ms = rig.pass_until(lambda: rig.peek.look().digest != first.digest, "it rotates all the same")

    held_ms = rig.now_at - first.published_at - POLICY.rotation_interval_ms
    assert took_ms > 0
    assert held_ms <= POLICY.overdue_after_ms + 2 * POLICY.tick_interval_ms
    assert "node-2" in desk.telemetry.said_once("newer reports")[0]
    assert "node-2" in desk.telemetry.events("window.published")[-1]["reason"]


def test_a_window_of_a_newer_scheduler_is_refused_by_reason_and_every_key_stays(rig: Rig) -> None:
    held = rig.start(nodes=2)
    before = [names_in(twin) for twin in rig.twins]
    rig.desks.pop().scheduler.stop()
    newer = rig.add_desk(store=Newer(rig.store(), window=partial(newer_signed, kind="window", signer=rig.signer)))

    rig.pass_until(lambda: rig.peek.look().digest != held.digest, "the newer one publishes")
    rig.pass_time(2 * POLICY.poll_interval_ms)

    assert newer.telemetry.value("leader", ring=RING) == 1
    assert [names_in(twin) for twin in rig.twins] == before
    for node in rig.nodes:
        text, hint = node.telemetry.said_once("window")
        assert text == "window: made by a newer keyrotd (version 9 of a window; this one reads 1)"
        assert "docs/upgrades.md" in hint
        assert node.telemetry.value("windows_refused_total", ring=RING, reason="version") >= 1
        assert node.is_ready()


def test_a_scheduler_that_was_downgraded_begins_nothing_anew_over_a_newer_window(rig: Rig) -> None:
    held = rig.start(nodes=1)
    state = rig.desks[0].state
    rig.desks.pop().scheduler.stop()
    rig.add_desk(store=Newer(rig.store(), window=partial(newer_signed, kind="window", signer=rig.signer)))
    rig.pass_until(lambda: rig.peek.look().digest != held.digest, "the newer one publishes")
    stands = rig.peek.look().digest
    # As the agents of the newer version hold it.
    node_of_a_newer_version(rig, holds=stands, read_back=stands)
    rig.desks.pop().scheduler.stop()
    old = rig.add_desk(state=state)

    rig.pass_time(3 * POLICY.speak_ms)

    assert rig.peek.look().digest == stands
    assert rig.leader == ""
    assert "version 9 of a window; this one reads 1" in old.telemetry.said_once("window")[0]


def test_a_request_of_a_newer_version_is_refused_and_nothing_of_it_is_done(rig: Rig) -> None:
    held = rig.start()
    wish = Request(
        ring=RING,
        goal=Goal.REVOKE,
        past_epoch=held.epoch,
        drop_live_keys=False,
        who="me",
        reason="a test",
        made_at=rig.now_at,
    )
    rig.peek.request(id="1", request=newer_signed(sign_request(wish, rig.operator), "request", rig.operator))

    rig.pass_time(4 * POLICY.tick_interval_ms)

    telemetry = rig.desks[0].telemetry
    assert rig.peek.look().digest == held.digest
    assert telemetry.value("requests_total", ring=RING, kind="unknown", outcome="refused") == 1
    assert "version 9 of a request; this one reads 1" in telemetry.said("requests")[0][0]


@pytest.mark.parametrize("what", ["agent-edge.cache", "agent-edge.memory"])
def test_an_agent_that_was_downgraded_stops_over_what_it_cannot_read_and_leaves_it_as_it_was(
    rig: Rig, what: str
) -> None:
    rig.start()
    node = rig.nodes[0]
    folder = node.runtime if what.endswith(".cache") else node.state
    whole = (folder / what).read_bytes()
    newer = whole.replace(b" v1\n", b" v9\n", 1)
    (folder / what).write_bytes(newer)

    with pytest.raises(ConfigError) as refused:
        rig.restart(node)

    (fault, hint), *_ = refused.value.faults
    assert fault.startswith(f"{what}: {what.partition('.')[2]}: made by a newer keyrotd (version 9 of a ")
    assert "nothing was changed" in (hint or "")
    assert (folder / what).read_bytes() == newer
    # And the newer one, back again, goes on where it was.
    (folder / what).write_bytes(whole)
    rig.restart(node)
    assert node.telemetry.events("cache.restored")
