"""Every server gets the bytes of a key in its own order, and what is read back is what was written."""

import base64
import hashlib
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.core.keys import Keys
from keyrotd.core.stek import Scheme, Secrets, Stek
from keyrotd.servers.layouts import (
    ATS48,
    HAPROXY48,
    HAPROXY80,
    KEY_FILES,
    NGINX48,
    NGINX80,
    Layout,
    Shape,
    decode_lines,
    encode_lines,
)
from keyrotd.servers.ring import ring, tail
from keyrotd.testing.driver import rotated, some_keys

NAME = b"a name of 16 byt"


def readable(scheme: Scheme) -> Secrets:
    size = 32 if scheme is Scheme.AES256 else 16
    return Secrets(NAME, b"A" * size, b"H" * size)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (HAPROXY80, NAME + b"A" * 32 + b"H" * 32),
        (HAPROXY48, NAME + b"A" * 16 + b"H" * 16),
        (NGINX80, NAME + b"H" * 32 + b"A" * 32),
        (NGINX48, NAME + b"A" * 16 + b"H" * 16),
        (ATS48, NAME + b"H" * 16 + b"A" * 16),
    ],
)
def test_the_order_of_the_parts_is_that_of_the_server(layout: Layout, expected: bytes) -> None:
    secrets = readable(layout.scheme)

    assert layout.encode(secrets) == expected
    assert layout.decode(expected) == secrets
    assert layout.size == len(expected)


@pytest.mark.parametrize("size", [0, 47, 48, 79, 81])
def test_a_key_of_another_size_is_refused_without_showing_it(size: int) -> None:
    with pytest.raises(ValueError, match=r"^a key has 80 bytes here, this one has \d+$"):
        HAPROXY80.decode(b"s" * size)


def test_lines_are_what_haproxy_reads() -> None:
    one = base64.b64encode(NAME + b"A" * 32 + b"H" * 32)

    assert encode_lines(HAPROXY80, [readable(Scheme.AES256)] * 3) == (one + b"\n") * 3
    assert decode_lines(HAPROXY80, (one + b"\n") * 3) == (readable(Scheme.AES256),) * 3


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda lines: lines + b"\n", id="blank line at the end"),
        pytest.param(lambda lines: b"\n" + lines, id="blank line at the start"),
        pytest.param(lambda lines: b"# keys\n" + lines, id="comment"),
        pytest.param(lambda lines: b" " + lines, id="space"),
        pytest.param(lambda lines: lines.replace(b"=", b""), id="no padding"),
        pytest.param(lambda lines: lines.replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(lambda lines: lines[:-1], id="last line not ended"),
        pytest.param(lambda lines: lines[4:], id="short key"),
        pytest.param(lambda lines: lines + base64.b64encode(bytes(48)) + b"\n", id="48 among 80"),
    ],
)
def test_lines_that_we_would_not_have_written_are_refused(spoil: object) -> None:
    assert callable(spoil)
    lines = encode_lines(HAPROXY80, [readable(Scheme.AES256)] * 3)

    with pytest.raises(ValueError, match=r"key|base64") as refused:
        decode_lines(HAPROXY80, spoil(lines))

    assert base64.b64encode(NAME).decode()[:8] not in str(refused.value)


@given(count=st.integers(0, 9), seed=st.binary(min_size=16, max_size=16), name=st.sampled_from(sorted(KEY_FILES)))
def test_files_hold_the_keys_that_fit_and_the_right_one_seals(count: int, seed: bytes, name: str) -> None:
    form = KEY_FILES[name]
    keys = some_keys(seeds(seed), previous=count)
    kept = keys if form.slots is None else keys.fit(form.slots)

    found = form.decode(form.encode(keys, form.slots))

    expected = [stek.secrets(form.layout.scheme) for stek in kept.opening]
    assert found[0] == expected[0]
    assert set(found) == set(expected)


def test_a_file_for_each_key_is_there_even_when_keys_are_few() -> None:
    keys = some_keys(seeds(b"few"), previous=0)

    contents = KEY_FILES["nginx80-files"].encode(keys, 4)

    assert [len(content) for content in contents] == [80, 80, 80, 80]
    assert len(set(contents)) == 2


@pytest.mark.parametrize("name", sorted(KEY_FILES))
@pytest.mark.parametrize("garbage", [b"", b"\n", bytes(79), b"x" * 500])
def test_garbage_in_a_key_file_is_refused(name: str, garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r"key|base64"):
        KEY_FILES[name].decode((garbage,))


def test_no_two_layouts_are_the_same_words_for_other_bytes() -> None:
    assert {form.shape for form in KEY_FILES.values()} == set(Shape)
    for name, form in KEY_FILES.items():
        assert str(form.layout.size) in name


def test_a_ring_is_previous_current_next() -> None:
    one, two, three, four, five = (Stek(bytes(range(n, n + 31)) + b"\x99", "edge") for n in range(1, 6))
    keys = Keys(current=one, next=two, previous=(three, four, five))

    assert ring(keys, 3) == (three, one, two)
    assert ring(keys, 5) == (five, four, three, one, two)
    assert ring(keys, 7) == (five, five, five, four, three, one, two)
    assert ring(Keys(current=one, next=two), 3) == (one, one, two)


@given(slots=st.integers(3, 8), count=st.integers(0, 8), seed=st.binary(min_size=4, max_size=4))
def test_a_rotation_is_one_push_whatever_the_ring_and_however_few_the_keys(slots: int, count: int, seed: bytes) -> None:
    rand = seeds(seed)
    before = some_keys(rand, previous=count)
    after = Keys(current=before.next, next=Stek(rand(32), "contract"), previous=(before.current, *before.previous))

    assert tail(ring(before, slots), ring(after, slots)) == (after.next,)


@given(st.lists(st.integers(0, 4), min_size=3, max_size=6), st.lists(st.integers(0, 4), min_size=3, max_size=6))
def test_the_tail_pushed_makes_the_ring_that_is_wanted(held: list[int], other: list[int]) -> None:
    wanted = (other * 2)[: len(held)]

    pushes = tail(held, wanted)

    assert [*held, *pushes][len(pushes) :] == wanted
    assert not any([*held, *shorter][len(shorter) :] == wanted for shorter in proper_tails(pushes))


def test_lingering_keys_do_not_disturb_a_rotation() -> None:
    rand = seeds(b"linger")
    windows = [some_keys(rand, previous=0)]
    for _ in range(6):
        windows.append(rotated(windows[-1], rand))

    for before, after in pairwise(windows):
        assert len(tail(ring(before.lingering(), 3), ring(after.lingering(), 3))) == 1


def proper_tails(pushes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return (pushes[at:] for at in range(1, len(pushes) + 1))


class seeds:  # noqa: N801 - a function with a memory
    """Chance that is the same each time."""

    def __init__(self, seed: bytes) -> None:
        self._seed, self._count = seed, 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(4, "big")).digest(size)
