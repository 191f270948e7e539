"""Real nginx processes that take their keys by keyrotd's C module, built once, and what tests do with them."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from keyrotd.servers import acks, files
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.nginx import ByModule, Nginx
from keyrotd.tls.handshake import Trust, Version
from keyrotd.tls.target import Target
from tests import servers_found
from tests.nginx_lua import Client, Window
from tests.scenes import now_at, short_directory

DEPLOY = Path(__file__).parents[1] / "deploy" / "nginx"
WORKERS = 2
POLL_MS = 50

_BUILDS = tempfile.TemporaryDirectory(prefix="keyrotd-nginx-module-")


@cache
def module() -> Path:
    """The module, built for Debian's nginx as an operator builds it."""
    return _built(servers_found.debian_nginx(), "")


@cache
def sanitized() -> tuple[Path, Path]:
    """An nginx that runs under ASan and UBSan, and the module that wants it."""
    libraries = [_library(name) for name in ("libasan.so", "libubsan.so")]
    exe = Path(tempfile.mkdtemp(dir=_BUILDS.name), "nginx")
    # What nginx itself never frees is not ours.
    exe.write_text(f"""\
#!/bin/sh
LD_PRELOAD='{" ".join(libraries)}' ASAN_OPTIONS=detect_leaks=0 exec {servers_found.debian_nginx()} "$@"
""")
    exe.chmod(0o755)
    return exe, _built(exe, "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer")


def make(tree: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """What an operator types: `make -C tree module`, and what it said."""
    words = (f"{name}={value}" for name, value in variables.items())
    argv = ("make", "-s", "-C", str(tree), "module", *words)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def _library(name: str) -> str:
    asking = (servers_found.c_compiler(), f"-print-file-name={name}")
    return subprocess.run(asking, capture_output=True, text=True, check=True).stdout.strip()


def _built(exe: Path, cflags: str) -> Path:
    servers_found.c_compiler()
    servers_found.nginx_sources()
    build = Path(tempfile.mkdtemp(dir=_BUILDS.name))
    build.parent.chmod(0o755)
    build.chmod(0o755)
    done = make(DEPLOY, BUILD=build, NGINX=exe, CFLAGS=cflags)
    assert done.returncode == 0, done.stderr
    return build / "ngx_keyrotd_module.so"


@dataclass
class Site:
    """One nginx, and its key file in our hands."""

    nginx: Nginx

    @property
    def targets(self) -> tuple[Target, ...]:
        """http, http on another port, stream."""
        return tuple(Target("127.0.0.1", port) for port in self.nginx.ports)

    @property
    def key_file(self) -> Path:
        return self.nginx.key_file

    def start(self) -> None:
        """Return once every worker has looked."""
        self.nginx.start()
        wait_until(lambda: len(self.acks()) == WORKERS, f"{self.nginx.name} has {WORKERS} workers")

    def install(self, window: Window) -> int:
        """Write it and wait for every worker; how long the last one took, in ms."""
        began_at = now_at()
        self.write(window.content)
        self.wait_for(window)
        return now_at() - began_at

    def write(self, content: bytes, mode: int = 0o644) -> None:
        files.write(self.key_file, content, files.Access(mode=mode))

    def wait_for(self, window: Window) -> None:
        wait_until(
            lambda: [ack.digest for ack in self.acks()] == [window.digest] * WORKERS,
            f"{self.nginx.name} has epoch {window.epoch}",
        )

    def wait_for_fault(self, fault: str | None) -> None:
        wait_until(lambda: [ack.fault for ack in self.acks()] == [fault] * WORKERS, f"{self.nginx.name} says {fault}")

    def wait_for_polls(self) -> None:
        """Three more of each worker."""
        since = {ack.pid: ack.touched_at for ack in self.acks()}
        wait_until(
            lambda: all(ack.touched_at >= since[ack.pid] + 3 * ack.poll_ms for ack in self.acks()), "three more polls"
        )

    def acks(self) -> tuple[acks.Ack, ...]:
        return acks.living(self.nginx.ack_dir, now_at())


@dataclass
class Stage:
    """Sites in one directory, under one certificate, and clients who trust it."""

    directory: Path
    intake: ByModule
    exe: Path
    sites: list[Site] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.chmod(0o755)
        self.ca, self.certificate = new_authority(datetime.now(UTC)).write(self.directory)

    def site(self, name: str, window: Window | None = None, *, poll_ms: int | None = None) -> Site:
        """One more, not started yet; with a window in its key file if one is given."""
        intake = self.intake if poll_ms is None else replace(self.intake, poll_ms=poll_ms)
        site = Site(Nginx(name, self.directory / name, self.certificate, self.exe, intake))
        if window is not None:
            site.write(window.content)
        self.sites.append(site)
        return site

    def started(self, name: str, window: Window | None = None, *, poll_ms: int | None = None) -> Site:
        site = self.site(name, window, poll_ms=poll_ms)
        site.start()
        return site

    def client(self, version: Version) -> Client:
        return Client(Trust(ca_file=str(self.ca)), version)


@contextmanager
def staged() -> Iterator[Stage]:
    """An empty stage; whatever was started on it ends with the block, and must not have crashed."""
    intake = ByModule(module(), poll_ms=POLL_MS)
    with short_directory() as directory:
        stage = Stage(directory, intake, servers_found.debian_nginx())
        try:
            yield stage
        finally:
            for site in stage.sites:
                site.nginx.stop()
        for site in stage.sites:
            assert accidents(site.nginx.log) == []


def accidents(log: Path) -> list[str]:
    """What no nginx should ever say; whoever kills a worker means it."""
    with suppress(FileNotFoundError):
        lines = log.read_text(errors="replace").splitlines()
        return [line for line in lines if "[alert]" in line and "exited on signal 9" not in line]
    return []
