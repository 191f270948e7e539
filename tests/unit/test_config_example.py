"""config.example.toml works as it is, and names every key with its true default."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from keyrotd import config, durations, sections
from keyrotd.config import SECTIONS, load
from keyrotd.servers.catalogue import COMMON, DRIVERS, REQUIRED, Field

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
CATALOGUE = [*(name for name in SECTIONS if name), *(f"server {driver}" for driver in DRIVERS)]


def test_the_example_loads_and_says_what_the_defaults_come_to() -> None:
    found = load(EXAMPLE)
    (ring,) = found.rings
    commented = uncommented()["ring"][0]

    assert [server.name for server in found.servers] == ["haproxy"]
    assert durations.parse(commented["max_seal_age"]) == ring.policy.max_seal_age_ms
    assert durations.parse(commented["overdue_after"]) == ring.policy.overdue_after_ms


def test_what_the_example_keeps_in_comments_would_load_too(tmp_path: Path) -> None:
    text = re.sub("rotation_cron = .*", "", without_comment_marks())
    (tmp_path / "keyrotd.toml").write_text(text, "utf-8")

    found = load(tmp_path / "keyrotd.toml")

    assert [server.driver.kind for server in found.servers] == list(DRIVERS)


@pytest.mark.parametrize("section", ["", *CATALOGUE])
def test_the_example_names_every_key_of(section: str) -> None:
    fields, shown = fields_of(section), shown_in(section)

    assert set(shown) == set(fields)


@pytest.mark.parametrize("section", ["", *CATALOGUE])
def test_the_example_shows_the_true_defaults_of(section: str) -> None:
    fields, shown = fields_of(section), shown_in(section)
    with_default = {key: field.default for key, field in fields.items() if field.default not in (REQUIRED, None)}

    read = sections.read(shown, fields, at="", place=EXAMPLE.parent.joinpath)

    assert read.faults == ()
    assert {key: read.values[key] for key in with_default} == with_default


def test_only_keys_without_a_fixed_default_are_in_comments() -> None:
    active = tomllib.loads(EXAMPLE.read_text("utf-8"))
    for name, fields in SECTIONS.items():
        if name:
            section = active[name][0] if isinstance(active[name], list) else active[name]
            assert set(section) == {key for key, field in fields.items() if field.default is not None}


def fields_of(section: str) -> Mapping[str, Field]:
    kind, _, driver = section.partition(" ")
    return {**COMMON, **DRIVERS[driver].fields, "driver": config.DRIVER} if kind == "server" else SECTIONS[section]


def shown_in(section: str) -> dict[str, Any]:
    """What the example says of a section, in comments or not."""
    found = uncommented()
    kind, _, driver = section.partition(" ")
    if kind == "server":
        (table,) = (table for table in found["server"] if table["driver"] == driver)
        # What all servers may say is shown once.
        return {**{key: value for key, value in found["server"][0].items() if key in COMMON}, **table}
    if not section:
        return {key: value for key, value in found.items() if not isinstance(value, dict | list)}
    return dict(found[section][0] if isinstance(found[section], list) else found[section])


def uncommented() -> dict[str, Any]:
    return tomllib.loads(without_comment_marks())


def without_comment_marks() -> str:
    return re.sub(r"(?m)^# (?=[a-z_]+ = |\[\[)", "", EXAMPLE.read_text("utf-8"))
