"""
Draws docs/status.svg and docs/demo.svg from real runs: `./dev pictures`.

`status` is taken of a fleet whose third agent was killed; the demo is the one of `./dev demo`, seconds and all.
"""

import os
import subprocess
import sys
from pathlib import Path

from keyrotd.testing.children import wait_until
from keyrotd.testing.fleet import Fleet, Pace
from tests.pictures.svg import drawn
from tests.scenes import short_directory, started

DOCS = Path(__file__).parents[2] / "docs"
#: As somebody would run it, but that nobody waits for half a minute until a killed agent counts as silent.
PACE = Pace(
    rotation_interval="4h",
    ticket_lifetime="2h",
    overdue_after="30m",
    tick_interval="1s",
    lease_ttl="10s",
    node_ttl="3s",
)


def keyrotd(*args: str, config: Path | None = None) -> str:
    """Run it as a person does, and return what it printed."""
    environment = {**os.environ, **({} if config is None else {"KEYROTD_CONFIG": str(config)})}
    told = subprocess.run(
        [sys.executable, "-m", "keyrotd", *args], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    return told.stdout


def status() -> str:
    with short_directory() as directory:
        fleet = Fleet(directory, pace=PACE)
        with started(fleet):
            config = fleet.config("s1")
            keyrotd("rotate", "--now", "--reason", "key ceremony", config=config)
            fleet.kill("agent-3")
            wait_until(lambda: "1 silent" in keyrotd("status", config=config), "the killed agent is silent")
            return keyrotd("status", config=config)


if __name__ == "__main__":
    (DOCS / "status.svg").write_text(drawn("keyrotd status", status()), "utf-8")
    (DOCS / "demo.svg").write_text(drawn("keyrotd demo", keyrotd("demo")), "utf-8")
