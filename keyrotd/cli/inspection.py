"""What bytes of keyrotd's say of themselves, line by line, and whether keys at hand prove it. Never a secret."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from keyrotd.cli import server_files
from keyrotd.cli.screen import roles, window_values
from keyrotd.cli.words import instant, sheet, short, span, table
from keyrotd.core.errors import ConfigError, CorruptWindow
from keyrotd.core.window import Key
from keyrotd.seal import lines
from keyrotd.seal.keyfiles import AnyKey, Kek, Keks, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey, parse
from keyrotd.seal.messages import read_beat, read_event, read_report, read_request
from keyrotd.seal.signed import envelope
from keyrotd.seal.window import Unproven, open_window, peek, read_header

#: More than any file that keyrotd writes.
MAX_BYTES = 2_097_152


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys at hand; an empty tuple where there are none. `keks` by ring."""

    verifiers: tuple[VerifyKey, ...] = ()
    operators: tuple[OperatorVerifyKey, ...] = ()
    keks: Mapping[str, Keks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`proven` None: no key at hand that could tell. `values` is the --json document, `text` the same for people."""

    kind: str
    proven: bool | None
    verdict: str
    values: dict[str, object]
    text: tuple[str, ...]


Inspector: TypeAlias = Callable[[bytes, Keyring, int], Found]


def inspect(data: bytes, keyring: Keyring, now_at: int) -> Found:
    """Raises CorruptWindow or ConfigError, in words that quote nothing, for what keyrotd never wrote."""
    first = data[:64].split(b"\n", 1)[0].decode("latin-1")
    for kind, look in _KINDS.items():
        if first.startswith(f"keyrotd {kind} "):
            return look(data, keyring, now_at)
    served = server_files.look(data)
    if served is not None:
        return Found(kind=served.kind, proven=None, verdict=served.verdict, values=served.values, text=served.text)
    return _key_file(data)


def _window(data: bytes, keyring: Keyring, now_at: int) -> Found:
    found = peek(data)
    ring = found.window.ring
    keks = keyring.keks.get(ring)
    proven, verdict = None, "not verified: no verify key at hand"
    if keyring.verifiers:
        proven, verdict = _judged(lambda: read_header(data, verifiers=keyring.verifiers, ring=ring), "signature")
    if proven and keks is None:
        verdict += "; seeds not opened: no KEK of this ring at hand"
    elif proven and keks is not None:
        proven, verdict = _judged(
            lambda: open_window(data, verifiers=keyring.verifiers, keks=keks, ring=ring), "signature and every seed"
        )
    values = {
        "ring": ring,
        **window_values(found.window),
        "kek": found.kek_id,
        "signer": found.signer_id,
        "seeds": sorted(name.hex() for name in found.carried),
        "ancestors": list(found.window.ancestors),
    }
    return Found(kind="window", proven=proven, verdict=verdict, values=values, text=tuple(_window_text(found, now_at)))


def _window_text(found: Unproven, now_at: int) -> Iterator[str]:
    window = found.window
    yield from sheet(
        [
            ("ring", window.ring),
            ("epoch", f"{window.epoch}, fence {window.fence}, barrier {window.barrier}"),
            ("digest", window.digest),
            ("published", instant(window.published_at, now_at)),
            ("tickets", f"live {span(window.ticket_lifetime_ms)}, step {span(window.current.step_ms)}"),
            ("ancestors", ", ".join(map(short, window.ancestors)) or "none"),
            ("sealed by", f"KEK {found.kek_id}, signed by {found.signer_id}"),
        ]
    )
    head = ("key", "name", "born", "made", "seals until", "opens until", "seed")
    yield from table([head, *(_key_row(role, key, found, now_at) for role, key in roles(window))])


def _key_row(role: str, key: Key, found: Unproven, now_at: int) -> tuple[str, ...]:
    seals = "-" if key.seals_until is None else instant(key.seals_until, now_at)
    carried = "sealed" if key.name in found.carried else "forgotten"
    opens = instant(key.opens_until, now_at)
    return (role, key.name.hex(), str(key.born), instant(key.made_at, now_at), seals, opens, carried)


def _judged(read: Callable[[], object], what: str) -> tuple[bool, str]:
    try:
        read()
    except CorruptWindow as corrupt:
        return False, f"NOT VERIFIED ({corrupt.reason}): {corrupt}"
    return True, f"verified: {what}"


def _signed(kind: str, read: Callable[[bytes, Keyring, str], object], keys: Callable[[Keyring], object]) -> Inspector:
    def look(data: bytes, keyring: Keyring, now_at: int) -> Found:
        found = envelope(data, kind=kind, limit=MAX_BYTES)
        found.tail_lines().end()
        values = {**_fields(found.body[1:]), "signer": found.signer_id}
        ring = str(values.get("ring"))
        proof = _judged(lambda: read(data, keyring, ring), "signature") if keys(keyring) else (None, _no_key(kind))
        return _message(kind, values, proof, now_at)

    return look


def _report(data: bytes, keyring: Keyring, now_at: int) -> Found:
    rows = lines.frame(data, kind="report", limit=MAX_BYTES).rows[1:]
    values = _fields([row for row in rows if not row.startswith(("server ", "mac "))])
    values["servers"] = [_server(row) for row in rows if row.startswith("server ")]
    ring = str(values.get("ring"))
    keks = keyring.keks.get(ring)
    proof = (
        (None, _no_key("report")) if keks is None else _judged(lambda: read_report(data, keks=keks, ring=ring), "MAC")
    )
    return _message("report", values, proof, now_at)


def _no_key(kind: str) -> str:
    return f"not verified: no key at hand that proves a {kind}"


def _message(kind: str, values: dict[str, object], proof: tuple[bool | None, str], now_at: int) -> Found:
    text = tuple(sheet([(name, _shown(name, value, now_at)) for name, value in values.items()], width=18))
    proven, verdict = proof
    return Found(kind=kind, proven=proven, verdict=verdict, values=values, text=text)


def _fields(rows: list[str]) -> dict[str, object]:
    """Read `name word` lines whoever wrote them: what is no number stays words, and words are decoded."""
    fields: dict[str, object] = {}
    for row in rows:
        name, _, word = row.partition(" ")
        fields[name] = _value(word)
    return fields


def _value(word: str) -> object:
    if word == "-":
        return None
    try:
        return lines.number(word)
    except ValueError:
        pass
    try:
        return lines.text(MAX_BYTES)(word)
    except ValueError:
        return word


_SERVER = ("name", "driver", "state", "slots", "probe", "fault")


def _server(row: str) -> dict[str, object]:
    return dict(zip(_SERVER, map(_value, row.split(" ")[1:]), strict=False))


def _shown(name: str, value: object, now_at: int) -> str:
    if isinstance(value, int) and name.endswith(("_at", "_until", "_from")) and value:
        return instant(value, now_at)
    if isinstance(value, int) and name.endswith("_ms"):
        return span(value)
    if isinstance(value, list):
        return "; ".join(" ".join(f"{key} {word}" for key, word in item.items() if word is not None) for item in value)
    return "-" if value is None else str(value)


_KEYS: dict[str, type[AnyKey]] = {
    kind.kind: kind for kind in (Kek, SigningKey, VerifyKey, OperatorKey, OperatorVerifyKey)
}
_CALLED = {
    Kek.kind: "KEK",
    SigningKey.kind: "signing key",
    VerifyKey.kind: "verify key",
    OperatorKey.kind: "operator key",
    OperatorVerifyKey.kind: "operator verify key",
}


def _key_file(data: bytes) -> Found:
    text = data.decode("utf-8", errors="replace")
    prefixes = (row.strip().partition(":")[0] for row in text.split("\n"))
    kind = next((prefix for prefix in prefixes if prefix in _KEYS), None)
    if kind is None:
        raise ConfigError(
            [
                (
                    "neither a window, beat, request, event or report nor a key file",
                    "`keyrotd inspect` reads what keyrotd wrote, byte for byte, and key files of HAProxy",
                )
            ]
        )
    keys = parse(text, _KEYS[kind], "the key file")
    uses = ["seals or signs"] + ["opens or verifies only"] * (len(keys) - 1)
    if kind in {VerifyKey.kind, OperatorVerifyKey.kind}:
        uses = ["verifies"] * len(keys)
    return Found(
        kind="key file",
        proven=None,
        verdict="nothing secret is shown",
        values={"holds": _CALLED[kind], "ids": [key.id for key in keys]},
        text=tuple(f"{_CALLED[kind]} {key.id}, {use}" for key, use in zip(keys, uses, strict=True)),
    )


_KINDS: dict[str, Inspector] = {
    "window": _window,
    "report": _report,
    "beat": _signed("beat", lambda d, k, ring: read_beat(d, verifiers=k.verifiers, ring=ring), lambda k: k.verifiers),
    "event": _signed(
        "event", lambda d, k, ring: read_event(d, verifiers=k.verifiers, ring=ring), lambda k: k.verifiers
    ),
    "request": _signed(
        "request", lambda d, k, ring: read_request(d, operator_verifiers=k.operators, ring=ring), lambda k: k.operators
    ),
}
