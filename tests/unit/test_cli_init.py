"""keyrotd init makes what runs, tells nobody more than they need, and overwrites nothing."""

import base64
import re
import stat
from pathlib import Path

import pytest

from keyrotd.cli import exits
from keyrotd.cli.main import run
from keyrotd.config import load, needs
from keyrotd.seal.keyfiles import Kek, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey
from keyrotd.secrets import read

SERVER = re.compile(r"(?m)^# (?=\[\[server\]\]|[a-z_]+ = )")


def test_what_init_writes_serves_every_role(tmp_path: Path) -> None:
    assert run(["init", str(tmp_path / "k")]) == exits.DONE
    path = tmp_path / "k" / "keyrotd.toml"
    without_server = load(path)
    path.write_text(SERVER.sub("", path.read_text("utf-8")), "utf-8")
    with_server = load(path)

    assert [bool(needs(without_server, role)) for role in ("scheduler", "operator")] == [False, False]
    assert needs(with_server, "standalone") == ()
    assert run(["check", "--config", str(path)]) == exits.DONE


def test_secrets_are_the_owner_s_alone_and_pairs_fit(tmp_path: Path) -> None:
    run(["init", str(tmp_path)])
    folder = tmp_path / "secrets"

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert modes == dict.fromkeys(
        ["edge.kek", "signing.key", "verify.key", "operator.key", "operator-verify.key"], 0o600
    )
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert read(folder / "signing.key", SigningKey)[0].verify_key == read(folder / "verify.key", VerifyKey)[0]
    assert (
        read(folder / "operator.key", OperatorKey)[0].verify_key
        == read(folder / "operator-verify.key", OperatorVerifyKey)[0]
    )
    assert {path.name for path in tmp_path.iterdir()} == {"secrets", "keyrotd.toml"}


def test_two_fleets_share_no_secret(tmp_path: Path) -> None:
    run(["init", str(tmp_path / "a")])
    run(["init", str(tmp_path / "b")])

    assert read(tmp_path / "a/secrets/edge.kek", Kek)[0].id != read(tmp_path / "b/secrets/edge.kek", Kek)[0].id


@pytest.mark.parametrize("existing", ["keyrotd.toml", "secrets", "both", "dangling link"])
def test_what_is_there_is_listed_and_nothing_is_written(
    existing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if existing in {"keyrotd.toml", "both"}:
        (tmp_path / "keyrotd.toml").write_text("mine", "utf-8")
    if existing in {"secrets", "both"}:
        (tmp_path / "secrets").mkdir()
    if existing == "dangling link":
        (tmp_path / "secrets").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))

    assert run(["init", str(tmp_path)]) == exits.FAILED

    told = capsys.readouterr()
    assert told.out == ""
    assert "exists already; nothing was written" in told.err
    assert all(str(path) in told.err for path in before)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", "utf-8")

    assert run(["init", str(tmp_path / "file" / "k")]) == exits.FAILED

    assert "not a directory" in capsys.readouterr().err


def test_init_says_who_needs_what_and_shows_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["init", str(tmp_path), "--ring", "core", "--store", "rediss://store.example"])

    told = capsys.readouterr().out
    for path in (tmp_path / "secrets").iterdir():
        assert re.search(rf"(?m)^ +{re.escape(path.name)} +\w+", told)
        assert path.read_text("utf-8").split(":")[-1].strip() not in told
    assert f"keyrotd scheduler --config {tmp_path}/keyrotd.toml" in told
    assert f"keyrotd agent --config {tmp_path}/keyrotd.toml" in told
    assert load(tmp_path / "keyrotd.toml").rings[0].name == "core"
    assert load(tmp_path / "keyrotd.toml").store.url == "rediss://store.example"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--ring", "Edge"], "'Edge' is not lower-case letters"),
        (["--ring", "../x"], "'../x' is not lower-case letters"),
        (["--store", "http://x"], "no scheme that keyrotd knows"),
        (["--store", "redis://me:swordfish@x"], "holds a password"),
    ],
)
def test_what_check_would_refuse_is_not_written(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(tmp_path / "k"), *options]) == exits.USAGE

    said = capsys.readouterr().err
    assert told in said
    assert "swordfish" not in said
    assert not (tmp_path / "k").exists()


def test_a_url_is_written_so_that_it_is_read_back(tmp_path: Path) -> None:
    url = 'redis://store.example?password_file=/etc/a"b\\c'

    run(["init", str(tmp_path), "--store", url])

    assert load(tmp_path / "keyrotd.toml").store.url == url


def test_manifests_hold_what_files_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", str(tmp_path), "--store", "redis://valkey", "--ring", "edge_1."]) == exits.DONE
    capsys.readouterr()
    assert run(["init", "--format", "kubernetes", "--store", "redis://valkey", "--ring", "edge_1."]) == exits.DONE

    printed, told = capsys.readouterr()
    manifests = printed.split("---\n")
    names = [re.findall(r"(?m)^kind: (\w+)\nmetadata:\n  name: ([a-z0-9-]+)$", manifest) for manifest in manifests]
    assert names == [
        [("Secret", "keyrotd-verify")],
        [("Secret", "keyrotd-ring-edge-1")],
        [("Secret", "keyrotd-scheduler")],
        [("Secret", "keyrotd-operator")],
    ]
    found = {
        name: base64.b64decode(value, validate=True)
        for manifest in manifests
        for name, value in re.findall(r"(?m)^  (\S+): ([A-Za-z0-9+/=]+)$", manifest.partition("data:")[2])
    }
    assert set(found) == {path.name for path in (tmp_path / "secrets").iterdir()}
    for name, value in found.items():
        (tmp_path / "secrets" / name).write_bytes(value)
    assert run(["check", "--config", str(tmp_path / "keyrotd.toml")]) == exits.DONE
    assert 'url: "redis://valkey"\n      ring:\n        - name: edge_1.' in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "kubernetes"],
        ["--format", "kubernetes", "--store", "embedded:"],
        ["DIR", "--format", "kubernetes", "--store", "redis://x"],
    ],
)
def test_manifests_need_a_store_that_pods_reach_and_no_folder(arguments: list[str], tmp_path: Path) -> None:
    assert run(["init", *(str(tmp_path / word) if word == "DIR" else word for word in arguments)]) == exits.USAGE

    assert list(tmp_path.iterdir()) == []
