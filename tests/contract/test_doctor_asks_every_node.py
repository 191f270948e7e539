"""Of a cluster every node is looked at: one that evicts is enough to lose a window, whoever has the ring today."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrotd.cli import exits
from keyrotd.cli.main import run
from tests.contract.topologies import Clustered, Server

#: What the commands need to read a ring and to tell of a node; not that a cluster has nodes.
FEW_RIGHTS = "ACL SETUSER few on nopass ~* &* +@read +@connection +info +evalsha_ro +eval_ro +asking"


@pytest.fixture
def config(cluster: Clustered, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    run(["init", str(tmp_path)])
    capsys.readouterr()
    return named(tmp_path / "keyrotd.toml", cluster, before='"embedded:"')


def named(path: Path, cluster: Clustered, *, before: str, user: str = "", words: str = "") -> Path:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    path.write_text(path.read_text("utf-8").replace(before, f'"redis+cluster://{user}{hosts}{words}"'), "utf-8")
    return path


@pytest.fixture
def evicting(cluster: Clustered) -> Iterator[Server]:
    """A node that has none of the ring's keys, and forgets what it has when it is full."""
    (node, *_) = (node for node in cluster.nodes if node is not cluster.owner("edge"))
    node.redis.config_set("maxmemory", "1gb")
    node.redis.config_set("maxmemory-policy", "allkeys-lru")
    yield node
    node.redis.config_set("maxmemory", "0")
    node.redis.config_set("maxmemory-policy", "noeviction")


def examined(config: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, Any]]]:
    assert run(["doctor", "--config", str(config), "--role", "operator", "--json"]) == exits.FAILED
    sections = json.loads(capsys.readouterr().out)["sections"]
    return {section["about"]: section["findings"] for section in sections}


def test_a_node_that_may_evict_is_found_although_the_ring_lives_on_another(
    cluster: Clustered, evicting: Server, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = examined(config, capsys)

    nodes = [about for about in found if about.startswith("store node ")]
    assert sorted(nodes) == sorted(f"store node redis://127.0.0.1:{node.port}/0" for node in cluster.nodes)
    evictions = {
        about: finding["verdict"] for about in nodes for finding in found[about] if finding["check"] == "store.eviction"
    }
    assert evictions.pop(f"store node redis://127.0.0.1:{evicting.port}/0") == "grave"
    assert set(evictions.values()) == {"ok"}


@pytest.fixture
def _few_rights(cluster: Clustered) -> Iterator[None]:
    for node in cluster.nodes:
        node.redis.execute_command(FEW_RIGHTS)
    yield
    for node in cluster.nodes:
        node.redis.execute_command("ACL DELUSER few")


@pytest.mark.usefixtures("_few_rights")
def test_who_may_not_ask_for_the_nodes_is_told_so(
    cluster: Clustered, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    password = config.parent / "secrets/store.password"
    password.write_text("any")
    password.chmod(0o600)
    named(config, cluster, before=f'"redis+cluster://{hosts}"', user="few@", words=f"?password_file={password}")

    found = examined(config, capsys)

    ((about, findings),) = [(about, found[about]) for about in found if about.startswith("store ")]
    assert about.startswith("store redis+cluster://")
    worst = {finding["check"]: finding["verdict"] for finding in findings}
    assert (worst["store.nodes"], worst["store.eviction"]) == ("note", "ok")
