"""
What is fuzzed, and what must hold for any bytes.

Our own errors come out and no others, whatever is accepted is exactly what would be written, and nothing is accepted
that was not made with the keys.

A change of one bit ends at a signature, so that nothing behind it would ever be reached. Therefore each signed kind is
fuzzed twice: as it comes, where only what the vectors' maker made may pass; and signed anew after the change, as a
scheduler, operator or node of ill will could.
"""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import atheris

# What is imported here is what the coverage of guides.
with atheris.instrument_imports(include=["keyrotd"]):
    from keyrotd.core.decide import NO_MEMORY
    from keyrotd.core.errors import ConfigError, CorruptWindow
    from keyrotd.core.messages import Beat, Event, Pause, Peers, Report, Request, Resume
    from keyrotd.core.stek import Scheme, Stek
    from keyrotd.core.succession import succession
    from keyrotd.core.window import Window
    from keyrotd.daemon.clock import Heard
    from keyrotd.daemon.state import MAX_CACHE_BYTES, Cache, Remembered, decode_cache, recall
    from keyrotd.seal import lines, messages
    from keyrotd.seal.keyfiles import Kek, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey, key_line, parse
    from keyrotd.seal.links import Links, open_links, seal_links
    from keyrotd.seal.signed import signed
    from keyrotd.seal.window import forget, open_window, peek, read_header
    from keyrotd.servers import acks, keyfile
    from keyrotd.store import answers, plain
    from keyrotd.store.line import FAILED, BoundedSocket, Bounds, converse
    from keyrotd.store.redispy import Connection, MaintNotificationsConfig, NoBackoff, ResponseError, Retry
    from keyrotd.testing.folder import MemoryFolder
    from keyrotd.tls import ticket
    from keyrotd.tls.hello import Malformed, offered_ticket

from tests.vectors import make, make_keyfiles

RING = "edge"
KEKS = (Kek(make.KEK),)
SIGNER, OPERATOR = SigningKey(make.SIGNING), OperatorKey(make.OPERATOR)
VERIFIERS, OPERATORS = (SIGNER.verify_key,), (OPERATOR.verify_key,)

Target = Callable[[bytes], None]


def vectors(kind: str) -> dict[bytes, str]:
    """What the maker made of a kind, and what it expects of it."""
    made = {}
    for path in sorted(make.FOLDER.glob(f"{kind}_*.txt")):
        head, _, data = path.read_bytes().partition(b"\n\n")
        made[data] = next(row for row in head.decode().split("\n") if row.startswith("expect: "))[8:]
    return made


def genuine(kind: str) -> list[bytes]:
    return [data for data, expected in vectors(kind).items() if expected == "ok"]


# Sealed, signed and proven things.


def _signed_part(data: bytes) -> bytes:
    """A window's seeds stand after its signature, and each may be left out."""
    head, mark, rest = data.rpartition(b"\nsigned ")
    return head + mark + rest.split(b"\n", 1)[0]


def _window(data: bytes) -> None:
    with suppress(CorruptWindow):
        peek(data)
    with suppress(CorruptWindow):
        read_header(data, verifiers=VERIFIERS, ring=RING)
    with suppress(CorruptWindow):
        window = open_window(data, verifiers=VERIFIERS, keks=KEKS, ring=RING)
        assert _signed_part(data) in {_signed_part(each) for each in genuine("window")}
        assert forget(data, keep=frozenset(key.name for key in window.all)) == data


def _window_signed(data: bytes) -> None:
    head, _, seeds = data.partition(b"\n\n")
    with suppress(CorruptWindow, UnicodeDecodeError):
        made = signed(head.decode("ascii") + "\n", kind="window", signer=SIGNER).encode() + seeds
        unproven = peek(made).window
        assert isinstance(unproven, Window)
        assert read_header(made, verifiers=VERIFIERS, ring=RING) == unproven
        # What a window is called is the hash of what would be written of it.
        assert unproven.digest == hashlib.sha256(made[: made.index(b"\nkek ") + 1]).hexdigest()
        opened = open_window(made, verifiers=VERIFIERS, keks=KEKS, ring=RING)
        assert opened.digest == unproven.digest


def _unsigned(data: bytes) -> bytes:
    head, _, rest = data.rpartition(b"\nsigned ")
    return head + b"\n\n" + rest.partition(b"\n")[2]


_READ: dict[str, Callable[[bytes], Any]] = {
    "beat": partial(messages.read_beat, verifiers=VERIFIERS, ring=RING),
    "request": partial(messages.read_request, operator_verifiers=OPERATORS, ring=RING),
    "event": partial(messages.read_event, verifiers=VERIFIERS, ring=RING),
    "peers": partial(messages.read_peers, verifiers=VERIFIERS, ring=RING),
    "report": partial(messages.read_report, keks=KEKS, ring=RING),
}


def _written(value: object) -> bytes:
    match value:
        case Beat():
            return messages.sign_beat(value, SIGNER)
        case Request() | Pause() | Resume():
            return messages.sign_request(value, OPERATOR)
        case Event():
            return messages.sign_event(value, SIGNER)
        case Peers():
            return messages.sign_peers(value, SIGNER)
        case Report():
            return messages.write_report(value, KEKS)
    raise AssertionError(value)


def _says(value: object, data: bytes) -> bool:
    """Whether `data` is what would be written, or the same lines in a later version, which need not be used for it."""
    written = _written(value)
    (first, *said, _), (latest, *found, _) = written.splitlines(), data.splitlines()
    return written == data or (said == found and first < latest)


def _newer(value: object) -> bool:
    """Whether it is read only as far as this version goes."""
    return isinstance(value, Report) and bool(value.newer)


def _message(kind: str, data: bytes) -> None:
    with suppress(CorruptWindow):
        value = _READ[kind](data)
        assert data in genuine(kind)
        assert _newer(value) or _says(value, data)


def _message_signed(kind: str, data: bytes) -> None:
    with suppress(CorruptWindow, UnicodeDecodeError):
        body = data.decode("ascii") + "\n"
        if kind == "report":
            mac = messages._mac(KEKS[0], RING, body)
            made = (body + lines.line("mac", KEKS[0].id, mac.hex())).encode()
        else:
            made = signed(body, kind=kind, signer=OPERATOR if kind == "request" else SIGNER).encode()
        value = _READ[kind](made)
        assert _newer(value) or _says(value, made)


def _bodies(kind: str) -> list[bytes]:
    return [data.rpartition(b"\nmac " if kind == "report" else b"\nsigned ")[0] for data in vectors(kind)]


# Files of a daemon's own.


def _cache(data: bytes) -> None:
    with suppress(CorruptWindow):
        cache = decode_cache(data)
        assert len(data) <= MAX_CACHE_BYTES
        assert cache.encode() == data


def _links(data: bytes) -> None:
    with suppress(CorruptWindow):
        links = open_links(data, ring=RING, keks=KEKS)
        assert open_links(seal_links(links, ring=RING, keks=KEKS, rand=bytes), ring=RING, keks=KEKS) == links
        assert {*data.splitlines()} <= {*_LINKS.splitlines()}  # each is sealed by itself, and may be left out


def _memory(data: bytes) -> None:
    with suppress(CorruptWindow):
        assert recall(MemoryFolder({"memory": data}), "memory").encode() == data


def _key_file(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for kind in (Kek, SigningKey, VerifyKey, OperatorKey, OperatorVerifyKey):
        try:
            keys = parse(text, kind, "a file")
        except ConfigError as error:
            told = str(error)
            assert not any(secret in told for secret in _KEY_WORDS)
        else:
            assert parse("\n".join(map(key_line, keys)), kind, "a file") == keys


# What passes between an agent and readers inside of servers.


def _reader_file(data: bytes) -> None:
    with suppress(keyfile.BadKeyFile):
        assert keyfile.decode(data).encode() == data
    digested = data[:-32] + hashlib.sha256(data[:-32]).digest()
    with suppress(keyfile.BadKeyFile):
        assert keyfile.decode(digested).encode() == digested


_ACK = b"""\
keyrotd-ack 1
pid 4711
parent 4700
processes 2
poll_ms 1000
digest -
seals 00112233445566778899aabbccddeeff
epoch 12
step 0
installed_at 1800000000000
contexts 3
fault bad-digest
"""


def _ack(data: bytes) -> None:
    try:
        found = acks.parse(data, touched_at=0)
    except ValueError:
        return
    values = (getattr(found, line.split(b" ")[0].decode()) for line in data.splitlines()[1:])
    told = [line.split(b" ")[1].decode() for line in data.splitlines()[1:]]
    assert ["-" if value is None else str(value) for value in values] == told


# What a store answers.

_HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n"
_DECODERS: tuple[Callable[[list[Any]], object], ...] = (
    lambda replies: answers.desk(replies[0]),
    lambda replies: answers.look(replies[0]),
    lambda replies: answers.outcome(replies[0]),
    lambda replies: answers.reports(replies[0]),
    lambda replies: answers.events(replies[0]),
    lambda replies: plain.polled(plain.glanced(replies[:5]), replies[5:7], replies[0]),
    lambda replies: plain.offers(plain.fair(["d1", "d2"], replies[:2]), replies[2:4]),
)


class _Wire:
    """A socket on which all has been said already."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def recv(self, size: int) -> bytes:
        said, self._said = self._said[:size], self._said[size:]
        return said

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def _resp(data: bytes) -> None:
    bounds = Bounds()
    bounds.begin(60_000, 1_000_000)
    wire: Any = _Wire(data[1:] if data[:1] == b"!" else _HELLO + data)
    kind: Any = Connection
    connection = kind(
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
        client_name="keyrotd",
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    connection._connect = lambda: BoundedSocket(wire, bounds)
    try:
        connection.connect()
        replies = converse(connection, [("PING",)] * 7)
    except FAILED:
        return
    finally:
        connection.disconnect()
    for decode in _DECODERS:
        with suppress(answers.Misshapen, ResponseError, ValueError):
            decode(replies)


# What strangers send to a TLS server.


def _tls_hello(data: bytes) -> None:
    with suppress(Malformed):
        offered = offered_ticket(data)
        assert offered is None or offered in data


def _tls_ticket(data: bytes) -> None:
    stek = Stek(make.SEEDS["current"], RING)
    for scheme in Scheme:
        assert not ticket.opens_ticket(data, stek.secrets(scheme), scheme)
    assert ticket.key_name(data) in (None, data[:16])
    ticket.sealed_by_zeros(data)


_KEY_WORDS = [make.b64(secret) for secret in (make.KEK, make.SIGNING, make.OPERATOR)]
_KEY_LINES = [key_line(key).encode() for key in (*KEKS, SIGNER, OPERATOR, *VERIFIERS, *OPERATORS)]
_WINDOW = open_window(
    make.FOLDER.joinpath("window_plain.txt").read_bytes().partition(b"\n\n")[2],
    verifiers=VERIFIERS,
    keks=KEKS,
    ring=RING,
)
_NONCE = partial(make.fixed, "nonce")
_LINKS = seal_links(Links(succession=succession(_WINDOW), strays=_WINDOW.all), ring=RING, keks=KEKS, rand=_NONCE)
_CACHE = Cache(
    windows=(b"one window", b"another"),
    links=_LINKS,
    confirmed_at=1_780_000_000_000,
    spread=True,
    stood_in=False,
    sealed=(),
    heard=Heard(1_780_000_000_000, 5_000, "boot-1", True),
).encode()
_MEMORY = Remembered(memory=NO_MEMORY.after(_WINDOW), fence=7, signed_at=1_780_000_000_000, life=9).encode()
_REPLIES = (
    b"*11\r\n:1\r\n$1\r\na\r\n:9\r\n$2\r\nd1\r\n$3\r\none\r\n_\r\n*2\r\n$1\r\nr\r\n$1\r\nx\r\n*1\r\n$2\r\nd1\r\n:1\r\n:0\r\n:5\r\n",
    b"$4\r\nbeat\r\n$2\r\nd1\r\n:3\r\n:1\r\n:200\r\n$2\r\nd1\r\n$3\r\none\r\n",
    b"-WRONGTYPE no\r\n-MOVED 1 a:1\r\n-ASK 1 b:2\r\n-NOSCRIPT no\r\n+OK\r\n:-1\r\n$-1\r\n",
    b"*6\r\n$0\r\n\r\n_\r\n_\r\n$0\r\n\r\n:0\r\n:0\r\n#t\r\n,1.5\r\n~1\r\n:1\r\n>1\r\n+x\r\n(99\r\n=5\r\ntxt:a\r\n",
    b"!%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n*2\r\n$9\r\npublished\r\n:1\r\n",
)
_CLIENT_HELLO = (
    b"\x16\x03\x01\x00\x75\x01\x00\x00\x71\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00\x00\x46"
    b"\x00\x29\x00\x42\x00\x1d\x00\x17" + bytes(23) + b"\x00\x00\x00\x00\x00\x21\x20" + bytes(32)
)

#: By name: what to run, and seeds.
TARGETS: dict[str, tuple[Target, Iterable[bytes]]] = {
    "window": (_window, vectors("window")),
    "window-signed": (_window_signed, map(_unsigned, vectors("window"))),
    **{kind: (partial(_message, kind), vectors(kind)) for kind in _READ},
    **{f"{kind}-signed": (partial(_message_signed, kind), _bodies(kind)) for kind in _READ},
    "cache": (_cache, [_CACHE]),
    "links": (_links, [_LINKS]),
    "memory": (_memory, [_MEMORY]),
    "key-file": (_key_file, [*_KEY_LINES, b"# all\n" + b"\n".join(_KEY_LINES)]),
    "reader-file": (_reader_file, [path.read_bytes() for path in make_keyfiles.FOLDER.glob("*.bin")]),
    "ack": (_ack, [_ACK]),
    "replies": (_resp, _REPLIES),
    "tls-hello": (_tls_hello, [_CLIENT_HELLO]),
    "tls-ticket": (_tls_ticket, [bytes(160), make.fixed("ticket", 64) * 3]),
}
