"""The bench of scale measures what it says, at a size that takes seconds: nobody is left behind, on one connection."""

import pytest

from tests.bench import scale
from tests.bench.lines import Lines
from tests.scenes import HURRIED

AGENTS = 20


def test_every_agent_polls_over_one_connection_and_reports_each_window(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("scale")

    (found,) = scale.measure(lines, [AGENTS], seconds=1, rotations=1, workers=2, pace=HURRIED)

    assert found.agents == AGENTS
    # Agents, scheduler, the bench's own two: one watches, one asks.
    assert found.connections <= AGENTS + 4
    assert min(found.polls_a_s, found.commands_a_s, found.bytes_a_s, found.rotations[0].took_ms) > 0
    table = list(scale.markdown([found]))
    assert table[0] == f"| agents | {AGENTS} |"
    assert {line.count("|") for line in table} == {3}
    assert f"{AGENTS} agents" in capsys.readouterr().out
