"""
Loads redis-py's connections without the clients that its package loads for everybody; importing this module does it.

`import redis` runs an `__init__` that loads every client there is, the cluster's and the asyncio ones included: 4 MiB
in each process. So while the modules of `redis.connection` load, an empty package stands where `redis` will. Whoever
imports `redis` later gets the real one, made of the same modules. A redis-py that cannot be taken apart is left whole.
"""

import importlib.util
import sys
from importlib import import_module
from types import ModuleType

_PACKAGE = "redis"


class _StandIn(ModuleType):
    """Knows where the package's modules are; what else is asked of it, the package itself answers once it may load."""

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(_PACKAGE) is self:
            raise AttributeError(name)
        return getattr(import_module(_PACKAGE), name)


def _load() -> None:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        return
    stand_in = _StandIn(_PACKAGE)
    stand_in.__path__ = spec.submodule_search_locations
    sys.modules[_PACKAGE] = stand_in
    try:
        import_module(f"{_PACKAGE}.connection")
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]:
            del sys.modules[name]
    finally:
        del sys.modules[_PACKAGE]


if _PACKAGE not in sys.modules:
    _load()
