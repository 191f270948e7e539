"""Envoy's SDS file is read as strictly as Envoy should: only what does no harm counts, and no byte of a key is told."""

import base64
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from keyrotd.core.stek import Scheme, Secrets, Stek
from keyrotd.servers.envoy_secret import Document, decode

KEYS = tuple(Stek(os.urandom(32), "edge").secrets(Scheme.AES256) for _ in range(3))
DOCUMENT = Document("stek", KEYS)


def test_what_is_written_reads_back() -> None:
    assert decode(DOCUMENT.encode(), "stek") == DOCUMENT


def test_it_is_what_envoy_is_documented_to_read() -> None:
    """One response of one Secret; a key is name, then HMAC, then AES, in base64."""
    blobs = [base64.b64encode(key.name + key.hmac + key.aes).decode() for key in KEYS]

    assert json.loads(DOCUMENT.encode()) == {
        "version_info": DOCUMENT.version,
        "resources": [
            {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": "stek",
                "session_ticket_keys": {"keys": [{"inline_bytes": blob} for blob in blobs]},
            }
        ],
    }


def test_the_version_tells_keys_and_order_by_names_alone() -> None:
    reordered = Document("stek", (KEYS[1], KEYS[0], KEYS[2]))
    fewer = Document("stek", KEYS[:2])
    others = Document("stek", tuple(Secrets(key.name, bytes(32), bytes(32)) for key in KEYS))

    assert len({DOCUMENT.version, reordered.version, fewer.version}) == 3
    assert DOCUMENT.version == others.version


@pytest.mark.parametrize("keys", [(), (KEYS[0], KEYS[0]), (KEYS[0], KEYS[0]._replace(aes=bytes(32)))])
def test_no_keys_and_twins_make_no_document(keys: tuple[Secrets, ...]) -> None:
    with pytest.raises(ValueError, match="no keys, or twins"):
        Document("stek", keys)


Shape = dict[str, Any]
_FIELD = "session_ticket_keys"


def secret(shape: Shape) -> Shape:
    found: Shape = shape["resources"][0]
    return found


def sized(blob_bytes: int) -> Callable[[Shape], object]:
    text = base64.b64encode(bytes(blob_bytes)).decode()
    return lambda shape: secret(shape)[_FIELD]["keys"][0].update(inline_bytes=text)


@pytest.mark.parametrize(
    "spoil",
    [
        # Envoy takes these two, and then resets every TLS connection.
        pytest.param(lambda s: secret(s).update(session_ticket_keyz=secret(s).pop(_FIELD)), id="misspelt"),
        pytest.param(lambda s: secret(s).pop(_FIELD), id="without keys"),
        # These it refuses, and would not start with.
        pytest.param(lambda s: secret(s).update(name="other"), id="another name"),
        pytest.param(lambda s: secret(s).update({"@type": "type.googleapis.com/x.Empty"}), id="no Secret"),
        pytest.param(lambda s: secret(s)[_FIELD].update(keys=[]), id="an empty list"),
        pytest.param(lambda s: secret(s)[_FIELD]["keys"].append({}), id="an empty key"),
        pytest.param(sized(79), id="79 bytes"),
        pytest.param(sized(48), id="48 bytes"),
        pytest.param(sized(81), id="81 bytes"),
        pytest.param(lambda s: s.update(resources=[]), id="no resource"),
        # These it takes, and they are not ours.
        pytest.param(lambda s: s["resources"].append(secret(s)), id="two resources"),
        pytest.param(lambda s: secret(s)[_FIELD]["keys"].reverse(), id="another order"),
        pytest.param(lambda s: secret(s)[_FIELD]["keys"].pop(), id="a key less"),
        pytest.param(lambda s: s.update(version_info="7"), id="another version"),
        pytest.param(lambda s: s.pop("version_info"), id="no version"),
        pytest.param(lambda s: s.update(nonce="x"), id="something more"),
        # Never read again after the first time.
        pytest.param(lambda s: secret(s)[_FIELD].update(keys=[{"filename": "/run/k"}]), id="a file's name"),
        pytest.param(lambda s: secret(s)[_FIELD]["keys"][0].update(inline_bytes="*" * 108), id="no base64"),
        pytest.param(lambda s: secret(s)[_FIELD]["keys"][0].update(inline_bytes=7), id="no text"),
    ],
)
def test_any_other_document_is_refused_and_no_key_is_told(spoil: Callable[[Shape], object]) -> None:
    shape = json.loads(DOCUMENT.encode())
    spoil(shape)

    with pytest.raises(ValueError) as refused:
        decode(json.dumps(shape, indent=1).encode() + b"\n", "stek")

    blobs = [base64.b64encode(key.name + key.hmac + key.aes).decode() for key in KEYS]
    assert not any(blob[24:48] in repr(refused.value) for blob in blobs)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, DOCUMENT.encode()[:-1], DOCUMENT.encode() + b"\n"],
)
def test_whatever_else_stands_in_the_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        decode(content, "stek")
