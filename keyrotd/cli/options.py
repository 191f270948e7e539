"""Options that several commands share."""

from pathlib import Path

import click

CONFIG_OPTION = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="KEYROTD_CONFIG",
    required=True,
    help="The configuration; KEYROTD_CONFIG names it too.",
)
