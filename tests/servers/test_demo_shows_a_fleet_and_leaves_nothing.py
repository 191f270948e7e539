"""`keyrotd demo`: it shows what it promises, and whether it ends or is ended, nothing of it stays behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrotd.cli import exits
from keyrotd.cli.main import run
from tests import servers_found

#: In the environment of everything that one test starts, whatever becomes of its parents.
_MARK = "KEYROTD_TEST_DEMO"


@pytest.fixture
def mark() -> Iterator[str]:
    """Fails the test if any process with this mark, or any directory of a demo's, outlives it."""
    servers_found.wheel_haproxy()
    servers_found.wheel_valkey()
    mark, before = os.urandom(8).hex(), directories()
    yield mark
    assert [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in marked(mark)] == []
    assert directories() - before == set()


@pytest.mark.long
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("options", "titles"),
    [
        pytest.param(["--nodes", "2"], "HAProxy", id="as it is"),
        pytest.param(["--server", "haproxy", "--server", "envoy"], "HAProxy and Envoy", id="a mix"),
    ],
)
def test_a_short_demo_rotates_through_every_fault_and_orphans_nothing(
    mark: str, options: list[str], titles: str
) -> None:
    if "envoy" in options:
        servers_found.wheel_envoy()
    demo = start(mark, *options, "--rotations", "3")

    told, complaints = demo.communicate(timeout=180)

    assert (complaints, demo.returncode) == ("", 0), told
    for line in (
        r"^orphan tickets: 0$",
        r"^failed connections: 0$",
        rf"^{titles} pids: unchanged by every rotation$",
        r"^rotations: \d+ \(and one mend\)$",
        r"^published to read back everywhere: median \d+ ms, worst \d+ ms$",
        r"`keyrotd rotate --now`: window \d+ is read back on all nodes$",
        r"killed scheduler-\d \(SIGKILL\): scheduler-\d leads",
        r"reloaded HAProxy node-\d",
        r"restarted \w+ node-\d",
        r"killed and started agent-\d",
        r"flushed the store",
    ):
        assert re.search(line, told, re.MULTILINE), (line, told)


def test_a_mix_wants_two_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["demo", "--server", "haproxy", "--server", "envoy", "--nodes", "3"])

    assert code == exits.USAGE
    assert "--nodes 3 are too few for two of each: haproxy, envoy" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["starting a store", "clients begin"])
def test_ctrl_c_ends_a_demo_in_one_line_at_any_moment(mark: str, moment: str) -> None:
    demo = start(mark)
    assert demo.stdout is not None
    told = ""
    while moment not in told:
        line = demo.stdout.readline()
        assert line, told
        told += line

    demo.send_signal(signal.SIGINT)
    rest, complaints = demo.communicate(timeout=30)

    # On a line of its own, below the ^C that the terminal shows.
    assert complaints == "\nerror: stopped before the end\n", told + rest
    assert demo.returncode == 1


def start(mark: str, *options: str) -> subprocess.Popen[str]:
    """A demo in a process group of its own, as a shell starts it."""
    # A shell that runs tests in the background has SIGINT ignored, and whatever they start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "keyrotd", "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, _MARK: mark},
        start_new_session=True,
    )


def marked(mark: str) -> list[int]:
    """Every process that carries the mark, zombies (which have no environment any more) apart."""
    needle = f"{_MARK}={mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def directories() -> set[Path]:
    """Those of demos, not those of other tests that run meanwhile."""
    return set(Path("/tmp").glob("keyrotd-demo-*"))
