"""A nudge of Traffic Server says no secret, waits for no one long, and takes whatever comes back for a hint."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.servers.trafficserver_nudge import nudge

#: How Traffic Server 9.2 and 10 say that they took it.
TAKEN_BY_9 = struct.pack("=ii", 4, 0)
TAKEN_BY_10 = b'{"jsonrpc": "2.0", "result": "success", "id": "keyrotd"}'


def test_9_is_asked_in_its_own_words() -> None:
    """As traffic_ctl of 9.2.9 sends it: length, operation, tag with its zero, data."""
    with answering("mgmtapi.sock", TAKEN_BY_9) as (path, heard):
        assert nudge(path, timeout_ms=5_000)

    (length, operation, tag_length) = struct.unpack_from("=iii", heard[0])
    assert (length, operation, tag_length) == (len(heard[0]) - 4, 21, 8)
    assert heard[0][12:] == b"keyrotd\0" + struct.pack("=i", 0)


def test_10_is_asked_by_json_rpc_in_one_write() -> None:
    with answering("jsonrpc20.sock", TAKEN_BY_10) as (path, heard):
        assert nudge(path, timeout_ms=5_000)

    call = json.loads(heard[0])
    assert (call["jsonrpc"], call["method"]) == ("2.0", "admin_plugin_send_basic_msg")
    assert call["params"] == {"tag": "keyrotd", "data": "look"}


@pytest.mark.parametrize("name", ["mgmtapi.sock", "jsonrpc20.sock"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        struct.pack("=ii", 4, 9),
        struct.pack("=i", -1),
        struct.pack("=i", 1 << 30),
        b"[]",
        b"{" * 5000,
        b"[" * 4000,
        b'{"jsonrpc": "2.0", "error": {"code": 5000, "message": "Plugin"}, "id": "keyrotd"}',
        "\udcff".encode("utf-8", "surrogatepass"),
    ],
)
def test_whatever_comes_back_is_a_yes_or_a_no(name: str, answer: bytes) -> None:
    with answering(name, answer) as (path, _):
        assert nudge(path, timeout_ms=5_000) is False


@pytest.mark.parametrize("name", ["mgmtapi.sock", "jsonrpc20.sock"])
def test_nobody_there_is_a_no(tmp_path: Path, name: str) -> None:
    assert nudge(tmp_path / name, timeout_ms=5_000) is False
    assert nudge(tmp_path / ("x" * 200 + name), timeout_ms=5_000) is False


@pytest.mark.parametrize("name", ["mgmtapi.sock", "jsonrpc20.sock"])
def test_who_never_answers_is_not_waited_for(name: str) -> None:
    with answering(name, None) as (path, _):
        began = time.monotonic()

        assert nudge(path, timeout_ms=50) is False

        assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["mgmtapi.sock", "jsonrpc20.sock"])
def test_who_answers_by_drips_is_not_waited_for(name: str) -> None:
    """Each byte in time, the answer never whole."""
    with answering(name, struct.pack("=i", 4000) + b"x" * 4000, drip_s=0.02) as (path, _):
        began = time.monotonic()

        assert nudge(path, timeout_ms=200) is False

        assert time.monotonic() - began < 5


@contextmanager
def answering(name: str, answer: bytes | None, *, drip_s: float = 0) -> Iterator[tuple[Path, list[bytes]]]:
    """Somebody at the socket who hears one message and answers; None: never. `drip_s`: between any two bytes."""
    heard: list[bytes] = []
    done = threading.Event()
    with TemporaryDirectory(prefix="keyrotd") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder, name)
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                heard.append(line.recv(4096))
                if answer is None:
                    done.wait(10)
                elif drip_s:
                    with suppress(OSError):
                        for byte in answer:
                            line.sendall(bytes([byte]))
                            if done.wait(drip_s):
                                break
                else:
                    line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path, heard
        finally:
            done.set()
            thread.join()
