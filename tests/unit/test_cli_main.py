"""The front door: what it costs to look at, how it says what went wrong, and with which code it leaves."""

import json
import os
import subprocess
import sys
from importlib import import_module

import click
import pytest

from keyrotd import __version__
from keyrotd.cli import exits, main
from keyrotd.core.errors import ConfigError, KeyrotdError, StoreUnavailable


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_of_the_table_is_there(name: str) -> None:
    module, _, attribute = main.COMMANDS[name][0].partition(":")

    command = getattr(import_module(module), attribute)

    assert isinstance(command, click.Command)
    assert command.name == name


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_has_help_with_whole_lines(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main.run([name, "--help"])
    told = capsys.readouterr().out

    assert code == exits.DONE
    assert f"keyrotd {name}" in told
    # What click reads as "do not wrap" is a character and not the two that a raw string has.
    assert "\\b" not in told


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_a_look_at_the_door_loads_click_and_nothing_else_of_others(arguments: list[str]) -> None:
    program = (
        "import sys, json, runpy; sys.argv = ['keyrotd', *sys.argv[1:]]\n"
        "try: runpy.run_module('keyrotd', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    # -S: what a site directory's .pth files import is not ours. -I would forget where the checkout is.
    found = [path for path in sys.path if path]

    ran = subprocess.run(
        [sys.executable, "-S", "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = set(json.loads(ran.stdout.splitlines()[-1]))
    assert {name for name in loaded if name not in sys.stdlib_module_names and name != "__main__"} == {
        "click",
        "keyrotd",
    }


def test_help_lists_every_command_and_real_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == exits.DONE

    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in main.COMMANDS)
    assert "keyrotd standalone --config /etc/keyrotd/keyrotd.toml" in told


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == exits.DONE

    assert capsys.readouterr().out == f"keyrotd {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chekc"], "error: there is no command 'chekc'\nhint: did you mean check?\n"),
        (["check", "--role", "king"], "error: invalid value for '--role': 'king' is not one of"),
        (["--nonsense"], "error: no such option"),
        (["check"], "error: --config is missing\nhint: pass --config FILE or set KEYROTD_CONFIG\n"),
        (["init"], "error: DIR is missing: where shall keyrotd.toml and secrets/ go?\nhint: keyrotd init --help\n"),
        ([], "Usage: keyrotd "),
    ],
)
def test_a_wrong_command_line_is_told_by_error_and_hint(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEYROTD_CONFIG", raising=False)

    assert main.run(arguments) == exits.USAGE

    assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            ConfigError([("a: is not known", "did you mean b?"), ("c: is missing", None)]),
            78,
            "error: a: is not known\nhint: did you mean b?\nerror: c: is missing\n",
        ),
        (
            StoreUnavailable("store: no answer", operation="look", hint="is it up?"),
            69,
            "error: store: no answer\nhint: is it up?\n",
        ),
        (KeyrotdError("ring edge: refused", hint="wait"), 1, "error: ring edge: refused\nhint: wait\n"),
        (click.ClickException("It broke."), 1, "error: it broke\n"),
        (click.Abort(), 1, "error: stopped before the end\n"),
        (KeyboardInterrupt(), 1, "\nerror: stopped before the end\n"),
        (click.exceptions.Exit(1), 1, ""),
        (click.exceptions.Exit(0), 0, ""),
    ],
)
def test_each_kind_of_error_has_its_words_and_its_code(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command("check")
    def failing() -> None:
        raise error

    monkeypatch.setattr("keyrotd.cli.check.check", failing)

    assert main.run(["check"]) == code

    assert capsys.readouterr().err == told


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    script = 'keyrotd() { "$0" -m keyrotd "$@"; }; keyrotd --help | true; echo "${PIPESTATUS[0]}"'

    ran = subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True, check=True)

    assert ran.stderr == ""
    assert ran.stdout.strip() in {"0", "1"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == exits.DONE

    assert f"_KEYROTD_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_commands_are_completed_without_loading_them() -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "keyrotd"],
        env={**os.environ, "_KEYROTD_COMPLETE": "bash_complete", "COMP_WORDS": "keyrotd c", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout.splitlines() == [f"plain,{name}" for name in main.COMMANDS if name.startswith("c")]
    assert "cryptography" not in ran.stderr


def test_the_words_of_exit_codes_are_the_constants() -> None:
    assert exits.__doc__ is not None

    listed = {int(line.split()[0]) for line in exits.__doc__.splitlines() if line.startswith("    ")}

    assert listed == {exits.DONE, exits.FAILED, exits.USAGE, exits.STORE_AWAY, exits.CONFIGURATION}
