"""Two daemons of a kind never share a folder, and the lock of one that is gone, however it went, hinders nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyrotd.cli import exits, host
from keyrotd.cli.diagnosis import Daemon
from keyrotd.cli.main import run
from keyrotd.core.errors import KeyrotdError
from keyrotd.daemon.hardening import lockable
from keyrotd.daemon.lock import locked
from keyrotd.testing.children import start_child, wait_until


@pytest.fixture
def config(short_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A scheduler's configuration; nobody answers at its store, which hinders no scheduler."""
    run(["init", str(short_path)])
    capsys.readouterr()
    path = short_path / "keyrotd.toml"
    text = path.read_text("utf-8").replace('"embedded:"', f'"unix://{short_path}/nobody.sock"')
    lines = [line for line in text.splitlines() if not line.startswith(("runtime_dir", "state_dir"))]
    folders = f'runtime_dir = "{short_path}/run"\nstate_dir = "{short_path}/state"\n'
    path.write_text(folders + "\n".join(lines) + '\n[scheduler]\nlisten = "off"\n', "utf-8")
    return path


def started(config: Path, log: Path) -> subprocess.Popen[bytes]:
    child = start_child([sys.executable, "-m", "keyrotd", "scheduler", "--config", str(config)], log=log)
    wait_until(lambda: b"daemon.started" in log.read_bytes() or child.poll() is not None, "it starts")
    return child


def test_a_second_daemon_is_refused_by_the_first_ones_number_until_that_is_killed(config: Path) -> None:
    first = started(config, config.parent / "1.log")
    second = started(config, config.parent / "2.log")
    try:
        told = (config.parent / "2.log").read_text("utf-8").splitlines()
        assert second.wait(20) == exits.FAILED
        assert told == [
            f"error: scheduler: process {first.pid} runs with {config.parent}/state already",
            "hint: stop it, or give each daemon of a host its own runtime_dir and state_dir",
        ]

        assert host.daemon(config.parent / "state", "scheduler") == Daemon(
            kind="scheduler", pid=first.pid, locked=lockable(), dumps=False
        )

        first.kill()
        first.wait()
        assert host.daemon(config.parent / "state", "scheduler") is None  # its number is still there
        third = started(config, config.parent / "3.log")
        assert third.poll() is None
        third.terminate()
        assert third.wait(20) == exits.DONE
    finally:
        first.kill()
        first.wait()


def test_daemons_of_two_kinds_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path, "agent"), locked(tmp_path, "scheduler"):
        pass


def test_whoever_has_not_said_its_number_yet_is_another_process(tmp_path: Path) -> None:
    with locked(tmp_path, "agent"):
        os.truncate(tmp_path / "agent.lock", 0)
        with pytest.raises(KeyrotdError, match="another process runs with"), locked(tmp_path, "agent"):
            pass

    with locked(tmp_path, "agent"):  # and when it is over, it is over
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "agent.lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(KeyrotdError, match="cannot lock"), locked(tmp_path, "agent"):
        pass

    assert not (tmp_path / "elsewhere").exists()
