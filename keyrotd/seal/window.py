"""
Sealed windows. The signature is checked before the header is believed or a seed decrypted.

    keyrotd window v1 ...             the header, see core/window.py
    kek ID                            which KEK seals the seeds
    seal NAME SHA256                  one per key, in the header's order: commits to its sealed seed; - if it has none
    signed ID SIGNATURE               Ed25519 over every byte above
    seed NAME BASE64                  nonce, ciphertext and tag of AES-256-GCM; one per key whose seed is carried

Seeds stand under the signature's line, committed to but not covered, so that whoever holds a sealed window can forget
the seed of an expired key and what is left still verifies. The cache of an agent and its offers are such windows.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyrotd.core.errors import CorruptWindow, WeakSeed
from keyrotd.core.stek import SEED_BYTES, Stek
from keyrotd.core.window import Key, Window
from keyrotd.seal import lines
from keyrotd.seal.keyfiles import Kek, Keks, Rand, SigningKey, VerifyKey
from keyrotd.seal.lines import Lines
from keyrotd.seal.signed import Envelope, envelope, prove, refuse_other_ring, signed

#: Twice what MAX_KEYS keys take.
MAX_WINDOW_BYTES = 65_536

NONCE_BYTES = 12
_TAG_BYTES = 16
SEALED_SEED = lines.base64_of(NONCE_BYTES + SEED_BYTES + _TAG_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproven:
    """What a sealed window says of itself. `window` holds no stek; `carried` are the keys whose seeds are there."""

    window: Window
    kek_id: str
    signer_id: str
    carried: frozenset[bytes]


def seal_window(window: Window, *, keks: Keks, signer: SigningKey, rand: Rand) -> bytes:
    """The one form in which a window leaves a process. Refuses to write what no reader would accept."""
    kek = keks[0]
    sealed = _sealed_seeds(window, kek, rand)
    commitments = (_commitment(sealed.get(key.name)) for key in window.all)
    seals = (lines.line("seal", key.name.hex(), seal) for key, seal in zip(window.all, commitments, strict=True))
    body = window.header + lines.line("kek", kek.id) + "".join(seals)
    seeds = (lines.line("seed", name.hex(), lines.to_base64(seed)) for name, seed in sealed.items())
    data = (signed(body, kind="window", signer=signer) + "".join(seeds)).encode()
    peek(data)
    return data


def read_header(data: bytes, *, verifiers: tuple[VerifyKey, ...], ring: str) -> Window:
    """The proven window without its seeds; needs no KEK."""
    found = envelope(data, kind="window", limit=MAX_WINDOW_BYTES)
    return _proven(found, verifiers, ring).window


def open_window(data: bytes, *, verifiers: tuple[VerifyKey, ...], keks: Keks, ring: str) -> Window:
    """The proven window with every seed it carries; `stek` is None where a seed was forgotten on the way."""
    found = envelope(data, kind="window", limit=MAX_WINDOW_BYTES)
    sealed = _proven(found, verifiers, ring)
    kek = next((kek for kek in keks if kek.id == sealed.kek_id), None)
    if kek is None:
        raise CorruptWindow(
            f"ring {ring}: window {sealed.window.epoch} is sealed with KEK {sealed.kek_id}, which is not at hand",
            reason="unknown kek",
            hint="a new KEK goes into the key files of all agents before it goes first in those of the schedulers",
        )
    return _opened(sealed, kek)


def forget(data: bytes, *, keep: frozenset[bytes]) -> bytes:
    """The same sealed window with the seeds of none but the keys named in `keep`."""
    found = envelope(data, kind="window", limit=MAX_WINDOW_BYTES)
    kept = _sealed(found).seeds.keys() & keep
    rows = [row + "\n" for row in data.decode("ascii").split("\n")[:-1]]
    above, below = rows[: len(found.body) + 1], rows[len(found.body) + 1 :]
    return "".join((*above, *(row for row in below if bytes.fromhex(row.split(" ")[1]) in kept))).encode()


def peek(data: bytes) -> Unproven:
    """What a sealed window claims, for people who hold no key. Nothing may act on it."""
    found = envelope(data, kind="window", limit=MAX_WINDOW_BYTES)
    sealed = _sealed(found)
    return Unproven(
        window=sealed.window, kek_id=sealed.kek_id, signer_id=found.signer_id, carried=frozenset(sealed.seeds)
    )


@dataclass(frozen=True, slots=True)
class _Sealed:
    window: Window
    kek_id: str
    seeds: Mapping[bytes, bytes]


def _proven(found: Envelope, verifiers: tuple[VerifyKey, ...], ring: str) -> _Sealed:
    prove(found, verifiers=verifiers)
    sealed = _sealed(found)
    refuse_other_ring("window", found=sealed.window.ring, ring=ring)
    return sealed


def _sealed(found: Envelope) -> _Sealed:
    body = found.body_lines()
    window = _window(body)
    kek_id = body.take("kek", lines.key_id)
    seals = {key.name: body.take(f"seal {key.name.hex()}", lines.maybe(lines.digest)) for key in window.all}
    body.end()
    seeds = _seeds(found)
    ordered = [key.name for key in window.all if key.name in seeds]
    if ordered != list(seeds):
        lines.refuse(f"ring {window.ring}: window {window.epoch} has seeds out of order or of no key")
    for name, seed in seeds.items():
        if seals[name] != _commitment(seed):
            raise _bad_seal(window, name)
    return _Sealed(window, kek_id, seeds)


def _window(body: Lines) -> Window:
    """A window from its header; Window.header gives back these very bytes."""
    ring = body.take("ring", lines.name)
    epoch = body.take("epoch", lines.number)
    fence = body.take("fence", lines.number)
    barrier = body.take("barrier", lines.number)
    published_at = body.take("published_at", lines.number)
    ticket_lifetime_ms = body.take("ticket_lifetime_ms", lines.number)
    max_stranded_ms = body.take("max_stranded_ms", lines.number)
    ancestors = body.take("ancestors", lines.maybe(_digests)) or ()
    current, following = body.take("current", key_of), body.take("next", key_of)
    previous = []
    while body.next_is("previous"):
        previous.append(body.take("previous", key_of))
    return Window(
        ring=ring,
        epoch=epoch,
        fence=fence,
        barrier=barrier,
        published_at=published_at,
        ticket_lifetime_ms=ticket_lifetime_ms,
        max_stranded_ms=max_stranded_ms,
        ancestors=ancestors,
        current=current,
        next=following,
        previous=tuple(previous),
    )


def _digests(rest: str) -> tuple[str, ...]:
    return tuple(lines.digest(word) for word in rest.split(" "))


def key_of(rest: str) -> Key:
    """A key from what a header says of it (`key_words`); ValueError for anything else."""
    name, born, made_at, seals_from, seals_until, opens_until, steps_at, step_ms = rest.split(" ")
    return Key(
        name=lines.key_name(name),
        stek=None,
        born=lines.number(born),
        made_at=lines.number(made_at),
        seals_from=lines.maybe(lines.number)(seals_from),
        seals_until=lines.maybe(lines.number)(seals_until),
        opens_until=lines.number(opens_until),
        steps_at=lines.number(steps_at),
        step_ms=lines.number(step_ms),
    )


def _seeds(found: Envelope) -> dict[bytes, bytes]:
    tail, seeds = found.tail_lines(), dict[bytes, bytes]()
    while tail.next_is("seed"):
        name, seed = tail.take("seed", _seed_words)
        if name in seeds:
            lines.refuse(f"window: carries the seed of {name.hex()} twice")
        seeds[name] = seed
    tail.end()
    return seeds


def _seed_words(rest: str) -> tuple[bytes, bytes]:
    name, seed = rest.split(" ")
    return lines.key_name(name), SEALED_SEED(seed)


def _sealed_seeds(window: Window, kek: Kek, rand: Rand) -> dict[bytes, bytes]:
    aead, seeds = _aead(window, kek), dict[bytes, bytes]()
    for key in window.all:
        if key.stek is not None:
            nonce = rand(NONCE_BYTES)
            seeds[key.name] = nonce + aead.encrypt(nonce, key.stek.seed, _bound_to(window, key.name))
    if len({seed[:NONCE_BYTES] for seed in seeds.values()}) != len(seeds):
        raise WeakSeed("a nonce came twice within one window: a broken random source")
    return seeds


def _opened(sealed: _Sealed, kek: Kek) -> Window:
    window, aead = sealed.window, _aead(sealed.window, kek)

    def with_stek(key: Key) -> Key:
        seed = sealed.seeds.get(key.name)
        if seed is None:
            return key
        try:
            plain = aead.decrypt(seed[:NONCE_BYTES], seed[NONCE_BYTES:], _bound_to(window, key.name))
        except InvalidTag:
            raise _bad_seal(window, key.name) from None
        try:
            stek = Stek(plain, window.ring)
        except WeakSeed as weak:
            found = f"ring {window.ring}: window {window.epoch}, key {key.name.hex()}: {weak}"
            raise CorruptWindow(found, reason="weak seed") from None
        return replace(key, stek=stek)

    return replace(
        window,
        current=with_stek(window.current),
        next=with_stek(window.next),
        previous=tuple(with_stek(key) for key in window.previous),
    )


def _aead(window: Window, kek: Kek) -> AESGCM:
    # A key per window: a nonce that a broken source repeats in another window meets another key.
    return AESGCM(kek.derive("seal", window.ring, window.digest))


def _bound_to(window: Window, name: bytes) -> bytes:
    return f"keyrotd/1 seed\x00{window.digest}\x00".encode() + name


def _commitment(seed: bytes | None) -> str:
    return "-" if seed is None else hashlib.sha256(seed).hexdigest()


def _bad_seal(window: Window, name: bytes) -> CorruptWindow:
    where = f"ring {window.ring}: window {window.epoch}, key {name.hex()}"
    return CorruptWindow(f"{where}: the sealed seed is not the one that was signed", reason="bad seal")
