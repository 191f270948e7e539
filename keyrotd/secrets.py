"""Reads key files, and refuses one that others may read, or change. What is in it is parsed by seal/keyfiles."""

import os
import stat
from pathlib import Path
from typing import TypeAlias

from keyrotd.core.errors import ConfigError
from keyrotd.seal.keyfiles import MAX_FILE_BYTES, K, OperatorVerifyKey, VerifyKey, parse

Fault: TypeAlias = tuple[str, str | None]


def read(path: Path, kind: type[K]) -> tuple[K, ...]:
    """
    The keys of the file at `path`, the first of which seals or signs. Raises ConfigError with every fault found.

    Links are followed, since Kubernetes mounts secrets through them; what is judged is the file that was opened.
    """
    faults, content = _read(path, public=issubclass(kind, VerifyKey | OperatorVerifyKey))
    try:
        keys = parse(content.decode("utf-8"), kind, str(path))
    except UnicodeDecodeError:
        # Not chained: the cause holds the bytes.
        raise ConfigError([*faults, (f"{path}: want text, found other bytes", "is this the file you meant?")]) from None
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from None
    if faults:
        raise ConfigError(faults)
    return keys


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
    folder = stat.S_IMODE(path.parent.stat().st_mode)
    if folder & 0o022 and not folder & stat.S_ISVTX:  # sticky: others may add, and not replace (Kubernetes mounts)
        faults.append((f"{path.parent}: others may replace its files (mode {folder:04o})", "chmod 0700"))
    if status.st_uid not in owners:
        faults.append((f"{path}: belongs to user {status.st_uid}", f"chown it to root or user {os.geteuid()}"))
    if mode & 0o022:
        faults.append((f"{path}: others may change it (mode {mode:04o})", f"chmod {0o644 if public else 0o600:04o}"))
    elif not public and mode & 0o077 & ~_allowed(status):
        hint = "chmod 0600; in Kubernetes give the secret volume `defaultMode: 0440` and the pod an `fsGroup`"
        faults.append((f"{path}: others may read it (mode {mode:04o})", hint))
    return faults


def _allowed(status: os.stat_result) -> int:
    # Root's files may be read by a group: so Kubernetes (fsGroup) and systemd (LoadCredential) hand out secrets.
    return 0o040 if status.st_uid == 0 else 0
