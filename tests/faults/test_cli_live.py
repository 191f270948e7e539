"""The commands against a real store, a scheduler and agents that tick as they do in a daemon."""

import io
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keyrotd import secrets
from keyrotd.cli import exits
from keyrotd.cli.main import run
from keyrotd.cli.orders import whoami
from keyrotd.config import Config, load
from keyrotd.daemon import agent, scheduler
from keyrotd.daemon.clock import SystemClock
from keyrotd.daemon.tending import Inline, Server
from keyrotd.seal.keyfiles import Kek, OperatorVerifyKey, SigningKey, VerifyKey, make_secrets
from keyrotd.store import acl
from keyrotd.store.embedded import Embedded
from keyrotd.store.redis import RedisStore
from keyrotd.testing.children import wait_until
from keyrotd.testing.folder import MemoryFolder
from keyrotd.testing.telemetry import SilentTelemetry
from keyrotd.testing.twins import MemoryServer
from tests import servers_found
from tests.contract.stores import owner, running

RING = "edge"
PASSWORD = "for-tests"


@dataclass
class Ticking:
    """A daemon's loop: one thread, until told to stop."""

    daemon: scheduler.RingScheduler | agent.RingAgent
    store: RedisStore
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self.over.wait(self.daemon.tick() / 1000):
            pass

    def stop(self) -> None:
        """As when a machine is lost: nothing is handed over."""
        self.over.set()
        self._thread.join()
        self.store.close()


@dataclass
class Live:
    """A ring of one scheduler and two agents, and the configuration that its people use."""

    config_path: Path
    config: Config
    ticking: dict[str, Ticking] = field(default_factory=dict)

    def store(self) -> RedisStore:
        settings = self.config.store
        return RedisStore(settings.address, ring=RING, namespace=settings.namespace, timeout_ms=settings.timeout_ms)

    def lead(self) -> None:
        """Start a scheduler that remembers nothing."""
        ring, files, store = self.config.rings[0], self.config.secrets, self.store()
        assert files.signing_key_file is not None
        assert files.operator_verify_key_file is not None
        trust = scheduler.Trust(
            signer=secrets.read(files.signing_key_file, SigningKey)[0],
            verifiers=secrets.read(files.verify_key_file, VerifyKey),
            operators=secrets.read(files.operator_verify_key_file, OperatorVerifyKey),
            keks=secrets.read(ring.kek_file, Kek),
        )
        world = scheduler.World(
            store=store, state=MemoryFolder(), clock=SystemClock(), rand=os.urandom, telemetry=SilentTelemetry()
        )
        daemon = scheduler.RingScheduler(RING, "scheduler-1", ring.policy, trust, world)
        self.ticking["scheduler-1"] = Ticking(daemon, store)

    def follow(self, node: str) -> None:
        """Start an agent with one server."""
        store = self.store()
        world = agent.World(
            store=store,
            servers=(Server(driver=MemoryServer(), prove=None),),
            workers=Inline(),
            runtime=MemoryFolder(),
            state=MemoryFolder(),
            clock=SystemClock(),
            rand=os.urandom,
            telemetry=SilentTelemetry(),
        )
        trust = agent.Trust(
            verifiers=secrets.read(self.config.secrets.verify_key_file, VerifyKey),
            keks=secrets.read(self.config.rings[0].kek_file, Kek),
        )
        settings = agent.Settings(ring=RING, node=node, poll_interval_ms=100, start_grace_ms=10_000)
        self.ticking[node] = Ticking(agent.RingAgent(settings, trust, world), store)

    def stop(self, name: str) -> None:
        self.ticking.pop(name).stop()

    def run(self, *args: str) -> int:
        return run([args[0], "--config", str(self.config_path), *args[1:]])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with running(servers_found.wheel_valkey(), tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture
def live(server: Embedded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Live]:
    with owner(server) as redis:
        redis.flushall()
    for name, text in make_secrets(RING, os.urandom).items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    path = configured(tmp_path, f"unix://{server.socket}")
    found = Live(path, load(path))
    try:
        found.lead()
        for node in ("edge-1", "edge-2"):
            found.follow(node)
        wait_until(lambda: found.run("status") == exits.DONE, "the ring is healthy")
        capsys.readouterr()
        yield found
    finally:
        for name in list(found.ticking):
            found.stop(name)


def configured(folder: Path, url: str, *, kek_file: str = f"{RING}.kek") -> Path:
    path = folder / f"keyrotd-{kek_file}.toml"
    path.write_text(f"""\
[store]
url = "{url}"
timeout = "250ms"
[secrets]
signing_key_file = "signing.key"
verify_key_file = "verify.key"
operator_key_file = "operator.key"
operator_verify_key_file = "operator-verify.key"
[[ring]]
name = "{RING}"
kek_file = "{kek_file}"
rotation_interval = "5m"
ticket_lifetime = "2m"
[scheduler]
tick_interval = "50ms"
lease_ttl = "2s"
node_ttl = "2s"
[agent]
poll_interval = "100ms"
""")
    return path


def status(live: Live, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    live.run("status", "--json")
    found = json.loads(capsys.readouterr().out)["rings"][0]
    assert isinstance(found, dict)
    return found


def test_a_rotation_is_followed_node_by_node_and_recorded(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.run("rotate", "--now", "--reason", "a leaver") == exits.DONE

    told = capsys.readouterr().out
    assert re.search(r"^epoch 2 published within .*: [0-9a-f]{8} is current, digest [0-9a-f]{8}$", told, re.MULTILINE)
    assert sorted(re.findall(r"^  (\S+) read it back within", told, re.MULTILINE)) == ["edge-1", "edge-2"]
    assert told.endswith("2 live nodes\n")
    assert live.run("history", "--json") == exits.DONE
    events = json.loads(capsys.readouterr().out)["rings"][0]["events"]
    assert [(event["kind"], event["epoch"]) for event in events] == [("rotate", 2), ("bootstrap", 1)]
    assert (events[0]["who"], events[0]["reason"]) == (whoami(), "a leaver")


def test_a_pause_outlives_its_leader_and_a_resume_ends_it(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.run("pause", "--for", "1h", "--reason", "load test") == exits.FAILED
    assert "so a pause may last until" in capsys.readouterr().err
    assert live.run("pause", "--for", "8m", "--reason", "load test") == exits.DONE
    assert capsys.readouterr().out.endswith("`rotate --now` and `revoke` go through\n")

    live.stop("scheduler-1")
    live.lead()
    wait_until(lambda: live.run("status") == exits.DONE, "the ring is led again")
    capsys.readouterr()
    assert status(live, capsys)["pause"] is not None
    assert live.run("rotate", "--now") == exits.DONE
    assert "this goes through all the same" in capsys.readouterr().out
    assert live.run("resume") == exits.DONE
    assert "resumed: the next rotation is due" in capsys.readouterr().out
    assert status(live, capsys)["pause"] is None
    assert live.run("history") == exits.DONE
    assert [line.split()[4] for line in capsys.readouterr().out.splitlines()[2:]][:3] == ["resume", "rotate", "pause"]


def test_saying_what_a_rotation_would_do_does_nothing(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.run("rotate") == exits.DONE

    assert "waits for       2 live nodes: edge-1, edge-2" in capsys.readouterr().out
    assert live.run("history") == exits.DONE
    assert "rotate" not in capsys.readouterr().out


def test_an_operator_needs_no_kek_and_no_more_rights_than_acl_gives(
    live: Live, server: Embedded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with owner(server) as redis:
        for line in acl.lines("keyrotd", [RING]):
            redis.execute_command(*line.split(" "))
        redis.execute_command("ACL", "SETUSER", "keyrotd-operator", f">{PASSWORD}")
    (tmp_path / "store.password").touch(mode=0o600)
    (tmp_path / "store.password").write_text(PASSWORD)
    url = f"unix://keyrotd-operator@{server.socket}?password_file=store.password"
    operators = str(configured(tmp_path, url, kek_file="not-here.kek"))

    for command in (["rotate"], ["rotate", "--now"], ["status"], ["history"], ["inspect"]):
        assert run([*command, "--config", operators]) == exits.DONE

    told = capsys.readouterr().out
    assert "up to 2 nodes, unnamed: the ring's KEK proves reports, and is not here" in told
    assert "after the order: by the leader's word" in told
    assert "2 reports, unread" in told
    assert "window: verified: signature; seeds not opened: no KEK of this ring at hand" in told
    assert PASSWORD not in told
    assert live.ticking


def test_a_node_that_is_lost_is_silent_and_then_not_waited_for(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live.stop("edge-2")
    wait_until(lambda: live.run("status") == exits.FAILED, "edge-2 falls silent")
    capsys.readouterr()

    found = status(live, capsys)

    assert [fault["words"] for fault in found["faults"]] == ["1 node silent: edge-2"]  # type: ignore[attr-defined]  # JSON
    assert live.run("rotate", "--now") == exits.DONE
    assert capsys.readouterr().out.endswith(": 1 live node\n")


def test_a_ring_without_a_leader_says_so_and_takes_no_order(
    live: Live, server: Embedded, capsys: pytest.CaptureFixture[str]
) -> None:
    live.stop("scheduler-1")
    wait_until(lambda: live.run("status") == exits.FAILED, "the beat grows old")
    capsys.readouterr()

    assert live.run("rotate", "--now") == exits.FAILED

    told = capsys.readouterr().err
    assert told.startswith("error: ring edge: no leader: ")
    assert told.splitlines()[0].endswith("; nothing was asked for")
    with owner(server) as redis:
        assert redis.hlen(f"keyrotd:{{{RING}}}:requests") == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_confirmed_revoke_burns_keys(
    live: Live, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert live.run("revoke", "--reason", "a test") == exits.FAILED
    assert status_after(live, capsys)["barrier"] == 0

    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert live.run("revoke", "--reason", "a test") == exits.DONE

    told = capsys.readouterr().out
    assert "burn every key on 2 live nodes?" in told
    assert told.endswith("2 live nodes\n")
    assert status_after(live, capsys)["barrier"] == 2


class SlowTerminal(Terminal):
    """Somebody who thinks for so long that much happens before the answer."""

    def __init__(self, answer: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(answer)
        self._meanwhile = meanwhile

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override] # typeshed's bases disagree
        self._meanwhile()
        return super().readline(-1 if size is None else size)


def test_a_revoke_burns_what_there_is_when_it_is_confirmed(
    live: Live, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SlowTerminal("y\n", lambda: live.run("rotate", "--now", "--reason", "meanwhile")))

    assert live.run("revoke", "--reason", "a test", "--no-wait") == exits.DONE

    assert re.findall(r"asked to (\w+) past epoch (\d)", capsys.readouterr().out) == [("rotate", "1"), ("revoke", "2")]


def status_after(live: Live, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    found = status(live, capsys)["window"]
    assert isinstance(found, dict)
    return found


def test_the_stores_window_is_inspected_seed_by_seed(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.run("inspect", "--json") == exits.DONE

    found = json.loads(capsys.readouterr().out)
    assert (found["proven"], found["verdict"]) == (True, "verified: signature and every seed")
    assert len(found["seeds"]) == 2


def test_a_store_that_goes_away_mid_order_ends_with_its_own_code(
    live: Live, server: Embedded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # An order that no scheduler takes for an operator's, so that it is still waiting whenever the store stops.
    (tmp_path / "operator.key").write_text(make_secrets(RING, os.urandom)["operator.key"])
    stopping = threading.Timer(0.3, os.kill, (server.pid, signal.SIGSTOP))
    stopping.start()
    try:
        code = live.run("rotate", "--now", "--timeout", "2s")
    finally:
        stopping.join()
        os.kill(server.pid, signal.SIGCONT)

    assert code == exits.STORE_AWAY
    assert "error: " in capsys.readouterr().err
