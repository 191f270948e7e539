"""
What version 1 of every format says, as values, and the bytes in v1/ that say it: frozen on the day they were written.

`python -m tests.vectors.version_1` writes the files that are not there yet and never touches one that is. Whatever
later versions add, these bytes are read for as long as they are promised to be, and as these very values. The keys that
open them stand beside them and guard nothing.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from keyrotd.core.decide import Memory
from keyrotd.core.keys import Tenure
from keyrotd.core.messages import (
    Beat,
    Event,
    Goal,
    NodeState,
    ProbeState,
    Report,
    Request,
    ServerReport,
    ServerState,
)
from keyrotd.core.stek import Stek
from keyrotd.core.succession import Line, Succession
from keyrotd.core.window import Key, Window
from keyrotd.daemon.clock import Heard
from keyrotd.daemon.state import Bound, Cache, Remembered
from keyrotd.seal.keyfiles import KEY_BYTES, Kek, OperatorKey, SigningKey, make_secrets, parse
from keyrotd.seal.links import Links, seal_links
from keyrotd.seal.messages import sign_beat, sign_event, sign_request, write_report
from keyrotd.seal.window import forget, seal_window
from keyrotd.servers.keyfile import KeyFile
from keyrotd.servers.layouts import ATS48, NGINX80
from tests.vectors.make import fixed

FOLDER = Path(__file__).parent / "v1"


class Chance:
    """Bytes that look random and are the same on every day."""

    def __init__(self, label: str) -> None:
        self._label, self._count = label, 0

    def __call__(self, length: int) -> bytes:
        self._count += 1
        return fixed(f"version 1, {self._label}, {self._count}", length)


SECRETS: Final = make_secrets("edge", Chance("secrets"))
KEKS = parse(SECRETS["edge.kek"], Kek, "edge.kek")
SIGNER = parse(SECRETS["signing.key"], SigningKey, "signing.key")[0]
OPERATOR = parse(SECRETS["operator.key"], OperatorKey, "operator.key")[0]

_BOOT_ID = "0f9d3c4e-1f2a-4b5c-8d6e-7f8091a2b3c4"
_HOUR_MS = 3_600_000
_PUBLISHED_AT = 1_780_000_000_000


def _stek(label: str) -> Stek:
    return Stek(fixed(f"version 1, seed of {label}", KEY_BYTES), "edge")


def _key(label: str, *, born: int, seals_from: int | None = None) -> Key:
    """A key of R 4h, T 2h."""
    made_at = _PUBLISHED_AT + (born - 41) * 4 * _HOUR_MS
    seals_until = None if seals_from is None else seals_from + 8 * _HOUR_MS
    return Key(
        name=_stek(label).name,
        stek=_stek(label),
        born=born,
        made_at=made_at,
        seals_from=seals_from,
        seals_until=seals_until,
        opens_until=(made_at + 12 * _HOUR_MS if seals_until is None else seals_until) + 2 * _HOUR_MS + 8_000,
        steps_at=made_at + 8 * _HOUR_MS,
        step_ms=4 * _HOUR_MS,
    )


CURRENT = _key("current", born=40, seals_from=_PUBLISHED_AT)
PREVIOUS = _key("previous", born=39, seals_from=_PUBLISHED_AT - 4 * _HOUR_MS)
WINDOW = Window(
    ring="edge",
    epoch=41,
    fence=7,
    barrier=12,
    published_at=_PUBLISHED_AT,
    ticket_lifetime_ms=2 * _HOUR_MS,
    max_stranded_ms=500_000_000,
    ancestors=(hashlib.sha256(b"epoch 40").hexdigest(), hashlib.sha256(b"epoch 39").hexdigest()),
    current=CURRENT,
    next=_key("next", born=41),
    previous=(PREVIOUS,),
)
FIRST_WINDOW = Window(
    ring="edge",
    epoch=1,
    fence=1,
    barrier=0,
    published_at=_PUBLISHED_AT - 160 * _HOUR_MS,
    ticket_lifetime_ms=2 * _HOUR_MS,
    max_stranded_ms=500_000_000,
    ancestors=(),
    current=_key("first current", born=1, seals_from=_PUBLISHED_AT - 160 * _HOUR_MS),
    next=_key("first next", born=1),
    previous=(),
)
#: As agents cache and offer it once `previous` opens no more.
FADED_SEEDS = frozenset({WINDOW.current.name, WINDOW.next.name})

_IDS = tuple(hashlib.sha256(label).hexdigest()[:16] for label in (b"old key", b"new key"))

BEATS = {
    "beat": Beat(
        ring="edge",
        epoch=41,
        digest=WINDOW.digest,
        confirmed_at=_PUBLISHED_AT + 7_000,
        signed_at=_PUBLISHED_AT + 9_000,
    ),
    "beat-unconfirmed": Beat(
        ring="edge", epoch=41, digest=WINDOW.digest, confirmed_at=None, signed_at=_PUBLISHED_AT + 1_000
    ),
    "beat-while-keys-change": Beat(
        ring="edge",
        epoch=41,
        digest=WINDOW.digest,
        confirmed_at=None,
        signed_at=_PUBLISHED_AT + 1_000,
        accepts=_IDS,
    ),
}
REQUESTS = {
    "request-rotate": Request(
        ring="edge",
        goal=Goal.ROTATE,
        past_epoch=41,
        drop_live_keys=True,
        who="ops@example.com",
        reason="",
        made_at=_PUBLISHED_AT + 10_000,
    ),
    "request-revoke": Request(
        ring="edge",
        goal=Goal.REVOKE,
        past_epoch=41,
        drop_live_keys=False,
        who="ops@example.com",
        reason="node edge-7 was stolen, 100% sure \u2639",
        made_at=_PUBLISHED_AT + 10_000,
    ),
}
EVENTS = {
    "event": Event(
        ring="edge",
        kind="rotate",
        epoch=41,
        happened_at=_PUBLISHED_AT,
        who="",
        reason="due; not waited for: edge-9",
    )
}


def _server(
    name: str, state: ServerState, probe: ProbeState, slots: int | None = None, fault: str = ""
) -> ServerReport:
    return ServerReport(name=name, driver="haproxy", state=state, slots=slots, probe=probe, fault=fault)


def _report(state: NodeState, *servers: ServerReport, accepts: tuple[str, ...] = (), steps: int = 0) -> Report:
    return Report(
        ring="edge",
        node="edge-1.example.com",
        counter=29_863_000_000_000_077,
        reported_at=_PUBLISHED_AT + 11_000,
        state=state,
        steps=steps,
        epoch=41,
        holds=WINDOW.digest,
        read_back=WINDOW.digest if state is NodeState.IN_STEP else None,
        floor=41,
        barrier=12,
        poll_interval_ms=5_000,
        servers=servers,
        accepts=accepts,
    )


#: Between them they use every word for a state that version 1 has.
REPORTS = {
    "report": _report(NodeState.IN_STEP, _server("haproxy", ServerState.IN_STEP, ProbeState.RESUMED, slots=3)),
    "report-of-no-server": _report(NodeState.JOINING),
    "report-behind": _report(
        NodeState.BEHIND,
        _server("a", ServerState.INSTALLING, ProbeState.NONE),
        _server("b", ServerState.FAILED, ProbeState.WRONG_KEY, fault="exit status 1: --bad \u2639"),
        _server("c", ServerState.UNREACHABLE, ProbeState.UNREACHABLE, slots=3, fault="no socket"),
    ),
    "report-drift": _report(
        NodeState.DRIFT,
        _server("a", ServerState.IN_STEP, ProbeState.NO_TICKETS),
        _server("b", ServerState.IN_STEP, ProbeState.REFUSED),
        _server("c", ServerState.IN_STEP, ProbeState.RESET),
        _server("d", ServerState.IN_STEP, ProbeState.CERTIFICATE),
    ),
    "report-stranded-while-keys-change": _report(NodeState.STRANDED, accepts=_IDS, steps=3),
    "report-isolated": _report(NodeState.ISOLATED),
}
LINKS = Links(
    succession=Succession(
        next=Line(roots=(WINDOW.next.name,), oldest=WINDOW.next, ends_at=_PUBLISHED_AT + 500_000_000),
        current=Line(roots=(PREVIOUS.name, CURRENT.name), oldest=WINDOW.current, ends_at=_PUBLISHED_AT + 500_000_000),
        others=(Line(roots=(PREVIOUS.name,), oldest=PREVIOUS, ends_at=_PUBLISHED_AT + 400_000_000),),
    ),
    strays=(_key("stray", born=38, seals_from=_PUBLISHED_AT - 8 * _HOUR_MS),),
)
MEMORIES = {
    "scheduler.memory": Remembered(memory=Memory(floor=41, barrier=12), fence=7, signed_at=_PUBLISHED_AT + 9_000),
    "agent.memory": Remembered(
        memory=Memory(floor=41, barrier=12), life=1_780_000_000, bound=Bound(_BOOT_ID, 86_400_000)
    ),
}


def _sealed(window: Window, label: str) -> bytes:
    return seal_window(window, keks=KEKS, signer=SIGNER, rand=Chance(label))


def _links() -> bytes:
    return seal_links(LINKS, ring="edge", keks=KEKS, rand=Chance("links"))


def _cache(*windows: bytes, links: bytes, confirmed_at: int | None) -> Cache:
    return Cache(
        windows=windows,
        links=links,
        confirmed_at=confirmed_at,
        spread=confirmed_at is not None,
        stood_in=False,
        sealed=() if confirmed_at is None else (WINDOW.current.name, PREVIOUS.name),
        heard=Heard(_PUBLISHED_AT + 9_000, 3_600_000, _BOOT_ID, moved=True),
    )


CACHES: Final[dict[str, Callable[[], Cache]]] = {
    "agent.cache": lambda: _cache(
        forget(_sealed(WINDOW, "window"), keep=FADED_SEEDS),
        _sealed(FIRST_WINDOW, "first window"),
        links=_links(),
        confirmed_at=_PUBLISHED_AT + 7_000,
    ),
    "agent-of-one-window.cache": lambda: _cache(_sealed(FIRST_WINDOW, "first window"), links=b"", confirmed_at=None),
}
_TENURE = Tenure(boot_id=_BOOT_ID, epoch=41, step=2, seals_until_ms=90_000_000, opens_until_ms=97_200_000)
_STEKS = tuple(_stek(label) for label in ("current", "next", "previous"))
KEY_FILES = {
    "nginx.keys": KeyFile(layout=NGINX80, keys=tuple(stek.secrets(NGINX80.scheme) for stek in _STEKS), tenure=_TENURE),
    "trafficserver.keys": KeyFile(layout=ATS48, keys=tuple(stek.secrets(ATS48.scheme) for stek in _STEKS), tenure=None),
}
ACKNOWLEDGEMENT = f"""\
keyrotd-ack 1
pid 4711
parent 4700
processes 2
poll_ms 1000
digest {hashlib.sha256(b"key file").hexdigest()}
seals {WINDOW.current.name.hex()}
epoch 41
step 2
installed_at 1780000001000
contexts 3
fault -
"""


def files() -> dict[str, bytes]:
    """Each file's name, and what today's code writes of its value."""
    window = _sealed(WINDOW, "window")
    return {
        **{name: text.encode() for name, text in SECRETS.items()},
        "window": window,
        "window-offered": forget(window, keep=FADED_SEEDS),
        "window-first": _sealed(FIRST_WINDOW, "first window"),
        **{name: sign_beat(beat, SIGNER) for name, beat in BEATS.items()},
        **{name: sign_request(request, OPERATOR) for name, request in REQUESTS.items()},
        **{name: sign_event(event, SIGNER) for name, event in EVENTS.items()},
        **{name: write_report(report, KEKS) for name, report in REPORTS.items()},
        "links": _links(),
        **{name: cache().encode() for name, cache in CACHES.items()},
        **{name: memory.encode() for name, memory in MEMORIES.items()},
        **{name: key_file.encode() for name, key_file in KEY_FILES.items()},
        "acknowledgement": ACKNOWLEDGEMENT.encode(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, content in files().items():
        if not (FOLDER / file_name).exists():
            (FOLDER / file_name).write_bytes(content)
