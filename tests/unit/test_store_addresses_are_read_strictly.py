from pathlib import Path
from typing import Any

import pytest

from keyrotd.core.errors import ConfigError
from keyrotd.store.addresses import Address, Cluster, Sentinels, parse

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
        (
            "redis+sentinel://h1,[::1]:26380/primary",
            Address(
                through=Sentinels((Address(host="h1", port=26379), Address(host="::1", port=26380)), "primary"),
            ),
        ),
        (
            "rediss+sentinel://edge:p%2Css@h1/eu.store-1?db=2&ca_file=/ca.pem"
            "&sentinel_username=watch&sentinel_password_file=/s",
            Address(
                through=Sentinels(
                    (
                        Address(
                            host="h1", port=26379, tls=True, ca_file="/ca.pem", username="watch", password_file="/s"
                        ),
                    ),
                    "eu.store-1",
                ),
                username="edge",
                password="p,ss",
                db=2,
                tls=True,
                ca_file="/ca.pem",
            ),
        ),
        ("redis+cluster://h1,h2:7000", Address(through=Cluster((("h1", 6379), ("h2", 7000))))),
        (
            "rediss+cluster://edge@[::1]:1,[::2]:2/?password_file=/p&cert_file=/c.pem&key_file=/k.pem",
            Address(
                through=Cluster((("::1", 1), ("::2", 2))),
                username="edge",
                password_file="/p",
                tls=True,
                cert_file="/c.pem",
                key_file="/k.pem",
            ),
        ),
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
        "redis://h1,h2",
        "redis+sentinel://h1,h2",
        "redis+sentinel://h1,h2/",
        "redis+sentinel://h1/a/b",
        "redis+sentinel://h1/na me",
        "redis+sentinel://h1,,h2/primary",
        "redis+sentinel:///primary",
        "redis+sentinel:h1/primary",
        "redis+sentinel://:secret/word@h1/primary",
        "redis+sentinel://:secret@h1:port,h2/primary",
        "redis+sentinel://:secret@h1,[::1/primary",
        "redis+sentinel://h1@h2,:secret@h3/primary",
        "redis+sentinel://h1/primary?ca_file=/ca.pem",
        "redis+sentinel://h1/primary?db=x",
        "redis+sentinel://" + ",".join(["h"] * 17) + "/primary",
        "redis+cluster://",
        "redis+cluster://h1,h2/0",
        "redis+cluster://:secret@h1,h2?db=1",
        "redis+cluster://:secret?word@h1,h2",
        "redis+unix://h1",
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


@pytest.mark.parametrize("where", [{}, {"host": "h", "path": "/p"}, {"host": "h", "through": Cluster((("h", 1),))}])
def test_an_address_is_one_place(where: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a host, a path or the way to one"):
        Address(**where)


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
        ("redis+sentinel://:secret@h1,[::1]/name?db=1", "redis+sentinel://h1:26379,[::1]:26379/name?db=1"),
        ("rediss+cluster://edge:secret@h1,h2:1/", "rediss+cluster://h1:6379,h2:1"),
    ],
)
def test_an_address_shows_no_credentials(url: str, words: str) -> None:
    address = parse(url, runtime_dir=RUN)

    assert str(address) == words
    assert "secret" not in repr(address)
