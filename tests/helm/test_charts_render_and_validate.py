"""Every combination of values renders to what the oldest and the newest Kubernetes take, without a word from lint."""

import itertools
from collections.abc import Iterator

import pytest

from tests.helm.charts import HAPROXY, OLDEST, Values, chart, faults, least, manifests, merged, newest, texts, tool
from tests.helm.schema import HELM

#: Why a message of lint is none of ours.
TAKEN = {"icon is recommended": "keyrotd has no picture, and nobody's cluster needs one"}

ON_NODES: Values = {
    "agent": {"enabled": True, "hostPaths": ["/run/haproxy"], "groups": [188]},
    "config": {"server": [HAPROXY]},
}
MONITORED: Values = {
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podMonitor": {"enabled": True, "namespaces": ["tls", "web"]},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    }
}
PLACED: Values = {
    part: {
        "podLabels": {"team": "edge"},
        "podAnnotations": {"note": "x"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "system-cluster-critical",
    }
    for part in ("scheduler", "agent")
}
TOLD: Values = {
    "image": {"digest": f"sha256:{'0' * 64}", "pullPolicy": "Always", "pullSecrets": ["registry"]},
    "secrets": {"store": "keyrotd-store", "ring": {"inner.2": "inner-kek"}},
    "config": {
        "store": {"timeout": "2s", "wait_replicas": 1},
        "ring": [{"name": "edge", "rotation_interval": "8h", "previous_keys": 2}, {"name": "inner.2"}],
        "scheduler": {"listen": "[::]:9764"},
        "agent": {"listen": "[::1]:9765"},
        "log": {"level": "debug"},
    },
    "networkPolicy": {
        "storePorts": [6379, 26379],
        "storeTo": [{"namespaceSelector": {"matchLabels": {"name": "store"}}}],
        "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
    },
}
KEPT: Values = {"scheduler": {"persistence": {"enabled": True, "storageClass": "fast"}, "replicas": 3}}
OPEN: Values = {"networkPolicy": {"enabled": False}, "scheduler": {"replicas": 1}}
PARTS = (ON_NODES, MONITORED, PLACED, TOLD, KEPT, OPEN)


def combinations() -> Iterator[Values]:
    """None, each, each pair and all of them."""
    for size in (0, 1, 2, len(PARTS)):
        for parts in itertools.combinations(PARTS, size):
            values: Values = {}
            for part in parts:
                values = merged(values, part)
            yield values


@pytest.mark.parametrize("kubernetes", ["oldest", "newest"])
def test_what_the_chart_renders_is_valid(kubernetes: str) -> None:
    version = OLDEST if kubernetes == "oldest" else newest()

    found = [manifest for values in combinations() for manifest in manifests("keyrotd", values)]

    assert [(m["kind"], said) for m in found if (said := faults(m, version)) is not None] == []
    assert {"Deployment", "StatefulSet", "DaemonSet", "PodDisruptionBudget", "PrometheusRule"} <= {
        m["kind"] for m in found
    }


@pytest.mark.parametrize("kubernetes", ["oldest", "newest"])
@pytest.mark.parametrize("name", ["examples/haproxy", "examples/envoy"])
def test_what_the_examples_render_is_valid(name: str, kubernetes: str) -> None:
    version = OLDEST if kubernetes == "oldest" else newest()
    told = {"keyrotd-sidecar": {part: TOLD[part] for part in ("secrets",)} | {"image": {"tag": "2"}}}

    found = [*manifests(name), *manifests(name, told)]

    assert [(m["kind"], said) for m in found if (said := faults(m, version)) is not None] == []


@pytest.mark.parametrize("name", ["keyrotd", "examples/haproxy", "examples/envoy"])
@pytest.mark.parametrize("version", [f"v{OLDEST}.0", "newest"])
def test_lint_has_nothing_to_say(name: str, version: str) -> None:
    version = f"v{newest()}.0" if version == "newest" else version

    report = tool("helm_python").lint(chart(name), least(name), strict=True, with_subcharts=False, kube_version=version)

    assert [message for message in report["messages"] if message["error"] not in TAKEN] == []
    assert report["errors"] == []


def test_lint_has_nothing_to_say_of_the_library() -> None:
    report = tool("helm_python").lint(chart("keyrotd-sidecar"), least("keyrotd"), strict=True)

    assert [message for message in report["messages"] if message["error"] not in TAKEN] == []


@pytest.mark.parametrize("name", ["keyrotd", "keyrotd-sidecar", "examples/haproxy", "examples/envoy"])
def test_a_kubernetes_without_sidecars_is_told_away(name: str) -> None:
    assert f'kubeVersion: ">={OLDEST}.0-0"\n' in (HELM / name / "Chart.yaml").read_text("utf-8")


def test_nothing_is_rendered_for_a_value_that_is_not_there() -> None:
    for values in combinations():
        for path, text in texts("keyrotd", values).items():
            assert "<no value>" not in text, path
            assert "map[" not in text, path


def test_names_of_releases_do_not_clash() -> None:
    def named(release: str) -> set[tuple[str, str]]:
        return {(m["kind"], m["metadata"]["name"]) for m in manifests("keyrotd", MONITORED, release=release)}

    assert named("blue").isdisjoint(named("green"))
    assert ("Deployment", "blue-keyrotd-scheduler") in named("blue")
    assert ("Deployment", "keyrotd-eu-scheduler") in named("keyrotd-eu")
