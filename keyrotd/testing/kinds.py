"""The kinds of servers that `keyrotd demo` and the benches can start, by the word of their driver."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from keyrotd.core.errors import KeyrotdError
from keyrotd.testing.envoy import Envoy, find_envoy
from keyrotd.testing.haproxy import HAProxy, find_haproxy
from keyrotd.testing.live import LiveServer, Maker
from keyrotd.testing.nginx import LUA_MODULES, ByLua, ByModule, Nginx, find_nginx
from keyrotd.testing.trafficserver import TrafficServer, build_plugin, find_traffic_server


@dataclass(frozen=True, slots=True)
class Kind:
    """
    `title` is its name for people, `reload` what a reload of it brings, None where there is no such thing.

    `find` raises KeyrotdError, with a hint, where this machine has none.
    """

    title: str
    find: Callable[[], Maker]
    reload: str | None


def _nginx() -> Maker:
    """By Lua where nginx has that, else by the C module, built for it beside the first node."""
    exe, sources = find_nginx(), _deployed("nginx")
    if all(module.exists() for module in LUA_MODULES):
        return partial(Nginx, exe=exe, intake=ByLua(sources / "lua"))

    def make(*, name: str, directory: Path, certificate: Path) -> LiveServer:
        module = directory.parent / "module" / "ngx_keyrotd_module.so"
        if not module.exists():
            _make(sources, "module", f"NGINX={exe}", f"BUILD={module.parent}")
        return Nginx(name=name, directory=directory, certificate=certificate, exe=exe, intake=ByModule(module))

    return make


def _traffic_server() -> Maker:
    """Its plugin is built beside the first node."""
    exe, sources = find_traffic_server(), _deployed("trafficserver")

    def make(*, name: str, directory: Path, certificate: Path) -> LiveServer:
        plugin = build_plugin(sources, directory.parent / "plugin")
        return TrafficServer(name=name, directory=directory, certificate=certificate, exe=exe, plugin=plugin)

    return make


def _deployed(folder: str) -> Path:
    """Where the sources of what runs inside servers are: in a checkout, or where the wheel puts them."""
    for deploy in (Path(__file__).parents[2] / "deploy", Path(sys.prefix, "share", "keyrotd", "deploy")):
        if (deploy / folder).is_dir():
            return deploy / folder
    raise KeyrotdError(f"demo: needs deploy/{folder}, there is none", hint="it comes with keyrotd's checkout and wheel")


def _make(source: Path, *words: str) -> None:
    made = subprocess.run(["make", "-s", "-C", str(source), *words], capture_output=True, text=True, check=False)
    if made.returncode:
        *_, error, hint = ["", "", *(line for line in made.stderr.splitlines() if line.startswith(("error:", "hint:")))]
        raise KeyrotdError(f"demo: {error.removeprefix('error: ')}", hint=hint.removeprefix("hint: "))


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "haproxy": Kind("HAProxy", lambda: partial(HAProxy, exe=find_haproxy()), "a new worker, the same keys"),
        "nginx": Kind("nginx", _nginx, "new workers, the same keys"),
        "envoy": Kind("Envoy", lambda: partial(Envoy, exe=find_envoy()), None),
        "trafficserver": Kind("Traffic Server", _traffic_server, "the same process, the same keys"),
    }
)
