"""`$NAME` and `${NAME}` in a path stand for the environment's word, `$CREDENTIALS_DIRECTORY` for systemd's folder."""

from pathlib import Path

import pytest

from keyrotd import secrets
from keyrotd.config import Config, load
from keyrotd.core.errors import ConfigError
from keyrotd.seal.keyfiles import Kek, make_secrets
from keyrotd.store.addresses import Sentinels
from tests.vectors.make import fixed

FILES = make_secrets("edge", lambda length: fixed("secrets", length))


def configured(tmp_path: Path, kek_file: str, url: str = "redis://127.0.0.1") -> Config:
    path = tmp_path / "keyrotd.toml"
    path.write_text(
        f"""\
[store]
url = "{url}"
[secrets]
verify_key_file = "secrets/verify.key"
[[ring]]
name = "edge"
kek_file = "{kek_file}"
rotation_interval = "4h"
ticket_lifetime = "2h"
"""
    )
    return load(path)


def test_a_credential_is_read_where_systemd_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd: files of mode 0400 in a folder of mode 0500, both the service user's own."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "edge.kek").write_text(FILES["edge.kek"])
    (credentials / "edge.kek").chmod(0o400)
    credentials.chmod(0o500)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))

    config = configured(tmp_path, "$CREDENTIALS_DIRECTORY/edge.kek")

    assert config.rings[0].kek_file == credentials / "edge.kek"
    assert len(secrets.read(config.rings[0].kek_file, Kek)) == 1
    assert config.secrets.verify_key_file == tmp_path / "secrets/verify.key"


def test_without_credentials_the_setting_is_a_fault_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    with pytest.raises(ConfigError) as raised:
        configured(tmp_path, "$CREDENTIALS_DIRECTORY/edge.kek")

    ((fault, hint),) = raised.value.faults
    assert fault.endswith('ring "edge": kek_file: $CREDENTIALS_DIRECTORY is not set')
    assert hint is not None
    assert "LoadCredential=" in hint


@pytest.mark.parametrize(
    ("written", "leads"),
    [
        ("$KEYS/edge.kek", "/srv/keys/edge.kek"),
        ("${KEYS}/edge.kek", "/srv/keys/edge.kek"),
        ("secrets/$SITE.kek", "{folder}/secrets/eu-1.kek"),
        ("secrets/${SITE}_edge.kek", "{folder}/secrets/eu-1_edge.kek"),
        ("$SITE/$SITE.kek", "{folder}/eu-1/eu-1.kek"),
        ("$$SITE/edge.kek", "{folder}/$SITE/edge.kek"),
        ("~/edge.kek", "{folder}/~/edge.kek"),
    ],
)
def test_a_path_may_have_variables_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, leads: str
) -> None:
    monkeypatch.setenv("KEYS", "/srv/keys")
    monkeypatch.setenv("SITE", "eu-1")

    assert str(configured(tmp_path, written).rings[0].kek_file) == leads.format(folder=tmp_path)


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("$NOBODY_SET_THIS/edge.kek", "$NOBODY_SET_THIS is not set"),
        ("x/${NOBODY_SET_THIS}/edge.kek", "$NOBODY_SET_THIS is not set"),
        ("$EMPTY/edge.kek", "$EMPTY is not set"),
        ("$/edge.kek", "has a $ that begins no variable's name"),
        ("${SITE/edge.kek", "has a $ that begins no variable's name"),
        ("$1/edge.kek", "has a $ that begins no variable's name"),
        ("$ODD/edge.kek", "want a path, found unprintable characters"),
    ],
)
def test_what_no_variable_stands_for_is_a_fault_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, fault: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("ODD", "/a\nb")

    with pytest.raises(ConfigError) as raised:
        configured(tmp_path, written)

    assert [words for words, _ in raised.value.faults] == [f'{tmp_path}/keyrotd.toml: ring "edge": kek_file: {fault}']


def test_without_an_environment_the_names_stay(tmp_path: Path) -> None:
    """As in the tests of somebody's repository, where nothing that they name is."""
    configured(tmp_path, "edge.kek")
    path = tmp_path / "keyrotd.toml"
    path.write_text(path.read_text().replace("edge.kek", "$CREDENTIALS_DIRECTORY/edge.kek"))

    assert load(path, environ=None).rings[0].kek_file == tmp_path / "$CREDENTIALS_DIRECTORY/edge.kek"


def test_words_and_urls_have_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "other.example")

    config = configured(tmp_path, "edge.kek", "redis://$HOST:6379")

    assert config.store.address.host.upper() == "$HOST"


def test_a_password_in_the_url_is_refused_and_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(tmp_path, "edge.kek", "redis://keyrotd:hunter2@store.example")

    ((fault, hint),) = raised.value.faults
    assert fault.endswith("store.url: holds a password, which belongs into no configuration")
    assert "password_file" in (hint or "")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "rediss://h?password_file=$CREDENTIALS_DIRECTORY/store.password&ca_file=ca.pem",
        "rediss+sentinel://h/m?password_file=$CREDENTIALS_DIRECTORY/store.password&ca_file=ca.pem",
    ],
)
def test_the_files_of_the_store_s_url_are_found_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/keyrotd-agent.service")

    address = configured(tmp_path, "edge.kek", url).store.address

    assert address.password_file == "/run/credentials/keyrotd-agent.service/store.password"
    assert address.ca_file == str(tmp_path / "ca.pem")
    if isinstance(address.through, Sentinels):
        assert [node.ca_file for node in address.through.nodes] == [str(tmp_path / "ca.pem")]


def test_without_credentials_the_store_s_url_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    with pytest.raises(ConfigError) as raised:
        configured(tmp_path, "edge.kek", "redis://h?password_file=$CREDENTIALS_DIRECTORY/store.password")

    ((fault, _),) = raised.value.faults
    assert fault.endswith("store.url: $CREDENTIALS_DIRECTORY is not set")


@pytest.mark.parametrize("name", FILES)
def test_a_key_in_the_place_of_its_file_is_refused_and_never_shown(tmp_path: Path, name: str) -> None:
    (key,) = (line for line in FILES[name].splitlines() if not line.startswith("#"))

    with pytest.raises(ConfigError) as raised:
        configured(tmp_path, key)

    ((fault, _),) = raised.value.faults
    assert fault.endswith('ring "edge": kek_file: holds a key itself, want the path of a file')
    assert key.partition(":")[2] not in str(raised.value.faults)


def test_a_key_in_a_variable_is_refused_and_never_shown_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = (line for line in FILES["edge.kek"].splitlines() if not line.startswith("#"))
    monkeypatch.setenv("EDGE_KEK", key)
    monkeypatch.setenv("BARE_KEK", key.removeprefix("keyrotd-"))

    for kek_file in ("$EDGE_KEK", "keyrotd-$BARE_KEK"):
        with pytest.raises(ConfigError) as raised:
            configured(tmp_path, kek_file)

        ((fault, _),) = raised.value.faults
        assert fault.endswith('ring "edge": kek_file: holds a key itself, want the path of a file')
        assert key.partition(":")[2] not in str(raised.value.faults)
