import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.tls.request import requested


def record(*messages: tuple[int, bytes], cut: int = 2**14) -> bytes:
    joined = b"".join(bytes([kind]) + len(body).to_bytes(3, "big") + body for kind, body in messages)
    pieces = [joined[at : at + cut] for at in range(0, len(joined), cut)]
    return b"".join(b"\x16\x03\x03" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


HELLO, CERTIFICATE, REQUEST, DONE = (2, b"h" * 70), (11, b"c" * 900), (13, b"r" * 30), (14, b"")


@pytest.mark.parametrize("cut", [1, 5, 100, 2**14])
def test_a_request_is_found_however_records_cut_it(cut: int) -> None:
    assert requested(record(HELLO, CERTIFICATE, REQUEST, DONE, cut=cut)) is True
    assert requested(record(HELLO, CERTIFICATE, DONE, cut=cut)) is False


def test_a_flight_that_ends_early_tells_nothing() -> None:
    alert = b"\x15\x03\x03\x00\x02\x02\x46"

    assert requested(b"") is None
    assert requested(alert) is None
    assert requested(record(HELLO, CERTIFICATE) + alert) is None
    assert requested(record(HELLO, CERTIFICATE)[:-20]) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(flight: bytes) -> None:
    assert requested(flight) in (True, False, None)
