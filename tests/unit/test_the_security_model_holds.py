"""docs/security-model.md claims nothing without a test that is there, and its numbers are what `check` computes."""

import ast
import re
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from keyrotd.cli.main import run
from keyrotd.daemon.hardening import lockable

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "security-model.md").read_text()
NAMED = re.findall(r"`([a-z_/]+\.py)::(\w+)`", PAGE)

#: Asked in a process of its own: this cannot be undone.
ASK = """
from keyrotd.cli.main import run
from keyrotd.daemon.hardening import harden
harden()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck:")))
"""


@cache
def named_in(file: str) -> frozenset[str]:
    tree = ast.parse((CHECKOUT / "tests" / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)))
def test_every_test_that_it_names_is_there(file: str, test: str) -> None:
    assert test in named_in(file)


def test_no_claim_stands_without_a_test() -> None:
    claims = [table for table in re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE) if "shown by" in table]
    rows = [row for table in claims for row in table.splitlines()[2:]]

    assert len(rows) > 30
    assert not [row for row in rows if "::test_" not in row]


def test_v_is_what_check_computes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = re.findall(r"^\| (\d+\w) \| (\d+\w) \| (\w+) \|$", PAGE, re.MULTILINE)
    run(["init", str(tmp_path)])
    path = tmp_path / "keyrotd.toml"
    fresh = path.read_text()

    computed = []
    for interval, lifetime, _ in said:
        text = fresh.replace('rotation_interval = "4h"', f'rotation_interval = "{interval}"')
        path.write_text(text.replace('ticket_lifetime = "2h"', f'ticket_lifetime = "{lifetime}"'))
        capsys.readouterr()
        run(["check", "--config", str(path)])
        computed += re.findall(r"\bR (\w+), T (\w+),.* V (\w+)", capsys.readouterr().out)

    assert said
    assert computed == said


def test_its_links_lead_somewhere() -> None:
    for file, anchor in re.findall(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)", PAGE):
        text = (CHECKOUT / "docs" / file).read_text()
        titles = {
            re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert not anchor or anchor in titles, (file, anchor)


def test_memory_is_locked_where_it_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    may = lockable()
    resource.setrlimit(resource.RLIMIT_MEMLOCK, before)

    ran = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True)

    assert (int(ran.stdout) > 0) is may
