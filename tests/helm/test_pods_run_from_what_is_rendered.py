"""
What the charts render, run: schedulers, a sidecar and its server as processes, from mounts as a kubelet lays them.

So names, keys, modes, paths, ports, probes and the order of starting are those that the manifests say. What is not
proven here is Kubernetes itself: there is no cluster.
"""

import base64
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from keyrotd.cli import exits
from keyrotd.cli.main import run
from keyrotd.store import embedded
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.live import free_ports
from tests import servers_found
from tests.helm.charts import Manifest, Values, manifests, merged, pods, tool
from tests.helm.page import commands, files
from tests.helm.pods import Pod, objects
from tests.helm.test_charts_render_and_validate import ON_NODES
from tests.scenes import short_directory

KEYROTD = (sys.executable, "-m", "keyrotd")
#: Sooner than a fleet would want it, so that the test need not wait.
QUICK: Values = {"agent": {"poll_interval": "200ms", "start_grace": "2s"}}
SERVERS = {"haproxy": servers_found.wheel_haproxy, "envoy": servers_found.wheel_envoy}
#: One core may be shared by many.
PATIENCE_S = 60


@dataclass
class Cluster:
    """A folder, a store, and the Secrets that `keyrotd init` printed."""

    folder: Path
    url: str
    secrets: list[Manifest]
    stack: ExitStack

    def fleet(self, kind: str) -> tuple[Pod, Pod]:
        """A pod of the schedulers and one of a server, nothing started."""
        scheduler_port, agent_port, tls_port = free_ports(3)
        config = merged(QUICK, {"store": {"url": self.url}})
        leading = self.pod("scheduler", manifests("keyrotd", {"config": config}), {9754: scheduler_port})
        values = {"keyrotd-sidecar": {"config": config}}
        return leading, self.pod("server", manifests(f"examples/{kind}", values), {9755: agent_port, 8443: tls_port})

    def begin(self, leading: Pod, serving: Pod, kind: str) -> Path:
        """Start both as a kubelet does, the server after its sidecar has started. Return the scheduler's log."""
        log = leading.start("scheduler", KEYROTD)
        serving.start("keyrotd", KEYROTD)
        wait_until(lambda: serving.probe("keyrotd", "startupProbe"), "the key file is there", PATIENCE_S)
        serving.start(kind, (str(SERVERS[kind]()),))
        status = ["status", "--config", str(leading.at("/etc/keyrotd/keyrotd.toml"))]
        wait_until(lambda: run(status) == exits.DONE, "the fleet is healthy", PATIENCE_S)
        return log

    def secret(self, name: str, key: str) -> bytes:
        return objects(self.secrets)["Secret", name][key]

    def apply(self, name: str, key: str, content: bytes, there: tuple[Pod, ...]) -> None:
        """Change a Secret, turn the mounts of these pods, and wait until their daemons go by it, as the page says."""
        (manifest,) = (secret for secret in self.secrets if secret["metadata"]["name"] == name)
        manifest["data"] = {key: base64.b64encode(content).decode()}
        before = [said(pod) for pod in there]
        for pod in there:
            pod.objects = {**pod.objects, ("Secret", name): {key: content}}
            (volume,) = (volume for volume in pod.volumes.values() if "projected" in volume)
            pod.turn(pod.at("/etc/keyrotd"), *pod.files(volume))
        for pod, count in zip(there, before, strict=True):
            wait_until(lambda p=pod, c=count: said(p) > c, "a mount's turn is taken", PATIENCE_S)  # type: ignore[misc]

    def key_files(self, serving: Pod) -> list[Path]:
        return [path for path in serving.at("/run/keyrotd-keys").rglob("[!.]*") if path.is_file()]

    def pod(self, name: str, found: list[Manifest], ports: dict[int, int], owner: str = "Deployment") -> Pod:
        (template,) = (template for kind, template in pods(found) if kind == owner)
        held = objects([*self.secrets, *found])
        held["Secret", "site"] = self.site()
        root = self.folder / name
        root.mkdir(exist_ok=True)
        return Pod(template, held, root, ports, self.stack)

    def site(self) -> dict[str, bytes]:
        pem = new_authority(datetime.now(UTC)).issue("localhost", "127.0.0.1")
        certificate, mark, key = pem.partition(b"-----BEGIN PRIVATE KEY")
        return {"tls.crt": certificate, "tls.key": mark + key}


@pytest.fixture
def cluster(capsys: pytest.CaptureFixture[str]) -> Iterator[Cluster]:
    yaml = tool("yaml")
    with ExitStack() as stack:
        folder = stack.enter_context(short_directory())
        store = embedded.start(runtime_dir=folder / "s", data_dir=None, server=servers_found.wheel_valkey())
        stack.callback(store.stop)
        assert run(["init", "--format", "kubernetes", "--ring", "edge", "--store", store.url]) == exits.DONE
        secrets = list(yaml.safe_load_all(capsys.readouterr().out))
        yield Cluster(folder, store.url, secrets, stack)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_fleet_of_pods_comes_up_in_order(cluster: Cluster, kind: str) -> None:
    leading, serving = cluster.fleet(kind)
    for pod, role in ((leading, "scheduler"), (serving, "agent")):
        assert run(["check", "--config", str(pod.at("/etc/keyrotd/keyrotd.toml")), "--role", role]) == exits.DONE

    assert not serving.probe("keyrotd", "startupProbe")
    log = cluster.begin(leading, serving, kind)

    for pod, container in ((leading, "scheduler"), (serving, "keyrotd")):
        for probe in ("livenessProbe", "readinessProbe"):
            wait_until(partial(pod.probe, container, probe), f"the {probe} of {container} holds", PATIENCE_S)
    assert {path.stat().st_mode & 0o777 for path in cluster.key_files(serving)} == {0o640}

    files, mode = leading.files(leading.volumes["files"])
    quicker = files["keyrotd.toml"] + b'\n[log]\nlevel = "debug"\n'
    leading.turn(leading.at("/etc/keyrotd"), {**files, "keyrotd.toml": quicker}, mode)
    wait_until(lambda: "configuration.reloaded" in log.read_text(), "the mount's turn is a reload", PATIENCE_S)


def test_an_agent_on_a_node_writes_where_the_nodes_server_reads(cluster: Cluster) -> None:
    ours = merged(ON_NODES, {"config": {**QUICK, "store": {"url": cluster.url}}})
    (port,) = free_ports(1)
    for folder in ("run/keyrotd", "var/lib/keyrotd", "run/haproxy"):
        (cluster.folder / "node" / folder).mkdir(parents=True)
    node = cluster.pod("node", manifests("keyrotd", ours), {9755: port}, "DaemonSet")

    node.start("agent", KEYROTD)

    wait_until(lambda: node.probe("agent", "livenessProbe"), "the agent lives", PATIENCE_S)
    wait_until(node.at("/run/keyrotd/haproxy.keys").exists, "the key file is there", PATIENCE_S)
    assert not node.probe("agent", "readinessProbe"), "no HAProxy was seen to hold them"
    assert node.at("/run/keyrotd/haproxy.keys").stat().st_mode & 0o777 == 0o640
    assert node.at("/run/keyrotd/daemon").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in node.at("/var/lib/keyrotd/daemon").glob("*.memory")] == ["agent-edge.memory"]


def test_the_kek_changes_as_the_page_says(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy has slots enough for the page's rotations at once."""
    pods_running = cluster.fleet("envoy")
    cluster.begin(*pods_running, "envoy")
    before = cluster.secret("keyrotd-ring-edge", "edge.kek")
    monkeypatch.chdir(cluster.folder)
    monkeypatch.setenv("KEYROTD_CONFIG", "operator/keyrotd.toml")
    ((path, text),) = files("Changing things").items()
    done = []

    for words in commands("Changing things"):
        match words:
            case ["mkdir", *_]:
                (cluster.folder / "operator/secrets").mkdir(parents=True, mode=0o700)
                quick = '[agent]\npoll_interval = "200ms"\n'  # an operator waits by it for every node to speak
                Path(path).write_text(re.sub('redis://127[^"]*', cluster.url, text) + quick)
            case ["kubectl", "--namespace", "tls", "get", "secret", name, "-o", key, "|", "base64", "-d", ">", target]:
                found = re.fullmatch(r"jsonpath=\{\.data\.(.+)\}", key)
                assert found is not None
                Path(target).touch(mode=0o600)
                Path(target).write_bytes(cluster.secret(name, found[1].replace("\\", "")))
            case ["kubectl", "--namespace", "tls", "create", "secret", "generic", name, source, *apply]:
                assert " ".join(apply) == "--dry-run=client -o yaml | kubectl --namespace tls apply -f -"
                _, key, held = source.split("=")
                cluster.apply(name, key, Path(held).read_bytes(), pods_running)
            case ["keyrotd", *arguments]:
                wait_until(lambda told=arguments: run(told) == exits.DONE, " ".join(words), PATIENCE_S)  # type: ignore[misc]
                done.append(arguments[:3])
            case _:
                assert words[0] in {"umask", "export"}

    assert [words for words in done if words[0] == "rekey"] == [
        ["rekey", "kek", s] for s in ("add", "promote", "retire")
    ]
    after = cluster.secret("keyrotd-ring-edge", "edge.kek")
    assert not set(keys(before)) & set(keys(after))
    wait_until(lambda: run(["status"]) == exits.DONE, "it is healthy under the new KEK", PATIENCE_S)


def said(pod: Pod) -> int:
    """How often its daemon said what it goes by."""
    return sum(log.read_text("utf-8").count('"trust.taken"') for log in pod.root.glob("*.log"))


def keys(file: bytes) -> list[bytes]:
    return [line for line in file.splitlines() if line and not line.startswith(b"#")]
