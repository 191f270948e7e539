"""
Tells a running Traffic Server to look at its key file now. Only a hint: its plugin looks every second anyway.

No secret is said, and nothing that comes back is believed: what is installed, acknowledgements tell.
"""

import json
import socket
import struct
import time
from pathlib import Path

#: The plugin's name for itself.
TAG = "keyrotd"

#: Traffic Server 10's socket is called jsonrpc20.sock; 9.2's mgmtapi.sock speaks a language of its own.
JSON_RPC = "jsonrpc"

#: More than any answer to a message: 9.2 says a number, 10 an empty result.
_MAX_ANSWER_BYTES = 4096


def nudge(path: Path, *, timeout_ms: int) -> bool:
    """Whether Traffic Server took the message, all within `timeout_ms`; what its plugin made of it is not known."""
    deadline = time.monotonic() + timeout_ms / 1000
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout_ms / 1000)
            line.connect(str(path))
            return (_by_json_rpc if path.name.startswith(JSON_RPC) else _by_management)(line, deadline)
    except (OSError, ValueError, RecursionError):
        return False


def _by_management(line: socket.socket, deadline: float) -> bool:
    """9.2: lengths and numbers are ints of the machine's own order; a string counts its final zero."""
    tag = TAG.encode() + b"\0"
    message = struct.pack(f"=ii{len(tag)}si", _LIFECYCLE_MESSAGE, len(tag), tag, 0)
    line.sendall(_INT.pack(len(message)) + message)
    (length,) = _INT.unpack(_exactly(line, _INT.size, deadline))
    if not _INT.size <= length <= _MAX_ANSWER_BYTES:
        raise ValueError("not an answer of Traffic Server's management")
    (error,) = _INT.unpack_from(_exactly(line, length, deadline))
    return bool(error == 0)


#: The operation's number in Traffic Server 9.2's mgmt/api/NetworkMessage.h.
_LIFECYCLE_MESSAGE = 21

_INT = struct.Struct("=i")


def _by_json_rpc(line: socket.socket, deadline: float) -> bool:
    """10: one request in one write, for a millisecond's silence ends it there; it answers and hangs up."""
    call = {
        "jsonrpc": "2.0",
        "id": TAG,
        "method": "admin_plugin_send_basic_msg",
        "params": {"tag": TAG, "data": "look"},  # both are wanted
    }
    line.sendall(json.dumps(call).encode())
    answer = b""
    while (more := _more(line, _MAX_ANSWER_BYTES, deadline)) and len(answer) <= _MAX_ANSWER_BYTES:
        answer += more
    said = json.loads(answer)
    return isinstance(said, dict) and "result" in said and "error" not in said


def _exactly(line: socket.socket, count: int, deadline: float) -> bytes:
    found = b""
    while len(found) < count:
        more = _more(line, count - len(found), deadline)
        if not more:
            raise ValueError("hung up in the middle of an answer")
        found += more
    return found


def _more(line: socket.socket, count: int, deadline: float) -> bytes:
    # A drip of bytes shall not extend it.
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    line.settimeout(left)
    return line.recv(count)
