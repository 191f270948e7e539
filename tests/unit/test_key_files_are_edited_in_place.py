"""What a person wrote in a key file stays where it was, whatever is done to its keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.core.errors import ConfigError
from keyrotd.seal.keyedits import Entry, added, dated, entries, newest, put_first, without
from keyrotd.seal.keyfiles import Kek, key_line, make_kek, parse
from tests.vectors.make import fixed

MADE_AT = 1_803_902_400_123  # 2027-03-01T12:00:00.123Z
OLD, NEW, OLDER = Kek(fixed("old")), Kek(fixed("new")), Kek(fixed("older"))


def rows(*keys: Kek) -> str:
    return "".join(key_line(key) for key in keys)


def ids(content: str) -> list[str]:
    return [key.id for key in parse(content, Kek, "kek")]


def test_an_added_key_is_the_last_and_says_when_it_was_made() -> None:
    content = f"# of ring edge\n\n{rows(OLD)}"

    assert added(content, NEW, MADE_AT) == f"{content}# made 2027-03-01T12:00:00.123Z\n{rows(NEW)}"
    assert added(content[:-1], NEW, MADE_AT) == added(content, NEW, MADE_AT)


def test_a_promoted_key_takes_its_mark_along_and_leaves_all_else() -> None:
    content = f"# of ring edge\n{rows(OLD)}\n# bob's, keep it\n# made 2027-03-01T12:00:00.123Z\n{rows(NEW)}# the end\n"

    assert put_first(content, Kek, NEW.id, "kek") == (
        f"# of ring edge\n# made 2027-03-01T12:00:00.123Z\n{rows(NEW, OLD)}\n# bob's, keep it\n# the end\n"
    )


def test_a_retired_key_takes_its_mark_along_and_leaves_all_else() -> None:
    content = f"# top\n{rows(NEW)}# bob's\n# made 2026-03-01T12:00:00.000Z\n{rows(OLD)}# between\n{rows(OLDER)}# end"

    assert without(content, Kek, {OLD.id, OLDER.id}, "kek") == f"# top\n{rows(NEW)}# bob's\n# between\n# end"


def test_the_last_key_is_not_taken_out() -> None:
    with pytest.raises(ConfigError, match="holds no key"):
        without(rows(OLD), Kek, {OLD.id}, "kek")


def test_the_newest_key_is_the_one_made_last() -> None:
    content = added(added(make_kek("edge", lambda _: OLD.secret), NEW, MADE_AT), OLDER, MADE_AT - 1)

    found = entries(content, Kek, "kek")

    assert found == (Entry(OLD.id, None), Entry(NEW.id, MADE_AT), Entry(OLDER.id, MADE_AT - 1))
    assert newest(found) == Entry(NEW.id, MADE_AT)
    assert newest(entries(put_first(content, Kek, NEW.id, "kek"), Kek, "kek")) == Entry(NEW.id, MADE_AT)


def test_of_several_keys_without_a_mark_none_is_the_newest() -> None:
    assert newest(entries(rows(OLD, NEW), Kek, "kek")) is None
    assert newest(entries(rows(OLD), Kek, "kek")) == Entry(OLD.id, None)


def test_keys_made_in_one_instant_are_told_apart_by_their_place() -> None:
    assert newest(entries(added(added(rows(OLD), NEW, 0), OLDER, 0), Kek, "kek")) == Entry(OLDER.id, 0)


@pytest.mark.parametrize("mark", ["# made in May", "# made 2027-13-01T12:00:00.123Z", "#made 2027-03-01T12:00:00.123Z"])
def test_a_comment_that_is_no_mark_is_left_alone(mark: str) -> None:
    content = f"{mark}\n{rows(OLD)}"

    assert entries(content, Kek, "kek") == (Entry(OLD.id, None),)
    assert put_first(content + rows(NEW), Kek, NEW.id, "kek") == f"{mark}\n{rows(NEW, OLD)}"


def test_a_dated_file_is_dated_once() -> None:
    once = dated(f"# of ring edge\n{rows(OLD, NEW)}", MADE_AT)

    assert entries(once, Kek, "kek") == (Entry(OLD.id, MADE_AT), Entry(NEW.id, MADE_AT))
    assert dated(once, 0) == once


comments = st.lists(st.sampled_from(["# a comment\n", "\n", "  # made today\n", "#\n"]), max_size=3).map("".join)


@given(st.lists(comments, min_size=4, max_size=4), st.permutations([OLD, NEW, OLDER]), st.integers(0, 2))
def test_no_edit_loses_a_line_that_is_not_its_key_s(texts: list[str], keys: list[Kek], at: int) -> None:
    content = "".join(text + key_line(key) for text, key in zip(texts, keys, strict=False)) + texts[3]
    others = [key.id for key in keys if key is not keys[at]]

    promoted = put_first(content, Kek, keys[at].id, "kek")
    left = without(content, Kek, {keys[at].id}, "kek")

    assert ids(promoted) == [keys[at].id, *others]
    assert ids(left) == others
    assert sorted(promoted.split("\n")) == sorted(content.split("\n"))
    assert left == content.replace(key_line(keys[at]), "")
    assert added(content, Kek(fixed("another")), MADE_AT).startswith(content)
