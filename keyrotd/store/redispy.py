"""What is used of redis-py, in one place: whoever imports it from here does not load the rest."""

from keyrotd.store import redis_apart  # noqa: F401 - it must load before any module of redis

# isort: split

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

__all__ = [
    "AuthenticationError",
    "BusyLoadingError",
    "Connection",
    "MaintNotificationsConfig",
    "NoBackoff",
    "NoPermissionError",
    "NoScriptError",
    "OutOfMemoryError",
    "ReadOnlyError",
    "RedisConnectionError",
    "RedisError",
    "RedisTimeoutError",
    "ResponseError",
    "Retry",
    "SSLConnection",
    "UnixDomainSocketConnection",
]
