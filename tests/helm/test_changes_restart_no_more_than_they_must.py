"""A change of values makes new pods exactly where the daemons themselves say that a reload would not do."""

from pathlib import Path
from typing import Any

import pytest

from keyrotd.cli.changes import held
from keyrotd.config import Config, Role, load
from tests.helm.charts import HAPROXY, Manifest, Values, manifests, merged, only, pods

BASE: Values = {
    "agent": {"enabled": True},
    "config": {"server": [HAPROXY], "ring": [{"name": "edge"}], "agent": {"poll_interval": "5s"}},
}
PODS: dict[str, Role] = {"Deployment": "scheduler", "DaemonSet": "agent"}

CHANGES: list[Values] = [
    {"store": {"timeout": "2s"}},
    {"store": {"namespace": "other"}},
    {"ring": [{"name": "edge"}, {"name": "inner"}]},
    {"ring": [{"name": "edge", "rotation_interval": "8h"}]},
    {"scheduler": {"listen": "0.0.0.0:9764"}},
    {"scheduler": {"lease_ttl": "20s"}},
    {"scheduler": {"node_ttl": "1m"}},
    {"agent": {"poll_interval": "4s"}},
    {"agent": {"listen": "127.0.0.1:9765"}},
    {"server": [{**HAPROXY, "probe": "127.0.0.1:8443"}]},
    {"server": [{**HAPROXY, "timeout": "3s"}]},
    {"log": {"level": "debug"}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_pod_is_made_anew_when_a_reload_would_not_do(change: Values, tmp_path: Path) -> None:
    before, after = manifests("keyrotd", BASE), manifests("keyrotd", merged(BASE, {"config": change}))

    old, new = config(before, tmp_path), config(after, tmp_path)

    assert {kind for kind, template in pods(after) if template not in [t for _, t in pods(before)]} == {
        kind for kind, role in PODS.items() if held(old, new, (role,)) or shows(change, kind)
    }


def shows(change: Values, kind: str) -> bool:
    """Whether it is seen in the pod besides: schedulers mount a ring's key."""
    return kind == "Deployment" and len(change.get("ring", [])) > 1


def config(found: list[Manifest], folder: Path) -> Config:
    path = folder / "keyrotd.toml"
    path.write_text(only(found, "ConfigMap", "keyrotd")["data"]["keyrotd.toml"], "utf-8")
    return load(path)


def test_a_sidecar_is_as_sparing() -> None:
    def annotation(more: Any) -> str:
        ((_, template),) = pods(manifests("examples/haproxy", {"keyrotd-sidecar": {"config": more}}))
        return str(template["metadata"]["annotations"]["checksum/keyrotd-restarts"])

    before = annotation({})

    assert annotation({"ring": [{"name": "edge", "ticket_lifetime": "1h"}], "log": {"level": "debug"}}) == before
    assert annotation({"store": {"timeout": "2s"}}) != before
    assert annotation({"agent": {"poll_interval": "4s"}}) != before
