"""What limits resumption in TLS 1.3 on HAProxy, whoever writes its keys: deploy/haproxy/README.md tells operators."""

import base64
import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyrotd.testing.certificates import new_authority
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.live import LiveServer
from keyrotd.tls.handshake import Trust, Version, client_context
from tests.resumption.line import Line
from tests.resumption.regimes import haproxy
from tests.scenes import short_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as found:
        yield found


def test_a_resumed_handshake_brings_no_ticket_until_the_key_has_changed(haproxy_exe: Path, directory: Path) -> None:
    ca, certificate = new_authority(datetime.now(UTC)).write(directory)
    server = HAProxy(name="node", exe=haproxy_exe, directory=directory / "node", certificate=certificate)
    server.key_file.write_text("".join(f"{new_key()}\n" for _ in range(3)))
    context = client_context(Version.TLS13, Trust(ca_file=str(ca)))
    server.start()
    try:
        first, second = offer(server, context, None)

        assert offer(server, context, first) == []
        server.ask(f"set ssl tls-key {server.key_file} {new_key()}")
        assert len(offer(server, context, second)) == 1
    finally:
        server.stop()


def test_with_a_key_of_its_own_each_handshake_brings_one(haproxy_exe: Path, directory: Path) -> None:
    ca, certificate = new_authority(datetime.now(UTC)).write(directory)
    server = haproxy(haproxy_exe).own(name="node", directory=directory / "node", certificate=certificate)
    context = client_context(Version.TLS13, Trust(ca_file=str(ca)))
    server.start()
    try:
        first, _ = offer(server, context, None)

        assert len(offer(server, context, first)) == 1
    finally:
        server.stop()


def new_key() -> str:
    return base64.b64encode(os.urandom(80)).decode()


def offer(server: LiveServer, context: ssl.SSLContext, ticket: ssl.SSLSession | None) -> list[ssl.SSLSession]:
    """What tickets one visit brings, which resumes if it can."""
    with Line(server.port, context, ticket, timeout_s=5) as line:
        line.shake_hands()
        line.say(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while line.hear():
            pass
        assert line.resumed == (ticket is not None)
        return line.tickets
