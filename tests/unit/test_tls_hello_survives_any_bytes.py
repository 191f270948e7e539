import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.tls.hello import MAX_FRAGMENT, Malformed, offered_ticket

TICKET = bytes(range(200))


def sized(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + sized(2, data)


def psk(*identities: bytes) -> bytes:
    listed = b"".join(sized(2, identity) + bytes(4) for identity in identities)
    return extension(41, sized(2, listed) + sized(2, sized(1, bytes(32))))


def message(*extensions: bytes) -> bytes:
    fields = b"\x03\x03" + bytes(32) + sized(1, b"id") + sized(2, b"\x13\x01") + sized(1, b"\x00")
    return b"\x01" + sized(3, fields + (sized(2, b"".join(extensions)) if extensions else b""))


def flight(data: bytes, fragment: int = MAX_FRAGMENT) -> bytes:
    pieces = [data[at : at + fragment] for at in range(0, len(data), fragment)]
    return b"".join(b"\x16\x03\x01" + sized(2, piece) for piece in pieces)


def test_a_tls_12_ticket_is_found() -> None:
    assert offered_ticket(flight(message(extension(10, b"x"), extension(35, TICKET)))) == TICKET


def test_a_tls_13_identity_comes_before_a_tls_12_ticket() -> None:
    assert offered_ticket(flight(message(extension(35, b"old"), psk(TICKET, b"another")))) == TICKET


@pytest.mark.parametrize("extensions", [(), (extension(35, b""),), (extension(0, b"name"),)])
def test_a_hello_that_offers_nothing_is_no_fault(extensions: tuple[bytes, ...]) -> None:
    assert offered_ticket(flight(message(*extensions))) is None


def test_a_real_clients_first_hello_offers_nothing() -> None:
    sent = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), sent, server_hostname="example.org")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()

    assert offered_ticket(sent.read()) is None


@given(st.integers(min_value=1, max_value=300))
def test_records_may_cut_a_hello_anywhere(fragment: int) -> None:
    assert offered_ticket(flight(message(psk(TICKET)), fragment)) == TICKET


def test_a_ticket_longer_than_a_record_is_found() -> None:
    ticket = b"t" * (2 * MAX_FRAGMENT)

    assert offered_ticket(flight(message(extension(35, ticket)))) == ticket


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        flight(b"\x02" + message()[1:]),
        flight(message() + b"\x00"),
        flight(message(extension(35, TICKET), extension(35, TICKET))),
        flight(message(psk(b""))),
        flight(message(psk())),
        flight(message(extension(41, b"\xff\xff"))),
        b"\x17" + flight(message())[1:],
        b"\x16\x03\x01\x00\x00" + flight(message()),
        b"\x16\x03\x01" + sized(2, message(extension(35, b"t" * (MAX_FRAGMENT + 1)))),
    ],
)
def test_what_is_no_hello_is_malformed(wrong: bytes) -> None:
    with pytest.raises(Malformed):
        offered_ticket(wrong)


@given(st.data())
def test_a_hello_cut_short_is_malformed(data: st.DataObject) -> None:
    whole = flight(message(extension(35, TICKET), psk(TICKET)))

    with pytest.raises(Malformed):
        offered_ticket(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda body: flight(b"\x01" + sized(3, body))))
def test_any_bytes_are_a_ticket_or_none_or_malformed(data: bytes) -> None:
    with suppress(Malformed):
        offered_ticket(data)


@given(st.data())
def test_a_hello_with_one_byte_changed_raises_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(flight(message(extension(35, TICKET), psk(TICKET))))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    with suppress(Malformed):
        offered_ticket(bytes(whole))
