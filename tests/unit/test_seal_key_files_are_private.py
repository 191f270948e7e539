import os
from pathlib import Path

import pytest

from keyrotd import secrets
from keyrotd.core.errors import ConfigError
from keyrotd.seal.keyfiles import Kek, SigningKey, VerifyKey, make_secrets
from tests.vectors.make import fixed

FILES = make_secrets("edge", lambda length: fixed("secrets", length))
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can give files away")


def put(path: Path, content: str | bytes, mode: int, owner: int | None = None) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    if owner is not None:
        os.chown(path, owner, 0)
    path.chmod(mode)
    return path


def faults(path: Path, kind: type[Kek | SigningKey | VerifyKey] = Kek) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        secrets.read(path, kind)
    return [fault.removeprefix(str(path)) for fault, _ in raised.value.faults]


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_file_of_ones_own_is_read(tmp_path: Path, mode: int) -> None:
    assert len(secrets.read(put(tmp_path / "kek", FILES["edge.kek"], mode), Kek)) == 1


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666, 0o660, 0o601])
def test_a_secret_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    found = faults(put(tmp_path / "kek", FILES["edge.kek"], mode))

    words = "change" if mode & 0o022 else "read"
    assert [f": others may {words} it (mode {mode:04o})"] == found


@needs_root
def test_roots_file_may_be_read_by_a_group(tmp_path: Path) -> None:
    """So Kubernetes and systemd hand out secrets."""
    for mode in (0o440, 0o640):
        assert secrets.read(put(tmp_path / "kek", FILES["edge.kek"], mode, owner=0), Kek)


@needs_root
def test_a_strangers_file_is_refused(tmp_path: Path) -> None:
    assert faults(put(tmp_path / "kek", FILES["edge.kek"], 0o440, owner=12345)) == [
        ": belongs to user 12345",
        ": others may read it (mode 0440)",
    ]


def test_a_verify_key_may_be_read_by_all_and_changed_by_none(tmp_path: Path) -> None:
    assert secrets.read(put(tmp_path / "verify", FILES["verify.key"], 0o644), VerifyKey)
    assert faults(put(tmp_path / "verify", FILES["verify.key"], 0o664), VerifyKey) == [
        ": others may change it (mode 0664)"
    ]


def test_links_are_followed_and_the_file_is_judged(tmp_path: Path) -> None:
    """A Kubernetes secret is a link to a link."""
    (tmp_path / "..2025").mkdir()
    put(tmp_path / "..2025" / "kek", FILES["edge.kek"], 0o400)
    (tmp_path / "..data").symlink_to("..2025")
    (tmp_path / "kek").symlink_to("..data/kek")

    assert secrets.read(tmp_path / "kek", Kek)
    (tmp_path / "..2025" / "kek").chmod(0o444)
    assert faults(tmp_path / "kek") == [": others may read it (mode 0444)"]


@needs_root
def test_a_secret_that_kubernetes_mounts_is_read(tmp_path: Path) -> None:
    """The kubelet: links of root in a sticky folder that all may write to, files 0440 of root and the pod's fsGroup."""
    mount = tmp_path / "secrets"
    version = mount / "..2026_11_21"
    version.mkdir(parents=True)
    os.chown(put(version / "kek", FILES["edge.kek"], 0o440), 0, 2000)
    os.chown(version, 0, 2000)
    version.chmod(0o2755)
    (mount / "..data").symlink_to(version.name)
    (mount / "kek").symlink_to("..data/kek")
    mount.chmod(0o3777)

    assert secrets.read(mount / "kek", Kek)
    (version / "kek").chmod(0o444)
    assert faults(mount / "kek") == [": others may read it (mode 0444)"]
    (version / "kek").chmod(0o440)
    os.chown(version / "kek", 3000, 2000)
    assert faults(mount / "kek") == [": belongs to user 3000", ": others may read it (mode 0440)"]


def test_the_folder_that_a_link_leads_to_is_judged_too(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    put(folder / "kek", FILES["edge.kek"], 0o400)
    folder.chmod(0o777)
    (tmp_path / "kek").symlink_to("open/kek")

    with pytest.raises(ConfigError) as raised:
        secrets.read(tmp_path / "kek", Kek)

    assert raised.value.faults == ((f"{folder}: others may replace its files (mode 0777)", "chmod 0700"),)


@needs_root
def test_a_link_that_a_stranger_may_turn_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "right", FILES["edge.kek"], 0o400)
    link = tmp_path / "kek"
    link.symlink_to("right")
    os.chown(link, 12345, 0, follow_symlinks=False)

    assert faults(link) == [": is a link of user 12345, who may turn it"]


def test_what_is_behind_links_is_seen_to_change(tmp_path: Path) -> None:
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        put(tmp_path / version / "kek", FILES["edge.kek"], 0o400)
    (tmp_path / "..data").symlink_to("..1")
    linked.symlink_to("..data/kek")
    put(plain, FILES["edge.kek"], 0o400)

    before = secrets.behind_links([plain, linked])
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")

    assert before == {linked: str(tmp_path / "..1/kek")}
    assert secrets.behind_links([plain, linked]) == {linked: str(tmp_path / "..2/kek")}


def test_all_faults_of_mode_and_content_come_together(tmp_path: Path) -> None:
    path = put(tmp_path / "kek", FILES["signing.key"], 0o644)

    assert faults(path) == [": others may read it (mode 0644)", ", line 2: want a KEK, found a signing key"]


def test_what_is_no_file_is_refused_and_hangs_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)

    assert faults(tmp_path / "fifo") == [": want a regular file"]
    assert faults(tmp_path) == [": want a regular file"]
    assert faults(tmp_path / "none") == [": cannot be read: no such file or directory"]


def test_bytes_that_are_no_text_are_not_shown(tmp_path: Path) -> None:
    path = put(tmp_path / "kek", b"\xff\xfe" + fixed("raw"), 0o600)

    with pytest.raises(ConfigError) as raised:
        secrets.read(path, Kek)

    assert [f"{path}: want text, found other bytes"] == [fault for fault, _ in raised.value.faults]
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_a_file_is_read_to_its_limit_only(tmp_path: Path) -> None:
    assert faults(put(tmp_path / "kek", "#" * 1_000_000, 0o600)) == [": want at most 16384 characters"]


def test_a_folder_in_which_others_may_replace_the_file_is_refused(tmp_path: Path) -> None:
    """Kubernetes mounts secrets in a sticky folder: there others may add, and not replace."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    key_file = put(folder / "kek", FILES["edge.kek"], 0o600)

    folder.chmod(0o777)
    assert faults(key_file) == [f"{folder}: others may replace its files (mode 0777)"]
    folder.chmod(0o1777)
    assert secrets.read(key_file, Kek)
