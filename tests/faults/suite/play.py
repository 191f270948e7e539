"""Plays one scenario from an empty directory to its verdict, and leaves nothing behind."""

import time
from dataclasses import dataclass
from pathlib import Path

from keyrotd.testing.clients import Tally
from tests.faults.suite.scenarios import Scenario
from tests.faults.suite.scene import set_up
from tests.scenes import short_directory


@dataclass(frozen=True, slots=True)
class Verdict:
    """As in Scene: `beyond` and `faults` are what was claimed and did not hold, `blows` times to heal in ms."""

    scenario: Scenario
    tally: Tally
    keys: int
    blows: tuple[int, ...]
    beyond: tuple[str, ...]
    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    took_s: float

    @property
    def broken(self) -> tuple[str, ...]:
        return self.beyond + self.faults


def play(scenario: Scenario, *, store_exe: Path, haproxy_exe: Path) -> Verdict:
    began_s = time.monotonic()
    with (
        short_directory() as directory,
        scenario.stage(store_exe, directory / "s") as stand,
        set_up(stand, directory / "f", haproxy_exe, scenario.pace) as scene,
    ):
        try:
            scenario.act(scene)
        except TimeoutError as stuck:
            scene.faults.append(f"not healed: {stuck}")
        crashed = [log.name for log in (directory / "f").glob("*.log") if b"tick.crashed" in log.read_bytes()]
        scene.faults += [f"a tick crashed, see {name}" for name in crashed]
        return Verdict(
            scenario=scenario,
            tally=scene.tally,
            keys=len(scene.keys),
            blows=tuple(scene.blows),
            beyond=tuple(scene.beyond),
            faults=tuple(scene.faults),
            remarks=tuple(scene.remarks),
            took_s=time.monotonic() - began_s,
        )
