"""What TLS 1.3 encrypts, the client that it is said to can tell: requests for certificates, and early data."""

import base64
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.testing.certificates import new_authority
from keyrotd.testing.haproxy import HAProxy
from keyrotd.tls.handshake import HEARD_BYTES, Trust, Version, client_context, overhear
from keyrotd.tls.target import Target, parse_target
from keyrotd.tls.unveil import Unveiled, told, unveil

TIMEOUT_MS = 10_000
#: The name of `new_authority`.
AUTHORITY = b"keyrotd test CA"


class Listeners(HAProxy):
    """One listener for each way to answer, and between them for each cipher suite of TLS 1.3."""

    @property
    def config(self) -> str:
        ca = self.certificate.with_name("ca.pem")
        options = (
            "allow-0rtt ciphersuites TLS_AES_256_GCM_SHA384",
            f"verify optional ca-file {ca} ciphersuites TLS_AES_128_GCM_SHA256",
            f"verify required ca-file {ca} allow-0rtt ciphersuites TLS_CHACHA20_POLY1305_SHA256",
            "ssl-max-ver TLSv1.2",
        )
        lines = super().config.splitlines()
        binds = [number for number, line in enumerate(lines) if line.startswith("  bind ")]
        for number, option in zip(binds, options, strict=True):
            lines[number] += f" {option}"
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def listeners(haproxy_exe: Path) -> Iterator[list[Target]]:
    with TemporaryDirectory(prefix="ku", dir="/tmp") as name:
        directory = Path(name)
        _, site = new_authority(datetime.now(UTC)).write(directory)
        extra = tuple(directory / f"{n}.keys" for n in range(3))
        haproxy = Listeners("a", haproxy_exe, directory / "a", site, extra_key_files=extra)
        for file in (haproxy.key_file, *extra):
            file.write_text("".join(base64.b64encode(os.urandom(80)).decode() + "\n" for _ in range(3)))
        haproxy.start()
        yield [parse_target(f"127.0.0.1:{port}") for port in haproxy.ports]
        haproxy.stop()


def test_each_way_to_answer_is_told_from_the_others(listeners: list[Target]) -> None:
    seen = [unveil(target, sni="localhost", timeout_ms=TIMEOUT_MS) for target in listeners]

    named = seen[1].authorities
    assert seen == [
        Unveiled(asks=False, early_data=15_360),
        Unveiled(asks=True, early_data=0, authorities=named),
        Unveiled(asks=True, early_data=None, authorities=named),  # it ends the connection before it would issue any
        Unveiled(asks=None, early_data=None),
    ]
    assert [AUTHORITY in name for name in named] == [True]


def test_nobody_there_tells_nothing() -> None:
    assert unveil(Target("127.0.0.1", 1), sni=None, timeout_ms=1_000) == Unveiled(asks=None, early_data=None)


SERVER_HELLO = b"\x03\x03" + bytes(32) + b"\0" + b"\x13\x01" + b"\0"
PLAIN = (
    b"\x16\x03\x03"
    + (len(SERVER_HELLO) + 4).to_bytes(2, "big")
    + b"\x02\0\0"
    + bytes([len(SERVER_HELLO)])
    + SERVER_HELLO
)
SECRETS = {"SERVER_HANDSHAKE_TRAFFIC_SECRET": b"s" * 32, "SERVER_TRAFFIC_SECRET_0": b"t" * 32}


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(heard: bytes) -> None:
    nothing = Unveiled(asks=None, early_data=None)

    assert told(heard, {}) == nothing
    assert told(PLAIN + heard, SECRETS) == nothing
    assert told(PLAIN + b"\x17\x03\x03" + len(heard).to_bytes(2, "big") + heard, SECRETS) == nothing


def under_handshake_keys(messages: bytes) -> bytes:
    """A record as the server of SECRETS seals its first."""

    def expanded(label: bytes, length: int) -> bytes:
        info = length.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
        return HKDFExpand(SHA256(), length, info).derive(SECRETS["SERVER_HANDSHAKE_TRAFFIC_SECRET"])

    head = b"\x17\x03\x03" + (len(messages) + 1 + 16).to_bytes(2, "big")
    return head + AESGCM(expanded(b"key", 16)).encrypt(expanded(b"iv", 12), messages + b"\x16", head)


@given(st.sampled_from([4, 13]), st.binary(max_size=80))
def test_a_server_may_put_anything_into_what_is_opened(kind: int, body: bytes) -> None:
    message = bytes([kind]) + len(body).to_bytes(3, "big") + body

    found = told(PLAIN + under_handshake_keys(message), SECRETS)

    assert found.asks is (True if kind == 13 else None)
    assert (found.early_data is None) is (kind == 13)


def test_a_server_that_never_stops_talking_is_not_listened_to_for_long(tmp_path: Path) -> None:
    _, site = new_authority(datetime.now(UTC)).write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site)
    context.num_tickets = 0
    said = []

    def talk(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            while True:
                said.append(tls.send(bytes(2**14)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        client = client_context(Version.TLS13, Trust(insecure=True))
        heard = overhear(Target(*listener.getsockname()), client, sni="localhost", timeout_ms=700)
        thread.join()

    assert 0 < len(heard) <= HEARD_BYTES
    assert sum(said) > 0
