"""Options that several commands share."""

from pathlib import Path

import click

from keyrotd import durations

CONFIG_OPTION = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="KEYROTD_CONFIG",
    required=True,
    help="The configuration; KEYROTD_CONFIG names it too.",
)


def duration_ms(_ctx: click.Context, _param: click.Parameter, word: str | None) -> int | None:
    """Read a duration as the configuration writes it: a callback for click."""
    if word is None:
        return None
    try:
        return durations.parse(word)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
