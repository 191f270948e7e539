"""A value that means nothing, lacks its meaning or holds a secret is refused before anything reaches a cluster."""

import json
from typing import Any

import pytest

from tests.helm.charts import HAPROXY, Values, least, merged, texts, tool
from tests.helm.schema import HELM, PAGE, SCHEMAS, config_schema, leaves, with_tables

CHARTS = ("keyrotd", "keyrotd-sidecar")


@pytest.mark.parametrize("path", SCHEMAS, ids=CHARTS)
def test_config_is_keyrotds_own_configuration(path: Any) -> None:
    schema = json.loads(path.read_text("utf-8"))

    assert schema["properties"]["config"] == config_schema(), "run `.venv/bin/python -m tests.helm.schema`"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"image": {"repository": ""}}, "/image/repository"),
        ({"config": {"store": {"url": ""}}}, "/config/store/url"),
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"scheduler": {"replica": 2}}, "additional properties 'replica' not allowed"),
        ({"config": {"agent": {"node": "one-for-all"}}}, "additional properties 'node' not allowed"),
        ({"config": {"ring": [{"name": "edge", "kek_file": "x"}]}}, "additional properties 'kek_file' not allowed"),
        ({"config": {"ring": [{"name": "Edge"}]}}, "/config/ring/0/name"),
        ({"config": {"ring": [{"name": "edge", "rotation_interval": 4}]}}, "/config/ring/0/rotation_interval"),
        ({"config": {"store": {"url": "redis://me:swordfish@valkey"}}}, "/config/store/url"),
        ({"config": {"scheduler": {"listen": "off"}}}, "/config/scheduler/listen"),
        ({"config": {"server": [{"name": "x", "ring": "edge", "driver": "iis"}]}}, "/config/server/0/driver"),
        ({"config": {"server": [{**HAPROXY, "admin": "x"}]}}, "additional properties 'admin' not allowed"),
        ({"agent": {"enabled": True}}, "/config"),
        ({"agent": {"hostPaths": ["run"]}}, "/agent/hostPaths/0"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"networkPolicy": {"storeTo": [{}]}}, "/networkPolicy/storeTo/0"),
    ],
)
def test_what_means_nothing_is_refused(wrong: Values, told: str) -> None:
    helm = tool("helm_python")

    with pytest.raises(helm.HelmValuesError) as refused:
        texts("keyrotd", wrong)

    assert told in str(refused.value)
    assert "swordfish" not in str(refused.value)


def test_a_sidecar_is_as_strict() -> None:
    helm = tool("helm_python")

    with pytest.raises(helm.HelmValuesError, match="additional properties 'scheduler' not allowed"):
        texts("examples/haproxy", {"keyrotd-sidecar": {"secrets": {"scheduler": "keyrotd-scheduler"}}})


def test_a_key_file_that_the_server_could_not_see_is_refused() -> None:
    helm = tool("helm_python")

    with pytest.raises(helm.HelmError, match="haproxy: key_file /run/keyrotd/haproxy\\.keys is in no folder below"):
        texts("examples/haproxy", {"keyrotd-sidecar": {"config": {"server": [HAPROXY]}}})


@pytest.mark.parametrize("name", CHARTS)
def test_every_value_is_described_with_its_true_default(name: str) -> None:
    schema = json.loads((HELM / name / "values.schema.json").read_text("utf-8"))
    values = tool("yaml").safe_load((HELM / name / "values.yaml").read_text("utf-8"))
    told = {path: about for path, about in leaves(schema) if path != "config"}

    assert {path: about["default"] for path, about in told.items()} == {path: at(values, path) for path in told}
    assert [path for path, about in told.items() if not about["description"]] == []
    tool("jsonschema").validate(merged(values, least("keyrotd")), schema)


def test_the_page_has_every_value() -> None:
    page = PAGE.read_text("utf-8")

    assert page == with_tables(page), "run `.venv/bin/python -m tests.helm.schema`"


def at(values: Values, path: str) -> Any:
    found: Any = values
    for word in path.split("."):
        found = found[word]
    return found
