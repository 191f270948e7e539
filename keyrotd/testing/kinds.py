"""The kinds of servers that `keyrotd demo` and the benches can start, by the word of their driver."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from keyrotd.testing.envoy import Envoy, find_envoy
from keyrotd.testing.haproxy import HAProxy, find_haproxy
from keyrotd.testing.live import Maker


@dataclass(frozen=True, slots=True)
class Kind:
    """
    `title` is its name for people, `reload` what a reload of it brings, None where there is no such thing.

    `find` raises KeyrotdError, with a hint, where this machine has none.
    """

    title: str
    find: Callable[[], Maker]
    reload: str | None


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "haproxy": Kind("HAProxy", lambda: partial(HAProxy, exe=find_haproxy()), "a new worker, the same keys"),
        "envoy": Kind("Envoy", lambda: partial(Envoy, exe=find_envoy()), None),
    }
)
