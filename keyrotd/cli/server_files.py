"""Key files of TLS servers, as far as they may be shown: public names of keys, and what stands beside them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from keyrotd.cli.words import counted, sheet, span, table
from keyrotd.core.errors import CorruptWindow
from keyrotd.core.stek import Secrets
from keyrotd.servers import envoy_secret, keyfile
from keyrotd.servers.keyfile import BadKeyFile, KeyFile
from keyrotd.servers.layouts import HAPROXY48, HAPROXY80, decode_lines


@dataclass(frozen=True, slots=True)
class ServerFile:
    """`values` and `text` say the same; no byte of a key but its name is in either."""

    kind: str
    verdict: str
    values: dict[str, object]
    text: tuple[str, ...]


def look(data: bytes) -> ServerFile | None:
    """Return what is told of `data`; None if it is no server's. Raises CorruptWindow for a broken one of ours."""
    for kind in (_in_process, _envoy, _haproxy):
        found = kind(data)
        if found is not None:
            return found
    return None


def _in_process(data: bytes) -> ServerFile | None:
    if not data.startswith(b"keyrotd\n"):
        return None
    try:
        found = keyfile.decode(data)
    except BadKeyFile as bad:
        raise CorruptWindow(
            f"the key file of a server: {bad.fault}",
            reason="malformed",
            hint="docs/key-file.md says what each fault is; readers keep what they have, and the agent writes it anew",
        ) from None
    values = {
        "size": found.layout.size,
        "digest": data[-32:].hex(),
        **_bounds(found),
        "names": [key.name.hex() for key in found.keys],
    }
    facts = tuple(sheet([(name, text) for name, text in _facts(found, str(values["digest"]))]))
    return ServerFile("server key file", f"whole: its digest fits; {_HIDDEN}", values, (*facts, *_rows(found.keys)))


def _bounds(found: KeyFile) -> dict[str, object]:
    tenure = found.tenure
    return {
        "epoch": None if tenure is None else tenure.epoch,
        "step": None if tenure is None else tenure.step,
        "boot_id": None if tenure is None else tenure.boot_id,
        "seals_until_boot_ms": None if tenure is None else tenure.seals_until_ms,
        "opens_until_boot_ms": None if tenure is None else tenure.opens_until_ms,
    }


def _facts(found: KeyFile, digest: str) -> Iterator[tuple[str, str]]:
    yield "records", f"{counted(len(found.keys), 'key')} of {found.layout.size} bytes"
    yield "digest", digest
    tenure = found.tenure
    if tenure is None:
        yield "bounds", "none: its keys are of no window, or nobody knew for how long"
        return
    yield "epoch", f"{tenure.epoch or '-'}, step {tenure.step}"
    yield "boot", tenure.boot_id
    for name, bound in (("seals until", tenure.seals_until_ms), ("opens until", tenure.opens_until_ms)):
        yield name, "no bound is known" if bound is None else f"{span(bound)} after that boot ({bound} ms)"


def _envoy(data: bytes) -> ServerFile | None:
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        name = json.loads(data)["resources"][0]["name"]
        found = envoy_secret.decode(data, name)
        values = {"secret": name, "version": found.version, "names": [key.name.hex() for key in found.keys]}
        facts = tuple(sheet([("secret", name), ("version", found.version)]))
        return ServerFile("Envoy secret", f"as keyrotd writes it; {_HIDDEN}", values, (*facts, *_rows(found.keys)))
    return None


def _haproxy(data: bytes) -> ServerFile | None:
    for layout in (HAPROXY80, HAPROXY48):
        with suppress(ValueError):
            keys = decode_lines(layout, data)
            if not keys:
                return None
            values: dict[str, object] = {"size": layout.size, "names": [key.name.hex() for key in keys]}
            text = tuple(f"line {at}  {key.name.hex()}" for at, key in enumerate(keys, start=1))
            verdict = f"lines of {layout.size} bytes, as HAProxy takes them: the last but one seals; {_HIDDEN}"
            return ServerFile("HAProxy key file", verdict, values, text)
    return None


def _rows(keys: tuple[Secrets, ...]) -> Iterator[str]:
    rows = [("opens" if at else "seals, opens", key.name.hex()) for at, key in enumerate(keys)]
    return table([("key", "name"), *rows])


_HIDDEN = "nothing secret is shown"
