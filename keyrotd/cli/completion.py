"""keyrotd completion: a shell's script that asks keyrotd for what may come next."""

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_KEYROTD_COMPLETE"


_EPILOG = """
\b
bash:  keyrotd completion bash > ~/.local/share/bash-completion/completions/keyrotd
zsh:   keyrotd completion zsh > ~/.zfunc/_keyrotd    (with ~/.zfunc in fpath)
fish:  keyrotd completion fish > ~/.config/fish/completions/keyrotd.fish
"""


@click.command(epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes keyrotd's commands and options in a shell."""
    from keyrotd.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "keyrotd", _VARIABLE).source())
