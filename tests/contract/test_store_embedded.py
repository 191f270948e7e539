"""The private store: on a socket for its owner only, there when start returns, gone when its starter is."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keyrotd.core.errors import KeyrotdError
from keyrotd.store.addresses import Address, parse
from keyrotd.store.embedded import find_server, start
from keyrotd.testing.children import wait_until
from tests import servers_found
from tests.contract.stores import address, owner, running, store_on


def test_embedded_is_where_clients_look_for_it(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path) as server:
        where = parse("embedded:", runtime_dir=tmp_path)
        assert where == parse(server.url, runtime_dir=tmp_path) == Address(path=str(server.socket))
        store = store_on(where)

        assert store.look().fence == 0

        store.close()


def test_nobody_but_the_owner_reaches_it(store_exe: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    with running(store_exe, run, data_dir=data) as server:
        for path in (run, data, server.socket):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for path in data.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        with owner(server) as redis:
            assert redis.config_get("port")["port"] == "0"
            assert redis.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_with_a_directory_it_remembers(store_exe: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    with running(store_exe, run, data_dir=data) as first:
        store = store_on(address(first))
        store.report(node="n", report=b"r")
        store.close()

    with running(store_exe, run, data_dir=data) as second:
        store = store_on(address(second))
        assert store.reports() == {"n": b"r"}
        store.close()


def test_without_a_directory_it_forgets(store_exe: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with running(store_exe, tmp_path) as server:
            store = store_on(address(server))
            assert store.reports() == {}
            store.report(node="n", report=b"r")
            store.close()


def test_a_second_one_on_the_same_socket_is_refused(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path), pytest.raises(KeyrotdError, match="running already"):
        start(runtime_dir=tmp_path, data_dir=None, server=store_exe)


def test_a_socket_that_a_crash_left_behind_is_no_hindrance(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
        server.child.wait()
        assert not server.running
        assert server.socket.exists()

    with running(store_exe, tmp_path) as server:
        assert server.running


def test_it_ends_with_whoever_started_it(store_exe: Path, tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from keyrotd.store.embedded import start\n"
        "print(start(runtime_dir=pathlib.Path(sys.argv[1]), data_dir=None, server=pathlib.Path(sys.argv[2])).pid)\n"
        "sys.stdout.flush()\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path, store_exe], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()

    wait_until(lambda: not alive(pid), "the store ends")


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    exe = servers_found.wheel_valkey()
    data = tmp_path / "data"
    (data / "appendonlydir").mkdir(parents=True)
    (data / "appendonlydir" / "appendonly.aof.manifest").write_text("garbage\n")

    with pytest.raises(KeyrotdError, match="did not start") as refusal:
        start(runtime_dir=tmp_path, data_dir=data, server=exe)

    assert str(tmp_path / "store.log") in str(refusal.value.hint)


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyrotdError, match="longer than 107 bytes"):
        start(runtime_dir=tmp_path / ("x" * 100), data_dir=None, server=Path("/bin/true"))


def test_the_server_named_comes_before_the_wheels() -> None:
    debian = servers_found.debian_redis()

    assert find_server({"KEYROTD_REDIS_SERVER": str(debian)}) == debian
    assert find_server({}) == servers_found.wheel_valkey()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Redis server v=6.2.14 sha=00000000:0'", "version 6, keyrotd needs 7.0"),
        ("echo hello", "is no valkey-server or redis-server"),
        ("exit 1", "is no valkey-server or redis-server"),
    ],
)
def test_a_server_that_will_not_do_is_refused(script: str, words: str, tmp_path: Path) -> None:
    exe = tmp_path / "server"
    exe.write_text(f"#!/bin/sh\n{script}\n")
    exe.chmod(0o755)

    with pytest.raises(KeyrotdError, match=words) as refusal:
        find_server({"KEYROTD_REDIS_SERVER": str(exe)})

    assert "KEYROTD_REDIS_SERVER" in str(refusal.value.hint)


def test_a_server_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyrotdError, match="does not run"):
        find_server({"KEYROTD_REDIS_SERVER": str(tmp_path / "nothing")})
