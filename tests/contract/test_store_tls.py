"""Over TLS a store is who its certificate says, or it is away."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store.addresses import parse
from keyrotd.store.embedded import Embedded
from keyrotd.store.redis import RedisStore
from keyrotd.testing.certificates import new_authority
from tests import servers_found
from tests.contract.stores import free_port, owner, running, store_on

pytestmark = pytest.mark.debian  # the wheel's Valkey is built without TLS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    directory = tmp_path_factory.mktemp("tls")
    ca, pem = new_authority(datetime.now(UTC)).write(directory)
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


def test_a_client_without_the_certificate_it_needs_is_refused(server: Embedded) -> None:
    with owner(server) as redis:
        redis.config_set("tls-auth-clients", "yes")
        try:
            with pytest.raises(StoreUnavailable, match="look"):
                over_tls(server, f"ca_file={server.socket.parent}/ca.pem").look()
        finally:
            redis.config_set("tls-auth-clients", "no")


@pytest.mark.parametrize("option", ["ca_file", "cert_file"])
def test_a_file_that_is_not_there_keeps_the_store_away(server: Embedded, option: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"look: .*No such file"):
        over_tls(server, f"{option}=/nothing.pem").look()
