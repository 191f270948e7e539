import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyrotd.core.errors import KeyrotdError
from keyrotd.core.messages import ProbeState
from keyrotd.core.stek import Scheme, Stek
from keyrotd.testing.certificates import new_authority
from keyrotd.tls.handshake import Fault, Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.probe import matrix, prove
from keyrotd.tls.target import Target

CURRENT = Stek(hashlib.sha256(b"a seed for tests").digest(), "edge").secrets(Scheme.AES256)
Server = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return new_authority(datetime.now(UTC)).write(tmp_path_factory.mktemp("site"))


@contextmanager
def serving(serve: Server) -> Iterator[Target]:
    """A server on loopback that does `serve` with one connection after the other, and forgives clients that leave."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.settimeout(10)
                    serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield Target(*listener.getsockname())
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            thread.join()


def tls_server(pem: Path, *, tickets: int = 2, forgetful: bool = False) -> Server:
    """A server that finishes its handshakes, then listens and never says a word: no HTTP there."""

    def context() -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(pem)
        made.num_tickets = tickets
        if not tickets:
            made.options |= ssl.OP_NO_TICKET
        return made

    kept = context()

    def serve(connection: socket.socket) -> None:
        with (context() if forgetful else kept).wrap_socket(connection, server_side=True) as tls:
            while tls.recv(1000):
                pass

    return serve


def wait_for_the_client(connection: socket.socket) -> None:
    while connection.recv(1000):
        pass


def meet(target: Target, trust: Trust, version: Version = Version.TLS12, timeout_ms: int = 5000) -> Handshake | Fault:
    return visit(target, client_context(version, trust), sni="localhost", timeout_ms=timeout_ms)


@pytest.mark.parametrize("version", Version)
def test_a_silent_server_that_speaks_no_http_is_seen_whole(version: Version, site: tuple[Path, Path]) -> None:
    ca, pem = site
    with serving(tls_server(pem)) as target:
        first = meet(target, Trust(str(ca)), version)
        assert isinstance(first, Handshake)
        assert first.session is not None
        again = resume(target, first.context, first.session, sni="localhost", timeout_ms=5000)

    assert isinstance(again, Handshake)
    assert (first.resumed, again.resumed) == (False, True)
    assert first.key_name is not None
    assert again.certificate == first.certificate != ""
    assert first.lifetime_hint_s == 7200


@pytest.mark.parametrize("version", Version)
def test_a_server_without_tickets_still_shakes_hands(version: Version, site: tuple[Path, Path]) -> None:
    ca, pem = site
    with serving(tls_server(pem, tickets=0)) as target:
        seen = meet(target, Trust(str(ca)), version, timeout_ms=300)

    assert isinstance(seen, Handshake)
    assert (seen.session, seen.ticket, seen.key_name, seen.lifetime_hint_s) == (None, None, None, None)


def test_a_server_that_forgets_its_key_refuses_its_own_tickets(site: tuple[Path, Path]) -> None:
    ca, pem = site
    with serving(tls_server(pem, forgetful=True)) as target:
        shown = matrix([target], list(Version), sni="localhost", trust=Trust(str(ca)), timeout_ms=5000)

    assert [offer.state for offer in shown.offers] == [ProbeState.REFUSED, ProbeState.REFUSED]
    assert not shown.resumes


def test_a_connection_that_is_closed_in_the_handshake_is_no_refusal() -> None:
    with serving(lambda _connection: None) as target:
        assert meet(target, Trust(insecure=True)) == Fault(
            ProbeState.RESET, "closed the connection within the handshake"
        )


def test_a_server_that_hangs_costs_no_more_than_the_timeout() -> None:
    with serving(wait_for_the_client) as target:
        assert meet(target, Trust(insecure=True), timeout_ms=100) == Fault(ProbeState.RESET, "no answer in time")


def test_a_server_that_speaks_no_tls_is_told_so() -> None:
    with serving(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as target:
        assert meet(target, Trust(insecure=True)) == Fault(ProbeState.RESET, "answers, but does not speak TLS")


def test_a_closed_port_is_unreachable() -> None:
    with serving(wait_for_the_client) as target:
        pass

    assert meet(target, Trust(insecure=True)) == Fault(ProbeState.UNREACHABLE, "connection refused")


def test_a_missing_unix_socket_is_unreachable(tmp_path: Path) -> None:
    seen = meet(Target(str(tmp_path / "none.sock"), None), Trust(insecure=True))

    assert seen == Fault(ProbeState.UNREACHABLE, "no such file or directory")


def test_a_certificate_of_another_ca_is_a_certificate_fault(site: tuple[Path, Path], tmp_path: Path) -> None:
    _, pem = site
    other_ca, _ = new_authority(datetime.now(UTC)).write(tmp_path)
    with serving(tls_server(pem)) as target:
        seen = meet(target, Trust(str(other_ca)))
        proof = prove(
            target,
            sni="localhost",
            trust=Trust(str(other_ca)),
            current=CURRENT,
            scheme=Scheme.AES256,
            timeout_ms=5000,
        )

    assert isinstance(seen, Fault)
    assert (seen.state, proof.state) == (ProbeState.CERTIFICATE, ProbeState.CERTIFICATE)


def test_a_certificate_of_another_name_is_a_certificate_fault(site: tuple[Path, Path]) -> None:
    ca, pem = site
    with serving(tls_server(pem)) as target:
        seen = visit(target, client_context(Version.TLS13, Trust(str(ca))), sni="other.example", timeout_ms=5000)

    assert isinstance(seen, Fault)
    assert seen.state is ProbeState.CERTIFICATE


def test_a_server_that_wants_a_certificate_of_ours_has_not_shaken_hands(site: tuple[Path, Path]) -> None:
    """In TLS 1.3 the client hears of it only after its own handshake is over."""
    ca, pem = site
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(lambda connection: context.wrap_socket(connection, server_side=True).close()) as target:
        seen = meet(target, Trust(str(ca)), Version.TLS13)

    assert isinstance(seen, Fault)
    assert seen.state is ProbeState.RESET
    assert "certificate required" in seen.words


def test_a_ca_file_that_does_not_load_is_named_with_a_hint(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("no certificate")

    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(KeyrotdError, match=str(path)) as caught:
            client_context(Version.TLS12, Trust(str(path)))
        assert caught.value.hint


def test_proving_with_a_missing_ca_file_is_an_outcome_and_no_exception(tmp_path: Path) -> None:
    proof = prove(
        Target("127.0.0.1", 1),
        sni=None,
        trust=Trust(str(tmp_path / "missing.pem")),
        current=CURRENT,
        scheme=Scheme.AES256,
        timeout_ms=1000,
    )

    assert (proof.state, "does not load" in proof.fault) == (ProbeState.CERTIFICATE, True)


def test_a_unix_socket_is_as_good_as_a_port(site: tuple[Path, Path], tmp_path: Path) -> None:
    ca, pem = site
    path = tmp_path / "tls.sock"
    with socket.create_server(str(path), family=socket.AF_UNIX) as listener:
        thread = threading.Thread(target=lambda: tls_server(pem)(listener.accept()[0]))
        thread.start()
        seen = visit(Target(str(path), None), client_context(Version.TLS12, Trust(str(ca))), sni=None, timeout_ms=5000)
        thread.join()

    assert isinstance(seen, Handshake)
