"""Real nginx processes whose key file is in our hands, windows to give them, and clients who look what they do."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from keyrotd.core.keys import Tenure
from keyrotd.core.stek import Stek
from keyrotd.servers import acks, files, keyfile, layouts
from keyrotd.testing.children import wait_until
from keyrotd.testing.nginx import Nginx
from keyrotd.tls.handshake import Fault, Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.target import Target
from tests.scenes import now_at

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

WORKERS = 2

BOTH_VERSIONS = (Version.TLS12, Version.TLS13)


@dataclass(frozen=True)
class Window:
    """A key file to be: `keys[0]` seals, all open. Bounds are ms of the boot clock."""

    keys: tuple[Stek, ...]
    epoch: int = 1
    step: int = 0
    seals_until_ms: int | None = None
    opens_until_ms: int | None = None
    boot_id: str = BOOT_ID

    def rotated(self, keep: int = 3) -> "Window":
        """The next window: the second key seals, a fresh one comes second, and `keep` keys are left in all."""
        first, second, *previous = self.keys
        keys = (second, new_key(), first, *previous)
        return replace(self, keys=keys[:keep], epoch=self.epoch + 1)

    def bounded(self, *, seals_ms: int, opens_ms: int) -> "Window":
        """The same keys, with so long to seal and to open from now on."""
        now_ms = boot_ms()
        return replace(self, seals_until_ms=now_ms + seals_ms, opens_until_ms=now_ms + opens_ms)

    @property
    def names(self) -> set[bytes]:
        return {key.name for key in self.keys}

    @property
    def content(self) -> bytes:
        layout = layouts.NGINX80
        tenure = Tenure(
            boot_id=self.boot_id,
            epoch=self.epoch,
            step=self.step,
            seals_until_ms=self.seals_until_ms,
            opens_until_ms=self.opens_until_ms,
        )
        secrets = tuple(key.secrets(layout.scheme) for key in self.keys)
        return keyfile.KeyFile(layout=layout, keys=secrets, tenure=tenure).encode()

    @property
    def digest(self) -> str:
        return keyfile.digest(self.content)


def boot_ms() -> int:
    """What the key file counts in."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def new_key() -> Stek:
    return Stek(os.urandom(32), "test")


def new_window() -> Window:
    return Window((new_key(), new_key()))


@dataclass
class Site:
    """One nginx, and its key file in our hands."""

    nginx: Nginx

    @property
    def targets(self) -> tuple[Target, ...]:
        """http, http on another port, stream."""
        return tuple(Target("127.0.0.1", port) for port in self.nginx.ports)

    @property
    def key_file(self) -> Path:
        return self.nginx.key_file

    def start(self) -> None:
        """Return once every worker has looked."""
        self.nginx.start()
        wait_until(lambda: len(self.acks()) == WORKERS, f"{self.nginx.name} has {WORKERS} workers")

    def install(self, window: Window) -> int:
        """Write it and wait for every worker; how long the last one took, in ms."""
        began_at = now_at()
        self.write(window.content)
        self.wait_for(window)
        return now_at() - began_at

    def write(self, content: bytes, mode: int = 0o644) -> None:
        files.write(self.key_file, content, files.Access(mode=mode))

    def wait_for(self, window: Window) -> None:
        wait_until(
            lambda: [ack.digest for ack in self.acks()] == [window.digest] * WORKERS,
            f"{self.nginx.name} has epoch {window.epoch}",
        )

    def wait_for_fault(self, fault: str | None) -> None:
        wait_until(lambda: [ack.fault for ack in self.acks()] == [fault] * WORKERS, f"{self.nginx.name} says {fault}")

    def wait_for_polls(self) -> None:
        """Three more of each worker."""
        since = {ack.pid: ack.touched_at for ack in self.acks()}
        wait_until(
            lambda: all(ack.touched_at >= since[ack.pid] + 3 * ack.poll_ms for ack in self.acks()), "three more polls"
        )

    def acks(self) -> tuple[acks.Ack, ...]:
        """What processes that exist have said."""
        found = acks.living(self.nginx.ack_dir, now_at())
        return tuple(ack for ack in found if Path(f"/proc/{ack.pid}").exists())

    @property
    def workers(self) -> tuple[int, ...]:
        """Who has said something."""
        return tuple(ack.pid for ack in self.acks())


@dataclass
class Client:
    """One client: visits a server for a ticket, and offers it elsewhere."""

    trust: Trust
    version: Version

    def __post_init__(self) -> None:
        self._context = client_context(self.version, self.trust)

    def visit(self, target: Target, sni: str = "localhost") -> Handshake:
        return _shaken(visit(target, self._context, sni=sni, timeout_ms=5000))

    def sealed_by(self, target: Target, sni: str = "localhost") -> bytes | None:
        """The name of the key that sealed its ticket."""
        return self.visit(target, sni).key_name

    def resumes(self, shake: Handshake, target: Target, sni: str = "localhost") -> bool:
        return self.resume(shake, target, sni).resumed

    def resume(self, shake: Handshake, target: Target, sni: str = "localhost") -> Handshake:
        assert shake.session is not None, "no ticket came"
        return _shaken(resume(target, self._context, shake.session, sni=sni, timeout_ms=5000))


def accidents(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    # Whoever kills a worker means it.
    return [
        line
        for line in lines
        if ("[alert]" in line and "exited on signal 9" not in line) or "the reader itself failed" in line
    ]


def _shaken(answer: Handshake | Fault) -> Handshake:
    assert isinstance(answer, Handshake), answer
    return answer
