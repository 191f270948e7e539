"""
What keyrotd asks of a store, sorted by guarantee. Nothing here knows Redis.

A store carries opaque bytes and verifies nothing: whoever owns it may change, lose, replay or withhold any of them, so
its readers judge by signature, MAC and floor. What it does promise, it promises among honest parties.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from keyrotd.store.limits import REPORTS_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """
    What the leader's tick finds: the lease, and all there is to decide on except the reports.

    `fence` None: another one leads, until `lease_ms` from now if it does not renew. `digest` '' : no window is stored.
    `offers` are digests of some. `offer_count` and `report_count` count all that is there, garbage included: where that
    is more than can be read, it is to be pruned. `store_at` is the store's own clock, a witness and never a judge.
    `replicas` is how many of them acknowledged the lease, and with it every earlier write of this Store value; 0 when
    nobody asked.
    """

    fence: int | None
    leader: str
    lease_ms: int
    digest: str
    window: bytes | None
    beat: bytes | None
    requests: dict[str, bytes]
    offers: tuple[str, ...]
    offer_count: int
    report_count: int
    store_at: int
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """The window is the stored one."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing was written: `newest` is the fence that counts."""

    newest: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Nothing was written: the stored window is not the parent but `found` ('' : none)."""

    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """
    What a node's tick finds. `window` is None when the node knows it already, or none is stored (`digest` '').

    `report_fault` says in the store's words why it took no report, and `offers_unread` that it did not tell what is
    offered; the reading is good all the same.
    """

    beat: bytes | None
    digest: str
    window: bytes | None
    offers: tuple[str, ...]
    offers_unread: bool = False
    report_fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    What a person wants to see of a ring. `leader` '' : nobody leads. `fence` 0 : nobody ever led.

    `report_count` counts all that is there, garbage included.
    """

    digest: str
    window: bytes | None
    beat: bytes | None
    leader: str
    lease_ms: int
    fence: int
    report_count: int = 0


class Store(Protocol):
    """
    One ring's part of a store. A value belongs to one thread.

    Every method ends within the store's timeout, its retries included, and raises StoreUnavailable (whose `operation`
    is the method's name) when it cannot do what it says. Garbage in the store is no fault: a value of a wrong kind or
    size counts as absent, and the leader's next write or `lead` replaces it.

    Fenced: they happen at once and whole, or not at all, and never for a scheduler that was overtaken.

    - `publish` writes only for the newest fence, and only over `parent` ('' : over nothing). On success the offer of
      that same window is dropped and the channel wakes everybody, each at a moment of its own within `spread_ms`. Asked
      again for what it has done, it says Published.

    Timely: late is as bad as never.

    - `lead` takes or renews the lease for `ttl_ms`, in one round trip with all that the tick reads. Whoever takes the
      lease gets a fence above every earlier one: above the counter, the one beside the window, and `fence_above`, the
      highest that the caller remembers. A holder that renews in time keeps its own. Names must differ between
      schedulers and between their lives.
    - `release` ends the lease at once, if it is `holder`'s.
    - `beat` is written for the newest fence only, and while its lease lives; False: overtaken, or too late.

    May be lost, in whole or in part, at any time:

    - `poll` is a node's one round trip: it reads, and hands in the report. The bytes of the window come only if its
      digest is not `known_digest`.
    - `report`, `reports`, `forget`, `prune_reports`: one report per node, the last one wins. Reading has a bound on
      number and bytes, which `most_bytes` narrows: first the nodes that the caller knows, in that order, then any
      others. To prune is to drop all but some, garbage included: whoever may write reports may write more of them than
      anybody can read.
    - `offer`, `withdraw`, `offers`, `prune_offers`: windows that nodes hold and the store may have lost, by digest.
      When they are too much, whoever polls is told of none; small ones are read before large ones.
    - `request`, `settle`: what operators ask for, by id, until settled. A request wakes the leader. When there are too
      many to be read at once, `lead` reads some and drops the others.
    - Where offers, requests or the reports of nodes that the caller does not know take far more memory than fair ones
      would, with their names, they count as absent; `lead` drops such requests.
    - `name_peers`, `peers`: whom nodes may offer their tickets to; the last list wins.
    - `record`, `history`: events, newest first; the oldest fall off the end.
    - `look` and `window` read for people; `wake` shortens everybody's wait.
    """

    @property
    def ring(self) -> str: ...

    def publish(
        self, *, window: bytes, digest: str, epoch: int, fence: int, parent: str, spread_ms: int = 0
    ) -> Published | Fenced | Moved: ...

    def lead(self, *, holder: str, ttl_ms: int, fence_above: int, known_digest: str) -> Desk: ...

    def release(self, *, holder: str) -> None: ...

    def beat(self, *, beat: bytes, fence: int) -> bool: ...

    def poll(self, *, known_digest: str, node: str, report: bytes) -> Poll: ...

    def report(self, *, node: str, report: bytes) -> None: ...

    def reports(self, known: Iterable[str] = (), *, most_bytes: int = REPORTS_BYTES) -> dict[str, bytes]: ...

    def forget(self, *, nodes: Iterable[str]) -> None: ...

    def prune_reports(self, *, keep: Iterable[str]) -> None: ...

    def offer(self, *, digest: str, window: bytes) -> None: ...

    def withdraw(self, *, digests: Iterable[str]) -> None: ...

    def prune_offers(self, *, keep: Iterable[str]) -> None: ...

    def offers(self, digests: Iterable[str]) -> dict[str, bytes]: ...

    def name_peers(self, *, peers: bytes) -> None: ...

    def peers(self) -> bytes | None: ...

    def request(self, *, id: str, request: bytes) -> None: ...  # noqa: A002 - the field's word, keyword-only

    def settle(self, *, ids: Iterable[str]) -> None: ...

    def record(self, *, event: bytes) -> None: ...

    def history(self, *, limit: int) -> tuple[bytes, ...]: ...

    def window(self) -> tuple[str, bytes] | None: ...

    def look(self) -> Look: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class Wakes(Protocol):
    """
    Hints that something happened in one of the rings. They may be lost, doubled or late: polling is the truth.

    `wait` is True on a hint and False after `timeout_ms` without one; it never raises, and is late by the store's
    timeout at most. `fault` says in words why no hint can come just now. `close`, from any thread, ends a wait in
    progress.
    """

    @property
    def fault(self) -> str: ...

    def wait(self, timeout_ms: int) -> bool: ...

    def close(self) -> None: ...
