"""Whatever a page tells its reader to type, open or set is there: commands with their options, files, links, keys."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from keyrotd.cli.main import cli
from keyrotd.config import SECTIONS
from keyrotd.servers.catalogue import COMMON, DRIVERS

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted(
    {
        *CHECKOUT.glob("*.md"),
        *(CHECKOUT / "docs").glob("*.md"),
        *(CHECKOUT / "deploy").rglob("README.md"),
    }
)
#: Names of a chart's values look like keys of the configuration and are others.
OF_CHARTS = {CHECKOUT / "docs" / "kubernetes.md", *(CHECKOUT / "deploy" / "helm").rglob("README.md")}
#: The folders of the checkout: what begins with one of them is a path in it.
TOPS = "deploy|docs|keyrotd|requirements|tests"

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
#: A command word where a shell, a unit, a transcript or a sentence's code span begins one.
_BEGINS = r"(?:^|[|;&]|\$\(|\$ |-- |!|sudo |exec |ExecStart=|-u \w+ )\s*(?:\w+=\S* )*"
_REST = r"""((?:"[^"\n]*"|'[^'\n]*'|[^|;&)#\n"'])*)"""
_KEYROTD = re.compile(rf"{_BEGINS}(?:[\w./-]*/)?keyrotd(?=\s|$){_REST}", re.MULTILINE)
_DEV = re.compile(rf"{_BEGINS}(?:[\w./-]*)\./dev\b{_REST}", re.MULTILINE)
_MODULE = re.compile(r"python3? -m ((?:tests|keyrotd)[\w.]*)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?:\./)?((?:{TOPS})/(?:[a-z_.*{{][\w./*{{}},-]*)?)")
_DOTTED = re.compile(r"(\w+)\.(?!(?:lock|memory|cache|log|sock)$)(\w+)")  # the others are files
#: `keyrotd window v1` begins a file, not a command line.
_FIRST_LINE = re.compile(r"\w+ v[0-9N]")
_BRACKETS = re.compile(r"\[{1,2}(\w+)\]{1,2}")

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(CHECKOUT)))


@page
def test_every_command_line_parses(path: Path) -> None:
    faults = [f"{line}: {fault}" for line in command_lines(path) if (fault := fault_of(line))]

    assert faults == []


@page
def test_every_word_of_dev_is_one_that_it_knows(path: Path) -> None:
    known = set(re.findall(r"^ {2}(\w+) {2,}", (CHECKOUT / "dev").read_text(), re.MULTILINE))
    found = [line.split()[0] for code in codes(path) for line in _DEV.findall(code) if line.split()]

    assert [word for word in found if word not in {*known, "COMMAND", "..."}] == []


@page
def test_every_module_that_is_run_can_be(path: Path) -> None:
    found = dict.fromkeys(_MODULE.findall(path.read_text("utf-8")))

    assert [name for name in found if not runs(name)] == []


@page
def test_every_link_leads_somewhere(path: Path) -> None:
    assert [link for link in _LINK.findall(without_code(path)) if not leads(path, link)] == []


@page
def test_every_path_of_the_checkout_is_there(path: Path) -> None:
    spans = [span for span in _SPAN.findall(without_fences(path)) if " " not in span]
    found = [match[1] for span in spans if (match := _PATH.fullmatch(span))]

    assert [name for name in found if not exists(name)] == []


@pytest.mark.parametrize("path", [path for path in PAGES if path not in OF_CHARTS], ids=lambda path: path.stem)
def test_every_key_of_the_configuration_is_known(path: Path) -> None:
    spans = _SPAN.findall(without_fences(path))
    sections = {*SECTIONS, "server"} - {""}
    dotted = [match for span in spans if (match := _DOTTED.fullmatch(span)) and match[1] in sections]
    brackets = [match[1] for span in spans if (match := _BRACKETS.fullmatch(span)) and span.startswith("[[")]

    assert [match[0] for match in dotted if match[2] not in keys_of(match[1])] == []
    assert [name for name in brackets if name not in {"ring", "server"}] == []


@page
def test_every_piece_of_a_configuration_is_toml_of_known_keys(path: Path) -> None:
    pieces = [tomllib.loads(text) for kind, text in fences(path) if kind == "toml"]

    assert [fault for piece in pieces for fault in unknown_keys(piece)] == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("status --json --watch", ""),
        ("rotate [--now] [--ring R] [--timeout 60s]", ""),
        ("init DIR [--format files|kubernetes]", ""),
        ("completion bash|zsh|fish", ""),
        ("--help", ""),
        ("stauts", "stauts"),
        ("status --jsn", "--jsn"),
        ("rekey kek begin --nowhere x", "--nowhere"),
        ("rotate --now yes no --reason", "--reason"),
    ],
)
def test_a_line_that_would_not_parse_is_found(line: str, fault: str) -> None:
    assert fault in fault_of(line)
    assert bool(fault) == bool(fault_of(line))


def codes(path: Path) -> list[str]:
    """All code of a page: its fenced blocks, continued lines joined, and its spans."""
    blocks = [
        re.sub(r"\\\n\s*", "", text) for kind, text in fences(path) if kind not in {"toml", "json", "python", "c"}
    ]
    return [*blocks, *(span.replace("\n", " ") for span in _SPAN.findall(without_fences(path)))]


def command_lines(path: Path) -> Iterator[str]:
    for code in codes(path):
        for line in _KEYROTD.findall(code):
            if _FIRST_LINE.match(line.strip()):
                continue
            # What a page says beside it in two columns, or what a shell does with what comes out.
            yield re.split(r"\s{3,}|\s[0-9]?[<>]", line.strip())[0].strip()


def fault_of(line: str) -> str:
    """What click says of a command line whose words may stand for others, '' for nothing."""
    words = [word.split("|")[0] for word in shlex.split(re.sub(r"[\[\]\u2026]|\.\.\.", " ", line))]
    command: click.Command = cli
    context = click.Context(cli, info_name="keyrotd")
    try:
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            _, found, words = command.resolve_command(context, words)
            assert found is not None  # or it raised
            command, context = found, click.Context(found, parent=context, info_name=found.name)
        command.make_parser(context).parse_args(words)
    except click.UsageError as error:
        return error.format_message()
    return ""


def fences(path: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page, each with the language that it names, and without what it is indented by."""
    found = _FENCE.findall(path.read_text("utf-8"))
    return [(kind, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, kind, text in found]


def without_fences(path: Path) -> str:
    return _FENCE.sub("", path.read_text("utf-8"))


def without_code(path: Path) -> str:
    return _SPAN.sub("", without_fences(path))


def runs(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    package = spec is not None and spec.submodule_search_locations is not None
    return spec is not None and (not package or importlib.util.find_spec(f"{module}.__main__") is not None)


def leads(path: Path, link: str) -> bool:
    if link.startswith(("http://", "https://", "mailto:")):
        return True
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", without_fences(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(name: str) -> bool:
    alternatives = re.fullmatch(r"(.*)\{([^}]*)\}(.*)", name)
    if alternatives is not None:
        before, words, after = alternatives.groups()
        return all(exists(f"{before}{word}{after}") for word in words.split(","))
    return any(CHECKOUT.glob(name.rstrip("/")))


def keys_of(section: str) -> set[str]:
    if section == "server":
        return {*COMMON, "driver", *(key for entry in DRIVERS.values() for key in entry.fields)}
    return {*SECTIONS[section]}


def unknown_keys(toml: dict[str, Any]) -> Iterator[str]:
    for name, value in toml.items():
        if name not in {*SECTIONS[""], *SECTIONS, "server"}:
            yield name
        for table in value if isinstance(value, list) else [value]:
            if isinstance(table, dict):
                yield from (
                    f"{name}.{key}" for key in table if name in {*SECTIONS, "server"} and key not in keys_of(name)
                )
