"""What a chart has to carry in a copy is the original, to the byte; and charts are of keyrotd's own version."""

import json
from pathlib import Path

import pytest

import keyrotd
from tests.helm.charts import manifests, only, tool
from tests.helm.schema import HELM
from tests.helm.test_charts_render_and_validate import MONITORED

DEPLOY = HELM.parent
FILES = HELM / "keyrotd" / "files"


@pytest.mark.parametrize(
    ("copy", "original"),
    [
        (FILES / "keyrotd.rules.yml", DEPLOY / "prometheus" / "keyrotd.rules.yml"),
        (FILES / "keyrotd.json", DEPLOY / "grafana" / "keyrotd.json"),
        (HELM / "keyrotd-sidecar/templates/_shared.tpl", HELM / "keyrotd/templates/_shared.tpl"),
    ],
    ids=["alerts", "dashboard", "templates"],
)
def test_a_copy_is_its_original(copy: Path, original: Path) -> None:
    assert copy.read_bytes() == original.read_bytes(), f"cp {original} {copy}"


def test_alerts_and_dashboard_reach_the_cluster_as_they_are() -> None:
    yaml = tool("yaml")

    found = manifests("keyrotd", MONITORED)

    assert only(found, "PrometheusRule")["spec"] == yaml.safe_load((FILES / "keyrotd.rules.yml").read_text("utf-8"))
    shown = only(found, "ConfigMap", "keyrotd-dashboard")["data"]["keyrotd.json"]
    assert json.loads(shown) == json.loads((FILES / "keyrotd.json").read_text("utf-8"))


@pytest.mark.parametrize("name", ["keyrotd", "keyrotd-sidecar"])
def test_a_chart_is_of_keyrotds_version(name: str) -> None:
    about = (HELM / name / "Chart.yaml").read_text("utf-8").splitlines()

    assert f"version: {keyrotd.__version__}" in about
    assert f'appVersion: "{keyrotd.__version__}"' in about
