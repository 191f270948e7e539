"""The signed envelope: a body of lines, then who signed every byte of it. Nothing is believed before it is proven."""

from dataclasses import dataclass
from typing import TypeVar

from keyrotd.core.errors import CorruptWindow
from keyrotd.seal import lines, versions
from keyrotd.seal.keyfiles import OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey
from keyrotd.seal.lines import Lines

Signer = TypeVar("Signer", SigningKey, OperatorKey)

_SIGNATURE = lines.base64_of(64)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message taken apart as far as needed to check its signature. `tail` stands after it and is not under it."""

    kind: str
    version: int
    body: list[str]
    signer_id: str
    signature: bytes
    tail: list[str]

    def body_lines(self) -> Lines:
        """The body without its first line. Only here a version that is not read is refused: `prove` comes first."""
        versions.refuse_unread(self.kind, self.version)
        return Lines(self.kind, self.body[1:], first=2, version=self.version)

    def tail_lines(self) -> Lines:
        return Lines(self.kind, self.tail, first=len(self.body) + 2)


def signed(body: str, *, kind: str, signer: SigningKey | OperatorKey) -> str:
    """`body`, whose last line is ended, and its signature."""
    return body + lines.line("signed", signer.id, lines.to_base64(signer.sign(_message(kind, body))))


def envelope(data: bytes, *, kind: str, limit: int) -> Envelope:
    found = lines.frame(data, kind=kind, limit=limit)
    rows = found.rows
    at = next((at for at, line in enumerate(rows) if line.startswith("signed ")), None)
    if at is None:
        lines.refuse(f"{kind}: want a `signed` line, found none")
    signer_id, signature = Lines(kind, rows[at:], first=at + 1).take("signed", _signed_words)
    return Envelope(kind, found.version, rows[:at], signer_id, signature, rows[at + 1 :])


def prove(found: Envelope, *, verifiers: tuple[VerifyKey, ...] | tuple[OperatorVerifyKey, ...]) -> None:
    """Raise CorruptWindow unless one of `verifiers` signed the body."""
    verifier = next((key for key in verifiers if key.id == found.signer_id), None)
    if verifier is None:
        raise CorruptWindow(
            f"{found.kind}: signed by key {found.signer_id}, want one of {', '.join(key.id for key in verifiers)}",
            reason="unknown signer",
            hint="is its verify key in the verify key file? if nobody made this key, someone writes to the store",
        )
    body = "".join(line + "\n" for line in found.body)
    if not verifier.verifies(found.signature, _message(found.kind, body)):
        raise CorruptWindow(f"{found.kind}: the signature of {found.signer_id} does not fit", reason="bad signature")


def refuse_other_ring(kind: str, *, found: str, ring: str) -> None:
    if found != ring:
        raise CorruptWindow(f"ring {ring}: found a {kind} of ring {found}", reason="wrong ring")


def _signed_words(rest: str) -> tuple[str, bytes]:
    signer_id, _, signature = rest.partition(" ")
    return lines.key_id(signer_id), _SIGNATURE(signature)


def _message(kind: str, body: str) -> bytes:
    # The label keeps what is signed here apart from whatever else the same key might ever sign.
    return f"keyrotd/1 {kind}\x00{body}".encode()
