"""Fair-weather fleets for directed scenes: all clocks right, nothing lost, everybody in sync."""

from dataclasses import replace

from keyrotd.core.policy import Policy
from keyrotd.store.memory import Fault
from keyrotd.testing.twins import MemoryServer as Twin
from tests.simulation.weather import BRISK
from tests.simulation.world import Fleet, Machine, Node


def fleet(
    *, policy: Policy = BRISK, schedulers: int = 1, nodes: int = 3, slots: int | None = None, seed: int = 7
) -> Fleet:
    """Return a fleet that has had its first window for a moment."""
    world = Fleet(policy, seed=seed, schedulers=schedulers)
    for _ in range(nodes):
        world.add_node(Twin(name="tls", slots=slots, ring_buffer=slots is not None, file=True))
    world.wait_for(lambda: in_step(world), 2 * policy.rotation_interval_ms)
    return world


def epoch(world: Fleet) -> int:
    """Return the epoch of the published window."""
    return 0 if world.claims.newest is None else world.claims.newest.epoch


def in_step(world: Fleet) -> bool:
    """Whether every node has read the published window back."""
    newest = world.claims.newest
    return newest is not None and all(n.read_back and n.read_back[0] == newest.digest for n in world.nodes)


def until_rotation(world: Fleet) -> None:
    """Let time pass up to the very publish of the next window; nobody has heard of it yet."""
    before = epoch(world)
    world.wait_for(lambda: epoch(world) > before, 2 * world.policy.rotation_interval_ms)


def until_in_step(world: Fleet) -> None:
    """Let time pass until every node has read the published window back."""
    world.wait_for(lambda: in_step(world), world.policy.overdue_after_ms + world.policy.node_ttl_ms)


def deaf(node: Machine, *operations: str) -> None:
    """Let these operations of the node's store fail, until `hearing`."""
    node.store.fault = lambda operation: Fault.AWAY if operation in operations else node.luck(operation)


def hearing(node: Machine) -> None:
    """End deafness."""
    node.store.fault = node.luck


def sealing(node: Node) -> bytes:
    """Return the name of the key that the node's server seals with."""
    stek = node.servers[0].sealing
    return b"" if stek is None else stek.name


def shared(world: Fleet, name: bytes) -> bool:
    """Whether a key of this name was ever in a window."""
    return any(key.name == name for window in world.claims.windows.values() for key in window.all)


def slow(policy: Policy = BRISK, **changes: int) -> Policy:
    """Return a policy with other numbers."""
    return replace(policy, **changes)  # type: ignore[arg-type]  # all of them are ints
