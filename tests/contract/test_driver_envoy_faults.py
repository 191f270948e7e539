"""Whatever is wrong with Envoy is told apart in words that hold no key, and no document that harms it is written."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.core.errors import ConfigError, InstallFailed
from keyrotd.core.keys import Keys, in_step
from keyrotd.core.stek import Scheme
from keyrotd.servers import files
from keyrotd.servers.envoy import EnvoyDriver
from keyrotd.servers.port import ServerUnreachable
from keyrotd.testing.driver import rotated, some_keys
from keyrotd.testing.envoy_twin import EnvoyTwin, Mood, write_strange_secret
from tests.leaks import Leaks

KEYS = some_keys(os.urandom, previous=1, ring="edge")


@pytest.fixture(params=["socket", "tcp"])
def twin(request: pytest.FixtureRequest) -> Iterator[EnvoyTwin]:
    with TemporaryDirectory(prefix="keyrotd") as directory:  # a Unix socket's path must be short
        twin = EnvoyTwin(Path(directory), tcp=request.param == "tcp")
        write_strange_secret(twin.key_file)
        twin.start()
        yield twin
        twin.stop()


@pytest.fixture
def driver(twin: EnvoyTwin) -> EnvoyDriver:
    return EnvoyDriver(name="edge", key_file=twin.key_file, admin=twin.admin, timeout_ms=5_000)


def test_an_absent_socket(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    nowhere = replace(driver, admin=str(twin.key_file.with_name("absent.sock")))

    assert_told(nowhere, "does not exist", "is Envoy running", ServerUnreachable)


def test_an_endpoint_that_nobody_listens_on(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    twin.stop()

    assert_told(driver, "refuses connections", "is Envoy running", ServerUnreachable)


@pytest.mark.parametrize("mood", [Mood.HANGS, Mood.DRIPS])
def test_an_endpoint_that_hangs(twin: EnvoyTwin, driver: EnvoyDriver, mood: Mood) -> None:
    twin.mood = mood

    assert_told(replace(driver, timeout_ms=100), "gave no answer within 100 ms", "is Envoy stopped", ServerUnreachable)


def test_an_endpoint_that_closes_without_a_word(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    twin.mood = Mood.CLOSES

    assert_told(driver, "closed without an answer", "see its log", ServerUnreachable)


@pytest.mark.parametrize("mood", [Mood.BABBLES, Mood.MUMBLES])
def test_an_answer_that_nobody_expects(twin: EnvoyTwin, driver: EnvoyDriver, mood: Mood) -> None:
    twin.mood = mood

    assert_told(driver, "gave an answer that keyrotd does not know (", "must be the admin endpoint of Envoy")


def test_an_endpoint_that_lets_only_some_paths_through(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    twin.mood = Mood.DENIES

    assert_told(driver, "answered /config_dump with status 403", "allow_paths")


def test_a_server_that_is_not_there_yet_gets_its_file(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    twin.stop()
    twin.key_file.unlink()

    with pytest.raises(ServerUnreachable):
        driver.install(KEYS)

    twin.start()
    assert in_step(replace(driver, admin=twin.admin).observe(), KEYS)


def test_a_server_that_does_not_watch_the_file_is_not_in_step(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    driver.install(KEYS)
    twin.mood = Mood.DEAF
    wanted = rotated(KEYS, os.urandom)

    with pytest.raises(InstallFailed, match=r"Envoy did not take it up within 100 ms$") as failed:
        replace(driver, timeout_ms=100).install(wanted)

    assert "name stek and this very path" in str(failed.value.hint)
    assert not in_step(driver.observe(), wanted)


@pytest.mark.parametrize(
    ("mood", "find", "hint"),
    [(Mood.REFUSES, "Envoy refused", "may show keys"), (Mood.BLIND, "Envoy cannot read", 'mode = "0640" and group')],
)
def test_a_server_that_refuses_its_file_says_so_and_keeps_its_keys(
    twin: EnvoyTwin, driver: EnvoyDriver, mood: Mood, find: str, hint: str
) -> None:
    driver.install(KEYS)
    held, twin.mood = twin.keys, mood
    wanted = rotated(KEYS, os.urandom)

    with pytest.raises(InstallFailed, match=rf"{find} .*stek\.json, and keeps the keys that it had") as failed:
        driver.install(wanted)

    assert hint in str(failed.value.hint)
    assert twin.keys == held
    assert not in_step(driver.observe(), wanted)


def test_without_statistics_versions_and_counts_of_keys_are_proof_enough(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    twin.mood = Mood.MUTE
    wanted = rotated(KEYS, os.urandom)
    driver.install(KEYS)

    driver.install(wanted)

    assert in_step(driver.observe(), wanted)
    assert not in_step(driver.observe(), KEYS)


def test_a_deadly_document_under_our_version_is_not_taken_for_ours(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    driver.install(KEYS)
    content = files.read(twin.key_file) or b""
    files.write(twin.key_file, content.replace(b"session_ticket_keys", b"session_ticket_keyz"))
    driver.observe()
    assert twin.keys is None
    twin.mood = Mood.DEAF
    files.write(twin.key_file, content)  # the file is good again, and Envoy has not seen it

    assert not in_step(driver.observe(), KEYS)
    with pytest.raises(InstallFailed, match="did not take it up within 100 ms, and resets TLS connections"):
        replace(driver, timeout_ms=100).install(KEYS)


def test_the_right_keys_under_a_foreign_version_are_written_anew_and_then_in_step(
    twin: EnvoyTwin, driver: EnvoyDriver
) -> None:
    """Envoy keeps the version of the last *change*, and only its counters tell of another that changed nothing."""
    driver.install(KEYS)
    response = json.loads(files.read(twin.key_file) or b"")
    write_strange_secret(twin.key_file)
    driver.observe()
    files.write(twin.key_file, json.dumps(response | {"version_info": "by hand"}).encode())
    assert not in_step(driver.observe(), KEYS)

    driver.install(KEYS)

    assert in_step(driver.observe(), KEYS)


def test_a_file_that_lets_the_wrong_people_in_is_found_and_mended(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    driver.install(KEYS)
    twin.key_file.chmod(0o644)

    assert not in_step(driver.observe(), KEYS)
    driver.install(KEYS)

    assert twin.key_file.stat().st_mode & 0o777 == 0o600
    assert in_step(driver.observe(), KEYS)


@pytest.mark.parametrize("told", [True, False])
def test_keys_that_make_no_sound_document_are_not_written(twin: EnvoyTwin, driver: EnvoyDriver, *, told: bool) -> None:
    before = files.read(twin.key_file)
    twins = Keys(current=KEYS.current, next=KEYS.current)

    with pytest.raises(InstallFailed, match="found no keys, or twins; wrote nothing"):
        (driver if told else replace(driver, admin=None)).install(twins)

    assert files.read(twin.key_file) == before


def test_without_an_admin_endpoint_the_file_is_what_is_seen(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    blind = replace(driver, admin=None)

    blind.install(KEYS)

    seen = blind.observe()
    assert in_step(seen, KEYS)
    assert [place.where for place in seen.places] == [str(twin.key_file)]
    assert blind.facts.notice_delay_ms > driver.facts.notice_delay_ms == 0


def test_a_file_that_cannot_be_written_is_told(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    twin.key_file.parent.chmod(0o777)

    with pytest.raises(InstallFailed, match=r"wants to lock .*, anybody may write in the directory") as failed:
        driver.install(KEYS)

    assert "readable by nobody else" in str(failed.value.hint)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"key_file": Path("rel.json")}, "server edge: key_file rel.json is not an absolute path"),
        ({"key_file": Path("/stek.yaml")}, "server edge: key_file /stek.yaml does not end in .json"),
        ({"secret": ""}, "server edge: secret '' is no name"),
        ({"secret": "a b"}, "server edge: secret 'a b' is no name"),
        ({"admin": "admin.sock"}, "server edge: admin admin.sock is neither http://HOST:PORT nor the absolute path"),
        ({"admin": "https://127.0.0.1:1"}, "server edge: admin https://127.0.0.1:1 is neither http://HOST:PORT nor"),
        ({"admin": "http://127.0.0.1"}, "server edge: admin http://127.0.0.1 is neither http://HOST:PORT nor"),
        ({"admin": "http://127.0.0.1:9/x"}, "server edge: admin http://127.0.0.1:9/x is neither http://HOST:PORT nor"),
        ({"admin": "http://me@[::1]:9"}, "server edge: admin http://me@[::1]:9 is neither http://HOST:PORT nor"),
        ({"admin": "http://127.0.0.1:99999"}, "server edge: admin http://127.0.0.1:99999 is no URL"),
        ({"admin": "http://10.0.0.1:9901"}, "server edge: admin http://10.0.0.1:9901 is not on loopback"),
        ({"admin": "http://envoy:9901"}, "server edge: admin http://envoy:9901 is not on loopback"),
        ({"admin": "/" + "s" * 107}, f"server edge: admin /{'s' * 107} is longer than 107 bytes"),
        ({"mode": 0o644}, "server edge: mode 0644 lets everybody in, or not even keyrotd"),
    ],
)
def test_a_section_that_cannot_work_is_refused(wrong: dict[str, object], fault: str) -> None:
    right: dict[str, object] = {"name": "edge", "key_file": Path("/stek.json")}

    with pytest.raises(ConfigError) as refused:
        EnvoyDriver(**(right | wrong))  # type: ignore[arg-type] # built from a section, as config.py does

    assert any(found.startswith(fault) for found, _ in refused.value.faults)


@pytest.mark.parametrize("admin", ["http://localhost:9901", "http://127.0.0.2:1", "http://[::1]:9901", "/run/a.sock"])
def test_an_endpoint_on_this_host_is_taken(admin: str) -> None:
    assert EnvoyDriver(name="edge", key_file=Path("/stek.json"), admin=admin).admin == admin


def assert_told(driver: EnvoyDriver, find: str, hint: str, kind: type[InstallFailed] = InstallFailed) -> None:
    """Both acts fail alike, in these words, and neither words nor hint show a key of ours."""
    wanted = rotated(KEYS, os.urandom)
    for act in (lambda: driver.install(wanted), driver.observe):
        with pytest.raises(InstallFailed) as failed:
            act()

        assert type(failed.value) is kind
        assert str(failed.value).startswith("server edge: ")
        assert find in str(failed.value)
        assert hint in (failed.value.hint or "")
        assert failed.value.__cause__ is None
        assert secrets_of(wanted).within(f"{failed.value!r} {failed.value.hint}".encode()) == set()


def secrets_of(keys: Keys) -> Leaks:
    found = {stek.name.hex(): stek.secrets(Scheme.AES256) for stek in keys.opening}
    return Leaks({f"{part} {name}": getattr(key, part) for name, key in found.items() for part in ("aes", "hmac")})


def test_a_count_that_no_envoy_has_is_no_count(twin: EnvoyTwin, driver: EnvoyDriver) -> None:
    """Whoever answers in Envoy's place may answer anything: Python refuses numbers of more than 4,300 digits."""
    driver.install(KEYS)
    twin.boasts["update_success"] = "9" * 5000

    assert in_step(driver.observe(), KEYS)
