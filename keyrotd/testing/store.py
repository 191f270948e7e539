"""
The contract of a store, for every adapter: `check_store(make)`, or one test for each of CLAIMS.

`make(ring)` gives a new Store value on one and the same empty server each time it is called within a claim.
"""

# ruff: noqa: PLR2004, PT017 - claims are full of literal expectations, and need no pytest where they run
import time
from collections.abc import Callable
from typing import Final

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store import limits
from keyrotd.store.port import Desk, Fenced, Look, Moved, Poll, Published, Store

Make = Callable[[str], Store]
Claim = Callable[[Make], None]

_PATIENCE_S = 20.0
_TTL_MS = 60_000


def check_store(make_server: Callable[[], Make]) -> None:
    """Run every claim, each on an empty server."""
    for claim in CLAIMS:
        claim(make_server())


def an_empty_store_answers_nothing(make: Make) -> None:
    store = make("edge")

    assert store.look() == Look(digest="", window=None, beat=None, leader="", lease_ms=0, fence=0)
    assert store.window() is None
    assert store.reports() == {}
    assert store.offers(["d1"]) == {}
    assert store.history(limit=10) == ()
    store.forget(nodes=["edge-1"])
    store.withdraw(digests=["d1"])
    store.settle(ids=["r1"])
    store.settle(ids=[])
    store.release(holder="a")
    store.wake()


def the_first_to_ask_leads(make: Make) -> None:
    desk = _lead(make("edge"), "a")

    assert (desk.fence, desk.leader, desk.digest, desk.window, desk.beat) == (1, "a", "", None, None)
    assert 0 < desk.lease_ms <= _TTL_MS


def a_holder_that_renews_keeps_its_fence(make: Make) -> None:
    store = make("edge")

    assert [_lead(store, "a").fence for _ in range(3)] == [1, 1, 1]


def another_stands_by_and_reads_the_desk(make: Make) -> None:
    _publish(make("edge"), "d1")
    standby = make("edge")

    desk = _lead(standby, "b")

    assert (desk.fence, desk.leader, desk.digest, desk.window) == (None, "a", "d1", b"window d1")
    assert desk.lease_ms > 0


def a_lease_runs_out(make: Make) -> None:
    first, second = make("edge"), make("edge")
    first.lead(holder="a", ttl_ms=50, fence_above=0, known_digest="")

    desk = _until_led(second, "b")

    assert (desk.fence, desk.leader) == (2, "b")
    assert _lead(first, "a").fence is None


def a_lease_that_ran_out_is_not_renewed_but_taken_anew(make: Make) -> None:
    first, second = make("edge"), make("edge")
    first.lead(holder="a", ttl_ms=50, fence_above=0, known_digest="")
    _until_led(second, "b")
    second.release(holder="b")

    assert _lead(first, "a").fence == 3


def a_released_lease_is_free_at_once(make: Make) -> None:
    first, second = make("edge"), make("edge")
    _lead(first, "a")

    second.release(holder="b")
    assert _lead(second, "b").fence is None
    first.release(holder="a")

    assert _lead(second, "b").fence == 2


def a_new_fence_is_above_what_the_caller_remembers(make: Make) -> None:
    store = make("edge")

    assert store.lead(holder="a", ttl_ms=_TTL_MS, fence_above=41, known_digest="").fence == 42


def a_holder_whose_store_went_back_gets_a_new_fence(make: Make) -> None:
    store = make("edge")
    _lead(store, "a")

    assert store.lead(holder="a", ttl_ms=_TTL_MS, fence_above=7, known_digest="").fence == 8


def a_holder_that_remembers_its_own_fence_keeps_it(make: Make) -> None:
    store = make("edge")
    _lead(store, "a")

    assert store.lead(holder="a", ttl_ms=_TTL_MS, fence_above=1, known_digest="").fence == 1


def a_lease_has_bounds(make: Make) -> None:
    for ttl_ms in (0, -1, limits.LEASE_MS + 1):
        try:
            make("edge").lead(holder="a", ttl_ms=ttl_ms, fence_above=0, known_digest="")
        except ValueError:
            continue
        raise AssertionError(f"a lease of {ttl_ms} ms")


def a_window_is_published_over_nothing_and_over_its_parent(make: Make) -> None:
    store = make("edge")
    _lead(store, "a")

    first = store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")
    second = store.publish(window=b"two", digest="d2", epoch=2, fence=1, parent="d1")

    assert (first, second) == (Published(), Published())
    assert store.window() == ("d2", b"two")


def a_publish_over_another_window_is_refused_and_writes_nothing(make: Make) -> None:
    store = make("edge")
    _publish(store, "d1")

    assert store.publish(window=b"two", digest="d2", epoch=2, fence=1, parent="d0") == Moved("d1")
    assert store.publish(window=b"two", digest="d2", epoch=2, fence=1, parent="") == Moved("d1")
    assert store.window() == ("d1", b"window d1")


def a_publish_over_a_window_that_is_gone_says_so(make: Make) -> None:
    store = make("edge")
    _lead(store, "a")

    assert store.publish(window=b"two", digest="d2", epoch=2, fence=1, parent="d1") == Moved("")
    assert store.window() is None


def a_scheduler_that_was_overtaken_publishes_nothing(make: Make) -> None:
    first, second = make("edge"), make("edge")
    _lead(first, "a")
    first.release(holder="a")
    _lead(second, "b")

    assert first.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="") == Fenced(2)
    assert first.publish(window=b"one", digest="d1", epoch=1, fence=3, parent="") == Fenced(2)
    assert first.window() is None


def a_publish_asked_twice_is_published_once(make: Make) -> None:
    first, second = make("edge"), make("edge")
    _publish(first, "d1")
    assert first.publish(window=b"window d1", digest="d1", epoch=1, fence=1, parent="") == Published()
    first.release(holder="a")
    _lead(second, "b")

    assert first.publish(window=b"window d1", digest="d1", epoch=1, fence=1, parent="") == Published()


def a_fence_lost_by_the_counter_is_found_beside_the_window(make: Make) -> None:
    store = make("edge")
    store.lead(holder="a", ttl_ms=_TTL_MS, fence_above=8, known_digest="")
    assert store.publish(window=b"one", digest="d1", epoch=1, fence=9, parent="") == Published()
    store.release(holder="a")

    assert _lead(store, "b").fence == 10


def a_publish_drops_the_offer_of_that_window_and_no_other(make: Make) -> None:
    store = make("edge")
    _lead(store, "a")
    store.offer(digest="d1", window=b"one")
    store.offer(digest="d2", window=b"two")

    store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")

    assert _lead(store, "a").offers == ("d2",)


def a_beat_is_the_newest_leaders(make: Make) -> None:
    first, second = make("edge"), make("edge")
    _lead(first, "a")
    assert first.beat(beat=b"first", fence=1)
    first.release(holder="a")
    _lead(second, "b")

    assert not first.beat(beat=b"late", fence=1)
    assert first.look().beat == b"first"
    assert second.beat(beat=b"second", fence=2)
    assert _lead(second, "b").beat == b"second"


def a_beat_without_any_leader_is_refused(make: Make) -> None:
    assert not make("edge").beat(beat=b"beat", fence=1)


def a_beat_without_a_lease_is_refused(make: Make) -> None:
    store = make("edge")
    store.lead(holder="a", ttl_ms=50, fence_above=0, known_digest="")

    deadline = time.monotonic() + _PATIENCE_S
    while store.beat(beat=b"first", fence=1):
        assert time.monotonic() < deadline, "beats go on for ever"

    _lead(store, "a")
    assert store.beat(beat=b"second", fence=2)
    store.release(holder="a")
    assert not store.beat(beat=b"third", fence=2)
    assert store.look().beat == b"second"


def a_poll_hands_in_the_report_and_reads(make: Make) -> None:
    store = make("edge")
    _publish(store, "d1")
    store.beat(beat=b"beat", fence=1)
    store.offer(digest="d0", window=b"zero")

    poll = store.poll(known_digest="", node="edge-1", report=b"report")

    assert poll == Poll(beat=b"beat", digest="d1", window=b"window d1", offers=("d0",))
    assert store.reports() == {"edge-1": b"report"}


def a_known_window_is_not_read_again(make: Make) -> None:
    store = make("edge")
    _publish(store, "d1")

    poll = store.poll(known_digest="d1", node="edge-1", report=b"report")
    desk = store.lead(holder="a", ttl_ms=_TTL_MS, fence_above=0, known_digest="d1")

    assert (poll.digest, poll.window) == ("d1", None)
    assert (desk.digest, desk.window) == ("d1", None)


def every_byte_is_carried(make: Make) -> None:
    store = make("edge")
    every = bytes(range(256)) * 4
    _lead(store, "a")

    store.publish(window=every, digest="d1", epoch=1, fence=1, parent="")
    store.beat(beat=every, fence=1)
    store.report(node="edge 1", report=every)
    store.offer(digest="d2", window=every)
    store.request(id="r1", request=every)
    store.record(event=every)

    desk = _lead(store, "a")
    assert (desk.window, desk.beat, desk.requests) == (every, every, {"r1": every})
    assert (store.reports(), store.offers(["d2"])) == ({"edge 1": every}, {"d2": every})
    assert store.history(limit=1) == (every,)


def a_node_has_one_report_until_it_is_forgotten(make: Make) -> None:
    store = make("edge")
    store.report(node="edge-1", report=b"old")
    store.report(node="edge-1", report=b"new")
    store.report(node="edge-2", report=b"other")
    assert store.reports() == {"edge-1": b"new", "edge-2": b"other"}
    assert _lead(store, "a").report_count == 2

    store.forget(nodes=["edge-1"])

    assert store.reports() == {"edge-2": b"other"}


def an_offer_is_read_by_digest_until_withdrawn(make: Make) -> None:
    store = make("edge")
    store.offer(digest="d1", window=b"one")
    store.offer(digest="d2", window=b"two")
    assert store.offers(["d2", "d1", "d0"]) == {"d1": b"one", "d2": b"two"}
    assert store.offers([]) == {}

    store.withdraw(digests=["d1"])

    assert store.offers(["d1", "d2"]) == {"d2": b"two"}


def the_last_list_of_peers_is_the_one_that_is_read(make: Make) -> None:
    store = make("edge")
    assert store.peers() is None

    store.name_peers(peers=b"one")
    store.name_peers(peers=b"two")

    assert (make("edge").peers(), make("core").peers()) == (b"two", None)


def too_many_offers_are_told_to_no_node_until_they_are_pruned(make: Make) -> None:
    store = make("edge")
    for number in range(limits.OFFERS + 10):
        store.offer(digest=f"d{number:03}", window=b"window")
    desk = _lead(store, "a")
    assert (len(desk.offers), desk.offer_count) == (limits.OFFERS, limits.OFFERS + 10)
    assert store.poll(known_digest="", node="edge-1", report=b"report").offers == ()

    store.prune_offers(keep=[*desk.offers, "d9"])

    assert store.poll(known_digest="", node="edge-1", report=b"report").offers == desk.offers
    assert store.offers(desk.offers) == dict.fromkeys(desk.offers, b"window")
    store.prune_offers(keep=[])
    assert _lead(store, "a").offer_count == 0


def offers_that_take_too_much_are_told_to_nobody_and_read_by_digest(make: Make) -> None:
    store = make("edge")
    large = b"x" * limits.WINDOW_BYTES
    count = limits.OFFERS_HELD_BYTES // len(large) + 1
    for number in range(count):
        store.offer(digest=f"d{number:03}", window=large)

    desk = _lead(store, "a")

    assert (desk.offers, desk.offer_count) == ((), count)
    assert store.poll(known_digest="", node="edge-1", report=b"report").offers == ()
    assert store.offers(["d001"]) == {"d001": large}
    store.prune_offers(keep=["d001"])
    assert _lead(store, "a").offers == ("d001",)


def more_reports_than_can_be_read_hide_no_node_that_is_known(make: Make) -> None:
    store = make("edge")
    large = b"x" * (limits.REPORT_BYTES // 2)
    few = limits.REPORTS_BYTES // len(large)
    for number in range(few):
        store.report(node=f"rogue-{number}", report=large)
    store.report(node="edge-1", report=large)
    store.report(node="edge-2", report=b"report")

    found = store.reports(["edge-9", "edge-1"])

    assert (found["edge-1"], found["edge-2"]) == (large, b"report")
    assert limits.REPORTS_BYTES - len(large) < sum(map(len, found.values())) <= limits.REPORTS_BYTES
    assert "edge-2" in store.reports()
    store.prune_reports(keep=["edge-9", "edge-1", "edge-2"])
    assert store.reports() == {"edge-1": large, "edge-2": b"report"}
    assert _lead(store, "a").report_count == 2


def a_reading_of_reports_may_be_made_smaller(make: Make) -> None:
    store = make("edge")
    for number in range(100):
        store.report(node=f"rogue-{number}", report=b"x" * 1_000)
    store.report(node="edge-1", report=b"report")

    found = store.reports(["edge-1"], most_bytes=8_192)

    assert found["edge-1"] == b"report"
    assert sum(map(len, found.values())) <= 8_192


def a_request_stays_until_it_is_settled(make: Make) -> None:
    store = make("edge")
    store.request(id="r1", request=b"rotate")
    store.request(id="r2", request=b"revoke")
    assert _lead(store, "a").requests == {"r1": b"rotate", "r2": b"revoke"}

    store.settle(ids=["r1", "r9"])

    assert _lead(store, "a").requests == {"r2": b"revoke"}


def of_too_many_requests_some_are_read_and_stay(make: Make) -> None:
    store, standby = make("edge"), make("edge")
    _lead(store, "a")
    for number in range(limits.REQUESTS + 10):
        store.request(id=f"r{number}", request=b"rotate")
    assert len(_lead(standby, "b").requests) == limits.REQUESTS

    read = _lead(store, "a").requests

    assert len(read) == limits.REQUESTS
    assert _lead(store, "a").requests == read
    store.settle(ids=read)
    assert _lead(store, "a").requests == {}


def history_is_newest_first_and_has_an_end(make: Make) -> None:
    store = make("edge")
    for number in range(limits.HISTORY + 5):
        store.record(event=b"%d" % number)

    assert store.history(limit=2) == (b"1004", b"1003")
    assert store.history(limit=0) == ()
    assert store.history(limit=10_000)[-1] == b"5"
    assert len(store.history(limit=10_000)) == limits.HISTORY


def an_event_recorded_twice_in_a_row_is_one_event(make: Make) -> None:
    store = make("edge")

    for event in (b"one", b"two", b"two", b"one"):
        store.record(event=event)

    assert store.history(limit=10) == (b"one", b"two", b"one")


def rings_do_not_mix(make: Make) -> None:
    edge, core = make("edge"), make("core")
    assert (edge.ring, core.ring) == ("edge", "core")
    _publish(edge, "d1")
    edge.report(node="edge-1", report=b"report")

    assert edge.look().report_count == 1
    assert core.look() == Look(digest="", window=None, beat=None, leader="", lease_ms=0, fence=0, report_count=0)
    assert core.reports() == {}
    assert _lead(core, "b").fence == 1


def what_is_too_large_or_empty_or_badly_named_is_refused(make: Make) -> None:
    store = make("edge")
    _lead(store, "a")
    refused: list[tuple[str, Callable[[], object]]] = [
        ("publish", lambda: store.publish(window=b"x" * 65_537, digest="d1", epoch=1, fence=1, parent="")),
        ("publish", lambda: store.publish(window=b"", digest="d1", epoch=1, fence=1, parent="")),
        ("publish", lambda: store.publish(window=b"x", digest="", epoch=1, fence=1, parent="")),
        ("lead", lambda: _lead(store, "")),
        ("beat", lambda: store.beat(beat=b"x" * (limits.BEAT_BYTES + 1), fence=1)),
        ("poll", lambda: store.poll(known_digest="", node="edge-1", report=b"x" * 32_769)),
        ("poll", lambda: store.poll(known_digest="", node="edge\n1", report=b"x")),
        ("report", lambda: store.report(node="n" * 257, report=b"x")),
        ("offer", lambda: store.offer(digest="d\u00e9", window=b"x")),
        ("request", lambda: store.request(id="r1", request=b"x" * 4_097)),
        ("record", lambda: store.record(event=b"x" * 4_097)),
    ]

    for operation, refuse in refused:
        try:
            refuse()
        except StoreUnavailable as error:
            assert error.operation == operation
            continue
        raise AssertionError(f"{operation} took it")

    assert store.window() is None
    assert store.reports() == {}


CLAIMS: Final[tuple[Claim, ...]] = (
    an_empty_store_answers_nothing,
    the_first_to_ask_leads,
    a_holder_that_renews_keeps_its_fence,
    another_stands_by_and_reads_the_desk,
    a_lease_runs_out,
    a_lease_that_ran_out_is_not_renewed_but_taken_anew,
    a_released_lease_is_free_at_once,
    a_new_fence_is_above_what_the_caller_remembers,
    a_holder_whose_store_went_back_gets_a_new_fence,
    a_holder_that_remembers_its_own_fence_keeps_it,
    a_lease_has_bounds,
    a_window_is_published_over_nothing_and_over_its_parent,
    a_publish_over_another_window_is_refused_and_writes_nothing,
    a_publish_over_a_window_that_is_gone_says_so,
    a_scheduler_that_was_overtaken_publishes_nothing,
    a_publish_asked_twice_is_published_once,
    a_fence_lost_by_the_counter_is_found_beside_the_window,
    a_publish_drops_the_offer_of_that_window_and_no_other,
    a_beat_is_the_newest_leaders,
    a_beat_without_any_leader_is_refused,
    a_beat_without_a_lease_is_refused,
    a_poll_hands_in_the_report_and_reads,
    a_known_window_is_not_read_again,
    every_byte_is_carried,
    a_node_has_one_report_until_it_is_forgotten,
    an_offer_is_read_by_digest_until_withdrawn,
    the_last_list_of_peers_is_the_one_that_is_read,
    too_many_offers_are_told_to_no_node_until_they_are_pruned,
    offers_that_take_too_much_are_told_to_nobody_and_read_by_digest,
    more_reports_than_can_be_read_hide_no_node_that_is_known,
    a_reading_of_reports_may_be_made_smaller,
    a_request_stays_until_it_is_settled,
    of_too_many_requests_some_are_read_and_stay,
    history_is_newest_first_and_has_an_end,
    an_event_recorded_twice_in_a_row_is_one_event,
    rings_do_not_mix,
    what_is_too_large_or_empty_or_badly_named_is_refused,
)


def _lead(store: Store, holder: str) -> Desk:
    return store.lead(holder=holder, ttl_ms=_TTL_MS, fence_above=0, known_digest="")


def _publish(store: Store, digest: str) -> None:
    _lead(store, "a")
    window = f"window {digest}".encode()
    assert store.publish(window=window, digest=digest, epoch=1, fence=1, parent="") == Published()


def _until_led(store: Store, holder: str) -> Desk:
    deadline = time.monotonic() + _PATIENCE_S
    while (desk := _lead(store, holder)).fence is None:
        assert time.monotonic() < deadline, "the lease of another never ran out"
    return desk
