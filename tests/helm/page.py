"""docs/kubernetes.md as what a reader types: files by their names, and commands in their order."""

import re
import shlex
from collections.abc import Iterator

from tests.helm.schema import PAGE


def section(title: str) -> str:
    """Everything under one heading of the second level; the empty title is the whole page."""
    page = PAGE.read_text("utf-8")
    if not title:
        return page
    (found,) = re.findall(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page)
    return str(found)


def files(title: str = "") -> dict[str, str]:
    """What the page tells to write, by path: blocks whose first line is `# PATH`."""
    blocks = re.findall(r"(?ms)^```(?:yaml|toml)\n# (\S+)\n(.*?)^```", section(title))
    return {str(path): str(text) for path, text in blocks}


def commands(title: str = "") -> Iterator[list[str]]:
    """Each command line as a shell would split it, `|` and `>` words of their own."""
    for block in re.findall(r"(?ms)^```sh\n(.*?)^```", section(title)):
        for line in block.splitlines():
            yield shlex.split(line)
