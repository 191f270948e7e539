"""Looks for secrets in whatever a fleet leaves behind, in every dress in which bytes walk into text."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote_from_bytes

#: Half a key is a leak too: secrets are looked for in pieces of this size.
_PIECE = 16
#: Every form of a piece is longer; where its beginning stands, the rest is compared.
_BEGINNING = 8


class Leaks:
    """Finds any of `secrets` (by label; 16 bytes or a multiple) in any number of places."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._forms: dict[bytes, list[tuple[bytes, str]]] = {}
        for label, secret in secrets.items():
            for piece in (secret[at : at + _PIECE] for at in range(0, len(secret), _PIECE)):
                for form, written in forms(piece):
                    self._forms.setdefault(written[:_BEGINNING], []).append((written, f"{label} as {form}"))

    def within(self, data: bytes) -> set[str]:
        """What is in there, in words."""
        forms = self._forms
        return {
            words
            for at in range(len(data) - _BEGINNING + 1)
            if (beginning := data[at : at + _BEGINNING]) in forms
            for written, words in forms[beginning]
            if data.startswith(written, at)
        }

    def among(self, places: Iterable[tuple[str, bytes]]) -> dict[str, set[str]]:
        """The places that hold any secret, and which."""
        return {place: found for place, data in places if (found := self.within(data))}


def forms(piece: bytes) -> Iterator[tuple[str, bytes]]:
    """Every way in which a log, a store, a traceback or a configuration might write these bytes, by its name."""
    for form, written in _written(piece):
        yield form, written
        if b"\\" in written or b'"' in written:
            # What a log of JSON makes of a repr, and MONITOR of a script's argument.
            quoted = written.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            yield f"{form}, quoted", quoted


def _written(piece: bytes) -> Iterator[tuple[str, bytes]]:
    latin = piece.decode("latin-1")
    yield "raw bytes", piece
    yield "UTF-8 of Latin-1", latin.encode()
    for case, digits in (("lower", piece.hex()), ("upper", piece.hex().upper())):
        pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
        yield f"{case} hex", digits.encode()
        yield f"{case} hex with colons", ":".join(pairs).encode()
        yield f"{case} hex with blanks", " ".join(pairs).encode()
        yield f"{case} C escapes", "".join(f"\\x{pair}" for pair in pairs).encode()
        yield f"{case} JSON escapes", "".join(f"\\u00{pair}" for pair in pairs).encode()
    yield "octal escapes", "".join(f"\\{byte:03o}" for byte in piece).encode()
    yield "a list of numbers", ", ".join(map(str, piece)).encode()
    yield "a dense list of numbers", ",".join(map(str, piece)).encode()
    yield "a Python bytes literal", repr(piece)[2:-1].encode()
    yield "a Python string literal", repr(latin)[1:-1].encode()
    yield "a JSON string in ASCII", json.dumps(latin)[1:-1].encode()
    yield "a JSON string", json.dumps(latin, ensure_ascii=False)[1:-1].encode()
    yield "what MONITOR writes", _as_monitor_writes(piece)
    yield "what protobuf writes", _as_protobuf_writes(piece)
    yield "percent-encoded", quote_from_bytes(piece).encode()
    for offset in range(3):
        yield f"base64 at offset {offset}", _base64_core(piece, offset)
        yield f"URL-safe base64 at offset {offset}", _base64_core(piece, offset).translate(_URL_SAFE)


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _base64_core(piece: bytes, offset: int) -> bytes:
    """The letters that these bytes alone decide, where they begin `offset` bytes into a group of three."""
    written = base64.b64encode(bytes(offset) + piece)
    return written[-(-offset * 8 // 6) : (offset + len(piece)) * 8 // 6]


def _as_monitor_writes(piece: bytes) -> bytes:
    # sdscatrepr in the servers' source: short escapes for some, \xhh for what is not printable.
    short = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x07: "\\a", 0x08: "\\b"}
    return "".join(
        short.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in piece
    ).encode()


def _as_protobuf_writes(piece: bytes) -> bytes:
    # Its text format, which Envoy logs: short escapes for some, three octal digits for what is not printable.
    short = {0x22: '\\"', 0x27: "\\'", 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
    return "".join(
        short.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03o}") for byte in piece
    ).encode()
