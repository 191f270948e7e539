"""
A running daemon takes its configuration anew: all of what it can take while it runs, or nothing.

What it is told on the way is in the log: which keys changed from what to what, what waits for a restart, or each fault.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from keyrotd.cli.changes import as_running, between, held
from keyrotd.config import SECTIONS, Config, Role, load, needs
from keyrotd.core.errors import ConfigError
from keyrotd.daemon.clock import Clock
from keyrotd.daemon.telemetry import Reporter, configure_logging
from keyrotd.secrets import behind_links

#: Reads all that a fresh configuration names, and returns the deed of taking it. Raises ConfigError.
Retrust: TypeAlias = Callable[[Config], Callable[[], None]]


class Reload:
    """`config` is what these daemons were started with; `turns` says when to reload without being asked."""

    def __init__(
        self, config: Config, roles: tuple[Role, ...], retrust: Sequence[Retrust], reporter: Reporter, turns: "Turns"
    ) -> None:
        self.turns = turns
        self._running = self._last = config
        self._roles, self._retrust, self._reporter = roles, tuple(retrust), reporter

    def take(self) -> None:
        self.turns.begin()
        try:
            fresh = as_running(self._running, ready_for(load(self._running.path), self._roles), self._roles)
            deeds = [retrust(fresh) for retrust in self._retrust]
        except ConfigError as refused:
            self._refuse(refused)
            return
        for deed in deeds:  # only now, when everything that is named could be read
            deed()
        self.turns.taken(files_of(fresh))
        self._say(fresh)
        self._last = fresh

    def _refuse(self, refused: ConfigError) -> None:
        path = str(self._running.path)
        faults = [fault if hint is None else f"{fault} (hint: {hint})" for fault, hint in refused.faults]
        self._reporter.event("configuration.refused", path=path, faults=faults)
        self._reporter.fault("configuration", str(refused), hint="nothing was changed; `keyrotd check` lists it, too")
        self._reporter.gauge("config_last_reload_successful", 0)

    def _say(self, fresh: Config) -> None:
        waits = held(self._running, fresh, self._roles)
        # By whichever level says more: who turns the log down sees that it was, who turns it up sees it at once.
        configure_logging(form=fresh.log.format, level=min(self._last.log.level, fresh.log.level, key=_LEVELS.index))
        self._reporter.fault("configuration", None)
        self._reporter.event(
            "configuration.reloaded",
            path=str(fresh.path),
            changed=between(self._last, fresh),
            needs_restart=list(waits),
        )
        words = f"{fresh.path}: waits for a restart: {', '.join(waits)}" if waits else None
        self._reporter.fault("restart", words, hint="the rest is in force; restart this daemon, or undo it in the file")
        self._reporter.gauge("config_last_reload_successful", 1)
        configure_logging(form=fresh.log.format, level=fresh.log.level)


_LEVELS = SECTIONS["log"]["level"].choices


def ready_for(config: Config, roles: tuple[Role, ...]) -> Config:
    faults = [fault for role in roles for fault in needs(config, role)]
    if faults:
        raise ConfigError(faults)
    return config


def files_of(config: Config) -> list[Path]:
    """What a reload reads."""
    found = config.secrets
    private = (found.signing_key_file, found.operator_verify_key_file)
    keks = (ring.kek_file for ring in config.rings)
    return [
        config.path,
        *config.fragments,
        found.verify_key_file,
        *(path for path in private if path is not None),
        *keks,
    ]


class Turns:
    """
    Whether a link to what we read leads elsewhere: so Kubernetes changes a mounted Secret or ConfigMap.

    A turn that could not be taken is one still, and is seen again after a pause: mounts turn one after the other.
    """

    def __init__(self, paths: list[Path], clock: Clock) -> None:
        self._paths, self._clock = paths, clock
        self._found = self._taken = behind_links(paths)
        self._again_ms = 0

    def seen(self) -> bool:
        now = behind_links(self._paths)
        if now == self._taken or (now == self._found and self._clock.boot_ms() < self._again_ms):
            return False
        self._found, self._again_ms = now, self._clock.boot_ms() + _TURN_AGAIN_MS
        return True

    def begin(self) -> None:
        """A reload reads from now on: what turns meanwhile is another turn."""
        self._found = behind_links(self._paths)

    def taken(self, paths: list[Path]) -> None:
        """Everything that these paths lead to was read."""
        now = behind_links(paths)
        self._taken = {path: self._found.get(path, target) for path, target in now.items()}
        self._paths, self._found = paths, now


#: A mount turns within a minute or two of another one.
_TURN_AGAIN_MS = 10_000
