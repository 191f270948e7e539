"""Whatever is wrong with HAProxy is told apart in words that hold no key, and its keys stay as they were."""

import base64
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.core.errors import ConfigError, InstallFailed
from keyrotd.core.keys import Keys, in_step
from keyrotd.core.stek import Scheme, Stek
from keyrotd.servers import files
from keyrotd.servers.haproxy import RETRIES, HAProxyDriver
from keyrotd.servers.port import ServerUnreachable
from keyrotd.testing.driver import rotated, some_keys
from keyrotd.testing.haproxy_twin import HAProxyTwin, Mood, write_strange_keys
from tests.mounts import mounted

KEYS = some_keys(os.urandom, previous=1, ring="edge")


@pytest.fixture
def twin() -> Iterator[HAProxyTwin]:
    with TemporaryDirectory(prefix="keyrotd") as directory:  # a Unix socket's path must be short
        twin = HAProxyTwin(Path(directory, "twin"))
        write_strange_keys(twin.key_file)
        twin.start()
        yield twin
        twin.stop()


@pytest.fixture
def driver(twin: HAProxyTwin) -> HAProxyDriver:
    return HAProxyDriver(name="edge", socket=(twin.socket,), key_file=(twin.key_file,), timeout_ms=5_000)


def test_an_absent_socket(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.stop()
    twin.socket.unlink()

    assert_told(driver, "does not exist", "is HAProxy running", ServerUnreachable)


def test_a_socket_that_nobody_listens_on(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.stop()

    assert_told(driver, "is there and nobody listens", "is HAProxy running", ServerUnreachable)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_socket_that_lets_us_not_in(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.socket.chmod(0o600)
    twin.socket.parent.chmod(0o755)
    twin.socket.parent.parent.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ServerUnreachable, match="may not be opened: permission denied") as refused:
            driver.observe()
    finally:
        os.seteuid(0)

    assert "level admin mode 660 group" in str(refused.value.hint)


@pytest.mark.parametrize("mood", [Mood.HANGS, Mood.DRIPS])
def test_a_server_that_hangs(twin: HAProxyTwin, driver: HAProxyDriver, mood: Mood) -> None:
    twin.mood = mood
    impatient = HAProxyDriver(name="edge", socket=driver.socket, key_file=driver.key_file, timeout_ms=30)

    assert_told(impatient, "gave no answer within 30 ms", "is HAProxy stopped", ServerUnreachable)


def test_a_server_that_closes_without_a_word(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.mood = Mood.CLOSES

    assert_told(driver, "closed without an answer", "see its log", ServerUnreachable)


def test_a_key_file_that_haproxy_does_not_use(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    elsewhere = twin.key_file.with_name("misspelt.keys")
    misspelt = HAProxyDriver(name="edge", socket=driver.socket, key_file=(elsewhere,))

    assert_told(misspelt, "knows no such key file", "letter by letter")
    assert elsewhere.exists()


def test_an_answer_that_nobody_expects(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.mood = Mood.BABBLES

    assert_told(driver, "gave an answer that keyrotd does not know (", "worker's `stats socket`")


def test_a_socket_without_the_right_level(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.mood = Mood.DENIES

    assert_told(driver, "may not be asked for keys", "level admin")


def test_the_master_socket(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.mood = Mood.MASTER

    assert_told(driver, "does not know the commands for ticket keys", "not the master's")


def test_a_server_that_lies_is_caught_by_the_read_back(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    before = ring_of(twin)
    twin.mood = Mood.LIES

    with pytest.raises(InstallFailed, match=r"was given the keys of .* and shows others"):
        driver.install(KEYS)

    assert ring_of(twin) == before


def test_a_server_that_does_not_say_that_it_took_the_keys(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.mood = Mood.MUMBLES

    with pytest.raises(InstallFailed, match="wants 3 keys taken, HAProxy took 0"):
        driver.install(KEYS)


def test_somebody_else_who_pushes_once_is_overruled(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    turns = iter([True])

    def push_once() -> None:
        if next(turns, False):
            twin.push(twin.key_file, os.urandom(80))

    twin.meddler = push_once

    driver.install(KEYS)

    assert in_step(driver.observe(), KEYS)


def test_somebody_else_who_does_not_stop_pushing_is_told(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.meddler = lambda: twin.push(twin.key_file, os.urandom(80))

    with pytest.raises(InstallFailed, match=r"was given the keys of .* and shows others") as failed:
        driver.install(KEYS)

    assert "somebody else pushes keys" in str(failed.value.hint)
    assert twin.pushes == 3 * (1 + RETRIES)


def test_a_ring_of_48_byte_keys_keeps_them_and_heals_by_a_reload(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    write_strange_keys(twin.key_file, size=48)
    twin.reload()
    before = ring_of(twin)

    assert {place.scheme for place in driver.observe().places} == {Scheme.AES128}
    with pytest.raises(InstallFailed, match=r"wants 80-byte keys, .* holds 48-byte keys") as failed:
        driver.install(KEYS)

    assert "restart HAProxy once" in str(failed.value.hint)
    assert ring_of(twin) == before
    twin.reload()
    assert in_step(driver.observe(), KEYS)


def test_a_broken_server_does_not_keep_the_other_from_its_keys(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    absent = twin.socket.with_name("absent.sock")
    both = HAProxyDriver(name="edge", socket=(absent, twin.socket), key_file=driver.key_file)

    with pytest.raises(ServerUnreachable, match=r"absent\.sock does not exist"):
        both.install(KEYS)

    assert in_step(driver.observe(), KEYS)


def test_two_faults_are_both_told(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.mood = Mood.DENIES
    absent = twin.socket.with_name("absent.sock")
    both = HAProxyDriver(name="edge", socket=(absent, twin.socket), key_file=driver.key_file)

    with pytest.raises(InstallFailed, match=r"absent\.sock does not exist; .* may not be asked for keys") as failed:
        both.install(KEYS)

    assert not isinstance(failed.value, ServerUnreachable)


def test_a_server_that_is_not_there_yet_gets_its_file(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    twin.stop()
    twin.key_file.unlink()

    with pytest.raises(ServerUnreachable):
        driver.install(KEYS)

    twin.start()
    assert in_step(driver.observe(), KEYS)


def test_a_server_built_for_more_slots_can_start_from_the_file(twin: HAProxyTwin) -> None:
    absent = twin.socket.with_name("absent.sock")
    first = HAProxyDriver(name="edge", socket=(absent,), key_file=(twin.key_file,), slots=6)
    later = HAProxyDriver(name="edge", socket=(absent,), key_file=(twin.key_file,))

    for driver in (first, later):
        with pytest.raises(ServerUnreachable):
            driver.install(KEYS)

        assert len(twin.key_file.read_bytes().splitlines()) == 6


def test_a_file_that_cannot_be_written_leaves_memory_alone(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    before = ring_of(twin)
    twin.key_file.parent.chmod(0o777)

    with pytest.raises(InstallFailed, match=r"wants to lock .*, anybody may write in the directory") as failed:
        driver.install(KEYS)

    assert "readable by nobody else" in str(failed.value.hint)
    assert ring_of(twin) == before


def test_a_full_directory_leaves_file_and_memory_alone(twin: HAProxyTwin, tmp_path: Path) -> None:
    driver = HAProxyDriver(name="edge", socket=(twin.socket,), key_file=(tmp_path / "tickets.keys",))
    with mounted(tmp_path, read_only=False):
        (tmp_path / "tickets.keys").write_bytes(b"old")
        with suppress(OSError):
            (tmp_path / "filler").write_bytes(bytes(65536))
        before = ring_of(twin)

        with pytest.raises(InstallFailed, match=r"wants to write .*, no space left on device") as failed:
            driver.install(KEYS)

        assert failed.value.hint == "free some room; keys take a few KiB"
        assert (tmp_path / "tickets.keys").read_bytes() == b"old"
        assert {path.name for path in tmp_path.iterdir()} <= {"tickets.keys", "filler", ".tickets.keys.lock"}
        assert ring_of(twin) == before


def test_a_read_only_directory_is_told(twin: HAProxyTwin, tmp_path: Path) -> None:
    driver = HAProxyDriver(name="edge", socket=(twin.socket,), key_file=(tmp_path / "tickets.keys",))

    with (
        mounted(tmp_path, read_only=True),
        pytest.raises(InstallFailed, match="read-only file system") as failed,
    ):
        driver.install(KEYS)

    assert "ReadWritePaths=" in str(failed.value.hint)


def test_a_directory_that_is_not_there(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    nowhere = HAProxyDriver(name="edge", socket=driver.socket, key_file=(twin.key_file.parent / "no" / "k",))

    with pytest.raises(InstallFailed, match="no such file or directory") as failed:
        nowhere.install(KEYS)

    assert "make the directory first" in str(failed.value.hint)


def test_a_lock_that_is_held_for_too_long(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    impatient = HAProxyDriver(name="edge", socket=driver.socket, key_file=driver.key_file, timeout_ms=20)

    with (
        files.locked(twin.key_file, 0),
        pytest.raises(InstallFailed, match=r"wants to lock .*, another keyrotd holds the lock"),
    ):
        impatient.install(KEYS)

    assert twin.pushes == 0


def test_two_agents_at_once_do_not_mix_their_keys(twin: HAProxyTwin, driver: HAProxyDriver) -> None:
    others = some_keys(os.urandom, previous=1, ring="edge")
    agents = [threading.Thread(target=driver.install, args=(keys,)) for keys in (KEYS, others) * 4]

    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join()

    seen = driver.observe()
    assert in_step(seen, KEYS) or in_step(seen, others)
    assert twin.pushes % 3 == 0


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"socket": ()}, "server edge: socket is empty"),
        ({"socket": (Path("rel.sock"),)}, "server edge: socket rel.sock is not an absolute path"),
        ({"socket": (Path("/" + "s" * 107),)}, f"server edge: socket /{'s' * 107} is longer than 107 bytes"),
        ({"key_file": (Path("/k"), Path("/k"))}, "server edge: key_file names a path twice"),
        ({"key_file": (Path("/a;b"),)}, "server edge: key_file /a;b has a character that HAProxy's command line"),
        ({"key_file": (Path("/a b"),)}, "server edge: key_file /a b has a character that HAProxy's command line"),
        ({"key_file": (Path("/a\nb"),)}, "server edge: key_file /a\nb has a character that HAProxy's command line"),
        ({"mode": 0o644}, "server edge: mode 0644 lets everybody in, or not even keyrotd"),
        ({"slots": 2}, "server edge: slots 2 is not within 3 and 64"),
    ],
)
def test_a_section_that_cannot_work_is_refused(wrong: dict[str, object], fault: str) -> None:
    right: dict[str, object] = {"name": "edge", "socket": (Path("/s"),), "key_file": (Path("/k"),)}

    with pytest.raises(ConfigError) as refused:
        HAProxyDriver(**(right | wrong))  # type: ignore[arg-type] # built from a section, as config.py does

    assert any(found.startswith(fault) for found, _ in refused.value.faults)


def assert_told(driver: HAProxyDriver, find: str, hint: str | None, kind: type[InstallFailed] = InstallFailed) -> None:
    """Both acts fail alike, in these words, and neither words nor hint show a key of ours."""
    for act in (lambda: driver.install(rotated(KEYS, os.urandom)), driver.observe):
        with pytest.raises(InstallFailed) as failed:
            act()

        assert type(failed.value) is kind
        assert str(failed.value).startswith("server edge: ")
        assert find in str(failed.value)
        assert (hint or "") in (failed.value.hint or "")
        assert failed.value.__cause__ is None
        assert_no_key_in(f"{failed.value!r} {failed.value.hint}", KEYS)


def assert_no_key_in(text: str, keys: Keys) -> None:
    for stek in keys.opening:
        for secret in secrets_of(stek):
            assert secret.hex() not in text
            assert base64.b64encode(secret).decode().rstrip("=") not in text


def secrets_of(stek: Stek) -> tuple[bytes, bytes]:
    found = stek.secrets(Scheme.AES256)
    return found.aes, found.hmac


def ring_of(twin: HAProxyTwin) -> list[bytes]:
    return list(twin.rings[str(twin.key_file)])
