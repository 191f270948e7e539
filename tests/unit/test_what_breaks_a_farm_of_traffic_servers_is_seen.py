"""What makes a Traffic Server resume nobody's tickets, or its own only, stands in its own files: each case is found."""

from datetime import UTC, datetime

import pytest

from keyrotd.cli.farm import Breaker, Context, Files, breakers, context, records
from keyrotd.testing.certificates import new_authority

RECORDS = "CONFIG proxy.config.http.server_ports STRING 443:ssl\n"
CERTIFICATES = "dest_ip=* ssl_cert_name=site.pem\nssl_cert_name=other.pem\n"

_KEY_FILE = "proxy.config.ssl.server.ticket_key.filename"
_TICKETS = "proxy.config.ssl.server.session_ticket"


@pytest.mark.parametrize(
    ("said", "words", "certain"),
    [
        (f"CONFIG {_KEY_FILE} STRING /etc/ticket.key\n", f"{_KEY_FILE} is set", True),
        (f"LOCAL {_KEY_FILE} STRING ticket.key\n", f"{_KEY_FILE} is set", True),
        (f"CONFIG {_TICKETS}.enable INT 0\n", f"{_TICKETS}.enable is 0", True),
        (f"CONFIG {_TICKETS}.number INT 0\n", f"{_TICKETS}.number is 0", True),
        ("CONFIG proxy.config.ssl.server.max_early_data INT 16384\n", "can be replayed", False),
        ("records:\n  ssl:\n    server:\n      ticket_key:\n        filename: /etc/ticket.key\n", "is set", True),
        ("records:\n  ssl:\n    server:\n      session_ticket:\n        enable: 0  # no\n", "enable is 0", True),
        ("ts:\n  ssl:\n    server.session_ticket.number: !<int> 0\n", "number is 0", True),
    ],
)
def test_a_record_that_breaks_a_farm_is_found(said: str, words: str, certain: bool) -> None:  # noqa: FBT001
    (found,) = breakers(Files(records=said, certificates=CERTIFICATES))

    assert words in found.words
    assert found.certain is certain


@pytest.mark.parametrize(
    "said",
    [
        RECORDS,
        f"CONFIG {_KEY_FILE} STRING NULL\n",
        f"# CONFIG {_KEY_FILE} STRING /etc/ticket.key\n",
        f"CONFIG {_TICKETS}.enable INT 0\nCONFIG {_TICKETS}.enable INT 1\n",
        "records:\n  ssl:\n    server:\n      ticket_key:\n        filename: ~\n",
        "records:\n  ssl:\n    server:\n      session_ticket:\n        enable: 1\n",
        "records:\n  http:\n    server:\n      session_ticket:\n        enable: 0\n",
        "CONFIG\nCONFIG proxy.config.x\nnonsense\n",
    ],
)
def test_records_that_break_nothing_are_not_complained_of(said: str) -> None:
    assert breakers(Files(records=said, certificates=CERTIFICATES)) == ()


@pytest.mark.parametrize(
    ("said", "words", "certain"),
    [
        ("dest_ip=192.0.2.1 ssl_cert_name=a.pem\n", "a.pem: dest_ip is 192.0.2.1", False),
        ("ssl_cert_name=a.pem dest_ip=[2001:db8::1]:443\n", "a.pem: dest_ip is [2001:db8::1]:443", False),
        ("dest_ip=* ssl_cert_name=a.pem ssl_ticket_enabled=0\n", "a.pem: ssl_ticket_enabled is 0", True),
        ('dest_ip=* ssl_cert_name="a.pem" ssl_ticket_number=0\n', "a.pem: ssl_ticket_number is 0", True),
        (
            "dest_ip=* ssl_cert_name=a.pem\ndest_ip=* ssl_cert_name=b.pem\n",
            "2 lines with dest_ip=*: a.pem, b.pem",
            False,
        ),
        ('ssl_multicert:\n  - dest_ip: "192.0.2.1"\n    ssl_cert_name: a.pem\n', "a.pem: dest_ip is 192.0.2.1", False),
        ("ssl_multicert:\n- ssl_cert_name: a.pem\n  ssl_ticket_enabled: 0\n", "a.pem: ssl_ticket_enabled is 0", True),
    ],
)
def test_a_certificates_line_that_breaks_a_farm_is_found(said: str, words: str, certain: bool) -> None:  # noqa: FBT001
    (found,) = breakers(Files(records=RECORDS, certificates=said))

    assert words in found.words
    assert found.certain is certain


@pytest.mark.parametrize(
    "said",
    [
        CERTIFICATES,
        "# dest_ip=192.0.2.1 ssl_cert_name=a.pem\n",
        "ssl_multicert:\n  - ssl_cert_name: a.pem\n    dest_ip: '*'\n  - ssl_cert_name: b.pem\n",
        "",
    ],
)
def test_certificates_for_any_address_are_not_complained_of(said: str) -> None:
    assert breakers(Files(records=RECORDS, certificates=said)) == ()


def test_files_that_are_not_there_are_told_and_condemn_nothing() -> None:
    found = breakers(Files(records=None, certificates=None))

    assert [breaker.certain for breaker in found] == [False, False]


def test_what_is_certain_comes_first() -> None:
    said = f"CONFIG proxy.config.ssl.server.max_early_data INT 1\nCONFIG {_TICKETS}.enable INT 0\n"

    assert [breaker.certain for breaker in breakers(Files(records=said, certificates=CERTIFICATES))] == [True, False]


def test_both_ways_to_write_records_are_read_alike() -> None:
    flat = (
        "CONFIG proxy.config.ssl.CA.cert.filename STRING ca.pem\nCONFIG proxy.config.http.server_ports STRING 1 2:ssl\n"
    )
    nested = (
        'records:\n  ssl:\n    CA:\n      cert:\n        filename: ca.pem\n\n  http:\n    server_ports: "1 2:ssl"\n'
    )

    assert records(flat) == records(nested)


def test_nodes_whose_default_certificates_have_other_names_differ() -> None:
    here, there = (Files(records=RECORDS, certificates=f"dest_ip=* ssl_cert_name={name}\n") for name in ("a", "b"))

    assert context(here) == Context("a", ())
    assert context(here) != context(there)


def test_nodes_that_list_their_cas_in_another_order_differ() -> None:
    said = "CONFIG proxy.config.ssl.CA.cert.filename STRING ca.pem\n"
    one, other = (new_authority(datetime.now(UTC)) for _ in range(2))
    leaf = one.issue("leaf.test").partition(b"-----BEGIN PRIVATE KEY")[0]

    here = context(Files(records=said, certificates=CERTIFICATES, authorities=other.pem + leaf))
    there = context(Files(records=said, certificates=CERTIFICATES, authorities=leaf + other.pem))

    assert here != there
    assert str(here).endswith("CAs of clients: CN=keyrotd test CA, then CN=leaf.test")


def test_cas_that_cannot_be_read_are_told() -> None:
    said = "CONFIG proxy.config.ssl.CA.cert.filename STRING ca.pem\n"

    for unread in (None, b"no PEM"):
        assert context(Files(records=said, certificates=CERTIFICATES, authorities=unread)).authorities is None


def test_a_breaker_says_what_to_do() -> None:
    for breaker in breakers(Files(records=f"CONFIG {_TICKETS}.enable INT 0\n", certificates=None)):
        assert isinstance(breaker, Breaker)
        assert breaker.hint
