"""`keyrotd inspect` tells names, bounds and digest of a server's key file, and never a byte that opens a ticket."""

import base64
import json

import pytest

from keyrotd.cli.inspection import Found, Keyring, inspect
from keyrotd.cli.views import inspection_document, inspection_text
from keyrotd.core.errors import ConfigError, CorruptWindow
from keyrotd.core.keys import Tenure
from keyrotd.core.stek import Secrets
from keyrotd.servers.envoy_secret import Document
from keyrotd.servers.keyfile import KeyFile
from keyrotd.servers.layouts import ATS48, HAPROXY80, NGINX80, Layout, encode_lines
from tests.stage import NOON, stek

BOOT = "3f2c1b0a-1111-4222-8333-444455556666"
STEKS = (stek(1), stek(2), stek(3))


def shown(data: bytes) -> tuple[Found, str]:
    found = inspect(data, Keyring(keks={}), NOON)
    return found, "\n".join(inspection_text(found)) + inspection_document(found)


def hides(text: str, keys: list[Secrets]) -> bool:
    return not any(
        word in text
        for key in keys
        for part in (key.aes, key.hmac)
        for word in (part.hex(), base64.b64encode(part).decode().rstrip("="))
    )


@pytest.mark.parametrize("layout", [NGINX80, ATS48])
def test_the_file_of_readers_inside_of_servers(layout: Layout) -> None:
    keys = [stek.secrets(layout.scheme) for stek in STEKS]
    tenure = Tenure(boot_id=BOOT, epoch=41, step=2, seals_until_ms=7_200_000, opens_until_ms=None)
    data = KeyFile(layout=layout, keys=tuple(keys), tenure=tenure).encode()

    found, text = shown(data)

    assert (found.kind, found.proven, found.verdict) == (
        "server key file",
        None,
        "whole: its digest fits; nothing secret is shown",
    )
    assert found.values == {
        "size": layout.size,
        "digest": data[-32:].hex(),
        "epoch": 41,
        "step": 2,
        "boot_id": BOOT,
        "seals_until_boot_ms": 7_200_000,
        "opens_until_boot_ms": None,
        "names": [key.name.hex() for key in keys],
    }
    assert "seals until  2h after that boot (7200000 ms)" in text
    assert f"seals, opens  {keys[0].name.hex()}" in text
    assert hides(text, keys)


def test_a_file_without_bounds_says_so() -> None:
    keys = (STEKS[0].secrets(NGINX80.scheme),)

    _, text = shown(KeyFile(layout=NGINX80, keys=keys).encode())

    assert "bounds       none: " in text


def test_a_broken_file_is_refused_with_its_fault() -> None:
    data = KeyFile(layout=NGINX80, keys=(STEKS[0].secrets(NGINX80.scheme),)).encode()

    with pytest.raises(CorruptWindow, match="the key file of a server: bad-digest"):
        shown(data[:-1] + bytes([data[-1] ^ 1]))


def test_haproxys_lines() -> None:
    keys = [stek.secrets(HAPROXY80.scheme) for stek in STEKS]

    found, text = shown(encode_lines(HAPROXY80, keys))

    assert found.kind == "HAProxy key file"
    assert found.values == {"size": 80, "names": [key.name.hex() for key in keys]}
    assert hides(text, keys)


def test_envoys_secret() -> None:
    keys = [stek.secrets(NGINX80.scheme) for stek in STEKS]
    data = Document("edge", tuple(keys)).encode()

    found, text = shown(data)

    assert found.kind == "Envoy secret"
    assert (found.values["secret"], found.values["names"]) == ("edge", [key.name.hex() for key in keys])
    assert hides(text, keys)


@pytest.mark.parametrize("data", [b"", b"\n", b"AAAA\n", b"{}", b"[[[", json.dumps({"resources": []}).encode()])
def test_what_is_none_of_them_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="neither a window"):
        shown(data)
