"""`keyrotd doctor` before real stores and a real HAProxy, in health and with each thing wrong that it looks for."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from keyrotd.cli import exits, host
from keyrotd.cli.main import run
from keyrotd.config import load
from keyrotd.core.keys import Keys
from keyrotd.core.messages import Beat
from keyrotd.core.stek import Stek
from keyrotd.core.window import Window, bootstrap
from keyrotd.seal.keyfiles import Kek, SigningKey, make_secrets, parse
from keyrotd.seal.messages import sign_beat
from keyrotd.seal.window import seal_window
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.store import acl
from keyrotd.store.embedded import Embedded
from keyrotd.store.redis import RedisStore
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.haproxy import HAProxy
from tests import servers_found
from tests.contract.stores import answering, owner, running

RING = "edge"
PASSWORD = "for-tests-only"
MINUTE = 60_000


def now_at() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory and short: for sockets, sealed keys and key files."""
    where = Path("/dev/shm")
    if not host.place(where).in_memory:
        pytest.skip("no tmpfs at /dev/shm on this machine")
    with TemporaryDirectory(prefix="kd", dir=where) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def server(folder: Path, store_exe: Path) -> Iterator[Embedded]:
    with running(store_exe, folder / store_exe.name, data_dir=folder / store_exe.name / "data") as server:
        yield server


@dataclass
class Scene:
    """One ring of fresh secrets in a store that the test may spoil, and the configuration of who looks at it."""

    server: Embedded
    folder: Path
    state_dir: Path
    capsys: pytest.CaptureFixture[str]
    server_section: str = ""
    store_lines: str = ""
    url: str = ""
    config_mode: int = 0o600
    files: dict[str, str] = field(default_factory=lambda: make_secrets(RING, os.urandom), repr=False)

    def __post_init__(self) -> None:
        self.url = f"unix://{self.server.socket}"
        for name, text in self.files.items():
            self.write(name, text)

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.touch()
        path.chmod(mode)
        path.write_text(text)
        return path

    @property
    def config(self) -> Path:
        text = f"""\
runtime_dir = "{self.folder}/run"
state_dir = "{self.state_dir}"
[store]
url = "{self.url}"
timeout = "1s"
{self.store_lines}
[secrets]
signing_key_file = "signing.key"
verify_key_file = "verify.key"
operator_key_file = "operator.key"
operator_verify_key_file = "operator-verify.key"
[[ring]]
name = "{RING}"
kek_file = "{RING}.kek"
[scheduler]
tick_interval = "50ms"
lease_ttl = "3s"
{self.server_section}
"""
        return self.write("keyrotd.toml", text, self.config_mode)

    def publish(self, *, files: dict[str, str] | None = None, signed_at: int | None = None) -> Window:
        """What a leading scheduler leaves in the store, of another fleet's secrets if they are given."""
        texts = files or self.files
        signer = parse(texts["signing.key"], SigningKey, "signing.key")[0]
        keks = parse(texts[f"{RING}.kek"], Kek, f"{RING}.kek")
        policy = load(self.config).rings[0].policy
        window = bootstrap(
            ring=RING,
            epoch=1,
            barrier=0,
            fence=1,
            fresh=(Stek(os.urandom(32), RING), Stek(os.urandom(32), RING)),
            now_at=now_at(),
            terms=policy.terms(now_at()),
        )
        beat = Beat(
            ring=RING, epoch=1, digest=window.digest, confirmed_at=None, signed_at=signed_at or now_at() + MINUTE // 60
        )
        with owner(self.server) as redis:
            redis.flushall()
        store = RedisStore(load(self.config).store.address, ring=RING, namespace="keyrotd", timeout_ms=5_000)
        desk = store.lead(holder="scheduler-1", ttl_ms=60_000, fence_above=0, known_digest="")
        assert desk.fence is not None
        sealed = seal_window(window, keks=keks, signer=signer, rand=os.urandom)
        store.publish(window=sealed, digest=window.digest, epoch=1, fence=desk.fence, parent="")
        assert store.beat(beat=sign_beat(beat, signer), fence=desk.fence)
        store.report(node="edge-1", report=b"unread")
        store.close()
        return window

    def doctor(self, *args: str) -> tuple[int, dict[str, str], str]:
        """The exit code, the worst verdict of each check, and all that was said; never a password."""
        self.capsys.readouterr()
        code = run(["doctor", "--config", str(self.config), "--json", *args])
        told = self.capsys.readouterr()
        assert told.err == ""
        assert PASSWORD not in told.out
        document: dict[str, Any] = json.loads(told.out)
        worst: dict[str, str] = {}
        for section in document["sections"]:
            for finding in section["findings"]:
                worst[finding["check"]] = max(worst.get(finding["check"], "ok"), finding["verdict"], key=_ORDER.index)
        assert document["healthy"] is (code == exits.DONE)
        assert document["store_away"] is (code == exits.STORE_AWAY)
        return code, worst, told.out


_ORDER = ["ok", "note", "grave"]


def graves(worst: dict[str, str]) -> list[str]:
    return [check for check, verdict in worst.items() if verdict == "grave"]


@pytest.fixture
def scene(server: Embedded, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    if host.place(tmp_path).in_memory:
        pytest.skip("no disk for temporary directories on this machine")
    (folder / "run").mkdir(exist_ok=True, mode=0o700)
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    with owner(server) as redis:
        before = redis.config_get("*")
    scene = Scene(server, folder, state_dir, capsys)
    scene.publish()
    yield scene
    with owner(server) as redis:
        for name in ("maxmemory", "maxmemory-policy", "maxclients", "appendonly", "save"):
            redis.config_set(name, before[name])
        redis.execute_command("ACL", "SETUSER", "default", "nopass")


def as_user(scene: Scene, role: str) -> None:
    with owner(scene.server) as redis:
        for line in acl.lines("keyrotd", [RING]):
            redis.execute_command(*line.split(" "))
        redis.execute_command("ACL", "SETUSER", f"keyrotd-{role}", f">{PASSWORD}")
    password_file = scene.folder / "store.password"
    password_file.touch(mode=0o600)
    password_file.write_text(PASSWORD)
    scene.url = f"unix://keyrotd-{role}@{scene.server.socket}?password_file={password_file}"


def test_a_store_that_is_set_up_well_has_nothing_grave(scene: Scene) -> None:
    as_user(scene, "scheduler")

    code, worst, said = scene.doctor("--role", "scheduler")

    assert (code, graves(worst)) == (exits.DONE, []), said
    assert {check: worst[check] for check in worst if check.startswith(("store.", "ring."))} == {
        "store.reached": "ok",
        "store.version": "ok",
        "store.eviction": "ok",
        "store.persistence": "ok",
        "store.clients": "ok",
        "store.replicas": "ok",
        "store.tls": "ok",
        "store.user": "ok",
        "store.clock": "ok",
        "ring.beat": "ok",
        "ring.window": "ok",
        "ring.kek": "ok",
    }
    assert "1 report may take" in said


@pytest.mark.parametrize("role", ["agent", "operator"])
def test_whoever_has_few_rights_sees_the_ring_and_says_what_it_cannot_see(scene: Scene, role: str) -> None:
    as_user(scene, role)

    _, worst, said = scene.doctor("--role", role)

    assert (worst["ring.beat"], worst["ring.window"], worst["store.user"]) == ("ok", "ok", "ok")
    assert ("store.info" in worst) is (role == "agent")
    assert "NOPERM" not in said


def test_a_store_that_is_set_up_badly_is_told_so(scene: Scene) -> None:
    with owner(scene.server) as redis:
        redis.config_set("maxmemory", 100_000_000)
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.config_set("appendonly", "no")
        redis.config_set("save", "")
        redis.config_set("maxclients", 12)
    scene.store_lines = "wait_replicas = 1"

    code, worst, said = scene.doctor()

    assert code == exits.FAILED
    assert graves({check: worst[check] for check in worst if check.startswith("store.")}) == [
        "store.eviction",
        "store.clients",
        "store.replicas",
    ]
    assert (worst["store.persistence"], worst["store.user"]) == ("note", "note")
    assert "a restart empties it" in said
    assert "user default is free to empty the store" in said


def test_an_agent_that_speaks_as_the_owner_is_told_what_it_could_do(scene: Scene) -> None:
    _, worst, said = scene.doctor("--role", "agent")

    assert worst["store.user"] == "note"
    assert "replace windows, take the lease, hand in requests" in said


def test_looking_changes_nothing_in_the_store(scene: Scene) -> None:
    def everything() -> dict[bytes, bytes]:
        with owner(scene.server) as redis:
            return {key: redis.dump(key) for key in redis.keys("*")}

    before = everything()
    scene.doctor("--role", "agent")

    assert everything() == before


def test_a_window_of_another_fleet_is_grave(scene: Scene) -> None:
    scene.publish(files=make_secrets(RING, os.urandom))

    code, worst, said = scene.doctor()

    assert code == exits.FAILED
    assert worst["ring.proof"] == "grave"
    assert "ring.window" not in worst
    assert "the stored window: window: signed by key" in said


def test_another_rings_kek_is_grave_and_an_empty_store_too(scene: Scene) -> None:
    scene.write(f"{RING}.kek", make_secrets(RING, os.urandom)[f"{RING}.kek"])
    assert scene.doctor()[1]["ring.proof"] == "grave"

    with owner(scene.server) as redis:
        redis.flushall()
    code, worst, _ = scene.doctor()

    assert code == exits.FAILED
    assert (worst["ring.window"], worst["ring.beat"]) == ("grave", "grave")


def test_a_beat_that_stands_still_is_looked_at_twice_and_grave(scene: Scene) -> None:
    scene.publish(signed_at=now_at() - 10 * MINUTE)

    code, worst, said = scene.doctor()

    assert (code, worst["ring.beat"]) == (exits.FAILED, "grave")
    assert "the beat stands still" in said


def test_a_store_that_is_away_hides_nothing_else(scene: Scene) -> None:
    scene.url = f"unix://{scene.folder}/nowhere.sock"
    scene.write("signing.key", scene.files["signing.key"], mode=0o644)

    code, worst, said = scene.doctor()

    assert code == exits.STORE_AWAY
    assert worst["store.reached"] == "grave"
    assert worst["host.secrets"] == "grave"
    assert "was not looked at: the store is away" in said


@pytest.mark.parametrize(
    "reply", [b":5\r\n", b"+OK\r\n", b"%1\r\n+flags\r\n:3\r\n", b"-ERR no\r\n", b"*1\r\n$1\r\nx\r\n"]
)
def test_a_store_of_ill_will_makes_findings_and_no_crash(scene: Scene, reply: bytes) -> None:
    with answering(reply) as where:
        scene.url = f"redis://{where.host}:{where.port}"
        code, _, _ = scene.doctor()

    assert code in (exits.FAILED, exits.STORE_AWAY)


def test_a_careless_host_is_told_so(scene: Scene) -> None:
    as_user(scene, "agent")
    scene.config_mode = 0o664
    key_file = scene.state_dir / "h.keys"
    key_file.touch(mode=0o644)
    for directory in (scene.folder / "run", scene.state_dir):
        directory.chmod(0o777)
    scene.server_section = section(Path("/nowhere.sock"), key_file)

    code, worst, _ = scene.doctor("--role", "agent")

    (scene.folder / "run").chmod(0o700)
    assert code == exits.FAILED
    assert [check for check in graves(worst) if check.startswith(("host.", "server."))] == [
        "host.config",
        "host.runtime_dir",
        "host.state_dir",
        "server.observed",
        "server.key_file",
    ]


# HAProxy.


def section(socket: Path, key_file: Path, *, name: str = "haproxy", probe: str = "") -> str:
    proof = f'probe = "{probe}"\nsni = "localhost"\n' if probe else ""
    return f"""
[[server]]
name = "{name}"
ring = "{RING}"
driver = "haproxy"
socket = "{socket}"
key_file = "{key_file}"
{proof}"""


class AsksForCertificates(HAProxy):
    """Its first listener hides all that it can behind TLS 1.3: it asks for certificates, and takes early data."""

    @property
    def config(self) -> str:
        ca = self.certificate.with_name("ca.pem")
        options = f"ssl-min-ver TLSv1.3 allow-0rtt verify optional ca-file {ca}"
        return super().config.replace(f"{self.key_file}\n", f"{self.key_file} {options}\n")


@pytest.fixture(scope="module")
def haproxy(folder: Path) -> Iterator[HAProxy]:
    """Two listeners, each with a key file; the first asks for certificates."""
    _, site = new_authority(datetime.now(UTC)).write(folder)
    second = folder / "second.keys"
    found = AsksForCertificates("a", servers_found.wheel_haproxy(), folder / "a", site, extra_key_files=(second,))
    keys = Keys(current=Stek(os.urandom(32), RING), next=Stek(os.urandom(32), RING))
    for file in (found.key_file, second):
        with pytest.raises(Exception, match="does not exist"):
            HAProxyDriver(name="cold", socket=(found.socket,), key_file=(file,)).install(keys)
    found.start()
    yield found
    found.stop()


def install(window: Window, haproxy: HAProxy, *files: Path) -> None:
    assert window.current.stek is not None
    assert window.next.stek is not None
    keys = Keys(current=window.current.stek, next=window.next.stek)
    HAProxyDriver(name="a", socket=(haproxy.socket,), key_file=files).install(keys)


def test_a_server_with_the_rings_keys_has_nothing_grave(scene: Scene, haproxy: HAProxy) -> None:
    (second,) = haproxy.extra_key_files
    install(scene.publish(), haproxy, second)
    scene.server_section = section(haproxy.socket, second, probe=f"127.0.0.1:{haproxy.ports[1]}")

    code, worst, said = scene.doctor("--role", "agent")

    assert (code, graves(worst)) == (exits.DONE, []), said
    assert (worst["server.keys"], worst["server.slots"], worst["server.key_file"]) == ("ok", "ok", "ok")
    assert (worst["probe.tickets"], worst["probe.lifetime"], worst["probe.client_certificates"]) == ("ok", "ok", "ok")
    assert worst["probe.early_data"] == "ok"
    assert "issues tickets that resume, under the ring's current key" in said
    assert (worst["server.unmanaged"], worst["server.unseen"]) == ("note", "note")
    assert f"does not manage: {haproxy.key_file}" in said


def test_listeners_of_one_ring_must_agree_on_client_certificates(scene: Scene, haproxy: HAProxy) -> None:
    (second,) = haproxy.extra_key_files
    install(scene.publish(), haproxy, haproxy.key_file, second)
    both = zip(("asking", "open"), (haproxy.key_file, second), haproxy.ports, strict=True)
    scene.server_section = "".join(
        section(haproxy.socket, file, name=name, probe=f"127.0.0.1:{port}") for name, file, port in both
    )

    code, worst, said = scene.doctor("--role", "agent")

    assert (code, graves(worst)) == (exits.FAILED, ["probe.client_certificates"]), said
    assert "asking asks for client certificates, open of the same ring does not" in said
    assert worst["server.unmanaged"] == "ok"
    assert worst["probe.early_data"] == "note"
    assert f"127.0.0.1:{haproxy.port}: its tickets allow 15360 bytes of early data" in said


def test_a_server_that_the_ring_left_behind_is_grave(scene: Scene, haproxy: HAProxy) -> None:
    (second,) = haproxy.extra_key_files
    install(scene.publish(), haproxy, second)
    scene.publish()  # the ring goes on, this server has no agent
    scene.server_section = section(haproxy.socket, second, probe=f"127.0.0.1:{haproxy.ports[1]}")

    code, worst, said = scene.doctor("--role", "agent")

    assert code == exits.FAILED
    assert (worst["server.keys"], worst["probe.tickets"]) == ("grave", "grave")
    assert "which is not in the ring's window" in said
