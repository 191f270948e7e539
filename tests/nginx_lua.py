"""Real nginx processes that take their keys by keyrotd's Lua reader, and what tests do with them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from keyrotd.testing.certificates import new_authority
from keyrotd.testing.live import free_ports
from keyrotd.testing.nginx import LUA_MODULES, ByLua, Nginx
from keyrotd.tls.handshake import Trust, Version
from keyrotd.tls.target import Target
from tests import nginx_sites
from tests.nginx_sites import Client, Window, accidents
from tests.scenes import short_directory
from tests.servers_found import debian_nginx_lua

LUA = Path(__file__).parents[1] / "deploy" / "nginx" / "lua"

#: Another nginx than Debian's, to learn whether its version may be let in: see deploy/nginx/README.md.
OTHER_NGINX = os.environ.get("KEYROTD_TEST_NGINX")

POLL_MS = 100


@dataclass
class Reader:
    """The Lua in an nginx's configuration (an Intake), with whatever a test wants said around it."""

    options: str = ""
    cold_key: bool = True
    before: str = ""
    after: str = ""
    poll_ms: int = POLL_MS
    locations: str = ""
    ports: tuple[int, ...] = field(default_factory=lambda: free_ports(2))

    kind = "nginx"

    def key_file(self, home: Path) -> Path:
        return home / "keys" / "tickets"

    def main(self, home: Path) -> str:  # noqa: ARG002 - the same for all
        if OTHER_NGINX is None:
            return "".join(f"load_module {module};\n" for module in LUA_MODULES)
        return "env LUA_PATH; # a binary upgrade would forget it\n"

    def servers(self, home: Path) -> str:
        if not self.cold_key:
            return ""
        cold = home / "cold.key"
        if not cold.exists():
            cold.write_bytes(os.urandom(80))
        return f"ssl_session_ticket_key {cold};"

    def http(self, home: Path) -> str:
        plain = f"server {{ listen 127.0.0.1:{self.ports[1]}; {self.locations} }}" if self.locations else ""
        # A cache has helper processes, which run init_worker too and serve nobody.
        return f"""\
proxy_cache_path {home}/cache keys_zone=cache:1m;
lua_package_path "{LUA}/?.lua;;";
init_worker_by_lua_block {{
    {self.before}
    require("keyrotd").start {{
        key_file = "{self.key_file(home)}", ack_dir = "{home}/acks", poll = {self.poll_ms / 1000}, {self.options}
    }}
    {self.after}
}}
server {{
    listen 127.0.0.1:{self.ports[0]} ssl reuseport;
    server_name own.test;
    return 200 "pid=$pid";
}}
{plain}"""

    def section(self, nginx: Nginx) -> str:
        return ByLua(LUA).section(nginx)


@dataclass
class Site(nginx_sites.Site):
    """One nginx with the Lua reader in it."""

    reader: Reader

    @property
    def own_target(self) -> Target:
        """A server called own.test, alone on its port."""
        return Target("127.0.0.1", self.reader.ports[0])

    @property
    def plain_port(self) -> int:
        """Without TLS, for `locations`."""
        return self.reader.ports[1]


@dataclass
class Stage:
    """Sites in one directory, under one certificate, and clients who trust it."""

    directory: Path
    sites: list[Site] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.chmod(0o755)
        self.ca, self.certificate = new_authority(datetime.now(UTC)).write(
            self.directory, "localhost", "other.test", "own.test", "127.0.0.1"
        )

    def site(self, name: str, window: Window | None = None, *, options: str = "", cold_key: bool = True) -> Site:
        """One more, not started yet; with a window in its key file if one is given."""
        reader = Reader(options=options, cold_key=cold_key)
        # Workers of a user that is not the master's, as in production.
        nginx = Nginx(name, self.directory / name, self.certificate, _find_nginx(), reader, user="www-data")
        site = Site(nginx, reader)
        if window is not None:
            site.write(window.content)
        self.sites.append(site)
        return site

    def started(self, name: str, window: Window | None = None, *, options: str = "", cold_key: bool = True) -> Site:
        site = self.site(name, window, options=options, cold_key=cold_key)
        site.start()
        return site

    @property
    def trust(self) -> Trust:
        return Trust(ca_file=str(self.ca))

    def client(self, version: Version) -> Client:
        return Client(self.trust, version)


@contextmanager
def staged() -> Iterator[Stage]:
    """An empty stage; whatever was started on it ends with the block, and must not have crashed."""
    _find_nginx()
    with short_directory() as directory:
        stage = Stage(directory)
        try:
            yield stage
        finally:
            for site in stage.sites:
                site.nginx.stop()
        for site in stage.sites:
            assert accidents(site.nginx.log) == []


def _find_nginx() -> Path:
    return debian_nginx_lua() if OTHER_NGINX is None else Path(OTHER_NGINX)
