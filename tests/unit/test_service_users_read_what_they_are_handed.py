"""A daemon without privileges reads what Kubernetes and systemd hand it, and another user on the machine does not."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrotd.seal.keyfiles import make_secrets
from tests.scenes import short_directory
from tests.vectors.make import fixed

TEXT = make_secrets("edge", lambda length: fixed("secrets", length))["edge.kek"]
SERVICE, STRANGER, FS_GROUP = 1000, 1001, 2000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that everybody may enter, as /run is."""
    with short_directory() as directory:
        directory.chmod(0o755)
        yield directory


def told(path: Path, user: int) -> str:
    """What a process of `user`, in the pod's group if it is the service, is told of `path`."""
    script = """\
import os, sys
from pathlib import Path
from keyrotd import secrets
from keyrotd.core.errors import ConfigError
from keyrotd.seal.keyfiles import Kek
os.setgroups([int(sys.argv[3])] if sys.argv[3] else [])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    print(len(secrets.read(Path(sys.argv[1]), Kek)))
except ConfigError as refused:
    print(str(refused).removeprefix(sys.argv[1]))
"""
    groups = str(FS_GROUP) if user == SERVICE else ""
    argv = [sys.executable, "-c", script, str(path), str(user), groups]
    return subprocess.run(argv, capture_output=True, check=True, text=True).stdout.strip()


def put(path: Path, *, owner: int, group: int, mode: int) -> Path:
    path.write_text(TEXT)
    os.chown(path, owner, group)
    path.chmod(mode)
    return path


def test_a_kubernetes_secret_is_read_by_the_pod_s_user(open_directory: Path) -> None:
    mount = open_directory / "secrets"
    version = mount / "..2026"
    version.mkdir(parents=True)
    put(version / "kek", owner=0, group=FS_GROUP, mode=0o440)
    (mount / "..data").symlink_to("..2026")
    (mount / "kek").symlink_to("..data/kek")
    mount.chmod(0o3777)

    assert told(mount / "kek", SERVICE) == "1"
    assert told(mount / "kek", STRANGER) == ": cannot be read: permission denied"


def test_a_credential_of_the_service_user_is_read(open_directory: Path) -> None:
    folder = open_directory / "credentials"
    folder.mkdir()
    kek = put(folder / "kek", owner=SERVICE, group=0, mode=0o400)
    os.chown(folder, SERVICE, 0)
    folder.chmod(0o500)

    assert told(kek, SERVICE) == "1"
    assert told(kek, STRANGER) == ": cannot be read: permission denied"


def test_a_credential_of_root_with_an_access_list_is_read(open_directory: Path) -> None:
    """The list's mask shows as the group's right: 0440, of root and root's group."""
    folder = open_directory / "credentials"
    folder.mkdir()
    kek = put(folder / "kek", owner=0, group=0, mode=0o400)
    try:
        allow(kek, SERVICE, 0o4)
        folder.chmod(0o500)
        allow(folder, SERVICE, 0o5)
    except OSError as unsupported:
        pytest.skip(f"no access lists on this file system: {unsupported.strerror}")

    assert kek.stat().st_mode & 0o777 == 0o440
    assert told(kek, SERVICE) == "1"
    assert told(kek, STRANGER) == ": cannot be read: permission denied"


def test_a_file_of_one_s_own_that_a_group_may_read_is_refused_all_the_same(open_directory: Path) -> None:
    kek = put(open_directory / "kek", owner=SERVICE, group=FS_GROUP, mode=0o440)

    assert told(kek, SERVICE) == ": others may read it (mode 0440)"


def allow(path: Path, user: int, rights: int) -> None:
    """acl(5): one more user; version 2, then tag, rights and whom of each entry, in the order of tags."""
    nobody = 0xFFFFFFFF
    owner, one_user, group, mask, others = 0x01, 0x02, 0x04, 0x10, 0x20
    rows = [(owner, rights, nobody), (one_user, rights, user), (group, 0, nobody), (mask, rights, nobody)]
    entries = b"".join(struct.pack("<HHI", *row) for row in [*rows, (others, 0, nobody)])
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + entries)
