"""What another version of keyrotd wrote is read, or refused with words; it is never misread, and nothing is lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.cli.inspection import Keyring, inspect
from keyrotd.cli.reading import prove
from keyrotd.cli.situation import judge
from keyrotd.core.errors import ConfigError, CorruptWindow
from keyrotd.core.messages import NodeState
from keyrotd.daemon.state import DiskFolder, Remembered, decode_cache, try_recall
from keyrotd.seal import lines, versions
from keyrotd.seal.keyfiles import Kek, OperatorVerifyKey, VerifyKey
from keyrotd.seal.links import Links, open_links, seal_links
from keyrotd.seal.messages import read_beat, read_report
from keyrotd.store.port import Look
from tests.stage import NOON, POLICY
from tests.unit.test_seal_vectors_get_their_verdict import vector
from tests.vectors import make

KEKS = (Kek(make.KEK),)
VERIFIERS = (VerifyKey(make.public(make.SIGNING)),)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Make this keyrotd one that reads up to a later version of a kind."""

    def raise_to(kind: str, newest: int) -> None:
        monkeypatch.setattr(versions, "NEWEST", {**versions.NEWEST, kind: newest})

    return raise_to


def test_what_is_newer_is_refused_by_name_and_both_versions() -> None:
    _, data = vector(make.FOLDER / "beat_version_9.txt")

    with pytest.raises(CorruptWindow) as refused:
        read_beat(data, verifiers=VERIFIERS, ring="edge")

    assert str(refused.value) == "beat: made by a newer keyrotd (version 9 of a beat; this one reads 1)"
    assert refused.value.reason == "version"
    assert "docs/upgrades.md" in (refused.value.hint or "")


def test_a_reader_takes_its_newest_version_and_the_one_before(later: Callable[[str, int], None]) -> None:
    _, second = vector(make.FOLDER / "beat_plain.txt")
    later("beat", 3)

    with pytest.raises(CorruptWindow, match=r"made by an older keyrotd \(version 1 of a beat; this one reads 2 to 3\)"):
        read_beat(second, verifiers=VERIFIERS, ring="edge")

    for version in (2, 3):
        data = make.sign(make.BEAT.replace("beat v1", f"beat v{version}"), "beat").encode()
        assert read_beat(data, verifiers=VERIFIERS, ring="edge").epoch == 41


def test_what_is_written_is_of_the_oldest_version_that_can_say_it(later: Callable[[str, int], None]) -> None:
    later("report", 2)

    assert versions.body("report", ("a 1\n",), ()) == "keyrotd report v1\na 1\n"
    assert versions.body("report", ("a 1\n",), ("b 2\n",)) == "keyrotd report v2\na 1\nb 2\n"
    assert versions.body("report", ("a other\n",), since=2) == "keyrotd report v2\na other\n"


def test_what_is_written_is_no_older_than_what_is_read(later: Callable[[str, int], None]) -> None:
    later("report", 3)

    assert versions.body("report", ("a 1\n",), ()) == "keyrotd report v2\na 1\n"


def test_a_line_has_no_place_in_a_version_from_before_it() -> None:
    for version, there in ((1, False), (2, True)):
        assert lines.Lines("beat", ["more 1"], version=version).next_is("more", since=2) is there


def test_a_newer_report_tells_all_that_is_known_here() -> None:
    _, plain = vector(make.FOLDER / "report_plain.txt")
    _, newer = vector(make.FOLDER / "report_version_9.txt")

    known = read_report(plain, keks=KEKS, ring="edge")

    assert read_report(newer, keks=KEKS, ring="edge") == replace(known, newer=9)


def test_a_newer_report_in_words_unknown_here_tells_that_the_node_lives_and_is_waited_for() -> None:
    _, newer = vector(make.FOLDER / "report_version_9_of_other_words.txt")

    report = read_report(newer, keks=KEKS, ring="edge")

    assert (
        report.node,
        report.counter,
        report.state,
        report.read_back,
        report.newer,
    ) == ("edge-1.example.com", 77, NodeState.BEHIND, None, 9)


def test_a_memory_of_a_newer_version_is_refused_and_kept_however_large_it_is(tmp_path: Path) -> None:
    newer = Remembered().encode().replace(b"memory v1", b"memory v2") + b"more 1\n" * 1000
    folder = DiskFolder(tmp_path)
    folder.write("agent-edge.memory", newer)

    with pytest.raises(ConfigError) as refused:
        try_recall(folder, "agent-edge.memory")

    (fault, hint), *rest = refused.value.faults
    assert fault == "agent-edge.memory: memory: made by a newer keyrotd (version 2 of a memory; this one reads 1)"
    assert "nothing was changed" in (hint or "")
    assert rest == []
    assert folder.read("agent-edge.memory") == newer


@pytest.mark.parametrize("kind", ["cache", "links", "window"])
def test_a_cache_that_holds_anything_newer_is_refused_as_that(kind: str) -> None:
    _, window = vector(make.FOLDER / "window_plain.txt")
    links = seal_links(Links(succession=None, strays=()), ring="edge", keks=KEKS, rand=bytes)
    data = b"".join(
        (
            b"keyrotd cache v1\nboot_id b\nboot_ms 1\nfleet_at 2\nmoved yes\nconfirmed_at -\nspread no\nstood_in no\n",
            b"sealed -\n",
            f"sizes {len(links)} {len(window)}\n".encode(),
            links,
            window,
        )
    )
    assert decode_cache(data).windows == (window,)

    with pytest.raises(CorruptWindow, match=rf"version 2 of a {kind}; this one reads 1\)"):
        decode_cache(data.replace(f"keyrotd {kind} v1".encode(), f"keyrotd {kind} v2".encode()))


def test_links_of_a_newer_version_are_not_opened() -> None:
    links = seal_links(Links(succession=None, strays=()), ring="edge", keks=KEKS, rand=bytes)

    with pytest.raises(CorruptWindow, match="version 2 of a links"):
        open_links(links.replace(b"v1", b"v2"), ring="edge", keks=KEKS)


def test_status_says_that_it_is_the_older_one_and_accuses_nobody() -> None:
    _, window = vector(make.FOLDER / "window_version_9.txt")
    _, beat = vector(make.FOLDER / "beat_version_9.txt")
    look = Look(leader="s", lease_ms=9_000, fence=7, digest="d", window=window, beat=beat)

    seen = prove(look, {}, ring="edge", verifiers=VERIFIERS, keks=KEKS)

    assert seen.refused == ()
    faults = [(fault.words, fault.hint) for fault in judge(seen, POLICY, NOON).faults]
    words = next(words for words, hint in faults if "docs/upgrades.md" in hint)
    assert words == (
        "the stored window: window: made by a newer keyrotd (version 9 of a window; this one reads 1); "
        "the stored beat: beat: made by a newer keyrotd (version 9 of a beat; this one reads 1)"
    )


@pytest.mark.parametrize("kind", ["beat", "request", "event"])
def test_inspect_shows_what_a_newer_message_says_and_that_it_is_newer(kind: str) -> None:
    _, data = vector(make.FOLDER / f"{kind}_version_9.txt")
    operators = (OperatorVerifyKey(make.public(make.OPERATOR)),)

    found = inspect(data, Keyring(verifiers=VERIFIERS, operators=operators, keks={"edge": KEKS}), NOON)

    assert found.proven is False
    assert f"made by a newer keyrotd (version 9 of a {kind}; this one reads " in found.verdict
    assert "hue" in found.values
