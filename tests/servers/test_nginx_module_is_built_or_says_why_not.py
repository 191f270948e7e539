"""`make -C deploy/nginx module`: for the nginx that is here, from any tree, or not and with words."""

import shutil
from pathlib import Path

import pytest

from tests import servers_found
from tests.nginx_module import DEPLOY, make

pytestmark = pytest.mark.debian

_VERSION = "nginx version: nginx/1.22.1"
_NEWER = "nginx version: nginx/1.27.1"
_OPENSSL = "built with OpenSSL 3.0.15 3 Sep 2024"


def test_it_builds_from_a_tree_that_it_leaves_as_it_is(tmp_path: Path) -> None:
    """As from the wheel's share/keyrotd/deploy, into a directory that is not there yet."""
    servers_found.nginx_sources()
    tree = shutil.copytree(DEPLOY.parent, tmp_path / "share" / "keyrotd" / "deploy")
    before = _stamps(tree)

    done = make(tree / "nginx", BUILD=tmp_path / "mine" / "build", NGINX=servers_found.debian_nginx())

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"built for nginx 1.22.1: {tmp_path}/mine/build/ngx_keyrotd_module.so\n"
    built = sorted(path.name for path in (tmp_path / "mine" / "build").iterdir())
    assert built == ["build.log", "ngx_keyrotd_module.so"]
    assert _stamps(tree) == before


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("", "does not say which nginx it is"),
        (_VERSION, "was built without TLS"),
        (f"{_VERSION}\nbuilt with OpenSSL 1.1.1w  11 Sep 2023", "was built with OpenSSL 1.1.1w"),
        (f"{_VERSION}\nbuilt with BoringSSL", "was built with BoringSSL"),
        (f"{_VERSION}\n{_OPENSSL}\nconfigure arguments: --with-debug", "was built without --with-compat"),
        (
            f"{_NEWER}\n{_OPENSSL}\nconfigure arguments: --with-compat",
            "is 1.27.1, the sources in",
        ),
    ],
)
def test_an_nginx_that_it_does_not_fit_is_refused(tmp_path: Path, told: str, words: str) -> None:
    servers_found.nginx_sources()
    nginx = tmp_path / "nginx"
    nginx.write_text(f"#!/bin/sh\ncat >&2 <<'TOLD'\n{told}\nTOLD\n")
    nginx.chmod(0o755)

    done = make(DEPLOY, BUILD=tmp_path / "build", NGINX=nginx)

    assert done.returncode != 0
    assert done.stderr.startswith(f"error: {nginx} {words}")
    assert not (tmp_path / "build").exists()


def test_an_nginx_or_sources_that_are_not_there_are_said(tmp_path: Path) -> None:
    none = tmp_path / "none"

    nginx = make(DEPLOY, BUILD=none, NGINX=none)
    sources = make(DEPLOY, BUILD=none, NGINX=servers_found.debian_nginx(), SOURCE=none)

    assert nginx.stderr.startswith(f"error: there is no nginx at {none}\nhint: ")
    assert sources.stderr.startswith(f"error: there are no sources of nginx in {none}\nhint: ")


def _stamps(tree: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
