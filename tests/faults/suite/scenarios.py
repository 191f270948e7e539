"""Each scenario breaks one thing as it breaks in the field, some at the worst instant, and waits for the healing."""

import os
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyrotd.testing.fleet import RING, Pace
from tests.faults.suite.recorder import Recorder
from tests.faults.suite.scene import BRISK, PACE, Scene
from tests.faults.suite.stands import Alone, Clustered, Watched, alone, clustered, watched
from tests.scenes import now_at

Stage = Callable[[Path, Path], AbstractContextManager[Any]]


def flushall(scene: Scene[Alone]) -> None:
    """FLUSHALL in calm, at the instant of a publish, and again as soon as it was mended."""
    with scene.traffic():
        scene.rotate()
        scene.strike(scene.stand.flush)
        scene.publish()
        scene.strike(scene.stand.flush)
        scene.strike(scene.stand.flush)
        scene.rotate()


def restart_without_persistence(scene: Scene[Alone]) -> None:
    """The store is killed and starts empty, in calm and at the instant of a publish."""

    def restart() -> None:
        scene.stand.die()
        scene.stand.start()

    with scene.traffic():
        scene.rotate()
        scene.strike(restart)
        scene.publish()
        scene.strike(restart)
        scene.rotate()


def old_snapshot(scene: Scene[Alone]) -> None:
    """An old snapshot of the store is restored, one rotation old and then two."""
    with scene.traffic():
        snapshot = scene.stand.save()
        scene.rotate()
        scene.strike(lambda: scene.stand.restore(snapshot))
        scene.rotate()
        scene.strike(lambda: scene.stand.restore(snapshot))
        scene.rotate()


def failover_with_the_last_write_lost(scene: Scene[Watched]) -> None:
    """Replication is cut, a window published, the primary killed, and a replica without that window promoted; twice."""

    def cut() -> Any:
        primary = scene.stand.parts.primary
        primary.redis.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
        primary.redis.execute_command("CLIENT", "KILL", "TYPE", "replica")
        return primary

    with scene.traffic():
        primary = cut()
        scene.rotate()
        scene.strike(lambda: os.kill(primary.pid, signal.SIGKILL))
        primary = cut()
        scene.publish()
        scene.strike(lambda: os.kill(primary.pid, signal.SIGKILL))
        scene.rotate()


def two_leaders(scene: Scene[Alone]) -> None:
    """The leader is frozen beyond its lease, another one publishes, the first wakes up and believes that it leads."""

    def freeze() -> None:
        frozen.append(scene.leader)
        scene.fleet.freeze(frozen[-1])
        scene.until(lambda: scene.leader not in {frozen[-1], ""}, "another scheduler leads")

    def thaw() -> None:
        leader = frozen[-1]
        lost = scene.said(leader, "lease.lost")
        scene.fleet.thaw()
        scene.until(lambda: scene.said(leader, "lease.lost") > lost, f"{leader} knows that it was overtaken")

    frozen: list[str] = []
    with scene.traffic():
        scene.rotate()
        scene.strike(freeze)
        scene.rotate()
        thaw()
        scene.ask_rotation()  # so that it may be frozen between its decision and its publish
        scene.strike(freeze)
        thaw()
        scene.rotate()


def agent_killed_at_every_step(scene: Scene[Alone]) -> None:
    """Agents are killed (SIGKILL) after one step of a tick after another, from hearing of a window to reporting it."""

    def kill_at(steps: Sequence[tuple[str, int]]) -> None:
        doomed = dict(enumerate(steps, 1))
        for number, step in doomed.items():
            scene.fleet.kill(f"agent-{number}")
            scene.fleet.start_fated(number, *step)
        scene.until(lambda: all_died(doomed), "every agent died at its step")
        scene.heal(now_at())

    def all_died(doomed: dict[int, tuple[str, int]]) -> bool:
        """Start whoever died, as a supervisor does, and ask for rotations until everyone has."""
        for number in [number for number in doomed if scene.fleet.died(number)]:
            # A rotation that was due, and not asked for, may have been the end of some already.
            scene.fleet.start_agent(number)
            del doomed[number]
        if doomed:
            scene.ask_if_free()
        return not doomed

    with scene.traffic():
        for first in range(0, len(_STEPS), scene.fleet.nodes):
            kill_at(_STEPS[first : first + scene.fleet.nodes])
        scene.rotate()


#: In order, by what tests/faults/suite/fated counts. The last three are of the tick that hears of the confirmation.
_STEPS = (
    ("poll", 1),
    (f"_write_temp agent-{RING}.cache", 1),
    (f"write agent-{RING}.cache", 1),
    ("_write_temp tickets.keys", 1),
    ("write tickets.keys", 1),
    ("push", 1),
    (f"_write_temp agent-{RING}.memory", 1),
    (f"write agent-{RING}.memory", 1),
    ("report", 1),
    ("poll", 2),
    (f"_write_temp agent-{RING}.cache", 2),
    (f"write agent-{RING}.cache", 2),
)


def slot_moved_under_load(scene: Scene[Clustered]) -> None:
    """The ring's slot moves to another node of the cluster, key by key, in calm and while a rotation is asked for."""

    def move() -> None:
        for _ in scene.stand.parts.move(RING):
            scene.meanwhile(scene.policy.poll_interval_ms)

    with scene.traffic():
        scene.rotate()
        move()
        scene.heal(now_at())
        before = scene.ask_rotation()
        move()
        scene.heal(now_at())
        scene.until(lambda: scene.rotated(before), "the request survived the move")
        scene.rotate()


def owner_replays(scene: Scene[Alone]) -> None:
    """The owner of the store puts back whatever any key of it ever held, at random, for two periods."""
    recorder = Recorder(scene.stand, random.Random())
    with scene.traffic(), recorder.recording(), scene.stand.redis as redis:
        for _ in range(2):
            scene.rotate()
        until = now_at() + 2 * scene.policy.rotation_interval_ms
        while now_at() < until:
            recorder.replay(redis)
            scene.meanwhile(recorder.rand.randrange(2 * _REPLAY_EVERY_MS))
        scene.heal(now_at())
        scene.rotate()
    scene.remarks.append(f"replayed {recorder.replayed} values of {len(recorder.seen)} keys")


#: On average: several times in every tick and poll.
_REPLAY_EVERY_MS = 50


def fleet_rebooted(scene: Scene[Alone]) -> None:
    """Power fails everywhere: only disks remain. Tickets are lost with the last of their keys, and no later one is."""
    with scene.traffic():
        scene.rotate()
    floor, snapshot = scene.epoch, scene.stand.save()

    def reboot() -> None:
        scene.fleet.lose_power()
        scene.stand.die()
        scene.stand.start()
        scene.fleet.start()

    scene.strike(reboot)
    if scene.epoch <= floor:
        scene.faults.append(f"began anew with window {scene.epoch}, not above {floor}")
    with scene.traffic():
        scene.rotate()
        scene.strike(lambda: scene.stand.restore(snapshot))
        scene.rotate()


def schedulers_dead(scene: Scene[Alone]) -> None:
    """Every scheduler is killed, nobody leads for five periods, then they start again."""
    with scene.traffic():
        scene.rotate()
        scene.until(lambda: scene.whole(0), "the window is confirmed")
        scene.fleet.kill_schedulers()
        scene.meanwhile(_PERIODS * scene.policy.rotation_interval_ms)
        scene.strike(scene.fleet.start_schedulers)
        scene.rotate()


def store_dead(scene: Scene[Alone]) -> None:
    """The store is dead for five periods, then starts empty."""
    with scene.traffic():
        scene.rotate()
        # Three slots have no room for the ways of those who have heard and of those who have not. The simulation also
        # has fleets where nobody has.
        scene.until(scene.heard, "every node has heard that everyone has the window")
        scene.stand.die()
        scene.meanwhile(_PERIODS * scene.policy.rotation_interval_ms)
        scene.strike(scene.stand.start)
        scene.rotate()


_PERIODS = 5


@dataclass(frozen=True, slots=True)
class Scenario:
    """`act` is played on what `stage` sets up, given a server's program and a directory."""

    act: Callable[[Scene[Any]], None]
    stage: Stage
    pace: Pace = PACE

    @property
    def name(self) -> str:
        return self.act.__name__.replace("_", "-")

    @property
    def story(self) -> str:
        return self.act.__doc__ or ""


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(flushall, alone),
        Scenario(restart_without_persistence, alone),
        Scenario(old_snapshot, alone),
        Scenario(failover_with_the_last_write_lost, watched),
        Scenario(two_leaders, alone),
        Scenario(agent_killed_at_every_step, alone),
        Scenario(slot_moved_under_load, clustered),
        Scenario(owner_replays, alone),
        Scenario(fleet_rebooted, alone),
        Scenario(schedulers_dead, alone, BRISK),
        Scenario(store_dead, alone, BRISK),
    )
}
