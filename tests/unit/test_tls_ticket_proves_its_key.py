import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.core.stek import Scheme, Secrets, Stek
from keyrotd.tls.ticket import key_name, opens_ticket, sealed, sealed_by_zeros

STEK = Stek(hashlib.sha256(b"a seed for tests").digest(), "edge")
OTHER = Stek(hashlib.sha256(b"another seed").digest(), "edge")
OPENSSL_SCHEMES = (Scheme.AES256, Scheme.AES128)


def ticket_of(name: bytes, mac_key: bytes) -> bytes:
    body = name + b"i" * 16 + b"s" * 96
    return body + hmac.digest(mac_key, body, "sha256")


@pytest.mark.parametrize("scheme", OPENSSL_SCHEMES)
def test_the_key_that_sealed_opens(scheme: Scheme) -> None:
    secrets = STEK.secrets(scheme)

    assert opens_ticket(ticket_of(secrets.name, secrets.hmac), secrets, scheme)


@pytest.mark.parametrize("scheme", OPENSSL_SCHEMES)
def test_the_right_name_over_a_wrong_key_does_not_open(scheme: Scheme) -> None:
    forged = ticket_of(STEK.name, OTHER.secrets(scheme).hmac)

    assert key_name(forged) == STEK.name
    assert not opens_ticket(forged, STEK.secrets(scheme), scheme)


@pytest.mark.parametrize("scheme", OPENSSL_SCHEMES)
def test_the_right_key_under_a_wrong_name_does_not_open(scheme: Scheme) -> None:
    secrets = STEK.secrets(scheme)

    assert not opens_ticket(ticket_of(OTHER.name, secrets.hmac), secrets, scheme)


def test_gos_key_is_known_by_its_mac_alone() -> None:
    """Go hashes its seed and shows no name."""
    secrets = STEK.secrets(Scheme.GO)
    ticket = ticket_of(b"an iv, no name..", hashlib.sha512(secrets.aes).digest()[32:48])

    assert opens_ticket(ticket, secrets, Scheme.GO)
    assert not opens_ticket(ticket, OTHER.secrets(Scheme.GO), Scheme.GO)


def test_a_session_number_has_no_key_name_and_does_not_open() -> None:
    number = STEK.name + bytes(16)

    assert not sealed(number)
    assert key_name(number) is None
    assert not opens_ticket(number, STEK.secrets(Scheme.AES256), Scheme.AES256)


@pytest.mark.parametrize("zeros", [ticket_of(b"n" * 16, bytes(32)), ticket_of(bytes(16), b"m" * 32)])
def test_an_all_zero_key_is_recognised(zeros: bytes) -> None:
    assert sealed_by_zeros(zeros)


def test_an_honest_key_is_not_taken_for_zeros() -> None:
    secrets = STEK.secrets(Scheme.AES256)

    assert not sealed_by_zeros(ticket_of(secrets.name, secrets.hmac))


def test_a_zero_key_opens_no_honest_ticket() -> None:
    secrets = STEK.secrets(Scheme.AES256)

    assert not opens_ticket(
        ticket_of(secrets.name, secrets.hmac), Secrets(secrets.name, bytes(32), bytes(32)), Scheme.AES256
    )


@given(st.binary(max_size=200), st.sampled_from(Scheme))
def test_no_bytes_open_by_luck(ticket: bytes, scheme: Scheme) -> None:
    assert not opens_ticket(ticket, STEK.secrets(scheme), scheme)


@given(st.integers(0, 159), st.integers(1, 255))
def test_one_changed_byte_closes_a_ticket(at: int, change: int) -> None:
    secrets = STEK.secrets(Scheme.AES256)
    ticket = bytearray(ticket_of(secrets.name, secrets.hmac))
    ticket[at] ^= change

    assert not opens_ticket(bytes(ticket), secrets, Scheme.AES256)
