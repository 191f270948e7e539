"""deploy/envoy/keyrotd-envoy.yaml does what its README says: Envoy runs by it, and keyrotd sees what it needs to."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.core.keys import in_step
from keyrotd.servers.envoy import EnvoyDriver
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.driver import some_keys
from keyrotd.testing.envoy import Envoy
from keyrotd.testing.envoy_twin import write_strange_secret
from keyrotd.tls.handshake import Handshake, Trust, Version, client_context, visit
from keyrotd.tls.target import Target
from tests import servers_found

EXAMPLE = (Path(__file__).parents[2] / "deploy" / "envoy" / "keyrotd-envoy.yaml").read_text("utf-8")
_CERTIFICATE, _ADMIN, _KEYS = "/etc/envoy/site.pem", "/run/envoy/admin.sock", "/run/keyrotd-envoy"


class Example(Envoy):
    """An Envoy that runs by the example, with the paths of this test and a port that is free."""

    @property
    def config(self) -> str:
        text = EXAMPLE.replace("0.0.0.0", "127.0.0.1").replace("port_value: 443", f"port_value: {self.port}")
        for shown, ours in ((_CERTIFICATE, self.certificate), (_ADMIN, self.admin), (_KEYS, self.key_file.parent)):
            assert shown in text
            text = text.replace(shown, str(ours))
        return text


@pytest.fixture
def example() -> Iterator[tuple[Example, Path]]:
    with TemporaryDirectory(prefix="keyrotd") as name:  # a Unix socket's path must be short
        directory = Path(name)
        ca, certificate = new_authority(datetime.now(UTC)).write(directory)
        envoy = Example("edge-1", servers_found.wheel_envoy(), directory / "e", certificate)
        write_strange_secret(envoy.key_file)
        try:
            envoy.start()
            yield envoy, ca
        finally:
            envoy.stop()


@pytest.mark.parametrize("version", Version)
def test_the_example_takes_keys_and_shows_that_it_did(example: tuple[Example, Path], version: Version) -> None:
    envoy, ca = example
    driver = EnvoyDriver(name="edge-1", key_file=envoy.key_file, admin=str(envoy.admin))
    keys = some_keys(os.urandom, previous=1)

    driver.install(keys)

    seen = visit(
        Target("127.0.0.1", envoy.port),
        client_context(version, Trust(ca_file=str(ca))),
        sni="localhost",
        timeout_ms=5_000,
    )
    assert in_step(driver.observe(), keys)
    assert isinstance(seen, Handshake)
    assert seen.key_name == keys.current.name
    # TLS 1.3 says two days whatever session_timeout is: the README's limits say so.
    assert seen.lifetime_hint_s == {Version.TLS12: 7_200, Version.TLS13: 172_800}[version]


def test_the_admin_endpoint_of_the_example_lets_its_group_in_and_turns_no_log_level_up(
    example: tuple[Example, Path],
) -> None:
    envoy, _ = example

    assert envoy.admin.stat().st_mode & 0o777 == 0o660
    assert "sds.stek.update_success: " in envoy.ask("/stats")
    for path in ("/logging?level=debug", "/quitquitquit"):
        assert envoy.ask(path) == f"request to path {path} not allowed"
