"""An image by Debian's buildah on a base by mmdebstrap, and containers of it by runc: no engine, no registry."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyrotd.testing.children import start_child, wait_until
from tests import servers_found

CHECKOUT = Path(__file__).parents[2]
#: What the image's page calls its user.
USER = 65532

_NAMESPACES = ("pid", "mount", "ipc", "uts")  # the network is this machine's: tests ask from outside
_CAPABILITIES = ("bounding", "effective", "inheritable", "permitted", "ambient")
#: How a kernel or a container says that it lets nobody make containers.
_FORBIDDEN = re.compile(r"operation not permitted|permission denied|read-only file system|cgroup", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Image:
    """`root` is its file system, as plain files; `said` what the build printed."""

    root: Path
    config: dict[str, str | list[str]]
    said: str

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(path.lstat().st_size for path in self.root.rglob("*"))


def built(folder: Path) -> Image:
    """The image from this checkout, all of it below `folder`; skips the test where the machine forbids that."""
    for needed in (servers_found.buildah, servers_found.mmdebstrap, servers_found.runc):
        needed()
    allowed()
    _lay_out(folder / "context", folder / "wheels")
    script = Path(__file__).with_name("build.sh")
    said = _run(
        "unshare", "--mount", "--propagation=private", "sh", "-x", script, folder, folder / "context", folder / "wheels"
    )
    config = json.loads((folder / "image.json").read_text())["OCIv1"]["config"]
    return Image(root=folder / "root", config=config, said=said)


def allowed() -> None:
    """Skip the test unless this machine lets us make namespaces and mount in them."""
    probe = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"not run: this machine lets us make no container: {done.stderr.strip()}")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine's in a container; without a source, a tmpfs of the image's user."""

    destination: str
    source: Path | None = None
    writable: bool = True

    @property
    def oci(self) -> dict[str, str | list[str]]:
        if self.source is None:
            options = ["nosuid", "nodev", "noexec", "mode=0711", f"uid={USER}", f"gid={USER}"]
            return {"destination": self.destination, "type": "tmpfs", "source": "tmpfs", "options": options}
        options = ["bind", "nosuid", "nodev", "rw" if self.writable else "ro"]
        return {"destination": self.destination, "type": "bind", "source": str(self.source), "options": options}


class Runtime:
    """Containers of one image, as the page says to run them: its own user, a read-only root, no capability."""

    def __init__(self, image: Image, folder: Path) -> None:
        self._image, self._folder = image, folder
        self._states = folder / "runc"
        self._count = 0

    def run(self, *words: str, mounts: Sequence[Mount] = (), program: Sequence[str] = ()) -> "Ended":
        """Run to its end; `program` in place of the image's own."""
        argv = self._argv(words, mounts, program)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0 and "runc" in done.stderr and _FORBIDDEN.search(done.stderr):
            pytest.skip(f"not run: this machine lets runc make no container: {done.stderr.strip()[-300:]}")
        return Ended(code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    @contextmanager
    def running(self, *words: str, mounts: Sequence[Mount]) -> Iterator["Container"]:
        argv = self._argv(words, mounts, ())
        log = self._folder / f"{argv[-1]}.log"
        child = start_child(argv, log=log)
        container = Container(child=child, log=log, name=argv[-1], argv=(*argv[:3],))
        try:
            wait_until(lambda: container.pid != 0, f"{argv[-1]} runs")
            yield container
        finally:
            container.signal("KILL")
            child.wait(20)

    def _argv(self, words: Sequence[str], mounts: Sequence[Mount], program: Sequence[str]) -> list[str]:
        self._count += 1
        name = f"keyrotd-test-{os.getpid()}-{self._count}"
        bundle = self._folder / name
        bundle.mkdir()
        uid, gid = str(self._image.config["User"]).split(":")
        spec = {
            "ociVersion": "1.0.2",
            "root": {"path": str(self._image.root), "readonly": True},
            "process": {
                "user": {"uid": int(uid), "gid": int(gid)},
                "args": [*(program or self._image.config["Entrypoint"]), *(words or self._image.config["Cmd"])],
                "env": self._image.config["Env"],
                "cwd": "/",
                "noNewPrivileges": True,
                "capabilities": {kind: list[str]() for kind in _CAPABILITIES},
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]},
                *(mount.oci for mount in mounts),
            ],
            "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
        }
        (bundle / "config.json").write_text(json.dumps(spec))
        return ["runc", "--root", str(self._states), "run", "--bundle", str(bundle), name]


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Container:
    """A running one; `child` is the runc that waits for it, and ends with its exit code."""

    child: subprocess.Popen[bytes]
    log: Path
    name: str
    argv: tuple[str, ...]

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts; 0 while there is none."""
        done = subprocess.run([*self.argv, "state", self.name], capture_output=True, check=False)
        return int(json.loads(done.stdout)["pid"]) if done.returncode == 0 else 0

    def signal(self, name: str) -> None:
        subprocess.run([*self.argv, "kill", self.name, name], capture_output=True, check=False)

    def status(self) -> dict[str, str]:
        """What the kernel says of its first process."""
        rows = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {field: value.strip() for field, value in (row.split(":", 1) for row in rows)}

    def said(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def _lay_out(context: Path, wheels: Path) -> None:
    """What the Containerfile reads: a wheel of this checkout, the lock, and all that it locks, in the lock's hashes."""
    shutil.copytree(CHECKOUT / "deploy/container", context / "deploy/container")
    (context / "requirements").mkdir()
    lock = shutil.copy(CHECKOUT / "requirements/runtime.txt", context / "requirements")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", context / "dist", cwd=CHECKOUT)
    # For the Python of the base and not for this one: every requirement, whatever it depends on.
    everything = context / "everything.txt"
    everything.write_text(re.sub(r" ;[^\\]*", " ", Path(lock).read_text()))
    platforms = [f"--platform=manylinux_2_{minor}_{os.uname().machine}" for minor in (34, 28, 17)]
    wanted = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download")
    _run(*pip, *wanted, *platforms, "--dest", str(wheels), "--requirement", str(everything))


def _run(*argv: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280, check=False, cwd=cwd)
    assert done.returncode == 0, f"{argv[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
