"""`keyrotd standalone` as a person starts it: refused before anything is started, and over when its store is over."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrotd.cli import exits
from keyrotd.testing.children import start_child, stop_child, wait_until

SERVER = """
[[server]]
name = "haproxy"
ring = "edge"
driver = "haproxy"
socket = "{home}/h.sock"
key_file = "{home}/run/h.keys"
[scheduler]
listen = "off"
[agent]
listen = "off"
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: a Unix socket's may have 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="ks", dir="/tmp"))
    argv = [sys.executable, "-m", "keyrotd", "init", str(directory / "k"), "--store", "embedded:"]
    subprocess.run(argv, check=True, capture_output=True)
    config = directory / "k" / "keyrotd.toml"
    text = config.read_text().replace('"/run/keyrotd"', f'"{directory}/run"')
    config.write_text(text.replace('"/var/lib/keyrotd"', f'"{directory}/state"'))
    yield directory
    shutil.rmtree(directory)


def standalone(home: Path) -> list[str]:
    return [sys.executable, "-m", "keyrotd", "standalone", "--config", str(home / "k" / "keyrotd.toml")]


def test_what_is_refused_has_started_nothing(home: Path) -> None:
    done = subprocess.run(standalone(home), check=False, capture_output=True, text=True)

    assert done.returncode == exits.CONFIGURATION
    assert "an agent needs one" in done.stderr
    assert not (home / "run").exists()


def test_a_store_that_ends_ends_all_with_words(home: Path) -> None:
    """Whoever started it starts it again; half of it is of no use to anybody."""
    config = home / "k" / "keyrotd.toml"
    config.write_text(config.read_text() + SERVER.format(home=home))
    child = start_child(standalone(home), log=home / "log")
    try:
        wait_until((home / "run" / "store.sock").exists, "the store is there")
        wait_until(lambda: "lease.taken" in (home / "log").read_text(), "the scheduler leads")
        numbers = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
        (store,) = [pid for pid in numbers if parent(pid) == child.pid]
        os.kill(store, signal.SIGKILL)
        wait_until(lambda: child.poll() is not None, "all of it ends")
    finally:
        stop_child(child)

    assert child.returncode == exits.FAILED
    assert "error: standalone: the private store ended by itself" in (home / "log").read_text()


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
