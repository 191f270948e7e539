"""The driver of servers with a reader of ours inside believes living processes alone, and says which are behind."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.core.errors import ConfigError, InstallFailed
from keyrotd.core.keys import Keys, Place, Tenure, in_step
from keyrotd.servers.inprocess import NginxDriver
from keyrotd.servers.port import ServerUnreachable
from keyrotd.testing.children import wait_until
from keyrotd.testing.driver import rotated, some_keys
from keyrotd.testing.reader_twin import ReaderTwin


@pytest.fixture
def twin(tmp_path: Path) -> ReaderTwin:
    return ReaderTwin(tmp_path / "twin")


def driver_of(twin: ReaderTwin, *, timeout_ms: int = 3_000) -> NginxDriver:
    return NginxDriver(name="edge", key_file=twin.key_file, ack_dir=twin.ack_dir, timeout_ms=timeout_ms)


def keys_until(twin: ReaderTwin, *, seals_ms: int | None, opens_ms: int | None, epoch: int = 7) -> Keys:
    """Keys with bounds so many ms from now."""
    now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    tenure = Tenure(
        boot_id=twin.boot_id,
        epoch=epoch,
        step=0,
        seals_until_ms=None if seals_ms is None else now_ms + seals_ms,
        opens_until_ms=None if opens_ms is None else now_ms + opens_ms,
    )
    return replace(some_keys(os.urandom, previous=1), tenure=tenure)


def test_each_process_and_the_file_is_a_place(twin: ReaderTwin) -> None:
    driver = driver_of(twin)
    with twin:
        driver.install(some_keys(os.urandom, previous=1))
        seen = driver.observe()

    assert [place.where for place in seen.places] == [str(twin.key_file), "process 101", "process 102"]
    assert seen.instance == "100/101,100/102"


def test_the_tenure_is_read_back(twin: ReaderTwin) -> None:
    driver, keys = driver_of(twin), keys_until(twin, seals_ms=60_000, opens_ms=None)
    with twin:
        driver.install(keys)
        seen = driver.observe()

        assert in_step(seen, keys)
        assert {place.tenure for place in seen.places} == {keys.tenure}
        assert not in_step(seen, replace(keys, tenure=None))
        driver.install(replace(keys, tenure=None))
        assert in_step(driver.observe(), replace(keys, tenure=None))


def test_a_process_that_may_no_longer_seal_is_not_in_step(twin: ReaderTwin) -> None:
    driver, keys = driver_of(twin), keys_until(twin, seals_ms=500, opens_ms=None)
    with twin:
        driver.install(keys)

        wait_until(
            lambda: [place.seals for place in driver.observe().places[1:]] == [None, None], "its processes stop sealing"
        )

        assert not in_step(driver.observe(), keys)


def test_a_server_that_is_down_gets_its_file_and_is_told_unreachable(twin: ReaderTwin) -> None:
    driver, keys = driver_of(twin), some_keys(os.urandom, previous=1)

    with pytest.raises(ServerUnreachable, match="nobody does"):
        driver.install(keys)
    with pytest.raises(ServerUnreachable, match="nobody does"):
        driver.observe()

    with twin:
        assert in_step(driver.observe(), keys)


def test_a_directory_of_acknowledgements_that_is_missing_is_told(twin: ReaderTwin) -> None:
    twin.ack_dir.rmdir()

    with pytest.raises(ServerUnreachable, match="acks acknowledges, no such file"):
        driver_of(twin).observe()


def test_a_process_that_lags_behind_is_told_and_shown(twin: ReaderTwin) -> None:
    driver, keys = driver_of(twin, timeout_ms=200), some_keys(os.urandom, previous=1)
    with twin:
        driver.install(keys)
        wanted = rotated(keys, os.urandom)
        twin.deaf.add(102)

        with pytest.raises(InstallFailed, match="after 200 ms 1 of 2 processes have not taken it"):
            driver.install(wanted)

        assert not in_step(driver.observe(), wanted)
        assert driver.observe().places[2] == Place("process 102", driver.layout.scheme, None, frozenset(), 96)
        twin.deaf.clear()
        driver.install(wanted)
        assert in_step(driver.observe(), wanted)


def test_a_process_that_can_no_longer_read_the_file_is_told_while_its_keys_are_still_right(twin: ReaderTwin) -> None:
    driver, keys = driver_of(twin, timeout_ms=200), some_keys(os.urandom, previous=1)
    with twin:
        driver.install(keys)
        twin.blind.add(102)

        wait_until(lambda: not in_step(driver.observe(), keys), "it finds fault with the file")
        with pytest.raises(InstallFailed, match="1 of 2 processes have not taken it: bad-file"):
            driver.install(keys)

        twin.blind.clear()
        driver.install(keys)
        assert in_step(driver.observe(), keys)


def test_why_a_process_refuses_is_told(twin: ReaderTwin) -> None:
    driver = driver_of(twin, timeout_ms=200)
    with twin:
        driver.install(keys_until(twin, seals_ms=None, opens_ms=None, epoch=7))

        with pytest.raises(InstallFailed, match="2 of 2 processes have not taken it: older") as failed:
            driver.install(keys_until(twin, seals_ms=None, opens_ms=None, epoch=6))

    assert "another ring" in (failed.value.hint or "")


def test_a_process_that_is_missing_is_missed(twin: ReaderTwin) -> None:
    driver, keys = driver_of(twin, timeout_ms=200), some_keys(os.urandom, previous=1)
    with twin:
        driver.install(keys)
        twin.processes = 3
        wait_until(lambda: not in_step(driver.observe(), keys), "they say that one is missing")

        assert driver.observe().places[-1].where == "1 more of its processes"
        with pytest.raises(InstallFailed, match="0 of 2 processes have not taken it, 1 more are missing"):
            driver.install(keys)


def test_a_file_that_somebody_changed_is_found_and_mended(twin: ReaderTwin) -> None:
    driver, keys = driver_of(twin), some_keys(os.urandom, previous=1)
    with twin:
        driver.install(keys)
        for meddle in (
            lambda: twin.key_file.write_bytes(b"nonsense"),
            twin.key_file.unlink,
            lambda: twin.key_file.chmod(0o600),
        ):
            meddle()
            assert not in_step(driver.observe(), keys)

            driver.install(keys)

            assert in_step(driver.observe(), keys)


def test_more_keys_than_a_file_holds_are_cut(twin: ReaderTwin) -> None:
    driver, keys = driver_of(twin), some_keys(os.urandom, previous=120)
    with twin:
        driver.install(keys)

        assert in_step(driver.observe(), keys)
        assert len(driver.observe().places[1].opens) == 96


def test_a_section_that_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        NginxDriver(name="edge", key_file=Path("keys/tickets"), ack_dir=Path("keys"), mode=0o660)

    assert [fault for fault, _ in refused.value.faults] == [
        "server edge: key_file keys/tickets is not an absolute path",
        "server edge: ack_dir keys is not an absolute path",
        "server edge: ack_dir keys is where key_file lies",
        "server edge: mode 0660 lets too many in, or not even keyrotd",
    ]
