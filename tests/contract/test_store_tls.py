"""Over TLS a store is who its certificate says, or it is away."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store.addresses import parse
from keyrotd.store.embedded import Embedded
from keyrotd.store.redis import RedisStore
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.live import free_port
from tests import servers_found
from tests.contract.stores import owner, running, store_on
from tests.contract.topologies import clustered
from tests.contract.topologies import server as one_server

pytestmark = pytest.mark.debian  # the wheel's Valkey is built without TLS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    directory = tmp_path_factory.mktemp("tls")
    ca, pem, _ = write_certificates(directory)
    with running(servers_found.debian_redis(), directory) as server, owner(server) as redis:
        redis.config_set("tls-ca-cert-file", str(ca), "tls-cert-file", str(pem), "tls-key-file", str(pem))
        redis.config_set("tls-auth-clients", "no", "tls-port", free_port())
        yield server


def over_tls(server: Embedded, options: str) -> RedisStore:
    with owner(server) as redis:
        port = redis.config_get("tls-port")["tls-port"]
    return store_on(parse(f"rediss://localhost:{port}/?{options}", runtime_dir=server.socket.parent))


def test_a_store_under_a_known_authority_is_used(server: Embedded) -> None:
    store = over_tls(server, f"ca_file={server.socket.parent}/ca.pem")

    assert store.poll(known_digest="", node="n", report=b"r").digest == ""
    assert store.reports() == {"n": b"r"}

    store.close()


def test_a_store_under_an_unknown_authority_is_away_with_a_hint(server: Embedded) -> None:
    with pytest.raises(StoreUnavailable) as refusal:
        over_tls(server, "").look()

    assert refusal.value.hint is not None
    assert "ca_file" in refusal.value.hint


@pytest.fixture
def demanding(server: Embedded) -> Iterator[Embedded]:
    """The store that wants to see a certificate of its clients."""
    with owner(server) as redis:
        redis.config_set("tls-auth-clients", "yes")
        yield server
        redis.config_set("tls-auth-clients", "no")


def test_a_client_without_the_certificate_it_needs_is_refused(demanding: Embedded) -> None:
    with pytest.raises(StoreUnavailable, match="look"):
        over_tls(demanding, f"ca_file={demanding.socket.parent}/ca.pem").look()


def test_a_client_with_the_certificate_it_needs_is_let_in(demanding: Embedded) -> None:
    directory = demanding.socket.parent
    store = over_tls(demanding, f"ca_file={directory}/ca.pem&{certificate(directory)}")

    assert store.poll(known_digest="", node="n", report=b"r").report_fault == ""

    store.close()


def test_a_client_with_a_certificate_of_somebody_else_is_refused(demanding: Embedded, tmp_path: Path) -> None:
    (tmp_path / "client.pem").write_bytes(new_authority(datetime.now(UTC)).issue_client("edge-1"))

    with pytest.raises(StoreUnavailable, match="look"):
        over_tls(demanding, f"ca_file={demanding.socket.parent}/ca.pem&{certificate(tmp_path)}").look()


def certificate(directory: Path) -> str:
    return f"cert_file={directory}/client.pem&key_file={directory}/client.pem"


def test_sentinels_and_the_primary_they_name_are_asked_over_tls(tmp_path: Path) -> None:
    exe, tls = servers_found.debian_redis(), tls_words(tmp_path)
    data_port, sentinel_port = free_port(), free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(f"sentinel monitor fleet 127.0.0.1 {data_port} 1\n", "utf-8")
    with (
        one_server(exe, tmp_path / "data", (*tls, "--tls-port", str(data_port))),
        one_server(exe, tmp_path / "a", (str(conf), "--sentinel", *tls, "--tls-port", str(sentinel_port))),
    ):
        url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/fleet?ca_file={tmp_path}/ca.pem&{certificate(tmp_path)}"
        store = store_on(parse(url, runtime_dir=tmp_path))

        assert store.poll(known_digest="", node="n", report=b"r").report_fault == ""

        store.close()


def test_every_node_of_a_cluster_is_asked_over_tls(tmp_path: Path) -> None:
    with clustered(servers_found.debian_redis(), tmp_path / "cluster", nodes=2, tls=tls_words(tmp_path)) as cluster:
        ports = [node.redis.config_get("tls-port")["tls-port"] for node in cluster.nodes]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        url = f"rediss+cluster://{hosts}?ca_file={tmp_path}/ca.pem&{certificate(tmp_path)}"

        for ring in ("edge", "core", "a"):
            store = store_on(parse(url, runtime_dir=tmp_path), ring=ring)
            assert store.poll(known_digest="", node="n", report=b"r").report_fault == ""
            store.close()


def tls_words(directory: Path) -> tuple[str, ...]:
    """What a server is told that speaks TLS to everybody, with a certificate for both of its sides."""
    ca, site, client = write_certificates(directory)
    return (
        *("--tls-ca-cert-file", str(ca), "--tls-cert-file", str(site), "--tls-key-file", str(site)),
        *("--tls-client-cert-file", str(client), "--tls-client-key-file", str(client)),
        *("--tls-auth-clients", "yes", "--tls-replication", "yes"),
    )


def write_certificates(directory: Path) -> tuple[Path, Path, Path]:
    authority, client = new_authority(datetime.now(UTC)), directory / "client.pem"
    client.write_bytes(authority.issue_client("edge-1"))
    return (*authority.write(directory), client)


@pytest.mark.parametrize("option", ["ca_file", "cert_file"])
def test_a_file_that_is_not_there_keeps_the_store_away(server: Embedded, option: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"look: .*No such file"):
        over_tls(server, f"{option}=/nothing.pem").look()
