"""What pip installs is the package, its deploy/ folder and nothing that happened to lie about."""

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import keyrotd

CHECKOUT = Path(__file__).parents[2]
VERSION = keyrotd.__version__
DEPLOY = f"keyrotd-{VERSION}.data/data/share/keyrotd/deploy/"

#: What the package is made of: code, the store's scripts, the mark that it is typed.
KINDS = (".py", ".lua", "/py.typed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run = subprocess.run(build, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    (file,) = folder.iterdir()
    assert file.name == f"keyrotd-{VERSION}-py3-none-any.whl"
    return zipfile.ZipFile(file)


def test_the_package_is_whole(wheel: zipfile.ZipFile) -> None:
    expected = {name for name in files_under("keyrotd") if name.endswith(KINDS)}

    packed = {name for name in wheel.namelist() if name.startswith("keyrotd/")}

    assert packed == expected
    assert "keyrotd/py.typed" in packed


def test_deploy_is_carried_as_shared_data(wheel: zipfile.ZipFile) -> None:
    packed = {"deploy/" + name.removeprefix(DEPLOY) for name in wheel.namelist() if name.startswith(DEPLOY)}

    assert packed == files_under("deploy")
    assert {"deploy/haproxy/README.md", "deploy/haproxy/keyrotd-haproxy.cfg"} <= packed


def test_nothing_else_is_in_it(wheel: zipfile.ZipFile) -> None:
    info = f"keyrotd-{VERSION}.dist-info/"

    rest = {name for name in wheel.namelist() if not name.startswith(("keyrotd/", DEPLOY))}

    assert rest == {info + name for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}


def test_its_metadata_speaks_for_it(wheel: zipfile.ZipFile) -> None:
    metadata = message_from_bytes(wheel.read(f"keyrotd-{VERSION}.dist-info/METADATA"))
    scripts = wheel.read(f"keyrotd-{VERSION}.dist-info/entry_points.txt").decode()

    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert scripts == "[console_scripts]\nkeyrotd = keyrotd.cli.main:main\n"
    assert b"END OF TERMS AND CONDITIONS" in wheel.read(f"keyrotd-{VERSION}.dist-info/licenses/LICENSE")


def files_under(folder: str) -> set[str]:
    """Every file there, but for what Python leaves behind."""
    files = (path for path in (CHECKOUT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(CHECKOUT).as_posix() for path in files}
