"""An agent makes the folder of a key file where it is missing: for its group to enter, and for nobody else."""

from pathlib import Path

from keyrotd.cli.daemons import _make_key_folders
from keyrotd.config import load

TOML = """\
[store]
url = "redis://valkey"
[secrets]
verify_key_file = "v"
[[ring]]
name = "edge"
kek_file = "k"
[[server]]
name = "haproxy"
ring = "edge"
driver = "haproxy"
socket = "haproxy.sock"
key_file = ["volume/a/keys", "volume/b/keys", "nowhere/c/keys"]
"""


def test_a_volume_open_to_all_gets_a_folder_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "keyrotd.toml").write_text(TOML)
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume").chmod(0o777)
    (tmp_path / "volume" / "b").mkdir(mode=0o700)

    _make_key_folders(load(tmp_path / "keyrotd.toml"))

    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "volume").iterdir()} == {
        "a": 0o750,
        "b": 0o700,
    }
    assert not (tmp_path / "nowhere").exists()
