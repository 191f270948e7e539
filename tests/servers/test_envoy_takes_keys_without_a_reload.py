"""Real Envoy: keys come and go by its SDS file, tickets resume across servers, what would kill it is mended."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import Keys, in_step
from keyrotd.core.stek import Scheme
from keyrotd.servers import files
from keyrotd.servers.envoy import EnvoyDriver
from keyrotd.servers.envoy_admin import Setup
from keyrotd.testing.certificates import Authority, new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.driver import rotated, some_keys
from keyrotd.testing.envoy import Envoy
from keyrotd.testing.envoy_twin import write_strange_secret
from keyrotd.tls.handshake import Fault, Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.target import Target
from keyrotd.tls.ticket import opens_ticket
from tests import servers_found
from tests.leaks import Leaks

each_version = pytest.mark.parametrize("version", Version, ids=lambda version: version.value)


@dataclass(frozen=True)
class Pair:
    """Two nodes behind one name, and what a client and an agent need."""

    a: Envoy
    b: Envoy
    ca: Path

    @property
    def nodes(self) -> tuple[Envoy, Envoy]:
        return (self.a, self.b)

    def install(self, keys: Keys) -> None:
        for node in self.nodes:
            driver_of(node).install(keys)

    def come(self, node: Envoy, version: Version = Version.TLS12, listener: int = 0) -> Handshake | Fault:
        context = client_context(version, Trust(ca_file=str(self.ca)))
        return visit(Target("127.0.0.1", node.ports[listener]), context, sni="localhost", timeout_ms=5_000)

    def visit(self, node: Envoy, version: Version = Version.TLS12, listener: int = 0) -> Handshake:
        seen = self.come(node, version, listener)
        assert isinstance(seen, Handshake), seen
        return seen

    def resumes(self, ticket: Handshake, node: Envoy, listener: int = 0) -> bool:
        assert ticket.session is not None
        target = Target("127.0.0.1", node.ports[listener])
        seen = resume(target, ticket.context, ticket.session, sni="localhost", timeout_ms=5_000)
        assert isinstance(seen, Handshake), seen
        return seen.resumed


@pytest.fixture
def pair() -> Iterator[Pair]:
    with running() as pair:
        yield pair


@contextmanager
def running(*, more_names: tuple[str, ...] = (), log_levels: tuple[str, ...] = ()) -> Iterator[Pair]:
    exe = servers_found.wheel_envoy()
    with TemporaryDirectory(prefix="keyrotd") as name:  # a Unix socket's path must be short
        directory = Path(name)
        authority = new_authority(datetime.now(UTC))
        ca, certificate = authority.write(directory)
        more = tuple(issued(authority, directory, name) for name in more_names)
        nodes = [Envoy(name, exe, directory / name, certificate, more, log_levels) for name in ("a", "b")]
        try:
            for node in nodes:
                write_strange_secret(node.key_file)
                node.start()
            yield Pair(nodes[0], nodes[1], ca)
        finally:
            for node in nodes:
                node.stop()


def issued(authority: Authority, directory: Path, name: str) -> Path:
    path = directory / f"{name}.pem"
    path.write_bytes(authority.issue("localhost", name))
    return path


def driver_of(node: Envoy) -> EnvoyDriver:
    return EnvoyDriver(name=node.name, key_file=node.key_file, admin=str(node.admin))


def fresh(*, previous: int = 1) -> Keys:
    return some_keys(os.urandom, previous=previous, ring="edge")


@each_version
def test_a_ticket_of_one_node_resumes_on_the_other_until_its_key_is_gone(pair: Pair, version: Version) -> None:
    keys = fresh(previous=0)
    pair.install(keys)
    pids = [node.pid for node in pair.nodes]

    ticket = pair.visit(pair.a, version)

    assert ticket.key_name == keys.current.name
    assert pair.resumes(ticket, pair.b)
    for _ in range(2):
        keys = rotated(keys, os.urandom)
        pair.install(keys)
        assert [pair.resumes(ticket, node) for node in pair.nodes] == [True, True]
        assert pair.visit(pair.b, version).key_name == keys.current.name
    pair.install(rotated(keys, os.urandom))
    assert [pair.resumes(ticket, node) for node in pair.nodes] == [False, False]
    assert [node.pid for node in pair.nodes] == pids


@each_version
def test_nodes_one_epoch_apart_open_each_others_tickets(pair: Pair, version: Version) -> None:
    behind = fresh()
    ahead = rotated(behind, os.urandom)
    driver_of(pair.a).install(behind)
    driver_of(pair.b).install(ahead)

    old, new = pair.visit(pair.a, version), pair.visit(pair.b, version)

    assert (old.key_name, new.key_name) == (behind.current.name, ahead.current.name)
    assert pair.resumes(old, pair.b)
    assert pair.resumes(new, pair.a)


def test_the_ticket_is_sealed_by_the_key_itself_and_not_only_under_its_name(pair: Pair) -> None:
    keys = fresh()
    pair.install(keys)

    ticket = pair.visit(pair.a).ticket

    assert ticket is not None
    assert opens_ticket(ticket, keys.current.secrets(Scheme.AES256), Scheme.AES256)


def test_many_keys_are_held_at_once_and_the_last_of_them_opens(pair: Pair) -> None:
    keys = fresh(previous=40)
    oldest = Keys(current=keys.previous[-1], next=keys.next)
    pair.install(oldest)
    ticket = pair.visit(pair.a)

    pair.install(keys)

    assert in_step(driver_of(pair.b).observe(), keys)
    assert pair.resumes(ticket, pair.b)


@each_version
def test_listeners_with_other_certificates_get_the_same_keys_and_keep_their_tickets_apart(version: Version) -> None:
    """Envoy binds a ticket to its certificate's names, so one for another site opens nothing here."""
    with running(more_names=("other.example",)) as pair:
        keys = fresh()
        pair.install(keys)

        own, other = pair.visit(pair.a, version), pair.visit(pair.a, version, listener=1)

        assert own.key_name == other.key_name == keys.current.name
        assert pair.resumes(own, pair.b)
        assert pair.resumes(other, pair.b, listener=1)
        assert not pair.resumes(own, pair.b, listener=1)


def test_a_restart_starts_with_what_was_installed_and_shows(pair: Pair) -> None:
    keys = rotated(fresh(), os.urandom)
    pair.install(keys)
    driver, ticket = driver_of(pair.a), pair.visit(pair.b)
    before = driver.observe()

    pair.a.restart()

    seen = driver.observe()
    assert seen.instance != before.instance
    assert in_step(seen, keys)
    assert pair.resumes(ticket, pair.a)


def test_envoy_starts_from_a_file_that_was_written_before_it_ever_ran(pair: Pair) -> None:
    keys = fresh(previous=0)
    pair.a.stop()
    pair.a.key_file.unlink()

    with pytest.raises(InstallFailed):
        driver_of(pair.a).install(keys)

    pair.a.start()
    assert in_step(driver_of(pair.a).observe(), keys)
    assert pair.visit(pair.a).key_name == keys.current.name


def test_a_secret_is_known_by_its_name_whatever_that_means_in_a_pattern(tmp_path: Path) -> None:
    _, certificate = new_authority(datetime.now(UTC)).write(tmp_path)
    keys = fresh()
    with TemporaryDirectory(prefix="keyrotd") as name:
        envoy = Envoy("a", servers_found.wheel_envoy(), Path(name), certificate, secret="edge-1.stek")
        driver = EnvoyDriver(name="a", key_file=envoy.key_file, secret=envoy.secret, admin=str(envoy.admin))
        with pytest.raises(InstallFailed):
            driver.install(fresh())  # it does not run yet
        try:
            envoy.start()

            driver.install(keys)

            assert in_step(driver.observe(), keys)
        finally:
            envoy.stop()


def misspelt(content: bytes) -> bytes:
    return content.replace(b"session_ticket_keys", b"session_ticket_keyz")


def without_keys(content: bytes) -> bytes:
    response = json.loads(content)
    del response["resources"][0]["session_ticket_keys"]
    return json.dumps(response).encode()


@pytest.mark.parametrize("broken", [misspelt, without_keys])
def test_a_document_that_envoy_takes_and_dies_of_is_found_and_mended(
    pair: Pair, broken: Callable[[bytes], bytes]
) -> None:
    keys = fresh()
    pair.install(keys)
    driver, ticket = driver_of(pair.a), pair.visit(pair.b)
    content = files.read(pair.a.key_file)
    assert content is not None

    files.write(pair.a.key_file, broken(content))
    wait_until(lambda: isinstance(pair.come(pair.a), Fault), "Envoy resets connections")

    assert not in_step(driver.observe(), keys)
    driver.install(keys)
    assert in_step(driver.observe(), keys)
    assert pair.resumes(ticket, pair.a)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda content: content[:-40], id="truncated"),
        pytest.param(lambda content: content.replace(b'"stek"', b'"other"'), id="another secret"),
        pytest.param(lambda content: content.replace(b"inline_bytes", b"inline_string"), id="not bytes"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"{}", id="nothing in it"),
    ],
)
def test_a_document_that_envoy_refuses_is_found_and_replaced_before_a_restart_needs_it(
    pair: Pair, broken: Callable[[bytes], bytes]
) -> None:
    keys = fresh()
    pair.install(keys)
    driver = driver_of(pair.a)
    content = files.read(pair.a.key_file)
    assert content is not None

    files.write(pair.a.key_file, broken(content))

    assert not in_step(driver.observe(), keys)
    driver.install(keys)
    assert in_step(driver.observe(), keys)
    pair.a.restart()
    assert pair.visit(pair.a).key_name == keys.current.name


def test_keys_of_somebody_else_are_found_and_replaced_even_under_our_version(pair: Pair) -> None:
    keys, others = fresh(), fresh()
    pair.install(others)
    foreign = json.loads(files.read(pair.a.key_file) or b"")
    pair.install(keys)
    ours = json.loads(files.read(pair.a.key_file) or b"")

    files.write(pair.a.key_file, json.dumps(foreign | {"version_info": ours["version_info"]}).encode())

    driver = driver_of(pair.a)
    assert not in_step(driver.observe(), keys)
    driver.install(keys)
    assert in_step(driver.observe(), keys)
    assert pair.visit(pair.a).key_name == keys.current.name


def test_a_file_that_envoy_does_not_watch_is_told(pair: Pair) -> None:
    elsewhere = pair.a.directory / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    driver = EnvoyDriver(name="a", key_file=elsewhere / "stek.json", admin=str(pair.a.admin), timeout_ms=300)

    with pytest.raises(InstallFailed, match=r"Envoy did not take it up within 300 ms$") as failed:
        driver.install(fresh())

    assert "name stek and this very path" in str(failed.value.hint)


class HalfManaged(Envoy):
    """Its first listener takes our keys, its second keeps keys of its own, its third issues no tickets."""

    @property
    def config(self) -> str:
        bootstrap = json.loads(super().config)
        for listener, field in zip(bootstrap["static_resources"]["listeners"], (None, "", "none"), strict=True):
            context = listener["filter_chains"][0]["transport_socket"]["typed_config"]
            if field is not None:
                del context["session_ticket_keys_sds_secret_config"]
            if field:
                context["disable_stateless_session_resumption"] = True
        return json.dumps(bootstrap)


@pytest.mark.parametrize(
    ("levels", "logs_keys"),
    [
        ((), False),
        (("--log-level", "debug"), True),
        (("--log-level", "debug", "--component-log-level", "config:info"), False),
        (("--component-log-level", "upstream:info,config:trace"), True),
    ],
)
def test_listeners_with_other_keys_and_a_log_that_shows_keys_are_found(
    tmp_path: Path, levels: tuple[str, ...], *, logs_keys: bool
) -> None:
    _, certificate = new_authority(datetime.now(UTC)).write(tmp_path)
    with TemporaryDirectory(prefix="keyrotd") as name:
        envoy = HalfManaged(
            "a", servers_found.wheel_envoy(), Path(name), certificate, (certificate, certificate), levels
        )
        write_strange_secret(envoy.key_file)
        try:
            envoy.start()

            setup = driver_of(envoy).setup()
        finally:
            envoy.stop()

    assert setup == Setup(strangers=(f"127.0.0.1:{envoy.ports[1]}",), logs_keys=logs_keys)


@pytest.mark.parametrize(
    "levels",
    [
        pytest.param((), id="as it is"),
        # Its logger `config` shows whatever an SDS file holds when it is at debug. deploy/envoy/README.md says so.
        pytest.param(("--log-level", "trace", "--component-log-level", "config:info"), id="trace, but for one logger"),
    ],
)
def test_nothing_that_envoy_says_about_our_keys_holds_one(levels: tuple[str, ...]) -> None:
    with running(log_levels=levels) as pair:
        windows = [fresh()]
        for _ in range(3):
            windows.append(rotated(windows[-1], os.urandom))
            pair.install(windows[-1])
        pair.visit(pair.a)
        pair.a.restart()
        pair.visit(pair.a)
        shown = pair.a.ask("/config_dump") + pair.a.ask("/stats") + pair.a.ask("/certs")

        said = [("its log", pair.a.log.read_bytes()), ("its admin endpoint", shown.encode())]

        assert leaks_of(*windows).among(said) == {}


def test_what_envoy_says_of_a_malformed_document_is_why_none_of_it_is_repeated(pair: Pair) -> None:
    """Of one empty key among good ones Envoy logs the good ones, too; the agent's words hold none."""
    keys = fresh()
    pair.install(keys)
    driver, response = driver_of(pair.a), json.loads(files.read(pair.a.key_file) or b"")
    response["resources"][0]["session_ticket_keys"]["keys"].append({})

    files.write(pair.a.key_file, json.dumps(response).encode())
    wait_until(lambda: pair.a.stats()["sds.stek.update_rejected"] == 1, "Envoy refuses it")

    assert leaks_of(keys).within(pair.a.log.read_bytes()) != set()
    assert not in_step(driver.observe(), keys)
    driver.install(keys)
    assert in_step(driver.observe(), keys)


def leaks_of(*windows: Keys) -> Leaks:
    secrets: dict[str, bytes] = {}
    for stek in (stek for keys in windows for stek in keys.opening):
        found = stek.secrets(Scheme.AES256)
        secrets |= {f"aes of {stek.name.hex()}": found.aes, f"hmac of {stek.name.hex()}": found.hmac}
    return Leaks(secrets)
