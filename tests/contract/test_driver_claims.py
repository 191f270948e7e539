"""Every driver, and the twin, holds what the port promises: over a twin of HAProxy, real ones, and a command."""

import grp
import os
import pwd
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from keyrotd.core.stek import Scheme
from keyrotd.servers.command import CommandDriver
from keyrotd.servers.envoy import EnvoyDriver
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.servers.inprocess import NginxDriver
from keyrotd.servers.layouts import KEY_FILES
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.driver import CLAIMS, Subject, check_driver
from keyrotd.testing.envoy import Envoy
from keyrotd.testing.envoy_twin import EnvoyTwin, write_strange_secret
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.haproxy_twin import HAProxyTwin, write_strange_keys
from keyrotd.testing.reader_twin import ReaderTwin
from keyrotd.testing.twins import MemoryServer
from tests import nginx_lua, nginx_module, nginx_sites, servers_found

each_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)


class Started(Protocol):
    """A stage of nginx, whichever way its keys come in."""

    def started(self, name: str) -> nginx_sites.Site: ...


@each_claim
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(MemoryServer, id="unbounded"),
        pytest.param(lambda: MemoryServer(slots=3, ring_buffer=True, file=True), id="like haproxy"),
        pytest.param(lambda: MemoryServer(slots=2, scheme=Scheme.AES128), id="two slots"),
    ],
)
def test_the_memory_server(make: Callable[[], MemoryServer], claim: Callable[[Subject], None]) -> None:
    server = make()

    @contextmanager
    def shut() -> Iterator[None]:
        server.fail()
        yield
        server.heal()

    claim(Subject(driver=server, shut=shut))


@each_claim
@pytest.mark.parametrize("slots", [3, 6])
@pytest.mark.parametrize("key_files", [("tickets.keys",), ("a.keys", "b.keys")], ids=["one file", "two files"])
def test_haproxy_by_its_twin(slots: int, key_files: tuple[str, ...], claim: Callable[[Subject], None]) -> None:
    with haproxy_twin(slots=slots, key_files=key_files) as subject:
        claim(subject)


@each_claim
def test_haproxy_itself(haproxy_exe: Path, claim: Callable[[Subject], None]) -> None:
    with real_haproxy(haproxy_exe) as subject:
        claim(subject)


@each_claim
@pytest.mark.parametrize("by", ["socket", "tcp", "file alone"])
def test_envoy_by_its_twin(by: str, claim: Callable[[Subject], None]) -> None:
    with envoy_twin(tcp=by == "tcp", told=by != "file alone") as subject:
        claim(subject)


@each_claim
def test_envoy_itself(claim: Callable[[Subject], None]) -> None:
    with real_envoy(servers_found.wheel_envoy()) as subject:
        claim(subject)


@each_claim
def test_a_reader_inside_a_server_by_its_twin(tmp_path: Path, claim: Callable[[Subject], None]) -> None:
    with ReaderTwin(tmp_path / "twin") as twin:
        driver = NginxDriver(name="twin", key_file=twin.key_file, ack_dir=twin.ack_dir)

        # Not `shut`: such a server has no door beside the file, and starts with what that holds.
        claim(Subject(driver=driver, sealed=lambda: twin.sealed))


@pytest.mark.debian
@each_claim
@pytest.mark.parametrize("staged", [nginx_module.staged, nginx_lua.staged], ids=["by module", "by Lua"])
def test_nginx_itself(staged: Callable[[], AbstractContextManager[Started]], claim: Callable[[Subject], None]) -> None:
    with staged() as stage:
        nginx = stage.started("real").nginx
        # Workers need not be whoever writes the file.
        group = grp.getgrgid(pwd.getpwnam(nginx.user).pw_gid).gr_name if os.geteuid() == 0 else None
        driver = NginxDriver(name="real", key_file=nginx.key_file, ack_dir=nginx.ack_dir, group=group)
        claim(Subject(driver=driver))


@each_claim
@pytest.mark.parametrize("layout", KEY_FILES)
def test_a_command(layout: str, claim: Callable[[Subject], None]) -> None:
    with command(layout) as subject:
        claim(subject)


def test_authors_of_drivers_run_all_claims_with_one_call() -> None:
    makers: list[Callable[[], AbstractContextManager[Subject]]] = [haproxy_twin, envoy_twin, lambda: command("ats48")]

    for make in makers:
        check_driver(make)


@contextmanager
def haproxy_twin(*, slots: int = 3, key_files: tuple[str, ...] = ("tickets.keys",)) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="keyrotd") as directory:  # a socket's path must be short
        twin = HAProxyTwin(Path(directory, "twin"), slots=slots, key_files=key_files)
        for key_file in twin.key_files:
            write_strange_keys(key_file, count=slots)
        twin.start()
        try:
            driver = HAProxyDriver(name="twin", socket=(twin.socket,), key_file=twin.key_files)
            yield Subject(driver=driver, sealed=lambda: twin.sealed, shut=lambda: moved_away(twin.socket))
        finally:
            twin.stop()


@contextmanager
def real_haproxy(exe: Path) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="keyrotd") as directory:
        _, certificate = new_authority(datetime.now(UTC)).write(Path(directory))
        server = HAProxy(name="real", exe=exe, directory=Path(directory, "real"), certificate=certificate)
        write_strange_keys(server.key_file)
        server.start()
        try:
            driver = HAProxyDriver(name="real", socket=(server.socket,), key_file=(server.key_file,))
            yield Subject(driver=driver, shut=lambda: moved_away(server.socket))
        finally:
            server.stop()


@contextmanager
def envoy_twin(*, tcp: bool = False, told: bool = True) -> Iterator[Subject]:
    """`told`: the driver knows of the admin endpoint."""
    with tempfile.TemporaryDirectory(prefix="keyrotd") as directory:
        twin = EnvoyTwin(Path(directory), tcp=tcp)
        write_strange_secret(twin.key_file)
        twin.start()
        try:
            driver = EnvoyDriver(name="twin", key_file=twin.key_file, admin=twin.admin if told else None)
            by_socket = told and not tcp
            yield Subject(
                driver=driver,
                sealed=lambda: twin.sealed,
                shut=(lambda: moved_away(Path(twin.admin))) if by_socket else None,
            )
        finally:
            twin.stop()


@contextmanager
def real_envoy(exe: Path) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="keyrotd") as directory:
        _, certificate = new_authority(datetime.now(UTC)).write(Path(directory))
        server = Envoy(name="real", exe=exe, directory=Path(directory, "real"), certificate=certificate)
        write_strange_secret(server.key_file)
        server.start()
        try:
            driver = EnvoyDriver(name="real", key_file=server.key_file, admin=str(server.admin))
            yield Subject(driver=driver, shut=lambda: moved_away(server.admin))
        finally:
            server.stop()


@contextmanager
def command(layout: str) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="keyrotd") as directory:
        name = "tickets.{n}.key" if layout.endswith("-files") else "tickets.key"
        yield Subject(
            driver=CommandDriver(
                name="any", key_file=Path(directory, name), layout=layout, command=("/bin/true",), min_interval_ms=0
            )
        )


@contextmanager
def moved_away(socket: Path) -> Iterator[None]:
    aside = socket.with_suffix(".aside")
    socket.rename(aside)
    yield
    aside.rename(socket)
