"""Traffic Server's own files, where `config_dir` says they lie: read here, judged in `cli/farm`."""

from collections.abc import Iterator
from pathlib import Path

from keyrotd.cli import farm
from keyrotd.cli.diagnosis import Finding, grave, note, ok
from keyrotd.config import Config, ServerConfig
from keyrotd.sections import Fault
from keyrotd.servers.trafficserver import TrafficServerDriver

#: More than any such file has.
_MAX_BYTES = 1 << 20


def faults(config: Config) -> Iterator[Fault]:
    """What surely keeps a server's tickets from resuming, for `check`."""
    for server in config.servers:
        yield from (
            (f"server {server.name}: {breaker.words}", breaker.hint) for breaker in _breakers(server) if breaker.certain
        )


def notes(server: ServerConfig) -> Iterator[str]:
    """What may, and what must be the same on every node, for `check`."""
    for breaker in _breakers(server):
        yield f"note: {breaker.words} ({breaker.hint})"
    for folder in _folder(server):
        yield f"the same on every node, or no ticket resumes: {farm.context(_files(folder))}"


def findings(server: ServerConfig) -> Iterator[Finding]:
    """All of it, for `doctor`."""
    breakers = _breakers(server)
    for breaker in breakers:
        yield (grave if breaker.certain else note)("server.farm", breaker.words, breaker.hint)
    for folder in _folder(server):
        if not breakers:
            yield ok("server.farm", "nothing in its own files breaks a farm")
        context = str(farm.context(_files(folder)))
        yield ok("server.context", f"the same on every node, or no ticket resumes: {context}")


def _folder(server: ServerConfig) -> tuple[Path, ...]:
    driver = server.driver
    return (driver.config_dir,) if isinstance(driver, TrafficServerDriver) and driver.config_dir is not None else ()


def _breakers(server: ServerConfig) -> tuple[farm.Breaker, ...]:
    return tuple(breaker for folder in _folder(server) for breaker in farm.breakers(_files(folder)))


def _files(folder: Path) -> farm.Files:
    text = _text(folder / "records.yaml", folder / "records.config")
    said = farm.records(text or "")
    named = (said[farm.CERTIFICATES],) if farm.CERTIFICATES in said else ("ssl_multicert.yaml", "ssl_multicert.config")
    # Relative to what it was built for, which we do not know; usually it is absolute.
    authorities = Path(said.get(farm.AUTHORITIES_FOLDER, ""), said.get(farm.AUTHORITIES, ""))
    return farm.Files(
        records=text,
        certificates=_text(*(folder / name for name in named)),
        authorities=_bytes(authorities) if authorities.is_absolute() else None,
    )


def _text(*paths: Path) -> str | None:
    """The first that can be read."""
    found = next((content for path in paths if (content := _bytes(path)) is not None), None)
    return None if found is None else found.decode("utf-8", errors="replace")


def _bytes(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError:
        return None
