"""
The runbook, run: every long-lived key of a live fleet is changed under load, and afterwards the old one is refused.

Its commands are taken from docs/runbook.md as they stand there. What it calls `distribute` is done as hosts differ:
plain files and SIGHUP, a mount as Kubernetes makes it and no signal, credentials as systemd hands them out.
"""

import os
import random
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from keyrotd import secrets
from keyrotd.cli import exits
from keyrotd.cli.main import run
from keyrotd.core.errors import CorruptWindow
from keyrotd.core.messages import Beat, Goal, NodeState, Report, Request
from keyrotd.core.window import MAX_ANCESTORS, Window
from keyrotd.seal.keyfiles import K, Kek, Keks, OperatorKey, SigningKey, VerifyKey
from keyrotd.seal.messages import sign_beat, sign_request, write_report
from keyrotd.seal.window import seal_window
from keyrotd.store.redis import RedisStore
from keyrotd.testing.children import wait_until
from keyrotd.testing.clients import Clients
from keyrotd.testing.fleet import RING, Fleet
from keyrotd.testing.haproxy import HAProxy
from keyrotd.tls.handshake import Version
from tests import servers_found
from tests.scenes import HURRIED, now_at, short_directory, started

RUNBOOK = Path(__file__).parents[2] / "docs/runbook.md"

#: The ring is called so in the runbook.
WRITTEN = "edge"
PACE = replace(HURRIED, ticket_lifetime="2s")
KINDS = {"A KEK": "kek", "The signing key": "signing", "An operator key": "operator"}
MOUNT_GROUP = 2000


def blocks() -> dict[str, list[str]]:
    """Every command of the runbook, by the title that it stands under."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"(?m)^### ", RUNBOOK.read_text("utf-8"))[1:]:
        title, _, text = part.partition("\n")
        for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", text):
            found.setdefault(title, []).extend(block.replace(WRITTEN, RING).splitlines())
    return found


@dataclass
class Host:
    """One host's key files, as its way of getting secrets has them, and who reads them."""

    folder: Path
    wanted: tuple[str, ...]
    reload: Callable[[], None] = lambda: None

    def take(self, texts: dict[str, str]) -> None:
        """Replace the files that this host has, then reload."""
        for name, text in texts.items():
            if name in self.wanted:
                self.put(name, text)
        self.reload()

    def put(self, name: str, text: str) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        _write(self.folder / f"{name}.new", text, 0o600)
        (self.folder / f"{name}.new").rename(self.folder / name)


class CredentialHost(Host):
    """systemd: the service user's own files, 0400, in a folder that nobody may write to."""

    def put(self, name: str, text: str) -> None:
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o700)
        _write(self.folder / f"{name}.new", text, 0o400)
        (self.folder / f"{name}.new").rename(self.folder / name)
        self.folder.chmod(0o500)


class MountHost(Host):
    """The kubelet: a folder for each version of all files, behind a link that is turned. Nobody sends a signal."""

    def take(self, texts: dict[str, str]) -> None:
        self.folder.mkdir(exist_ok=True)
        before = sorted(self.folder.glob("..[0-9]*"))
        version = self.folder / f"..{len(before)}"
        shutil.copytree(before[-1], version) if before else version.mkdir()
        for name in self.wanted:
            if name in texts:
                (version / name).unlink(missing_ok=True)
                _write(version / name, texts[name], 0o440)
            if not before:
                (self.folder / name).symlink_to(f"..data/{name}")
        (self.folder / "..new").symlink_to(version.name)
        (self.folder / "..new").rename(self.folder / "..data")
        if os.geteuid() == 0:
            for path in (self.folder, version, *version.iterdir()):
                os.chown(path, 0, MOUNT_GROUP)
            version.chmod(0o2755)
            self.folder.chmod(0o3777)


def _write(path: Path, text: str, mode: int) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)


@dataclass
class Site(Fleet):
    """A fleet each of whose daemons has key files of its own; `directory` has everybody's, as its operator's host."""

    hosts: dict[str, Host] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.amend = self._settled

    @property
    def credentials(self) -> Path:
        return self.directory / "credentials"

    @property
    def admin(self) -> Path:
        return self.directory / "admin.toml"

    @property
    def verifiers(self) -> tuple[VerifyKey, ...]:
        return secrets.read(self.directory / "verify.key", VerifyKey)

    @property
    def keks(self) -> Keks:
        return secrets.read(self.directory / f"{RING}.kek", Kek)

    def window(self, store: RedisStore) -> Window | None:
        """None also while a thief's stands."""
        with suppress(CorruptWindow):
            return super().window(store)
        return None

    def texts(self, *names: str) -> dict[str, str]:
        return {name: (self.directory / name).read_text() for name in names}

    def _settled(self, name: str, text: str) -> str:
        """Give a daemon files of its own before it starts, and name them in its configuration."""
        wanted = (f"{RING}.kek", "verify.key", *(("signing.key", "operator-verify.key") if name[0] == "s" else ()))
        folder = self.directory / name / "secrets"
        hosts = {
            "s1": CredentialHost(self.credentials, wanted, lambda: self._hang_up("scheduler-1")),
            "s2": MountHost(folder, wanted),
            "a1": Host(folder, wanted, lambda: self._hang_up("agent-1")),
            "a2": MountHost(folder, wanted),
        }
        self.hosts[name] = hosts[name]
        named = "$CREDENTIALS_DIRECTORY" if name == "s1" else folder
        if name == "s1":
            self.admin.write_text(text)
        for file in ("signing.key", "verify.key", "operator.key", "operator-verify.key", f"{RING}.kek"):
            text = text.replace(f'"{self.directory}/{file}"', f'"{named}/{file}"')
        self.hosts[name].take(self.texts(*wanted))
        return text

    def _hang_up(self, name: str) -> None:
        if name in self.processes:  # else it is about to start
            self.processes[name].send_signal(signal.SIGHUP)

    @property
    def pids(self) -> dict[str, int]:
        daemons = {name: child.pid for name, child in self.processes.items()}
        assert all(child.poll() is None for child in self.processes.values())
        return {**daemons, **{node.name: node.pid for node in self.servers}}

    def says(self, words: str, *, daemons: str) -> bool:
        """Whether one of these daemons logged it."""
        logs = self.directory.glob(f"{daemons}-*.log")
        return any(words in log.read_text(errors="replace") for log in logs)


@dataclass(frozen=True)
class Person:
    """Who follows the runbook, to the letter."""

    site: Site
    capsys: pytest.CaptureFixture[str]

    def follow(self, lines: list[str]) -> None:
        for at, line in enumerate(lines):
            words = shlex.split(line)
            match words[0]:
                case "keyrotd":
                    self.insist(words[1:])
                case "distribute":
                    self._hurry(lines[at + 1 :])
                    self.distribute(words[1], words[2:])
                case _:
                    pytest.fail(f"the runbook has a command that this test cannot run: {line}")

    def insist(self, args: list[str]) -> None:
        """A stage or a rotation that refuses is repeated, as the runbook says."""

        def done() -> bool:
            self.capsys.readouterr()
            return run(args) == exits.DONE

        wait_until(done, f"keyrotd {' '.join(args)}", patience_s=60)

    def distribute(self, name: str, whom: list[str]) -> None:
        for host, takes in self.site.hosts.items():
            if {"s": "schedulers", "a": "agents"}[host[0]] in whom:
                takes.take(self.site.texts(name))

    def _hurry(self, rest: list[str]) -> None:
        """The next stage refuses while the file was not distributed, and changes nothing."""
        following = next((shlex.split(line)[1:] for line in rest if " rekey " in line), None)
        if following is None or following[1:3] == ["operator", "retire"]:  # nobody can know who has an operator key
            return
        before = self.site.texts("signing.key", "verify.key", "operator.key", "operator-verify.key", f"{RING}.kek")
        self.capsys.readouterr()

        assert run(following) == exits.FAILED

        told = self.capsys.readouterr().err
        assert f"is not {following[2]}d, nothing was changed: " in told
        assert before == self.site.texts(*before)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        site = Site(
            directory,
            (partial(HAProxy, exe=servers_found.wheel_haproxy()),),
            nodes=2,
            pace=PACE,
            store_exe=servers_found.wheel_valkey(),
        )
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(site.credentials))
        monkeypatch.setenv("KEYROTD_CONFIG", str(site.admin))
        stack.callback(lambda: site.credentials.chmod(0o700))
        stack.enter_context(started(site))
        yield site


@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_key_is_changed_under_load_and_the_old_ones_are_refused(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    person, lines = Person(site, capsys), blocks()
    pids, old = site.pids, Keys.of(site)
    clients = Clients(
        targets=site.targets,
        ticket_lifetime_ms=2_000,
        trust=site.trust,
        sni="localhost",
        now=now_at,
        rand=random.Random(1),
        versions=(Version.TLS12, Version.TLS13),
    )

    with clients.hammering(threads=2):
        for title in KINDS:
            person.follow(lines.pop(title))
        new = Keys.of(site)
        wait_until(lambda: run(["status"]) == exits.DONE, "all is well", patience_s=60)
        Thief(site, old, new).tries_everything()

    with capsys.disabled():
        print(f"\n{clients.tally}")
    assert (clients.orphans, clients.stories, clients.tally.failed) == ([], [], 0)
    assert clients.tally.resumed > 100
    assert site.pids == pids
    assert not {old.kek.id, old.signer.id, old.operator.id} & {new.kek.id, new.signer.id, new.operator.id}
    assert [len(site.keks), len(site.verifiers)] == [1, 1]
    site.stop("agent-1")
    site.start_agent(1)
    wait_until(lambda: site.says("cache.restored", daemons="agent"), "an agent's cache opens under the new keys")


@pytest.mark.timeout(200)
def test_after_a_leak_the_kek_goes_first_and_then_every_ticket_key(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    person, old = Person(site, capsys), Keys.of(site)
    store = site.store()
    before = site.window(store)
    assert before is not None

    person.follow(blocks()["After a KEK leaked"])

    after = site.window(store)
    store.close()
    assert after is not None
    assert after.barrier > before.epoch
    assert not {key.name for key in before.all} & {key.name for key in after.all}
    assert old.kek not in site.keks


def test_the_runbook_has_no_command_that_is_not_run() -> None:
    assert set(blocks()) == {*KINDS, "After a KEK leaked"}


@dataclass(frozen=True)
class Keys:
    """The first of each file: what seals and signs."""

    kek: Kek
    signer: SigningKey
    operator: OperatorKey

    @classmethod
    def of(cls, site: Site) -> "Keys":
        def first(name: str, kind: type[K]) -> K:
            return secrets.read(site.directory / name, kind)[0]

        return cls(first(f"{RING}.kek", Kek), first("signing.key", SigningKey), first("operator.key", OperatorKey))


@dataclass(frozen=True)
class Thief:
    """Has every old key, writes to the store as he likes, and even knows the fleet's new keys where that is harder."""

    site: Site
    old: Keys
    new: Keys

    def tries_everything(self) -> None:
        self._a_window(kek=self.old.kek, signer=self.new.signer, words=f"is sealed with KEK {self.old.kek.id}")
        self._a_window(kek=self.new.kek, signer=self.old.signer, words=f"window: signed by key {self.old.signer.id}")
        self._a_beat()
        self._a_report()
        self._an_order()

    def _a_window(self, *, kek: Kek, signer: SigningKey, words: str) -> None:
        """The next window, right in all but one key."""
        store = self.site.store()
        planted: list[Window] = []

        def plant() -> None:
            """As often as it takes: the leader's own publish may come first, and its mend before an agent polls."""
            look, window = store.look(), self.site.window(store)
            if window is None:
                return  # the last one still stands
            ancestors = (window.digest, *window.ancestors)[:MAX_ANCESTORS]
            made = replace(window, epoch=window.epoch + 1, fence=look.fence, ancestors=ancestors)
            sealed = seal_window(made, keks=(kek,), signer=signer, rand=os.urandom)
            planted.append(made)
            store.publish(window=sealed, digest=made.digest, epoch=made.epoch, fence=look.fence, parent=look.digest)

        def refused(daemons: str) -> bool:
            said = self.site.says(words, daemons=daemons)
            if not said:
                plant()
            return said

        wait_until(lambda: refused("agent"), f"agents refuse a window: {words}")
        wait_until(lambda: refused("scheduler"), f"the leader refuses a window: {words}")
        last = planted[-1].epoch - 1
        wait_until(lambda: self.site.in_step(store, above=last), "the leader mends", patience_s=60)
        found = self.site.window(store)
        assert found is not None
        assert not {made.digest for made in planted} & {*found.ancestors}
        store.close()

    def _a_beat(self) -> None:
        store = self.site.store()
        words = f"beat: signed by key {self.old.signer.id}"

        def refused() -> bool:
            look = store.look()
            beat = Beat(ring=RING, epoch=1, digest=look.digest, confirmed_at=now_at(), signed_at=now_at())
            store.beat(
                beat=sign_beat(beat, self.old.signer), fence=look.fence
            )  # until an agent polls between two beats
            return self.site.says(words, daemons="agent")

        wait_until(refused, "agents refuse a beat")
        store.close()

    def _a_report(self) -> None:
        store = self.site.store()
        ghost = Report(
            ring=RING,
            node="ghost",
            counter=1,
            reported_at=now_at(),
            state=NodeState.BEHIND,
            steps=0,
            epoch=1,
            holds=None,
            read_back=None,
            floor=0,
            barrier=0,
            poll_interval_ms=1_000,
            servers=(),
        )
        store.report(node="ghost", report=write_report(ghost, (self.old.kek,)))
        words = f"a report in the name of ghost is under KEK {self.old.kek.id}"
        wait_until(lambda: self.site.says(words, daemons="scheduler"), "the leader refuses a report")
        store.close()

    def _an_order(self) -> None:
        store = self.site.store()
        request = Request(
            ring=RING,
            goal=Goal.REVOKE,
            past_epoch=10**6,
            drop_live_keys=True,
            who="thief",
            reason="because",
            made_at=now_at(),
        )
        store.request(id="thief", request=sign_request(request, self.old.operator))
        words = f"request: signed by key {self.old.operator.id}"
        wait_until(lambda: self.site.says(words, daemons="scheduler"), "the leader refuses an order")
        window = self.site.window(store)
        store.close()
        assert window is not None
        assert window.barrier == 0
