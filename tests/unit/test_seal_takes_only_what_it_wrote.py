import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrotd.core.errors import CorruptWindow, WeakSeed
from keyrotd.core.messages import (
    Beat,
    Event,
    Goal,
    NodeState,
    Order,
    Pause,
    Peer,
    Peers,
    ProbeState,
    Report,
    Request,
    Resume,
    ServerReport,
    ServerState,
)
from keyrotd.core.peers import MAX_PEERS
from keyrotd.core.stek import Stek
from keyrotd.core.window import MAX_ANCESTORS, MAX_KEYS, Key, Window
from keyrotd.seal.keyfiles import MAX_KEYS_PER_FILE, Kek, OperatorKey, SigningKey
from keyrotd.seal.lines import MAX_NUMBER
from keyrotd.seal.messages import (
    MAX_BEAT_BYTES,
    MAX_EVENT_BYTES,
    MAX_FAULT,
    MAX_PEERS_BYTES,
    MAX_REASON,
    MAX_REPORT_BYTES,
    MAX_REQUEST_BYTES,
    MAX_SERVERS,
    MAX_WHO,
    read_beat,
    read_event,
    read_peers,
    read_report,
    read_request,
    sign_beat,
    sign_event,
    sign_peers,
    sign_request,
    write_report,
)
from keyrotd.seal.window import MAX_WINDOW_BYTES, forget, open_window, peek, read_header, seal_window
from keyrotd.store.limits import PEERS_BYTES
from tests.vectors import make

KEKS = (Kek(make.KEK), Kek(make.OTHER_KEK))
SIGNER, OPERATOR = SigningKey(make.SIGNING), OperatorKey(make.OPERATOR)
VERIFIERS, OPERATORS = (SIGNER.verify_key,), (OPERATOR.verify_key,)

READERS: tuple[Callable[[bytes], object], ...] = (
    peek,
    lambda data: forget(data, keep=frozenset()),
    lambda data: read_header(data, verifiers=VERIFIERS, ring="edge"),
    lambda data: open_window(data, verifiers=VERIFIERS, keks=KEKS, ring="edge"),
    lambda data: read_beat(data, verifiers=VERIFIERS, ring="edge"),
    lambda data: read_request(data, operator_verifiers=OPERATORS, ring="edge"),
    lambda data: read_event(data, verifiers=VERIFIERS, ring="edge"),
    lambda data: read_report(data, keks=KEKS, ring="edge"),
)

numbers = st.integers(0, MAX_NUMBER)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
nodes = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
chances = st.integers(0, 2**32).map(lambda seed: random.Random(seed).randbytes)


def words(limit: int) -> st.SearchStrategy[str]:
    fit = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))
    return (st.sampled_from(("", "-", "--", "%", " ")) | st.text(fit)).filter(lambda text: len(text.encode()) <= limit)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    rand, ring = draw(chances), draw(names)
    epoch = draw(st.integers(1, MAX_NUMBER))
    barrier = draw(st.integers(0, epoch))

    def key(*, seals: bool) -> Key:
        seals_until = draw(numbers) if seals else None
        stek = Stek(rand(32), ring)
        return Key(
            name=stek.name,
            stek=stek if draw(st.booleans()) else None,
            born=draw(st.integers(barrier, epoch)),
            made_at=draw(numbers),
            seals_from=draw(numbers) if seals else None,
            seals_until=seals_until,
            opens_until=draw(st.integers(seals_until or 0, MAX_NUMBER)),
            steps_at=draw(numbers),
            step_ms=draw(st.integers(1, MAX_NUMBER)),
        )

    return Window(
        ring=ring,
        epoch=epoch,
        fence=draw(numbers),
        barrier=barrier,
        published_at=draw(numbers),
        ticket_lifetime_ms=draw(numbers),
        max_stranded_ms=draw(numbers),
        ancestors=tuple(draw(st.lists(digests, max_size=MAX_ANCESTORS))),
        current=key(seals=True),
        next=key(seals=False),
        previous=tuple(key(seals=draw(st.booleans())) for _ in range(draw(st.integers(0, 6)))),
    )


key_ids = st.lists(st.binary(min_size=8, max_size=8).map(bytes.hex), max_size=4).map(tuple)
beats = st.builds(
    Beat,
    ring=names,
    epoch=numbers,
    digest=digests | st.just(""),
    confirmed_at=st.none() | numbers,
    signed_at=numbers,
    accepts=key_ids,
)
requests = st.builds(
    Request,
    ring=names,
    goal=st.sampled_from(Goal),
    past_epoch=numbers,
    drop_live_keys=st.booleans(),
    who=words(MAX_WHO),
    reason=words(MAX_REASON),
    made_at=numbers,
)
pausing = st.builds(
    lambda kind, **fields: kind(**fields),
    st.sampled_from([Pause, Resume]),
    ring=names,
    until=numbers,
    who=words(MAX_WHO),
    reason=words(MAX_REASON),
    made_at=numbers,
)
events = st.builds(
    Event,
    ring=names,
    kind=names,
    epoch=numbers,
    happened_at=numbers,
    who=words(MAX_WHO),
    reason=words(MAX_REASON),
    until=st.none() | numbers,
)
servers = st.builds(
    ServerReport,
    name=names,
    driver=names,
    state=st.sampled_from(ServerState),
    slots=st.none() | numbers,
    probe=st.sampled_from(ProbeState),
    fault=words(MAX_FAULT),
)
addresses = st.builds("{}:{}".format, st.ip_addresses(v=4), st.integers(1, 65_535)) | st.builds(
    "[{}]:{}".format,
    st.ip_addresses(v=6).map(str).filter(lambda address: not address.startswith("::ffff:")),
    st.integers(1, 65_535),
)


@st.composite
def with_peers(draw: st.DrawFn) -> ServerReport:
    tried = draw(st.integers(0, 16))
    return replace(draw(servers), address=draw(addresses), resumed=draw(st.integers(0, tried)), tried=tried)


lists_of_peers = st.builds(
    Peers,
    ring=names,
    signed_at=numbers,
    peers=st.lists(st.builds(Peer, node=nodes, driver=names, address=addresses), max_size=4).map(tuple),
)
reports = st.builds(
    Report,
    ring=names,
    node=nodes,
    counter=numbers,
    reported_at=numbers,
    state=st.sampled_from(NodeState),
    steps=numbers,
    epoch=numbers,
    holds=st.none() | digests,
    read_back=st.none() | digests,
    floor=numbers,
    barrier=numbers,
    poll_interval_ms=numbers,
    servers=st.lists(servers | with_peers(), max_size=4, unique_by=lambda server: server.name).map(tuple),
    accepts=key_ids,
    along=st.none() | st.binary(min_size=16, max_size=16),
)


@given(windows(), chances)
def test_a_window_comes_back_as_it_was(window: Window, rand: Callable[[int], bytes]) -> None:
    data = seal_window(window, keks=KEKS, signer=SIGNER, rand=rand)

    assert window == open_window(data, verifiers=VERIFIERS, keks=KEKS, ring=window.ring)
    assert window == open_window(data, verifiers=VERIFIERS, keks=KEKS[::-1], ring=window.ring)
    assert window.header == read_header(data, verifiers=VERIFIERS, ring=window.ring).header
    assert {key.name for key in window.all if key.stek is not None} == peek(data).carried


@given(windows(), chances, st.sets(st.integers(0, 8)))
def test_what_was_forgotten_is_gone_and_the_rest_still_opens(
    window: Window, rand: Callable[[int], bytes], kept: set[int]
) -> None:
    keep = frozenset(key.name for at, key in enumerate(window.all) if at in kept)
    data = seal_window(window, keks=KEKS, signer=SIGNER, rand=rand)

    left = open_window(forget(data, keep=keep), verifiers=VERIFIERS, keks=KEKS, ring=window.ring)

    assert window.digest == left.digest
    assert [key.stek if key.name in keep else None for key in window.all] == [key.stek for key in left.all]


@given(beats)
def test_a_beat_comes_back_as_it_was(beat: Beat) -> None:
    assert beat == read_beat(sign_beat(beat, SIGNER), verifiers=VERIFIERS, ring=beat.ring)


@given(requests | pausing)
def test_a_request_comes_back_as_it_was(request: Order) -> None:
    assert request == read_request(sign_request(request, OPERATOR), operator_verifiers=OPERATORS, ring=request.ring)


@given(requests, pausing)
def test_the_second_version_is_written_only_for_what_the_first_cannot_say(request: Request, order: Order) -> None:
    assert sign_request(request, OPERATOR).startswith(b"keyrotd request v1\n")
    assert sign_request(order, OPERATOR).startswith(b"keyrotd request v2\n")


@given(events)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert event == read_event(sign_event(event, SIGNER), verifiers=VERIFIERS, ring=event.ring)


@given(reports)
def test_a_report_comes_back_as_it_was(report: Report) -> None:
    assert report == read_report(write_report(report, KEKS), keks=KEKS[::-1], ring=report.ring)


@given(lists_of_peers)
def test_a_list_of_peers_comes_back_as_it_was(peers: Peers) -> None:
    assert peers == read_peers(sign_peers(peers, SIGNER), verifiers=VERIFIERS, ring=peers.ring)


@given(servers, addresses)
def test_a_report_is_of_version_2_only_where_it_tells_of_peers_or_of_succession(
    plain: ServerReport, address: str
) -> None:
    one = report_of((plain,))
    more = [report_of((replace(plain, address=address),)), report_of((replace(plain, resumed=1, tried=2),))]

    first = [write_report(told, KEKS).partition(b"\n")[0] for told in (one, *more, replace(one, along=bytes(16)))]

    assert first == [b"keyrotd report v1", *[b"keyrotd report v2"] * 3]


@given(st.text(max_size=900))
def test_any_fault_can_be_reported_and_is_fit_to_print(fault: str) -> None:
    server = ServerReport(
        name="s", driver="d", state=ServerState.FAILED, slots=None, probe=ProbeState.NONE, fault=fault
    )

    data = write_report(report_of((server,)), KEKS)

    found = read_report(data, keks=KEKS, ring="edge").servers[0].fault
    assert len(found.encode()) <= MAX_FAULT
    assert "\n" not in found
    assert "\x1b" not in found


def test_the_largest_of_everything_fits() -> None:
    rand = random.Random(1).randbytes
    largest = "x" * 64
    window = Window(
        ring=largest,
        epoch=MAX_NUMBER,
        fence=MAX_NUMBER,
        barrier=MAX_NUMBER,
        published_at=MAX_NUMBER,
        ticket_lifetime_ms=MAX_NUMBER,
        max_stranded_ms=MAX_NUMBER,
        ancestors=("ab" * 32,) * MAX_ANCESTORS,
        current=key_of(rand, largest, born=MAX_NUMBER, seals_until=MAX_NUMBER),
        next=key_of(rand, largest, born=MAX_NUMBER, seals_until=None),
        previous=tuple(key_of(rand, largest, born=MAX_NUMBER, seals_until=MAX_NUMBER) for _ in range(MAX_KEYS - 2)),
    )
    servers = tuple(
        ServerReport(
            name=f"{at:x<64}",
            driver=largest,
            state=ServerState.UNREACHABLE,
            slots=MAX_NUMBER,
            probe=ProbeState.UNREACHABLE,
            fault=" " * MAX_FAULT,
            address=f"[{'abcd:' * 7}abcd]:65535",
            resumed=16,
            tried=16,
        )
        for at in range(MAX_SERVERS)
    )
    peers = Peers(
        ring=largest,
        signed_at=MAX_NUMBER,
        peers=(Peer(node="x" * 253, driver=largest, address=f"[{'abcd:' * 7}abcd]:65535"),) * MAX_PEERS,
    )
    request = Request(
        ring=largest,
        goal=Goal.ROTATE,
        past_epoch=MAX_NUMBER,
        drop_live_keys=True,
        who=" " * MAX_WHO,
        reason=" " * MAX_REASON,
        made_at=MAX_NUMBER,
    )
    event = Event(
        ring=largest,
        kind=largest,
        epoch=MAX_NUMBER,
        happened_at=MAX_NUMBER,
        who=" " * MAX_WHO,
        reason=" " * MAX_REASON,
    )

    beat = Beat(
        ring=largest,
        epoch=MAX_NUMBER,
        digest="ab" * 32,
        confirmed_at=MAX_NUMBER,
        signed_at=MAX_NUMBER,
        accepts=("ab" * 8,) * 3 * MAX_KEYS_PER_FILE,
    )

    assert len(seal_window(window, keks=KEKS, signer=SIGNER, rand=rand)) <= MAX_WINDOW_BYTES
    assert len(sign_beat(beat, SIGNER)) <= MAX_BEAT_BYTES
    assert len(write_report(report_of(servers), KEKS)) <= MAX_REPORT_BYTES
    assert len(sign_peers(peers, SIGNER)) <= MAX_PEERS_BYTES == PEERS_BYTES
    assert len(sign_request(request, OPERATOR)) <= MAX_REQUEST_BYTES
    assert len(sign_event(event, SIGNER)) <= MAX_EVENT_BYTES


def test_a_beat_is_small() -> None:
    """A node reads one with every poll."""
    beat = Beat(ring="x" * 20, epoch=1_000_000, digest="ab" * 32, confirmed_at=10**12, signed_at=10**12)

    assert len(sign_beat(beat, SIGNER)) <= 300 < MAX_BEAT_BYTES


def test_every_flipped_bit_of_a_window_is_refused() -> None:
    data = make.window().encode()

    for at in range(len(data)):
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(CorruptWindow):
                open_window(flipped, verifiers=VERIFIERS, keks=KEKS, ring="edge")


def test_every_flipped_bit_of_a_message_is_refused() -> None:
    messages = (
        make.sign(make.BEAT, "beat"),
        make.sign(make.REQUEST, "request", make.OPERATOR),
        make.sign(make.EVENT, "event"),
        make.report(),
    )
    for message, reader in zip(messages, READERS[4:], strict=True):
        data = message.encode()
        reader(data)
        for at in range(len(data)):
            for bit in range(8):
                with pytest.raises(CorruptWindow):
                    reader(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])


def test_every_truncated_window_is_refused_unless_it_is_one_with_seeds_forgotten() -> None:
    data = make.window().encode()
    whole = open_window(data, verifiers=VERIFIERS, keks=KEKS, ring="edge")
    order = [key.name for key in whole.all]
    forgotten = {forget(data, keep=frozenset(order[:carried])) for carried in range(3)}

    accepted = set()
    for length in range(len(data)):
        try:
            open_window(data[:length], verifiers=VERIFIERS, keks=KEKS, ring="edge")
        except CorruptWindow:
            continue
        accepted.add(data[:length])

    assert forgotten == accepted


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_in_words(data: bytes) -> None:
    for reader in READERS:
        with pytest.raises(CorruptWindow):
            reader(data)


@settings(max_examples=200)
@given(st.data())
def test_a_window_whose_signed_lines_are_garbled_is_never_more_than_refused(data: st.DataObject) -> None:
    """Even the scheduler's own key cannot make a reader stumble."""
    text = make.window()
    body = text[: text.index("signed ")]
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 40)))
    patch = data.draw(st.text("0123456789-abcdef \nsigned+=%", max_size=8))
    garbled = make.resigned(body[:start] + patch + body[end:] + text[text.index("signed ") :])

    try:
        window = open_window(garbled.encode(), verifiers=VERIFIERS, keks=KEKS, ring="edge")
    except CorruptWindow:
        return
    assert garbled.startswith(window.header)


@pytest.mark.parametrize(
    "beat",
    [
        Beat(ring="two words", epoch=1, digest="", confirmed_at=None, signed_at=1),
        Beat(ring="edge\nepoch 9", epoch=1, digest="", confirmed_at=None, signed_at=1),
        Beat(ring="", epoch=1, digest="", confirmed_at=None, signed_at=1),
        Beat(ring="edge", epoch=-1, digest="", confirmed_at=None, signed_at=1),
        Beat(ring="edge", epoch=2**63, digest="", confirmed_at=None, signed_at=1),
        Beat(ring="edge", epoch=1, digest="-", confirmed_at=None, signed_at=1),
        Beat(ring="edge", epoch=1, digest="AB" * 32, confirmed_at=None, signed_at=1),
    ],
)
def test_what_no_reader_takes_is_not_written(beat: Beat) -> None:
    with pytest.raises(CorruptWindow, match=r"beat|Beat"):
        sign_beat(beat, SIGNER)


def test_a_request_with_a_reason_too_long_or_unfit_is_refused_where_it_is_made() -> None:
    for reason in ("x" * (MAX_REASON + 1), "a\nb", "\x1b[2J"):
        request = Request(
            ring="edge",
            goal=Goal.ROTATE,
            past_epoch=1,
            drop_live_keys=False,
            who="me",
            reason=reason,
            made_at=1,
        )
        with pytest.raises(CorruptWindow, match="`reason` is not written as it must be"):
            sign_request(request, OPERATOR)


def test_a_window_with_a_ring_that_cannot_be_written_is_not_sealed() -> None:
    rand = random.Random(1).randbytes
    window = Window(
        ring="edge eu",
        epoch=1,
        fence=1,
        barrier=0,
        published_at=1,
        ticket_lifetime_ms=1,
        max_stranded_ms=1,
        ancestors=(),
        current=key_of(rand, "edge eu", born=1, seals_until=1),
        next=key_of(rand, "edge eu", born=1, seals_until=None),
        previous=(),
    )

    with pytest.raises(CorruptWindow, match="line 2: `ring`"):
        seal_window(window, keks=KEKS, signer=SIGNER, rand=rand)


def test_a_source_that_repeats_its_nonces_seals_nothing() -> None:
    window = open_window(make.window().encode(), verifiers=VERIFIERS, keks=KEKS, ring="edge")

    with pytest.raises(WeakSeed, match="nonce"):
        seal_window(window, keks=KEKS, signer=SIGNER, rand=bytes)


def test_a_header_is_read_without_a_kek_and_shows_no_seed() -> None:
    window = read_header(make.window().encode(), verifiers=VERIFIERS, ring="edge")

    assert window.header == make.HEADER
    assert [key.stek for key in window.all] == [None] * 3


def key_of(rand: Callable[[int], bytes], ring: str, *, born: int, seals_until: int | None) -> Key:
    stek = Stek(rand(32), ring)
    return Key(
        name=stek.name,
        stek=stek,
        born=born,
        made_at=MAX_NUMBER,
        seals_from=seals_until,
        seals_until=seals_until,
        opens_until=MAX_NUMBER,
        steps_at=MAX_NUMBER,
        step_ms=MAX_NUMBER,
    )


def report_of(servers: tuple[ServerReport, ...]) -> Report:
    return Report(
        ring="edge",
        node="n" * 253,
        counter=MAX_NUMBER,
        reported_at=MAX_NUMBER,
        state=NodeState.ISOLATED,
        steps=MAX_NUMBER,
        epoch=MAX_NUMBER,
        holds="ab" * 32,
        read_back="ab" * 32,
        floor=MAX_NUMBER,
        barrier=MAX_NUMBER,
        poll_interval_ms=MAX_NUMBER,
        servers=servers,
        accepts=("ab" * 8,) * 2 * MAX_KEYS_PER_FILE,
    )
