import base64
import random

import pytest

from keyrotd.core.errors import ConfigError, WeakSeed
from keyrotd.seal.keyfiles import (
    K,
    Kek,
    OperatorKey,
    OperatorVerifyKey,
    SigningKey,
    VerifyKey,
    make_kek,
    make_secrets,
    parse,
)
from tests.vectors.make import fixed

ALL: tuple[type[Kek | SigningKey | VerifyKey | OperatorKey | OperatorVerifyKey], ...] = (
    Kek,
    SigningKey,
    VerifyKey,
    OperatorKey,
    OperatorVerifyKey,
)
FIRST, SECOND = fixed("first"), fixed("second")


def row(raw: bytes, kind: str = Kek.kind) -> str:
    return f"{kind}:{base64.b64encode(raw).decode()}\n"


def faults(content: str, kind: type[K]) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(content, kind, "edge.kek")
    assert all(hint for _, hint in raised.value.faults)
    return [fault for fault, _ in raised.value.faults]


def test_keys_come_in_the_order_of_their_lines() -> None:
    content = f"# made in May\n\n{row(SECOND)}  # the one before:\r\n  {row(FIRST)}"

    assert (Kek(SECOND), Kek(FIRST)) == parse(content, Kek, "edge.kek")


def test_the_secrets_of_a_new_fleet_fit_each_other() -> None:
    files = make_secrets("edge", random.Random(7).randbytes)

    signing, verify = (
        parse(files["signing.key"], SigningKey, "s"),
        parse(files["verify.key"], VerifyKey, "v"),
    )
    operator = parse(files["operator.key"], OperatorKey, "o")
    operator_verify = parse(files["operator-verify.key"], OperatorVerifyKey, "ov")
    kek = parse(files["edge.kek"], Kek, "k")

    assert sorted(files) == ["edge.kek", "operator-verify.key", "operator.key", "signing.key", "verify.key"]
    assert (signing[0].verify_key, operator[0].verify_key) == (verify[0], operator_verify[0])
    assert signing[0].id == verify[0].id
    assert len({signing[0].id, operator[0].id, kek[0].id}) == 3
    assert all(content.startswith("# keyrotd: ") and content.count("\n") == 2 for content in files.values())


def test_each_ring_gets_a_kek_of_its_own() -> None:
    rand = random.Random(7).randbytes

    assert parse(make_kek("edge", rand), Kek, "a") != parse(make_kek("core", rand), Kek, "b")


def test_a_broken_random_source_makes_no_secrets() -> None:
    with pytest.raises(WeakSeed):
        make_secrets("edge", bytes)


@pytest.mark.parametrize("kind", ALL)
def test_a_key_of_another_kind_is_called_by_its_name(kind: type[K]) -> None:
    for other in ALL:
        if other is not kind:
            assert faults(row(FIRST, other.kind), kind)[0].startswith("edge.kek, line 1: want a")
            assert "found something else" not in faults(row(FIRST, other.kind), kind)[0]


def test_every_fault_of_a_file_is_listed_at_once() -> None:
    content = "".join(
        (
            row(bytes(32)),
            row(b"correct horse battery staple!!!!"),
            row(FIRST[:16]),
            row(FIRST)[:-3] + "\n",
            row(FIRST).replace("=", "!"),
            row(FIRST, SigningKey.kind),
            row(FIRST, "keyrotd-kek-2"),
            base64.b64encode(FIRST).decode() + "\n",
            row(FIRST).strip() + " # in use\n",
            row(FIRST),
            row(FIRST),
        )
    )

    assert faults(content, Kek) == [
        "edge.kek, line 1: a KEK that no honest random source makes",
        "edge.kek, line 2: a KEK that no honest random source makes",
        "edge.kek, line 3: want 32 bytes in base64, found something else",
        "edge.kek, line 4: want 32 bytes in base64, found something else",
        "edge.kek, line 5: want 32 bytes in base64, found something else",
        "edge.kek, line 6: want a KEK, found a signing key",
        "edge.kek, line 7: want a KEK, found something else",
        "edge.kek, line 8: want a KEK, found something else",
        "edge.kek, line 9: a comment follows a key",
        "edge.kek: holds the same key twice",
    ]


def test_an_empty_file_holds_no_key() -> None:
    assert faults("", Kek) == faults("# later\n\n", Kek) == ["edge.kek: holds no key"]


def test_a_file_has_a_limit() -> None:
    many = "".join(row(fixed(f"key {n}")) for n in range(17))

    assert faults(many, Kek) == ["edge.kek: holds 17 keys, want at most 16"]
    assert faults("#" * 20_000, Kek) == ["edge.kek: want at most 16384 characters"]


@pytest.mark.parametrize("kind", [VerifyKey, OperatorVerifyKey])
@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\x01" + bytes(30) + b"\x80",
        b"\xec" + b"\xff" * 30 + b"\x7f",
        b"\xed" + b"\xff" * 31,
        b"\xee" + b"\xff" * 30 + b"\x7f",
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    ],
    ids=lambda point: point.hex() if isinstance(point, bytes) else None,
)
def test_a_verify_key_under_which_anyone_can_sign_is_refused(
    kind: type[VerifyKey | OperatorVerifyKey], point: bytes
) -> None:
    with pytest.raises(WeakSeed):
        kind(point)
