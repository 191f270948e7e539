"""The example in deploy/haproxy is one that HAProxy accepts, and every step of its README fits it."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from keyrotd.testing.certificates import new_authority

FOLDER = Path(__file__).parents[2] / "deploy" / "haproxy"
EXAMPLE = (FOLDER / "keyrotd-haproxy.cfg").read_text("utf-8")

#: Three worthless 80-byte keys.
KEYS = "".join(f"{letter * 106}{last}=\n" for letter, last in zip("ABC", "AEI", strict=True))


def test_haproxy_accepts_the_example(haproxy_exe: Path, tmp_path: Path) -> None:
    found = checked(haproxy_exe, tmp_path, EXAMPLE)

    assert found.returncode == 0, found.stderr
    assert "[ALERT]" not in found.stderr
    assert "[WARNING]" not in found.stderr


def test_haproxy_refuses_to_start_without_the_key_file(haproxy_exe: Path, tmp_path: Path) -> None:
    found = checked(haproxy_exe, tmp_path, EXAMPLE, keys=None)

    assert found.returncode == 1
    assert "unable to load ssl tickets keys file" in found.stderr


def test_the_readme_shows_the_lines_of_the_example() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    shown = [line.strip() for line in readme.partition("```\n")[2].partition("```")[0].splitlines()]

    missing = [line for line in shown if line not in {own.strip() for own in EXAMPLE.splitlines()}]

    assert len(shown) == 5
    assert missing == []


def checked(haproxy: Path, folder: Path, config: str, keys: str | None = KEYS) -> subprocess.CompletedProcess[str]:
    """What `haproxy -c` says to `config`, with the machine's own paths and users moved into `folder`."""
    (folder / "site.pem").write_bytes(new_authority(datetime.now(UTC)).issue("localhost"))
    if keys is not None:
        (folder / "haproxy.keys").write_text(keys)
    for told, here in {
        "/run/haproxy/": f"{folder}/",
        "/run/keyrotd/": f"{folder}/",
        "/etc/haproxy/": f"{folder}/",
        "user keyrotd group keyrotd": "user root group root",
    }.items():
        assert told in config
        config = config.replace(told, here)
    file = folder / "haproxy.cfg"
    file.write_text(config)
    command = [str(haproxy), "-c", "-f", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
