"""Real Traffic Server: keys come and go in the running process, tickets resume across nodes, nobody notices."""

import http.client
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyrotd.core.stek import Scheme
from keyrotd.servers.trafficserver_nudge import nudge
from keyrotd.testing.children import wait_until
from keyrotd.testing.trafficserver import TrafficServer
from keyrotd.tls.handshake import Version
from keyrotd.tls.ticket import opens_ticket
from tests.trafficservers import NAMES, Stage, ack, running, some_steks, write

pytestmark = pytest.mark.debian

each_version = pytest.mark.parametrize("version", Version, ids=lambda version: version.value)
each_name = pytest.mark.parametrize("sni", NAMES)


@pytest.fixture(scope="module")
def pair() -> Iterator[Stage]:
    with running(2) as stage:
        yield stage


@each_version
@each_name
def test_a_ticket_of_one_node_resumes_on_the_other_until_its_key_is_gone(
    pair: Stage, version: Version, sni: str
) -> None:
    (a, b), (former, current, following, last) = pair.nodes, some_steks(4)
    pids = [node.pid for node in pair.nodes]
    pair.install(pair.window(former, current))

    ticket = pair.visit(a, version, sni)

    assert ticket.key_name == former.name
    assert pair.resumes(ticket, b, sni)
    pair.install(pair.window(current, following, former))
    assert pair.resumes(ticket, a, sni)
    assert pair.resumes(ticket, b, sni)
    assert pair.visit(b, version, sni).key_name == current.name
    pair.install(pair.window(following, last, current))
    assert not pair.resumes(ticket, a, sni)
    assert not pair.resumes(ticket, b, sni)
    assert [node.pid for node in pair.nodes] == pids


@each_version
def test_nodes_one_epoch_apart_open_each_others_tickets(pair: Stage, version: Version) -> None:
    (a, b), (former, current, following) = pair.nodes, some_steks(3)
    Stage([a], pair.ca).install(pair.window(former, current))
    Stage([b], pair.ca).install(pair.window(current, following, former))

    old, new = pair.visit(a, version), pair.visit(b, version)

    assert (old.key_name, new.key_name) == (former.name, current.name)
    assert pair.resumes(old, b)
    assert pair.resumes(new, a)


def test_the_ticket_is_sealed_by_the_key_itself_and_not_only_under_its_name(pair: Stage) -> None:
    steks = some_steks(2)
    pair.install(pair.window(*steks))

    ticket = pair.visit(pair.node).ticket

    assert ticket is not None
    assert opens_ticket(ticket, steks[0].secrets(Scheme.AES128), Scheme.AES128)


def test_as_many_keys_as_a_file_holds_all_open(pair: Stage) -> None:
    steks = some_steks(96)
    tickets = []
    for stek in steks[::19]:
        pair.install(pair.window(stek, steks[0] if stek is not steks[0] else steks[1]))
        tickets.append(pair.visit(pair.node))

    pair.install(pair.window(*steks))

    assert all(pair.resumes(ticket, pair.nodes[1]) for ticket in tickets)


def test_a_reload_and_rotations_are_felt_by_no_open_connection(pair: Stage) -> None:
    a, b = pair.nodes
    line = keep_alive(a, pair.ca)
    first = page(line)
    for _ in range(5):
        pair.install(pair.window())
        assert page(line) == first
    pair.install(window := pair.window())
    ticket, before = pair.visit(b), ack(a)

    a.reload()

    assert page(line) == first == f"name=a pid={a.pid}"
    line.close()
    assert (ack(a).pid, ack(a).digest) == (before.pid, before.digest)
    assert pair.visit(a).key_name == window.keys[0].name
    assert pair.resumes(ticket, a)


def test_the_first_who_comes_after_a_crash_resumes(pair: Stage) -> None:
    """The manager holds the port: whoever comes while nobody serves waits, and finds the window in place."""
    a, b = pair.nodes
    pair.install(pair.window())
    ticket, before = pair.visit(b), ack(a)

    a.kill()
    wait_until(lambda: a.pid != before.pid, "it is gone")  # else the dying one may still take the connection

    assert pair.resumes(ticket, a)
    assert ack(a).pid == a.pid != before.pid
    assert ack(a).digest == before.digest


def test_a_restart_keeps_the_window_and_whoever_ends_takes_its_word_back(pair: Stage) -> None:
    a, b = pair.nodes
    pair.install(pair.window())
    ticket, before = pair.visit(b), ack(a)

    a.stop()

    assert list(a.ack_dir.iterdir()) == []
    a.start()
    assert ack(a).digest == before.digest
    assert pair.resumes(ticket, a)


def test_nudges_and_polls_at_once_do_it_no_harm(pair: Stage) -> None:
    """They come from threads of their own, and Traffic Server aborts where a hook's continuation is in use."""
    node, before = pair.node, pair.node.pid

    with ThreadPoolExecutor() as pool:
        taken = [pool.submit(lambda: [nudge(node.nudge, timeout_ms=10_000) for _ in range(5_000)]) for _ in range(3)]
        while not all(nudges.done() for nudges in taken):
            write(node, pair.window(*some_steks(90)).encode())

    assert {took for nudges in taken for took in nudges.result()} == {True}
    assert node.pid == before


def test_statistics_tell_what_is_installed(pair: Stage) -> None:
    window = pair.window(*some_steks(5))
    pair.install(window)

    shown = pair.node.statistics(lambda found: found.get("epoch") == pair.epoch)

    assert {name: shown[name] for name in ("epoch", "step", "keys", "sealing", "faulty")} == {
        "epoch": pair.epoch,
        "step": 0,
        "keys": 5,
        "sealing": 1,
        "faulty": 0,
    }
    assert shown["installed_at"] == ack(pair.node).installed_at // 1000


def test_nothing_that_it_writes_holds_a_key(pair: Stage) -> None:
    window = pair.window()
    pair.install(window)

    written = b"".join(path.read_bytes() for path in told_by(pair.node))

    assert window.keys[0].name.hex().encode() in written
    for key in window.keys:
        for secret in (key.aes, key.hmac):
            assert secret not in written
            assert secret.hex().encode() not in written


def told_by(node: TrafficServer) -> list[Path]:
    found = [path for path in node.directory.rglob("*") if path.is_file() and path != node.key_file]
    assert node.log in found
    return found


def keep_alive(node: TrafficServer, ca: Path) -> http.client.HTTPSConnection:
    line = http.client.HTTPSConnection("localhost", node.port, context=ssl.create_default_context(cafile=str(ca)))
    line.connect()
    line.auto_open = 0
    return line


def page(line: http.client.HTTPSConnection) -> str:
    line.request("GET", "/")
    return line.getresponse().read().decode()
