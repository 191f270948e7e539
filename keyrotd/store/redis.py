"""
The store in Redis 7.0 or later, or Valkey.

Keyspace, for a namespace and a ring:

    <namespace>:{<ring>}:window    hash    window: sealed bytes; digest, epoch, fence: about them, for all to read
    <namespace>:{<ring>}:beat      string  the leader's signed heartbeat
    <namespace>:{<ring>}:lease     hash    holder, fence; expires with the lease
    <namespace>:{<ring>}:fence     string  the newest fence, a decimal number that only grows
    <namespace>:{<ring>}:reports   hash    node: report
    <namespace>:{<ring>}:offers    hash    digest: sealed bytes
    <namespace>:{<ring>}:peers     string  the leader's signed list of whom nodes may offer tickets to
    <namespace>:{<ring>}:requests  hash    id: request, until settled
    <namespace>:{<ring>}:history   list    events, newest first
    <namespace>:{<ring>}:wake      channel something happened: a message says over how many ms to spread the looking,
                                           nothing for none, or that it is a request

The braces are a hash tag: a cluster keeps all of a ring on one node. Nothing but the lease ever expires.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store import answers, limits, plain, scripts
from keyrotd.store.addresses import Address
from keyrotd.store.ear import FOR_SCHEDULERS, Ear
from keyrotd.store.limits import fitting, named
from keyrotd.store.port import Desk, Fenced, Look, Moved, Poll, Published
from keyrotd.store.redispy import ResponseError
from keyrotd.store.scripts import Run
from keyrotd.store.wire import ANSWER_BYTES, Command, Wire, unavailable

_Value = TypeVar("_Value")


def channel(namespace: str, ring: str) -> str:
    return f"{namespace}:{{{ring}}}:wake"


class Listening:
    """A store's connection, for whoever hears what is said there; any thread may."""

    def __init__(self, wire: Wire, ear: Ear) -> None:
        self.ear = ear
        self.listen = wire.listen
        self._wire = wire

    @property
    def fileno(self) -> int:
        """What to watch for something said; -1 while nothing can be."""
        return self._wire.fileno


class RedisStore:
    """One ring, over one connection that opens at the first question and again after any fault."""

    def __init__(self, address: Address, *, ring: str, namespace: str, timeout_ms: int, wait_replicas: int = 0) -> None:
        self.ring = ring
        self._wire = Wire(address, timeout_ms=timeout_ms)
        self._wait_replicas = wait_replicas
        prefix = f"{namespace}:{{{ring}}}"
        self._window = f"{prefix}:window"
        self._beat = f"{prefix}:beat"
        self._lease = f"{prefix}:lease"
        self._fence = f"{prefix}:fence"
        self._reports = f"{prefix}:reports"
        self._offers = f"{prefix}:offers"
        self._peers = f"{prefix}:peers"
        self._requests = f"{prefix}:requests"
        self._history = f"{prefix}:history"
        self._wake = channel(namespace, ring)

    def publish(
        self, *, window: bytes, digest: str, epoch: int, fence: int, parent: str, spread_ms: int = 0
    ) -> Published | Fenced | Moved:
        fitting("publish", window, limits.WINDOW_BYTES)
        named("publish", digest)
        run = Run(
            scripts.PUBLISH,
            (self._window, self._fence, self._offers),
            (window, digest, epoch, fence, parent, self._wake, spread_ms),
        )
        return self._ask("publish", answers.outcome, run)

    def lead(self, *, holder: str, ttl_ms: int, fence_above: int, known_digest: str) -> Desk:
        named("lead", holder)
        if not 0 < ttl_ms <= limits.LEASE_MS:
            raise ValueError(f"a lease runs 1 to {limits.LEASE_MS} ms, not {ttl_ms}")
        run = Run(
            scripts.LEAD,
            (
                *(self._lease, self._fence, self._window, self._beat),
                *(self._offers, self._requests, self._reports, self._history),
            ),
            (holder, ttl_ms, fence_above, known_digest),
        )
        desk = self._ask("lead", answers.desk, run)
        return replace(desk, replicas=self._replicas()) if self._wait_replicas and desk.fence is not None else desk

    def _replicas(self) -> int:
        # WAIT speaks of the writes of its own connection, the lease among them, and of no other's.
        count = self._wire.then("WAIT", self._wait_replicas, max(1, self._wire.remaining_ms // 2))
        return count if isinstance(count, int) and count > 0 else 0

    def release(self, *, holder: str) -> None:
        self._ask("release", _anything, Run(scripts.RELEASE, (self._lease,), (holder,)))

    def beat(self, *, beat: bytes, fence: int) -> bool:
        fitting("beat", beat, limits.BEAT_BYTES)
        return self._ask("beat", bool, Run(scripts.BEAT, (self._lease, self._fence, self._beat), (beat, fence)))

    def poll(self, *, known_digest: str, node: str, report: bytes) -> Poll:
        named("poll", node)
        fitting("poll", report, limits.REPORT_BYTES)
        asked = plain.glance(self._window, self._beat, self._offers)
        ear = self._wire.ear
        # After a hint there is a window to read: a fleet that asks for it at once spares itself every third question.
        at_once = plain.closer(self._window) if ear is not None and ear.take_news() else ()
        *seen, written = self._wire.ask("poll", *asked, *at_once, ("HSET", self._reports, node, report))
        fault = str(self._unavailable("report", written)) if isinstance(written, ResponseError) else ""
        glance, found = self._decoded("poll", plain.glanced, seen[: len(asked)]), seen[len(asked) :]
        if glance.digest in {"", known_digest}:
            found = []
        elif not found:
            found = self._wire.ask_on("poll", *plain.closer(self._window))
        names = plain.names(self._offers)
        told = self._wire.then(*names, answer_bytes=limits.OFFERS_HELD_BYTES) if glance.offered else None
        return self._decoded("poll", partial(plain.polled, glance, told=told, report_fault=fault), found)

    def report(self, *, node: str, report: bytes) -> None:
        named("report", node)
        fitting("report", report, limits.REPORT_BYTES)
        self._ask("report", _anything, ("HSET", self._reports, node, report))

    def reports(self, known: Iterable[str] = (), *, most_bytes: int = limits.REPORTS_BYTES) -> dict[str, bytes]:
        run = Run(scripts.REPORTS, (self._reports,), (most_bytes, *islice(known, limits.REPORTS)))
        return self._ask("reports", answers.reports, run, answer_bytes=most_bytes + ANSWER_BYTES)

    def forget(self, *, nodes: Iterable[str]) -> None:
        self._remove("forget", self._reports, list(nodes))

    def prune_reports(self, *, keep: Iterable[str]) -> None:
        self._prune("prune_reports", self._reports, "report", keep)

    def offer(self, *, digest: str, window: bytes) -> None:
        named("offer", digest)
        fitting("offer", window, limits.WINDOW_BYTES)
        self._ask("offer", _anything, ("HSET", self._offers, digest, window))

    def withdraw(self, *, digests: Iterable[str]) -> None:
        self._remove("withdraw", self._offers, list(digests))

    def prune_offers(self, *, keep: Iterable[str]) -> None:
        self._prune("prune_offers", self._offers, "window", keep)

    def offers(self, digests: Iterable[str]) -> dict[str, bytes]:
        asked = tuple(islice(digests, limits.OFFERS))
        if not asked:
            return {}
        sizes = self._wire.ask("offers", *(("HSTRLEN", self._offers, digest) for digest in asked))
        fair = self._decoded("offers", partial(plain.fair, asked), sizes)
        found = self._wire.ask_on("offers", *(("HGET", self._offers, digest) for digest in fair)) if fair else []
        return self._decoded("offers", partial(plain.offers, fair), found)

    def name_peers(self, *, peers: bytes) -> None:
        fitting("name_peers", peers, limits.PEERS_BYTES)
        self._ask("name_peers", _anything, ("SET", self._peers, peers))

    def peers(self) -> bytes | None:
        # In one answer that cannot be longer, whatever stands there.
        return self._ask("peers", answers.peers, ("GETRANGE", self._peers, 0, limits.PEERS_BYTES), absent=b"")

    def request(self, *, id: str, request: bytes) -> None:  # noqa: A002 - as in the port
        named("request", id)
        fitting("request", request, limits.REQUEST_BYTES)
        self._ask("request", _anything, ("HSET", self._requests, id, request), ("PUBLISH", self._wake, FOR_SCHEDULERS))

    def settle(self, *, ids: Iterable[str]) -> None:
        self._remove("settle", self._requests, list(ids))

    def record(self, *, event: bytes) -> None:
        fitting("record", event, limits.EVENT_BYTES)
        self._ask("record", _anything, Run(scripts.RECORD, (self._history,), (event,)))

    def history(self, *, limit: int) -> tuple[bytes, ...]:
        if limit < 1:
            return ()
        last = min(limit, limits.HISTORY) - 1
        return self._ask("history", answers.events, ("LRANGE", self._history, 0, last), absent=[])

    def window(self) -> tuple[str, bytes] | None:
        found = self._look("window")
        return (found.digest, found.window) if found.window is not None else None

    def look(self) -> Look:
        return self._look("look")

    def wake(self) -> None:
        self._ask("wake", _anything, ("PUBLISH", self._wake, ""))

    def listen(self, *, schedules: bool, changed: Callable[[], None]) -> Listening:
        """
        Hear the ring's channel from the next question on; `changed` is called whenever there may be news of that.

        `schedules`: as a scheduler, to whom requests are said.
        """
        ear = self._wire.ear = Ear(self._wake, schedules=schedules, changed=changed)
        return Listening(self._wire, ear)

    def close(self) -> None:
        self._wire.close()

    def _look(self, operation: str) -> Look:
        run = Run(scripts.LOOK, (self._window, self._beat, self._lease, self._fence, self._reports))
        return self._ask(operation, answers.look, run)

    def _prune(self, operation: str, key: str, kind: str, keep: Iterable[str]) -> None:
        self._ask(operation, _anything, Run(scripts.PRUNE, (key,), (kind, *islice(keep, limits.REPORTS))))

    def _remove(self, operation: str, key: str, fields: Sequence[str | bytes]) -> None:
        if fields:
            self._ask(operation, _anything, ("HDEL", key, *fields), absent=0)

    def _ask(
        self,
        operation: str,
        decode: Callable[[Any], _Value],
        *commands: Command,
        answer_bytes: int = ANSWER_BYTES,
        absent: object = None,
    ) -> _Value:
        """Decode the last answer, if no command was refused. With `absent`, a key of a wrong kind answers that."""
        replies = self._wire.ask(operation, *commands, answer_bytes=answer_bytes)
        for at, reply in enumerate(replies):
            if isinstance(reply, ResponseError):
                if absent is None or not str(reply).startswith("WRONGTYPE"):
                    raise self._unavailable(operation, reply)
                replies[at] = absent
        return self._decoded(operation, decode, replies[-1])

    def _decoded(self, operation: str, decode: Callable[[Any], _Value], reply: object) -> _Value:
        if isinstance(reply, ResponseError):
            raise self._unavailable(operation, reply)
        try:
            return decode(reply)
        except (answers.Misshapen, ResponseError) as error:
            raise self._unavailable(operation, error) from error

    def _unavailable(self, operation: str, error: Exception) -> StoreUnavailable:
        return unavailable(self._wire.address, operation, error, self._wire.timeout_ms)


def _anything(_: object) -> None:
    return None
