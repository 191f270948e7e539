"""
Makes the test vectors, one file per verdict: `python -m tests.vectors.make`.

It writes the formats on its own, from their description, and imports nothing of keyrotd: what it and keyrotd agree on
is the format. A vector is a header (`expect` is a reason or `ok`, `read` says as what), a blank line, and the bytes.
"""

import base64
import hashlib
import hmac
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

FOLDER = Path(__file__).parent


def fixed(label: str, length: int = 32) -> bytes:
    """Random-looking bytes that are the same for everyone, for ever."""
    return hashlib.sha512(f"keyrotd test vector: {label}".encode()).digest()[:length]


KEK, OTHER_KEK = fixed("kek"), fixed("other kek")
SIGNING, STRANGER, OPERATOR = fixed("signing key"), fixed("stranger's key"), fixed("operator key")


def public(secret: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def expand(secret: bytes, length: int, *info: str) -> bytes:
    return HKDFExpand(algorithm=SHA256(), length=length, info="\x00".join(info).encode()).derive(secret)


def name_of(seed: bytes, ring: str = "edge") -> str:
    return expand(seed, 16, "keyrotd/1", ring, "name").hex()


def key_id(label: str, raw: bytes) -> str:
    return hashlib.sha256(label.encode() + b" id\x00" + raw).hexdigest()[:16]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def sign(body: str, kind: str, secret: bytes = SIGNING) -> str:
    signature = Ed25519PrivateKey.from_private_bytes(secret).sign(f"keyrotd/1 {kind}\x00{body}".encode())
    return f"{body}signed {key_id('ed25519', public(secret))} {b64(signature)}\n"


SEEDS = {role: fixed(f"seed of {role}") for role in ("current", "next", "previous")}

HEADER = f"""\
keyrotd window v1
ring edge
epoch 41
fence 7
barrier 12
published_at 1780000000000
ticket_lifetime_ms 7200000
max_stranded_ms 500000000
ancestors {hashlib.sha256(b"epoch 40").hexdigest()} {hashlib.sha256(b"epoch 39").hexdigest()}
current {name_of(SEEDS["current"])} 40 1779985600000 1780000000000 1780028800000 1780036008000 1780014400000 14400000
next {name_of(SEEDS["next"])} 41 1780000000000 - - 1780050408000 1780028800000 14400000
previous {name_of(SEEDS["previous"])} 39 1779971200000 1779985600000 1780000002000 1780007210000 1780000000000 14400000
"""


def sealed_seed(header: str, name: str, seed: bytes, kek: bytes = KEK) -> bytes:
    digest = hashlib.sha256(header.encode()).hexdigest()
    ring = header.split("\n")[1].removeprefix("ring ")
    nonce = fixed(f"nonce of {name}", 12)
    bound_to = f"keyrotd/1 seed\x00{digest}\x00".encode() + bytes.fromhex(name)
    return nonce + AESGCM(expand(kek, 32, "keyrotd/1", "seal", ring, digest)).encrypt(nonce, seed, bound_to)


def window(
    header: str = HEADER,
    *,
    kek: bytes = KEK,
    signer: bytes = SIGNING,
    seeds: tuple[bytes | None, ...] | None = None,
) -> str:
    """The sealed form of `header`, well-formed or not; `seeds` in its order, None for one that is not carried."""
    names = [row.split(" ")[1] for row in header.split("\n") if row.startswith(("current ", "next ", "previous "))]
    given = tuple(SEEDS.values()) if seeds is None else seeds
    sealed = [
        (name, None if seed is None else sealed_seed(header, name, seed, kek))
        for name, seed in zip(names, given, strict=True)
    ]
    body = header + f"kek {key_id('keyrotd-kek-1', kek)}\n"
    for name, blob in sealed:
        body += f"seal {name} {'-' if blob is None else hashlib.sha256(blob).hexdigest()}\n"
    tail = "".join(f"seed {name} {b64(blob)}\n" for name, blob in sealed if blob is not None)
    return sign(body, "window", signer) + tail


BEAT = f"""\
keyrotd beat v1
ring edge
epoch 41
digest {hashlib.sha256(HEADER.encode()).hexdigest()}
confirmed_at 1780000007000
signed_at 1780000009000
"""

KEK_IDS = f"{key_id('keyrotd-kek-1', KEK)} {key_id('keyrotd-kek-1', OTHER_KEK)}"

REQUEST = """\
keyrotd request v1
ring edge
goal revoke
past_epoch 41
drop_live_keys no
who ops@example.com
reason node%20edge-7%20was%20stolen,%20100%25%20sure%20%E2%98%B9
made_at 1780000010000
"""

PAUSE = """\
keyrotd request v2
ring edge
goal pause
past_epoch 0
drop_live_keys no
who ops@example.com
reason load%20test
made_at 1780000010000
until 1780010000000
"""

EVENT = """\
keyrotd event v1
ring edge
kind window.published
epoch 41
happened_at 1780000000000
who scheduler-a
reason -
"""

REPORT = f"""\
keyrotd report v1
ring edge
node edge-1.example.com
counter 77
reported_at 1780000011000
state behind
steps 0
epoch 41
holds {hashlib.sha256(HEADER.encode()).hexdigest()}
read_back -
floor 41
barrier 12
poll_interval_ms 5000
server haproxy haproxy in_step 3 resumed -
server proxy-2 command failed - none exit%20status%201:%20--bad
"""

REPORT_OF_PEERS = f"""\
{REPORT.replace("report v1", "report v2")}\
peers haproxy 192.0.2.7:443 2 3
peers proxy-2 [2001:db8::7]:8443 0 0
"""

ALONG = f"""\
{REPORT.replace("report v1", "report v2").replace("state behind", "state stranded").replace("steps 0", "steps 2")}\
along {"ab" * 16}
"""

PEERS = """\
keyrotd peers v1
ring edge
signed_at 1780000000000
peer edge-1.example.com haproxy 192.0.2.7:443
peer edge-2.example.com envoy [2001:db8::7]:8443
"""


def report(body: str = REPORT, *, kek: bytes = KEK, ring: str = "edge") -> str:
    mac = hmac.digest(expand(kek, 32, "keyrotd/1", "report", ring), f"keyrotd/1 report\x00{body}".encode(), "sha256")
    return f"{body}mac {key_id('keyrotd-kek-1', kek)} {mac.hex()}\n"


def flip(data: bytes, at: int) -> bytes:
    """One bit other, still printable: the lowest of the byte at `at`."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def swap(data: str, first: str, second: str) -> str:
    """The two lines that begin so change places."""
    rows = data.split("\n")
    one, two = (next(at for at, row in enumerate(rows) if row.startswith(start)) for start in (first, second))
    rows[one], rows[two] = rows[two], rows[one]
    return "\n".join(rows)


def without(data: str, start: str) -> str:
    return "".join(row + "\n" for row in data.split("\n")[:-1] if not row.startswith(start))


def malleate(data: str) -> str:
    """The signature with the group's order added to its second half: the same equation, other bytes."""
    order = 2**252 + 27742317777372353535851937790883648493
    row = next(row for row in data.split("\n") if row.startswith("signed "))
    signature = base64.b64decode(row.split(" ")[2])
    other = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    return data.replace(row, " ".join((*row.split(" ")[:2], b64(other))))


def spare_bits(data: str, start: str) -> str:
    """The base64 that ends the line which begins so, with a bit set that decoding drops."""
    row = next(row for row in data.split("\n") if row.startswith(start))
    stem, alphabet = row.rstrip("="), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return data.replace(row, stem[:-1] + alphabet[alphabet.index(stem[-1]) + 1] + row[len(stem) :])


def window_vectors() -> dict[str, tuple[str, str, str | bytes]]:
    plain = window()
    data = plain.encode()
    current, following, previous = (name_of(seed) for seed in SEEDS.values())
    signature_at = data.index(b"signed ") + len("signed ") + 17 + 40
    zero = bytes(32)
    stray = name_of(fixed("stray seed"))
    many = "".join(
        f"previous {name_of(fixed(f'seed {n}'))} 39 1779971200000 1779985600000 1780000002000 1780007210000 "
        "1780000000000 14400000\n"
        for n in range(95)
    )
    first_seed = data.index(b"seed ")
    other_ring = HEADER.replace("ring edge", "ring core")
    for role, seed in SEEDS.items():
        other_ring = other_ring.replace(f"{role} {name_of(seed)}", f"{role} {name_of(seed, 'core')}")
    return {
        "plain": ("ok", "three keys with their seeds", plain),
        "seed_forgotten": ("ok", "the seed of previous was dropped on the way", without(plain, f"seed {previous}")),
        "all_seeds_forgotten": ("ok", "no seed is carried any more", without(plain, "seed ")),
        "seed_never_sealed": (
            "ok",
            "previous had no seed when it was sealed",
            window(seeds=(SEEDS["current"], SEEDS["next"], None)),
        ),
        "no_ancestors": ("ok", "a first window", window(HEADER.replace(HEADER.split("\n")[8], "ancestors -"))),
        "empty": ("malformed", "no bytes", b""),
        "blank_line_only": ("malformed", "one line end", b"\n"),
        "truncated_header": ("malformed", "cut within the header", data[:200]),
        "truncated_before_signature": (
            "malformed",
            "cut at the line that would be signed",
            data[: data.index(b"signed ")],
        ),
        "truncated_signature": ("malformed", "cut within the signature", data[:signature_at]),
        "truncated_seed": ("malformed", "cut within the first seed", data[: first_seed + 60]),
        "last_line_not_ended": ("malformed", "the last line end is missing", data[:-1]),
        "header_flipped": ("bad signature", "one bit of the epoch", flip(data, data.index(b"epoch 41") + 7)),
        "barrier_flipped": ("bad signature", "one bit of the barrier", flip(data, data.index(b"barrier 12") + 9)),
        "signature_flipped": ("bad signature", "one bit of the signature", flip(data, signature_at)),
        "signature_malleated": ("bad signature", "S + L: another signature by arithmetic alone", malleate(plain)),
        "seed_flipped": ("bad seal", "one bit of a sealed seed", flip(data, first_seed + 60)),
        "seeds_exchanged": (
            "bad seal",
            "the sealed seeds of current and next stand under each other's name",
            _exchanged(plain, current, following),
        ),
        "seed_without_commitment": (
            "bad seal",
            "a seed is carried for a key that was sealed without one",
            window(seeds=(SEEDS["current"], SEEDS["next"], None)) + plain.split("\n")[-2] + "\n",
        ),
        "header_lines_reordered": ("bad signature", "fence before epoch", swap(plain, "epoch ", "fence ")),
        "header_lines_reordered_and_signed": (
            "malformed",
            "fence before epoch, signed",
            window(swap(HEADER, "epoch ", "fence ")),
        ),
        "keys_reordered": ("bad signature", "next before current", swap(plain, "current ", "next ")),
        "seeds_reordered": ("malformed", "next's seed first", swap(plain, f"seed {current}", f"seed {following}")),
        "seed_twice": ("malformed", "the last seed comes twice", plain + plain.split("\n")[-2] + "\n"),
        "seed_of_no_key": (
            "malformed",
            "a seed of a key that the header does not have",
            plain.replace(f"seed {previous}", f"seed {stray}"),
        ),
        "seal_missing": ("malformed", "no commitment for next", resigned(without(plain, f"seal {following}"))),
        "seals_reordered": (
            "malformed",
            "commitments out of order",
            resigned(swap(plain, f"seal {current}", f"seal {following}")),
        ),
        "line_more": ("malformed", "a line more, signed", resigned(plain.replace("signed ", "more 1\nsigned ", 1))),
        "kek_missing": ("malformed", "no kek line", resigned(without(plain, "kek "))),
        "next_missing": (
            "malformed",
            "no next key",
            window(without(HEADER, "next "), seeds=(SEEDS["current"], SEEDS["previous"])),
        ),
        "stranger": ("unknown signer", "signed with a key that nobody trusts", window(signer=STRANGER)),
        "stranger_under_known_id": (
            "bad signature",
            "a stranger's signature under the id of the scheduler's key",
            window(signer=STRANGER).replace(key_id("ed25519", public(STRANGER)), key_id("ed25519", public(SIGNING))),
        ),
        "unsigned": ("malformed", "without its signature line", without(plain, "signed ")),
        "signed_as_beat": (
            "bad signature",
            "the right key, but it signed these bytes as a beat",
            sign(plain[: plain.index("signed ")], "beat") + plain[first_seed:],
        ),
        "other_ring": ("wrong ring", "a proper window of ring core", window(other_ring)),
        "below_barrier": (
            "below barrier",
            "previous was born before the barrier",
            window(HEADER.replace("barrier 12", "barrier 40")),
        ),
        "born_after_epoch": (
            "malformed",
            "a key from the future",
            window(HEADER.replace(f"{following} 41", f"{following} 42")),
        ),
        "barrier_above_epoch": (
            "malformed",
            "a barrier that no epoch has",
            window(HEADER.replace("barrier 12", "barrier 42")),
        ),
        "twin_names": (
            "twin names",
            "previous has the name of current",
            window(HEADER.replace(previous, current), seeds=(SEEDS["current"], SEEDS["next"], SEEDS["current"])),
        ),
        "current_never_seals": (
            "malformed",
            "current does not say until when it seals",
            window(HEADER.replace("1780000000000 1780028800000", "- -")),
        ),
        "weak_seed": (
            "weak seed",
            "the seed of current is zero; its name fits",
            window(HEADER.replace(current, name_of(zero)), seeds=(zero, SEEDS["next"], SEEDS["previous"])),
        ),
        "counting_seed": (
            "weak seed",
            "the seed of next counts up; its name fits",
            window(
                HEADER.replace(following, name_of(bytes(range(32)))),
                seeds=(SEEDS["current"], bytes(range(32)), SEEDS["previous"]),
            ),
        ),
        "wrong_seed": (
            "wrong name",
            "next's name over another seed",
            window(seeds=(SEEDS["current"], fixed("other"), SEEDS["previous"])),
        ),
        "short_seed": (
            "malformed",
            "a seed of 31 bytes",
            window(seeds=(SEEDS["current"], fixed("x", 31), SEEDS["previous"])),
        ),
        "unknown_kek": ("unknown kek", "sealed with a KEK that is not at hand", window(kek=OTHER_KEK)),
        "unknown_kek_under_known_id": (
            "bad seal",
            "sealed with another KEK under the id of ours",
            resigned(window(kek=OTHER_KEK).replace(key_id("keyrotd-kek-1", OTHER_KEK), key_id("keyrotd-kek-1", KEK))),
        ),
        "version_9": ("version", "a later format", window(HEADER.replace("window v1", "window v9"))),
        "version_9_with_lines_more": (
            "version",
            "proven, and nothing of it is read",
            sign(HEADER.replace("window v1", "window v9") + "hue green\n", "window"),
        ),
        "version_9_of_a_stranger": (
            "unknown signer",
            "anybody can write a 9",
            window(HEADER.replace("window v1", "window v9"), signer=STRANGER),
        ),
        "version_01": ("malformed", "no such version", window(HEADER.replace("window v1", "window v01"))),
        "a_beat": ("malformed", "not a window", sign(BEAT, "beat")),
        "crlf": ("malformed", "line ends of another system", data.replace(b"\n", b"\r\n")),
        "tab": ("malformed", "a tab for a blank", data.replace(b"epoch 41", b"epoch\t41")),
        "two_blanks": ("malformed", "two blanks for one, signed", window(HEADER.replace("epoch 41", "epoch  41"))),
        "blank_at_line_end": ("malformed", "signed", window(HEADER.replace("epoch 41", "epoch 41 "))),
        "byte_order_mark": ("malformed", "U+FEFF first", b"\xef\xbb\xbf" + data),
        "not_ascii": (
            "malformed",
            "a ring with an umlaut, signed",
            window(HEADER.replace("ring edge", "ring \u00e4dge")),
        ),
        "ring_of_two_words": ("malformed", "signed", window(HEADER.replace("ring edge", "ring edge two"))),
        "trailing_byte": ("malformed", "one byte after the end", data + b"x"),
        "trailing_line": ("malformed", "one empty line after the end", data + b"\n"),
        "leading_zero": ("malformed", "epoch 041, signed", window(HEADER.replace("epoch 41", "epoch 041"))),
        "negative": ("malformed", "fence -7, signed", window(HEADER.replace("fence 7", "fence -7"))),
        "plus_sign": ("malformed", "fence +7, signed", window(HEADER.replace("fence 7", "fence +7"))),
        "number_too_large": ("malformed", "2**63, signed", window(HEADER.replace("fence 7", f"fence {2**63}"))),
        "number_largest": ("ok", "2**63 - 1", window(HEADER.replace("fence 7", f"fence {2**63 - 1}"))),
        "epoch_zero": ("malformed", "no window has epoch 0", window(HEADER.replace("epoch 41", "epoch 0"))),
        "upper_case_hex": ("malformed", "signed", window(HEADER.replace(current, current.upper()))),
        "base64_spare_bits_in_signature": ("malformed", "padding bits set", spare_bits(plain, "signed ")),
        "base64_without_padding": ("malformed", "the signature's padding is missing", plain.replace("==\n", "\n", 1)),
        "base64_url_alphabet": ("malformed", "minus and underscore", _url_alphabet(plain)),
        "too_many_bytes": ("too large", "65537 of them", data + b"x" * (65_537 - len(data))),
        "too_many_keys": (
            "too large",
            "97 of them, signed",
            window(
                HEADER[: HEADER.index("previous ")] + many,
                seeds=(SEEDS["current"], SEEDS["next"], *(fixed(f"seed {n}") for n in range(95))),
            ),
        ),
        "too_many_ancestors": (
            "too large",
            "17 of them, signed",
            window(HEADER.replace("ancestors ", "ancestors " + " ".join(["ab" * 32] * 15) + " ")),
        ),
    }


def _exchanged(data: str, one: str, two: str) -> str:
    rows = {row.split(" ")[1]: row for row in data.split("\n") if row.startswith("seed ")}
    first, second = (rows[name].split(" ")[2] for name in (one, two))
    return data.replace(rows[one], f"seed {one} {second}").replace(rows[two], f"seed {two} {first}")


def _url_alphabet(data: str) -> str:
    at = data.index("seed ")
    return data[:at] + data[at:].replace("+", "-").replace("/", "_")


def resigned(data: str) -> str:
    """The same window after its body was changed, signed again by the scheduler's own key."""
    at = data.index("signed ")
    return sign(data[:at], "window") + data[data.index("\n", at) + 1 :]


def message_vectors() -> dict[str, tuple[str, str, str | bytes]]:
    beat, request, event = sign(BEAT, "beat"), sign(REQUEST, "request", OPERATOR), sign(EVENT, "event")
    changed_reason = REQUEST.split("\n")[6]

    def request_because(reason: str) -> str:
        return sign(REQUEST.replace(changed_reason, f"reason {reason}"), "request", OPERATOR)

    return {
        "beat_plain": ("ok", "a confirmed window", beat),
        "beat_unconfirmed": (
            "ok",
            "some node has not read it back",
            sign(BEAT.replace("at 1780000007000", "at -"), "beat"),
        ),
        "beat_while_keys_change": (
            "ok",
            "the leader names the keys that it accepts",
            sign(f"{BEAT}accepts {KEK_IDS}\n", "beat"),
        ),
        "beat_accepts_nothing": ("malformed", "the line without an id, signed", sign(BEAT + "accepts \n", "beat")),
        "beat_of_no_window": ("ok", "a leader that has none", sign(_line(BEAT, "digest", "-"), "beat")),
        "beat_flipped": ("bad signature", "one bit of signed_at", flip(beat.encode(), beat.index("signed_at") + 20)),
        "beat_stranger": ("unknown signer", "signed by a stranger", sign(BEAT, "beat", STRANGER)),
        "beat_by_operator": ("unknown signer", "an operator keeps no time", sign(BEAT, "beat", OPERATOR)),
        "beat_other_ring": ("wrong ring", "of ring core", sign(BEAT.replace("ring edge", "ring core"), "beat")),
        "beat_version_9": ("version", "a later format", sign(BEAT.replace("beat v1", "beat v9") + "hue 1\n", "beat")),
        "beat_version_9_flipped": (
            "bad signature",
            "it was not signed as that",
            sign(BEAT, "beat").replace("beat v1", "beat v9"),
        ),
        "beat_too_large": ("too large", "2049 bytes", beat.encode() + b"x" * (2_049 - len(beat))),
        "beat_trailing_line": ("malformed", "a line after the signature", beat + "seed x\n"),
        "beat_line_more": ("malformed", "a line more, signed", sign(BEAT + "more 1\n", "beat")),
        "beat_short_digest": ("malformed", "signed", sign(_line(BEAT, "digest", "ab"), "beat")),
        "request_plain": ("ok", "a revocation, with a reason beyond ASCII", request),
        "request_rotate": (
            "ok",
            "nobody says why",
            sign(_line(_line(REQUEST, "goal", "rotate"), "reason", "-"), "request", OPERATOR),
        ),
        "request_reason_is_a_dash": ("ok", "a dash that was typed", request_because("%2D")),
        "request_by_scheduler": ("unknown signer", "a scheduler is no operator", sign(REQUEST, "request")),
        "request_flipped": (
            "bad signature",
            "one bit of past_epoch",
            flip(request.encode(), request.index("past_epoch") + 12),
        ),
        "request_signed_as_event": (
            "bad signature",
            "the right key for other bytes",
            REQUEST + sign(REQUEST, "event", OPERATOR).split("\n")[-2] + "\n",
        ),
        "request_trailing_line": ("malformed", "a line after the signature", request + "more 1\n"),
        "request_other_ring": (
            "wrong ring",
            "of ring core",
            sign(REQUEST.replace("ring edge", "ring core"), "request", OPERATOR),
        ),
        "request_unknown_goal": (
            "malformed",
            "a goal of version 2",
            sign(_line(REQUEST, "goal", "pause"), "request", OPERATOR),
        ),
        "request_pause": ("ok", "no rotation until then", sign(PAUSE, "request", OPERATOR)),
        "request_resume": ("ok", "whatever paused may end", sign(_line(PAUSE, "goal", "resume"), "request", OPERATOR)),
        "request_pause_by_scheduler": ("unknown signer", "a scheduler is no operator", sign(PAUSE, "request")),
        "request_pause_without_end": ("malformed", "signed", sign(without(PAUSE, "until"), "request", OPERATOR)),
        "request_rotate_of_version_2": (
            "malformed",
            "version 1 can say it",
            sign(_line(PAUSE, "goal", "rotate"), "request", OPERATOR),
        ),
        "request_pause_past_an_epoch": (
            "malformed",
            "signed",
            sign(_line(PAUSE, "past_epoch", "41"), "request", OPERATOR),
        ),
        "request_truth_is_yes_or_no": (
            "malformed",
            "true",
            sign(_line(REQUEST, "drop_live_keys", "true"), "request", OPERATOR),
        ),
        "request_reason_empty": ("malformed", "nothing for nothing", request_because("")),
        "request_reason_escaped_in_vain": ("malformed", "%61 for a", request_because("%61")),
        "request_reason_lower_case_escape": ("malformed", "%e2 for %E2", request_because("%e2%98%b9")),
        "request_reason_bad_escape": ("malformed", "a percent sign alone", request_because("100%")),
        "request_reason_not_utf8": ("malformed", "a byte alone", request_because("%FF")),
        "request_reason_line_end": ("malformed", "a line end within", request_because("a%0Ab")),
        "request_reason_escape_sequence": ("malformed", "would clear a terminal", request_because("%1B[2J")),
        "request_reason_turned_around": ("malformed", "U+202E", request_because("%E2%80%AE")),
        "request_reason_longest": ("ok", "400 bytes", request_because("%20" * 400)),
        "request_reason_too_long": ("malformed", "401 bytes", request_because("%20" * 401)),
        "request_version_9": (
            "version",
            "a later format: nothing is done by half",
            sign(REQUEST.replace("request v1", "request v9") + "hue green\n", "request", OPERATOR),
        ),
        "request_version_2_of_a_rotation": (
            "ok",
            "as whoever writes no version 1 any more says it",
            sign(_line(REQUEST, "goal", "rotate").replace("request v1", "request v2"), "request", OPERATOR),
        ),
        "event_version_2_of_a_rotation": (
            "ok",
            "likewise",
            sign(EVENT.replace("event v1", "event v2"), "event"),
        ),
        "event_version_9": (
            "version",
            "a later format",
            sign(EVENT.replace("event v1", "event v9") + "hue green\n", "event"),
        ),
        "event_plain": ("ok", "a publish", event),
        "event_of_a_pause": ("ok", "with its end", sign(_ending(EVENT, "until 1780010000000"), "event")),
        "event_of_version_1_with_end": ("malformed", "signed", sign(EVENT + "until 1780010000000\n", "event")),
        "event_flipped": ("bad signature", "one bit of the epoch", flip(event.encode(), event.index("epoch") + 7)),
        "event_trailing_line": ("malformed", "a line after the signature", event + "more 1\n"),
        "event_other_ring": ("wrong ring", "of ring core", sign(EVENT.replace("ring edge", "ring core"), "event")),
        "event_kind_of_two_words": ("malformed", "signed", sign(_line(EVENT, "kind", "two words"), "event")),
        "report_plain": ("ok", "one server in step, one not", report()),
        "report_version_9": (
            "ok",
            "a later format, read as far as this one goes",
            report(REPORT.replace("report v1", "report v9") + "hue green\n"),
        ),
        "report_version_9_of_other_words": (
            "ok",
            "a state of a later version, and the node lives",
            report(_line(REPORT.replace("report v1", "report v9"), "state", "asleep")),
        ),
        "report_version_9_without_a_counter": (
            "malformed",
            "no version goes without",
            report(without(REPORT.replace("report v1", "report v9"), "counter ")),
        ),
        "report_version_9_flipped": (
            "bad signature",
            "what was MACed as version 1",
            report().replace("report v1", "report v9"),
        ),
        "report_while_keys_change": (
            "ok",
            "the node names the keys that it accepts",
            report(REPORT.replace("server haproxy", f"accepts {KEK_IDS}\nserver haproxy", 1)),
        ),
        "report_of_no_server": ("ok", "none configured yet", report(REPORT[: REPORT.index("server ")])),
        "report_flipped": (
            "bad signature",
            "one bit of the counter",
            flip(report().encode(), report().index("counter") + 9),
        ),
        "report_mac_flipped": ("bad signature", "one bit of the MAC", _mac_flipped(report())),
        "report_unknown_kek": ("unknown kek", "of a node that has another KEK", report(kek=OTHER_KEK)),
        "report_other_ring": (
            "wrong ring",
            "of ring core",
            report(REPORT.replace("ring edge", "ring core"), ring="core"),
        ),
        "report_moved_to_this_ring": ("bad signature", "made under the key of ring core", report(ring="core")),
        "report_without_mac": ("malformed", "no last line", REPORT),
        "report_line_after_mac": ("malformed", "the MAC is not last", report() + "server a b in_step - none -\n"),
        "report_unknown_state": ("malformed", "a state of a later version", report(_line(REPORT, "state", "asleep"))),
        "report_node_of_two_words": ("malformed", "under a proper MAC", report(_line(REPORT, "node", "edge 1"))),
        "report_server_twice": (
            "malformed",
            "two servers of one name",
            report(REPORT.replace("server proxy-2", "server haproxy")),
        ),
        "report_server_five_words": ("malformed", "no fault field", report(REPORT.replace(" resumed -", " resumed"))),
        "report_too_many_servers": (
            "too large",
            "33 of them",
            report(REPORT[: REPORT.index("server ")] + "".join(f"server s{n} d in_step - none -\n" for n in range(33))),
        ),
        "report_of_peers": ("ok", "where peers may ask, and what became of our tickets", report(REPORT_OF_PEERS)),
        "report_of_succession": ("ok", "and of the key whose followers it seals with", report(ALONG)),
        "report_of_succession_in_version_1": (
            "malformed",
            "which has no place for it",
            report(ALONG.replace("report v2", "report v1")),
        ),
        "report_of_succession_by_half_a_name": ("malformed", "eight bytes", report(ALONG.replace("ab" * 16, "ab" * 8))),
        "report_of_succession_and_peers": (
            "ok",
            "in this order",
            report(f"{ALONG}peers haproxy 192.0.2.7:443 2 3\n"),
        ),
        "report_of_peers_and_succession": (
            "malformed",
            "in the other",
            report(ALONG.replace("along", "peers haproxy 192.0.2.7:443 2 3\nalong")),
        ),
        "report_of_succession_twice": ("malformed", "it goes on along one", report(f"{ALONG}along {'cd' * 16}\n")),
        "report_version_2_without_peers": (
            "ok",
            "as whoever writes no version 1 any more says it",
            report(REPORT.replace("report v1", "report v2")),
        ),
        "report_of_peers_in_version_1": (
            "malformed",
            "which has no place for them",
            report(REPORT_OF_PEERS.replace("report v2", "report v1")),
        ),
        "report_of_peers_out_of_turn": (
            "malformed",
            "of the second server only after the first",
            report(
                REPORT_OF_PEERS.replace("peers haproxy 192.0.2.7:443 2 3\n", "") + "peers haproxy 192.0.2.7:443 2 3\n"
            ),
        ),
        "report_of_peers_of_nobody": (
            "malformed",
            "of a server that it does not have",
            report(REPORT_OF_PEERS.replace("peers proxy-2", "peers proxy-3")),
        ),
        "report_of_peers_by_name": (
            "malformed",
            "an address that somebody else resolves",
            report(REPORT_OF_PEERS.replace("192.0.2.7", "edge-1.example.com")),
        ),
        "report_of_peers_mapped": (
            "malformed",
            "IPv4 within IPv6, written in more ways than one",
            report(REPORT_OF_PEERS.replace("2001:db8::7", "::ffff:c000:207")),
        ),
        "report_of_more_peers_than_tried": (
            "malformed",
            "four of three",
            report(REPORT_OF_PEERS.replace(" 2 3\n", " 4 3\n")),
        ),
        "peers_plain": ("ok", "one of each kind", sign(PEERS, "peers")),
        "peers_of_nobody": ("ok", "none has an address", sign(PEERS[: PEERS.index("peer ")], "peers")),
        "peers_stranger": ("unknown signer", "signed by a stranger", sign(PEERS, "peers", STRANGER)),
        "peers_by_operator": ("unknown signer", "whose key says nothing here", sign(PEERS, "peers", OPERATOR)),
        "peers_flipped": (
            "bad signature",
            "one digit of an address",
            sign(PEERS, "peers").replace("192.0.2.7", "192.0.2.8"),
        ),
        "peers_other_ring": ("wrong ring", "of ring core", sign(PEERS.replace("ring edge", "ring core"), "peers")),
        "peers_without_a_port": ("malformed", "signed", sign(PEERS.replace(":443", ""), "peers")),
        "peers_too_many": (
            "too large",
            "65 of them",
            sign(PEERS[: PEERS.index("peer ")] + "peer a haproxy 192.0.2.7:443\n" * 65, "peers"),
        ),
        "peers_version_9": ("version", "a later format", sign(PEERS.replace("peers v1", "peers v9"), "peers")),
        "report_too_large": ("too large", "32769 bytes", report().encode() + b"x" * (32_769 - len(report()))),
    }


def _line(body: str, field: str, value: str) -> str:
    return "".join(f"{field} {value}\n" if row.startswith(f"{field} ") else row + "\n" for row in body.split("\n")[:-1])


def _ending(event: str, end: str) -> str:
    return event.replace("event v1", "event v2") + end + "\n"


def _mac_flipped(data: str) -> str:
    last = data[-2]
    return data[:-2] + ("0" if last != "0" else "1") + "\n"


def vectors() -> dict[str, bytes]:
    """Each file's name and content."""
    texts: dict[str, tuple[str, str, str, str | bytes]] = {}
    for name, (expect, comment, data) in window_vectors().items():
        texts[f"window_{name}"] = ("window", expect, comment, data)
    for name, (expect, comment, data) in message_vectors().items():
        texts[name] = (name.split("_")[0], expect, comment, data)
    return {f"{name}.txt": _file(*parts) for name, parts in texts.items()}


def _file(read: str, expect: str, comment: str, data: str | bytes) -> bytes:
    header = (
        f"expect: {expect}\nread: {read}\ncomment: {comment}\nring: edge\nkek: {KEK.hex()}\n"
        f"verify: {public(SIGNING).hex()}\noperator-verify: {public(OPERATOR).hex()}\n\n"
    )
    return header.encode() + (data.encode() if isinstance(data, str) else data)


if __name__ == "__main__":
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for file_name, content in vectors().items():
        (FOLDER / file_name).write_bytes(content)
