"""Options that several commands share."""

from pathlib import Path

import click

from keyrotd import durations
from keyrotd.seal.lines import fit
from keyrotd.seal.messages import MAX_REASON

CONFIG_OPTION = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="KEYROTD_CONFIG",
    required=True,
    help="The configuration; KEYROTD_CONFIG names it too.",
)
RING_OPTION = click.option("--ring", metavar="RING", help="Needed where the configuration has several.")


def duration_ms(_ctx: click.Context, _param: click.Parameter, word: str | None) -> int | None:
    """Read a duration as the configuration writes it: a callback for click."""
    if word is None:
        return None
    try:
        return durations.parse(word)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def fit_reason(_ctx: click.Context, _param: click.Parameter, text: str) -> str:
    """Take the words that history keeps: a callback for click."""
    if len(text.encode(errors="replace")) > MAX_REASON or not fit(text):
        raise click.BadParameter(f"want at most {MAX_REASON} bytes on one line, without control characters")
    return text
