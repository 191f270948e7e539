"""
What the charts render, run: schedulers, a sidecar and its server as processes, from mounts as a kubelet lays them.

So names, keys, modes, paths, ports, probes and the order of starting are those that the manifests say. What is not
proven here is Kubernetes itself: there is no cluster.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
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
from tests.helm.pods import Pod, objects
from tests.scenes import short_directory

KEYROTD = (sys.executable, "-m", "keyrotd")
#: Sooner than a fleet would want it, so that the test need not wait.
QUICK: Values = {"agent": {"poll_interval": "200ms", "start_grace": "2s"}}
SERVERS = {"haproxy": servers_found.wheel_haproxy, "envoy": servers_found.wheel_envoy}


@dataclass
class Cluster:
    """A folder, a store, and the Secrets that `keyrotd init` printed."""

    folder: Path
    url: str
    secrets: list[Manifest]
    stack: ExitStack

    def pod(self, name: str, found: list[Manifest], ports: dict[int, int]) -> Pod:
        (template,) = (template for kind, template in pods(found) if kind == "Deployment")
        held = objects([*self.secrets, *found])
        held["Secret", "site"] = self.site()
        root = self.folder / name
        root.mkdir()
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
    scheduler_port, agent_port, tls_port = free_ports(3)
    config = merged(QUICK, {"store": {"url": cluster.url}})
    leading = cluster.pod("scheduler", manifests("keyrotd", {"config": config}), {9754: scheduler_port})
    values = {"keyrotd-sidecar": {"config": config}}
    serving = cluster.pod("server", manifests(f"examples/{kind}", values), {9755: agent_port, 8443: tls_port})
    for pod, role in ((leading, "scheduler"), (serving, "agent")):
        assert run(["check", "--config", str(pod.at("/etc/keyrotd/keyrotd.toml")), "--role", role]) == exits.DONE

    assert not serving.probe("keyrotd", "startupProbe")
    log = leading.start("scheduler", KEYROTD)
    serving.start("keyrotd", KEYROTD)
    wait_until(lambda: serving.probe("keyrotd", "startupProbe"), "the key file is there")
    serving.start(kind, (str(SERVERS[kind]()),))

    for pod, container in ((leading, "scheduler"), (serving, "keyrotd")):
        wait_until(lambda p=pod, c=container: p.probe(c, "livenessProbe"), f"{container} lives")  # type: ignore[misc]
        wait_until(lambda p=pod, c=container: p.probe(c, "readinessProbe"), f"{container} is ready")  # type: ignore[misc]
    status = ["status", "--config", str(leading.at("/etc/keyrotd/keyrotd.toml"))]
    wait_until(lambda: run(status) == exits.DONE, "the fleet is healthy", 60)
    assert {
        path.stat().st_mode & 0o777 for path in serving.at("/run/keyrotd-keys").rglob("[!.]*") if path.is_file()
    } == {0o640}

    volume = leading.volumes["files"]
    files, mode = leading.files(volume)
    quicker = files["keyrotd.toml"] + b'\n[log]\nlevel = "debug"\n'
    leading.turn(leading.at("/etc/keyrotd"), {**files, "keyrotd.toml": quicker}, mode)
    wait_until(lambda: bool(re.search("configuration.reloaded", log.read_text())), "the mount's turn is a reload")
