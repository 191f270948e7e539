"""Real HAProxy, 2.8 and 2.6: keys come and go in the running process, tickets resume across servers, nobody notices."""

import base64
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import Keys, in_step
from keyrotd.core.stek import Scheme, Stek
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.driver import rotated, some_keys
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.haproxy_twin import write_strange_keys
from keyrotd.tls.handshake import Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.target import Target
from keyrotd.tls.ticket import opens_ticket

each_version = pytest.mark.parametrize("version", Version, ids=lambda version: version.value)


@dataclass(frozen=True)
class Pair:
    """Two nodes behind one name, and what a client and an agent need."""

    a: HAProxy
    b: HAProxy
    ca: Path

    @property
    def nodes(self) -> tuple[HAProxy, HAProxy]:
        return (self.a, self.b)

    def install(self, keys: Keys) -> None:
        for node in self.nodes:
            driver_of(node).install(keys)

    def context(self, version: Version) -> ssl.SSLContext:
        context = client_context(version, Trust(ca_file=str(self.ca)))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def visit(
        self, node: HAProxy, version: Version = Version.TLS12, *, context: ssl.SSLContext | None = None
    ) -> Handshake:
        target = Target("127.0.0.1", node.port)
        seen = visit(target, context or self.context(version), sni="localhost", timeout_ms=5_000)
        assert isinstance(seen, Handshake), seen
        return seen

    def resumes(self, ticket: Handshake, node: HAProxy) -> bool:
        assert ticket.session is not None
        seen = resume(Target("127.0.0.1", node.port), ticket.context, ticket.session, sni="localhost", timeout_ms=5_000)
        assert isinstance(seen, Handshake), seen
        return seen.resumed


@pytest.fixture
def pair(haproxy_exe: Path) -> Iterator[Pair]:
    with running(haproxy_exe) as pair:
        yield pair


@contextmanager
def running(exe: Path, *, extra_files: int = 0, threads: int = 2) -> Iterator[Pair]:
    with TemporaryDirectory(prefix="keyrotd") as name:  # a Unix socket's path must be short
        directory = Path(name)
        ca, certificate = new_authority(datetime.now(UTC)).write(directory)

        def node(name: str) -> HAProxy:
            return HAProxy(
                name=name,
                exe=exe,
                directory=directory / name,
                certificate=certificate,
                threads=threads,
                extra_key_files=tuple(directory / name / f"extra{n}.keys" for n in range(extra_files)),
            )

        pair = Pair(node("a"), node("b"), ca)
        try:
            for started in pair.nodes:
                for key_file in (started.key_file, *started.extra_key_files):
                    write_strange_keys(key_file)
                started.start()
            yield pair
        finally:
            for started in pair.nodes:
                started.stop()


def driver_of(node: HAProxy) -> HAProxyDriver:
    return HAProxyDriver(name=node.name, socket=(node.socket,), key_file=(node.key_file, *node.extra_key_files))


def fresh(*, previous: int = 1) -> Keys:
    return some_keys(os.urandom, previous=previous, ring="edge")


@each_version
def test_a_ticket_of_one_node_resumes_on_the_other_until_its_key_is_gone(pair: Pair, version: Version) -> None:
    windows = [fresh()]
    for _ in range(2):
        windows.append(rotated(windows[-1], os.urandom))
    pair.install(windows[0])
    pids = [node.pid for node in pair.nodes]

    ticket = pair.visit(pair.a, version)

    assert ticket.key_name == windows[0].current.name
    assert pair.resumes(ticket, pair.b)
    pair.install(windows[1])
    assert pair.resumes(ticket, pair.a)
    assert pair.resumes(ticket, pair.b)
    assert pair.visit(pair.b, version).key_name == windows[1].current.name
    pair.install(windows[2])
    assert not pair.resumes(ticket, pair.a)
    assert not pair.resumes(ticket, pair.b)
    assert [node.pid for node in pair.nodes] == pids


@each_version
def test_nodes_one_epoch_apart_open_each_others_tickets(pair: Pair, version: Version) -> None:
    behind = fresh()
    ahead = rotated(behind, os.urandom)
    driver_of(pair.a).install(behind)
    driver_of(pair.b).install(ahead)

    old, new = pair.visit(pair.a, version), pair.visit(pair.b, version)

    assert (old.key_name, new.key_name) == (behind.current.name, ahead.current.name)
    assert pair.resumes(old, pair.b)
    assert pair.resumes(new, pair.a)


def test_the_ticket_is_sealed_by_the_key_itself_and_not_only_under_its_name(pair: Pair) -> None:
    keys = fresh()
    pair.install(keys)

    ticket = pair.visit(pair.a).ticket

    assert ticket is not None
    assert opens_ticket(ticket, keys.current.secrets(Scheme.AES256), Scheme.AES256)


def test_an_open_connection_stays_open_through_rotations(pair: Pair) -> None:
    keys = fresh()
    pair.install(keys)
    context = ssl.create_default_context(cafile=pair.ca)
    raw = socket.create_connection(("127.0.0.1", pair.a.port), timeout=5)

    with context.wrap_socket(raw, server_hostname="localhost") as connection:
        first = page(connection)
        for _ in range(5):
            keys = rotated(keys, os.urandom)
            pair.install(keys)
        last = page(connection)

    assert first == last == f"name=a resumed=0 pid={pair.a.pid}"


def test_every_transition_ends_with_current_sealing(pair: Pair) -> None:
    steks = [Stek(os.urandom(32), "edge") for _ in range(20)]
    windows = [
        Keys(current=steks[n], next=steks[n + 1], previous=(steks[n - 1],)) for n in (1, 2, 2, 4, 10, 11, 13, 11)
    ]
    windows += [replace(windows[-1], previous=()), Keys(current=steks[12], next=steks[13], previous=(steks[11],))]
    pid = pair.a.pid

    for keys in windows:
        driver_of(pair.a).install(keys)

        assert in_step(driver_of(pair.a).observe(), keys)
        assert pair.visit(pair.a).key_name == keys.current.name
    assert pair.a.pid == pid


def test_a_reload_and_a_restart_start_with_what_was_installed(pair: Pair) -> None:
    keys = rotated(rotated(fresh(), os.urandom), os.urandom)
    pair.install(keys)
    driver, ticket = driver_of(pair.a), pair.visit(pair.b)
    instances = [driver.observe().instance]

    for again in (pair.a.reload, pair.a.restart):
        again()

        seen = driver.observe()
        instances.append(seen.instance)
        assert in_step(seen, keys)
        assert pair.resumes(ticket, pair.a)
    assert len(set(instances)) == 3


def test_a_reload_that_lost_our_keys_is_found_and_repaired(pair: Pair) -> None:
    keys = fresh()
    pair.install(keys)
    write_strange_keys(pair.a.key_file)
    pair.a.reload()

    driver = driver_of(pair.a)

    assert not in_step(driver.observe(), keys)
    driver.install(keys)
    assert in_step(driver.observe(), keys)
    assert pair.resumes(pair.visit(pair.b), pair.a)


def test_keys_pushed_by_somebody_else_are_found_and_replaced(pair: Pair) -> None:
    keys = fresh()
    pair.install(keys)
    driver = driver_of(pair.a)

    pair.a.ask(f"set ssl tls-key {pair.a.key_file} {base64.b64encode(os.urandom(80)).decode()}")

    assert not in_step(driver.observe(), keys)
    driver.install(keys)
    assert in_step(driver.observe(), keys)


@pytest.mark.parametrize("threads", [1, 2])
def test_no_handshake_under_load_ever_sees_a_wrong_key_sealing(haproxy_exe: Path, threads: int) -> None:
    windows = [fresh()]
    for _ in range(60):
        windows.append(rotated(windows[-1], os.urandom))
    epoch_of = {window.current.name: epoch for epoch, window in enumerate(windows)}
    begun, done, stop = 0, 0, threading.Event()
    wrong: list[str] = []
    seen: list[int] = []

    def client(pair: Pair) -> None:
        context = pair.context(Version.TLS12)
        while not stop.is_set():
            least = done
            name = pair.visit(pair.a, context=context).key_name
            most = begun
            epoch = epoch_of.get(name or b"", -1)
            seen.append(epoch)
            if not least <= epoch <= most:
                wrong.append(f"epoch {epoch} sealed, while {least} to {most} were current")

    with running(haproxy_exe, threads=threads) as pair:
        pair.install(windows[0])
        clients = [threading.Thread(target=client, args=(pair,)) for _ in range(2)]
        for thread in clients:
            thread.start()
        try:
            for epoch, window in enumerate(windows[1:], start=1):
                enough = len(seen) + 2
                wait_until(lambda enough=enough: len(seen) >= enough, "clients go on")  # type: ignore[misc]
                begun = epoch
                driver_of(pair.a).install(window.lingering())
                done = epoch
        finally:
            stop.set()
            for thread in clients:
                thread.join()

    assert wrong == []
    assert len(set(seen)) > 30


def test_several_key_files_of_one_process_all_get_the_keys(haproxy_exe: Path) -> None:
    keys = fresh()
    with running(haproxy_exe, extra_files=1) as pair:
        pair.install(keys)

        assert in_step(driver_of(pair.a).observe(), keys)
        context = pair.context(Version.TLS12)
        for port in pair.a.ports:
            seen = visit(Target("127.0.0.1", port), context, sni="localhost", timeout_ms=5_000)
            assert isinstance(seen, Handshake)
            assert seen.key_name == keys.current.name


def test_a_ring_of_48_byte_keys_goes_on_until_a_restart_takes_ours(pair: Pair) -> None:
    write_strange_keys(pair.a.key_file, size=48)
    pair.a.restart()
    keys, driver, ring, ticket = fresh(), driver_of(pair.a), pair.a.ring(), pair.visit(pair.a)

    with pytest.raises(InstallFailed, match="wants 80-byte keys"):
        driver.install(keys)

    assert pair.a.ring() == ring
    assert pair.resumes(ticket, pair.a)
    pair.a.restart()
    assert in_step(driver.observe(), keys)


def test_a_key_file_that_no_bind_line_names_is_told(pair: Pair) -> None:
    driver = replace(driver_of(pair.a), key_file=(pair.a.directory / "other.keys",))

    with pytest.raises(InstallFailed, match="knows no such key file") as failed:
        driver.install(fresh())

    assert "letter by letter" in str(failed.value.hint)


def test_haproxy_starts_from_a_file_that_was_written_before_it_ever_ran(pair: Pair) -> None:
    keys = fresh(previous=0)
    pair.a.stop()
    pair.a.key_file.unlink()

    with pytest.raises(InstallFailed):
        driver_of(pair.a).install(keys)

    pair.a.start()
    assert in_step(driver_of(pair.a).observe(), keys)


def test_nothing_that_haproxy_logs_holds_a_key(pair: Pair) -> None:
    keys = fresh()
    for _ in range(3):
        keys = rotated(keys, os.urandom)
        pair.install(keys)
    pair.a.reload()
    ring = pair.a.ring()
    pair.a.stop()

    log = pair.a.log.read_text()

    assert len(ring) == 3
    assert not any(key[24:60] in log for key in ring)


def page(connection: ssl.SSLSocket) -> str:
    """Ask for the page over a connection that stays open."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while b"pid=" not in answer or b"\r\n\r\n" not in answer:
        answer += connection.recv(4096)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(4096)
    return body.decode()
