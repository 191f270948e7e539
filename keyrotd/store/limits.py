"""How much of anything a store may hold or answer; what is larger is absent when read and refused when written."""

from typing import Final

from keyrotd.core.errors import StoreUnavailable

#: A window of 24 keys and 16 ancestors takes about 8 KiB.
WINDOW_BYTES: Final = 65_536
#: Below 300 bytes, but for the ids of keys while those change.
BEAT_BYTES: Final = 2_048
#: A node of 20 servers, each with a fault in words, takes about 8 KiB.
REPORT_BYTES: Final = 32_768
#: A list of 64, all names at their longest, takes 24 KiB.
PEERS_BYTES: Final = 32_768
REQUEST_BYTES: Final = 4_096
EVENT_BYTES: Final = 4_096
#: Digests, names of nodes and of lease holders, ids of requests: visible ASCII, spaces included.
NAME_BYTES: Final = 256

#: Twice the largest fleet that keyrotd promises to serve, at 800 bytes each.
REPORTS: Final = 20_000
REPORTS_BYTES: Final = 16_777_216
#: Of more than that, so many are read beside those of nodes that are known, however many those are: a reading must end
#: in time, or nobody is heard.
STRANGERS: Final = 4_000
STRANGERS_BYTES: Final = 4_194_304
OFFERS: Final = 64
#: What is read of them at a time: twice as many bytes as so many of the largest honest windows take.
OFFERS_BYTES: Final = 1_048_576
REQUESTS: Final = 256
#: Whoever asks for names gets them whole, and nothing bounds the length of one: so first it is asked what a hash takes
#: in memory, and of one that takes more than twice what is fair no name is read.
REPORTS_HELD_BYTES: Final = 2 * REPORTS_BYTES
OFFERS_HELD_BYTES: Final = 2 * OFFERS_BYTES
REQUESTS_HELD_BYTES: Final = 2 * REQUESTS * REQUEST_BYTES
#: Of more fields than these the store guesses what the others take; a few long names among them are as hard to meet.
MEASURED: Final = REPORTS
HISTORY: Final = 1_000

#: A lease that claims to run longer was not written by a scheduler, and would lock them all out.
LEASE_MS: Final = 300_000
#: A stored fence further above the caller's own is garbage: at one change of leader a second it takes 136 years.
FENCE_JUMP: Final = 2**32


def fitting(operation: str, value: bytes, limit: int) -> bytes:
    """Return `value` if the store takes that much of it."""
    if not 0 < len(value) <= limit:
        raise StoreUnavailable(
            f"store: {operation} takes 1 to {limit} bytes, was given {len(value)}", operation=operation
        )
    return value


def named(operation: str, name: str) -> str:
    """Return `name` if it may name something in the store."""
    if not 0 < len(name) <= NAME_BYTES or not (name.isascii() and name.isprintable()):
        raise StoreUnavailable(
            f"store: {operation} takes a name of 1 to {NAME_BYTES} visible ASCII characters", operation=operation
        )
    return name
