"""
Envoy's SDS file, pure: one response with one Secret in it, in the one shape that is known to do no harm.

Envoy takes a Secret whose keys' field is misspelt or missing as a good one, and resets every TLS connection from then
on. So nothing is written that was not read back first, field by field, and nothing else counts as read.
"""

import base64
import hashlib
import json
from dataclasses import dataclass

from keyrotd.core.stek import Secrets
from keyrotd.servers.layouts import NGINX80, decode_base64


@dataclass(frozen=True, slots=True)
class Document:
    """The keys of one secret, the sealing one first. Raises ValueError for no key at all, or twins."""

    secret: str
    keys: tuple[Secrets, ...]

    def __post_init__(self) -> None:
        names = [key.name for key in self.keys]
        if not names or len(set(names)) < len(names):
            raise ValueError("no keys, or twins")

    @property
    def version(self) -> str:
        """Tells the keys and their order, by their public names: Envoy shows it to whoever asks."""
        names = b"".join(key.name for key in self.keys)
        return hashlib.sha256(b"keyrotd/1 envoy" + names).hexdigest()[:32]

    def encode(self) -> bytes:
        # inline_bytes: Envoy never reads a `filename` again, since the Secret that names it has not changed.
        keys = [{"inline_bytes": base64.b64encode(NGINX80.encode(key)).decode()} for key in self.keys]
        secret = {"@type": _TYPE, "name": self.secret, "session_ticket_keys": {"keys": keys}}
        return json.dumps({"version_info": self.version, "resources": [secret]}, indent=1).encode() + b"\n"


def decode(content: bytes, secret: str) -> Document:
    """
    Accepts what `encode` writes for `secret` and nothing else; ValueError shows no byte of it.

    It goes by Envoy's own words for the fields, not by what `encode` happens to write.
    """
    try:
        response = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    match response:
        case {"resources": [{"@type": kind, "name": name, "session_ticket_keys": {"keys": [*keys]}}]}:
            if (kind, name) != (_TYPE, secret):
                raise ValueError("another secret")
        case _:
            raise ValueError("no session ticket keys")
    document = Document(secret, tuple(_key(key) for key in keys))
    if document.encode() != content:
        raise ValueError("not as keyrotd writes it")
    return document


def _key(source: object) -> Secrets:
    match source:
        case {"inline_bytes": str(text)}:
            return NGINX80.decode(decode_base64(text.encode()))
        case _:
            raise ValueError("a key that is not inline")


_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
