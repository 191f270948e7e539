"""
Schedulers and pods with a sidecar pass the Pod Security Standard `restricted`; the DaemonSet breaks it where it says.

The checks are the standard's own list of fields, for Linux, each as the standard words it.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helm.charts import Manifest, manifests, only, pods
from tests.helm.test_charts_render_and_validate import ON_NODES, combinations

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def breaches(template: Manifest) -> Iterator[str]:
    """Every field of a pod that `restricted`, or `baseline` beneath it, forbids or misses."""
    spec: dict[str, Any] = template["spec"]
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    for volume in spec.get("volumes", []):
        yield from (f"volume {kind}" for kind in volume.keys() - {"name"} - VOLUMES)
    pod = spec.get("securityContext", {})
    if pod.get("sysctls"):
        yield "sysctls"
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        yield from (f"{container['name']}: {said}" for said in of_container(container, pod))


def of_container(container: Manifest, pod: Manifest) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = {**pod, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield "capabilities.drop"
    if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities.add"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if both.get("runAsUser") == 0:
        yield "runAsUser"
    if both.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccompProfile"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if both.get("seLinuxOptions") or both.get("appArmorProfile"):
        yield "seLinuxOptions or appArmorProfile"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    for probe in PROBES:
        if container.get(probe, {}).get("httpGet", {}).get("host"):
            yield f"{probe}.httpGet.host"


def test_schedulers_pass_whatever_the_values() -> None:
    found = [t for values in combinations() for kind, t in pods(manifests("keyrotd", values)) if kind != "DaemonSet"]

    assert [list(breaches(template)) for template in found if list(breaches(template))] == []
    assert len(found) > 1


@pytest.mark.parametrize("name", ["examples/haproxy", "examples/envoy"])
def test_a_server_with_its_sidecar_passes(name: str) -> None:
    ((_, template),) = pods(manifests(name))

    assert list(breaches(template)) == []


def test_agents_on_nodes_break_it_by_what_they_say_they_need() -> None:
    found = manifests("keyrotd", ON_NODES)
    (template,) = (template for kind, template in pods(found) if kind == "DaemonSet")

    assert set(breaches(template)) == {
        "hostNetwork",
        "volume hostPath",
        "agent: livenessProbe.httpGet.host",
        "agent: readinessProbe.httpGet.host",
    }


def test_nobody_may_speak_to_the_api() -> None:
    found = manifests("keyrotd", ON_NODES)

    assert {manifest["kind"] for manifest in found}.isdisjoint(
        {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    )
    assert only(found, "ServiceAccount")["automountServiceAccountToken"] is False
    for name in ("keyrotd", "examples/haproxy", "examples/envoy"):
        for _, template in pods(manifests(name, ON_NODES if name == "keyrotd" else None)):
            assert template["spec"]["automountServiceAccountToken"] is False
