"""SIGHUP: all of a configuration that can be taken while a daemon runs, or nothing; the log says what, by its names."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keyrotd.cli.changes import between, held
from keyrotd.cli.reload import Reload, Turns, files_of
from keyrotd.config import Config, Role, load
from keyrotd.core.errors import ConfigError
from keyrotd.daemon.clock import SystemClock
from keyrotd.daemon.telemetry import Reporter, configure_logging
from tests.unit.test_config import LEAST, SERVER

MORE = '[secrets]\nsigning_key_file = "s"\noperator_verify_key_file = "o"\n'
WHOLE = LEAST.replace("[secrets]\n", MORE)
SHORT_LEASE = '[scheduler]\ntick_interval = "100ms"\nlease_ttl = "1s"\n'


@dataclass
class Daemon:
    """A daemon of `roles` that takes what it is given, and remembers it."""

    path: Path
    roles: tuple[Role, ...]
    taken: list[Config] = field(default_factory=list)

    def start(self, text: str) -> None:
        self.path.write_text(text)
        config = load(self.path)
        configure_logging(form="json", level="info")
        self.reporter = Reporter()
        self.reload = Reload(config, self.roles, [self.retrust], self.reporter, Turns(files_of(config), SystemClock()))

    def retrust(self, fresh: Config) -> Callable[[], None]:
        if fresh.secrets.verify_key_file.name == "broken":
            raise ConfigError([("broken: cannot be read", "mend it")])
        return lambda: self.taken.append(fresh)

    def hang_up(self, text: str) -> None:
        self.path.write_text(text)
        self.reload.take()

    @property
    def successful(self) -> float | None:
        return self.reporter.registry.get_sample_value("keyrotd_config_last_reload_successful")


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "keyrotd.toml", ("scheduler",))


def said(capsys: pytest.CaptureFixture[str], event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [line for line in lines if line["event"] == event]


def test_what_changed_is_told_by_its_dotted_name_from_what_to_what(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.start(WHOLE)

    daemon.hang_up(WHOLE.replace("verify.key", "w.key") + 'ticket_lifetime = "1h"\n[log]\nlevel = "debug"\n')

    (reloaded,) = said(capsys, "configuration.reloaded")
    assert reloaded["changed"] == {
        "log.level": "info -> debug",
        "ring.edge.ticket_lifetime": "2h -> 1h",
        "secrets.verify_key_file": "secrets/verify.key -> secrets/w.key",
    }
    assert reloaded["needs_restart"] == []
    assert daemon.successful == 1
    assert daemon.taken[-1].rings[0].policy.ticket_lifetime_ms == 3_600_000


def test_each_reload_tells_what_is_new_since_the_last_one(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.start(WHOLE)
    daemon.hang_up(WHOLE + 'ticket_lifetime = "1h"\n')

    daemon.hang_up(WHOLE)
    daemon.hang_up(WHOLE)

    changed = [event["changed"] for event in said(capsys, "configuration.reloaded")]
    assert changed[1:] == [{"ring.edge.ticket_lifetime": "1h -> 2h"}, {}]


def test_what_waits_for_a_restart_is_named_until_it_is_undone(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.start(WHOLE)

    daemon.hang_up(WHOLE.replace("[secrets]", 'namespace = "other"\n[secrets]') + '[scheduler]\nlisten = "off"\n')
    daemon.hang_up(WHOLE.replace("[secrets]", 'namespace = "other"\n[secrets]'))

    events = capsys.readouterr().err.splitlines()
    waits = [json.loads(line) for line in events if '"restart"' in line]
    assert [event["text"].partition(": ")[2] for event in waits] == [
        "waits for a restart: scheduler.listen, store.namespace",
        "waits for a restart: store.namespace",
    ]
    daemon.hang_up(WHOLE)
    (cleared,) = said(capsys, "fault.cleared")
    assert cleared["fault"] == "restart"


def test_each_role_waits_only_with_what_it_goes_by(tmp_path: Path) -> None:
    path = tmp_path / "keyrotd.toml"
    path.write_text(LEAST + SERVER)
    before = load(path)
    path.write_text(LEAST + SERVER.replace("h.sock", "i.sock") + '[agent]\npoll_interval = "4s"\n')
    after = load(path)

    assert between(before, after) == {
        "agent.poll_interval": "5s -> 4s",
        "server.h.socket": "/run/h.sock -> /run/i.sock",
    }
    assert held(before, after, ("agent",)) == ("agent.poll_interval", "server.h.socket")
    assert held(before, after, ("scheduler",)) == ()


def test_rings_and_servers_come_and_go_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "keyrotd.toml"
    path.write_text(LEAST + SERVER)
    before = load(path)
    ring = '[[ring]]\nname = "core"\nkek_file = "secrets/core.kek"\n'
    path.write_text(LEAST + ring)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "i.toml").write_text(SERVER.replace('"h"', '"i"'))
    after = load(path)

    assert between(before, after) == {"ring.core": "added", "server.h": "removed", "server.i": "added"}
    assert held(before, after, ("agent",)) == ("ring.core", "server.h", "server.i")
    assert held(before, after, ("scheduler",)) == ("ring.core",)


def test_a_refused_reload_lists_every_fault_and_changes_nothing(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.start(WHOLE)

    daemon.hang_up(WHOLE + 'ticket_lifetime = "9d"\nrotation_interval = "soon"\n[log]\nlevel = "debog"\n')

    (refused,) = said(capsys, "configuration.refused")
    assert refused["faults"] == [
        f"{daemon.path}: log.level: want one of debug, info, warning, error, found 'debog' (hint: did you mean debug?)",
        f"{daemon.path}: ring \"edge\": rotation_interval: want a duration such as 500ms, 5s or 1h30m, found 'soon' "
        "(hint: units are d, h, m, s and ms, largest first, each once)",
    ]
    assert daemon.successful == 0
    assert daemon.taken == []
    daemon.hang_up(WHOLE)
    assert daemon.successful == 1
    assert daemon.reporter._faults == {}


def test_a_key_file_that_cannot_be_read_refuses_the_whole(daemon: Daemon) -> None:
    daemon.start(WHOLE)

    daemon.hang_up(WHOLE.replace("verify.key", "broken") + 'ticket_lifetime = "1h"\n')

    assert (daemon.successful, daemon.taken) == (0, [])


def test_the_level_of_the_log_is_in_force_at_once_and_a_quieter_one_is_still_told(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.start(WHOLE)

    daemon.hang_up(WHOLE + '[log]\nlevel = "error"\n')
    daemon.reporter.event("not.heard")
    quieter = capsys.readouterr().err
    daemon.hang_up(WHOLE + '[log]\nlevel = "info"\nformat = "console"\n')
    daemon.reporter.event("heard.again")
    louder = capsys.readouterr().err

    assert "info -> error" in quieter
    assert "not.heard" not in quieter
    assert "error -> info" in louder
    assert "heard.again" in louder
    assert not louder.startswith("{")


def test_a_lease_that_is_too_short_for_the_timeout_in_force_waits_for_the_restart_too(daemon: Daemon) -> None:
    daemon.start(WHOLE)

    daemon.hang_up(WHOLE.replace("[secrets]", 'timeout = "100ms"\n[secrets]') + SHORT_LEASE)

    assert daemon.taken == []
    assert "store.timeout stays 1s" not in str(daemon.reporter._faults)
    assert 'ring "edge": lease_ttl 1s' in daemon.reporter._faults["configuration"]


def test_a_timeout_alone_waits_and_no_policy_goes_by_it_before(daemon: Daemon) -> None:
    daemon.start(WHOLE)

    daemon.hang_up(WHOLE.replace("[secrets]", 'timeout = "2s"\n[secrets]'))

    assert daemon.taken[-1].rings[0].policy.store_timeout_ms == 1_000
