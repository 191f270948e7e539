"""
Reads key files, and refuses one that others may read, or change. What is in it is parsed by seal/keyfiles.

Three ways of handing secrets out fit these rules as they are. A plain file: 0600, keyrotd's own. A systemd credential:
0400, the service user's own, or root's with an access list whose mask shows as group-read. A Kubernetes secret: links
into a folder that the kubelet swaps, to files of root that the pod's fsGroup may read.

What is judged is the file, the link that was named, and the folders of both. Not judged: who owns these folders, the
folders above them, links in between, and which group or access list root gave a file of his to: that is for whoever
hands secrets out.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from keyrotd.core.errors import ConfigError
from keyrotd.seal.keyfiles import MAX_FILE_BYTES, K, OperatorVerifyKey, VerifyKey, parse

Fault: TypeAlias = tuple[str, str | None]


def read(path: Path, kind: type[K]) -> tuple[K, ...]:
    """
    The keys of the file at `path`, the first of which seals or signs. Raises ConfigError with every fault found.

    Links are followed, since Kubernetes mounts secrets through them; what is judged, the module says.
    """
    return parse(text(path, kind), kind, str(path))


def text(path: Path, kind: type[K]) -> str:
    """The text of the file at `path`, judged and parsed as `read` does."""
    faults, content = _read(path, public=issubclass(kind, VerifyKey | OperatorVerifyKey))
    try:
        found = content.decode("utf-8")
        parse(found, kind, str(path))
    except UnicodeDecodeError:
        # Not chained: the cause holds the bytes.
        raise ConfigError([*faults, (f"{path}: want text, found other bytes", "is this the file you meant?")]) from None
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from None
    if faults:
        raise ConfigError(faults)
    return found


def behind_links(paths: Iterable[Path]) -> dict[Path, str]:
    """Where those of `paths` lead that pass through a link: it changes when Kubernetes swaps a mounted secret."""
    found = {path: os.path.realpath(path) for path in paths}
    return {path: target for path, target in found.items() if target != os.path.abspath(path)}  # noqa: PTH100 - as is


def _read(path: Path, *, public: bool) -> tuple[list[Fault], bytes]:
    try:
        # Not blocking: a FIFO in the place of a key file must not hang a daemon.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError([(f"{path}: want a regular file", None)])
            with open(descriptor, "rb", closefd=False) as file:
                return _faults(path, status, owners={0, os.geteuid()}, public=public), file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        words = (error.strerror or type(error).__name__).lower()
        raise ConfigError([(f"{path}: cannot be read: {words}", _HINTS.get(type(error)))]) from error


_HINTS: dict[type[OSError], str] = {
    FileNotFoundError: "copy it here from where `keyrotd init` made the fleet's secrets; new ones would not match",
    PermissionError: "keyrotd must own the file, or root with keyrotd's group and mode 0440",
}


def _faults(path: Path, status: os.stat_result, *, owners: set[int], public: bool) -> list[Fault]:
    faults: list[Fault] = []
    mode = stat.S_IMODE(status.st_mode)
    for folder in dict.fromkeys((path.parent, Path(os.path.realpath(path)).parent)):
        open_to = stat.S_IMODE(folder.stat().st_mode)
        if open_to & 0o022 and not open_to & stat.S_ISVTX:  # sticky: others may add, not replace (Kubernetes mounts)
            faults.append((f"{folder}: others may replace its files (mode {open_to:04o})", "chmod 0700"))
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in owners:
        faults.append((f"{path}: is a link of user {link.st_uid}, who may turn it", "name the file itself"))
    if status.st_uid not in owners:
        faults.append(foreign(path, status))
    if mode & 0o022:
        faults.append((f"{path}: others may change it (mode {mode:04o})", f"chmod {0o644 if public else 0o600:04o}"))
    elif not public and mode & 0o077 & ~_allowed(status):
        hint = "chmod 0600; in Kubernetes give the secret volume `defaultMode: 0440` and the pod an `fsGroup`"
        faults.append((f"{path}: others may read it (mode {mode:04o})", hint))
    return faults


def foreign(path: Path, status: os.stat_result) -> Fault:
    """Say that a file belongs to somebody else; root had better be that one than take it from them."""
    user = os.geteuid()
    hint = f"chown it to root or user {user}" if user else f"run this as user {status.st_uid}, or chown it to root"
    return f"{path}: belongs to user {status.st_uid}", hint


def _allowed(status: os.stat_result) -> int:
    # Root's files may be read by a group: so Kubernetes (fsGroup) and systemd (LoadCredential) hand out secrets. Any
    # group: root, who runs commands too, is in none of a service's, and whoever else can read the file mostly is in it.
    return 0o040 if status.st_uid == 0 else 0
