"""A file that store.url names and that is not there is no host that does not answer."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from keyrotd.store.addresses import Address
from keyrotd.store.wire import unavailable


@pytest.mark.parametrize(
    ("error", "asks_for_a_file"),
    [
        (FileNotFoundError(2, "No such file or directory", "/etc/keyrotd/secrets/store.password"), True),
        (PermissionError(13, "Permission denied", "/etc/keyrotd/secrets/store.password"), True),
        (RedisConnectionError("Error 2 connecting to 192.0.2.7:6379. No such file or directory."), True),
        (RedisConnectionError("Error 2 connecting to /run/valkey.sock. No such file or directory."), False),
        (RedisConnectionError("Error 111 connecting to 192.0.2.7:6379. Connection refused."), False),
        (OSError(113, "No route to host"), False),
    ],
)
def test_the_hint_says_which_of_both_it_is(error: Exception, *, asks_for_a_file: bool) -> None:
    hint = unavailable(Address(host="192.0.2.7", port=6379), "look", error, 1000).hint

    assert hint is not None
    assert ("names a file" in hint) is asks_for_a_file
    assert ("does it run" in hint) is not asks_for_a_file
