"""Strict lines of text: a reader accepts a byte only where the writer would have put that very byte."""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NoReturn, TypeVar
from urllib.parse import quote, unquote_to_bytes

from keyrotd.core.errors import CorruptWindow
from keyrotd.seal import versions

T = TypeVar("T")

#: Redis, JSON and Lua readers all hold an integer up to here, or say so.
MAX_NUMBER = 2**63 - 1
#: Rings, servers and drivers are called like this; nodes like this too, up to the length of a DNS name.
MAX_NAME = 64
MAX_NODE = 253

_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\n"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WORDS = re.compile(r"(?:[!-$&-~]|%[0-9A-F]{2})+")
#: Percent-encoding leaves every printable ASCII character but the blank and the percent sign readable.
_SAFE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
#: Control and format characters (bidirectional overrides among them), surrogates, line and paragraph separators.
_UNFIT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Frame:
    """The lines of a message, the first one too, looked at only as far as their size, alphabet and first line."""

    kind: str
    version: int
    rows: list[str]

    @property
    def newer(self) -> bool:
        """Whether it may say more than is read here."""
        return self.version > versions.NEWEST[self.kind]

    def body(self, *, end: int | None = None) -> "Lines":
        """The lines between the first and `end`."""
        return Lines(self.kind, self.rows[1:end], first=2, version=self.version)


def frame(data: bytes, *, kind: str, limit: int) -> Frame:
    """Raises CorruptWindow for what nobody wrote as a `kind`, of whatever version: see `versions.refuse_unread`."""
    if len(data) > limit:
        raise CorruptWindow(f"{kind}: want at most {limit} bytes, found {len(data)}", reason="too large")
    if not data.endswith(b"\n") or data.translate(None, _PRINTABLE):
        refuse(f"{kind}: want lines of printable ASCII, the last one ended too")
    return Frame(kind, versions.version_of(data, kind=kind), data.decode("ascii").split("\n")[:-1])


def own(data: bytes, *, kind: str, limit: int) -> "Lines":
    """The body of what a daemon wrote for itself; what is of another version is refused as that, whatever its size."""
    versions.look(data, kind=kind)
    return frame(data, kind=kind, limit=limit).body()


def refuse(message: str) -> NoReturn:
    raise CorruptWindow(message, reason="malformed")


class Lines:
    """
    A cursor over lines in their one right order. Errors name the line by number and never quote it.

    Lines that a later version than is read here added at the end are left alone.
    """

    def __init__(self, kind: str, lines: list[str], *, first: int = 1, version: int = 1) -> None:
        self._kind = kind
        self._lines = lines
        self._first = first
        self._version = version
        self._at = 0

    def take(self, field: str, parse: Callable[[str], T]) -> T:
        """What `parse` makes of the rest of the next line, which must be a `field`; ValueError is what it refuses."""
        # A leader reads fifteen lines of each of ten thousand reports: this is where its time goes.
        row, start = self._lines[self._at] if self._at < len(self._lines) else "", f"{field} "
        if not row.startswith(start):
            refuse(f"{self._here}: want `{field}`")
        rest = row[len(start) :]
        try:
            value = parse(rest)
        except ValueError:
            # Not chained: the cause may quote what it could not read.
            raise CorruptWindow(f"{self._here}: `{field}` is not written as it must be", reason="malformed") from None
        self._at += 1
        return value

    def next_is(self, field: str, *, since: int = 1) -> bool:
        """Whether a `field` follows, which version `since` brought: in an older one it has no place."""
        if self._at >= len(self._lines) or self._version < since:
            return False
        return self._lines[self._at].startswith(f"{field} ")

    def end(self) -> None:
        if self._at < len(self._lines) and self._version <= versions.NEWEST[self._kind]:
            refuse(f"{self._here}: want no more lines")

    @property
    def _here(self) -> str:
        return f"{self._kind}, line {self._first + self._at}"


def line(field: str, *words: object) -> str:
    return " ".join((field, *(str(word) for word in words))) + "\n"


def number(word: str) -> int:
    if not _NUMBER.fullmatch(word) or (value := int(word)) > MAX_NUMBER:
        raise ValueError
    return value


def name(word: str) -> str:
    """How rings, servers and drivers may be called."""
    if len(word) > MAX_NAME or not _NAME.fullmatch(word):
        raise ValueError
    return word


def node(word: str) -> str:
    """How nodes may be called: any host name will do."""
    if len(word) > MAX_NODE or not _NAME.fullmatch(word):
        raise ValueError
    return word


def address(word: str) -> str:
    """An IP address and a port, as `Target` writes them; no name, which others might resolve otherwise."""
    host, _, port = word.rpartition(":")
    found = ip_address(host.removeprefix("[").removesuffix("]"))
    shown = str(found) if isinstance(found, IPv4Address) else f"[{found}]"
    # An IPv4 address within an IPv6 one is written otherwise by other Pythons.
    mapped = isinstance(found, IPv6Address) and found.ipv4_mapped is not None
    if mapped or "%" in host or word != f"{shown}:{number(port)}" or not 0 < int(port) < 2**16:
        raise ValueError
    return word


def hexadecimal(length: int) -> Callable[[str], str]:
    """Exactly `length` lower-case hexadecimal digits."""
    pattern = re.compile(rf"[0-9a-f]{{{length}}}")

    def parse(word: str) -> str:
        if not pattern.fullmatch(word):
            raise ValueError
        return word

    return parse


digest = hexadecimal(64)
key_id = hexadecimal(16)
_key_name = hexadecimal(32)


def key_name(word: str) -> bytes:
    """The 16 public bytes by which a key is known."""
    return bytes.fromhex(_key_name(word))


def base64_of(length: int) -> Callable[[str], bytes]:
    """Exactly `length` bytes in the one base64 that encodes them (spare bits zero, padding there)."""

    def parse(word: str) -> bytes:
        try:
            found = base64.b64decode(word, validate=True)
        except binascii.Error as error:
            raise ValueError from error
        if len(found) != length or to_base64(found) != word:
            raise ValueError
        return found

    return parse


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def yes_or_no(word: str) -> bool:
    if word not in {"yes", "no"}:
        raise ValueError
    return word == "yes"


def maybe(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """`-` for None."""
    return lambda word: None if word == "-" else parse(word)


def or_dash(value: object) -> object:
    return "-" if value is None else value


def text(limit: int) -> Callable[[str], str]:
    """Free text of at most `limit` bytes of UTF-8, percent-encoded; `-` for none."""

    def parse(word: str) -> str:
        if word == "-":
            return ""
        if not _WORDS.fullmatch(word):
            raise ValueError
        raw = unquote_to_bytes(word)
        found = raw.decode("utf-8")
        if len(raw) > limit or not fit(found) or to_text(found) != word:
            raise ValueError
        return found

    return parse


def to_text(words: str) -> str:
    if words in {"", "-"}:
        return "%2D" if words else "-"
    return quote(words, safe=_SAFE, errors="replace")


def fit(words: str) -> bool:
    """Whether free text may travel and be printed: no character that moves a cursor or turns a line around."""
    return not any(unicodedata.category(character) in _UNFIT for character in words)


def clip(words: str, limit: int) -> str:
    """`words` made fit: blanks for unfit characters, then at most `limit` bytes of UTF-8."""
    fitted = "".join(" " if unicodedata.category(character) in _UNFIT else character for character in words)
    return fitted.encode()[:limit].decode(errors="ignore")
