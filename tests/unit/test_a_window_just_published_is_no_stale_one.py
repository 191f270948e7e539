"""A window is published a moment before its first beat: only at its next look a node says that none vouches for it."""

import random
from dataclasses import replace

import pytest

from keyrotd.seal.messages import sign_beat
from keyrotd.seal.window import seal_window
from keyrotd.testing.telemetry import SilentTelemetry
from tests.stage import KEK, NOON, SIGNER, Stage, beat, window_at


class Listening(SilentTelemetry):
    """Keeps the reasons for which something was refused."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def count(self, metric: str, **labels: str) -> None:
        if metric == "windows_refused_total":
            self.refused.append(labels["reason"])


WINDOW = window_at(NOON - 10, epoch=1)


@pytest.fixture
def stage() -> Stage:
    """A node that holds nothing, and a store with a window for which there is no beat."""
    stage = Stage(nodes=1)
    desk = stage.store().lead(holder="somebody", ttl_ms=10_000, fence_above=0, known_digest="")
    assert desk.fence is not None
    sealed = seal_window(WINDOW, keks=(KEK,), signer=SIGNER, rand=random.Random(1).randbytes)
    stage.store().publish(window=sealed, digest=WINDOW.digest, epoch=WINDOW.epoch, fence=desk.fence, parent="")
    return stage


def listening(stage: Stage) -> Listening:
    agent, heard = stage.agents["edge-1"], Listening()
    agent._world = replace(agent._world, telemetry=heard)
    return heard


def test_at_the_first_look_nothing_is_said_and_the_beat_ends_it(stage: Stage) -> None:
    heard, agent = listening(stage), stage.agents["edge-1"]

    agent.tick()
    signed = sign_beat(beat(WINDOW, signed_at=NOON, confirmed_at=None), SIGNER)
    assert stage.store().beat(beat=signed, fence=1)
    agent.tick()

    assert heard.refused == []
    assert agent._held is not None


def test_at_the_second_look_it_is_a_stale_one(stage: Stage) -> None:
    heard, agent = listening(stage), stage.agents["edge-1"]

    agent.tick()
    agent.tick()

    assert heard.refused == ["stale window"]
