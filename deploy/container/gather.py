"""
Gathers the root of the image: this interpreter, keyrotd with its packages, and the libraries they link. No shell.

    gather.py SITE ROOT          SITE: where pip put the packages, ROOT: made anew

Runs in the build stage, on any Linux of glibc; the loader itself says what a program links.
"""

import compileall
import os
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path

#: What a daemon without a screen, a compiler and a terminal never imports.
LEFT_OUT = (
    *("__pycache__", "site-packages", "dist-packages", "config-*", "_pyrepl", "distutils", "ensurepip", "idlelib"),
    *("lib2to3", "pydoc_data", "sqlite3", "test", "tests", "tkinter", "turtle*", "unittest", "venv"),
    *("_crypt*", "_ctypes_test*", "_curses*", "_dbm*", "_gdbm*", "_sqlite3*", "_test*", "_tkinter*", "audioop*"),
    *("nis.*", "readline*", "xx*"),
)
#: Scripts and shared data: the one script is written here, the rest is for hosts.
LEFT_OUT_OF_SITE = ("__pycache__", "bin", "share")

PACKAGES = "opt/keyrotd"
SCRIPT = """#!{interpreter} -I
import sys

sys.path.append("/{packages}")
from keyrotd.cli.main import main

main()
"""
#: The number that images without a root user agree on; nobody needs a name for it, but `rotate` likes to say who asked.
USERS = "root:x:0:0::/:/nonexistent\nkeyrotd:x:65532:65532::/var/lib/keyrotd:/nonexistent\n"
GROUPS = "root:x:0:\nkeyrotd:x:65532:\n"


def gather(site: Path, root: Path) -> None:
    """Fill `root`."""
    root.mkdir(parents=True)
    for linked in ("bin", "lib", "lib64"):  # as the base has it: on a merged /usr these lead there
        if Path("/", linked).is_symlink():
            (root / "usr" / linked).mkdir(parents=True)
            (root / linked).symlink_to(f"usr/{linked}")
    for place in ("run", "var/lib"):
        (root / place).mkdir(parents=True)
    interpreter, library = Path(sys.executable).resolve(), Path(sysconfig.get_path("stdlib"))
    copy(interpreter, root)
    shutil.copytree(library, under(root, library), ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    shutil.copytree(site, root / PACKAGES, ignore=shutil.ignore_patterns(*LEFT_OUT_OF_SITE))
    for binary in (interpreter, *library_files(under(root, library)), *library_files(root / PACKAGES)):
        for needed in links(binary):
            copy(needed, root)
    for folder in (library, Path("/", PACKAGES)):
        # No checks at run time: the root is read-only. Paths as they will be, for tracebacks.
        compileall.compile_dir(
            under(root, folder),
            quiet=1,
            stripdir=str(root),
            prependdir="/",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    write(root / "usr/bin/keyrotd", SCRIPT.format(interpreter=interpreter, packages=PACKAGES), mode=0o755)
    if interpreter != Path("/usr/bin/python3"):
        (root / "usr/bin/python3").symlink_to(interpreter)  # where a kubelet's probes find it
    write(root / "etc/passwd", USERS)
    write(root / "etc/group", GROUPS)
    write(under(root, Path(ssl.get_default_verify_paths().openssl_cafile)), authorities())


def links(binary: Path) -> list[Path]:
    """Libraries that the loader finds for `binary`, and the loader itself."""
    said = subprocess.run([loader(), "--list", binary], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return [loader(), *(Path(path) for path in re.findall(r"=> (/\S+) \(", said))]


def loader() -> Path:
    return next(path for folder in ("/lib64", "/lib") for path in sorted(Path(folder).glob("ld-linux-*.so.*")))


def library_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.so*"))


def authorities() -> str:
    """Whom Debian trusts on the net, for a store with a public certificate."""
    bundle, folder = Path("/etc/ssl/certs/ca-certificates.crt"), Path("/usr/share/ca-certificates")
    return (
        bundle.read_text() if bundle.is_file() else "".join(file.read_text() for file in sorted(folder.rglob("*.crt")))
    )


def copy(path: Path, root: Path) -> None:
    target = under(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


if __name__ == "__main__":
    os.umask(0o022)
    gather(Path(sys.argv[1]), Path(sys.argv[2]))
