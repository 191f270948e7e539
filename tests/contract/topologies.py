"""Stores of several servers, all real: a primary with replicas and sentinels, and a cluster."""

from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from keyrotd.store.addresses import Address, Cluster, Sentinels
from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.live import free_port

NAME = "fleet-store"
SENTINEL_PASSWORD = "a password of the sentinels"
#: Shorter, and a busy machine has failovers that nobody asked for.
_DOWN_AFTER_MS = 1_500


@dataclass(frozen=True)
class Server:
    pid: int
    port: int
    redis: Any


@contextmanager
def server(exe: Path, directory: Path, words: Sequence[str], *, password: str | None = None) -> Iterator[Server]:
    """One server on a port of its own, until it answers; it ends with the block, or earlier by its pid."""
    port = free_port()
    directory.mkdir(parents=True)
    argv = [str(exe), *words, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    child = start_child(argv, log=directory / "log")
    try:
        with Redis(host="127.0.0.1", port=port, password=password, protocol=3) as redis:
            wait_until(lambda: child.poll() is not None or _answers(redis), f"a server answers on {port}")
            assert child.poll() is None, (directory / "log").read_text("utf-8")
            yield Server(child.pid, port, redis)
    finally:
        stop_child(child)


def _answers(redis: Any) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


_FORGETFUL = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb")


@dataclass(frozen=True)
class Watched:
    """A primary, its replicas, and who watches them."""

    data: list[Server]
    sentinels: list[Server]
    password_file: Path

    @property
    def address(self) -> Address:
        nodes = (self.sentinel(sentinel.port) for sentinel in self.sentinels)
        return Address(through=Sentinels(tuple(nodes), NAME))

    def sentinel(self, port: int) -> Address:
        return Address(host="127.0.0.1", port=port, password_file=str(self.password_file))

    @property
    def primary(self) -> Server:
        """Who is the primary in the eyes of all sentinels."""
        wait_until(lambda: len(set(self._named())) == 1, "the sentinels agree")
        named = self._named()[0]
        return next(each for each in self.data if each.port == named)

    @property
    def replicas(self) -> list[Server]:
        primary = self.primary
        return [each for each in self.data if each is not primary]

    def _named(self) -> list[int]:
        return [int(each.redis.sentinel_get_master_addr_by_name(NAME)[1]) for each in self.sentinels]


@contextmanager
def watched(exe: Path, directory: Path, *, replicas: int = 1) -> Iterator[Watched]:
    with ExitStack() as running:
        data = [running.enter_context(server(exe, directory / "0", _FORGETFUL))]
        for number in range(1, replicas + 1):
            words = (*_FORGETFUL, "--replicaof", f"127.0.0.1 {data[0].port}")
            data.append(running.enter_context(server(exe, directory / str(number), words)))
        # A sentinel asks for the replicas at once, and then not again for ten seconds.
        wait_until(lambda: len(_in_step(data[0])) == replicas, "the replicas have the data")
        directory.joinpath("sentinel.password").write_text(SENTINEL_PASSWORD + "\n", "utf-8")
        sentinels = [
            running.enter_context(
                server(
                    exe, directory / name, _sentinel_words(directory, name, data[0].port), password=SENTINEL_PASSWORD
                )
            )
            for name in ("a", "b", "c")
        ]
        for each in sentinels:
            each.redis.execute_command("SENTINEL", "DEBUG", *_HURRIED)
        found = Watched(data, sentinels, directory / "sentinel.password")
        wait_until(lambda: all(_knows(each, replicas) for each in sentinels), "the sentinels know each other")
        yield found


#: Among others how long sentinels leave an old primary alone: four times the publish period, else eight seconds.
_HURRIED = ("info-period", "300", "publish-period", "300", "ask-period", "300")


def _in_step(primary: Server) -> list[Any]:
    told = primary.redis.info("replication")
    return [told[name] for name in told if name.startswith("slave") and told[name]["state"] == "online"]


def _knows(sentinel: Server, replicas: int) -> bool:
    told = sentinel.redis.sentinel_master(NAME)
    return (told["num-other-sentinels"], told["num-slaves"]) == (2, replicas)


def _sentinel_words(directory: Path, name: str, port: int) -> tuple[str, ...]:
    lines = (
        f"sentinel monitor {NAME} 127.0.0.1 {port} 2",
        f"sentinel down-after-milliseconds {NAME} {_DOWN_AFTER_MS}",
        f"sentinel failover-timeout {NAME} 5000",
        f'requirepass "{SENTINEL_PASSWORD}"',
        f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
    )
    file = directory / f"{name}.conf"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return (str(file), "--sentinel")


SLOTS = 16_384


def slot_of(ring: str) -> int:
    return crc_hqx(ring.encode(), 0) % SLOTS


@dataclass(frozen=True)
class Clustered:
    nodes: list[Server]

    @property
    def address(self) -> Address:
        return Address(through=Cluster(tuple(("127.0.0.1", node.port) for node in self.nodes)))

    def owner(self, ring: str) -> Server:
        for first, last, (_, port, *_), *_ in self.nodes[0].redis.execute_command("CLUSTER SLOTS"):
            if first <= slot_of(ring) <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(ring)

    @contextmanager
    def leaving(self, ring: str) -> Iterator[None]:
        """Within the block the ring's slot is on its way to another node, and none of its keys has gone yet."""
        steps = self.move(ring)
        next(steps)
        try:
            yield
        finally:
            for _ in steps:
                pass

    def move(self, ring: str) -> Iterator[str]:
        """Move the ring's slot to another node as the cluster's tools do, and stop at each step."""
        source = self.owner(ring)
        target = self.nodes[(self.nodes.index(source) + 1) % len(self.nodes)]
        slot, names = slot_of(ring), {id(node): node.redis.execute_command("CLUSTER MYID") for node in self.nodes}
        target.redis.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[id(source)])
        source.redis.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[id(target)])
        yield "open"
        while keys := source.redis.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
            source.redis.execute_command("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5_000)
            yield f"moved {keys[0].decode()}"
        for node in (target, source, *self.nodes):
            node.redis.execute_command("CLUSTER SETSLOT", slot, "NODE", names[id(target)])
        yield "closed"


@contextmanager
def clustered(
    exe: Path, directory: Path, *, nodes: int = 3, replica_of: str | None = None, tls: Sequence[str] = ()
) -> Iterator[Clustered]:
    """
    A cluster; with `replica_of` the node that owns this ring's slot has a replica, which is no seed.

    With the words for `tls` its nodes have a port for that too, and speak nothing else among themselves.
    """
    with ExitStack() as running:
        buses = [free_port() for _ in range(nodes)]
        found = Clustered([])
        for bus in buses:
            secure = (*tls, "--tls-cluster", "yes", "--tls-port", str(free_port())) if tls else ()
            words = (*_FORGETFUL, *_cluster_words(bus), *secure)
            found.nodes.append(running.enter_context(server(exe, directory / str(bus), words)))
        for number, (node, bus) in enumerate(zip(found.nodes, buses, strict=True)):
            node.redis.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            first, last = number * SLOTS // nodes, (number + 1) * SLOTS // nodes - 1
            node.redis.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            found.nodes[0].redis.execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
        wait_until(lambda: all(_whole(node, nodes) for node in found.nodes), "the cluster is whole")
        if replica_of is not None:
            running.enter_context(_replica(exe, directory / "replica", found, found.owner(replica_of)))
        yield found


@contextmanager
def _replica(exe: Path, directory: Path, cluster: Clustered, owner: Server) -> Iterator[None]:
    bus = free_port()
    with server(exe, directory, (*_FORGETFUL, *_cluster_words(bus))) as replica:
        owner.redis.execute_command("CLUSTER MEET", "127.0.0.1", replica.port, bus)
        members = len(cluster.nodes) + 1
        wait_until(lambda: all(_whole(node, members) for node in [*cluster.nodes, replica]), "it has joined")
        replica.redis.execute_command("CLUSTER REPLICATE", owner.redis.execute_command("CLUSTER MYID"))
        wait_until(lambda: len(_in_step(owner)) == 1, "it has the data")
        yield


def _cluster_words(bus: int) -> tuple[str, ...]:
    return ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", str(_DOWN_AFTER_MS))


def _whole(node: Server, nodes: int) -> bool:
    told = node.redis.execute_command("CLUSTER INFO")
    return (told["cluster_state"], told["cluster_known_nodes"]) == ("ok", str(nodes))
