"""Whoever looks at /metrics and how: nobody else waits for it, and it leaves no trace in the log."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from keyrotd.daemon.health import MAX_CONNECTIONS, HealthServer
from keyrotd.testing.children import wait_until


@dataclass
class Pages:
    """What a health server shows; `metrics` may be told to wait, or to break."""

    does: Callable[[], None] = lambda: None
    scrapes: int = 0
    crashes: list[BaseException] = field(default_factory=list)

    def metrics(self) -> bytes:
        self.scrapes += 1
        self.does()
        return b"x" * 2_000_000

    def serve(self) -> HealthServer:
        return HealthServer(
            ("127.0.0.1", 0),
            alive=lambda: (True, "alive"),
            ready=lambda: (True, "ready"),
            metrics=self.metrics,
            crashed=self.crashes.append,
        )


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def server(pages: Pages) -> Iterator[HealthServer]:
    server = pages.serve()
    yield server
    server.close()


def test_it_listens_on_ipv6_where_it_is_told_to() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("not run: this machine has no IPv6 loopback")
    pages = Pages()
    server = HealthServer(
        ("::1", 0), alive=lambda: (True, ""), ready=lambda: (True, ""), metrics=pages.metrics, crashed=print
    )

    try:
        with socket.create_connection(("::1", server.port), timeout=20) as visitor:
            visitor.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            assert visitor.recv(15) == b"HTTP/1.0 200 OK"
    finally:
        server.close()


def visit(server: HealthServer, request: bytes = b"") -> socket.socket:
    visitor = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    visitor.sendall(request)
    return visitor


def fetched(server: HealthServer, path: str) -> bytes:
    with visit(server, f"GET {path} HTTP/1.0\r\n\r\n".encode()) as visitor:
        return b"".join(iter(lambda: visitor.recv(65536), b""))


def threads() -> int:
    return sum("process_request" in thread.name for thread in threading.enumerate())


def test_a_scraper_that_hangs_up_is_not_worth_a_word(
    server: HealthServer, pages: Pages, capfd: pytest.CaptureFixture[str]
) -> None:
    go = threading.Event()
    pages.does = lambda: _ok(go.wait(20))
    visitor = visit(server, b"GET /metrics HTTP/1.0\r\n\r\n")
    wait_until(lambda: pages.scrapes == 1, "it is being served")
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, and no goodbye
    visitor.close()
    go.set()
    wait_until(lambda: threads() == 0, "it is over")

    assert b"200 OK" in fetched(server, "/livez")
    assert capfd.readouterr() == ("", "")
    assert pages.crashes == []


def _ok(_: object) -> None:
    pass


def test_a_crowd_that_only_stands_about_keeps_nobody_out(server: HealthServer) -> None:
    crowd = [visit(server) for _ in range(3 * MAX_CONNECTIONS)]
    try:
        assert b"200 OK" in fetched(server, "/readyz")
        # Well before the first of them would run into the time that a single one may take.
        wait_until(lambda: threads() <= MAX_CONNECTIONS, "no more are served than may be", patience_s=4)
    finally:
        for visitor in crowd:
            visitor.close()


def test_a_bug_of_ours_in_a_page_is_told_whole_and_to_us(
    server: HealthServer, pages: Pages, capfd: pytest.CaptureFixture[str]
) -> None:
    pages.does = _bug

    assert fetched(server, "/metrics") == b""

    wait_until(lambda: bool(pages.crashes), "it is told")
    assert [type(crash) for crash in pages.crashes] == [ZeroDivisionError]
    assert capfd.readouterr() == ("", "")


def _bug() -> None:
    raise ZeroDivisionError
