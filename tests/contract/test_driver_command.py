"""What a command was not done with does not count, it runs no more often than allowed, and nothing leaks into it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from keyrotd.core.errors import ConfigError, InstallFailed
from keyrotd.core.keys import in_step
from keyrotd.servers.command import CommandDriver
from keyrotd.testing.children import wait_until
from keyrotd.testing.driver import rotated, some_keys

KEYS = some_keys(os.urandom, previous=1)
NEWER = rotated(KEYS, os.urandom)


@dataclass
class Clock:
    now_at: int = 1_000_000

    def __call__(self) -> int:
        return self.now_at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(tmp_path: Path, clock: Clock) -> CommandDriver:
    """Its command notes each run in `runs`, and ends with the code that `code` says."""
    (tmp_path / "code").write_text("0")
    program(tmp_path / "reload", f'echo run >> {tmp_path}/runs; exit "$(cat {tmp_path}/code)"')
    return CommandDriver(
        name="web",
        key_file=tmp_path / "tickets.key",
        layout="ats48",
        command=(str(tmp_path / "reload"),),
        min_interval_ms=10_000,
        clock=clock,
    )


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def runs(driver: CommandDriver) -> int:
    noted = driver.key_file.with_name("runs")
    return len(noted.read_text().splitlines()) if noted.exists() else 0


def test_keys_are_installed_once_the_command_was_done(driver: CommandDriver) -> None:
    driver.install(KEYS)
    driver.install(KEYS)

    assert in_step(driver.observe(), KEYS)
    assert runs(driver) == 1


def test_before_the_first_install_it_holds_nothing(driver: CommandDriver) -> None:
    assert [place.seals for place in driver.observe().places] == [None, None]


def test_a_command_that_ended_badly_does_not_count(driver: CommandDriver, clock: Clock) -> None:
    driver.key_file.with_name("code").write_text("7")

    with pytest.raises(InstallFailed, match=r"server web: .*/reload ended with code 7"):
        driver.install(KEYS)

    assert not in_step(driver.observe(), KEYS)
    driver.key_file.with_name("code").write_text("0")
    clock.now_at += 10_000
    driver.install(KEYS)
    assert in_step(driver.observe(), KEYS)


def test_a_command_is_not_run_more_often_than_allowed(driver: CommandDriver, clock: Clock) -> None:
    driver.install(KEYS)
    clock.now_at += 9_999

    with pytest.raises(InstallFailed, match=r"wrote the keys, .*/reload runs in 1 ms$"):
        driver.install(NEWER)

    assert runs(driver) == 1
    assert not in_step(driver.observe(), NEWER)
    clock.now_at += 1
    driver.install(NEWER)
    assert in_step(driver.observe(), NEWER)
    assert runs(driver) == 2


def test_a_command_that_fails_is_not_hammered(driver: CommandDriver, clock: Clock) -> None:
    driver.key_file.with_name("code").write_text("1")

    for _ in range(5):
        clock.now_at += 1_000
        with pytest.raises(InstallFailed):
            driver.install(KEYS)

    assert runs(driver) == 1


def test_a_clock_set_back_does_not_hold_the_command_up(driver: CommandDriver, clock: Clock) -> None:
    driver.install(KEYS)
    clock.now_at -= 3_600_000

    driver.install(NEWER)

    assert in_step(driver.observe(), NEWER)


def test_the_interval_outlives_the_agent(driver: CommandDriver) -> None:
    driver.install(KEYS)
    restarted = replace(driver)

    assert in_step(restarted.observe(), KEYS)
    with pytest.raises(InstallFailed, match="runs in 10000 ms"):
        restarted.install(NEWER)


def test_keys_written_and_not_yet_taken_do_not_count_even_when_the_old_ones_return(driver: CommandDriver) -> None:
    driver.install(KEYS)
    with pytest.raises(InstallFailed):
        driver.install(NEWER)

    with pytest.raises(InstallFailed, match="runs in"):
        driver.install(KEYS)  # the server may have started from NEWER's file meanwhile

    assert not in_step(driver.observe(), KEYS)


def test_a_crash_between_file_and_command_does_not_count(driver: CommandDriver, clock: Clock) -> None:
    looks = iter([clock.now_at + 10_000])

    def dies_at_the_second_look() -> int:
        return next(looks)

    driver.install(KEYS)
    clock.now_at += 10_000

    with pytest.raises(StopIteration):
        replace(driver, clock=dies_at_the_second_look).install(NEWER)

    assert not in_step(driver.observe(), KEYS)
    assert not in_step(driver.observe(), NEWER)
    driver.install(NEWER)
    assert in_step(driver.observe(), NEWER)


@pytest.mark.parametrize("record", [b"", b"garbage", b"1\nzz\n", b"\xff", b"12", b"-1\n", b"1\nABCD\n"])
def test_a_record_that_is_not_ours_counts_as_never_ran(driver: CommandDriver, record: bytes) -> None:
    driver.install(KEYS)

    driver.key_file.with_name(".tickets.key.installed").write_bytes(record)

    assert not in_step(driver.observe(), KEYS)
    driver.install(KEYS)
    assert in_step(driver.observe(), KEYS)


def test_the_record_holds_no_key(driver: CommandDriver) -> None:
    driver.install(KEYS)

    record = driver.key_file.with_name(".tickets.key.installed").read_text()

    for stek in KEYS.opening:
        secrets = stek.secrets(driver.facts.scheme)
        assert secrets.fingerprint.hex() in record
        assert secrets.aes.hex() not in record
        assert secrets.hmac.hex() not in record


@pytest.mark.parametrize("text", ["", "garbage", None])
def test_a_file_changed_by_hand_is_drift_and_repaired(driver: CommandDriver, clock: Clock, text: str | None) -> None:
    driver.install(KEYS)

    if text is None:
        driver.key_file.unlink()
    else:
        driver.key_file.write_text(text)

    assert not in_step(driver.observe(), KEYS)
    clock.now_at += 10_000
    driver.install(KEYS)
    assert in_step(driver.observe(), KEYS)


def test_a_command_that_hangs_is_ended_with_its_children(driver: CommandDriver, tmp_path: Path) -> None:
    program(
        tmp_path / "reload",
        f"sleep 600 & echo $! > {tmp_path}/child.new; mv {tmp_path}/child.new {tmp_path}/child; wait",
    )
    impatient = replace(driver, timeout_ms=1_000)

    with pytest.raises(InstallFailed, match="did not end within 1000 ms and was killed"):
        impatient.install(KEYS)

    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    wait_until(
        lambda: not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z", "the child is gone"
    )
    assert not in_step(impatient.observe(), KEYS)


def test_a_program_that_is_not_there_is_told(driver: CommandDriver) -> None:
    with pytest.raises(InstallFailed, match="wants to run /no/such/program, no such file or directory"):
        replace(driver, command=("/no/such/program",)).install(KEYS)


def test_the_command_gets_nothing_of_ours(
    driver: CommandDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYROTD_CONFIG", "/secret/place")
    program(
        tmp_path / "reload",
        f"cd {tmp_path}; env > env; ls /proc/self/fd > fds; readlink /proc/self/fd/0 > stdin; echo secret",
    )

    driver.install(KEYS)

    environment = (tmp_path / "env").read_text()
    assert "KEYROTD" not in environment
    assert {line.partition("=")[0] for line in environment.splitlines()} <= {
        "PATH",
        "LC_ALL",
        "PWD",
        "OLDPWD",
        "_",
        "SHLVL",
    }
    assert (tmp_path / "stdin").read_text().strip() == "/dev/null"
    assert len((tmp_path / "fds").read_text().split()) <= 4  # and one that ls itself opens


def test_no_shell_reads_the_arguments(driver: CommandDriver, tmp_path: Path) -> None:
    program(tmp_path / "reload", f'echo "$1" > {tmp_path}/argument')

    replace(driver, command=(str(tmp_path / "reload"), "$(id); *")).install(KEYS)

    assert (tmp_path / "argument").read_text() == "$(id); *\n"


def test_each_key_has_a_file_where_the_server_wants_it(driver: CommandDriver, tmp_path: Path) -> None:
    split = replace(driver, key_file=tmp_path / "nginx.{n}.key", layout="nginx80-files", slots=4)

    split.install(KEYS)

    assert sorted(path.name for path in tmp_path.glob("nginx*")) == [f"nginx.{n}.key" for n in range(4)]
    assert (tmp_path / "nginx.0.key").read_bytes()[:16] == KEYS.current.name
    assert in_step(split.observe(), KEYS)


def test_keys_written_first_are_there_when_the_command_cannot_run(driver: CommandDriver) -> None:
    driver.key_file.with_name("code").write_text("1")

    with pytest.raises(InstallFailed):
        driver.install(KEYS)

    assert driver.key_file.read_bytes()[:16] == KEYS.current.name


def test_a_place_that_cannot_be_written_is_told_and_nothing_runs(driver: CommandDriver, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(InstallFailed, match="anybody may write in the directory"):
        driver.install(KEYS)

    assert runs(driver) == 0


def test_its_facts_say_reload_and_how_late_it_may_be(driver: CommandDriver) -> None:
    assert driver.facts.reloads
    assert not driver.facts.ring_buffer
    assert driver.facts.notice_delay_ms == 10_000 + 30_000


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"layout": "nginx8"}, "server web: layout nginx8 is not known"),
        ({"layout": "nginx80-files"}, "server web: key_file /k lacks a {n}"),
        ({"key_file": Path("/k.{n}")}, "server web: key_file /k.{n} has a {n}"),
        ({"key_file": Path("k")}, "server web: key_file k is not an absolute path"),
        ({"command": ()}, "server web: command must begin with the absolute path of a program"),
        ({"command": ("systemctl", "reload")}, "server web: command must begin with the absolute path of a program"),
        ({"slots": 1}, "server web: slots 1 is not within 2 and 64"),
        ({"layout": "haproxy80-lines", "slots": 2}, "server web: slots 2 is not within 3 and 64"),
        ({"mode": 0o604}, "server web: mode 0604 lets everybody in, or not even keyrotd"),
    ],
)
def test_a_section_that_cannot_work_is_refused(wrong: dict[str, object], fault: str) -> None:
    right: dict[str, object] = {"name": "web", "key_file": Path("/k"), "layout": "ats48", "command": ("/bin/true",)}

    with pytest.raises(ConfigError) as refused:
        CommandDriver(**(right | wrong))  # type: ignore[arg-type] # built from a section, as config.py does

    assert [found for found, _ in refused.value.faults] == [fault]
