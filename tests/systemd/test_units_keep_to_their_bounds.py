"""The units that ship, judged as files: what each is given, and what systemd's own judge says of its sandbox."""

import re
import subprocess
from pathlib import Path

import pytest

from keyrotd.cli import exits
from tests import booted, servers_found

FOLDER = booted.CHECKOUT / "deploy/systemd"
UNITS = ("keyrotd-agent.service", "keyrotd-scheduler.service", "keyrotd-standalone.service")
#: Ten times what `systemd-analyze security` may say, from 0 to 100; without a sandbox it is 96.
MOST_EXPOSED = 12


def said(unit: str, directive: str) -> list[str]:
    return re.findall(rf"^{directive}=(.*)$", (FOLDER / unit).read_text("utf-8"), re.MULTILINE)


def credentials(unit: str) -> set[str]:
    return {value.partition(":")[0] for value in said(unit, "LoadCredential")}


def test_each_daemon_is_given_its_own_secrets_and_no_other() -> None:
    assert credentials("keyrotd-agent.service") == {"verify.key"}
    assert credentials("keyrotd-scheduler.service") == {"verify.key", "signing.key", "operator-verify.key"}
    assert credentials("keyrotd-standalone.service") == {"verify.key", "signing.key", "operator-verify.key"}
    assert credentials("site.conf") == {"edge.kek", "store.password"}


@pytest.mark.parametrize("unit", UNITS)
def test_only_a_faulty_configuration_keeps_a_daemon_from_starting_again(unit: str) -> None:
    assert said(unit, "Restart") == ["always"]
    assert said(unit, "RestartPreventExitStatus") == [str(exits.CONFIGURATION)]
    assert said(unit, "StartLimitIntervalSec") == ["0"]


@pytest.mark.parametrize("unit", UNITS)
def test_keys_are_kept_out_of_swap_and_core_dumps(unit: str) -> None:
    assert [said(unit, limit) for limit in ("LimitMEMLOCK", "LimitCORE", "MemorySwapMax")] == [
        ["infinity"],
        ["0"],
        ["0"],
    ]


@pytest.mark.parametrize("unit", UNITS)
def test_units_differ_in_little(unit: str) -> None:
    """Directories, user, restarts and sandbox are the same for all; a fix to one of them is a fix to three."""
    own = r"^(#.*|(Description|ExecStart|TimeoutStopSec|LoadCredential|MemoryMax|LimitNOFILE)=.*)\n"

    texts = [re.sub(own, "", (FOLDER / each).read_text("utf-8"), flags=re.MULTILINE) for each in (unit, UNITS[0])]

    assert texts[0] == texts[1]


@pytest.mark.debian
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_the_unit_little_exposed(unit: str) -> None:
    analyze = servers_found.systemd_analyze()

    judged = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", FOLDER / unit],
        capture_output=True,
        text=True,
        check=False,
    )

    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.debian
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_knows_every_word_of_the_unit(unit: str, tmp_path: Path) -> None:
    analyze = servers_found.systemd_analyze()
    text = (FOLDER / unit).read_text("utf-8")
    assert "/opt/keyrotd/bin/keyrotd" in text
    # It wants the program to be there.
    (tmp_path / unit).write_text(text.replace("/opt/keyrotd/bin/keyrotd", "/bin/true"))

    verified = subprocess.run([analyze, "verify", tmp_path / unit], capture_output=True, text=True, check=False)

    assert (verified.returncode, verified.stderr) == (0, "")


def test_every_command_of_the_page_is_run_on_the_hosts() -> None:
    scripts = "".join(path.read_text("utf-8") for path in (booted.CHECKOUT / "tests/systemd").glob("node*.sh"))

    assert set(re.findall(r"^page \w+ (\S+)$", scripts, re.MULTILINE)) == set(booted.blocks())
