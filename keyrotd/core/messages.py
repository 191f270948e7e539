"""What the parts of keyrotd say to each other, as values. How each is written and proven is the affair of seal/."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """
    The leader's signed heartbeat: the fleet's clock, and the proof that a scheduler (not just a store) is alive.

    `confirmed_at` is the instant at which every live node had read window `digest` back, None while some have not.
    `accepts` are the ids of all keys that the leader reads by, while it has several of a kind; else it is empty.
    """

    ring: str
    epoch: int
    digest: str
    confirmed_at: int | None
    signed_at: int
    accepts: tuple[str, ...] = ()


class Goal(Enum):
    """What an operator may ask for: a state to reach, so that a replay finds it reached."""

    ROTATE = "rotate"  # any window past the epoch
    REVOKE = "revoke"  # a window with a barrier past the epoch


#: A request is void this long after it was made, by the leader's clock.
REQUEST_LIFETIME_MS = 600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An operator's signed wish: `goal` past epoch `past_epoch`, with who asked and why."""

    ring: str
    goal: Goal
    past_epoch: int
    drop_live_keys: bool
    who: str
    reason: str
    made_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """
    An operator's signed wish that no rotation comes before `until` only because it is due.

    What somebody asks for by name (a rotation, a revocation) goes through all the same, and nothing outlasts the
    bound of the key that seals.
    """

    ring: str
    until: int
    who: str
    reason: str
    made_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """The end of every pause made up to `made_at`; none of those can last beyond `until`, so it is kept till then."""

    ring: str
    until: int
    who: str
    reason: str
    made_at: int


#: Whatever an operator may hand in.
Order: TypeAlias = Request | Pause | Resume


class NodeState(Enum):
    """One word for a node, worst last. What counts as acknowledged is said in core/decide."""

    IN_STEP = "in_step"  # every server shows the window that the node holds
    JOINING = "joining"  # first round trip: nothing installed yet
    BEHIND = "behind"  # a server could not be brought to the window
    DRIFT = "drift"  # a server lost or changed its keys since the last tick; being repaired
    STRANDED = "stranded"  # sealing by succession, for want of a leader
    ISOLATED = "isolated"  # sealing with keys of the node's own


class ServerState(Enum):
    IN_STEP = "in_step"
    INSTALLING = "installing"  # not tried yet, or the attempt is running late
    FAILED = "failed"  # observed, but it refused or did not show the keys
    UNREACHABLE = "unreachable"  # could not be observed


class ProbeState(Enum):
    """What a real handshake showed about a server, by the agent's own word."""

    NONE = "none"  # no probe address configured, or nothing probed yet
    RESUMED = "resumed"  # its ticket carries current's name and resumed
    WRONG_KEY = "wrong_key"  # it issues tickets under another key
    NO_TICKETS = "no_tickets"
    REFUSED = "refused"  # its own fresh ticket did not resume
    UNREACHABLE = "unreachable"  # no TCP connection
    RESET = "reset"  # connection closed within the handshake
    CERTIFICATE = "certificate"  # the handshake failed on the certificate


#: What may become of a ticket that is offered to another server.
OFFERED = (
    ProbeState.RESUMED,
    ProbeState.REFUSED,
    ProbeState.NO_TICKETS,
    ProbeState.UNREACHABLE,
    ProbeState.RESET,
    ProbeState.CERTIFICATE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """
    `slots` None: unbounded or not yet known. `fault` is words for people, '' when there is none; never a key.

    `address` is where peers may offer it their tickets, `IP:PORT` or `[IPV6]:PORT`; '' nowhere. Of its own tickets that
    peers decided on in the last round (`tried`), `resumed` did.
    """

    name: str
    driver: str
    state: ServerState
    slots: int | None
    probe: ProbeState
    fault: str
    address: str = ""
    resumed: int = 0
    tried: int = 0

    @property
    def refused(self) -> int:
        """Tickets of the last round that peers met with a full handshake."""
        return self.tried - self.resumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    A node's authenticated word on what it has.

    `holds` is the digest of the window that the node has accepted, `read_back` that of the window which all its
    servers were seen to hold (None: none, or not all). `counter` only grows, so a replayed report is recognised.
    `reported_at` is the fleet time for which the node tended its servers, 0 while it has none. `steps` counts its steps
    of succession; `along` names the key of the window whose followers it seals with, None while with none. `accepts` is
    as in a beat. `newer` is its version if that is newer than can be read here in full, else 0: a node that was
    upgraded first is heard, and waited for if what it says cannot be understood.
    """

    ring: str
    node: str
    counter: int
    reported_at: int
    state: NodeState
    steps: int
    epoch: int
    holds: str | None
    read_back: str | None
    floor: int
    barrier: int
    poll_interval_ms: int
    servers: tuple[ServerReport, ...]
    accepts: tuple[str, ...] = ()
    along: bytes | None = None
    newer: int = 0

    @property
    def slots(self) -> int | None:
        """The least slots of any server on this node; None when all are unbounded."""
        return min((server.slots for server in self.servers if server.slots is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server of some node, where others may offer their tickets; `address` as in a report."""

    node: str
    driver: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The leader's signed word on who may be asked: some of those whose reports name an address."""

    ring: str
    signed_at: int
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    One line of history: what the leader did or refused, `kind` from a closed set, and why.

    `until` is how long a pause lasts, None for whatever has no end.
    """

    ring: str
    kind: str
    epoch: int
    happened_at: int
    who: str
    reason: str
    until: int | None = None
