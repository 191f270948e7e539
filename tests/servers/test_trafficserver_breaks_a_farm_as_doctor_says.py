"""What `check` and `doctor` say of Traffic Server's own files happens in real ones: no ticket resumes as it should."""

import os
import shutil
from collections.abc import Iterator

import pytest

from keyrotd.cli import farm
from keyrotd.servers.keyfile import decode
from keyrotd.testing.trafficserver import TrafficServer
from keyrotd.tls.handshake import Version
from tests.trafficservers import Stage, running

pytestmark = pytest.mark.debian

each_version = pytest.mark.parametrize("version", Version, ids=lambda version: version.value)


@pytest.fixture(scope="module")
def renamed() -> Iterator[Stage]:
    """The second node has the same default certificate in a file of another name."""
    with running(2, alone=True) as stage:
        other = stage.nodes[1]
        certificate = other.certificate_folder / other.certificate.name
        certificate.rename(certificate.with_name("renamed.pem"))
        table = other.etc / "ssl_multicert.config"
        table.write_text(table.read_text().replace(certificate.name, "renamed.pem"))
        other.restart()
        stage.install(stage.window())
        yield stage


@each_version
def test_nodes_whose_default_certificates_have_other_names_resume_only_their_own(
    renamed: Stage, version: Version
) -> None:
    a, b = renamed.nodes

    ticket = renamed.visit(a, version)

    assert ticket.key_name == renamed.visit(b, version).key_name
    assert renamed.resumes(ticket, a)
    assert not renamed.resumes(ticket, b)
    assert farm.context(files_of(a)) != farm.context(files_of(b))
    assert farm.breakers(files_of(a)) == farm.breakers(files_of(b)) == ()


@pytest.mark.parametrize(
    ("record", "breaks"),
    [
        ("proxy.config.ssl.server.session_ticket.enable INT 0", tuple(Version)),
        ("proxy.config.ssl.server.session_ticket.number INT 0", (Version.TLS13,)),
    ],
)
def test_records_that_turn_tickets_off_are_certain(record: str, breaks: tuple[Version, ...]) -> None:
    with running(1, alone=True) as stage:
        with (stage.node.etc / "records.config").open("a") as records:
            records.write(f"CONFIG {record}\n")
        stage.node.restart()

        assert {version for version in Version if not resumes(stage, version)} == set(breaks)
        assert [breaker.certain for breaker in farm.breakers(files_of(stage.node))] == [True]


def test_a_ticket_key_file_of_its_own_is_certain_although_ours_seals_at_first() -> None:
    """It is read after plugins were started, so the plugin installs again; no later reload can be outdone."""
    with running(1, alone=True) as stage:
        own = stage.node.certificate_folder / "ticket.key"
        own.write_bytes(os.urandom(48))
        shutil.chown(own, stage.node.etc.owner())
        with (stage.node.etc / "records.config").open("a") as records:
            records.write(f"CONFIG proxy.config.ssl.server.ticket_key.filename STRING {own.name}\n")
        stage.node.restart()

        names = {key.name for key in decode(stage.node.key_file.read_bytes()).keys}

        assert stage.visit(stage.node).key_name in names
        assert [breaker.certain for breaker in farm.breakers(files_of(stage.node))] == [True]


def resumes(stage: Stage, version: Version) -> bool:
    ticket = stage.visit(stage.node, version)
    return ticket.session is not None and stage.resumes(ticket, stage.node)


def files_of(node: TrafficServer) -> farm.Files:
    return farm.Files(
        records=(node.etc / "records.config").read_text(),
        certificates=(node.etc / "ssl_multicert.config").read_text(),
    )
