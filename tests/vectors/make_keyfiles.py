"""
Makes the vectors of the key file: `python -m tests.vectors.make_keyfiles`. Every reader, in any language, runs them.

It writes the format on its own, from its description, and imports nothing of keyrotd: what it and keyrotd agree on is
the format. `verdicts.txt` has a line for each case: the file, the size of the records that the reader knows, the boot
that it runs in, the epoch that it has installed, its clock (ms since that boot), and the verdict. A file may have
several lines.
"""

import hashlib
import struct
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "keyfile"
#: The clock of every case whose verdict does not hang on it.
NOW = 86_400_000


def fixed(label: str, length: int) -> bytes:
    """Random-looking bytes that are the same for everyone, for ever."""
    return hashlib.shake_256(f"keyrotd key file vector: {label}".encode()).digest(length)


#: The boot in which the files were written.
BOOT_ID = fixed("boot", 16)


class Case(NamedTuple):
    file: str
    content: bytes
    verdict: str
    size: int = 80
    epoch: int = 0
    now_ms: int = NOW
    boot_id: bytes = BOOT_ID


def record(label: str, size: int = 80) -> bytes:
    return fixed(f"{label} {size}", size)


def head(  # noqa: PLR0917 - the fields in the order of the file
    magic: bytes = b"keyrotd\n",
    version: int = 1,
    size: int = 80,
    count: int = 3,
    epoch: int = 41,
    step: int = 0,
    seals_until: int = NOW + 3_600_000,
    opens_until: int = NOW + 7_200_000,
    boot_id: bytes = BOOT_ID,
    reserved: bytes = bytes(32),
) -> bytes:
    numbers = struct.pack(">HHIQQQQ", version, size, count, epoch, step, seals_until, opens_until)
    return magic + numbers + boot_id + reserved


def digested(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def records(count: int, size: int = 80) -> bytes:
    return b"".join(record(f"key {n}", size) for n in range(count))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def cases() -> list[Case]:
    plain = digested(head() + records(3))
    small = digested(head(size=48) + records(3, 48))
    unbounded = digested(head(epoch=0, seals_until=0, opens_until=0, boot_id=bytes(16)) + records(3))
    twins = record("key 0") + record("key 1") + record("key 0")[:16] + record("key 2")[16:]
    soon = digested(head(seals_until=NOW - 1, opens_until=NOW) + records(3))
    largest = head(epoch=2**64 - 1, step=2**64 - 1, seals_until=2**64 - 1, opens_until=2**64 - 1)
    return [
        Case("plain", plain, "ok"),
        Case("plain", plain, "ok", epoch=41),
        Case("plain", plain, "older", epoch=42),
        Case("plain", plain, "ok", now_ms=NOW + 3_600_000),
        Case("plain", plain, "ok", now_ms=NOW + 7_199_999),
        Case("plain", plain, "expired", now_ms=NOW + 7_200_000),
        Case("plain", plain, "bad-size", size=48),
        Case("plain-48", small, "ok", size=48),
        Case("plain-48", small, "bad-size"),
        Case("one-key", digested(head(count=1) + records(1)), "ok"),
        Case("most-keys", digested(head(count=96) + records(96)), "ok"),
        Case("most-keys-48", digested(head(size=48, count=96) + records(96, 48)), "ok", size=48),
        Case("of-a-succession", digested(head(step=7) + records(3)), "ok"),
        Case(
            "largest-numbers",
            digested(largest + records(3)),
            "ok",
        ),
        Case("no-bounds", unbounded, "ok", now_ms=2**52),
        Case("no-bounds", unbounded, "ok", epoch=1),
        Case("seals-no-more", soon, "ok", now_ms=NOW - 1),
        Case("seals-no-more", soon, "expired"),
        Case("same-secrets-other-names", digested(head(count=2) + same_secrets()), "ok"),
        Case("plain", plain, "other-boot", boot_id=fixed("another boot", 16)),
        Case("plain", plain, "other-boot", boot_id=bytes(16)),
        Case("plain", plain, "other-boot", boot_id=fixed("another boot", 16), epoch=42),
        Case("bounds-of-no-boot", digested(head(boot_id=bytes(16)) + records(3)), "other-boot"),
        Case("bounds-of-no-boot", digested(head(boot_id=bytes(16)) + records(3)), "other-boot", boot_id=bytes(16)),
        Case("seals-bound-alone", digested(head(opens_until=0) + records(3)), "ok", now_ms=2**52),
        Case("seals-bound-alone", digested(head(opens_until=0) + records(3)), "other-boot", boot_id=bytes(16)),
        Case("opens-bound-alone", digested(head(seals_until=0) + records(3)), "expired", now_ms=NOW + 7_200_000),
        Case("opens-bound-alone", digested(head(seals_until=0) + records(3)), "other-boot", boot_id=bytes(16)),
        Case("boot-without-bounds", digested(head(seals_until=0, opens_until=0) + records(3)), "ok", boot_id=bytes(16)),
        Case("empty", b"", "bad-magic"),
        Case("magic-cut", plain[:7], "bad-magic"),
        Case("magic-upper-case", b"KEYROTD\n" + plain[8:], "bad-magic"),
        Case("magic-without-line-end", b"keyrotd " + plain[8:], "bad-magic"),
        Case("nginx-key-file", records(1), "bad-magic"),
        Case("magic-alone", plain[:8], "bad-length"),
        Case("head-cut", plain[:95], "bad-length"),
        Case("head-alone", plain[:96], "bad-length"),
        Case("one-byte-short-of-any", plain[:127], "bad-length"),
        Case("record-cut", plain[: 96 + 80 * 2 + 40], "bad-length"),
        Case("digest-cut", plain[:-1], "bad-length"),
        Case("byte-more", plain + b"\n", "bad-length"),
        Case("record-more", digested(head() + records(4)), "bad-length"),
        Case("record-fewer", digested(head() + records(2)), "bad-length"),
        Case("longer-than-any", digested(head(count=96) + records(97)), "bad-length"),
        Case("version-0", digested(head(version=0) + records(3)), "bad-version"),
        Case("version-2", digested(head(version=2) + records(3)), "bad-version"),
        Case("version-256", digested(head(version=256) + records(3)), "bad-version"),
        Case("size-0", digested(head(size=0) + records(3)), "bad-size"),
        Case("size-64", digested(head(size=64) + records(3)), "bad-size"),
        Case("size-65535", digested(head(size=65535) + records(3)), "bad-size"),
        Case("little-endian", digested(head(version=256, size=80 << 8) + records(3)), "bad-version"),
        Case("count-0", digested(head(count=0)), "bad-count"),
        Case("count-97", digested(head(count=97) + records(96)), "bad-count"),
        # Times 80 this is 0 in 32 bits, and 240 would be right.
        Case("count-wraps", digested(head(count=2**28) + records(3)), "bad-count"),
        Case("count-largest", digested(head(count=2**32 - 1) + records(3)), "bad-count"),
        Case("reserved-first", digested(head(reserved=b"\1" + bytes(31)) + records(3)), "bad-reserved"),
        Case("reserved-last", digested(head(reserved=bytes(31) + b"\1") + records(3)), "bad-reserved"),
        Case("digest-flipped", flipped(plain, len(plain) - 1), "bad-digest"),
        Case("digest-zero", plain[:-32] + bytes(32), "bad-digest"),
        Case("epoch-flipped", flipped(plain, 23), "bad-digest"),
        Case("first-secret-flipped", flipped(plain, 96 + 16), "bad-digest"),
        Case("last-secret-flipped", flipped(plain, len(plain) - 33), "bad-digest"),
        Case("twins", digested(head() + twins), "twin-names"),
        Case("twins-alike", digested(head(count=2) + record("key 0") * 2), "twin-names"),
        Case("twins-at-the-end", digested(head(count=96) + records(95) + record("key 94")), "twin-names"),
        Case("reserved-and-digest", flipped(flipped(plain, 64), 23), "bad-reserved"),
    ]


def same_secrets() -> bytes:
    return record("key 0") + record("key 1")[:16] + record("key 0")[16:]


def files() -> dict[str, bytes]:
    """Every file of the folder."""
    contents = {f"{case.file}.bin": case.content for case in cases()}
    lines = (f"{_asked(case)} {case.verdict}\n" for case in cases())
    return {"verdicts.txt": "".join(lines).encode(), **contents}


def _asked(case: Case) -> str:
    return f"{case.file}.bin {case.size} {case.boot_id.hex()} {case.epoch} {case.now_ms}"


if __name__ == "__main__":
    for stale in FOLDER.iterdir():
        stale.unlink()
    for name, content in files().items():
        (FOLDER / name).write_bytes(content)
