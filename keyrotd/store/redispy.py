"""What is used of redis-py, in one place: whoever imports it from here does not load the rest."""

from keyrotd.store import redis_apart  # noqa: F401 - it must load before any module of redis

# isort: split

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

__all__ = [
    "AskError",
    "AuthenticationError",
    "BusyLoadingError",
    "ClusterCrossSlotError",
    "ClusterDownError",
    "Connection",
    "MaintNotificationsConfig",
    "MovedError",
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
    "TryAgainError",
    "UnixDomainSocketConnection",
]
