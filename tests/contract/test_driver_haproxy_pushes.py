"""Of each ring only the tail that it lacks is pushed; every change ends in the ring that is wanted, byte for byte."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.core.keys import Keys, in_step
from keyrotd.core.stek import Stek
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.servers.layouts import HAPROXY80, encode_lines
from keyrotd.servers.ring import ring
from keyrotd.testing.haproxy_twin import HAProxyTwin, write_strange_keys

STEKS = tuple(Stek(bytes(range(n, n + 31)) + b"\x99", "edge") for n in range(20))


def window(epoch: int) -> Keys:
    """Epoch n of a ring that rotated ever since: n seals."""
    return Keys(current=STEKS[epoch], next=STEKS[epoch + 1], previous=(STEKS[epoch - 1],))


#: From one to the next, and how many keys that takes. Ten transitions, as they were measured on 2.6 and 2.8.
TRANSITIONS: tuple[tuple[str, Keys, int], ...] = (
    ("the same", window(1), 0),
    ("one epoch on", window(2), 1),
    ("the same again", window(2), 0),
    ("two epochs on", window(4), 2),
    ("an unknown window", window(10), 3),
    ("one epoch on", window(11), 1),
    ("two epochs on", window(13), 2),
    ("back", window(11), 3),
    ("no previous key", replace(window(11), previous=()), 3),
    ("one epoch on, from there", window(12), 1),
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A Unix socket's path must be short."""
    with TemporaryDirectory(prefix="keyrotd") as directory:
        yield Path(directory)


@pytest.fixture
def twin(directory: Path) -> Iterator[HAProxyTwin]:
    twin = HAProxyTwin(directory / "twin")
    write_strange_keys(twin.key_file)
    twin.start()
    yield twin
    twin.stop()


def driver_of(twin: HAProxyTwin) -> HAProxyDriver:
    return HAProxyDriver(name="edge", socket=(twin.socket,), key_file=twin.key_files)


def test_each_transition_takes_the_fewest_pushes(twin: HAProxyTwin) -> None:
    driver = driver_of(twin)
    driver.install(window(1))
    taken = []

    for _, keys, _ in TRANSITIONS:
        before = twin.pushes
        driver.install(keys)
        taken.append(twin.pushes - before)
        assert in_step(driver.observe(), keys)

    assert taken == [pushes for _, _, pushes in TRANSITIONS]


def test_file_and_memory_end_byte_for_byte_equal(twin: HAProxyTwin) -> None:
    driver = driver_of(twin)

    for _, keys, _ in TRANSITIONS:
        driver.install(keys)

        wanted = [stek.secrets(HAPROXY80.scheme) for stek in ring(keys, 3)]
        assert twin.rings[str(twin.key_file)] == [HAPROXY80.encode(secrets) for secrets in wanted]
        assert twin.key_file.read_bytes() == encode_lines(HAPROXY80, wanted)


def test_a_key_lost_by_a_reload_is_found_and_the_file_brings_it_back(twin: HAProxyTwin) -> None:
    driver = driver_of(twin)
    driver.install(window(1))
    before = driver.observe()

    twin.reload()

    after = driver.observe()
    assert in_step(after, window(1))
    assert after.instance != before.instance


def test_a_container_that_starts_again_with_the_same_pid_is_another_instance(twin: HAProxyTwin) -> None:
    before = driver_of(twin).observe().instance

    twin.reload()
    twin.pid -= 1

    assert driver_of(twin).observe().instance != before


def test_a_reload_from_another_file_is_drift(twin: HAProxyTwin) -> None:
    driver = driver_of(twin)
    driver.install(window(1))

    write_strange_keys(twin.key_file)
    twin.reload()

    assert not in_step(driver.observe(), window(1))
    driver.install(window(1))
    assert in_step(driver.observe(), window(1))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda file: file.unlink(), id="deleted"),
        pytest.param(lambda file: file.write_bytes(b""), id="emptied"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes() + b"\n"), id="blank line added"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-1]), id="cut"),
        pytest.param(lambda file: file.write_bytes(b"A" * 106 + b"E=\n" + file.read_bytes()), id="a fourth key"),
        pytest.param(write_strange_keys, id="other keys"),
        pytest.param(lambda file: write_strange_keys(file, size=48), id="other size"),
        pytest.param(lambda file: file.chmod(0o644), id="opened to all"),
    ],
)
def test_a_file_changed_by_hand_is_drift_and_repaired_without_a_push(
    twin: HAProxyTwin, spoil: Callable[[Path], None]
) -> None:
    driver = driver_of(twin)
    driver.install(window(1))
    pushes = twin.pushes

    spoil(twin.key_file)

    assert not in_step(driver.observe(), window(1))
    driver.install(window(1))
    assert in_step(driver.observe(), window(1))
    assert twin.key_file.stat().st_mode & 0o777 == 0o600
    assert twin.pushes == pushes


def test_the_running_ring_tells_its_size(directory: Path) -> None:
    twin = HAProxyTwin(directory / "six", slots=6)
    write_strange_keys(twin.key_file, count=6)
    twin.start()
    keys = Keys(current=STEKS[5], next=STEKS[6], previous=tuple(reversed(STEKS[:5])))

    try:
        driver_of(twin).install(keys)
    finally:
        twin.stop()

    assert twin.rings[str(twin.key_file)] == [HAPROXY80.encode(stek.secrets(HAPROXY80.scheme)) for stek in STEKS[1:7]]
    assert len(twin.key_file.read_bytes().splitlines()) == 6


def test_several_sockets_and_several_files_all_get_the_keys(directory: Path) -> None:
    one = HAProxyTwin(directory / "one", key_files=("a.keys", "b.keys"))
    two = HAProxyTwin(directory / "two")
    two.key_files = one.key_files
    for key_file in one.key_files:
        write_strange_keys(key_file)
    for twin in (one, two):
        twin.start()
    driver = HAProxyDriver(name="edge", socket=(one.socket, two.socket), key_file=one.key_files)

    try:
        driver.install(window(3))
        seen = driver.observe()
    finally:
        one.stop()
        two.stop()

    assert in_step(seen, window(3))
    assert len(seen.places) == 4 + 2
    assert one.rings == two.rings


def test_mode_of_the_file_is_as_configured(twin: HAProxyTwin) -> None:
    driver = replace(driver_of(twin), mode=0o640)

    driver.install(window(1))

    assert twin.key_file.stat().st_mode & 0o777 == 0o640
    assert in_step(driver.observe(), window(1))
