import http.client
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import keyrotd
from keyrotd.store.embedded import Embedded
from keyrotd.testing.children import wait_until
from keyrotd.testing.live import free_ports
from tests.container.image import CHECKOUT, USER, Container, Image, Mount, Runtime, built
from tests.contract.stores import address, running, store_on
from tests.servers_found import wheel_valkey

# The one image is made once; what builds it downloads a Debian and seven packages.
pytestmark = [pytest.mark.debian, pytest.mark.timeout(300)]

#: An image that suddenly carries a compiler or a second interpreter is not the one that was meant.
MOST_BYTES = 100_000_000
#: Longer than any test waits: a lease that is gone has been let go.
LEASE = "60s"

CONFIG = """
runtime_dir = "/run/keyrotd"
state_dir = "/var/lib/keyrotd"
[store]
url = "unix:///run/store/store.sock"
[secrets]
signing_key_file = "secrets/signing.key"
verify_key_file = "secrets/verify.key"
operator_verify_key_file = "secrets/operator-verify.key"
[[ring]]
name = "edge"
kek_file = "secrets/edge.kek"
rotation_interval = "60s"
ticket_lifetime = "20s"
[scheduler]
tick_interval = "250ms"
lease_ttl = "{lease}"
node_ttl = "5s"
listen = "127.0.0.1:{scheduler}"
[agent]
node = "edge-1"
poll_interval = "200ms"
listen = "127.0.0.1:{agent}"
[[server]]
name = "any"
ring = "edge"
driver = "command"
key_file = "/run/keyrotd/any-{{n}}.key"
layout = "nginx80-files"
command = ["/usr/bin/keyrotd", "--version"]
min_interval = "1ms"
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A machine with a store, on which containers of the image run."""

    image: Image
    runtime: Runtime
    store: Embedded
    folder: Path
    ports: dict[str, int]

    def mounts(self, name: str) -> tuple[Mount, ...]:
        state = self.folder / f"state-{name}"
        state.mkdir(mode=0o700)
        os.chown(state, USER, USER)
        return (
            Mount("/etc/keyrotd", self.folder / "etc", writable=False),
            Mount("/run/keyrotd"),
            Mount("/var/lib/keyrotd", state),
            Mount("/run/store", self.store.socket.parent),
        )

    def answer(self, name: str, path: str) -> int:
        """Status code of a page; 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="kc", dir="/tmp") as folder:
        yield built(Path(folder))


@pytest.fixture(scope="module")
def site(image: Image) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="kc", dir="/tmp") as name:
        folder = Path(name)
        init = [sys.executable, "-m", "keyrotd", "init", str(folder / "etc")]
        subprocess.run(init, check=True, capture_output=True)
        ports = dict(zip(("scheduler", "agent"), free_ports(2), strict=True))
        (folder / "etc" / "keyrotd.toml").write_text(CONFIG.format(lease=LEASE, **ports))
        with running(wheel_valkey(), folder / "db") as store:
            for path in ((folder / "etc"), *(folder / "etc").rglob("*"), store.socket.parent, store.socket):
                os.chown(path, USER, USER)
            runtime = Runtime(image, folder)
            runtime.run("--version")  # skips the tests where the machine lets runc make no container
            yield Site(image, runtime, store, folder, ports)


def test_it_is_built_with_a_good_word_of_check_and_is_small(image: Image) -> None:
    print(f"image: {image.size / 1e6:.1f} MB")

    assert "keyrotd.toml: no fault" in image.said
    assert image.size < MOST_BYTES
    assert not list(image.root.rglob("*.key")), "secrets of the build's own proof have not come along"


def test_it_has_no_shell_no_pip_and_nothing_that_changes_its_user(image: Image) -> None:
    programs = {
        path.name for folder in ("bin", "sbin", "usr/bin", "usr/sbin") for path in image.root.glob(f"{folder}/*")
    }
    files = [path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()]

    assert {name.rstrip("0123456789.") for name in programs} == {"keyrotd", "python"}
    assert not [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [path for path in files if path.stat().st_mode & stat.S_IWOTH or path.stat().st_uid != 0]
    assert image.config["User"] == f"{USER}:{USER}"


def test_its_command_is_keyrotd(site: Site) -> None:
    version, helped = site.runtime.run("--version"), site.runtime.run()

    assert (version.code, version.stdout) == (0, f"keyrotd {keyrotd.__version__}\n")
    assert (helped.code, helped.stdout.splitlines()[0]) == (0, "Usage: keyrotd [OPTIONS] [COMMAND] [ARGS]...")


def test_it_knows_the_public_authorities(site: Site) -> None:
    """For a store whose certificate comes from one."""
    asks = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"

    known = site.runtime.run("-Ic", asks, program=["python3"])

    assert int(known.stdout) > 50


def test_every_module_of_the_daemons_and_commands_is_whole_in_it(site: Site) -> None:
    """What was left out of the standard library is missed by nobody."""
    look = (
        "import sys; sys.path.append('/opt/keyrotd')\n"
        "import importlib, pkgutil, keyrotd\n"
        "for m in pkgutil.walk_packages(keyrotd.__path__, 'keyrotd.'):\n"
        "    m.name.startswith(('keyrotd.testing', 'keyrotd.__main__')) or importlib.import_module(m.name)\n"
    )
    ended = site.runtime.run("-I", "-c", look, program=["python3"])

    assert (ended.code, ended.stderr) == (0, "")


def test_the_sidecars_startup_probe_runs_in_it(site: Site) -> None:
    template = (CHECKOUT / "deploy/helm/keyrotd-sidecar/templates/_shared.tpl").read_text("utf-8")
    (command,) = re.findall(r'command:\n +- (\S+)\n +- (-\S+)\n +- "(.+)"\n', template)
    program, *words = command

    there = site.runtime.run(*words, "/etc/passwd", program=[program])
    missing = site.runtime.run(*words, "/etc/passwd", "/run/keyrotd/tickets", program=[program])

    assert (there.code, there.stderr) == (0, "")
    assert missing.code == 1


def test_scheduler_and_agent_live_in_it_as_pid_1(site: Site) -> None:
    """Neither root nor a writable root is needed; keys reach the server; a stop lets the lease go at once."""
    store = store_on(address(site.store))
    with (
        site.runtime.running("scheduler", mounts=site.mounts("scheduler")) as scheduler,
        site.runtime.running("agent", mounts=site.mounts("agent")) as agent,
    ):
        try:
            wait_until(lambda: site.answer("scheduler", "/readyz") == 200, "the scheduler is ready")
            wait_until(lambda: site.answer("agent", "/readyz") == 200, "the agent is ready")
            assert {site.answer(name, "/livez") for name in site.ports} == {200}
            for container in (scheduler, agent):
                confined(container)
            key = Path(f"/proc/{agent.pid}/root/run/keyrotd/any-1.key")
            assert (key.stat().st_size, key.stat().st_uid, stat.S_IMODE(key.stat().st_mode)) == (80, USER, 0o600)

            agent.signal("HUP")
            wait_until(lambda: has_said(agent, "configuration.reloaded"), "the agent has read its configuration again")
            assert store.look().leader
            scheduler.signal("TERM")
            agent.signal("TERM")
            assert (scheduler.child.wait(10), agent.child.wait(10)) == (0, 0)
            assert store.look().leader == ""
        except BaseException:
            print(scheduler.log.read_text(), agent.log.read_text())
            raise
    assert not list((site.folder / "state-agent").rglob("*.key"))


def test_a_store_of_its_own_is_refused_with_words(site: Site, tmp_path: Path) -> None:
    """The image carries no Valkey: `embedded:` is for hosts."""
    home = tmp_path / "etc"
    shutil.copytree(site.folder / "etc", home)
    config = home / "keyrotd.toml"
    config.write_text(config.read_text().replace("unix:///run/store/store.sock", "embedded:"))
    for path in (home, *home.rglob("*")):
        os.chown(path, USER, USER)

    ended = site.runtime.run(
        "standalone",
        mounts=(Mount("/etc/keyrotd", home, writable=False), Mount("/run/keyrotd"), Mount("/var/lib/keyrotd")),
    )

    assert ended.code == 1
    assert "no valkey-server or redis-server" in ended.stderr


def confined(container: Container) -> None:
    """What the kernel says of a container's first process."""
    status = container.status()
    root = next(
        line.split()[5]
        for line in Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
        if line.split()[4] == "/"
    )

    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(USER)}
    assert status["NSpid"].split()[-1] == "1"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert "ro" in root.split(",")


def has_said(container: Container, event: str) -> bool:
    return any(event in line.values() for line in container.said())
