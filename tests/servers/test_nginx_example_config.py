"""The examples in deploy/nginx are ones that nginx accepts, and every step of its README fits them."""

import os
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from keyrotd import sections
from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import in_step
from keyrotd.servers.catalogue import COMMON, DRIVERS
from keyrotd.servers.command import CommandDriver
from keyrotd.servers.port import Driver
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.driver import rotated, some_keys
from keyrotd.testing.nginx import ByFiles, ByLua, Nginx
from keyrotd.tls.handshake import Trust, Version
from keyrotd.tls.target import Target
from tests import servers_found
from tests.nginx_module import module
from tests.nginx_sites import Client, new_window
from tests.scenes import short_directory

FOLDER = Path(__file__).parents[2] / "deploy" / "nginx"
README = (FOLDER / "README.md").read_text("utf-8")
BY_LUA = (FOLDER / "keyrotd-lua.conf").read_text("utf-8")
BY_MODULE = (FOLDER / "keyrotd-module.conf").read_text("utf-8")
BY_FILES = (FOLDER / "keyrotd-files.conf").read_text("utf-8")


@pytest.mark.parametrize("example", [BY_LUA, BY_MODULE, BY_FILES], ids=["by Lua", "by module", "by files"])
def test_the_readme_shows_the_lines_of_the_example(example: str) -> None:
    lines = [line for line in example.splitlines() if not line.startswith("#")]

    assert "\n".join(["   ```nginx", *(f"   {line}" for line in lines), "   ```"]) in README


@dataclass(frozen=True)
class ByExample(ByLua):
    """The lines as they stand, but for their paths."""

    def servers(self, home: Path) -> str:  # noqa: ARG002 - the lines have it
        return ""

    def http(self, home: Path) -> str:
        (home / "cold.key").write_bytes(os.urandom(80))
        lines = BY_LUA.replace("/opt/keyrotd/share/keyrotd/deploy/nginx/lua", str(self.lua))
        lines = lines.replace("/etc/nginx/cold.key", f"{home}/cold.key").replace("/run/keyrotd-nginx", f"{home}/acks")
        return lines.replace("/run/keyrotd/nginx.keys", str(self.key_file(home)))


@pytest.mark.debian
def test_nginx_takes_keys_by_the_lua_lines() -> None:
    window = new_window()
    with short_directory() as directory:
        directory.chmod(0o755)
        ca, certificate = new_authority(datetime.now(UTC)).write(directory)
        exe = servers_found.debian_nginx_lua()
        nginx = Nginx("a", directory / "a", certificate, exe, ByExample(FOLDER / "lua"))
        nginx.amend = lambda text: text.replace("ssl_session_timeout 1h;", "", 1)  # the lines have one
        nginx.key_file.write_bytes(window.content)

        nginx.start()
        sealed_by = Client(Trust(ca_file=str(ca)), Version.TLS13).sealed_by(Target("127.0.0.1", nginx.port))
        nginx.stop()

    assert sealed_by == window.keys[0].name


@pytest.mark.debian
def test_nginx_accepts_the_modules_lines(tmp_path: Path) -> None:
    lines = BY_MODULE.replace("/usr/lib/nginx/modules/ngx_keyrotd_module.so", str(module()))

    assert checked(servers_found.debian_nginx(), tmp_path, main=lines.replace("/run/", f"{tmp_path}/")).returncode == 0
    assert list(tmp_path.glob("keyrotd-nginx")) == []  # a trial leaves nothing


def test_nginx_accepts_the_key_files_lines_once_they_are_there(exe: Path, tmp_path: Path) -> None:
    lines = BY_FILES.replace("/run/keyrotd", str(tmp_path))

    missing = checked(exe, tmp_path, http=lines)
    for number in range(3):
        (tmp_path / f"nginx-{number}.key").write_bytes(os.urandom(80))

    assert missing.returncode == 1
    assert f'"{tmp_path}/nginx-0.key" failed' in missing.stderr
    assert checked(exe, tmp_path, http=lines).returncode == 0


def test_the_readmes_sections_become_drivers() -> None:
    shown = [tomllib.loads(block.partition("```")[0]) for block in README.split("```toml\n")[1:]]

    drivers = [built(section["server"][0]) for section in shown]

    assert [driver.kind for driver in drivers] == ["nginx", "command"]
    assert [driver.facts.reloads for driver in drivers] == [False, True]


@pytest.fixture(params=["wheel", pytest.param("debian", marks=pytest.mark.debian)])
def exe(request: pytest.FixtureRequest) -> Path:
    """A recent nginx that loads no modules, and Debian's."""
    return servers_found.wheel_nginx() if request.param == "wheel" else servers_found.debian_nginx()


@pytest.fixture
def nodes(exe: Path) -> Iterator[tuple[Nginx, Nginx, Client]]:
    with short_directory() as directory:
        directory.chmod(0o755)
        ca, certificate = new_authority(datetime.now(UTC)).write(directory)
        a, b = (Nginx(name, directory / name, certificate, exe, ByFiles()) for name in ("a", "b"))
        yield a, b, Client(Trust(ca_file=str(ca)), Version.TLS13)
        a.stop()
        b.stop()


def test_by_files_two_nodes_resume_each_others_tickets_over_a_rotation(nodes: tuple[Nginx, Nginx, Client]) -> None:
    """And it is what it is called: a reload, at most one in `min_interval`."""
    *both, client = nodes
    drivers = [driver_of(nginx) for nginx in both]
    keys = some_keys(os.urandom, previous=1)
    for nginx, driver in zip(both, drivers, strict=True):
        with pytest.raises(InstallFailed, match="nginx ended with code 1"):
            driver.install(keys)  # the files, before the first start
        nginx.start()
    a, b = (Target("127.0.0.1", nginx.port) for nginx in both)
    shake = client.visit(a)
    assert shake.key_name == keys.current.name
    assert client.resumes(shake, b)

    workers, keys = both[1].workers, rotated(keys, os.urandom)
    with pytest.raises(InstallFailed, match=r"wrote the keys, .*nginx runs in "):
        drivers[1].install(keys)
    patient = replace(drivers[1], min_interval_ms=0)
    patient.install(keys)
    wait_until(lambda: not set(workers) & set(both[1].workers), "the workers are replaced")

    assert in_step(patient.observe(), keys)
    assert client.resumes(shake, b)
    assert client.sealed_by(b) == keys.current.name


def driver_of(nginx: Nginx) -> CommandDriver:
    return CommandDriver(
        name=nginx.name,
        key_file=nginx.key_file.with_name("{n}.key"),
        layout="nginx80-files",
        command=(*nginx.argv, "-s", "reload"),
    )


def built(section: dict[str, Any]) -> Driver:
    """The driver of a section, which says nothing that its driver does not know."""
    fields = DRIVERS[section["driver"]].fields
    own = {key: value for key, value in section.items() if key not in {*COMMON, "driver"}}
    read = sections.read(own, fields, at="", place=Path("/").joinpath)
    assert read.faults == ()
    return DRIVERS[section["driver"]].build(section["name"], read.values)


def checked(exe: Path, folder: Path, *, main: str = "", http: str = "") -> subprocess.CompletedProcess[str]:
    """What `nginx -t` says to these lines."""
    site = folder / "site.pem"
    site.write_bytes(new_authority(datetime.now(UTC)).issue("localhost"))
    config = folder / "nginx.conf"
    temps = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(f"""\
{main}
pid {folder}/pid;
events {{}}
http {{
    {temps}
    access_log off;
    {http}
    server {{ listen 127.0.0.1:1 ssl; ssl_certificate {site}; ssl_certificate_key {site}; }}
}}
""")
    command = [str(exe), "-t", "-q", "-e", "stderr", "-p", str(folder), "-c", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
