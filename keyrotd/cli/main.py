"""
The front door: finds the command that was named, and says what went wrong as `error:` and `hint:`.

Only the command that runs is imported. `keyrotd --help` loads click and nothing else that is not Python's own.
"""

import difflib
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, Never

import click
from click.shell_completion import CompletionItem

from keyrotd import __version__
from keyrotd.cli import exits
from keyrotd.core.errors import ConfigError, KeyrotdError, StoreUnavailable
from keyrotd.daemon.hardening import harden

#: Each command: where it is, and its line of help.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "init": ("keyrotd.cli.init:init", "Write a configuration and the secrets of a new fleet."),
        "standalone": ("keyrotd.cli.daemons:standalone_command", "Run all that one machine needs, the store included."),
        "scheduler": ("keyrotd.cli.daemons:scheduler_command", "Make keys and publish windows, when leader."),
        "agent": ("keyrotd.cli.daemons:agent_command", "Bring windows into the TLS servers of this node."),
        "status": ("keyrotd.cli.views:status", "One screen of truth; the exit code is the fleet's health."),
        "rotate": ("keyrotd.cli.orders:rotate", "Say what a rotation would do; with --now, rotate and wait."),
        "pause": ("keyrotd.cli.pausing:pause", "Hold rotations that are due, for a while and with a reason."),
        "resume": ("keyrotd.cli.pausing:resume", "End every pause: what is due is done."),
        "revoke": ("keyrotd.cli.orders:revoke", "Burn every key of a ring at once, and wait."),
        "rekey": ("keyrotd.cli.rekey:rekey", "Change a KEK, the signing key or an operator key, stage by stage."),
        "history": ("keyrotd.cli.views:history", "What leaders did and refused, newest first."),
        "inspect": ("keyrotd.cli.views:inspect", "What a sealed window, message or key file says of itself."),
        "acl": ("keyrotd.cli.views:acl", "The store's rights for each role, as ACL SETUSER lines."),
        "probe": ("keyrotd.cli.probe:probe", "Show whose session tickets resume on whom, of any servers."),
        "demo": ("keyrotd.cli.demo:demo", "Watch a real fleet rotate under load while things go wrong."),
        "check": ("keyrotd.cli.check:check", "List every fault of a configuration; show what it promises."),
        "doctor": ("keyrotd.cli.doctor:doctor", "Look at all that is live, and say what is wrong with it."),
        "man": ("keyrotd.cli.man:man", "Write the manual pages, made from the words of --help."),
        "completion": ("keyrotd.cli.completion:completion", "Print a script that completes commands in a shell."),
    }
)


class Commands(click.Group):
    """Commands by the table: listed and completed without an import, imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        command.short_help = COMMANDS[cmd_name][1]
        # click's mark of lines that stay as they are is a backspace; a raw docstring has two characters for it.
        command.help = command.help and command.help.replace("\\b\n", "\b\n")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # Here, where words are still as typed, and not after click has wrapped its own around them.
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise Unknown(args[0], ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        with formatter.section("Commands"):
            formatter.write_dl([(name, says) for name, (_, says) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name, help=says) for name, (_, says) in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


class Unknown(click.UsageError):
    """A command that is not in the table."""

    def __init__(self, name: str, ctx: click.Context) -> None:
        super().__init__(f"there is no command {name!r}", ctx)
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        self.hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(COMMANDS)}"


_EPILOG = """
\b
Examples:
  keyrotd init /etc/keyrotd
  keyrotd check --config /etc/keyrotd/keyrotd.toml
  keyrotd standalone --config /etc/keyrotd/keyrotd.toml
  keyrotd status
  keyrotd rotate --now --reason "key ceremony"
  keyrotd probe a.example:443 b.example:443

\b
KEYROTD_CONFIG names the configuration where --config does not.
Exit codes: 0 done, 1 refused, failed or unhealthy, 2 usage, 69 store away,
78 configuration.
"""


@click.group(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, "-V", "--version", prog_name="keyrotd", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Rotate the TLS session ticket keys of a fleet of servers: without a reload, and with proof."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(exits.USAGE)


def main() -> Never:
    """Run one command and exit, see `keyrotd.cli.exits`. Nothing has been read yet: whatever holds keys is hardened."""
    harden()  # what it could not do, a daemon says
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command and return its exit code. What a user can mend is told in two words, never as a traceback."""
    try:
        code = cli.main(args, prog_name="keyrotd", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        _say([_usage(error)])
        return exits.USAGE
    except click.ClickException as error:
        _say([(_lowered(error.format_message()), None)])
        return exits.FAILED
    except (click.Abort, KeyboardInterrupt):
        _say([("stopped before the end", None)])
        return exits.FAILED
    except ConfigError as error:
        _say(error.faults)
        return exits.CONFIGURATION
    except StoreUnavailable as error:
        _say([(str(error), error.hint)])
        return exits.STORE_AWAY
    except KeyrotdError as error:
        _say([(str(error), error.hint)])
        return exits.FAILED
    except BrokenPipeError:
        # Whoever reads us has seen enough. Python's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    return code if isinstance(code, int) else exits.DONE


def _say(faults: Iterable[tuple[str, str | None]]) -> None:
    for fault, hint in faults:
        click.echo(f"error: {fault}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)


def _usage(error: click.UsageError) -> tuple[str, str]:
    told = getattr(error, "hint", None)
    if isinstance(told, str):
        return error.message, told
    if isinstance(error, click.MissingParameter) and error.param is not None and error.param.envvar:
        return f"{error.param.opts[0]} is missing", f"pass {error.param.opts[0]} FILE or set {error.param.envvar}"
    path = error.ctx.command_path if error.ctx is not None else "keyrotd"
    return _lowered(error.format_message()), f"{path} --help"


def _lowered(words: str) -> str:
    # click speaks in sentences; we do not. A name that begins with a capital letter keeps it.
    words = " ".join(words.split()).removesuffix(".")
    return words[:1].lower() + words[1:] if words[1:2].islower() else words
