"""What each role may do in the store, as `ACL SETUSER` lines that Redis 7.0 and Valkey load. No password is here."""

from collections.abc import Iterable

from keyrotd.store.redis import channel

# What redis-py needs to log in, how a cluster is told that we come from another node, and what every script reads with.
_CONNECT = "+ping +hello +auth +select +client|setname +asking"
_READ = "+evalsha_ro +eval_ro +type +get +strlen +hget +hstrlen +hlen +hrandfield +pttl"

_AGENT = f"{_CONNECT} {_READ} +hset +hdel +subscribe +unsubscribe"
_OPERATOR = f"{_CONNECT} {_READ} +hgetall +lrange +hset +publish +subscribe +unsubscribe +info"
_SCHEDULER = (
    f"{_CONNECT} {_READ} +hgetall +lrange +hset +hdel +publish +subscribe +unsubscribe +info "
    "+evalsha +eval +set +del +pexpire +time +lindex +lpush +ltrim +wait"
)


def lines(namespace: str, rings: Iterable[str]) -> tuple[str, ...]:
    """
    One user for each role, over all of `rings`. Run again they change rights only: a user's passwords stay.

    A new user cannot log in before it is given one: `ACL SETUSER keyrotd-agent >...`.
    """
    named = tuple(rings)
    keys = [f"{_literal(namespace)}:{{{_literal(ring)}}}" for ring in named]
    wakes = " ".join(f"&{_literal(channel(namespace, ring))}" for ring in named)
    agent = " ".join(f"%R~{key}:window %R~{key}:beat %RW~{key}:offers %W~{key}:reports" for key in keys)
    operator = " ".join(f"%R~{key}:* %W~{key}:requests" for key in keys)
    scheduler = " ".join(f"~{key}:*" for key in keys)
    # resetchannels first: Redis 7.0 may give new users all channels, and then refuses to add one.
    return tuple(
        f"ACL SETUSER keyrotd-{role} on resetkeys resetchannels -@all {granted} {wakes} {commands}"
        for role, granted, commands in (
            ("scheduler", scheduler, _SCHEDULER),
            ("agent", agent, _AGENT),
            ("operator", operator, _OPERATOR),
        )
    )


def _literal(text: str) -> str:
    # The patterns are globs.
    return "".join(f"\\{character}" if character in "*?[]\\^" else character for character in text)
