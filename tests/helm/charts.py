"""Helm itself, in this process: charts as `helm template` renders them, with the values of a user."""

import atexit
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helm.schema import HELM

#: The oldest Kubernetes that the charts take: their kubeVersion.
OLDEST = "1.29"
KINDS_OF_OTHERS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}  # the Prometheus Operator's
STORE = "rediss://keyrotd@valkey.store.svc:6379/0?password_file=/etc/keyrotd-store/password"

Values = dict[str, Any]
Manifest = dict[str, Any]

HAPROXY = {
    "name": "haproxy",
    "ring": "edge",
    "driver": "haproxy",
    "socket": "/run/haproxy/keyrotd.sock",
    "key_file": "/run/keyrotd/haproxy.keys",
    "probe": "127.0.0.1:443",
}


def tool(module: str) -> Any:
    """Import one of the dependency group `charts`; skip visibly, or fail in CI, where it is not installed."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("not run: Helm's SDK has a wheel for Linux on x86-64 only")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        message = f"{module}: is not here; `./dev test --all` installs requirements/charts.txt"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)


def least(chart: str) -> Values:
    """What a user has to say before the chart renders."""
    keyrotd = {"image": {"repository": "registry.example/keyrotd"}, "config": {"store": {"url": STORE}}}
    if chart == "keyrotd":
        return keyrotd
    return {"image": "registry.example/server:1", "site": "site", "keyrotd-sidecar": keyrotd}


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> Values:
    """As Helm does it: tables grow together, everything else is replaced."""
    both = dict(base)
    for key, value in more.items():
        found = both.get(key)
        both[key] = merged(found, value) if isinstance(found, dict) and isinstance(value, dict) else value
    return both


def chart(name: str) -> Path:
    """The folder of a chart; an example has its dependency in charts/, as `helm dependency update` puts it there."""
    if name.startswith("examples/"):
        return _with_dependency(name)
    return HELM / name


@functools.cache
def _with_dependency(name: str) -> Path:
    kept = _folder() / Path(name).name
    shutil.copytree(HELM / name, kept / "examples" / kept.name)
    shutil.copytree(HELM / "keyrotd-sidecar", kept / "keyrotd-sidecar")
    tool("helm_python.registry").dependency_update(kept / "examples" / kept.name, skip_refresh=True)
    return kept / "examples" / kept.name


@functools.cache
def _folder() -> Path:
    name = tempfile.mkdtemp(prefix="keyrotd-charts-")
    atexit.register(shutil.rmtree, name)
    return Path(name)


def texts(name: str, more: Values | None = None, *, release: str = "keyrotd") -> dict[str, str]:
    """What Helm renders, by template. Raises what Helm raises."""
    with tool("helm_python").Chart.load(chart(name)) as loaded:
        found: dict[str, str] = loaded.render(merged(least(name), more or {}), name=release, namespace="tls")
    return found


def manifests(name: str, more: Values | None = None, *, release: str = "keyrotd") -> list[Manifest]:
    """Every object that Helm would send to the API."""
    yaml = tool("yaml")
    found = texts(name, more, release=release)
    return [
        manifest
        for path, text in found.items()
        if not path.endswith("NOTES.txt")
        for manifest in yaml.safe_load_all(text)
        if manifest is not None
    ]


def pods(found: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod template with the kind of its owner."""
    for manifest in found:
        if "template" in manifest.get("spec", {}):
            yield manifest["kind"], manifest["spec"]["template"]


def only(found: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    (one,) = (
        manifest
        for manifest in found
        if manifest["kind"] == kind and (name is None or manifest["metadata"]["name"] == name)
    )
    return one


def faults(manifest: Manifest, version: str) -> str | None:
    """What the API of that version finds wrong by its schema, with nothing let pass that it does not know."""
    return _judged(json.dumps(manifest, sort_keys=True), version)


@functools.cache
def _judged(manifest: str, version: str) -> str | None:
    validate = tool("kubernetes_validate")
    found = json.loads(manifest)
    try:
        validate.validate(found, version, strict=True)
    except validate.ValidationError as invalid:
        return f"{'.'.join(map(str, invalid.path))}: {invalid.message}"
    except validate.SchemaNotFoundError as unknown:
        return None if found["kind"] in KINDS_OF_OTHERS else str(unknown.message)
    return None


def newest() -> str:
    """The newest Kubernetes whose schemas are here."""
    tool("kubernetes_validate")
    return ".".join(importlib.metadata.version("kubernetes-validate").split(".")[:2])
