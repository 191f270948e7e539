"""docs/file-formats.md is a grammar: it is read here, and every encoding that is kept is held against it."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyrotd.core import window as windows
from keyrotd.core.messages import Goal, NodeState, ProbeState, Resume, ServerState
from keyrotd.core.stek import Stek
from keyrotd.daemon import pauses, state
from keyrotd.seal import keyfiles, lines, links, messages, window
from keyrotd.seal.keyfiles import OperatorVerifyKey, SigningKey, VerifyKey
from keyrotd.seal.versions import NEWEST
from keyrotd.store import limits
from keyrotd.store.addresses import Address
from keyrotd.store.redis import RedisStore
from keyrotd.testing.folder import MemoryFolder
from tests.vectors import make, version_1

PAGE = (Path(__file__).parents[2] / "docs" / "file-formats.md").read_text()

LIMITS = {
    "window": window.MAX_WINDOW_BYTES,
    "beat": messages.MAX_BEAT_BYTES,
    "report": messages.MAX_REPORT_BYTES,
    "request": messages.MAX_REQUEST_BYTES,
    "event": messages.MAX_EVENT_BYTES,
    "peers": messages.MAX_PEERS_BYTES,
    "links": links.MAX_BYTES,
    "cache": state.MAX_CACHE_BYTES,
    "memory": state.MAX_MEMORY_BYTES,
    "resumed": pauses._MAX_BYTES,
}


class Grammar:
    """What one code block of the page says: a line is a pattern, how often it stands, and since which version."""

    def __init__(self, block: str) -> None:
        first, *rows = block.splitlines()
        self.kind = first.split()[1]
        self.rows = [_Row(row) for row in rows]

    def takes(self, text: str) -> bool:
        version = int(re.match(r"keyrotd [a-z]+ v(\d+)\n", text)[1])  # type: ignore[index] # every encoding has one
        rows = "".join(row.pattern for row in self.rows if row.since <= version)
        return re.fullmatch(rf"keyrotd {self.kind} v{version}\n{rows}", text) is not None


class _Row:
    def __init__(self, row: str) -> None:
        syntax, _, meaning = row.partition("  ")
        since = re.match(r" *v(\d+):", meaning)
        self.since = int(since[1]) if since else 1
        often = {"[": "?", "{": "*"}.get(syntax[0], "")
        self.words = syntax.strip("[]{}").split()
        self.line = " ".join([self.words[0], *map(_pattern, self.words[1:])]) + "\n"
        self.pattern = f"(?:{self.line}){often}"


def _pattern(word: str) -> str:
    choices = [f"{one}(?: {one})*" if more else one for one, more in map(_choice, word.split("|"))]
    return f"(?:{'|'.join(choices)})"


def _choice(word: str) -> tuple[str, bool]:
    one = word.removesuffix("...")
    return WORDS.get(one, re.escape(one)), word.endswith("...")


def blocks() -> Iterator[str]:
    yield from re.findall(r"^```\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def tables(heading: str) -> list[list[str]]:
    """The rows below a heading, without what is bold or code about their words."""
    part = f"\n{PAGE}".partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    rows = [row.strip("| ").split(" | ") for row in part.splitlines() if row.startswith("| ")]
    return [[cell.strip(" |").strip("`") for cell in row] for row in rows[1:]]


WORDS: dict[str, str] = dict(row.split()[:2] for row in next(blocks()).splitlines())
GRAMMARS = {grammar.kind: grammar for grammar in map(Grammar, list(blocks())[1:])}


def encodings() -> dict[str, str]:
    """Every encoding that is kept in tests/vectors and good, of whatever version; of a cache, its head."""
    frozen = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(make.FOLDER.glob("v[0-9]*/*"))}
    verdicts = {path.name: path.read_bytes() for path in sorted(make.FOLDER.glob("*.txt"))}
    good = {name: data.partition(b"\n\n")[2] for name, data in verdicts.items() if data.startswith(b"expect: ok\n")}
    good["resumed"] = _resumed()
    known = {
        name: data for name, data in (good | frozen).items() if data.startswith(b"keyrotd ") and b"-ack" not in data
    }
    return {name: _head(data) for name, data in known.items() if _version(data) <= NEWEST[_kind(data)]}


def _resumed() -> bytes:
    folder = MemoryFolder()
    pauses.Pauses("edge", folder).hear([Resume(ring="edge", until=9, who="", reason="", made_at=5)], 6)
    data = folder.read("scheduler-edge.resumed")
    assert data is not None
    return data


def _kind(data: bytes) -> str:
    return data.split(b" ", 2)[1].decode()


def _version(data: bytes) -> int:
    return int(data.split(b"\n", 1)[0].rpartition(b" v")[2])


def _head(data: bytes) -> str:
    if _kind(data) != "cache":
        return data.decode("ascii")
    return b"".join(data.splitlines(keepends=True)[: len(GRAMMARS["cache"].rows) + 1]).decode("ascii")


@pytest.mark.parametrize("name", encodings())
def test_what_is_written_is_what_the_page_says(name: str) -> None:
    text = encodings()[name]

    assert GRAMMARS[_kind(text.encode())].takes(text)


def test_every_line_of_the_page_is_in_some_encoding() -> None:
    """And so is every line of an encoding in the page: the test above takes whole files."""
    kept = [(_kind(text.encode()), line + "\n") for text in encodings().values() for line in text.splitlines()[1:]]

    unseen = [
        (kind, row.words[0])
        for kind, grammar in GRAMMARS.items()
        for row in grammar.rows
        if not any(found == kind and re.fullmatch(row.line, line) for found, line in kept)
    ]

    assert not unseen


def test_kinds_versions_and_sizes_are_those_of_the_code() -> None:
    said = {kind: (int(version), int(most)) for kind, version, most, *_ in tables("# File formats")}

    assert said == {kind: (NEWEST[kind], LIMITS[kind]) for kind in NEWEST}
    assert GRAMMARS.keys() == NEWEST.keys()


@pytest.mark.parametrize(
    ("kind", "field", "at", "words"),
    [
        ("report", "state", 1, NodeState),
        ("report", "server", 3, ServerState),
        ("report", "server", 5, ProbeState),
    ],
)
def test_every_choice_is_named(kind: str, field: str, at: int, words: type[Enum]) -> None:
    rows = [row for row in GRAMMARS[kind].rows if row.words[0] == field]

    assert {word for row in rows for word in row.words[at].split("|")} == {word.value for word in words}


def test_every_goal_is_named() -> None:
    (goal,) = (row for row in GRAMMARS["request"].rows if row.words[0] == "goal")

    assert goal.words[1].split("|") == [*(word.value for word in Goal), *messages._PAUSING]


def test_words_and_counts_have_the_lengths_of_the_code() -> None:
    assert re.fullmatch(WORDS["NAME"], "a" * lines.MAX_NAME)
    assert not re.fullmatch(WORDS["NAME"], "a" * (lines.MAX_NAME + 1))
    assert re.fullmatch(WORDS["NODE"], "a" * lines.MAX_NODE)
    assert not re.fullmatch(WORDS["NODE"], "a" * (lines.MAX_NODE + 1))
    for words in (
        f"at most {lines.MAX_NUMBER}",
        f"at most {windows.MAX_ANCESTORS}\n",
        f"At most {windows.MAX_KEYS} keys",
        f"At most {messages.MAX_SERVERS} servers",
        f"words of at most {messages.MAX_FAULT} bytes",
        f"at most {messages.MAX_WHO} bytes",
        f"at most {messages.MAX_REASON} bytes",
        f"at most {keyfiles.MAX_FILE_BYTES} characters",
        f"at most {keyfiles.MAX_KEYS_PER_FILE} keys",
    ):
        assert words in PAGE, words


def test_key_files_of_secrets_are_those_that_are_made() -> None:
    said = {name.replace("RING", "edge"): line.partition(":")[0] for name, line, _ in tables("## Key files of secrets")}
    made = {name: text.splitlines()[1].partition(":")[0] for name, text in version_1.SECRETS.items()}

    assert said == made


def test_the_store_has_these_keys_and_bounds() -> None:
    store = RedisStore(Address(path="/nowhere"), ring="edge", namespace="here", timeout_ms=1)
    held = {str(value).rpartition(":")[2] for value in vars(store).values() if str(value).startswith("here:{edge}:")}
    rows = {row[0]: row for row in tables("## The store")}

    assert rows.keys() - {"wake"} == held - {"wake"}
    assert [
        rows[key][3] for key in ("window", "beat", "lease", "reports", "offers", "peers", "requests", "history")
    ] == [
        f"{limits.WINDOW_BYTES} bytes",
        f"{limits.BEAT_BYTES} bytes",
        f"{limits.LEASE_MS} ms",
        f"{limits.REPORTS} of {limits.REPORT_BYTES} bytes",
        f"{limits.OFFERS} are read",
        f"{limits.PEERS_BYTES} bytes",
        f"{limits.REQUESTS} are read",
        f"{limits.HISTORY}",
    ]


class TestProofs:
    """Each row of `Keys and proofs`, done by hand on the frozen files."""

    kek = version_1.KEKS[0]

    def frozen(self, name: str) -> str:
        return (version_1.FOLDER / name).read_text()

    def derived(self, *words: str, secret: bytes | None = None, length: int = 32) -> bytes:
        info = "\x00".join(("keyrotd/1", *words)).encode()
        return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(secret or self.kek.secret)

    def test_ids(self) -> None:
        public = version_1.SIGNER.verify_key.public

        assert "over `keyrotd-kek-1 id` 00 KEK" in PAGE
        assert hashlib.sha256(b"keyrotd-kek-1 id\x00" + self.kek.secret).hexdigest()[:16] == self.kek.id
        assert "over `ed25519 id` 00 public key" in PAGE
        assert hashlib.sha256(b"ed25519 id\x00" + public).hexdigest()[:16] == version_1.SIGNER.id

    @pytest.mark.parametrize("name", ["window", "beat", "event", "request-revoke"])
    def test_signatures(self, name: str) -> None:
        kind, text = name.partition("-")[0], self.frozen(name)
        body, signature = re.split(r"^signed \w+ ", text, flags=re.MULTILINE)
        key: VerifyKey | OperatorVerifyKey = version_1.SIGNER.verify_key
        key = version_1.OPERATOR.verify_key if kind == "request" else key

        assert "Ed25519 over `keyrotd/1 KIND` 00 body" in PAGE
        assert key.verifies(lines.base64_of(64)(signature.split()[0]), f"keyrotd/1 {kind}\x00{body}".encode())

    def test_macs(self) -> None:
        body, mac = re.split(r"^mac \w+ ", self.frozen("report"), flags=re.MULTILINE)
        data = f"keyrotd/1 report\x00{body}".encode()

        assert 'under `HKDF(KEK, "report", ring)` over `keyrotd/1 report` 00 body' in PAGE
        assert hmac.digest(self.derived("report", "edge"), data, "sha256").hex() == mac.strip()

    def test_seals_of_windows_and_names_of_keys(self) -> None:
        text = self.frozen("window")
        digest = hashlib.sha256(text.partition("kek ")[0].encode()).hexdigest()
        cipher = AESGCM(self.derived("seal", "edge", digest))
        seeds = re.findall(r"^seed (\w+) (\S+)$", text, flags=re.MULTILINE)

        assert digest == version_1.WINDOW.digest
        assert 'under `HKDF(KEK, "seal", ring, digest)`, associated data `keyrotd/1 seed` 00 digest 00 ' in PAGE
        assert "with info `keyrotd/1` 00 ring 00 `name`" in PAGE
        assert seeds
        for name, word in seeds:
            sealed = lines.base64_of(60)(word)
            bound = f"keyrotd/1 seed\x00{digest}\x00".encode() + bytes.fromhex(name)
            seed = cipher.decrypt(sealed[:12], sealed[12:], bound)
            assert self.derived("edge", "name", secret=seed, length=16).hex() == name == Stek(seed, "edge").name.hex()

    def test_seals_of_links(self) -> None:
        rows = [row.rpartition(" ") for row in self.frozen("links").splitlines()[3:]]
        cipher = AESGCM(self.derived("links", "edge"))

        assert 'under `HKDF(KEK, "links", ring)`, associated data the line before it' in PAGE
        for before, _, word in rows:
            sealed = lines.base64_of(60)(word)
            seed = cipher.decrypt(sealed[:12], sealed[12:], before.encode())
            assert Stek(seed, "edge").name.hex() == before.split()[1]


def test_signing_keys_are_of_rfc_8032() -> None:
    """Its first test vector of Ed25519."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")

    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert SigningKey(secret).verify_key.public.hex() == public
