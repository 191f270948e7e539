"""Whatever is wrong with its key file, a real Traffic Server goes on with the keys that it has, and says it once."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from keyrotd.core.stek import Scheme
from keyrotd.servers.keyfile import KeyFile, digest
from keyrotd.servers.layouts import NGINX80
from keyrotd.testing.children import wait_until
from keyrotd.testing.trafficserver import TrafficServer
from keyrotd.tls.handshake import Version
from tests.trafficservers import CLOCK, Stage, ack, running, some_steks, write

pytestmark = pytest.mark.debian

each_version = pytest.mark.parametrize("version", Version, ids=lambda version: version.value)

_POLL_MS = 50

_UNSEEN = "the agent cannot see what is installed"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with running(1, poll_ms=_POLL_MS, alone=True) as stage:
        yield stage


def _flipped(content: bytes) -> bytes:
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


FAULTS: dict[str, tuple[Callable[[Path, KeyFile], None], str]] = {
    "missing": (lambda path, _: path.unlink(), "missing"),
    "empty": (lambda path, _: put(path, b""), "bad-magic"),
    "cut short": (lambda path, window: put(path, window.encode()[:-1]), "bad-length"),
    "longer": (lambda path, window: put(path, window.encode() + b"\n"), "bad-length"),
    "one bit flipped": (lambda path, window: put(path, _flipped(window.encode())), "bad-digest"),
    "raw keys": (lambda path, _: put(path, os.urandom(96)), "bad-magic"),
    "of a later version": (lambda path, window: put(path, b"keyrotd\n\0\2" + window.encode()[10:]), "bad-version"),
    "for nginx": (lambda path, window: put(path, for_nginx(window).encode()), "bad-size"),
    "older": (lambda path, window: put(path, told(window, epoch=1).encode()), "older"),
    "stale": (lambda path, window: put(path, told(window, opens_until_ms=CLOCK.boot_ms()).encode()), "expired"),
    "of another boot": (
        lambda path, window: put(path, told(window, boot_id=str(uuid4()), opens_until_ms=1 << 60).encode()),
        "other-boot",
    ),
    "open to others": (lambda path, window: put(path, window.encode(), mode=0o666), "bad-file"),
    "not for us": (lambda path, window: put(path, window.encode(), mode=0o000), "bad-file"),
    "a link": (lambda path, _: link(path), "bad-file"),
    "a pipe": (lambda path, _: pipe(path), "bad-file"),
    "a folder": (lambda path, _: folder(path), "bad-file"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_key_file_that_is_wrong_changes_nothing_and_is_said_once(stage: Stage, name: str) -> None:
    spoil, word = FAULTS[name]
    stage.install(stage.window())
    ticket, before, said = stage.visit(stage.node), ack(stage.node), words(stage.node)

    spoil(stage.node.key_file, stage.window())

    wait_until(lambda: ack(stage.node).fault == word, f"the fault {word} is told")
    polls(stage.node, 3)
    seen = ack(stage.node)
    assert (seen.digest, seen.seals, seen.epoch) == (before.digest, before.seals, before.epoch)
    assert stage.visit(stage.node).key_name == ticket.key_name
    assert stage.resumes(ticket, stage.node)
    assert words(stage.node) - said == 1
    clear(stage.node.key_file)
    stage.install(stage.window())
    assert ack(stage.node).fault is None
    assert stage.node.pid == before.pid


def test_the_same_keys_under_a_good_file_again_are_no_fault_and_no_install(stage: Stage) -> None:
    window = stage.window()
    stage.install(window)
    before = ack(stage.node)
    put(stage.node.key_file, b"nonsense")
    wait_until(lambda: ack(stage.node).fault is not None, "the fault is told")

    write(stage.node, window.encode())

    wait_until(lambda: ack(stage.node).fault is None, "the fault is over")
    assert replace(ack(stage.node), touched_at=0) == replace(before, touched_at=0)


def test_keys_of_no_window_are_never_too_old_and_make_nothing_older_good(stage: Stage) -> None:
    """An agent whose window's time is over has keys of its own left; an older window stays out all the same."""
    older = stage.window()
    stage.install(stage.window())

    stage.install(replace(stage.window(), tenure=None))

    assert ack(stage.node).epoch == 0
    write(stage.node, older.encode())
    wait_until(lambda: ack(stage.node).fault == "older", "the older window is refused")


@each_version
def test_when_its_keys_may_seal_no_longer_a_random_one_does_and_theirs_open(stage: Stage, version: Version) -> None:
    steks = some_steks(2)
    stage.install(stage.window(*steks))
    ticket = stage.visit(stage.node, version)

    stage.install(stage.window(*steks, seals_until_ms=CLOCK.boot_ms()))

    wait_until(lambda: ack(stage.node).seals is None, "nothing of the file seals")
    meanwhile = stage.visit(stage.node, version)
    assert meanwhile.key_name not in {stek.name for stek in steks}
    assert stage.resumes(ticket, stage.node)
    assert stage.resumes(meanwhile, stage.node)
    stage.install(stage.window(*steks))
    assert stage.visit(stage.node, version).key_name == steks[0].name
    assert not stage.resumes(meanwhile, stage.node)


def test_the_instants_come_by_its_own_clock_and_are_said_once(stage: Stage) -> None:
    steks = some_steks(2)
    stage.install(stage.window(*steks))
    ticket, said = stage.visit(stage.node), words(stage.node)
    at = CLOCK.boot_ms()

    stage.install(stage.window(*steks, seals_until_ms=at + 1_500, opens_until_ms=at + 3_000))

    assert ack(stage.node).seals == steks[0].name.hex()
    wait_until(lambda: ack(stage.node).seals is None, "it seals no longer")
    assert CLOCK.boot_ms() >= at + 1_500
    assert stage.resumes(ticket, stage.node)
    wait_until(lambda: ack(stage.node).digest is None, "its keys are wiped")
    assert CLOCK.boot_ms() >= at + 3_000
    polls(stage.node, 3)
    assert not stage.resumes(ticket, stage.node)
    assert ack(stage.node).fault == "expired"
    assert words(stage.node) - said == 1
    stage.install(stage.window(*steks))
    assert stage.visit(stage.node).key_name == steks[0].name


def test_a_random_key_seals_no_longer_than_the_files_tickets_would_have_opened(stage: Stage) -> None:
    """Else it would seal for ever where no agent comes back."""
    at = CLOCK.boot_ms()
    stage.install(stage.window(seals_until_ms=at + 100, opens_until_ms=at + 600))
    wait_until(lambda: ack(stage.node).fault == "expired", "its keys are wiped")
    random, said = stage.visit(stage.node), words(stage.node)

    wait_until(lambda: stage.visit(stage.node).key_name != random.key_name, "another random key seals")

    assert not stage.resumes(random, stage.node)
    assert words(stage.node) == said
    assert ack(stage.node).fault == "expired"


def test_an_acknowledgement_that_was_taken_away_comes_back(stage: Stage) -> None:
    stage.install(stage.window())
    before = ack(stage.node)

    (stage.node.ack_dir / str(before.pid)).unlink()

    assert replace(ack(stage.node), touched_at=0) == replace(before, touched_at=0)


def test_what_could_not_be_acknowledged_is_later(stage: Stage) -> None:
    stage.install(stage.window())
    there, aside, said = stage.node.ack_dir, stage.node.ack_dir.with_suffix(".aside"), stage.node.said.count(_UNSEEN)
    there.rename(aside)
    window = stage.window()
    write(stage.node, window.encode())
    wait_until(lambda: stage.visit(stage.node).key_name == window.keys[0].name, "it installs")

    aside.rename(there)

    wait_until(lambda: ack(stage.node).digest == digest(window.encode()), "it acknowledges")
    assert stage.node.said.count(_UNSEEN) - said == 1


def test_a_server_that_starts_without_a_key_file_takes_the_first_one() -> None:
    with running(1, poll_ms=_POLL_MS, alone=True, window=False) as stage:
        assert ack(stage.node).fault == "missing"
        ticket, pid = stage.visit(stage.node), stage.node.pid
        assert stage.resumes(ticket, stage.node)
        window = stage.window()

        stage.install(window)

        assert stage.visit(stage.node).key_name == window.keys[0].name
        assert stage.node.pid == pid


def test_a_server_whose_plugin_line_is_wrong_serves_all_the_same() -> None:
    with running(1, alone=True) as stage:
        lines = stage.node.etc / "plugin.config"
        lines.write_text(lines.read_text().replace("--poll-ms=100", "--poll=1s"))

        stage.node.restart()

        assert "plugin.config: --poll=1s is not known" in stage.node.said
        assert stage.resumes(stage.visit(stage.node), stage.node)


def test_a_server_without_room_for_its_statistics_takes_keys_all_the_same() -> None:
    """Traffic Server aborts where a plugin sets a statistic that it could not create."""
    with running(1, alone=True) as stage:
        page = stage.node.etc / "page.lua"
        page.write_text(f"{page.read_text()}{_CROWD}")

        stage.node.restart()

        window = stage.window()
        stage.install(window)
        assert stage.visit(stage.node).key_name == window.keys[0].name


#: More than the 256 statistics that all plugins together may have.
_CROWD = """
function __init__(argtb)
  for n = 1, 300 do ts.stat_create("plugin.crowd.n" .. n, TS_LUA_RECORDDATATYPE_INT, 0, 0) end
end
"""


def words(node: TrafficServer) -> int:
    """How many faults it has told."""
    return node.said.count("the keys in use stay") + node.said.count("its keys are wiped")


def polls(node: TrafficServer, count: int) -> None:
    for _ in range(count):
        before = ack(node).touched_at
        wait_until(lambda: ack(node).touched_at > before, "the next poll")  # noqa: B023


def told(window: KeyFile, **tenure: Any) -> KeyFile:
    """The same keys for another time."""
    assert window.tenure is not None
    return replace(window, tenure=replace(window.tenure, **tenure))


def for_nginx(window: KeyFile) -> KeyFile:
    keys = tuple(stek.secrets(Scheme.AES256) for stek in some_steks(len(window.keys)))
    return replace(window, layout=NGINX80, keys=keys)


def put(path: Path, content: bytes, mode: int = 0o640) -> None:
    """Beside it, then in its place, with its owner."""
    other = path.with_suffix(".other")
    other.write_bytes(content)
    found = path.parents[1].stat()
    os.chown(other, 0 if mode == 0 and os.geteuid() == 0 else found.st_uid, found.st_gid)
    other.chmod(mode)
    other.rename(path)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)
    found = path.parents[1].stat()
    os.chown(path, found.st_uid, found.st_gid)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)
    found = path.parents[1].stat()
    os.chown(path, found.st_uid, found.st_gid)


def clear(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
