from pathlib import Path

import pytest

from keyrotd.core.errors import ConfigError
from keyrotd.store.addresses import Address, parse

RUN = Path("/run/keyrotd")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://store", Address(host="store", port=6379)),
        ("redis://store:6380/3", Address(host="store", port=6380, db=3)),
        ("redis://[::1]:6380", Address(host="::1", port=6380)),
        ("redis://edge:p%40ss%2Fword@store", Address(host="store", port=6379, username="edge", password="p@ss/word")),
        ("redis://:secret@store", Address(host="store", port=6379, password="secret")),
        (
            "redis://edge@store?password_file=/etc/keyrotd/store-password",
            Address(host="store", port=6379, username="edge", password_file="/etc/keyrotd/store-password"),
        ),
        (
            "rediss://store/?ca_file=/ca.pem&cert_file=/c.pem&key_file=/k.pem",
            Address(host="store", port=6379, tls=True, ca_file="/ca.pem", cert_file="/c.pem", key_file="/k.pem"),
        ),
        ("unix:///run/redis.sock", Address(path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", Address(path="/run/redis.sock", db=2)),
        ("unix://edge:secret@/run/redis.sock", Address(path="/run/redis.sock", username="edge", password="secret")),
        ("embedded:", Address(path="/run/keyrotd/store.sock")),
    ],
)
def test_a_url_is_an_address(url: str, address: Address) -> None:
    assert parse(url, runtime_dir=RUN) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store:6379",
        "http://store",
        "REDIS//store",
        "redis://",
        "redis://:secret@",
        "redis://:secret@store:port",
        "redis://:secret@store:99999",
        "redis://:secret/word@store",
        "redis://:secret?word@store",
        "redis://:secret#word@store",
        "redis://:secret@[store",
        "redis://:secret@store/one",
        "redis://:secret@store/-1",
        "redis://:secret@store/0/1",
        "redis://:secret@store?ca_file=/ca.pem",
        "redis://:secret@store?password_file=/secret",
        "redis://store?password_file=",
        "redis://store?password_file=/a&password_file=/b",
        "rediss://store?ssl_cert_reqs=none",
        "unix://run/redis.sock",
        "unix:redis.sock",
        "unix://",
        "unix:///run/redis.sock?db=x",
        "unix:///" + "x" * 107,
        "embedded:/elsewhere",
        "embedded://",
    ],
)
def test_what_is_no_store_url_is_refused_with_a_hint_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(url, runtime_dir=RUN)

    ((fault, hint),) = refusal.value.faults
    assert fault.startswith("store.url: ")
    assert hint
    assert "secret" not in f"{fault} {hint}"
    assert "word@" not in fault


@pytest.mark.parametrize("url", ["redis+sentinel://h1,h2:26379/primary", "redis+cluster://h1,h2"])
def test_sentinel_and_cluster_are_refused_with_what_to_do_instead(url: str) -> None:
    with pytest.raises(ConfigError, match="not supported yet") as refusal:
        parse(url, runtime_dir=RUN)

    assert "primary" in str(refusal.value.faults[0][1])


def test_an_embedded_socket_too_long_for_the_system_is_refused() -> None:
    with pytest.raises(ConfigError, match="the system takes 107"):
        parse("embedded:", runtime_dir=Path("/" + "r" * 120))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://edge:secret@store", "redis://store:6379/0"),
        ("rediss://edge:secret@[::1]:1/2", "rediss://[::1]:1/2"),
        ("unix://edge:secret@/run/redis.sock", "unix:///run/redis.sock"),
        ("unix://edge:secret@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
    ],
)
def test_an_address_shows_no_credentials(url: str, words: str) -> None:
    address = parse(url, runtime_dir=RUN)

    assert str(address) == words
    assert "secret" not in repr(address)
