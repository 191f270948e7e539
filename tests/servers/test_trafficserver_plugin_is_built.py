"""Traffic Server's plugin is built by one make, without a warning; what that lacks is said in words."""

import subprocess
from pathlib import Path

import pytest

from tests import servers_found
from tests.trafficservers import SOURCE, plugin

pytestmark = pytest.mark.debian


@pytest.fixture(autouse=True)
def _tools() -> None:
    servers_found.traffic_server()


def test_it_is_built_installed_and_needs_nothing_but_traffic_server_and_libcrypto(tmp_path: Path) -> None:
    made = make(f"BUILD={tmp_path}", f"DESTDIR={tmp_path}/root", "install")

    assert (made.returncode, made.stderr) == (0, "")
    (installed,) = (tmp_path / "root").rglob("modules/*")
    needed = subprocess.run(["ldd", str(installed)], capture_output=True, text=True, check=True).stdout
    assert installed.name == "keyrotd.so"
    assert "libcrypto" in needed
    assert "libssl" not in needed


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("ts/ts.h", "Traffic Server's headers are not there"),
        ("openssl/evp.h", "OpenSSL's headers are not there"),
        ("TS_VERSION_MAJOR", "older than 9"),
    ],
)
def test_what_is_missing_is_said_in_words(tmp_path: Path, absent: str, words: str) -> None:
    """A compiler that does not find it stands in for a machine that has it not."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f'#!/bin/sh\ntee "{tmp_path}/asked" | grep -q {absent} && exit 1\nc++ "$@" <"{tmp_path}/asked"\n'
    )
    compiler.chmod(0o755)

    made = make(f"BUILD={tmp_path}", f"CXX={compiler}")

    assert made.returncode != 0
    assert f"error: {'these are ' if 'older' in words else ''}" in made.stderr
    assert words in made.stderr
    assert "fatal error" not in made.stderr


def test_a_compiler_that_is_not_there_is_told(tmp_path: Path) -> None:
    made = make(f"BUILD={tmp_path}", "CXX=no-such-compiler")

    assert "error: there is no C++ compiler no-such-compiler" in made.stderr


def test_installing_without_tsxs_says_what_to_do() -> None:
    made = make(f"BUILD={plugin().parent}", "TSXS=no-such-tsxs", "install")

    assert made.returncode != 0
    assert "hint: say TSXS=" in made.stderr


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-s", "-C", str(SOURCE), *words], capture_output=True, text=True, check=False)
