"""keyrotd man: manual pages, made from the very words that --help prints."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from keyrotd import __version__

#: A paragraph that begins so stays as it is, line by line.
_AS_IT_IS = "\b\n"

_EPILOG = """
\b
Examples:
  keyrotd man ~/.local/share/man/man1
"""


@click.command(epilog=_EPILOG)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def man(directory: Path) -> None:
    """Write keyrotd's manual pages, one for each command, into DIRECTORY, and make that if it is not there."""
    from keyrotd.cli.main import cli

    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages(cli).items():
        (directory / name).write_text(text, "utf-8")
    click.echo(f"written to {directory}: man {directory / 'keyrotd.1'}")


def pages(cli: click.Group) -> dict[str, str]:
    """Return the text of each page by its file name."""
    top = click.Context(cli, info_name="keyrotd", **cli.context_settings)
    names = cli.list_commands(top)
    commands = {name: command for name in names if (command := cli.get_command(top, name)) is not None}
    made = {"keyrotd.1": page(cli, top, also=[f"keyrotd-{name}" for name in commands], commands=commands)}
    for name, command in commands.items():
        context = click.Context(command, info_name=name, parent=top)
        made[f"keyrotd-{name}.1"] = page(command, context, also=["keyrotd"])
    return made


def page(
    command: click.Command,
    context: click.Context,
    *,
    also: Iterable[str],
    commands: dict[str, click.Command] | None = None,
) -> str:
    """One manual page in roff, of the man macros alone."""
    title = context.command_path.replace(" ", "-")
    rows = [
        f'.TH "{title.upper()}" "1" "" "keyrotd {__version__}" "keyrotd"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(_lowered(command.get_short_help_str(limit=120)))}",
        ".SH SYNOPSIS",
        f".B {_text(context.command_path)}",
        _text(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
    ]
    if commands:
        rows += [".SH COMMANDS", *_listed((name, found.get_short_help_str(120)) for name, found in commands.items())]
    rows += [".SH OPTIONS", *_listed(_options(command, context))]
    if command.epilog:
        rows += [".SH NOTES", *_paragraphs(command.epilog)]
    rows += [".SH SEE ALSO", ", ".join(f".BR {_text(name)} (1)" for name in also).replace(", .BR", " ,\n.BR")]
    return "\n".join(rows) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    return (record for param in command.get_params(context) if (record := param.get_help_record(context)) is not None)


def _listed(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, says in rows:
        yield from (".TP", f".B {_text(name)}", _text(says))


def _paragraphs(words: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", words.strip("\n ").replace("\\b\n", _AS_IT_IS)):
        yield ".PP"
        if paragraph.lstrip(" \n").startswith(_AS_IT_IS):
            yield from (".nf", *map(_text, paragraph.lstrip(" \n").removeprefix(_AS_IT_IS).splitlines()), ".fi")
        else:
            yield _text(" ".join(paragraph.split()))


def _text(words: str) -> str:
    # A line that began with a dot or an apostrophe would be a request; a bare hyphen would be typeset, and not copied.
    escaped = words.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _lowered(words: str) -> str:
    return (words[:1].lower() + words[1:]).removesuffix(".")
