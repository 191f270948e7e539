import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.tls.target import Target, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:8443", Target("127.0.0.1", 8443)),
        ("edge-1.example.org", Target("edge-1.example.org", 443)),
        ("[::1]:443", Target("::1", 443)),
        ("[fe80::1%eth0]", Target("fe80::1%eth0", 443)),
        ("unix:/run/tls.sock", Target("/run/tls.sock", None)),
    ],
)
def test_every_form_of_address_is_understood(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "a:b",
        "a:0",
        "a:65536",
        "::1",
        "::1:443",
        "a b:1",
        "unix:x",
        "a/b",
        "[a]",
        "a..b",
        ".a",
        "*.a",
        "a" * 64 + ".b",
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r".{10}"):
        parse_target(text)


@pytest.mark.parametrize(
    ("target", "name"),
    [(Target("a.example", 1), "a.example"), (Target("::1", 1), "::1"), (Target("/run/s", None), "localhost")],
)
def test_a_server_is_asked_for_by_its_host(target: Target, name: str) -> None:
    assert target.server_name == name


@given(st.text(max_size=40))
def test_what_is_understood_is_written_the_same_way(text: str) -> None:
    try:
        target = parse_target(text)
    except ValueError:
        return

    assert parse_target(str(target)) == target
