"""
Which node to ask: the address itself, the primary that a Sentinel names, or the owner of a ring's slot.

Nobody on the way is taken at his word for longer than it holds: who answers must say that it is the primary, and a
slot's owner is whom the last MOVED named. Finding a node takes its share of the time of the question that needs it.
"""

from collections import deque
from enum import IntEnum
from typing import Protocol

from keyrotd.store.addresses import Address, Cluster, Sentinels
from keyrotd.store.line import FAILED, Bounds, Line, converse, dial
from keyrotd.store.redispy import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisConnectionError,
    ResponseError,
    TryAgainError,
)

_HOST_CHARACTERS = 255
_PORT_MOST = 65_535


class Turn(IntEnum):
    """What a refusal asks for; of several the greatest counts."""

    STAY = 0  # it is the answer
    LEAVE = 1  # it is the answer, and the next question goes where `reach` finds a node anew
    WAIT = 2  # ask again here, a moment later
    FOLLOW = 3  # ask again, where `reach` goes now


class Route(Protocol):
    """One way to a node. Whatever fails on it raises what FAILED lists."""

    def reach(self, bounds: Bounds) -> Line:
        """Connect to the node to ask."""
        ...

    def turn(self, refusal: ResponseError) -> Turn: ...

    def aside(self, refusal: AskError, bounds: Bounds) -> Line | None:
        """Connect to the node that is to be asked this once; None: nobody, the refusal stands."""
        ...


def route_to(address: Address) -> Route:
    match address.through:
        case Sentinels():
            return _Sentinels(address, address.through)
        case Cluster():
            return _Cluster(address, address.through)
    return _Direct(address)


class _Direct:
    def __init__(self, address: Address) -> None:
        self._address = address

    def reach(self, bounds: Bounds) -> Line:
        return dial(self._address, bounds)

    def turn(self, refusal: ResponseError) -> Turn:
        # A primary that became a replica: behind a name or a proxy the next connection may reach the new one.
        return Turn.LEAVE if isinstance(refusal, ReadOnlyError) else Turn.STAY

    def aside(self, refusal: AskError, bounds: Bounds) -> None:  # noqa: ARG002 - as in the port
        return None


class _Sentinels:
    """
    Sentinels end the connections of a primary that they have replaced, and each new connection asks them anew.

    Until they reach it (ten seconds, when a failover was ordered) it takes writes that will be lost, as in any failover
    with Redis: the leader mends them, and with `wait_replicas` confirms nothing meanwhile.
    """

    def __init__(self, address: Address, sentinels: Sentinels) -> None:
        self._address = address
        self._name = sentinels.name
        self._nodes = deque(sentinels.nodes)  # the one that was right last stands first

    def reach(self, bounds: Bounds) -> Line:
        unheard: Exception = RedisConnectionError("no sentinel")
        refused: dict[tuple[str, int], Exception] = {}
        for left in range(len(self._nodes), 0, -1):
            try:
                # A third of what is left: whoever hangs leaves time for another one, and for the primary.
                with bounds.narrowed(3):
                    named = self._ask(self._nodes[0], bounds)
            except FAILED as error:
                unheard = error
            else:
                if named not in refused:
                    try:
                        with bounds.narrowed(min(left, 2)):
                            return self._dial(named, bounds)
                    except FAILED as error:
                        refused[named] = error
            self._nodes.rotate(-1)
        raise next(iter(refused.values()), unheard)

    def turn(self, refusal: ResponseError) -> Turn:
        if isinstance(refusal, ReadOnlyError):
            return Turn.FOLLOW
        return Turn.LEAVE if str(refusal).startswith("NOREPLICAS") else Turn.STAY

    def aside(self, refusal: AskError, bounds: Bounds) -> None:  # noqa: ARG002 - as in the port
        return None

    def _ask(self, sentinel: Address, bounds: Bounds) -> tuple[str, int]:
        who = f"sentinel {sentinel.host}:{sentinel.port}"
        try:
            line = dial(sentinel, bounds)
            try:
                (answer,) = converse(line, [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)])
            finally:
                line.disconnect()
        except AuthenticationError as error:
            raise AuthenticationError(f"{who}: {error}") from error
        except FAILED as error:
            raise RedisConnectionError(f"{who}: {error}") from error
        match answer:
            case None:
                raise RedisConnectionError(f"{who} monitors nothing called {self._name}")
            case ResponseError():
                raise RedisConnectionError(f"{who}: {answer}") from answer
            case [bytes(host), bytes(port)]:
                return _place(host.decode("ascii"), int(port))
        raise ValueError(f"{who} names no host and port")

    def _dial(self, named: tuple[str, int], bounds: Bounds) -> Line:
        line = dial(self._address.at(*named), bounds)
        role = line.handshake_metadata.get(b"role")
        if role != b"master":
            line.disconnect()
            host, port = named
            raise RedisConnectionError(f"{host}:{port}, the primary by its sentinels, is none (yet)")
        return line


class _Cluster:
    """
    Any node tells who owns a slot when it is asked for a key of it, so the questions themselves find the owner.

    Messages reach the subscribers of every node: whoever only listens stays with the first that answers.
    """

    def __init__(self, address: Address, cluster: Cluster) -> None:
        self._address = address
        self._seeds = deque(cluster.seeds)  # the one that failed last stands last
        self._here: tuple[str, int] | None = None
        self._moved: tuple[str, int] | None = None

    def reach(self, bounds: Bounds) -> Line:
        if self._moved is not None:
            (there, self._moved), whence = (self._moved, None), self._here
            try:
                return self._dial(there, bounds)
            except FAILED:
                self._leave(whence)  # it may be the last to hear that the owner is gone
                raise
        fault: Exception = RedisConnectionError("no node")
        known = [self._here] if self._here is not None else []
        nodes = list(dict.fromkeys([*known, *self._seeds]))
        for left, there in zip(range(len(nodes), 0, -1), nodes, strict=True):
            try:
                with bounds.narrowed(min(left, 2)):
                    return self._dial(there, bounds)
            except FAILED as error:
                fault = error
        raise fault

    def turn(self, refusal: ResponseError) -> Turn:
        match refusal:
            case MovedError():
                self._moved = self._named(refusal.host, refusal.port)
                return Turn.FOLLOW
            case TryAgainError():
                return Turn.WAIT
            case ClusterDownError() | ReadOnlyError():
                self._leave(self._here)
                return Turn.LEAVE
        return Turn.STAY

    def aside(self, refusal: AskError, bounds: Bounds) -> Line:
        return dial(self._address.at(*self._named(refusal.host, refusal.port)), bounds)

    def _named(self, host: str, port: int) -> tuple[str, int]:
        # An empty host is the one that was asked.
        return _place(host or (self._here[0] if self._here else ""), port)

    def _dial(self, there: tuple[str, int], bounds: Bounds) -> Line:
        try:
            line = dial(self._address.at(*there), bounds)
        except FAILED:
            self._leave(there)
            raise
        self._here = there
        return line

    def _leave(self, there: tuple[str, int] | None) -> None:
        if there == self._here:
            self._here = None
        if there is not None and there in self._seeds:
            self._seeds.remove(there)
            self._seeds.append(there)


def _place(host: str, port: int) -> tuple[str, int]:
    if not (0 < len(host) <= _HOST_CHARACTERS and host.isprintable() and 0 < port <= _PORT_MOST):
        raise ValueError("no host and port")
    return host, port
