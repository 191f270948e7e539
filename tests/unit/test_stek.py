"""One seed, everything else derived: the same for ever, another in every ring, and nothing secret in sight."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.core.errors import WeakSeed
from keyrotd.core.stek import Scheme, Secrets, Stek, refuse_weak
from tests.unit.builders import chance, stek

SEED = hashlib.sha256(b"keyrotd golden seed 1").digest()

#: Another implementation must come to these very bytes: a change here orphans every fleet that upgrades.
GOLDEN = {
    "name": "6d986907e3aa780190ef9c11569bd9b7",
    "aes256 aes": "d34a65f034e480d36771245fcea30a4c13379d8a329bd4400e12487b9ba1ca3f",
    "aes256 hmac": "332e90cdb2599523447959afce588306492bffe0c88437c2357e3dd4577aa891",
    "aes128 aes": "e06133a0126ef51115198cf0c563a20b",
    "aes128 hmac": "b8aefd402dcade59f433e12e0174658b",
    "go seed": "f4e3095451530a036d1dd81f39603d15caec75e145d38618194af012a5b58683",
}


def expand(purpose: str, length: int, *, ring: str = "edge") -> bytes:
    """HKDF-Expand for at most one block (RFC 5869 section 2.3), by hand."""
    info = b"keyrotd/1\x00" + ring.encode() + b"\x00" + purpose.encode()
    return hmac.new(SEED, info + b"\x01", hashlib.sha256).digest()[:length]


def test_name_and_secrets_are_the_golden_ones() -> None:
    key = Stek(SEED, "edge")

    assert key.name.hex() == GOLDEN["name"]
    for scheme in (Scheme.AES256, Scheme.AES128):
        aes, mac = (bytes.fromhex(GOLDEN[f"{scheme.value} {part}"]) for part in ("aes", "hmac"))
        assert key.secrets(scheme) == Secrets(key.name, aes, mac)
    assert key.secrets(Scheme.GO) == Secrets(key.name, bytes.fromhex(GOLDEN["go seed"]), b"")


@pytest.mark.parametrize(("purpose", "expected"), GOLDEN.items())
def test_the_golden_bytes_are_hkdf_by_hand(purpose: str, expected: str) -> None:
    assert expand(purpose, len(expected) // 2).hex() == expected


def test_a_key_that_strays_into_another_ring_is_worthless_there() -> None:
    here, there = Stek(SEED, "edge"), Stek(SEED, "edge2")

    assert here.name != there.name
    for scheme in Scheme:
        assert not {*here.secrets(scheme)[:2]} & {*there.secrets(scheme)[:2]}


def test_no_scheme_shares_a_secret_with_another() -> None:
    key = Stek(SEED, "edge")
    secrets = [part for scheme in Scheme for part in key.secrets(scheme)[1:] if part]

    assert len({part[:16] for part in (*secrets, key.name)}) == len(secrets) + 1


def test_no_text_of_a_key_shows_a_secret() -> None:
    key = Stek(SEED, "edge")
    for text in (repr(key), str(key), f"{key}", repr(key.secrets(Scheme.AES256)), str([key])):
        for secret in (SEED, *key.secrets(Scheme.AES256)[1:]):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
    assert key.name.hex() in repr(key)


@pytest.mark.parametrize("field", ["name", "aes", "hmac"])
def test_one_changed_bit_changes_the_fingerprint(field: str) -> None:
    secrets = stek(1).secrets(Scheme.AES256)
    before = getattr(secrets, field)

    changed = secrets._replace(**{field: bytes([before[0] ^ 1]) + before[1:]})

    assert changed.fingerprint != secrets.fingerprint


def test_a_fingerprint_tells_where_one_secret_ends_and_the_next_begins() -> None:
    assert Secrets(b"n", b"ab", b"c").fingerprint != Secrets(b"n", b"a", b"bc").fingerprint


@pytest.mark.parametrize(
    "seed",
    [
        b"",
        b"\x01" * 31,
        SEED + b"\x00",
        bytes(32),
        b"\xff" * 32,
        b"\xde\xad\xbe\xef" * 8,
        SEED[:16] * 2,
        bytes(range(32)),
        bytes(range(255, 223, -1)),
        bytes(range(0, 224, 7)),
        b"correct horse battery staple 1 2",
        hashlib.sha256(b"").hexdigest()[:32].encode(),
    ],
)
def test_a_seed_that_nobody_drew_is_refused(seed: bytes) -> None:
    with pytest.raises(WeakSeed) as refused:
        Stek(seed, "edge")

    assert not seed or seed.hex() not in str(refused.value)


@given(st.integers(min_value=0))
def test_a_drawn_seed_is_taken(number: int) -> None:
    refuse_weak(chance(number)(32))


def test_two_thousand_names_are_all_different() -> None:
    assert len({stek(number).name for number in range(2_000)}) == 2_000
