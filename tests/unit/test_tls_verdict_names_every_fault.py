import hmac
import random
import ssl
from typing import Any

import pytest

from keyrotd.core.messages import ProbeState
from keyrotd.core.stek import Scheme, Stek
from keyrotd.tls.handshake import Fault, Handshake, Version
from keyrotd.tls.probe import Matrix, Offer, Sighting
from keyrotd.tls.target import Target
from keyrotd.tls.verdict import Expected, findings

A, B = Target("a", 443), Target("b", 443)
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SEALED = b"n" * 16 + bytes(100)
NOTHING = Expected()


def seen(ticket: bytes | None, version: Version = Version.TLS12) -> Handshake:
    """A handshake whose ticket is given, not read from a session."""
    shake = Handshake(version=version, resumed=False, certificate="", took_ms=1, session=None, context=CONTEXT)
    vars(shake)["ticket"] = ticket
    return shake


def matrix(outcome: Any, *offers: Offer) -> Matrix:
    return Matrix((Sighting(A, Version.TLS12, seen(SEALED)), Sighting(B, Version.TLS12, outcome)), offers)


def offer(issuer: Target, taker: Target, state: ProbeState) -> Offer:
    return Offer(issuer, taker, Version.TLS12, state, "words")


def grave_words(shown: Matrix, expected: Expected = NOTHING) -> list[str]:
    return [finding.words for finding in findings(shown, expected) if finding.grave]


def test_nothing_is_said_where_all_resume() -> None:
    pairs = [offer(issuer, taker, ProbeState.RESUMED) for issuer in (A, B) for taker in (A, B)]

    assert findings(matrix(seen(SEALED), *pairs), NOTHING) == ()


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Fault(ProbeState.UNREACHABLE, "connection refused"), "b:443: connection refused"),
        (Fault(ProbeState.CERTIFICATE, "expired"), "b:443: expired"),
        (Fault(ProbeState.RESET, "closed"), "b:443, TLS 1.2: closed"),
        (Fault(ProbeState.RESET, "not spoken", unspoken=True), "b:443, TLS 1.2: not spoken"),
        (seen(None), "b:443, TLS 1.2: issues no tickets"),
        (seen(bytes(16) + bytes(range(100))), "b:443, TLS 1.2: seals with an all-zero key"),
    ],
)
def test_a_broken_target_is_named_once(outcome: Fault | Handshake, words: str) -> None:
    """Offers that its own fault explains add nothing."""
    state = outcome.state if isinstance(outcome, Fault) else ProbeState.NO_TICKETS

    shown = matrix(outcome, offer(A, B, state), offer(B, A, state), offer(B, B, state))

    assert grave_words(shown) == [words]


def test_session_numbers_are_a_note() -> None:
    (note,) = findings(matrix(seen(bytes(32))), NOTHING)

    assert (note.grave, note.words) == (False, "b:443, TLS 1.2: issues session numbers instead of sealed tickets")


def test_another_key_than_expected_is_grave() -> None:
    assert grave_words(matrix(seen(b"m" * 16 + bytes(100))), Expected(key_name=b"n" * 16)) == [
        f"b:443, TLS 1.2: seals under key {'6d' * 16}, expected {'6e' * 16}"
    ]


def test_one_taker_that_refuses_many_is_one_finding() -> None:
    shown = matrix(seen(SEALED), offer(A, B, ProbeState.REFUSED), offer(B, B, ProbeState.REFUSED))

    assert grave_words(shown) == ["b:443, TLS 1.2: refuses the tickets of a:443, b:443 (its own)"]


def test_a_target_that_fails_only_when_offered_a_ticket_is_named() -> None:
    shown = matrix(seen(SEALED), offer(A, B, ProbeState.RESET))

    assert grave_words(shown) == ["b:443, TLS 1.2: offered a ticket of a:443: words"]


def sealed_by(stek: Stek, name: bytes) -> bytes:
    """A ticket as RFC 5077 section 4 recommends it: name, IV, ciphertext, MAC."""
    body = name + bytes(range(16)) + bytes(range(64))
    return body + hmac.digest(stek.secrets(Scheme.AES256).hmac, body, "sha256")


def test_a_ticket_is_held_against_the_ring_s_very_keys() -> None:
    """The name is public and proves nothing; the MAC does."""
    current, following, stranger = (Stek(random.Random(n).randbytes(32), "edge") for n in range(3))
    ring = Expected(keys=(("current", current), ("next", following)))

    assert grave_words(matrix(seen(sealed_by(current, current.name))), ring) == [
        f"a:443, TLS 1.2: seals under key {SEALED[:16].hex()}, which is not in the ring's window"
    ]
    assert grave_words(matrix(seen(sealed_by(following, following.name))), ring)[1:] == [
        "b:443, TLS 1.2: seals with the ring's next key instead of current"
    ]
    assert grave_words(matrix(seen(sealed_by(stranger, current.name))), ring)[1:] == [
        "b:443, TLS 1.2: the ticket bears the name of the ring's current key, another key sealed it"
    ]
