"""`$CREDENTIALS_DIRECTORY/NAME` is where systemd put a credential; no other variable means anything in a path."""

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
    assert fault.endswith('ring "edge": kek_file: begins with $CREDENTIALS_DIRECTORY, which is not set')
    assert hint is not None
    assert "LoadCredential=" in hint


@pytest.mark.parametrize("written", ["$HOME/edge.kek", "$CREDENTIALS_DIRECTORY2/kek", "x/$CREDENTIALS_DIRECTORY/kek"])
def test_other_variables_are_names_like_any(tmp_path: Path, written: str) -> None:
    assert configured(tmp_path, written).rings[0].kek_file == tmp_path / written


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
    assert fault.endswith("store.url: begins with $CREDENTIALS_DIRECTORY, which is not set")
