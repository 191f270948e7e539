"""
/metrics, /livez and /readyz over plain HTTP, on loopback unless told otherwise. Reads only, and never a key.

Whoever hangs up, stalls or comes by the thousand costs a few threads and nobody a word: the newest are served.
"""

import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from keyrotd.core.errors import KeyrotdError

#: Yes or no, and the words that go with it.
Answer = tuple[bool, str]
#: Served at once: a kubelet and some scrapers have one or two each.
MAX_CONNECTIONS = 16


class HealthServer:
    """Serves from a daemon thread. `alive` and `ready` are asked anew for every request; `crashed` is told our bugs."""

    def __init__(
        self,
        listen: tuple[str, int],
        *,
        alive: Callable[[], Answer],
        ready: Callable[[], Answer],
        metrics: Callable[[], bytes],
        crashed: Callable[[BaseException], None],
    ) -> None:
        pages: dict[str, Callable[[], tuple[HTTPStatus, bytes]]] = {
            "/livez": lambda: _page(alive()),
            "/readyz": lambda: _page(ready()),
            "/metrics": lambda: (HTTPStatus.OK, metrics()),
        }
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            self._server = _Server(listen, handler, crashed)
        except OSError as error:
            raise KeyrotdError(
                f"listen {listen[0]}:{listen[1]}: {(error.strerror or str(error)).lower()}",
                hint="another daemon of this host has it: give each its own `listen`, or `off`",
            ) from error
        threading.Thread(target=self._server.serve_forever, daemon=True, name="health").start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Serves so many at once; one more, and the connection that came first ends: it is the likeliest to stall."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self,
        listen: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._crashed = crashed
        self._lock = threading.Lock()
        self._served: dict[socket.socket, None] = {}  # in the order in which they came
        self.address_family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        super().__init__(listen, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's signature
        with self._lock:
            oldest = next(iter(self._served)) if len(self._served) >= MAX_CONNECTIONS else None
            if oldest is not None:
                del self._served[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread reads an end, and goes
            self._served[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - likewise
        with self._lock:
            self._served.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 - likewise
        # That a scraper hung up is no fact worth a line, and much less a traceback.
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self._crashed(error)


class _Handler(BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, Callable[[], tuple[HTTPStatus, bytes]]]]
    timeout = 5.0

    def do_GET(self) -> None:
        page = self.pages.get(self.path)
        status, body = (HTTPStatus.NOT_FOUND, b"try /metrics, /livez or /readyz\n") if page is None else page()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape is no fact worth a line."""


def _page(answer: Answer) -> tuple[HTTPStatus, bytes]:
    yes, words = answer
    return (HTTPStatus.OK if yes else HTTPStatus.SERVICE_UNAVAILABLE), f"{words}\n".encode()
