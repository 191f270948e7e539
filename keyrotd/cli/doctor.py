"""
`keyrotd doctor`: looks at everything that is live (store, ring, host, servers, handshakes) and says what is wrong.

It writes nothing, orders nothing and repairs nothing. What can not be seen is said, never guessed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import click

from keyrotd import secrets
from keyrotd.cli import diagnosis, exits, farm_files, host, screen
from keyrotd.cli.check import ROLES, key_file_faults, store_file_faults, trust_faults
from keyrotd.cli.desk import SystemWatch, Watch, keks_at_hand
from keyrotd.cli.diagnosis import Finding, RingSeen, Use, Verdict, grave, note, ok
from keyrotd.cli.options import CONFIG_OPTION
from keyrotd.config import Config, RingConfig, Role, ServerConfig, key_files, load, needs
from keyrotd.core.errors import ConfigError, CorruptWindow, InstallFailed, KeyrotdError, StoreUnavailable
from keyrotd.core.policy import Policy
from keyrotd.core.stek import Scheme, Stek
from keyrotd.core.window import Window
from keyrotd.seal.keyfiles import Keks, VerifyKey
from keyrotd.seal.messages import read_beat
from keyrotd.seal.window import open_window, read_header
from keyrotd.servers.envoy import EnvoyDriver
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.store.addresses import Address
from keyrotd.store.examine import Examined, Examiner, Shown
from keyrotd.tls.handshake import Trust, Version
from keyrotd.tls.probe import matrix
from keyrotd.tls.request import asks_for_certificate
from keyrotd.tls.target import Target
from keyrotd.tls.unveil import unveil
from keyrotd.tls.verdict import Expected
from keyrotd.tls.verdict import findings as probe_findings

#: Per handshake, with servers that are near.
_HANDSHAKE_MS = 5_000
#: Servers looked at at once.
_AT_ONCE = 8
#: A beat that did not move within so many ticks stands still.
_WATCHED_TICKS = 3


@dataclass(frozen=True, slots=True)
class Section:
    """All that was found about one thing."""

    about: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    sections: tuple[Section, ...]
    store_away: bool

    @property
    def exit_code(self) -> int:
        if self.store_away:
            return exits.STORE_AWAY
        return exits.FAILED if self.count(Verdict.GRAVE) else exits.DONE

    def count(self, verdict: Verdict) -> int:
        return sum(finding.verdict is verdict for section in self.sections for finding in section.findings)


_EPILOG = """
\b
Examples:
  keyrotd doctor --config /etc/keyrotd/keyrotd.toml
  keyrotd doctor --role agent --json

Exit code: 0 nothing grave, 1 something is, 2 usage, 69 store away (all else was looked at), 78 configuration.

--json, schema 1: {schema, healthy, store_away, sections: [{about, findings: [{check, verdict, words, hint}]}]};
verdict is ok, note or grave, `check` a fixed word of one check, hint '' where there is nothing to do.
"""


@click.command(epilog=_EPILOG)
@CONFIG_OPTION
@click.option("--role", type=click.Choice(ROLES), help="Judge what this role needs, instead of all that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(config_path: Path, *, role: Role | None, as_json: bool) -> None:
    """
    Look at store, rings, this host, its servers and their handshakes; say what breaks a promise, and what to do.

    `check` judges the configuration alone; this looks at what runs. It changes nothing. Run it as the daemon's user.
    """
    found = examine(load(config_path), role, SystemWatch())
    click.echo(as_document(found) if as_json else "\n".join(as_text(found)))
    raise click.exceptions.Exit(found.exit_code)


def examine(config: Config, role: Role | None, watch: Watch) -> Diagnosis:
    """Everything about everything. A part that is away hides no other."""
    looked = _look(config, role, watch)
    served = config.servers if role in (None, "agent", "standalone") else ()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        seen = tuple(pool.map(partial(_server, config, looked), served))
    return Diagnosis(
        sections=(
            Section("host", tuple(_host(config, role, served))),
            *looked.store,
            *(Section(f"ring {ring.name}", (*looked.of(ring), *_asking(ring, seen))) for ring in config.rings),
            *(Section(f"server {server.name}", server.findings) for server in seen),
            *_unseen(served),
        ),
        store_away=looked.away,
    )


# This machine.


def _host(config: Config, role: Role | None, served: tuple[ServerConfig, ...]) -> Iterator[Finding]:
    address = config.store.address
    for path in (config.path, *config.fragments):
        yield diagnosis.of_config_file(host.file_mode(path))
    exposed = [*store_file_faults(address), *(trust_faults(config) if served else ())]
    for words, hint in exposed:
        yield grave("host.files", words, hint)
    if not exposed:
        yield ok("host.files", "every file that it names for store and servers is there, and safe from others")
    faults = [*(needs(config, role) if role else ()), *key_file_faults(config, role)]
    for words, hint in faults:
        yield grave("host.secrets", words, hint)
    if not faults:
        yield ok("host.secrets", "every key file can be read by keyrotd, and by nobody who should not")
    if served:
        yield from diagnosis.of_runtime_dir(host.place(config.runtime_dir))
    if role != "operator":
        yield from diagnosis.of_state_dir(host.place(config.state_dir))
        memory = host.memory()
        running = [found for kind in ("scheduler", "agent") if (found := host.daemon(config.state_dir, kind))]
        for daemon in running:
            yield from diagnosis.of_daemon(daemon, memory)
        if not running:
            yield diagnosis.of_memory(memory)  # what one that is started from here might do
        yield diagnosis.of_core_pattern(host.core_pattern())


# The store and its rings.


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the store showed, judged. `windows` by ring: those that a KEK of this host opened and that may seal."""

    store: tuple[Section, ...]
    rings: Mapping[str, tuple[Finding, ...]]
    windows: Mapping[str, Window]
    away: bool = False

    def of(self, ring: RingConfig) -> tuple[Finding, ...]:
        unseen = note("ring.window", "was not looked at: the store is away", "nodes keep the keys that they have")
        return self.rings.get(ring.name, (unseen,))


def _look(config: Config, role: Role | None, watch: Watch) -> _Looked:
    settings = config.store
    examiner = Examiner(settings.address, namespace=settings.namespace, timeout_ms=settings.timeout_ms)
    names = [ring.name for ring in config.rings]
    try:
        # The rings first: in a cluster that leads to a node of theirs, and it is that node which tells of itself.
        shown = {name: examiner.ring(name) for name in names}
        masters = examiner.masters()
        if masters is None or masters == (settings.address,):
            nodes = {"": _examined(examiner, names, role, watch)}
        else:
            look = partial(_examined_alone, config, names, role, watch)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                nodes = dict(zip(map(str, masters), pool.map(look, masters), strict=True))
        return _judged(config, nodes, shown, _Again(examiner, watch), unseen=masters is None)
    except StoreUnavailable as away:
        section = Section(f"store {settings.address}", (grave("store.reached", str(away), away.hint),))
        return _Looked((section,), {}, {}, away=True)
    finally:
        examiner.close()


#: What a node tells of itself and this machine's clock as it does; or that it is away.
_Node: TypeAlias = tuple[Examined, int] | StoreUnavailable


def _examined(examiner: Examiner, names: list[str], role: Role | None, watch: Watch) -> _Node:
    asked_at = watch.wall_ms()
    examined = examiner.store(names, role)
    return examined, (asked_at + watch.wall_ms()) // 2


def _examined_alone(config: Config, names: list[str], role: Role | None, watch: Watch, master: Address) -> _Node:
    examiner = Examiner(master, namespace=config.store.namespace, timeout_ms=config.store.timeout_ms)
    try:
        return _examined(examiner, names, role, watch)
    except StoreUnavailable as away:
        return away
    finally:
        examiner.close()


@dataclass(frozen=True, slots=True)
class _Again:
    """A second look at a ring, some ticks later: only that shows whether a beat goes on."""

    examiner: Examiner
    watch: Watch

    def look(self, ring: RingConfig) -> Shown:
        self.watch.pause(_WATCHED_TICKS * ring.policy.tick_interval_ms)
        return self.examiner.ring(ring.name)


def _judged(
    config: Config, nodes: Mapping[str, _Node], shown: dict[str, Shown], again: _Again, *, unseen: bool
) -> _Looked:
    findings, windows = dict[str, tuple[Finding, ...]](), dict[str, Window]()
    for ring in config.rings:
        findings[ring.name], opened = _ring(config, ring, shown[ring.name], again)
        if opened is not None:
            windows[ring.name] = opened
    counts = [found.reports for found in shown.values() if found.reports is not None]
    use = Use(
        address=config.store.address,
        private=config.store.url == "embedded:",
        wait_replicas=config.store.wait_replicas,
        reports=sum(counts) if counts else None,
    )
    told = {name: tuple(_told_by(node, use, config)) for name, node in nodes.items()}
    whole = [ok("store.reached", "answers"), diagnosis.transport(use), *told.pop("", ())]
    if unseen:
        whole.append(diagnosis.UNSEEN_OF_CLUSTER)
    sections = [Section(f"store {config.store.address}", tuple(whole))]
    return _Looked(
        (*sections, *(Section(f"store node {name}", found) for name, found in told.items())), findings, windows
    )


def _told_by(node: _Node, use: Use, config: Config) -> Iterator[Finding]:
    if isinstance(node, StoreUnavailable):
        yield grave("store.reached", str(node), node.hint)
        return
    examined, own_at = node
    yield from diagnosis.of_store(examined, use)
    if examined.store_at is not None:
        eps_ms = min(ring.policy.eps_ms for ring in config.rings)
        yield diagnosis.of_clock("store.clock", "its clock", examined.store_at, own_at, eps_ms=eps_ms)


def _ring(config: Config, ring: RingConfig, shown: Shown, again: _Again) -> tuple[tuple[Finding, ...], Window | None]:
    try:
        verifiers = secrets.read(config.secrets.verify_key_file, VerifyKey)
    except ConfigError:
        return (note("ring.proof", "nothing of it can be proven: see the host's key files", "`keyrotd check`"),), None
    seen, window = _proven(ring, shown, verifiers)
    now_at = again.watch.wall_ms()
    if seen.beat is not None and not diagnosis.fresh(seen.beat, ring.policy, now_at):
        before = seen.beat.signed_at
        seen, window = _proven(ring, again.look(ring), verifiers, before=before)
        now_at = again.watch.wall_ms()
    sealing = window if window is not None and now_at < window.seals_until else None
    return tuple(diagnosis.of_ring(seen, ring.policy, now_at)), sealing


def _proven(
    ring: RingConfig, shown: Shown, verifiers: tuple[VerifyKey, ...], *, before: int | None = None
) -> tuple[RingSeen, Window | None]:
    """What proves itself of a ring, and its window if a KEK of this host opens it."""
    refused: list[tuple[str, str | None]] = []
    header = opened = beat = None
    keks = _keks(ring)
    if isinstance(shown.poll, tuple):
        refused.append(shown.poll)
    else:
        try:
            if shown.poll.window is not None:
                header = read_header(shown.poll.window, verifiers=verifiers, ring=ring.name)
                if keks is not None:
                    opened = open_window(shown.poll.window, verifiers=verifiers, keks=keks, ring=ring.name)
        except CorruptWindow as corrupt:
            refused.append((f"the stored window: {corrupt}", corrupt.hint or _DOUBT))
        try:
            if shown.poll.beat is not None:
                beat = read_beat(shown.poll.beat, verifiers=verifiers, ring=ring.name)
        except CorruptWindow as corrupt:
            refused.append((f"the stored beat: {corrupt}", corrupt.hint or _DOUBT))
    seen = RingSeen(
        window=header,
        beat=beat,
        moved=beat is not None and before is not None and beat.signed_at > before,
        refused=tuple(refused),
        opened=opened is not None,
        leader=shown.leader,
    )
    return seen, opened


_DOUBT = "are this host's verify keys and KEKs the same fleet's? if so, someone writes to the store"


def _keks(ring: RingConfig) -> Keks | None:
    try:
        return keks_at_hand(ring.kek_file)
    except ConfigError:
        return None  # its faults are told as the host's


# Servers and their handshakes.


@dataclass(frozen=True, slots=True)
class _Server:
    """`asks`: whether it asks clients for certificates, and of which `authorities`, where it was probed and spoke."""

    name: str
    ring: str
    findings: tuple[Finding, ...]
    probed: bool = False
    asks: bool | None = None
    authorities: frozenset[bytes] = frozenset()


def _server(config: Config, looked: _Looked, server: ServerConfig) -> _Server:
    policy = next(ring.policy for ring in config.rings if ring.name == server.ring)
    window = looked.windows.get(server.ring)
    steks = () if window is None else tuple(_steks(window))
    findings: list[Finding] = []
    try:
        roles = {stek.secrets(scheme).fingerprint: role for role, stek in steks for scheme in Scheme}
        installed = server.driver.observe()
        delay_ms = server.driver.facts.notice_delay_ms
        findings += diagnosis.of_server(installed, policy, notice_delay_ms=delay_ms, roles=roles)
        if isinstance(server.driver, HAProxyDriver):
            managed = (str(path) for other in config.servers for path in key_files(other.driver))
            findings += diagnosis.of_listed(server.driver.listed(), managed)
        if isinstance(server.driver, EnvoyDriver) and (setup := server.driver.setup()):
            findings += diagnosis.of_envoy(setup.strangers, logs_keys=setup.logs_keys)
    except InstallFailed as failed:
        findings.append(grave("server.observed", str(failed), failed.hint))
    findings += farm_files.findings(server)
    for path in key_files(server.driver):
        # `{n}` counts the files of a server that wants one for each key.
        for file in sorted(path.parent.glob(path.name.replace("{n}", "*"))) if "{n}" in path.name else [path]:
            findings.append(diagnosis.of_key_file(host.place(file), host.place(file.parent)))
    if server.probe is None:
        return _Server(server.name, server.ring, (*findings, _UNPROBED))
    return _probed(server, server.probe, Expected(keys=steks), findings, policy=policy)


def _steks(window: Window) -> Iterator[tuple[str, Stek]]:
    return ((role, key.stek) for role, key in screen.roles(window) if key.stek is not None)


_UNPROBED = note("probe.tickets", "no handshake can prove its keys: it has no `probe` address", 'probe = "HOST:PORT"')


def _probed(
    server: ServerConfig, target: Target, expected: Expected, findings: list[Finding], *, policy: Policy
) -> _Server:
    trust = Trust(ca_file=None if server.ca_file is None else str(server.ca_file), insecure=server.ca_file is None)
    try:
        shown = matrix([target], list(Version), sni=server.sni, trust=trust, timeout_ms=_HANDSHAKE_MS)
    except KeyrotdError as error:
        findings.append(grave("probe.tickets", str(error), error.hint))
        return _Server(server.name, server.ring, tuple(findings))
    told = probe_findings(shown, expected)
    findings += [(grave if found.grave else note)("probe.tickets", found.words, found.hint) for found in told]
    if not told:
        findings.append(ok("probe.tickets", f"{target}: issues tickets that resume{_BY if expected.keys else ''}"))
    findings += diagnosis.of_lifetimes(shown.sightings, policy)
    asks = asks_for_certificate(target, sni=server.sni, timeout_ms=_HANDSHAKE_MS)
    unveiled = unveil(target, sni=server.sni, timeout_ms=_HANDSHAKE_MS)
    findings += diagnosis.of_early_data(target, unveiled.early_data)
    asks = unveiled.asks if asks is None else asks or unveiled.asks is True
    probed = asks is not None or diagnosis.spoke(shown.sightings)
    return _Server(server.name, server.ring, tuple(findings), probed, asks, unveiled.authorities)


_BY = ", under the ring's current key"


def _asking(ring: RingConfig, seen: Iterable[_Server]) -> Iterator[Finding]:
    probed = [server for server in seen if server.ring == ring.name and server.probed]
    return diagnosis.of_requests(
        {server.name: server.asks for server in probed},
        {server.name: server.authorities for server in probed if server.authorities},
    )


def _unseen(served: Iterable[ServerConfig]) -> Iterator[Section]:
    if any(isinstance(server.driver, HAProxyDriver) for server in served):
        yield Section("what cannot be seen", (diagnosis.UNSEEN_OF_HAPROXY,))


# How it is told.


def as_document(found: Diagnosis) -> str:
    return json.dumps(
        {
            "schema": screen.JSON_SCHEMA,
            "healthy": found.exit_code == exits.DONE,
            "store_away": found.store_away,
            "sections": [
                {"about": section.about, "findings": [_values(finding) for finding in section.findings]}
                for section in found.sections
            ],
        },
        indent=2,
    )


def _values(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "verdict": finding.verdict.value,
        "words": finding.words,
        "hint": finding.hint,
    }


def as_text(found: Diagnosis) -> Iterator[str]:
    for section in found.sections:
        yield section.about
        for finding in section.findings:
            yield f"  {finding.verdict.value}: {finding.words}"
            if finding.hint:
                yield f"    hint: {finding.hint}"
    yield f"{found.count(Verdict.OK)} ok, {found.count(Verdict.NOTE)} to note, {found.count(Verdict.GRAVE)} grave"
