"""
Everything real, everything that may go wrong: and no key is seen outside the places meant for it.

Those are the secrets' own files and the key files that HAProxy starts from. What is searched: logs with whatever else
daemons wrote, the store (every key of it, all that MONITOR tells, its files on disk), the arguments and environment of
every process, metrics and health pages, what commands print, state folders and the agents' sealed caches.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest
import redis

from keyrotd import secrets
from keyrotd.cli.main import COMMANDS
from keyrotd.core.errors import CorruptWindow, StoreUnavailable
from keyrotd.core.messages import Goal
from keyrotd.core.stek import Scheme, Stek
from keyrotd.seal.keyfiles import Kek, OperatorKey, SigningKey
from keyrotd.servers.layouts import HAPROXY80, decode_lines
from keyrotd.testing.children import wait_until
from keyrotd.testing.fleet import RING, Fleet
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.live import LiveServer, free_port
from tests import servers_found
from tests.leaks import Leaks
from tests.scenes import HURRIED, Operator, haproxies, short_directory

PASSWORD = "correct-horse-battery-staple-0147"[:32]

#: Commands that tell what they know; each is run while all is well and while the store is away.
_TELLING = ("status", "history", "inspect", "rotate", "check", "doctor")

#: Where keys are meant to be, by the name of the file; the stranger has the password.
_MEANT = frozenset({f"{RING}.kek", "signing.key", "operator.key", "tickets.keys"})
_STRANGER = "s3"
_PASSWORD_FILE = "store.password"


def test_no_key_is_seen_outside_the_places_meant_for_it(seen: "Evidence") -> None:
    assert seen.leaks.among(seen.places.items()) == {}


def test_the_places_meant_for_keys_hold_them(seen: "Evidence") -> None:
    """What is left out of the search is left out for a reason."""
    found = seen.leaks.among(seen.meant.items())

    assert {Path(place).name for place in found} == {*_MEANT, _PASSWORD_FILE}


def test_every_key_was_looked_for(seen: "Evidence") -> None:
    """The search knows every window that a scheduler said it published, and the keys a node made for itself."""
    published = {event["digest"] for event in seen.events if event["event"] == "window.published"}

    assert len(published) >= 6
    assert published <= seen.digests
    assert any(label.startswith("own key") for label in seen.secrets)


def test_whatever_was_to_go_wrong_went_wrong(seen: "Evidence") -> None:
    """The daemons said every fault as an event of their own, and none of them crashed."""
    said = "\n".join(str(event) for event in seen.events)

    for words in (
        "seals with keys of its own",
        "invalid username-password pair",
        "not the one that was signed",
        "gave no answer within",
        "is HAProxy",
        "want a KEK, found a signing key",
        "want 32 bytes in base64, found something else",
        "drift.repaired",
        "store.sock",
    ):
        assert words in said
    assert "tick.crashed" not in said


@pytest.mark.parametrize("kind", ["log", "file", "MONITOR", "GET", "DUMP", "argv", "environ", "page", "printed"])
def test_a_key_planted_in_any_kind_of_place_is_found(seen: "Evidence", kind: str) -> None:
    """The search is able to fail: a key put in the middle of what was really seen there is named."""
    place, data = next((place, data) for place, data in seen.places.items() if place.startswith(kind + " ") and data)
    label, secret = next(item for item in seen.secrets.items() if item[0].startswith("seed"))

    planted = data[: len(data) // 2] + secret.hex().encode() + data[len(data) // 2 :]

    assert seen.leaks.among([(place, planted)]) == {place: {f"{label} as lower hex"}}


@dataclass
class Evidence:
    """`secrets` by label; `places` that must hold none of them, `meant` places that may. `digests`: windows opened."""

    secrets: dict[str, bytes] = field(default_factory=dict, repr=False)
    digests: set[str] = field(default_factory=set, repr=False)
    places: dict[str, bytes] = field(default_factory=dict, repr=False)
    meant: dict[str, bytes] = field(default_factory=dict, repr=False)

    @cached_property
    def leaks(self) -> Leaks:
        return Leaks(self.secrets)

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """Every line that a daemon wrote; one that is no event of its log is an error here."""
        logs = [data for place, data in self.places.items() if place.startswith("log ")]
        return [json.loads(line) for data in logs for line in data.splitlines()]

    def note(self, key: Stek) -> None:
        """Look for a seed and for all that is ever derived from it."""
        name = key.name.hex()[:8]
        self.secrets[f"seed {name}"] = key.seed
        for scheme in Scheme:
            found = key.secrets(scheme)
            self.secrets |= {f"{scheme.value} aes {name}": found.aes, f"{scheme.value} hmac {name}": found.hmac}

    def read_files(self, directory: Path, when: str) -> None:
        """Read every file of a fleet. A log only grows, so its last reading is kept alone."""
        for path in directory.rglob("*"):
            with suppress(FileNotFoundError):
                if not path.is_file():
                    continue
                data, inside = path.read_bytes(), path.relative_to(directory)
                if path.name in _MEANT or inside.parts == (_STRANGER, _PASSWORD_FILE):
                    self.meant[str(inside)] = data
                elif path.suffix == ".log" and path.name.startswith(("agent", "scheduler")):
                    self.places[f"log {path.name}"] = data
                else:
                    self.places[f"file {inside} {when}"] = data


@pytest.fixture(scope="module")
def seen() -> Evidence:
    """All there was to see before, during and after one playing of the scene."""
    evidence = Evidence()
    with short_directory() as directory:
        fleet = OpenFleet(
            directory,
            (partial(HAProxy, exe=servers_found.wheel_haproxy()),),
            nodes=2,
            pace=HURRIED,
            store_exe=servers_found.wheel_valkey(),
        )
        operator = Operator(fleet)
        try:
            Scene(fleet, operator, evidence).play()
        finally:
            operator.store.close()
            fleet.close()
        evidence.read_files(directory, "afterwards")
    return evidence


@dataclass
class OpenFleet(Fleet):
    """A fleet whose daemons all serve their pages, on `ports` by the name of the configuration."""

    ports: dict[str, int] = field(default_factory=dict, init=False)

    def _configure(self, name: str, *, agent: LiveServer | None) -> Path:
        path = super()._configure(name, agent=agent)
        self.ports[name] = free_port()
        path.write_text(path.read_text().replace('listen = "off"', f'listen = "127.0.0.1:{self.ports[name]}"'))
        return path

    def start_stranger(self) -> None:
        """One more scheduler, with a password that the store does not know."""
        path = self._configure(_STRANGER, agent=None)
        password = path.with_name(_PASSWORD_FILE)
        password.write_text(PASSWORD)
        password.chmod(0o600)
        url = self.store_url
        named = url.replace("unix://", "unix://somebody@") + f"?password_file={password}"
        path.write_text(path.read_text().replace(f'"{url}"', f'"{named}"'))
        self._spawn("scheduler-3", "scheduler", path)

    def stop_store(self) -> None:
        assert self._store is not None
        self._store.stop()

    @property
    def pids(self) -> dict[str, int]:
        masters = {f"master of {node.name}": node._running.pid for node in haproxies(self)}
        workers = {node.name: node.pid for node in haproxies(self)}
        daemons = {name: child.pid for name, child in self.processes.items()}
        return {"store": self.store_pid, **masters, **workers, **daemons}


@dataclass
class Scene:
    """Every step ends when what it brings about was seen."""

    fleet: OpenFleet
    operator: Operator
    evidence: Evidence

    def play(self) -> None:
        fleet = self.fleet
        self._note_secrets()
        self._a_node_is_alone()
        fleet.start_store()
        with self._watching():
            fleet.start_scheduler(1)
            fleet.start_scheduler(2)
            fleet.start_agent(2)
            wait_until(fleet.servers[1].key_file.exists, "the second node has a key file")
            fleet.servers[1].start()
            self._in_step()
            self._say_after(fleet.start_stranger, "scheduler-3", "invalid username-password pair")
            self.operator.rotate()
            self._look("at rest")
            for happens in (
                self._windows_are_corrupted,
                self._rubbish_is_written,
                self._haproxy_hangs_and_dies,
                self._somebody_pushes_keys,
                self._secrets_are_mistaken,
                self._leader_dies_and_store_forgets,
                self._store_goes_away,
                self._keys_are_revoked,
            ):
                happens()
                self._look(f"when {happens.__name__.strip('_')}")

    # What happens.

    def _a_node_is_alone(self) -> None:
        node = haproxies(self.fleet)[0]
        self.fleet.start_agent(1)
        wait_until(node.key_file.exists, "a node alone writes keys of its own")
        for own in decode_lines(HAPROXY80, node.key_file.read_bytes()):
            name = own.name.hex()[:8]
            self.evidence.secrets |= {f"own key aes {name}": own.aes, f"own key hmac {name}": own.hmac}
        node.start()

    def _windows_are_corrupted(self) -> None:
        for broken in (_flipped, lambda window: window[:-100], lambda _: b"\xff" * 99):
            epoch = self.operator.window.epoch
            found = self.operator.store.window()
            assert found is not None
            with self._raw() as store:
                store.hset(_key("window"), mapping={"window": broken(found[1]), "digest": os.urandom(32).hex()})
            self.operator.store.wake()
            self._in_step(above=epoch)

    def _rubbish_is_written(self) -> None:
        with self._raw() as store:
            store.set(_key("beat"), b"keyrotd beat v1\n\x00\xff")
            store.hset(_key("reports"), mapping={"ghost": b"\xfe\xff", "node-9": b"keyrotd report v1\n"})
            store.hset(_key("requests"), mapping={"1": b"rotate, please"})
            store.hset(_key("offers"), mapping={"ab" * 32: b"keyrotd window v1\nring x\n"})
        self.operator.rotate()

    def _haproxy_hangs_and_dies(self) -> None:
        node = haproxies(self.fleet)[1]
        worker = node.pid
        self._say_after(lambda: os.kill(worker, signal.SIGSTOP), "agent-2", "gave no answer within")
        os.kill(worker, signal.SIGCONT)
        self._say_after(node.stop, "agent-2", "is HAProxy running")
        node.start()
        self._in_step()

    def _somebody_pushes_keys(self) -> None:
        node = haproxies(self.fleet)[0]
        old = node.key_file.read_text().splitlines()[0]
        self._say_after(lambda: node.ask(f"set ssl tls-key {node.key_file} {old}"), "agent-1", "drift.repaired")

    def _secrets_are_mistaken(self) -> None:
        kek, agent = self.fleet.directory / f"{RING}.kek", self.fleet.processes["agent-1"]
        right = kek.read_text()
        for wrong, words in (
            ((self.fleet.directory / "signing.key").read_text(), "want a KEK, found a signing key"),
            (right[:-9], "want 32 bytes in base64, found something else"),
        ):
            kek.write_text(wrong)
            self._say_after(lambda: agent.send_signal(signal.SIGHUP), "agent-1", words)
            self._print("scheduler")
        kek.write_text(right)
        self._say_after(lambda: agent.send_signal(signal.SIGHUP), "agent-1", "configuration.reloaded")

    def _leader_dies_and_store_forgets(self) -> None:
        epoch, leader = self.operator.window.epoch, self.operator.store.look().leader
        self.fleet.kill(next(name for name, child in self.fleet.processes.items() if f"-{child.pid}-" in leader))
        self.fleet.flush()
        self._in_step(above=epoch)

    def _store_goes_away(self) -> None:
        self._say_after(self.fleet.stop_store, "agent-1", "store.sock")
        self._print_all()
        self.fleet.start_store()
        self._in_step()
        self.operator.rotate()
        self._print_all()

    def _keys_are_revoked(self) -> None:
        epoch = self.operator.window.epoch
        self.operator.ask(Goal.REVOKE, epoch)
        self._in_step(above=epoch)
        assert self.operator.window.barrier > epoch

    def _in_step(self, *, above: int = 0) -> None:
        def claim() -> bool:
            with suppress(CorruptWindow, StoreUnavailable):
                return self.fleet.in_step(self.operator.store, above=above)
            return False

        wait_until(claim, f"all nodes are in step above epoch {above}", patience_s=30)

    def _say_after(self, act: Callable[[], object], name: str, words: str) -> None:
        log = self.fleet.directory / f"{name}.log"
        before = log.read_text().count(words) if log.exists() else 0
        act()
        wait_until(lambda: log.read_text().count(words) > before, f"{name} says: {words}")

    # What is seen.

    def _look(self, when: str) -> None:
        """Read all that anybody could read of a running fleet."""
        places = self.evidence.places
        for name, pid in self.fleet.pids.items():
            # Another user's environment is nobody's to read, and that is how it should be.
            with suppress(PermissionError, FileNotFoundError):
                places[f"argv of {name} {when}"] = Path(f"/proc/{pid}/cmdline").read_bytes()
                places[f"environ of {name} {when}"] = Path(f"/proc/{pid}/environ").read_bytes()
        for name, port in self.fleet.ports.items():
            for page in ("/metrics", "/livez", "/readyz", "/nothing"):
                with suppress(ConnectionRefusedError):
                    places[f"page {page} of {name} {when}"] = _page(port, page)
        with self._raw() as store:
            for key in store.scan_iter():
                places[f"DUMP {key!r} {when}"] = store.dump(key) or b""
                places[f"GET {key!r} {when}"] = _value(store, key)
        self.evidence.read_files(self.fleet.directory, when)

    def _print_all(self) -> None:
        for command in _TELLING:
            if command in COMMANDS:
                self._print(command)

    def _print(self, command: str) -> None:
        argv = [sys.executable, "-m", "keyrotd", command, "--config", str(self.fleet.config("s1"))]
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
        places = self.evidence.places
        places[f"printed by {command} {len(places)}"] = done.stdout + done.stderr

    def _note_secrets(self) -> None:
        directory, (kek,) = self.fleet.directory, self.fleet.keks
        self.evidence.secrets |= {
            "the KEK": kek.secret,
            "the reports' key": kek.derive("report", RING),
            "the signing key": secrets.read(directory / "signing.key", SigningKey)[0].secret,
            "the operator key": secrets.read(directory / "operator.key", OperatorKey)[0].secret,
            "the password": PASSWORD.encode(),
        }
        assert secrets.read(directory / f"{RING}.kek", Kek) == (kek,)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Open every window that ever stands in the store, and write down all that MONITOR tells."""
        stop = threading.Event()
        watchers = [threading.Thread(target=act, args=(stop,)) for act in (self._open_windows, self._monitor)]
        for watcher in watchers:
            watcher.start()
        try:
            yield
        finally:
            stop.set()
            for watcher in watchers:
                watcher.join()

    def _open_windows(self, stop: threading.Event) -> None:
        store, (kek,) = self.fleet.store(), self.fleet.keks
        while not stop.wait(0.01):
            with suppress(StoreUnavailable, CorruptWindow):
                window = self.fleet.window(store)
                if window is None or window.digest in self.evidence.digests:
                    continue
                for key in window.all:
                    if key.stek is not None:
                        self.evidence.note(key.stek)
                self.evidence.secrets[f"seal of {window.digest[:8]}"] = kek.derive("seal", RING, window.digest)
                self.evidence.digests.add(window.digest)
        store.close()

    def _monitor(self, stop: threading.Event) -> None:
        told = bytearray()
        while not stop.wait(0.01):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
                line.settimeout(0.2)
                line.connect(self._store_path)
                line.sendall(b"MONITOR\r\n")
                while not stop.is_set():
                    with suppress(TimeoutError):
                        said = line.recv(1 << 16)
                        told += said
                        if not said:
                            break
        self.evidence.places["MONITOR from the first to the last"] = bytes(told)

    @contextmanager
    def _raw(self) -> Iterator[Any]:
        with redis.Redis(unix_socket_path=self._store_path) as store:
            yield store

    @property
    def _store_path(self) -> str:
        return self.fleet.store_url.removeprefix("unix://")


def _key(name: str) -> str:
    return f"keyrotd:{{{RING}}}:{name}"


def _flipped(window: bytes) -> bytes:
    """The window with another letter in its last sealed seed."""
    letter = b"A" if window[-20:-19] != b"A" else b"B"
    return window[:-20] + letter + window[-19:]


def _page(port: int, path: str) -> bytes:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        line.request("GET", path)
        answer = line.getresponse()
        return str(answer.headers).encode() + answer.read()
    finally:
        line.close()


def _value(store: Any, key: bytes) -> bytes:
    match store.type(key):
        case b"string":
            parts = [store.get(key)]
        case b"hash":
            parts = [part for pair in store.hgetall(key).items() for part in pair]
        case kind:
            assert kind == b"list"
            parts = store.lrange(key, 0, -1)
    return b"\n".join(parts)
