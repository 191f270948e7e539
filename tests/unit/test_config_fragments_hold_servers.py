"""`conf.d/*.toml` beside the configuration hold [[server]] sections, and nothing else; each fault names its file."""

from pathlib import Path

import pytest

from keyrotd.config import MAX_FRAGMENTS, load
from keyrotd.core.errors import ConfigError
from tests.unit.test_config import LEAST, SERVER

OTHER = SERVER.replace('"h"', '"i"').replace("/run/h", "i")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "keyrotd.toml"
    found.write_text(LEAST + SERVER)
    (tmp_path / "conf.d").mkdir()
    return found


def put(path: Path, name: str, text: str) -> None:
    (path.parent / "conf.d" / name).write_text(text)


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(path)
    return [words.replace(f"{path.parent}/", "") for words, _ in refused.value.faults]


def test_servers_follow_those_of_the_file_in_the_order_of_names(path: Path) -> None:
    put(path, "20-c.toml", OTHER.replace('"i"', '"c"').replace("i.", "c."))
    put(path, "10-b.toml", OTHER)
    put(path, ".draft.toml", "not even TOML")
    put(path, "notes.md", "nor this")

    config = load(path)

    assert [server.name for server in config.servers] == ["h", "i", "c"]
    assert [fragment.name for fragment in config.fragments] == ["10-b.toml", "20-c.toml"]


def test_a_path_means_what_it_means_in_the_file_itself(path: Path) -> None:
    put(path, "i.toml", OTHER)

    (_, server) = load(path).servers

    assert getattr(server.driver, "key_file", None) == (path.parent / "i.keys",)


def test_every_fault_of_every_fragment_is_told_with_its_file(path: Path) -> None:
    put(path, "a.toml", "not TOML")
    put(path, "b.toml", OTHER.replace("socket", "sokcet") + "[agent]\nnode = 'x'\n")
    put(path, "c.toml", OTHER.replace('"i"', '"j"').replace('"edge"', '"core"').replace("i.", "j."))
    put(path, "d.toml", "server = 1\n")

    assert faults(path) == [
        "conf.d/a.toml: is not TOML: expected '=' after a key in a key/value pair (at line 1, column 5)",
        "conf.d/b.toml: agent: has no place in a fragment",
        'conf.d/b.toml: server "i": sokcet: is not known',
        'conf.d/b.toml: server "i": socket: is missing',
        "conf.d/d.toml: server: want a list of sections, found something else",
        'conf.d/c.toml: server "j": ring: there is no ring "core"',
    ]


def test_a_name_that_two_files_give_is_refused_with_both(path: Path) -> None:
    put(path, "a.toml", OTHER.replace('"i"', '"h"'))

    assert faults(path) == [
        'keyrotd.toml: server "h": there are two of this name, in keyrotd.toml and conf.d/a.toml',
    ]


def test_more_fragments_than_a_host_has_servers_are_refused(path: Path) -> None:
    for number in range(MAX_FRAGMENTS + 1):
        put(path, f"{number}.toml", "")

    assert faults(path) == [f"conf.d: has {MAX_FRAGMENTS + 1} fragments, {MAX_FRAGMENTS} are enough"]


def test_a_folder_that_cannot_be_listed_is_a_fault_and_not_an_empty_one(path: Path) -> None:
    (path.parent / "conf.d").rmdir()
    (path.parent / "conf.d").write_text("")

    assert faults(path) == ["conf.d: cannot be read: not a directory"]
