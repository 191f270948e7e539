"""`keyrotd scheduler`, `agent` and `standalone`: where configuration, secrets, store, servers and daemons meet."""

import math
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

import click

from keyrotd.cli.check import signer_faults
from keyrotd.cli.options import CONFIG_OPTION
from keyrotd.cli.reload import Reload, Turns, files_of, ready_for
from keyrotd.config import AgentConfig, Config, Listen, RingConfig, Role, ServerConfig, key_files, load
from keyrotd.core.errors import ConfigError, KeyrotdError
from keyrotd.core.messages import ProbeState
from keyrotd.core.stek import Secrets
from keyrotd.daemon import agent, scheduler
from keyrotd.daemon.clock import SystemClock
from keyrotd.daemon.hardening import harden
from keyrotd.daemon.health import Answer, HealthServer
from keyrotd.daemon.lock import locked
from keyrotd.daemon.notify import Notify
from keyrotd.daemon.peering import Asking, Offer
from keyrotd.daemon.rings import Agents, Schedulers
from keyrotd.daemon.service import Job, Service
from keyrotd.daemon.state import DiskFolder
from keyrotd.daemon.telemetry import Reporter, configure_logging
from keyrotd.daemon.tending import Prove, Server, Threads
from keyrotd.seal import lines
from keyrotd.seal.keyedits import Entry, entries
from keyrotd.seal.keyfiles import AnyKey, Kek, OperatorVerifyKey, SigningKey, VerifyKey
from keyrotd.secrets import read, text
from keyrotd.store import embedded
from keyrotd.store.redis import RedisStore
from keyrotd.store.wakes import RedisWakes
from keyrotd.tls.handshake import Trust as TlsTrust
from keyrotd.tls.probe import offered, prove
from keyrotd.tls.target import Target, parse_target


@click.command("scheduler")
@CONFIG_OPTION
def scheduler_command(config_path: Path) -> None:
    r"""
    Run a scheduler. Run two or more anywhere: one leads, the others stand by.

    \b
    keyrotd scheduler --config /etc/keyrotd/keyrotd.toml
    """
    with ExitStack() as stack:
        _run(stack, _begin(stack, config_path, ("scheduler",)), ("scheduler",))


@click.command("agent")
@CONFIG_OPTION
def agent_command(config_path: Path) -> None:
    r"""
    Run this node's agent. It installs each new window, reads it back, proves it with a handshake and reports.

    \b
    keyrotd agent --config /etc/keyrotd/keyrotd.toml
    """
    with ExitStack() as stack:
        _run(stack, _begin(stack, config_path, ("agent",)), ("agent",))


@click.command("standalone")
@CONFIG_OPTION
def standalone_command(config_path: Path) -> None:
    r"""
    Run everything that one machine needs, with `url = "embedded:"` in [store].

    \b
    keyrotd init /etc/keyrotd             # then take the # off the [[server]] in keyrotd.toml
    keyrotd standalone --config /etc/keyrotd/keyrotd.toml
    """
    with ExitStack() as stack:
        config = _begin(stack, config_path, ("scheduler", "agent"))
        private = None
        if config.store.url == "embedded:":
            # From this thread: the kernel ends the store with the thread that started it.
            private = embedded.start(runtime_dir=config.runtime_dir, data_dir=config.state_dir / "store")
            stack.callback(private.stop)
        _run(stack, config, ("scheduler", "agent"), ended=lambda: private is not None and not private.running)
        if private is not None and not private.running:
            log = config.runtime_dir / "store.log"
            raise KeyrotdError("standalone: the private store ended by itself", hint=f"{log} says why; start me again")


def _begin(stack: ExitStack, config_path: Path, roles: tuple[Role, ...]) -> Config:
    """Read the configuration, and be the only daemon of these roles that has its folders."""
    config = ready_for(load(config_path), roles)
    _make_folders(config)
    if "agent" in roles:
        _make_key_folders(config)
    for folder in (config.state_dir, config.runtime_dir):
        for role in roles:
            stack.enter_context(locked(folder, role))
    return config


def _run(
    stack: ExitStack, config: Config, roles: tuple[Role, ...], *, ended: Callable[[], bool] = lambda: False
) -> None:
    configure_logging(form=config.log.format, level=config.log.level)
    reporter, clock = Reporter(), SystemClock()
    for refused in harden():
        reporter.fault("hardening", refused, hint="systemd: LimitMEMLOCK=infinity; or run with CAP_IPC_LOCK")
    parts = Parts(config=config, reporter=reporter, clock=clock, holder=_holder())
    running = [parts.running(role) for role in roles]
    reload = Reload(config, roles, [part.retrust for part in running], reporter, Turns(files_of(config), clock))
    reporter.gauge("config_last_reload_successful", 1)
    service = Service(
        [part.job for part in running],
        clock=clock,
        rand=os.urandom,
        reporter=reporter,
        notify=Notify.from_environment(os.environ),
        reload=reload.take,
        ended=ended,
        changed=reload.turns.seen,
    )
    for part in running:
        if part.listen is not None:
            health = HealthServer(
                (part.listen.host, part.listen.port),
                alive=lambda: (service.alive, "alive" if service.alive else "a tick hangs or keeps failing"),
                ready=partial(_ready, service, part),
                metrics=reporter.exposition,
                crashed=reporter.crash,
            )
            stack.callback(health.close)
    reporter.event("daemon.started", roles=list(roles), config=str(config.path))
    service.run()
    reporter.event("daemon.stopped", roles=list(roles))


class Running(NamedTuple):
    """One role's part of a process. `unready` names what it waits for."""

    job: Job
    retrust: Callable[[Config], Callable[[], None]]
    unready: Callable[[], list[str]]
    listen: Listen | None


def _ready(service: Service, part: Running) -> Answer:
    waiting = part.unready() if service.ticked else ["the first tick"]
    return (not waiting, f"waiting for {', '.join(waiting)}" if waiting else "ready")


def _make_folders(config: Config) -> None:
    for key, folder in (("runtime_dir", config.runtime_dir), ("state_dir", config.state_dir)):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            fault = f"{config.path}: {key}: cannot make {folder}: {(error.strerror or str(error)).lower()}"
            raise ConfigError([(fault, "make it, owned by the user that keyrotd runs as")]) from error


def _make_key_folders(config: Config) -> None:
    """
    Make what is missing: a volume of Kubernetes is open to all at its root, and no key goes where anybody may write.

    A folder that cannot be made is its server's fault alone, which its driver tells.
    """
    for server in config.servers:
        for path in key_files(server.driver):
            with suppress(OSError):
                path.parent.mkdir(mode=0o750)


def _holder() -> str:
    # Unlike any other life of this or another scheduler, and still readable.
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Makes the daemons of one configuration."""

    config: Config
    reporter: Reporter
    clock: SystemClock
    holder: str

    def running(self, role: Role) -> Running:
        if role == "scheduler":
            replicas = self.config.store.wait_replicas
            stores = [self.store(ring.name, wait_replicas=replicas) for ring in self.config.rings]
            schedulers = self.schedulers(stores)
            retrust = partial(_retrust_schedulers, schedulers, self.reporter)
            retrust(self.config)()  # says what it goes by
            for ring in self.config.rings:
                self.reporter.expect("scheduler", ring.name)
            job = Job("scheduler", schedulers, wakes=RedisWakes(stores, schedules=True))
            return Running(job, retrust, list, self.config.scheduler.listen)
        rings = [ring for ring in self.config.rings if any(server.ring == ring.name for server in self.config.servers)]
        stores = [self.store(ring.name) for ring in rings]
        agents = Agents([self._agent(ring, store) for ring, store in zip(rings, stores, strict=True)], stores)
        retrust = partial(_retrust_agents, agents, self.reporter)
        retrust(self.config)()
        job = Job("agent", agents, wakes=RedisWakes(stores, schedules=False), jittered=True)
        return Running(job, retrust, agents.unready, self.config.agent.listen)

    def store(self, ring: str, *, wait_replicas: int = 0) -> RedisStore:
        settings = self.config.store
        return RedisStore(
            settings.address,
            ring=ring,
            namespace=settings.namespace,
            timeout_ms=settings.timeout_ms,
            wait_replicas=wait_replicas,
        )

    def schedulers(self, stores: Sequence[RedisStore]) -> Schedulers:
        return Schedulers(
            [
                scheduler.RingScheduler(
                    ring.name,
                    self.holder,
                    ring.policy,
                    _scheduler_trust(self.config, ring),
                    scheduler.World(
                        store=store,
                        state=DiskFolder(self.config.state_dir),
                        clock=self.clock,
                        rand=os.urandom,
                        telemetry=self.reporter,
                    ),
                    wait_replicas=self.config.store.wait_replicas,
                )
                for ring, store in zip(self.config.rings, stores, strict=True)
            ]
        )

    def _agent(self, ring: RingConfig, store: RedisStore) -> agent.RingAgent:
        settings = self.config.agent
        self._expect_servers(ring)
        servers = tuple(_server(server, self.reporter) for server in self.config.servers if server.ring == ring.name)
        return agent.RingAgent(
            agent.Settings(
                ring=ring.name,
                node=settings.node,
                poll_interval_ms=settings.poll_interval_ms,
                start_grace_ms=settings.start_grace_ms,
                asking=_asking(settings),
            ),
            _agent_trust(self.config, ring),
            agent.World(
                store=store,
                servers=servers,
                workers=Threads(len(servers)),
                runtime=DiskFolder(self.config.runtime_dir),
                state=DiskFolder(self.config.state_dir),
                clock=self.clock,
                rand=os.urandom,
                telemetry=self.reporter,
            ),
        )

    def _expect_servers(self, ring: RingConfig) -> None:
        servers = self.config.servers_of(ring.name)
        self.reporter.expect("agent", ring.name, [server.name for server in servers])
        for server in servers:
            self.reporter.gauge(
                "server_info",
                1,
                ring=ring.name,
                server=server.name,
                driver=server.driver.kind,
                reloads="yes" if server.driver.facts.reloads else "no",
            )


def _retrust_schedulers(schedulers: Schedulers, reporter: Reporter, fresh: Config) -> Callable[[], None]:
    """Read what a fresh configuration says of policies and secrets; return the deed of taking it."""
    found = [(ring, new) for ring in schedulers.rings for new in fresh.rings if new.name == ring.ring]
    taken = [(ring, new.policy, _scheduler_trust(fresh, new), _sealing_kek(new)) for ring, new in found]

    def take() -> None:
        for ring, policy, trust, kek in taken:
            ring.policy, ring.trust = policy, trust
            ids = _ids(verify_keys=trust.verifiers, operator_keys=trust.operators, keks=trust.keks)
            _say_trust(reporter, ring.ring, kek, signing_key=trust.signer.id, **ids)

    return take


def _retrust_agents(agents: Agents, reporter: Reporter, fresh: Config) -> Callable[[], None]:
    found = [(ring, new) for ring in agents.rings for new in fresh.rings if new.name == ring.settings.ring]
    taken = [(ring, _agent_trust(fresh, new), _sealing_kek(new)) for ring, new in found]

    def take() -> None:
        for ring, trust, kek in taken:
            ring.trust = trust
            _say_trust(reporter, ring.settings.ring, kek, **_ids(verify_keys=trust.verifiers, keks=trust.keks))

    return take


def _scheduler_trust(config: Config, ring: RingConfig) -> scheduler.Trust:
    secrets = config.secrets
    assert secrets.signing_key_file is not None  # needs() asks for it
    operators = secrets.operator_verify_key_file
    signers, verifiers = read(secrets.signing_key_file, SigningKey), read(secrets.verify_key_file, VerifyKey)
    faults = list(signer_faults(secrets, signers, verifiers))
    if faults:
        raise ConfigError(faults)
    return scheduler.Trust(
        signer=signers[0],
        verifiers=verifiers,
        operators=() if operators is None else read(operators, OperatorVerifyKey),
        keks=read(ring.kek_file, Kek),
    )


def _agent_trust(config: Config, ring: RingConfig) -> agent.Trust:
    return agent.Trust(verifiers=read(config.secrets.verify_key_file, VerifyKey), keks=read(ring.kek_file, Kek))


def _sealing_kek(ring: RingConfig) -> Entry:
    return entries(text(ring.kek_file, Kek), Kek, str(ring.kek_file))[0]


def _ids(**kinds: Sequence[AnyKey]) -> dict[str, list[str]]:
    return {kind: [key.id for key in keys] for kind, keys in kinds.items()}


def _say_trust(reporter: Reporter, ring: str, kek: Entry, **ids: object) -> None:
    """Name every key by its id: whoever changes keys sees here what each daemon goes by."""
    reporter.event("trust.taken", ring=ring, **ids)
    made_s = math.nan if kek.made_at is None else kek.made_at / 1000
    reporter.gauge("kek_made_timestamp_seconds", made_s, ring=ring)


def _asking(settings: AgentConfig) -> Asking | None:
    if not settings.peer_probes:
        return None
    return Asking(count=settings.peer_probes, interval_ms=settings.peer_interval_ms, networks=settings.peer_networks)


def _server(server: ServerConfig, reporter: Reporter) -> Server:
    return Server(
        driver=server.driver,
        prove=None if server.probe is None else _prover(server, server.probe),
        offer=None if server.probe is None else _offerer(server, server.probe),
        address="" if server.advertise is None else _address(server, server.advertise, reporter),
    )


def _address(server: ServerConfig, target: Target, reporter: Reporter) -> str:
    """What peers are told is no name: whoever resolves one may be told another host. '' when there is none to tell."""
    key = f"server {server.name}: advertise"
    try:
        found = ip_address(str(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)[0][4][0]))
        mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
        return lines.address(str(Target(str(mapped or found), target.port)))
    except (OSError, ValueError):
        words = f"server {server.name}: advertise {target}: is no address that others could use"
        reporter.fault(key, words, hint="give the address itself; until the next start no peer asks this server")
        return ""


#: Two handshakes with a server of this very node.
_PROVE_MS = 5_000
#: One handshake with a peer, or with the server whose tickets it is offered.
_PEER_MS = 2_000


def _trust_in(server: ServerConfig) -> TlsTrust:
    return TlsTrust(ca_file=None if server.ca_file is None else str(server.ca_file), insecure=server.ca_file is None)


def _offerer(server: ServerConfig, own: Target) -> Offer:
    def offer(addresses: tuple[str, ...]) -> tuple[ProbeState, ...]:
        takers = [parse_target(address) for address in addresses]
        try:
            offers = offered(own, takers, sni=server.sni, trust=_trust_in(server), timeout_ms=_PEER_MS)
        except KeyrotdError:  # of the CA file, which the server's own probe tells of
            return ()
        return tuple(offer.state for offer in offers)

    return offer


def _prover(server: ServerConfig, target: Target) -> Prove:
    trust = _trust_in(server)

    def proven(current: Secrets) -> tuple[ProbeState, str]:
        scheme = server.driver.facts.scheme
        proof = prove(target, sni=server.sni, trust=trust, current=current, scheme=scheme, timeout_ms=_PROVE_MS)
        return proof.state, proof.fault

    return proven
