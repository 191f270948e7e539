"""What each role may do in the store, as `ACL SETUSER` lines that Redis 7.0 and Valkey load. No password is here."""

from collections.abc import Iterable

from keyrotd.store.redis import channel

# What redis-py needs to log in, how a cluster is told that we come from another node, and what everybody reads with.
_COMMON = (
    "+ping +hello +auth +client|setname +asking +getrange +hget +hstrlen +hlen +memory|usage +hkeys +hset "
    "+subscribe +unsubscribe"
)
# What the scripts that only read do.
_SCRIPTS = "+evalsha_ro +eval_ro +type +get +strlen +hrandfield +pttl"

# No script, which may be without end, no deletion of what other nodes said, and nothing that answers at any length.
_AGENT = _COMMON
_OPERATOR = f"{_COMMON} {_SCRIPTS} +lrange +publish +info"
_SCHEDULER = (
    f"{_COMMON} {_SCRIPTS} +lrange +publish +info "
    "+hdel +evalsha +eval +set +del +unlink +pexpire +persist +time +lindex +lpush +ltrim +wait"
)


def lines(namespace: str, rings: Iterable[str], *, db: int = 0) -> tuple[str, ...]:
    """
    One user for each role, over all of `rings`. Run again they change rights only: a user's passwords stay.

    None may turn to a database other than `db`, where nobody would ever look for what is put there.

    A new user cannot log in before it is given one: `ACL SETUSER keyrotd-agent >...`.
    """
    named = tuple(rings)
    keys = [f"{_literal(namespace)}:{{{_literal(ring)}}}" for ring in named]
    wakes = " ".join(f"&{_literal(channel(namespace, ring))}" for ring in named)
    agent = " ".join(f"%R~{key}:window %R~{key}:beat %R~{key}:peers %RW~{key}:offers %W~{key}:reports" for key in keys)
    operator = " ".join(f"%R~{key}:* %W~{key}:requests" for key in keys)
    scheduler = " ".join(f"~{key}:*" for key in keys)
    elsewhere = f" +select|{db}" if db else ""
    # resetchannels first: Redis 7.0 may give new users all channels, and then refuses to add one.
    return tuple(
        f"ACL SETUSER keyrotd-{role} on resetkeys resetchannels -@all {granted} {wakes} {commands}{elsewhere}"
        for role, granted, commands in (
            ("scheduler", scheduler, _SCHEDULER),
            ("agent", agent, _AGENT),
            ("operator", operator, _OPERATOR),
        )
    )


def _literal(text: str) -> str:
    # The patterns are globs.
    return "".join(f"\\{character}" if character in "*?[]\\^" else character for character in text)
