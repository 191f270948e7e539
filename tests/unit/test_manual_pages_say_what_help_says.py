"""One manual page for each command, with every option of it, and no page that man complains of."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from keyrotd.cli import exits
from keyrotd.cli.main import COMMANDS, cli, run
from keyrotd.cli.man import page, pages

PAGES = pages(cli)


def words(text: str) -> str:
    """The text of a page, without roff."""
    return " ".join(text.replace("\\-", "-").replace("\\e", "\\").split())


def test_there_is_a_page_for_each_command_and_one_that_names_them() -> None:
    assert set(PAGES) == {"keyrotd.1", *(f"keyrotd-{name}.1" for name in COMMANDS)}
    for name, (_, says) in COMMANDS.items():
        assert f"keyrotd\\-{name}" in PAGES["keyrotd.1"]
        assert says in words(PAGES["keyrotd.1"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_every_sentence_of_the_help_is_there(name: str) -> None:
    top = click.Context(cli, info_name="keyrotd")
    command = cli.get_command(top, name)
    assert command is not None
    text = words(PAGES[f"keyrotd-{name}.1"])

    for param in command.params:
        if isinstance(param, click.Option):
            assert all(option in text for option in param.opts)
            assert words(param.help or "") in text
        else:
            assert param.make_metavar(top) in text
    for sentence in re.split(r"\n\s*\n", command.help or ""):
        assert " ".join(sentence.replace("\b", "").split()) in text


def test_a_line_is_never_taken_for_a_request() -> None:
    odd = click.Command("odd", help="\b\n.so /etc/passwd\n'tis a \\fB trap")

    made = page(odd, click.Context(odd, info_name="odd"), also=["keyrotd"])

    assert "\n\\&.so /etc/passwd\n\\&'tis a \\efB trap\n" in made


def test_they_are_written_where_one_wants_them(tmp_path: Path) -> None:
    assert run(["man", str(tmp_path / "man1")]) == exits.DONE

    assert {path.name: path.read_text() for path in (tmp_path / "man1").iterdir()} == PAGES


@pytest.mark.skipif(shutil.which("groff") is None, reason="not run: groff is not installed")
def test_groff_warns_of_nothing(tmp_path: Path) -> None:
    for name, text in PAGES.items():
        (tmp_path / name).write_text(text)

    told = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", *(str(tmp_path / name) for name in PAGES)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert told.stderr == ""
