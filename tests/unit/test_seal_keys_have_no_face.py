import base64
import random
import traceback
from collections.abc import Callable

import pytest

from keyrotd.core.errors import KeyrotdError
from keyrotd.seal.keyfiles import (
    Kek,
    OperatorKey,
    SigningKey,
    parse,
)
from keyrotd.seal.window import open_window, peek, read_header, seal_window
from tests.vectors import make

SECRETS = (make.KEK, make.OTHER_KEK, make.SIGNING, make.OPERATOR, *make.SEEDS.values())
KEKS = (Kek(make.KEK),)
SIGNER, OPERATOR = SigningKey(make.SIGNING), OperatorKey(make.OPERATOR)
VERIFIERS = (SIGNER.verify_key,)


def faces(raw: bytes) -> tuple[str, ...]:
    """How a byte string shows in text, however it got there; half of one is too much as well."""
    halves = (raw, raw[:16], raw[16:])
    base64s = (base64.b64encode(raw).decode()[at : at + 20] for at in (0, 20))
    return (
        *base64s,
        *(
            form
            for half in halves
            for form in (half.hex(), half.hex().upper(), repr(half)[2:-1], str(list(half))[1:-1])
        ),
    )


def assert_faceless(text: str) -> None:
    assert not [face for raw in SECRETS for face in faces(raw) if face in text]


def test_the_search_would_find_a_key() -> None:
    for shown in (repr(make.KEK), make.KEK.hex(), base64.b64encode(make.KEK).decode(), str(list(make.KEK))):
        with pytest.raises(AssertionError):
            assert_faceless(f"x{shown}y")


@pytest.mark.parametrize(
    "key", [*KEKS, SIGNER, OPERATOR, SIGNER.verify_key, OPERATOR.verify_key], ids=lambda key: key.kind
)
def test_a_key_shows_its_id_and_nothing_else(key: Kek | SigningKey | OperatorKey) -> None:
    assert f"{type(key).__name__}(id='{key.id}')" == repr(key) == str(key) == f"{key}"


def test_an_opened_window_shows_names() -> None:
    window = open_window(make.window().encode(), verifiers=VERIFIERS, keks=KEKS, ring="edge")

    assert_faceless(f"{window!r} {window} {peek(make.window().encode())!r}")


@pytest.mark.parametrize(
    "fail",
    [
        lambda: Kek(make.KEK[:31]),
        lambda: SigningKey(make.SIGNING + b"x"),
        lambda: parse(f"keyrotd-kek-1:{base64.b64encode(make.KEK).decode()} ???", Kek, "file"),
        lambda: parse(f"keyrotd-kek-1:{base64.b64encode(make.KEK).decode()[:-1]}", Kek, "file"),
        lambda: parse(f"keyrotd-signing-1:{base64.b64encode(make.KEK).decode()}", Kek, "file"),
        lambda: parse(base64.b64encode(make.KEK).decode(), Kek, "file"),
        lambda: parse(make.KEK.hex(), Kek, "file"),
        lambda: peek(make.KEK + b"\n"),
        lambda: peek(make.KEK.hex().encode() + b"\n"),
        lambda: peek(f"keyrotd window v1\nring {make.KEK.hex()}{make.KEK.hex()}\nsigned\n".encode()),
        lambda: peek(make.window().replace("epoch 41", f"epoch {make.KEK.hex()}").encode()),
        lambda: open_window(make.window(kek=make.OTHER_KEK).encode(), verifiers=VERIFIERS, keks=KEKS, ring="edge"),
        lambda: open_window(
            make.window(seeds=(make.SEEDS["next"], make.SEEDS["current"], make.SEEDS["previous"])).encode(),
            verifiers=VERIFIERS,
            keks=KEKS,
            ring="edge",
        ),
        lambda: read_header(make.window(signer=make.OPERATOR).encode(), verifiers=VERIFIERS, ring="edge"),
    ],
)
def test_no_error_shows_a_key(fail: Callable[[], object]) -> None:
    with pytest.raises(KeyrotdError) as raised:
        fail()

    error = raised.value
    lines = traceback.format_exception(error)
    without_source = "".join(line for line in lines if not line.startswith("  File"))
    assert_faceless(f"{error} {error!r} {error.args} {error.hint} {vars(error)} {without_source}")


def test_nothing_written_shows_a_key() -> None:
    window = open_window(make.window().encode(), verifiers=VERIFIERS, keks=KEKS, ring="edge")
    sealed = seal_window(window, keks=KEKS, signer=SIGNER, rand=random.Random(3).randbytes)

    assert_faceless(sealed.decode())
