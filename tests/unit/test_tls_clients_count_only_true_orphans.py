import random
import ssl

from hypothesis import given
from hypothesis import strategies as st

from keyrotd.core.messages import ProbeState
from keyrotd.testing.clients import Clients, Held, Orphan, Tally, Tickets
from keyrotd.tls.handshake import Fault, Handshake, Trust, Version
from keyrotd.tls.target import Target

A, B = Target("a", 443), Target("b", 443)
LIFETIME_MS = 1000
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def shake(*, resumed: bool) -> Handshake:
    return Handshake(version=Version.TLS12, resumed=resumed, certificate="", took_ms=1, session=None, context=CONTEXT)


def held(issued_at: int) -> Held:
    return Held(shake(resumed=False), A, issued_at)


def clients(now_at: int) -> Clients:
    return Clients([A, B], LIFETIME_MS, Trust(insecure=True), None, lambda: now_at, random.Random(1))


def test_a_young_ticket_that_met_a_full_handshake_is_an_orphan() -> None:
    crowd = clients(now_at=5999)

    crowd._record(shake(resumed=False), held(5000), B, began_at=5998)

    assert crowd.tally == Tally(orphans=1)
    assert crowd.orphans == [Orphan(None, Version.TLS12, A, B, age_ms=999, seen_at=5999)]
    assert crowd.tally.resumption_ratio == 0


def test_a_ticket_overtaken_by_its_lifetime_on_the_way_is_no_orphan() -> None:
    """It was young when it was offered, and T had passed when the answer came."""
    crowd = clients(now_at=6000)

    crowd._record(shake(resumed=False), held(5000), B, began_at=5998)

    assert crowd.tally == Tally(expired=1)
    assert crowd.orphans == []


def test_a_failed_connection_is_no_refusal() -> None:
    crowd, reset = clients(now_at=5500), Fault(ProbeState.RESET, "closed")

    crowd._record(reset, held(5000), B, began_at=5498)

    assert crowd.tally == Tally(failed=1)
    assert crowd.stories == [(B, reset)]


def test_first_visits_and_returns_are_told_apart() -> None:
    crowd = clients(now_at=5500)

    crowd._record(shake(resumed=False), None, B, began_at=5498)
    crowd._record(shake(resumed=True), held(5000), B, began_at=5498)

    assert crowd.tally == Tally(full=1, resumed=1)
    assert crowd.tally.handshakes == 2
    assert crowd.tally.resumption_ratio == 1


@given(st.lists(st.integers(0, 3000)), st.integers(0, 4000), st.integers(1, 2000))
def test_only_tickets_younger_than_their_lifetime_are_drawn(issued: list[int], now_at: int, lifetime_ms: int) -> None:
    tickets = Tickets(lifetime_ms, random.Random(0))
    for at in issued:
        tickets.hold(held(at))

    drawn = tickets.draw(now_at)

    young = [at for at in issued if now_at - at < lifetime_ms]
    assert (drawn is None) == (not young)
    assert drawn is None or drawn.issued_at in young


def test_old_tickets_are_drawn_as_often_as_new_ones() -> None:
    """A thousand fresh tickets do not hide the few old ones."""
    tickets = Tickets(LIFETIME_MS, random.Random(0))
    tickets.hold(held(1))
    for _ in range(1000):
        tickets.hold(held(999))

    drawn = [tickets.draw(1000) for _ in range(400)]

    old = sum(one is not None and one.issued_at == 1 for one in drawn)
    assert 150 < old < 250


def test_a_crowd_of_any_size_holds_a_bounded_number_of_tickets() -> None:
    tickets = Tickets(LIFETIME_MS, random.Random(0))

    for at in range(20_000):
        tickets.hold(held(at % LIFETIME_MS))

    assert sum(map(len, tickets._ages.values())) <= 70 * 16
