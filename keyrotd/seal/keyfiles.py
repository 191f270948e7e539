"""The five kinds of long-lived keys, and the text of the files that hold them. Files are read in keyrotd.secrets."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyrotd.core.errors import ConfigError, WeakSeed
from keyrotd.core.stek import refuse_weak
from keyrotd.seal import lines

KEY_BYTES = 32
#: A rotation needs two keys in a file, a hurried one three.
MAX_KEYS_PER_FILE = 16
#: Sixteen keys and a page of comments.
MAX_FILE_BYTES = 16_384

Rand: TypeAlias = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Kek:
    """A key-encryption key: who holds it reads the live keys of one ring, and may speak as any of its nodes."""

    kind: ClassVar[str] = "keyrotd-kek-1"
    secret: bytes = field(repr=False, compare=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        refuse_weak(self.secret)
        object.__setattr__(self, "id", _id(self.kind, self.secret))

    def derive(self, purpose: str, *context: str) -> bytes:
        """32 bytes for one purpose. The key itself never encrypts: no two uses ever share a key."""
        info = "\x00".join(("keyrotd/1", purpose, *context)).encode()
        return HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(self.secret)


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """Knows the scheduler's signature on windows, beats and history."""

    kind: ClassVar[str] = "keyrotd-verify-1"
    public: bytes
    id: str = field(init=False)

    def __post_init__(self) -> None:
        _refuse_weak_point(self.public)
        object.__setattr__(self, "id", _id("ed25519", self.public))

    def __repr__(self) -> str:
        return f"VerifyKey(id='{self.id}')"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        return _verifies(self.public, signature, message)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The scheduler's: who holds it decides what every node accepts. Has the id of its verify key."""

    kind: ClassVar[str] = "keyrotd-signing-1"
    secret: bytes = field(repr=False, compare=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        refuse_weak(self.secret)
        object.__setattr__(self, "id", self.verify_key.id)

    @property
    def verify_key(self) -> VerifyKey:
        return VerifyKey(_public(self.secret))

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.secret).sign(message)


@dataclass(frozen=True, slots=True)
class OperatorVerifyKey:
    """Knows an operator's signature on requests."""

    kind: ClassVar[str] = "keyrotd-operator-verify-1"
    public: bytes
    id: str = field(init=False)

    def __post_init__(self) -> None:
        _refuse_weak_point(self.public)
        object.__setattr__(self, "id", _id("ed25519", self.public))

    def __repr__(self) -> str:
        return f"OperatorVerifyKey(id='{self.id}')"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        return _verifies(self.public, signature, message)


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """An operator's: who holds it may ask for a rotation or a revocation, and for nothing else."""

    kind: ClassVar[str] = "keyrotd-operator-1"
    secret: bytes = field(repr=False, compare=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        refuse_weak(self.secret)
        object.__setattr__(self, "id", self.verify_key.id)

    @property
    def verify_key(self) -> OperatorVerifyKey:
        return OperatorVerifyKey(_public(self.secret))

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.secret).sign(message)


Keks: TypeAlias = tuple[Kek, ...]
AnyKey: TypeAlias = Kek | SigningKey | VerifyKey | OperatorKey | OperatorVerifyKey
K = TypeVar("K", bound=AnyKey)

_CALLED: dict[str, str] = {
    Kek.kind: "a KEK",
    SigningKey.kind: "a signing key",
    VerifyKey.kind: "a verify key",
    OperatorKey.kind: "an operator key",
    OperatorVerifyKey.kind: "an operator verify key",
}


def parse(content: str, kind: type[K], where: str) -> tuple[K, ...]:
    """
    The keys of one file, the first of which seals or signs; `where` is what a person calls the file.

    Raises ConfigError with every fault of the file. A fault names its line by number and never quotes it.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([(f"{where}: want at most {MAX_FILE_BYTES} characters", "is this the file you meant?")])
    keys: list[K] = []
    faults: list[tuple[str, str | None]] = []
    for count, row in enumerate(content.split("\n"), start=1):
        if not row.strip() or row.lstrip().startswith("#"):
            continue
        try:
            keys.append(_key(row.strip(), kind))
        except _Fault as fault:
            faults.append((f"{where}, line {count}: {fault}", fault.hint))
    if not keys and not faults:
        faults.append((f"{where}: holds no key", f"want a line `{kind.kind}:...`; `keyrotd init` makes one"))
    if len({key.id for key in keys}) != len(keys):
        faults.append((f"{where}: holds the same key twice", "delete one of the two lines"))
    if len(keys) > MAX_KEYS_PER_FILE:
        faults.append((f"{where}: holds {len(keys)} keys, want at most {MAX_KEYS_PER_FILE}", "delete the oldest"))
    if faults:
        raise ConfigError(faults)
    return tuple(keys)


def ids_in_change(*kinds: Sequence[AnyKey]) -> tuple[str, ...]:
    """The ids of all keys, if there are several of a kind; () when nobody needs to be told which ones one has."""
    return tuple(key.id for keys in kinds for key in keys) if any(len(keys) > 1 for keys in kinds) else ()


def make_secrets(ring: str, rand: Rand) -> dict[str, str]:
    """The files of a new fleet by name: a KEK for `ring`, and the two pairs of keys."""
    signing, operator = SigningKey(rand(KEY_BYTES)), OperatorKey(rand(KEY_BYTES))
    return {
        f"{ring}.kek": make_kek(ring, rand),
        "signing.key": _written(signing, "the scheduler's signing key: schedulers need it, nobody else"),
        "verify.key": _written(signing.verify_key, "knows the scheduler's signature: everyone needs it; no secret"),
        "operator.key": _written(operator, "an operator's key: people who may rotate and revoke need it, no machine"),
        "operator-verify.key": _written(operator.verify_key, "knows operators: schedulers need it; no secret"),
    }


def make_kek(ring: str, rand: Rand) -> str:
    """The file of a new KEK for `ring`."""
    return _written(Kek(rand(KEY_BYTES)), f"the KEK of ring {ring}: schedulers and the agents of this ring need it")


class _Fault(Exception):  # noqa: N818 - a step on the way to ConfigError
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _key(row: str, kind: type[K]) -> K:
    prefix, colon, word = row.partition(":")
    want = _CALLED[kind.kind]
    if prefix in _CALLED and prefix != kind.kind:
        raise _Fault(f"want {want}, found {_CALLED[prefix]}", "two files were swapped, or a path is wrong")
    if not colon or prefix != kind.kind:
        hint = f"a key is `{kind.kind}:` and 44 characters of base64; `keyrotd init` makes one"
        raise _Fault(f"want {want}, found something else", "PEM is not read; " + hint if "-----" in row else hint)
    if word != word.split("#")[0]:
        raise _Fault("a comment follows a key", "give the comment a line of its own")
    try:
        raw = lines.base64_of(KEY_BYTES)(word)
    except ValueError:
        hint = "the line was cut or edited: copy the whole file again"
        raise _Fault(f"want {KEY_BYTES} bytes in base64, found something else", hint) from None
    try:
        return kind(raw)
    except WeakSeed:
        hint = "a default, a pass phrase or a placeholder; `keyrotd init` makes a random one"
        raise _Fault(f"{want} that no honest random source makes", hint) from None


def key_line(key: AnyKey) -> str:
    """The one line of a file that is this key, ended."""
    raw = key.public if isinstance(key, VerifyKey | OperatorVerifyKey) else key.secret
    return f"{key.kind}:{lines.to_base64(raw)}\n"


def _written(key: AnyKey, comment: str) -> str:
    return f"# keyrotd: {comment}\n{key_line(key)}"


def _id(label: str, raw: bytes) -> str:
    return hashlib.sha256(f"{label} id\x00".encode() + raw).digest()[:8].hex()


def _public(secret: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def _verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


_P = 2**255 - 19
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
#: The y of every point of small order, also written past the prime: under such a key anyone can sign.
_SMALL_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, _ORDER_8, _P - _ORDER_8})


def _refuse_weak_point(public: bytes) -> None:
    refuse_weak(public)
    if int.from_bytes(public, "little") % 2**255 in _SMALL_ORDER:
        raise WeakSeed("the verify key is a point of small order, under which anyone can sign")
