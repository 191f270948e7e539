"""keyrotd rekey edits files whole, takes up what was interrupted, and changes nothing where it cannot ask."""

import os
import resource
import signal
import stat
import struct
from pathlib import Path

import pytest

from keyrotd import secrets
from keyrotd.cli import exits
from keyrotd.cli.main import run
from keyrotd.seal import keyedits
from keyrotd.seal.keyfiles import MAX_FILE_BYTES, Kek, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey, key_line
from keyrotd.servers import files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The secrets of a new fleet, whose store is away."""
    store = f"unix://{tmp_path}/nobody.sock"
    assert run(["init", str(tmp_path / "k"), "--store", store]) == exits.DONE
    monkeypatch.setenv("KEYROTD_CONFIG", str(tmp_path / "k/keyrotd.toml"))
    return tmp_path / "k/secrets"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.endswith(".lock")}


def ids(folder: Path) -> list[list[str]]:
    """Of the five files: KEK, signing, verify, operator, operator verify."""
    return [
        [key.id for key in secrets.read(folder / "edge.kek", Kek)],
        [key.id for key in secrets.read(folder / "signing.key", SigningKey)],
        [key.id for key in secrets.read(folder / "verify.key", VerifyKey)],
        [key.id for key in secrets.read(folder / "operator.key", OperatorKey)],
        [key.id for key in secrets.read(folder / "operator-verify.key", OperatorVerifyKey)],
    ]


def test_an_added_key_is_last_in_its_file_and_known_to_all_who_verify(folder: Path) -> None:
    before = contents(folder)

    for kind in ("kek", "signing", "operator"):
        assert run(["rekey", kind, "add"]) == exits.DONE

    keks, signers, verifiers, operators, operator_verifiers = ids(folder)
    assert [len(keks), signers, operators] == [2, verifiers, operator_verifiers]
    assert all(contents(folder)[name].startswith(text) for name, text in before.items())


def test_each_stage_says_who_gets_which_file_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["rekey", "signing", "add"])

    told = capsys.readouterr().out
    assert f"next: copy {folder}/verify.key to every host, and reload the daemons there" in told
    assert f"{folder}/signing.key stays here" in told
    assert "then: keyrotd rekey signing promote refuses until everyone has it" in told


def test_mode_and_owner_stay(folder: Path) -> None:
    path = folder / "edge.kek"
    path.chmod(0o400)
    if os.geteuid() == 0:
        os.chown(path, 0, 2000)
        path.chmod(0o440)
    before = path.stat()

    run(["rekey", "kek", "add"])

    after = path.stat()
    assert after.st_ino != before.st_ino  # replaced whole
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (
        before.st_uid,
        before.st_gid,
        stat.S_IMODE(before.st_mode),
    )


def test_a_file_with_an_access_list_is_left_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its mode shows the list's mask: a file of that mode without the list would let in others."""
    path, nobody = folder / "edge.kek", 0xFFFFFFFF
    # acl(5): user::rw-, user:1234:r--, group::---, mask::r--, other::---
    rules = ((0x01, 6, nobody), (0x02, 4, 1234), (0x04, 0, nobody), (0x10, 4, nobody), (0x20, 0, nobody))
    try:
        os.setxattr(
            path,
            "system.posix_acl_access",
            struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *rule) for rule in rules),
        )
    except OSError:
        pytest.skip("this file system has no access lists")
    before = contents(folder)
    capsys.readouterr()

    assert run(["rekey", "kek", "add"]) != exits.DONE

    # Who is not root is told so already when the file is judged.
    told = capsys.readouterr().err
    assert "edge.kek: has an access list" in told or "others may read it" in told
    assert contents(folder) == before


def test_one_change_at_a_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["rekey", "kek", "add"])
    before = contents(folder)
    capsys.readouterr()

    assert run(["rekey", "kek", "add"]) == exits.FAILED

    told = capsys.readouterr().err
    assert "holds 2 keys, so a change is under way" in told
    assert "hint: keyrotd rekey kek promote --ring edge goes on with it" in told
    assert contents(folder) == before


def test_an_added_key_is_the_newer_one_though_the_clock_went_back(folder: Path) -> None:
    kek = folder / "edge.kek"
    kek.write_text(keyedits.added("", secrets.read(kek, Kek)[0], made_at=4_000_000_000_000))

    run(["rekey", "kek", "add"])

    old, new = keyedits.entries(kek.read_text(), Kek, "kek")
    assert keyedits.newest((old, new)) == new


def test_an_addition_that_ended_between_two_files_is_taken_up(folder: Path) -> None:
    verify = (folder / "verify.key").read_text()
    run(["rekey", "signing", "add"])
    (folder / "verify.key").write_text(verify)

    assert run(["rekey", "signing", "promote"]) == exits.FAILED
    assert run(["rekey", "signing", "add"]) == exits.DONE

    _, signers, verifiers, _, _ = ids(folder)
    assert signers == verifiers


def promote(path: Path) -> None:
    """Put the newest key first, as a person with an editor would."""
    *above, old, mark, new, end = path.read_text().split("\n")
    path.write_text("\n".join((*above[:-1], mark, new, above[-1], old, end)))


@pytest.mark.parametrize("stage", ["promote", "retire"])
@pytest.mark.parametrize("kind", ["kek", "signing", "operator"])
def test_whom_nobody_can_ask_nothing_is_done_to(kind: str, stage: str, folder: Path) -> None:
    run(["rekey", kind, "add"])
    if stage == "retire":
        promote(folder / {"kek": "edge.kek"}.get(kind, f"{kind}.key"))
    before = contents(folder)

    assert run(["rekey", kind, stage]) == exits.STORE_AWAY

    assert contents(folder) == before


@pytest.mark.parametrize("stage", ["promote", "retire"])
def test_a_stage_with_nothing_to_do_says_so(stage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    capsys.readouterr()

    assert run(["rekey", "operator", stage]) == exits.DONE

    assert "nothing is changed" in capsys.readouterr().out
    assert contents(folder) == before


@pytest.mark.usefixtures("folder")
def test_a_key_that_is_not_promoted_does_not_replace_the_old_one(capsys: pytest.CaptureFixture[str]) -> None:
    run(["rekey", "kek", "add"])

    assert run(["rekey", "kek", "retire"]) == exits.FAILED

    assert "is not promoted; nothing was changed" in capsys.readouterr().err


def test_keys_without_a_mark_are_not_guessed_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kek = folder / "edge.kek"
    kek.write_text("".join(key_line(Kek(os.urandom(32))) for _ in range(2)))

    assert run(["rekey", "kek", "promote"]) == exits.FAILED

    assert "no mark says which is the newest" in capsys.readouterr().err


def test_a_mounted_secret_is_changed_where_it_is_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "..data").mkdir()
    (folder / "edge.kek").rename(folder / "..data/edge.kek")
    (folder / "edge.kek").symlink_to("..data/edge.kek")

    assert run(["rekey", "kek", "add"]) == exits.FAILED

    told = capsys.readouterr().err
    assert "is a link into what somebody else writes, as Kubernetes mounts secrets" in told


def test_what_this_host_lacks_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder.parent / "keyrotd.toml"
    config.write_text("".join(row for row in config.read_text().splitlines(keepends=True) if "operator_" not in row))

    assert run(["rekey", "operator", "add"]) == exits.CONFIGURATION
    assert run(["rekey", "signing", "add", "--ring", "edge"]) == exits.USAGE

    told = capsys.readouterr().err
    assert "secrets.operator_key_file: is missing" in told
    assert "--ring is for kek: every ring has the same signing key" in told


def test_a_second_rekey_waits_for_the_first_or_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    capsys.readouterr()

    with files.locked(folder / "signing.key", 0):
        assert run(["rekey", "signing", "add"]) == exits.FAILED

    assert "another `keyrotd rekey` is changing it; nothing was changed" in capsys.readouterr().err
    assert contents(folder) == before


def test_no_file_is_changed_where_another_one_cannot_be(folder: Path) -> None:
    (folder / "verify.key").rename(folder / "real")
    (folder / "verify.key").symlink_to("real")
    before = contents(folder)

    assert run(["rekey", "signing", "add"]) == exits.FAILED

    assert contents(folder) == before


def test_a_key_that_a_retire_took_out_of_one_file_does_not_come_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["rekey", "signing", "add"])
    promote(folder / "signing.key")
    old = secrets.read(folder / "signing.key", SigningKey)[1].id
    verify = folder / "verify.key"
    verify.write_text(keyedits.without(verify.read_text(), VerifyKey, [old], "verify.key"))
    before = contents(folder)
    capsys.readouterr()

    assert run(["rekey", "signing", "add"]) == exits.FAILED

    assert "hint: keyrotd rekey signing retire goes on with it" in capsys.readouterr().err
    assert contents(folder) == before


def test_a_stage_that_ends_between_two_files_says_which_was_changed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "verify.key").write_text(f"# {'x' * (MAX_FILE_BYTES // 2)}\n" + (folder / "verify.key").read_text())
    capsys.readouterr()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES // 4, limit[1]))
    try:
        assert run(["rekey", "signing", "add"]) == exits.FAILED
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)

    told = capsys.readouterr().err
    assert f"verify.key: cannot be written: file too large; {folder}/signing.key was changed already" in told
    assert "the same command takes it up again" in told
    assert run(["rekey", "signing", "add"]) == exits.DONE


def test_a_file_that_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "verify.key").unlink()
    capsys.readouterr()

    assert run(["rekey", "signing", "add"]) == exits.CONFIGURATION

    assert f"{folder}/verify.key: cannot be read: no such file" in capsys.readouterr().err
