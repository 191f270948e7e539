import base64
import hashlib
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyrotd.cli.probe import probe
from keyrotd.core.messages import ProbeState
from keyrotd.core.stek import Scheme, Secrets, Stek
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.clients import Clients, Tally
from keyrotd.testing.haproxy import HAProxy
from keyrotd.tls.handshake import Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.probe import Matrix, Proof, matrix, prove
from keyrotd.tls.target import Target

PREVIOUS, CURRENT, NEXT, FOREIGN, NEXT_BUT_ONE = (
    Stek(hashlib.sha256(b"seed %d" % number).digest(), "edge").secrets(Scheme.AES256) for number in range(5)
)
BOTH = list(Version)


class Fleet:
    """Listeners that share keys, one with keys of its own, one without tickets, one of TLS 1.3 only."""

    def __init__(self, exe: Path, directory: Path) -> None:
        ca, site = new_authority(datetime.now(UTC)).write(directory)
        self.trust = Trust(str(ca))
        twin, foreign = directory / "twin.keys", directory / "foreign.keys"
        self.server = HAProxy("a", exe, directory / "a", site, extra_key_files=(twin, foreign))
        self.bare = WithoutTickets("bare", exe, directory / "bare", site)
        self.modern = OnlyTls13("modern", exe, directory / "modern", site)
        for file in (self.server.key_file, twin, self.bare.key_file, self.modern.key_file):
            file.write_text(lines(PREVIOUS, CURRENT, NEXT))
        foreign.write_text(lines(FOREIGN, FOREIGN, FOREIGN))
        self.a, self.twin, self.foreign = (Target("127.0.0.1", port) for port in self.server.ports)
        self.untold, self.new = Target("127.0.0.1", self.bare.port), Target("127.0.0.1", self.modern.port)

    def matrix(self, *targets: Target) -> Matrix:
        return matrix(targets, BOTH, sni="localhost", trust=self.trust, timeout_ms=5000)

    def prove(self, target: Target, current: Secrets) -> Proof:
        return prove(target, sni="localhost", trust=self.trust, current=current, scheme=Scheme.AES256, timeout_ms=5000)

    def clients(self, *targets: Target, lifetime_ms: int) -> Clients:
        return Clients(targets, lifetime_ms, self.trust, "localhost", lambda: time.time_ns() // 10**6, random.Random(7))


class WithoutTickets(HAProxy):
    @property
    def config(self) -> str:
        return super().config.replace(f"tls-ticket-keys {self.key_file}", "no-tls-tickets")


class OnlyTls13(HAProxy):
    @property
    def config(self) -> str:
        return super().config.replace("ssl-min-ver TLSv1.2", "ssl-min-ver TLSv1.3")


def lines(*keys: Secrets) -> str:
    # HAProxy reads 80 bytes as name, aes, hmac.
    return "".join(base64.b64encode(b"".join(key)).decode() + "\n" for key in keys)


@pytest.fixture(scope="module")
def fleet(haproxy_exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(haproxy_exe, tmp_path_factory.mktemp("fleet"))
    servers = (fleet.server, fleet.bare, fleet.modern)
    try:
        for server in servers:
            server.start()
        yield fleet
    finally:
        for server in servers:
            server.stop()


def told(shown: Matrix, version: Version) -> dict[tuple[Target, Target], str]:
    return {(offer.issuer, offer.taker): offer.state.value for offer in shown.offers if offer.version is version}


def run(fleet: Fleet, *words: str | Target) -> tuple[int, str]:
    trusted = ["--ca", str(fleet.trust.ca_file), "--sni", "localhost"]
    result = CliRunner().invoke(probe, [*map(str, words), *trusted])
    return result.exit_code, result.output


def test_tickets_of_servers_that_share_keys_resume_everywhere(fleet: Fleet) -> None:
    shown = fleet.matrix(fleet.a, fleet.twin)

    assert shown.resumes
    assert len(shown.offers) == 2 * 2 * len(BOTH)
    assert {sighting.outcome.key_name for sighting in shown.sightings if isinstance(sighting.outcome, Handshake)} == {
        CURRENT.name
    }


def test_other_keys_refuse_and_still_resume_their_own(fleet: Fleet) -> None:
    shown = fleet.matrix(fleet.a, fleet.foreign)

    for version in BOTH:
        assert told(shown, version) == {
            (fleet.a, fleet.a): "resumed",
            (fleet.a, fleet.foreign): "refused",
            (fleet.foreign, fleet.a): "refused",
            (fleet.foreign, fleet.foreign): "resumed",
        }


def test_without_tickets_tls_13_resumes_only_by_session_numbers_at_home(fleet: Fleet) -> None:
    shown = fleet.matrix(fleet.untold, fleet.a)

    assert told(shown, Version.TLS12)[fleet.untold, fleet.a] == "no_tickets"
    assert told(shown, Version.TLS13)[fleet.untold, fleet.a] == "refused"


def test_a_version_that_none_speaks_is_not_held_against_them(fleet: Fleet) -> None:
    alone, mixed = fleet.matrix(fleet.new), fleet.matrix(fleet.new, fleet.a)

    assert alone.resumes
    assert {sighting.version for sighting in alone.sightings} == {Version.TLS13}
    assert told(mixed, Version.TLS12)[fleet.a, fleet.new] == "reset"
    assert told(mixed, Version.TLS13)[fleet.a, fleet.new] == "resumed"


@pytest.mark.parametrize("listener", ["a", "new"])
def test_the_current_key_is_proven(fleet: Fleet, listener: str) -> None:
    """Also on a server that speaks TLS 1.3 only."""
    proof = fleet.prove(getattr(fleet, listener), CURRENT)

    assert proof == Proof(state=ProbeState.RESUMED, key_name=CURRENT.name, lifetime_hint_s=7200, took_ms=proof.took_ms)


@pytest.mark.parametrize(
    ("expected", "fault"),
    [
        (NEXT, "another key seals"),
        (CURRENT._replace(hmac=NEXT.hmac), "the key's name is right, the key is not"),
        (CURRENT._replace(hmac=bytes(32)), "the key's name is right, the key is not"),
    ],
)
def test_another_key_is_not_proven_even_under_the_right_name(fleet: Fleet, expected: Secrets, fault: str) -> None:
    proof = fleet.prove(fleet.a, expected)

    assert (proof.state, proof.fault, proof.key_name) == (ProbeState.WRONG_KEY, fault, CURRENT.name)


def test_a_server_without_tickets_proves_nothing(fleet: Fleet) -> None:
    assert fleet.prove(fleet.untold, CURRENT).state is ProbeState.NO_TICKETS


@pytest.mark.parametrize("version", Version)
def test_a_ticket_opens_until_its_key_is_retired(version: Version, haproxy_exe: Path, tmp_path: Path) -> None:
    """Each push takes HAProxy's ring one key on: after two, the key that sealed is gone."""
    ca, site = new_authority(datetime.now(UTC)).write(tmp_path)
    server = HAProxy("rotated", haproxy_exe, tmp_path / "rotated", site)
    server.key_file.write_text(lines(PREVIOUS, CURRENT, NEXT))
    server.start()
    try:
        target, context = Target("127.0.0.1", server.port), client_context(version, Trust(str(ca)))
        first = visit(target, context, sni="localhost", timeout_ms=5000)
        assert isinstance(first, Handshake)
        assert first.session is not None
        resumed = []
        for pushed in (FOREIGN, NEXT_BUT_ONE):
            server.ask(f"set ssl tls-key {server.key_file} {lines(pushed)}")
            again = resume(target, context, first.session, sni="localhost", timeout_ms=5000)
            assert isinstance(again, Handshake)
            resumed.append(again.resumed)
    finally:
        server.stop()

    assert first.key_name == CURRENT.name
    assert resumed == [True, False]


def test_clients_of_a_fleet_that_shares_keys_see_no_orphan(fleet: Fleet) -> None:
    crowd = fleet.clients(fleet.a, fleet.twin, lifetime_ms=60_000)

    tally = crowd.run(200, threads=2)

    assert (tally.handshakes, tally.orphans, tally.expired, tally.failed) == (200, 0, 0, 0)
    assert tally.resumed > 100


def test_clients_of_a_fleet_with_two_keys_see_orphans_and_name_them(fleet: Fleet) -> None:
    crowd = fleet.clients(fleet.a, fleet.foreign, lifetime_ms=60_000)

    with crowd.hammering(threads=2):
        wait_until(lambda: crowd.tally.orphans > 20, "clients come back to the wrong server")

    assert {(orphan.issuer, orphan.taker, orphan.key_name) for orphan in crowd.orphans} == {
        (fleet.a, fleet.foreign, CURRENT.name),
        (fleet.foreign, fleet.a, FOREIGN.name),
    }
    assert 0 < crowd.tally.resumption_ratio < 1


def test_clients_of_a_server_that_is_down_fail_and_count_no_orphan(fleet: Fleet) -> None:
    crowd = fleet.clients(Target("127.0.0.1", 1), lifetime_ms=60_000)

    assert crowd.run(3) == Tally(failed=3)
    assert [fault.state for _, fault in crowd.stories] == [ProbeState.UNREACHABLE] * 3


def test_the_command_says_all_is_well_and_exits_0(fleet: Fleet) -> None:
    code, said = run(fleet, fleet.a, fleet.twin, "--expect-key", CURRENT.name.hex(), "--lifetime", "2h")

    assert code == 0, said
    assert said.endswith("\n\nevery ticket resumes everywhere\n")
    assert said.count(f"tickets under key {CURRENT.name.hex()}, lifetime hint 7200 s") == 4
    assert said.count("yes") == 8


def test_the_command_names_who_refuses_whom_and_exits_1(fleet: Fleet) -> None:
    code, said = run(fleet, fleet.a, fleet.foreign, "--tls", "1.2", "--expect-key", FOREIGN.name.hex())

    assert code == 1
    assert f"error: {fleet.foreign}, TLS 1.2: refuses the tickets of {fleet.a}\nhint: " in said
    assert f"error: {fleet.a}, TLS 1.2: seals under key {CURRENT.name.hex()}, expected {FOREIGN.name.hex()}" in said
    assert said.endswith("not every ticket resumes everywhere\n")


def test_a_lifetime_hint_above_the_tickets_life_is_a_note(fleet: Fleet) -> None:
    code, said = run(fleet, fleet.a, "--tls", "1.2", "--lifetime", "1h30m")

    assert code == 0
    assert "lifetime hint 7200 s is above 5400 s" in said


def test_the_command_speaks_json_of_a_stable_shape(fleet: Fleet) -> None:
    code, said = run(fleet, fleet.new, "--json")

    document = json.loads(said)
    (sighting,) = document["sightings"]
    assert code == 0
    assert document == {
        "schema": 1,
        "resumes": True,
        "sightings": [
            {
                "target": str(fleet.new),
                "tls": "1.3",
                "state": "issues",
                "words": "",
                "key_name": CURRENT.name.hex(),
                "lifetime_hint_s": 7200,
                "certificate_sha256": sighting["certificate_sha256"],
                "took_ms": sighting["took_ms"],
            }
        ],
        "offers": [{"issuer": str(fleet.new), "taker": str(fleet.new), "tls": "1.3", "state": "resumed", "words": ""}],
        "findings": [],
    }


def test_json_says_every_state_in_one_word(fleet: Fleet) -> None:
    code, said = run(fleet, fleet.untold, Target("127.0.0.1", 1), "--json")

    assert code == 1
    assert [sighting["state"] for sighting in json.loads(said)["sightings"]] == [
        "no_tickets",
        "numbers",
        "unreachable",
        "unreachable",
    ]


def test_text_says_every_state_in_words(fleet: Fleet) -> None:
    code, said = run(fleet, fleet.untold, Target("127.0.0.1", 1))

    assert code == 1
    assert "  TLS 1.2  no tickets\n  TLS 1.3  session numbers, no sealed tickets\n" in said
    assert said.count("unreachable: connection refused") == 2
    assert said.count("error: 127.0.0.1:1: connection refused\nhint: ") == 1
