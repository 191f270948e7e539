"""keyrotd check: every fault of a configuration and its key files, or what they promise. Connects to nothing."""

import grp
import json
import os
import pwd
import ssl
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args

import click

from keyrotd.cli import exits, farm_files, host
from keyrotd.cli.options import CONFIG_OPTION
from keyrotd.config import Config, RingConfig, Role, SecretsConfig, ServerConfig, load, needs
from keyrotd.core.errors import ConfigError, KeyrotdError
from keyrotd.core.policy import Interval, Policy, words
from keyrotd.daemon.schedule import Cron
from keyrotd.seal.keyfiles import K, Kek, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey
from keyrotd.secrets import foreign, read
from keyrotd.sections import Fault
from keyrotd.store.addresses import Address, Sentinels
from keyrotd.tls.handshake import Trust, Version, client_context

ROLES: tuple[Role, ...] = get_args(Role)

_EPILOG = """
\b
Examples:
  keyrotd check --config /etc/keyrotd/keyrotd.toml
  keyrotd check --role agent && systemctl reload keyrotd-agent
  keyrotd check --config fleet/keyrotd.toml --offline     # in the tests of your own repository

Exit code: 0 no fault, 78 faults.
"""


@click.command(epilog=_EPILOG)
@CONFIG_OPTION
@click.option("--role", type=click.Choice(ROLES), help="Judge what this role needs, instead of all that is there.")
@click.option("--offline", is_flag=True, help="Judge the configuration alone: nothing that it names need be here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document: faults with their hints, and possible roles.")
@click.pass_context
def check(context: click.Context, config_path: Path, role: Role | None, *, offline: bool, as_json: bool) -> None:
    """
    List every fault of a configuration and of the files it names; show each ring's time line.

    Without --role every key file that the configuration names must be there. Nothing is changed or connected to. With
    --offline neither keys, certificates and servers' files nor the variables in paths are looked for.
    """
    try:
        config = _judged(config_path, role, offline=offline)
    except ConfigError as error:
        if not as_json:
            raise
        click.echo(_json(config_path, faults=error.faults, can_be=()))
        context.exit(exits.CONFIGURATION)
    click.echo(_json(config_path, faults=(), can_be=_roles(config)) if as_json else "\n".join(_promises(config)))
    if not offline and config.servers and role in (None, "agent", "standalone"):
        for line in _on_disk(config.runtime_dir):
            click.echo(line, err=True)


def _on_disk(runtime_dir: Path) -> Iterator[str]:
    """No fault: whoever only tries keyrotd has no tmpfs of his own."""
    if not host.place(runtime_dir).in_memory:
        yield f"warning: runtime_dir: {runtime_dir} is on a disk, where sealed keys outlive the day they should be gone"
        yield "hint: /run is a tmpfs: use a RuntimeDirectory= of systemd's or an emptyDir with `medium: Memory`"


def _judged(path: Path, role: Role | None, *, offline: bool) -> Config:
    config = load(path, environ=None if offline else os.environ)
    faults = [*(needs(config, role) if role else ()), *(() if offline else _faults_around(config, role))]
    if faults:
        raise ConfigError(faults)
    return config


def _faults_around(config: Config, role: Role | None) -> Iterator[Fault]:
    """What is wrong with the files that the configuration names."""
    yield from key_file_faults(config, role)
    yield from store_file_faults(config.store.address)
    if role in (None, "agent", "standalone"):
        yield from access_faults(config)
        yield from trust_faults(config)
        yield from farm_files.faults(config)


def _json(path: Path, *, faults: Iterable[Fault], can_be: Iterable[Role]) -> str:
    found = [{"fault": fault, "hint": hint or ""} for fault, hint in faults]
    return json.dumps({"config": str(path), "faults": found, "can_be": list(can_be)}, indent=2)


def _roles(config: Config) -> list[Role]:
    return [role for role in ROLES if not needs(config, role)]


def key_file_faults(config: Config, role: Role | None) -> Iterator[Fault]:
    """What is wrong with the key files that `role` (None: any) reads, and with how they fit together."""
    secrets, faults = config.secrets, list[Fault]()
    scheduling, operating = role in (None, "scheduler", "standalone"), role in (None, "operator")
    verifiers = _keys(secrets.verify_key_file, VerifyKey, faults)
    signers = _keys(secrets.signing_key_file if scheduling else None, SigningKey, faults)
    operator_verifiers = _keys(secrets.operator_verify_key_file if scheduling else None, OperatorVerifyKey, faults)
    operators = _keys(secrets.operator_key_file if operating else None, OperatorKey, faults)
    if role != "operator":
        for ring in config.rings:
            _keys(ring.kek_file, Kek, faults)
    yield from faults
    if signers and verifiers:
        yield from signer_faults(secrets, signers, verifiers)
    if operators and operator_verifiers and operators[0].id not in {key.id for key in operator_verifiers}:
        yield (
            f"{secrets.operator_verify_key_file}: does not know the first key of {secrets.operator_key_file}",
            "every request would be refused: add its verify key to the file of every scheduler",
        )


def signer_faults(
    secrets: SecretsConfig, signers: tuple[SigningKey, ...], verifiers: tuple[VerifyKey, ...]
) -> Iterator[Fault]:
    if signers[0].id not in {key.id for key in verifiers}:
        yield (
            f"{secrets.verify_key_file}: does not know the first key of {secrets.signing_key_file}",
            "every window would be refused: add its verify key to the file, on every host, before it signs",
        )


def store_file_faults(address: Address) -> Iterator[Fault]:
    """What is wrong with the files by which we know the store, and it us."""
    through = address.through.nodes if isinstance(address.through, Sentinels) else ()
    secrets = (address.password_file, address.key_file, *(sentinel.password_file for sentinel in through))
    for path in dict.fromkeys(filter(None, secrets)):
        yield from _exposed(Path(path), 0o027, "chmod 0600, or 0640 with keyrotd's group")
    for path in filter(None, (address.ca_file, address.cert_file)):
        yield from _exposed(Path(path), 0o022, "chmod go-w")
    if address.ca_file is not None:
        yield from _untrusted(address.ca_file)
    if address.cert_file is not None and Path(address.cert_file).exists():
        try:
            # Whoever runs us must not be asked for a passphrase that a daemon could not be asked for.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(address.cert_file, address.key_file, lambda: b"")
        except OSError as error:  # ssl.SSLError is one
            words = f"{address.cert_file}: does not load with its key: {(error.strerror or str(error)).lower()}"
            yield words, "want a PEM certificate chain, and in key_file its key without a passphrase"


def access_faults(config: Config) -> Iterator[Fault]:
    """Users and groups that are to have key files, and that this machine does not know."""
    for server in config.servers:
        for what, option, known in (("user", "owner", pwd.getpwnam), ("group", "group", grp.getgrnam)):
            name = getattr(server.driver, option, None)  # of those drivers whose section has it
            if name is not None and not name.isdecimal() and not _knows(known, name):
                yield (
                    f"server {server.name}: {option}: this machine has no {what} {name!r}",
                    f"no key file could be written: is it the {what} that the server's processes run with?",
                )


def _knows(known: Callable[[str], object], name: str) -> bool:
    try:
        known(name)
    except KeyError:
        return False
    return True


def trust_faults(config: Config) -> Iterator[Fault]:
    """What is wrong with the certificates by which servers are known when they are probed."""
    for path in dict.fromkeys(server.ca_file for server in config.servers if server.ca_file is not None):
        yield from _exposed(path, 0o022, "chmod go-w: whoever may change it may stand in for a server")
        yield from _untrusted(str(path))


def _untrusted(ca_file: str) -> Iterator[Fault]:
    if not Path(ca_file).exists():
        return  # that is told
    try:
        client_context(Version.TLS13, Trust(ca_file=ca_file))
    except KeyrotdError as error:
        yield str(error).removeprefix("probe: "), error.hint


def _exposed(path: Path, mask: int, hint: str) -> Iterator[Fault]:
    try:
        status = path.stat()
    except OSError as error:
        yield f"{path}: cannot be read: {(error.strerror or str(error)).lower()}", "the configuration names it"
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & mask:
        yield f"{path}: others may {'read or ' if mask & 0o004 else ''}change it (mode {mode:04o})", hint
    if status.st_uid not in {0, os.geteuid()}:
        yield foreign(path, status)


def _keys(path: Path | None, kind: type[K], faults: list[Fault]) -> tuple[K, ...]:
    if path is None:
        return ()
    try:
        return read(path, kind)
    except ConfigError as error:
        faults += error.faults
        return ()


def _promises(config: Config) -> Iterator[str]:
    yield f"{config.path}: no fault"
    if config.fragments:
        yield f"with {len(config.fragments)} of conf.d: {', '.join(path.name for path in config.fragments)}"
    yield f"can be: {', '.join(_roles(config)) or 'read by status and history'}"
    yield f"store: {config.store.address}, namespace {config.store.namespace}, timeout {words(config.store.timeout_ms)}"
    for ring in config.rings:
        yield ""
        yield from _time_line(ring)
        yield from _servers(config.servers_of(ring.name))


def _time_line(ring: RingConfig) -> Iterator[str]:
    policy, r_ms, t_ms = ring.policy, ring.policy.rotation_interval_ms, ring.policy.ticket_lifetime_ms
    yield f"ring {ring.name}: rotates {_schedule(policy)}"
    happens = {
        "a key is made; every node opens with it (next)": 0,
        "it seals (current)": r_ms,
        "its successor seals, it opens only (previous)": 2 * r_ms,
        "it is gone, if every node was in step": 2 * r_ms + t_ms + policy.eps_ms,
        "no node seals with it, however late a rotation came": r_ms + policy.max_seal_age_ms,
        "no node opens anything with it, however late a rotation came (V)": policy.worst_ms,
    }
    for what, after_ms in sorted(happens.items(), key=lambda item: item[1]):
        yield f"  {words(after_ms):>14}  {what}"
    yield (
        f"  without a scheduler nodes go on in step, {words(r_ms)} on each key, "
        f"for {words(policy.max_stranded_ms)} after the last one ended"
    )
    yield f"  R {words(r_ms)}, T {words(t_ms)}, eps {words(policy.eps_ms)}, V {words(policy.worst_ms)}"
    kept = "all that still open" if policy.previous_keys is None else f"at most {policy.previous_keys}"
    yield f"  a node that cannot install is waited for {words(policy.overdue_after_ms)}; previous keys: {kept}"
    yield f"  two publishes are {words(policy.spacing_ms)} apart at least"
    pause_ms = policy.max_seal_age_ms - 2 * policy.tick_interval_ms
    yield f"  `keyrotd pause` may hold a rotation until {words(pause_ms)} after the last one"


def _schedule(policy: Policy) -> str:
    match policy.schedule:
        case Interval(interval_ms):
            return f"every {words(interval_ms)}"
        case Cron(expression, longest_ms, shortest_ms):
            gaps = words(longest_ms) if longest_ms == shortest_ms else f"{words(shortest_ms)} to {words(longest_ms)}"
            return f'at "{expression}" UTC, gaps of {gaps}'
        case schedule:
            return repr(schedule)


def _servers(servers: tuple[ServerConfig, ...]) -> Iterator[str]:
    for server in servers:
        facts = server.driver.facts
        slots = "any number of keys" if facts.min_slots is None else f"{facts.min_slots} keys"
        way = "reloads the server" if facts.reloads else "no reload"
        delay = f", up to {words(facts.notice_delay_ms)} late" if facts.notice_delay_ms else ""
        proof = "not probed" if server.probe is None else f"probed at {server.probe}"
        yield f"  server {server.name}: {server.driver.kind}, {slots}, {way}{delay}, {proof}"
        yield from (f"    {line}" for line in farm_files.notes(server))
