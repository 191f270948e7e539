"""
What the signs of a live installation mean, for `keyrotd doctor`. Pure: values in, findings out.

`GRAVE` is what breaks a promise now or at the next fault; `NOTE` is what somebody should know and may want.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from keyrotd.cli.situation import BEATS_MISSED
from keyrotd.cli.words import counted, instant, relative, short, span
from keyrotd.core.decide import listed
from keyrotd.core.keys import Installed
from keyrotd.core.messages import Beat
from keyrotd.core.policy import SEVEN_DAYS_MS, Policy, impossible, words
from keyrotd.core.window import Window
from keyrotd.daemon.clock import MAX_DISAGREEMENT_MS
from keyrotd.store.addresses import Address
from keyrotd.store.examine import Examined, Info, Rights
from keyrotd.tls.handshake import Fault, Handshake
from keyrotd.tls.probe import Sighting
from keyrotd.tls.target import Target


class Verdict(Enum):
    OK = "ok"
    NOTE = "note"
    GRAVE = "grave"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `check` is its word for machines. `hint` '' : nothing to do."""

    check: str
    verdict: Verdict
    words: str
    hint: str = ""


def ok(check: str, words: str) -> Finding:
    return Finding(check, Verdict.OK, words)


def note(check: str, words: str, hint: str) -> Finding:
    return Finding(check, Verdict.NOTE, words, hint)


def grave(check: str, words: str, hint: str | None) -> Finding:
    return Finding(check, Verdict.GRAVE, words, hint or "")


# The store.

#: EVALSHA_RO, and rights that tell reading from writing.
_LEAST_MAJOR = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How a fleet uses its store. `private`: our own child on a socket of ours. `reports` None: not to be seen."""

    address: Address
    private: bool
    wait_replicas: int
    reports: int | None

    @property
    def remote(self) -> bool:
        return not self.address.path and self.address.host not in {"localhost", "::1"} and not self._loopback

    @property
    def _loopback(self) -> bool:
        return self.address.host.startswith("127.")


#: What follows is then of the one node that was asked.
UNSEEN_OF_CLUSTER = note(
    "store.nodes",
    "which nodes the cluster has cannot be seen: this user may not ask for CLUSTER SLOTS",
    "run doctor once with a store.url whose user may: one node that evicts is enough to lose a ring's window",
)


def of_store(found: Examined, use: Use) -> Iterator[Finding]:
    info = found.info
    if info is None:
        yield note(
            "store.info",
            "version, eviction, persistence, clients and replicas cannot be seen: this user may not ask for INFO",
            "run doctor once with a store.url whose user may: `keyrotd acl` gives that right to schedulers, operators",
        )
    else:
        yield version(info)
        yield eviction(info)
        yield from persistence(info, snapshots=found.snapshots)
        yield clients(info, use)
        yield replicas(info, use)
    yield from rights(found.rights, use)


def version(info: Info) -> Finding:
    major = info.version.partition(".")[0]
    called = f"{info.product} {info.version}"
    if not major.isdigit():
        return note("store.version", "does not say its version", "keyrotd needs Redis 7.0 or later, or Valkey")
    if int(major) < _LEAST_MAJOR:
        return grave("store.version", f"{called} is too old", "keyrotd needs Redis 7.0 or later, or Valkey")
    return ok("store.version", called)


#: Of maxmemory; from here on it is worth a look.
_FULL_PERCENT = 90


def eviction(info: Info) -> Finding:
    if not info.maxmemory:
        return ok("store.eviction", "never evicts: no maxmemory is set")
    if info.eviction.startswith("allkeys"):
        return grave(
            "store.eviction",
            f"may evict the window, the fence and reports: maxmemory-policy is {info.eviction}",
            "CONFIG SET maxmemory-policy noeviction; a cache that needs another policy belongs on a store of its own",
        )
    if info.eviction.startswith("volatile"):
        return note(
            "store.eviction",
            f"may evict the lease, and thereby change leaders: maxmemory-policy is {info.eviction}",
            "CONFIG SET maxmemory-policy noeviction; nothing else of keyrotd expires, so no window is at risk",
        )
    if (info.used_memory or 0) * 100 >= info.maxmemory * _FULL_PERCENT:
        return note(
            "store.eviction",
            f"is {(info.used_memory or 0) * 100 // info.maxmemory} % full, and refuses writes when it is full",
            "raise maxmemory: a ring takes less than 1 MiB and 1 KiB a node",
        )
    return ok("store.eviction", f"never evicts: maxmemory-policy is {info.eviction or 'not told'}")


def persistence(info: Info, *, snapshots: bool | None) -> Iterator[Finding]:
    if info.failing:
        yield grave(
            "store.persistence",
            f"its disk did not take {' and '.join(info.failing)}: it may refuse every write",
            "see the store's log: a full disk, or a directory that it may not write in",
        )
    if info.appendonly:
        yield ok("store.persistence", "keeps an append-only file")
    elif snapshots:
        yield note(
            "store.persistence",
            "keeps snapshots only: a restart goes back to the last one",
            "no ticket dies of it, since the leader mends from what nodes hold; `appendonly yes` spares it the work",
        )
    elif snapshots is False and info.appendonly is not None:
        yield note(
            "store.persistence",
            "keeps nothing on a disk: a restart empties it",
            "no ticket dies of it while a node is left, since the leader mends from what nodes hold; history is lost. "
            "`appendonly yes` keeps it",
        )
    else:
        yield note(
            "store.persistence",
            "keeps no append-only file; whether it saves snapshots cannot be seen by this user",
            "`redis-cli CONFIG GET save`; with neither a restart empties it, and the leader mends from what nodes hold",
        )


#: A node polls and listens over one connection for each ring. Schedulers and people need some too.
_CONNECTIONS_BESIDE = 16
_CROWDED_PERCENT = 80


def clients(info: Info, use: Use) -> Finding:
    most, used = info.maxclients, info.clients
    if most is None or used is None:
        return note("store.clients", "does not tell its maxclients", "`redis-cli CONFIG GET maxclients`")
    needed = (use.reports or 0) + _CONNECTIONS_BESIDE
    fleet = "a fleet that cannot be counted from here" if use.reports is None else counted(use.reports, "report")
    state = f"{used} of {most} connections are in use, {fleet} may take {needed}"
    if needed > most or used >= most:
        return grave("store.clients", state, "raise maxclients, and the store's limit of open files with it")
    if max(needed, used) * 100 >= most * _CROWDED_PERCENT:
        return note("store.clients", state, "raise maxclients before the fleet grows")
    return ok("store.clients", state)


def replicas(info: Info, use: Use) -> Finding:
    if info.role and info.role != "master":
        return grave(
            "store.replicas",
            f"is a {info.role}: nothing can be published on it",
            "store.url must name the primary, or what follows it",
        )
    found = info.replicas or 0
    if found < use.wait_replicas:
        return grave(
            "store.replicas",
            f"has {counted(found, 'replica')}, wait_replicas wants {use.wait_replicas}: no window will be confirmed",
            "connect the replicas, or lower store.wait_replicas",
        )
    if found and not use.wait_replicas:
        return note(
            "store.replicas",
            f"has {counted(found, 'replica')}, and wait_replicas is 0: a failover may lose the last window",
            "no ticket dies of it, since the leader mends from what nodes hold; `wait_replicas = 1` avoids it",
        )
    return ok("store.replicas", f"{counted(found, 'replica')}, wait_replicas is {use.wait_replicas}")


def transport(use: Use) -> Finding:
    address = use.address
    if address.tls:
        return ok("store.tls", "is reached over TLS")
    if not use.remote:
        return ok("store.tls", "is reached on this machine")
    if address.password is not None or address.password_file is not None:
        return grave(
            "store.tls",
            "is reached over a network without TLS: our password goes in clear",
            "rediss:// with ?ca_file=; who has the password can delay every rotation, and read no key",
        )
    return note(
        "store.tls",
        "is reached over a network without TLS",
        "rediss:// with ?ca_file=; who is on the way can delay rotations and see fleet sizes, and read no key",
    )


def rights(found: Rights, use: Use) -> Iterator[Finding]:
    if use.private:
        yield ok("store.user", "is private to this machine's keyrotd")
        return
    if found.passwordless and use.remote:
        yield grave(
            "store.user",
            f"user {found.user} needs no password: whoever reaches the store can empty it",
            "`keyrotd acl` prints users of few rights; then `ACL SETUSER default off`",
        )
    hint = "`keyrotd acl` prints a user for each role; name it in store.url"
    if found.user is None:
        name = use.address.username or "default"
        yield ok("store.user", f"user {name} may not even ask for its own name, as keyrotd's own users may not")
    elif found.beyond:
        yield note("store.user", f"user {found.user} is free to {', '.join(found.beyond)}: no role needs that", hint)
    elif found.user == "default":
        yield note("store.user", "is used as `default`, which everybody is who does not log in", hint)
    else:
        yield ok("store.user", f"user {found.user} is not seen to be free to do more than it needs")


# Clocks.

#: Less than this may as well have passed on the way.
_AGREEING_MS = 1_000
#: A tenth of what stops a scheduler: worth a look, however patient a ring is.
_SKEW_MS = MAX_DISAGREEMENT_MS // 10


def of_clock(check: str, whose: str, at: int, own_at: int, *, eps_ms: int) -> Finding:
    """Hold another clock against this machine's, both read at one moment. `eps_ms` is what the ring allows for."""
    apart_ms = at - own_at
    if abs(apart_ms) < _AGREEING_MS:
        return ok(check, f"{whose} agrees with this machine's")
    state = f"{whose} is {span(abs(apart_ms))} {'ahead of' if apart_ms > 0 else 'behind'} this machine's clock"
    if abs(apart_ms) > MAX_DISAGREEMENT_MS:
        return grave(
            check,
            state,
            f"set the wrong one right: with clocks over {words(MAX_DISAGREEMENT_MS)} apart a scheduler signs nothing",
        )
    if abs(apart_ms) > min(_SKEW_MS, eps_ms):
        return note(
            check,
            state,
            "let NTP set them: a scheduler that takes over without having heard the one before moves the fleet's time "
            f"by as much, and at {words(MAX_DISAGREEMENT_MS)} it signs nothing",
        )
    return ok(check, state)


# A ring.


@dataclass(frozen=True, slots=True, kw_only=True)
class RingSeen:
    """
    One ring as the store shows it, proven. `refused`: what did not prove itself, with hints.

    `moved`: its beat was seen to change. `opened`: whether a KEK here opens the window; None: there is none at hand.
    """

    window: Window | None
    beat: Beat | None
    moved: bool
    refused: tuple[tuple[str, str | None], ...]
    opened: bool | None
    leader: str | None


def of_ring(seen: RingSeen, policy: Policy, now_at: int) -> Iterator[Finding]:
    """Judge at `now_at` of this machine's clock; a beat that was seen to move is young whatever that clock says."""
    for fault, hint in seen.refused:
        yield grave("ring.proof", fault, hint)
    if seen.beat is not None or not seen.refused:
        yield _beat(seen, policy, now_at)
    if seen.moved and seen.beat is not None:
        yield of_clock("ring.clock", "the leader's clock", seen.beat.signed_at, now_at, eps_ms=policy.eps_ms)
    fleet_at = seen.beat.signed_at if seen.moved and seen.beat is not None else now_at
    if seen.window is not None:
        yield _window(seen.window, fleet_at)
    elif not seen.refused:
        hint = f"a leading scheduler publishes one up to {span(policy.speak_ms)} after it took the lease"
        yield grave("ring.window", "the store holds no window", hint)
    if seen.opened:
        yield ok("ring.kek", "the KEK of this host opens every seed")


def fresh(beat: Beat, policy: Policy, now_at: int) -> bool:
    """Whether a beat is as young, by this machine's clock, as one of a leader's is."""
    return abs(now_at - beat.signed_at) <= BEATS_MISSED * policy.tick_interval_ms + policy.store_timeout_ms


def _beat(seen: RingSeen, policy: Policy, now_at: int) -> Finding:
    who = f" by {seen.leader}" if seen.leader else ""
    if seen.beat is None:
        return grave("ring.beat", "no beat is signed", "is a scheduler running, and can it reach the store?")
    age = relative(seen.beat.signed_at, now_at)
    if seen.moved:
        return ok("ring.beat", f"the leader's beat goes on{who}")
    if fresh(seen.beat, policy, now_at):
        return ok("ring.beat", f"the last beat was signed {age}{who}")
    return grave(
        "ring.beat",
        f"the beat stands still, the last one was signed {age}",
        "is a scheduler running, and can it reach the store? its log says why it signs nothing",
    )


def _window(window: Window, now_at: int) -> Finding:
    state = f"epoch {window.epoch}, digest {short(window.digest)}, may seal until {instant(window.seals_until, now_at)}"
    if now_at >= window.seals_until:
        return grave("ring.window", state, "nodes go on by succession; start a scheduler, or see what holds it")
    return ok("ring.window", state)


# This machine.


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file or a directory. `mode` None: it is not there, and `in_memory` speaks of what it would be made in."""

    path: Path
    mode: int | None
    in_memory: bool
    link: bool = False


def of_config_file(place: Place) -> Finding:
    mode = place.mode or 0
    if mode & 0o022:
        return grave("host.config", f"{place.path}: others may change it (mode {mode:04o})", "chmod go-w")
    return ok("host.config", f"{place.path}: nobody else may change it")


def of_runtime_dir(place: Place) -> Iterator[Finding]:
    if place.in_memory:
        yield ok("host.runtime_dir", f"{place.path} is in memory")
    else:
        yield grave(
            "host.runtime_dir",
            f"{place.path} is on a disk, where sealed keys outlive the day they should be gone",
            "/run is a tmpfs: use a RuntimeDirectory= of systemd's or an emptyDir with `medium: Memory`",
        )
    yield from _closed("host.runtime_dir", place)


def of_state_dir(place: Place) -> Iterator[Finding]:
    if place.in_memory:
        yield grave(
            "host.state_dir",
            f"{place.path} is in memory: a reboot forgets floor and barrier",
            "they keep old windows out: use a StateDirectory= of systemd's or a volume that stays",
        )
    else:
        yield ok("host.state_dir", f"{place.path} outlives a reboot")
    yield from _closed("host.state_dir", place)


def _closed(check: str, place: Place) -> Iterator[Finding]:
    if place.mode is None:
        yield note(check, f"{place.path} is not there yet", "a daemon makes it, if it may")
    elif place.mode & 0o002:
        yield grave(check, f"{place.path}: anybody may write in it (mode {place.mode:04o})", "chmod o-w")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`swaps` are those on disks. `lockable`: a process with the rights and limits of this one may keep out of them."""

    swaps: tuple[str, ...]
    lockable: bool


def of_memory(memory: Memory) -> Finding:
    if not memory.swaps:
        return ok("host.swap", "no swap on a disk")
    if memory.lockable:
        return ok("host.swap", f"swap is on ({listed(memory.swaps)}), and memory can be locked")
    return note(
        "host.swap",
        f"swap is on ({listed(memory.swaps)}), and with the limits of this shell memory cannot be locked",
        "if the daemon's limits are no wider its log says so: systemd: LimitMEMLOCK=infinity and MemorySwapMax=0; "
        "or CAP_IPC_LOCK, or encrypted swap",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A daemon that runs. `locked`: its memory is. `swapless`: its cgroup has none. `dumps`: it may leave a core."""

    kind: str
    pid: int
    locked: bool
    dumps: bool
    swapless: bool = False


def of_daemon(daemon: Daemon, memory: Memory) -> Iterator[Finding]:
    """Judge what the kernel tells of a daemon that runs, whatever this shell may."""
    who = f"{daemon.kind}, process {daemon.pid}"
    if daemon.locked:
        yield ok("host.memory_lock", f"{who}: its memory is locked")
    elif daemon.swapless:
        yield ok("host.memory_lock", f"{who}: its memory is not locked, and its cgroup may not swap")
    elif memory.swaps:
        yield grave(
            "host.memory_lock",
            f"{who}: its memory is not locked, and swap is on ({listed(memory.swaps)}): keys may reach a disk",
            "systemd: LimitMEMLOCK=infinity or MemorySwapMax=0; or CAP_IPC_LOCK, or encrypted swap",
        )
    else:
        yield ok("host.memory_lock", f"{who}: its memory is not locked, and there is no swap on a disk")
    if daemon.dumps:
        yield grave(
            "host.core",
            f"{who}: may leave a core with every key in it",
            "somebody raised its limit after it started (prlimit): restart it, and find out who",
        )


def of_core_pattern(pattern: str) -> Finding:
    if pattern.startswith("|"):
        program = pattern[1:].partition(" ")[0]
        return note(
            "host.core",
            f"core dumps go to {program}, whatever a program's limit: keyrotd makes none, a TLS server's hold its keys",
            "systemd-coredump: Storage=none; or prctl and limits of the TLS server's own",
        )
    return ok("host.core", "keyrotd makes no core dumps, and a TLS server's limit counts")


# Servers.


def of_server(
    seen: Installed, policy: Policy, *, notice_delay_ms: int, roles: Mapping[bytes, str]
) -> Iterator[Finding]:
    """Judge what a driver read back. `roles` of fingerprints in the ring's window; empty where none was opened."""
    slots = "any number of keys" if seen.slots is None else f"{seen.slots} keys"
    yield ok("server.observed", f"can be read back, holds {slots}")
    faults = list(impossible(policy, slots=seen.slots, notice_delay_ms=notice_delay_ms))
    for fault, hint in faults:
        yield grave("server.slots", fault, hint)
    if not faults:
        yield ok("server.slots", "keeps every key for as long as the policy promises")
    for place in seen.places:
        yield from _sealing(place.where, place.seals, roles)


def _sealing(where: str, seals: bytes | None, roles: Mapping[bytes, str]) -> Iterator[Finding]:
    if seals is None:
        yield grave(
            "server.keys",
            f"{where}: none of the ring's keys can be seen in it",
            "is its agent running? its log says what it could not write or what was not taken. a server's process must "
            "be able to read the key file, in a folder that lets it pass: the server's own log says what it found",
        )
    elif roles and seals not in roles:
        yield grave(
            "server.keys",
            f"{where}: seals with a key that is not in the ring's window",
            "is its agent running? `keyrotd status` says whether the node is isolated",
        )
    elif roles and roles[seals] != "current":
        yield note(
            "server.keys",
            f"{where}: seals with the ring's {roles[seals]} key instead of current",
            "its agent is behind or ahead by a poll; look again, then see its log",
        )
    elif roles:
        yield ok("server.keys", f"{where}: seals with the ring's current key")


def of_key_file(place: Place, folder: Place) -> Finding:
    path = place.path
    if folder.link or place.link:
        which = folder.path if folder.link else path
        return grave("server.key_file", f"{which}: is a symbolic link", "name the real path: a link may turn tomorrow")
    if folder.mode is None or folder.mode & 0o002:
        state = "is not there" if folder.mode is None else f"anybody may write in it (mode {folder.mode:04o})"
        return grave("server.key_file", f"{folder.path}: {state}", "a directory of keyrotd's and the server's own")
    if place.mode is None:
        return grave(
            "server.key_file",
            f"{path}: is not there: the server cannot start",
            "the agent writes it within start_grace",
        )
    if place.mode & 0o037:
        return grave(
            "server.key_file",
            f"{path}: others may read or change it (mode {place.mode:04o})",
            "the agent repairs it at its next look: is it running?",
        )
    if not place.in_memory:
        return grave(
            "server.key_file",
            f"{path}: clear keys on a disk, from which they can be recovered",
            "put it into a tmpfs that keyrotd and the server share, such as /run/keyrotd",
        )
    return ok("server.key_file", f"{path}: in memory, mode {place.mode:04o}")


def of_listed(found: Iterable[str], managed: Iterable[str]) -> Iterator[Finding]:
    """Compare the key files that HAProxy says it has with those that any [[server]] names, letter by letter."""
    strangers = sorted(set(found) - set(managed))
    if strangers:
        yield note(
            "server.unmanaged",
            f"has rings that keyrotd does not manage: {listed(strangers)}",
            "their keys never change: name them in key_file, spelt as on the bind line, or take them off it",
        )
    else:
        yield ok("server.unmanaged", "every ring that it lists is managed")


def of_envoy(strangers: Iterable[str], *, logs_keys: bool) -> Iterator[Finding]:
    """Judge what only Envoy's own configuration shows."""
    found = sorted(strangers)
    if found:
        yield note(
            "server.unmanaged",
            f"has TLS listeners with ticket keys of their own: {listed(found)}",
            "no other node opens their tickets: give each the session_ticket_keys_sds_secret_config of the ring",
        )
    else:
        yield ok("server.unmanaged", "every TLS listener takes the ring's keys")
    if logs_keys:
        yield grave(
            "server.log",
            "Envoy logs at debug or trace, and its logger `config` then writes every ticket key that it reads",
            "start it with --component-log-level config:info, then `keyrotd revoke`: the keys in its log are burnt",
        )
    else:
        yield ok("server.log", "Envoy started with a log level that shows no ticket key")


#: Said once: neither the runtime socket nor a handshake with another bind shows any of it.
UNSEEN_OF_HAPROXY = note(
    "server.unseen",
    "HAProxy shows nobody its other `stats socket` lines, its binds without tls-ticket-keys, or those never probed",
    "audit its configuration: before 3.3 a socket of any level shows and sets keys; a bind that shares keys wants no "
    "allow-0rtt and, in one ring, the same client CAs as all others",
)


# What handshakes show.


def of_lifetimes(sightings: Iterable[Sighting], policy: Policy) -> Iterator[Finding]:
    for sighting in sightings:
        seen = sighting.outcome
        if isinstance(seen, Handshake) and seen.lifetime_hint_s is not None:
            yield _lifetime(f"{sighting.target}, TLS {sighting.version.value}", seen.lifetime_hint_s * 1000, policy)


def _lifetime(who: str, hint_ms: int, policy: Policy) -> Finding:
    t_ms = policy.ticket_lifetime_ms
    if hint_ms > SEVEN_DAYS_MS:
        return grave(
            "probe.lifetime", f"{who}: lifetime hint {words(hint_ms)} is over 7d", "RFC 8446 section 4.6.1 forbids it"
        )
    if hint_ms > t_ms:
        return note(
            "probe.lifetime",
            f"{who}: lifetime hint {words(hint_ms)} is above ticket_lifetime, {words(t_ms)}",
            "clients will offer tickets whose key is gone: lower the server's session timeout (HAProxy: "
            "tune.ssl.lifetime, nginx: ssl_session_timeout, Traffic Server: proxy.config.ssl.session_cache.timeout, "
            "Envoy, for TLS 1.2 alone: session_timeout), or raise ticket_lifetime",
        )
    return ok("probe.lifetime", f"{who}: lifetime hint {words(hint_ms)}, ticket_lifetime {words(t_ms)}")


def of_early_data(target: Target, most_bytes: int | None) -> Iterator[Finding]:
    """Judge what a server's tickets allow. None: it issued none over TLS 1.3, so there is nothing to allow."""
    if most_bytes:
        yield note(
            "probe.early_data",
            f"{target}: its tickets allow {most_bytes} bytes of early data",
            "whoever copies early data can replay it once on every listener that shares these keys (RFC 8446 section "
            "8): turn it off (HAProxy: allow-0rtt), or serve only what may be repeated before the handshake is over",
        )
    elif most_bytes is not None:
        yield ok("probe.early_data", f"{target}: its tickets allow no early data")


def of_requests(
    asks: Mapping[str, bool | None], authorities: Mapping[str, frozenset[bytes]] = MappingProxyType({})
) -> Iterator[Finding]:
    """
    Judge which probed servers of a ring ask clients for certificates. None: none got as far as to tell.

    `authorities`: whose they ask for, of those that name any.
    """
    asking, open_to_all = ([name for name, found in asks.items() if found is want] for want in (True, False))
    if asking and open_to_all:
        yield grave(
            "probe.client_certificates",
            f"{listed(asking)} asks for client certificates, {listed(open_to_all)} of the same ring does not",
            "a ticket got without a certificate may resume where one is wanted: give each its own ring",
        )
    elif asking:
        yield note(
            "probe.client_certificates",
            f"{listed(asking)} asks for client certificates",
            "all listeners of this ring, on every node, must trust the same client CAs, and share nothing else",
        )
    if len(set(authorities.values())) > 1:
        yield grave(
            "probe.client_certificates",
            f"{listed(authorities)} ask for certificates of different authorities",
            "a ticket got with a certificate of one may resume where only the other's are good: give each its own ring",
        )
    hidden = [name for name, found in asks.items() if found is None]
    if hidden:
        yield note(
            "probe.client_certificates",
            f"whether {listed(hidden)} asks for client certificates cannot be seen: no handshake got that far",
            "`keyrotd probe` shows the handshakes; listeners that ask want a ring of their own",
        )
    if not asking and not hidden and asks:
        yield ok("probe.client_certificates", "no probed server of the ring asks for client certificates")


def spoke(sightings: Sequence[Sighting]) -> bool:
    """Whether any handshake came about."""
    return any(not isinstance(sighting.outcome, Fault) for sighting in sightings)
