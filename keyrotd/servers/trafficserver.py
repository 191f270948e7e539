"""Traffic Server by our plugin inside of it: its key file, its acknowledgement, and a nudge to save the poll's wait."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keyrotd.servers.inprocess import InProcessDriver
from keyrotd.servers.layouts import ATS48, Layout
from keyrotd.servers.trafficserver_nudge import nudge

#: The plugin looks every second anyway, so nobody waits longer for a nudge to be taken.
_NUDGE_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficServerDriver(InProcessDriver):
    """
    One Traffic Server with deploy/trafficserver in it.

    `nudge`: its management socket (mgmtapi.sock, or jsonrpc20.sock from 10 on), to which only root and its own user
    may say something. `config_dir` is for `check` and `doctor`.
    """

    nudge: Path | None = None
    config_dir: Path | None = None

    kind: ClassVar[str] = "trafficserver"
    layout: ClassVar[Layout] = ATS48

    def hurry(self) -> None:
        # Whether it was heard does not matter: what counts is acknowledged, and the poll is the truth.
        if self.nudge is not None:
            nudge(self.nudge, timeout_ms=_NUDGE_MS)
