"""Real nginx processes that take their keys by keyrotd's C module, built once, and what tests do with them."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from keyrotd.testing.certificates import new_authority
from keyrotd.testing.nginx import ByModule, Nginx
from keyrotd.tls.handshake import Trust, Version
from tests import servers_found
from tests.nginx_sites import Client, Site, Window, accidents
from tests.scenes import short_directory

#: An nginx other than Debian's, and the sources that it was built from, to run these tests on.
OTHER_NGINX, OTHER_SOURCE = (os.environ.get(name) for name in ("KEYROTD_TEST_NGINX", "KEYROTD_TEST_NGINX_SOURCE"))

DEPLOY = Path(__file__).parents[1] / "deploy" / "nginx"
POLL_MS = 50

_BUILDS = tempfile.TemporaryDirectory(prefix="keyrotd-nginx-module-")


def nginx_exe() -> Path:
    return Path(OTHER_NGINX) if OTHER_NGINX else servers_found.debian_nginx()


@cache
def module() -> Path:
    """The module, built as an operator builds it."""
    return _built(nginx_exe(), "")


@cache
def sanitized() -> tuple[Path, Path]:
    """An nginx that runs under ASan and UBSan, and the module that wants it."""
    libraries = [_library(name) for name in ("libasan.so", "libubsan.so")]
    exe = Path(tempfile.mkdtemp(dir=_BUILDS.name), "nginx")
    # What nginx itself never frees is not ours.
    exe.write_text(f"""\
#!/bin/sh
LD_PRELOAD='{" ".join(libraries)}' ASAN_OPTIONS=detect_leaks=0 exec {nginx_exe()} "$@"
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
    source = Path(OTHER_SOURCE) if OTHER_SOURCE else servers_found.nginx_sources().parent
    build = Path(tempfile.mkdtemp(dir=_BUILDS.name))
    build.parent.chmod(0o755)
    build.chmod(0o755)
    done = make(DEPLOY, BUILD=build, NGINX=exe, SOURCE=source, CFLAGS=cflags)
    assert done.returncode == 0, done.stderr
    return build / "ngx_keyrotd_module.so"


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
        stage = Stage(directory, intake, nginx_exe())
        try:
            yield stage
        finally:
            for site in stage.sites:
                site.nginx.stop()
        for site in stage.sites:
            assert accidents(site.nginx.log) == []
