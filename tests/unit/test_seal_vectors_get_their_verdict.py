from pathlib import Path

import pytest

from keyrotd.core.errors import CorruptWindow
from keyrotd.core.messages import Beat, Event, Order, Peers, Report
from keyrotd.core.window import Window
from keyrotd.seal.keyfiles import Kek, OperatorVerifyKey, VerifyKey
from keyrotd.seal.messages import read_beat, read_event, read_peers, read_report, read_request
from keyrotd.seal.window import forget, open_window, peek, read_header
from tests.vectors import make

REASONS = {
    "malformed",
    "too large",
    "bad signature",
    "unknown signer",
    "unknown kek",
    "bad seal",
    "wrong ring",
    "twin names",
    "below barrier",
    "wrong name",
    "weak seed",
    "version",
}
VECTORS = sorted(make.FOLDER.glob("*.txt"))
#: What only whoever decrypts the seeds can see.
NEEDS_KEK = {"unknown kek", "wrong name", "weak seed"}


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_gets_its_verdict(path: Path) -> None:
    head, data = vector(path)

    assert head["expect"] == verdict(head, data)


@pytest.mark.parametrize(
    "path", [path for path in VECTORS if path.stem.startswith("window_")], ids=lambda path: path.stem
)
def test_without_a_kek_a_window_gets_the_same_verdict_up_to_its_seeds(path: Path) -> None:
    head, data = vector(path)
    expected = head["expect"]

    found = verdict({**head, "read": "header"}, data)

    if expected in NEEDS_KEK or path.stem == "window_unknown_kek_under_known_id":
        assert found == "ok"
    else:
        assert found == expected


def test_the_vectors_show_every_reason() -> None:
    assert {vector(path)[0]["expect"] for path in VECTORS} == {*REASONS, "ok"}


def test_the_vectors_are_what_their_maker_makes() -> None:
    assert {path.name: path.read_bytes() for path in VECTORS} == make.vectors()


def test_a_window_whose_seed_was_forgotten_opens_without_it() -> None:
    head, data = vector(make.FOLDER / "window_seed_forgotten.txt")

    window = read({**head, "read": "window"}, data)

    assert isinstance(window, Window)
    assert [key.stek is None for key in window.all] == [False, False, True]


def test_forgetting_writes_what_the_maker_calls_forgotten() -> None:
    _, plain = vector(make.FOLDER / "window_plain.txt")
    _, forgotten = vector(make.FOLDER / "window_seed_forgotten.txt")
    window = peek(plain).window

    assert forget(plain, keep=frozenset({window.current.name, window.next.name, b"no such key"})) == forgotten
    assert forget(forgotten, keep=frozenset({key.name for key in window.all})) == forgotten


def test_anyone_may_look_at_a_window_and_sees_who_claims_it() -> None:
    _, data = vector(make.FOLDER / "window_seed_forgotten.txt")

    seen = peek(data)

    assert (41, 12, Kek(make.KEK).id, VerifyKey(make.public(make.SIGNING)).id) == (
        seen.window.epoch,
        seen.window.barrier,
        seen.kek_id,
        seen.signer_id,
    )
    assert seen.carried == {seen.window.current.name, seen.window.next.name}
    assert [key.stek for key in seen.window.all] == [None] * 3


def vector(path: Path) -> tuple[dict[str, str], bytes]:
    head, _, data = path.read_bytes().partition(b"\n\n")
    return dict(line.split(": ", 1) for line in head.decode().split("\n")), data


def verdict(head: dict[str, str], data: bytes) -> str:
    try:
        read(head, data)
    except CorruptWindow as corrupt:
        return corrupt.reason
    return "ok"


def read(head: dict[str, str], data: bytes) -> Window | Beat | Order | Event | Peers | Report:
    ring, keks = head["ring"], (Kek(make.fixed("a later kek")), Kek(bytes.fromhex(head["kek"])))
    verifiers = (VerifyKey(make.public(make.fixed("a later signing key"))), VerifyKey(bytes.fromhex(head["verify"])))
    match head["read"]:
        case "window":
            return open_window(data, verifiers=verifiers, keks=keks, ring=ring)
        case "header":
            return read_header(data, verifiers=verifiers, ring=ring)
        case "beat":
            return read_beat(data, verifiers=verifiers, ring=ring)
        case "request":
            operators = (OperatorVerifyKey(bytes.fromhex(head["operator-verify"])),)
            return read_request(data, operator_verifiers=operators, ring=ring)
        case "event":
            return read_event(data, verifiers=verifiers, ring=ring)
        case "report":
            return read_report(data, keks=keks, ring=ring)
        case "peers":
            return read_peers(data, verifiers=verifiers, ring=ring)
        case other:
            raise AssertionError(other)
