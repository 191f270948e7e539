"""/metrics, /livez and /readyz over plain HTTP, on loopback unless told otherwise. Reads only, and never a key."""

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from keyrotd.core.errors import KeyrotdError

#: Yes or no, and the words that go with it.
Answer = tuple[bool, str]


class HealthServer:
    """Serves from a daemon thread. `alive` and `ready` are asked anew for every request."""

    def __init__(
        self,
        listen: tuple[str, int],
        *,
        alive: Callable[[], Answer],
        ready: Callable[[], Answer],
        metrics: Callable[[], bytes],
    ) -> None:
        pages: dict[str, Callable[[], tuple[HTTPStatus, bytes]]] = {
            "/livez": lambda: _page(alive()),
            "/readyz": lambda: _page(ready()),
            "/metrics": lambda: (HTTPStatus.OK, metrics()),
        }
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            self._server = ThreadingHTTPServer(listen, handler)
        except OSError as error:
            raise KeyrotdError(
                f"listen {listen[0]}:{listen[1]}: {(error.strerror or str(error)).lower()}",
                hint="another daemon of this host has it: give each its own `listen`, or `off`",
            ) from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True, name="health").start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


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
