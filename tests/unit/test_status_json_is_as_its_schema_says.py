"""docs/status.schema.json holds for what `status --json` prints, field by field: none more, none less, none other."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyrotd.cli.desk import observe
from keyrotd.cli.main import run
from keyrotd.cli.pausing import pausing
from keyrotd.cli.screen import JSON_SCHEMA, as_values
from keyrotd.cli.situation import Situation, Standing
from keyrotd.core.messages import NodeState, ProbeState, ServerState
from keyrotd.seal.messages import sign_request
from tests.stage import MINUTE, OPERATOR, Stage

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "status.schema.json").read_text())
RING: dict[str, Any] = SCHEMA["properties"]["rings"]["items"]
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}


def amiss(value: Any, schema: dict[str, Any], at: str = "$") -> Iterator[str]:
    """Where `value` is not as `schema` says. Stricter than JSON Schema: a field that it does not name is amiss too."""
    kinds = schema.get("type", [])
    allowed = tuple(_TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
        yield f"{at}: {type(value).__name__}"
        return
    if ("enum" in schema and value not in schema["enum"]) or ("const" in schema and value != schema["const"]):
        yield f"{at}: {value!r}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{at}: {value!r}"
    if isinstance(value, int) and value < schema.get("minimum", value):
        yield f"{at}: {value!r}"
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from amiss(item, schema["items"], f"{at}[{number}]")
    if isinstance(value, dict):
        yield from (f"{at}: lacks {name}" for name in schema["required"] if name not in value)
        for name, item in value.items():
            if name not in schema["properties"]:
                yield f"{at}: {name} is not told of"
            else:
                yield from amiss(item, schema["properties"][name], f"{at}.{name}")


def situations() -> Iterator[Situation]:
    """A ring's life: empty, led, paused, a node silent, no leader, without the KEK, and with words of every kind."""
    stage = Stage()
    yield observe(stage.desk(), stage)
    stage.pause(2 * MINUTE)
    yield observe(stage.desk(), stage)
    yield observe(stage.desk(kek=False), stage)
    order = pausing(observe(stage.desk(), stage), who="ann@ops", reason="drill", for_ms=30 * MINUTE)
    stage.store().request(id="one", request=sign_request(order, OPERATOR))
    stage.away = {"edge-2"}
    stage.pause(MINUTE)
    yield observe(stage.desk(), stage)
    stage.away = {"scheduler-1"}
    stage.pause(MINUTE)
    found = observe(stage.desk(), stage)
    yield found
    (node, *_) = found.nodes
    for standing in Standing:
        yield replace(found, nodes=(replace(node, standing=standing, spoke_at=None),))
    for state in NodeState:
        yield replace(found, nodes=(replace(node, report=replace(node.report, state=state)),))
    server = node.report.servers[0]
    for told in (
        *(replace(server, state=state) for state in ServerState),
        *(replace(server, probe=probe, slots=3) for probe in ProbeState),
        replace(server, address="192.0.2.7:443", resumed=2, tried=3),
    ):
        yield replace(found, nodes=(replace(node, report=replace(node.report, servers=(told,))),))


def test_every_situation_is_told_as_the_schema_says() -> None:
    seen = list(situations())

    for found in seen:
        document = {"schema": JSON_SCHEMA, "rings": [as_values(found)]}
        assert list(amiss(json.loads(json.dumps(document)), SCHEMA)) == []
    assert any(found.pause for found in seen)
    assert not all(found.healthy for found in seen)


def test_the_words_of_the_schema_are_those_of_the_code() -> None:
    node = RING["properties"]["nodes"]["items"]["properties"]
    server = node["servers"]["items"]["properties"]

    assert node["standing"]["enum"] == [standing.value for standing in Standing]
    assert node["state"]["enum"] == [state.value for state in NodeState]
    assert server["state"]["enum"] == [state.value for state in ServerState]
    assert server["probe"]["enum"] == [probe.value for probe in ProbeState]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ring": 1}, "$.ring: int"),
        ({"due_at": -1}, "$.due_at: -1"),
        ({"healthy": 1}, "$.healthy: int"),
        ({"leader": {"name": "s"}}, "$.leader: lacks lease_ms"),
        ({"more": 1}, "$: more is not told of"),
    ],
)
def test_what_is_amiss_is_found(change: dict[str, Any], told: str) -> None:
    stage = Stage()
    stage.pause(MINUTE)

    assert told in list(amiss({**as_values(observe(stage.desk(), stage)), **change}, RING))


def test_the_help_says_where_the_schema_is(capsys: pytest.CaptureFixture[str]) -> None:
    run(["status", "--help"])

    assert "docs/status.schema.json" in capsys.readouterr().out
