"""
What an agent keeps of a succession, sealed for itself alone: no signature covers it, so nobody else may believe it.

    keyrotd links v1
    ring NAME
    kek ID                                        which KEK seals the seeds
    ROLE KEY... ROOT,ROOT... ENDS_AT BASE64       the oldest follower of a line: next, current or other
    stray KEY... BASE64                           a follower that an older window left

KEY is a key's line as in a window's header, BASE64 nonce, ciphertext and tag of AES-256-GCM over the seed, with the
line before it as associated data.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyrotd.core.errors import CorruptWindow, WeakSeed
from keyrotd.core.stek import Stek
from keyrotd.core.succession import Line, Succession
from keyrotd.core.window import Key, key_words
from keyrotd.seal import lines, versions
from keyrotd.seal.keyfiles import Kek, Keks, Rand
from keyrotd.seal.window import NONCE_BYTES, SEALED_SEED, key_of

#: Some lines of up to 2.5 KiB, and as many strays as a window has keys, each of 300 bytes.
MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Links:
    """`succession` is None where nobody has gone on alone."""

    succession: Succession | None
    strays: tuple[Key, ...]


def seal_links(links: Links, *, ring: str, keks: Keks, rand: Rand) -> bytes:
    kek = keks[0]
    rows = [f"{role} {key_words(line.oldest)} {_roots(line)} {line.ends_at}" for role, line in _lines(links)]
    keys = [line.oldest for _, line in _lines(links)]
    rows += [f"stray {key_words(key)}" for key in links.strays]
    head = (lines.line("ring", ring), lines.line("kek", kek.id))
    body = (
        f"{row} {lines.to_base64(_sealed(key, row, ring, kek, rand))}\n"
        for row, key in zip(rows, (*keys, *links.strays), strict=True)
    )
    return versions.body("links", (*head, *body)).encode()


def open_links(data: bytes, *, ring: str, keks: Keks) -> Links:
    """Raises CorruptWindow for what this node's agent did not write, or not with a KEK that is at hand."""
    body = lines.own(data, kind="links", limit=MAX_BYTES)
    if body.take("ring", lines.name) != ring:
        raise CorruptWindow("links: are of another ring", reason="wrong ring")
    kek_id = body.take("kek", lines.key_id)
    kek = next((kek for kek in keks if kek.id == kek_id), None)
    if kek is None:
        raise CorruptWindow(f"links: are sealed with KEK {kek_id}, which is not at hand", reason="unknown kek")
    following = body.take("next", _line("next", ring, kek)) if body.next_is("next") else None
    standing = body.take("current", _line("current", ring, kek)) if body.next_is("current") else None
    others = []
    while body.next_is("other"):
        others.append(body.take("other", _line("other", ring, kek)))
    strays = []
    while body.next_is("stray"):
        strays.append(body.take("stray", _stray(ring, kek)))
    body.end()
    gone_on = Succession(current=standing, next=following, others=tuple(others))
    return Links(succession=gone_on if gone_on.lines else None, strays=tuple(strays))


def _lines(links: Links) -> list[tuple[str, Line]]:
    if links.succession is None:
        return []
    others = (("other", line) for line in links.succession.others)
    found = (("next", links.succession.next), ("current", links.succession.current), *others)
    return [(role, line) for role, line in found if line is not None]


def _roots(line: Line) -> str:
    return ",".join(root.hex() for root in line.roots)


def _line(role: str, ring: str, kek: Kek) -> Callable[[str], Line]:
    def parse(rest: str) -> Line:
        words, sealed = rest.rsplit(" ", 1)
        key, roots, ends_at = words.rsplit(" ", 2)
        return Line(
            roots=tuple(lines.key_name(root) for root in roots.split(",")),
            oldest=_opened(key_of(key), f"{role} {words}", sealed, ring, kek),
            ends_at=lines.number(ends_at),
        )

    return parse


def _stray(ring: str, kek: Kek) -> Callable[[str], Key]:
    def parse(rest: str) -> Key:
        words, sealed = rest.rsplit(" ", 1)
        return _opened(key_of(words), f"stray {words}", sealed, ring, kek)

    return parse


def _sealed(key: Key, row: str, ring: str, kek: Kek, rand: Rand) -> bytes:
    assert key.stek is not None  # a follower has been derived
    nonce = rand(NONCE_BYTES)
    return nonce + AESGCM(kek.derive("links", ring)).encrypt(nonce, key.stek.seed, row.encode())


def _opened(key: Key, row: str, sealed: str, ring: str, kek: Kek) -> Key:
    data = SEALED_SEED(sealed)
    try:
        seed = AESGCM(kek.derive("links", ring)).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], row.encode())
        return replace(key, stek=Stek(seed, ring))
    except (InvalidTag, WeakSeed):
        raise CorruptWindow(f"links: key {key.name.hex()} was altered", reason="bad seal") from None
