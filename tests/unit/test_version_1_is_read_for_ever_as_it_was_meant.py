"""The bytes in tests/vectors/v1 are frozen: what was written once is read as what it meant, whatever came since."""

from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.core.window import Window
from keyrotd.daemon.state import DiskFolder, decode_cache, recall
from keyrotd.seal.keyfiles import Kek, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey, parse
from keyrotd.seal.links import open_links
from keyrotd.seal.messages import read_beat, read_event, read_report, read_request
from keyrotd.seal.window import open_window
from keyrotd.servers import acks, keyfile
from tests.vectors import version_1 as meant
from tests.vectors.make import fixed

KEKS = (Kek(fixed("a KEK that came first since")), *meant.KEKS)


def frozen(name: str) -> bytes:
    return (meant.FOLDER / name).read_bytes()


def keys() -> tuple[tuple[VerifyKey, ...], tuple[OperatorVerifyKey, ...]]:
    verifiers = parse(frozen("verify.key").decode(), VerifyKey, "verify.key")
    return verifiers, parse(frozen("operator-verify.key").decode(), OperatorVerifyKey, "operator-verify.key")


def opened(name: str) -> Window:
    return open_window(frozen(name), verifiers=keys()[0], keks=KEKS, ring="edge")


def test_key_files_of_secrets_hold_the_keys_that_they_held() -> None:
    verifiers, operators = keys()

    assert parse(frozen("edge.kek").decode(), Kek, "edge.kek")[0].secret == meant.KEKS[0].secret
    assert parse(frozen("signing.key").decode(), SigningKey, "signing.key")[0].secret == meant.SIGNER.secret
    assert parse(frozen("operator.key").decode(), OperatorKey, "operator.key")[0].secret == meant.OPERATOR.secret
    assert (verifiers, operators) == ((meant.SIGNER.verify_key,), (meant.OPERATOR.verify_key,))


def test_windows_open_with_every_seed_that_they_carry() -> None:
    forgotten = replace(meant.WINDOW, previous=(replace(meant.PREVIOUS, stek=None),))

    assert opened("window") == meant.WINDOW
    assert opened("window").digest == meant.WINDOW.digest
    assert opened("window-first") == meant.FIRST_WINDOW
    assert opened("window-offered") == forgotten


@pytest.mark.parametrize("name", meant.BEATS)
def test_beats_tell_the_time_that_they_told(name: str) -> None:
    assert read_beat(frozen(name), verifiers=keys()[0], ring="edge") == meant.BEATS[name]


@pytest.mark.parametrize("name", meant.REQUESTS)
def test_requests_ask_what_they_asked(name: str) -> None:
    assert read_request(frozen(name), operator_verifiers=keys()[1], ring="edge") == meant.REQUESTS[name]


@pytest.mark.parametrize("name", meant.EVENTS)
def test_events_tell_what_they_told(name: str) -> None:
    assert read_event(frozen(name), verifiers=keys()[0], ring="edge") == meant.EVENTS[name]


@pytest.mark.parametrize("name", meant.REPORTS)
def test_reports_say_what_they_said(name: str) -> None:
    assert read_report(frozen(name), keks=KEKS, ring="edge") == meant.REPORTS[name]


def test_what_an_agent_kept_of_a_succession_is_known_again() -> None:
    assert open_links(frozen("links"), ring="edge", keks=KEKS) == meant.LINKS


@pytest.mark.parametrize("name", meant.CACHES)
def test_a_cache_is_taken_up_whole(name: str) -> None:
    cache = decode_cache(frozen(name))

    assert cache == meant.CACHES[name]()
    for window in cache.windows:
        open_window(window, verifiers=keys()[0], keks=KEKS, ring="edge")


@pytest.mark.parametrize("name", meant.MEMORIES)
def test_a_memory_is_recalled(name: str, tmp_path: Path) -> None:
    DiskFolder(tmp_path).write(name, frozen(name))

    assert recall(DiskFolder(tmp_path), name) == meant.MEMORIES[name]


@pytest.mark.parametrize("name", meant.KEY_FILES)
def test_key_files_for_servers_hold_the_keys_and_bounds_that_they_held(name: str) -> None:
    assert keyfile.decode(frozen(name)) == meant.KEY_FILES[name]


def test_acknowledgements_are_understood() -> None:
    ack = acks.parse(frozen("acknowledgement"), touched_at=5)

    assert (ack.pid, ack.processes, ack.epoch, ack.step, ack.contexts, ack.fault) == (4711, 2, 41, 2, 3, None)
    assert ack.seals == meant.WINDOW.current.name.hex()


def test_whoever_says_nothing_new_still_writes_these_very_bytes() -> None:
    """So a host that was upgraded is understood by all that were not."""
    assert {path.name: path.read_bytes() for path in meant.FOLDER.iterdir()} == meant.files()
