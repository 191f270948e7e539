"""What limits resumption in TLS 1.3 on HAProxy, whoever writes its keys: deploy/haproxy/README.md tells operators."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyrotd.testing.certificates import new_authority
from keyrotd.testing.live import LiveServer, Maker
from keyrotd.tls.handshake import Trust, Version, client_context
from tests.resumption.line import Line
from tests.resumption.regimes import CronReload, haproxy
from tests.scenes import short_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as found:
        yield found


def test_a_resumed_handshake_brings_no_ticket_until_the_key_has_changed(haproxy_exe: Path, directory: Path) -> None:
    kind = haproxy(haproxy_exe)
    server, context = staged(kind.filed, directory)
    regime = CronReload([server], kind)
    server.start()
    try:
        first, second = offer(server, context, None)

        assert offer(server, context, first) == []
        regime.rotate()
        assert len(offer(server, context, second)) == 1
    finally:
        server.stop()


def test_with_a_key_of_its_own_each_handshake_brings_one(haproxy_exe: Path, directory: Path) -> None:
    server, context = staged(haproxy(haproxy_exe).own, directory)
    server.start()
    try:
        first, _ = offer(server, context, None)

        assert len(offer(server, context, first)) == 1
    finally:
        server.stop()


def staged(make: Maker, directory: Path) -> tuple[LiveServer, ssl.SSLContext]:
    ca, certificate = new_authority(datetime.now(UTC)).write(directory)
    server = make(name="node", directory=directory / "node", certificate=certificate)
    return server, client_context(Version.TLS13, Trust(ca_file=str(ca)))


def offer(server: LiveServer, context: ssl.SSLContext, ticket: ssl.SSLSession | None) -> list[ssl.SSLSession]:
    """What tickets one visit brings, which resumes if it can."""
    with Line(server.port, context, ticket, timeout_s=5) as line:
        line.shake_hands()
        line.say(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while line.hear():
            pass
        assert line.resumed == (ticket is not None)
        return line.tickets
