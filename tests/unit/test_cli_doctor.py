"""What `keyrotd doctor` makes of every sign: which are grave, which worth a note, and that each fault has a hint."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.cli import diagnosis, exits, farm_files
from keyrotd.cli.diagnosis import Daemon, Finding, Memory, Place, RingSeen, Use, Verdict
from keyrotd.cli.doctor import Diagnosis, Section, as_document, as_text
from keyrotd.config import ServerConfig
from keyrotd.core.keys import Installed
from keyrotd.core.keys import Place as Held
from keyrotd.core.stek import Scheme
from keyrotd.servers.trafficserver import TrafficServerDriver
from keyrotd.store.addresses import Address
from keyrotd.store.examine import Examined, Info, Rights
from tests.stage import HOUR, MINUTE, NOON, POLICY, beat, window_at

INFO = Info(
    product="Valkey",
    version="9.1.2",
    role="master",
    maxmemory=0,
    used_memory=1_000_000,
    eviction="noeviction",
    appendonly=True,
    failing=(),
    clients=10,
    maxclients=10_000,
    replicas=0,
)
RIGHTS = Rights(user="keyrotd-agent", passwordless=False, beyond=())
LOCAL = Address(path="/run/redis.sock")
REMOTE = Address(host="redis.example", port=6379, username="keyrotd-agent", password="hidden")
USE = Use(address=LOCAL, private=False, wait_replicas=0, reports=100)
OK, NOTE, GRAVE = Verdict


def verdicts(found: Iterable[Finding]) -> dict[str, Verdict]:
    """The worst of each check."""
    worst: dict[str, Verdict] = {}
    for finding in found:
        assert finding.hint or finding.verdict is OK, f"no hint: {finding.words}"
        order = list(Verdict)
        worst[finding.check] = max(worst.get(finding.check, OK), finding.verdict, key=order.index)
    return worst


def of_store(
    *, info: Info | None = INFO, use: Use = USE, rights: Rights = RIGHTS, snapshots: bool | None = True
) -> dict[str, Verdict]:
    examined = Examined(info=info, snapshots=snapshots, rights=rights, store_at=NOON)
    return verdicts(diagnosis.of_store(examined, use))


def test_a_store_as_it_should_be_is_all_ok() -> None:
    assert set(of_store().values()) == {OK}


@pytest.mark.parametrize(
    ("check", "verdict", "changes"),
    [
        ("store.version", GRAVE, {"version": "6.2.14", "product": "Redis"}),
        ("store.version", OK, {"version": "7.0.15", "product": "Redis"}),
        ("store.version", NOTE, {"version": ""}),
        ("store.eviction", GRAVE, {"maxmemory": 1, "eviction": "allkeys-lru"}),
        ("store.eviction", GRAVE, {"maxmemory": 1, "eviction": "allkeys-random"}),
        ("store.eviction", NOTE, {"maxmemory": 1, "eviction": "volatile-ttl"}),
        ("store.eviction", OK, {"maxmemory": 2_000_000, "eviction": "noeviction"}),
        ("store.eviction", NOTE, {"maxmemory": 1_100_000, "eviction": "noeviction"}),
        ("store.eviction", OK, {"maxmemory": 0, "eviction": "allkeys-lru"}),
        ("store.persistence", NOTE, {"appendonly": False}),
        ("store.persistence", GRAVE, {"failing": ("its last snapshot",)}),
        ("store.clients", GRAVE, {"maxclients": 115}),
        ("store.clients", GRAVE, {"clients": 10_000}),
        ("store.clients", NOTE, {"maxclients": 145}),
        ("store.clients", NOTE, {"clients": 9_000}),
        ("store.clients", NOTE, {"maxclients": None}),
        ("store.replicas", GRAVE, {"role": "slave"}),
        ("store.replicas", NOTE, {"replicas": 1}),
    ],
)
def test_each_fault_of_a_store_is_weighed(check: str, verdict: Verdict, changes: dict[str, object]) -> None:
    found = of_store(info=replace(INFO, **changes))  # type: ignore[arg-type]  # the table's own fields

    assert found.pop(check) is verdict
    assert set(found.values()) == {OK}


@pytest.mark.parametrize(("reports", "verdict"), [(7_000, OK), (9_000, NOTE), (9_984, NOTE), (9_985, GRAVE)])
def test_a_fleet_as_large_as_what_a_store_allows_by_default_is_told_in_time(reports: int, verdict: Verdict) -> None:
    assert of_store(use=replace(USE, reports=reports))["store.clients"] is verdict


@pytest.mark.parametrize(
    ("appendonly", "snapshots", "words"),
    [
        (False, True, "keeps snapshots only"),
        (False, False, "a restart empties it"),
        (False, None, "cannot be seen"),
        (None, False, "cannot be seen"),
    ],
)
def test_what_a_store_keeps_is_said_with_what_its_absence_means(
    appendonly: bool | None,  # noqa: FBT001 - a row of the table
    snapshots: bool | None,  # noqa: FBT001 - likewise
    words: str,
) -> None:
    (found,) = diagnosis.persistence(replace(INFO, appendonly=appendonly), snapshots=snapshots)

    assert words in found.words
    assert "the leader mends" in found.hint


def test_too_few_replicas_are_grave_only_for_whom_waits_for_them() -> None:
    waiting = replace(USE, wait_replicas=2)

    assert of_store(info=replace(INFO, replicas=1), use=waiting)["store.replicas"] is GRAVE
    assert of_store(info=replace(INFO, replicas=2), use=waiting)["store.replicas"] is OK


def test_what_may_not_be_asked_is_one_note_and_no_guess() -> None:
    unknown = Rights(user=None, passwordless=None, beyond=())

    assert of_store(info=None, snapshots=None, rights=unknown) == {
        "store.info": NOTE,
        "store.user": OK,
    }


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        (LOCAL, OK),
        (Address(host="127.0.0.1", port=6379), OK),
        (Address(host="::1", port=6379), OK),
        (Address(host="localhost", port=6379, password="p"), OK),
        (Address(host="redis.example", port=6379, tls=True, password="p"), OK),
        (Address(host="redis.example", port=6379), NOTE),
        (REMOTE, GRAVE),
        (Address(host="redis.example", port=6379, password_file="/run/secret"), GRAVE),
    ],
)
def test_a_password_in_clear_on_a_network_is_grave(address: Address, verdict: Verdict) -> None:
    assert diagnosis.transport(replace(USE, address=address)).verdict is verdict


@pytest.mark.parametrize(
    ("address", "found", "verdict"),
    [
        (REMOTE, RIGHTS, OK),
        (REMOTE, Rights(user="default", passwordless=True, beyond=()), GRAVE),
        (LOCAL, Rights(user="default", passwordless=True, beyond=()), NOTE),
        (LOCAL, Rights(user="app", passwordless=False, beyond=("empty the store",)), NOTE),
        (REMOTE, Rights(user="app", passwordless=None, beyond=("take the lease",)), NOTE),
    ],
)
def test_a_user_is_judged_by_what_it_may_do(address: Address, found: Rights, verdict: Verdict) -> None:
    assert of_store(use=replace(USE, address=address), rights=found)["store.user"] is verdict


def test_a_private_store_needs_no_users() -> None:
    wide = Rights(user="default", passwordless=True, beyond=("empty the store",))

    assert of_store(use=replace(USE, private=True), rights=wide)["store.user"] is OK


@pytest.mark.parametrize(
    ("apart_ms", "verdict", "words"),
    [
        (0, OK, "its clock agrees with this machine's"),
        (-9_000, OK, "its clock is 9s behind this machine's clock"),
        (-11_000, NOTE, "its clock is 11s behind this machine's clock"),
        (31_000, NOTE, "its clock is 31s ahead of this machine's clock"),
        (-6 * MINUTE, GRAVE, "its clock is 6m behind this machine's clock"),
    ],
)
def test_clocks_are_grave_where_a_scheduler_would_not_sign(apart_ms: int, verdict: Verdict, words: str) -> None:
    found = diagnosis.of_clock("store.clock", "its clock", NOON + apart_ms, NOON, eps_ms=10_000)

    assert (found.verdict, found.words) == (verdict, words)


WINDOW = window_at(NOON - 2 * MINUTE)
SEEN = RingSeen(
    window=WINDOW,
    beat=beat(WINDOW, signed_at=NOON - 400, confirmed_at=None),
    moved=False,
    refused=(),
    opened=True,
    leader="scheduler-1",
)


def of_ring(seen: RingSeen, now_at: int = NOON) -> dict[str, Verdict]:
    return verdicts(diagnosis.of_ring(seen, POLICY, now_at))


def test_a_ring_that_lives_is_ok() -> None:
    assert of_ring(SEEN) == {"ring.beat": OK, "ring.window": OK, "ring.kek": OK}


def test_a_beat_that_stands_still_is_grave_and_one_that_moves_is_not() -> None:
    old = replace(SEEN, beat=beat(WINDOW, signed_at=NOON - 2 * MINUTE, confirmed_at=None))

    assert of_ring(old)["ring.beat"] is GRAVE
    assert of_ring(replace(old, moved=True)) == {**of_ring(SEEN), "ring.clock": NOTE}
    assert of_ring(replace(SEEN, beat=None))["ring.beat"] is GRAVE


def test_a_leader_of_another_time_is_seen_by_its_moving_beat() -> None:
    ahead = replace(SEEN, moved=True, beat=beat(WINDOW, signed_at=NOON + HOUR, confirmed_at=None))

    assert of_ring(ahead)["ring.clock"] is GRAVE


def test_an_absent_an_expired_and_an_unproven_window_are_grave() -> None:
    unproven = replace(
        SEEN, window=None, opened=False, refused=(("the stored window: bad signature", "who wrote it?"),)
    )

    assert of_ring(replace(SEEN, window=None, opened=False))["ring.window"] is GRAVE
    assert of_ring(replace(SEEN, moved=True), WINDOW.seals_until + 1)["ring.window"] is OK  # our own clock is no judge
    assert of_ring(replace(SEEN, beat=None), WINDOW.seals_until)["ring.window"] is GRAVE
    assert of_ring(unproven) == {"ring.proof": GRAVE, "ring.beat": OK}


def at(mode: int | None, *, in_memory: bool = True, link: bool = False) -> Place:
    return Place(path=Path("/run/keyrotd/x"), mode=mode, in_memory=in_memory, link=link)


@pytest.mark.parametrize(("mode", "verdict"), [(0o644, OK), (0o640, OK), (0o664, GRAVE), (0o602, GRAVE)])
def test_a_configuration_holds_no_secret_and_nobody_else_may_change_it(mode: int, verdict: Verdict) -> None:
    assert diagnosis.of_config_file(at(mode)).verdict is verdict


def test_sealed_keys_belong_in_memory_and_floors_on_a_disk() -> None:
    memory, disk = at(0o700), at(0o700, in_memory=False)

    assert verdicts(diagnosis.of_runtime_dir(memory)) == {"host.runtime_dir": OK}
    assert verdicts(diagnosis.of_runtime_dir(disk)) == {"host.runtime_dir": GRAVE}
    assert verdicts(diagnosis.of_state_dir(memory)) == {"host.state_dir": GRAVE}
    assert verdicts(diagnosis.of_state_dir(disk)) == {"host.state_dir": OK}
    assert verdicts(diagnosis.of_runtime_dir(at(0o777))) == {"host.runtime_dir": GRAVE}
    assert verdicts(diagnosis.of_state_dir(at(None, in_memory=False))) == {"host.state_dir": NOTE}


@pytest.mark.parametrize(
    ("swaps", "lockable", "verdict"),
    [((), False, OK), (("/dev/sda2",), True, OK), (("/dev/sda2",), False, NOTE)],
)
def test_swap_is_told_where_memory_cannot_be_locked(swaps: tuple[str, ...], lockable: bool, verdict: Verdict) -> None:  # noqa: FBT001 - a row
    assert diagnosis.of_memory(Memory(swaps=swaps, lockable=lockable)).verdict is verdict


@pytest.mark.parametrize(
    ("locked", "swaps", "verdict"),
    [(True, ("/dev/sda2",), OK), (False, (), OK), (False, ("/dev/sda2",), GRAVE)],
)
def test_a_daemon_is_judged_by_what_it_did_and_not_by_what_this_shell_may(
    locked: bool,  # noqa: FBT001 - a row
    swaps: tuple[str, ...],
    verdict: Verdict,
) -> None:
    daemon = Daemon(kind="agent", pid=4711, locked=locked, dumps=False)

    assert verdicts(diagnosis.of_daemon(daemon, Memory(swaps=swaps, lockable=True))) == {"host.memory_lock": verdict}


def test_a_daemon_whose_cgroup_may_not_swap_needs_no_lock() -> None:
    daemon = Daemon(kind="agent", pid=4711, locked=False, dumps=False, swapless=True)

    found = verdicts(diagnosis.of_daemon(daemon, Memory(swaps=("/dev/sda2",), lockable=False)))

    assert found == {"host.memory_lock": OK}


def test_a_daemon_that_may_leave_a_core_is_grave() -> None:
    daemon = Daemon(kind="agent", pid=4711, locked=True, dumps=True)

    found = verdicts(diagnosis.of_daemon(daemon, Memory(swaps=(), lockable=True)))

    assert found == {"host.memory_lock": OK, "host.core": GRAVE}


def test_a_program_that_takes_core_dumps_is_named_without_its_arguments() -> None:
    found = diagnosis.of_core_pattern("|/usr/lib/systemd/systemd-coredump %P %u %g")

    assert found.verdict is NOTE
    assert "/usr/lib/systemd/systemd-coredump, " in found.words
    assert diagnosis.of_core_pattern("core").verdict is OK


CURRENT, NEXT = b"c" * 16, b"n" * 16
ROLES = {CURRENT: "current", NEXT: "next"}


def holding(seals: bytes | None, *, slots: int | None = 6) -> Installed:
    return Installed((Held("memory", Scheme.AES256, seals, frozenset(), slots),), "1")


@pytest.mark.parametrize(
    ("seals", "roles", "verdict"),
    [
        (CURRENT, ROLES, OK),
        (NEXT, ROLES, NOTE),
        (b"x" * 16, ROLES, GRAVE),
        (None, ROLES, GRAVE),
        (None, {}, GRAVE),
    ],
)
def test_a_server_must_seal_with_the_rings_current_key(
    seals: bytes | None, roles: dict[bytes, str], verdict: Verdict
) -> None:
    found = verdicts(diagnosis.of_server(holding(seals), POLICY, notice_delay_ms=0, roles=roles))

    assert found == {"server.observed": OK, "server.slots": OK, "server.keys": verdict}


def test_a_server_is_held_to_the_slots_that_it_really_has() -> None:
    short = replace(POLICY, ticket_lifetime_ms=4 * HOUR)

    enough = diagnosis.of_server(holding(CURRENT), short, notice_delay_ms=0, roles={})
    few = diagnosis.of_server(holding(CURRENT, slots=3), short, notice_delay_ms=0, roles={})

    assert verdicts(enough) == {"server.observed": OK, "server.slots": OK}
    assert verdicts(few) == {"server.observed": OK, "server.slots": GRAVE}


FOLDER = at(0o750)


@pytest.mark.parametrize(
    ("file", "folder", "verdict"),
    [
        (at(0o600), FOLDER, OK),
        (at(0o640), FOLDER, OK),
        (at(0o644), FOLDER, GRAVE),
        (at(0o660), FOLDER, GRAVE),
        (at(None), FOLDER, GRAVE),
        (at(0o600, in_memory=False), FOLDER, GRAVE),
        (at(0o777, link=True), FOLDER, GRAVE),
        (at(0o600), at(0o777), GRAVE),
        (at(0o600), at(0o777, link=True), GRAVE),
        (at(None), at(None), GRAVE),
    ],
)
def test_a_key_file_is_private_and_in_memory(file: Place, folder: Place, verdict: Verdict) -> None:
    assert verdicts([diagnosis.of_key_file(file, folder)]) == {"server.key_file": verdict}


def test_rings_that_nobody_manages_are_named_letter_by_letter() -> None:
    found = list(diagnosis.of_listed(["/run/a.keys", "/run/../run/b.keys"], ["/run/a.keys", "/run/b.keys"]))

    assert [(finding.verdict, finding.words) for finding in found] == [
        (NOTE, "has rings that keyrotd does not manage: /run/../run/b.keys")
    ]
    assert verdicts(diagnosis.of_listed(["/run/a.keys"], ["/run/a.keys"])) == {"server.unmanaged": OK}


def test_what_only_envoys_own_configuration_shows_is_judged() -> None:
    sound = verdicts(diagnosis.of_envoy([], logs_keys=False))
    spoilt = list(diagnosis.of_envoy(["127.0.0.1:8443", "admin"], logs_keys=True))

    assert sound == {"server.unmanaged": OK, "server.log": OK}
    assert verdicts(spoilt) == {"server.unmanaged": NOTE, "server.log": GRAVE}
    assert spoilt[0].words.endswith("of their own: 127.0.0.1:8443, admin")


@pytest.mark.parametrize(
    ("asks", "verdict"),
    [
        ({"a": False, "b": False}, OK),
        ({"a": True}, NOTE),
        ({"a": True, "b": True}, NOTE),
        ({"a": True, "b": False}, GRAVE),
        ({"a": None, "b": False}, NOTE),
    ],
)
def test_a_listener_that_asks_for_certificates_shares_with_none_that_does_not(
    asks: dict[str, bool | None], verdict: Verdict
) -> None:
    assert verdicts(diagnosis.of_requests(asks)) == {"probe.client_certificates": verdict}


def test_listeners_that_ask_for_certificates_of_different_authorities_share_no_ring() -> None:
    both = {"a": True, "b": True}
    one, other = frozenset({b"one"}), frozenset({b"other"})

    assert verdicts(diagnosis.of_requests(both, {"a": one, "b": one})) == {"probe.client_certificates": NOTE}
    assert verdicts(diagnosis.of_requests(both, {"a": one})) == {"probe.client_certificates": NOTE}
    assert verdicts(diagnosis.of_requests(both, {"a": one, "b": other})) == {"probe.client_certificates": GRAVE}


def test_nothing_is_said_of_certificates_where_nothing_was_probed() -> None:
    assert list(diagnosis.of_requests({})) == []


# How it is told.


def told(*findings: Finding, away: bool = False) -> Diagnosis:
    return Diagnosis((Section("host", findings),), store_away=away)


def test_only_what_is_grave_fails_and_a_store_that_is_away_has_its_own_code() -> None:
    fine, odd, bad = diagnosis.ok("a", "fine"), diagnosis.note("b", "odd", "look"), diagnosis.grave("c", "bad", "act")

    assert told(fine, odd).exit_code == exits.DONE
    assert told(fine, odd, bad).exit_code == exits.FAILED
    assert told(bad, away=True).exit_code == exits.STORE_AWAY


def test_findings_are_told_with_hints_and_counted() -> None:
    found = told(diagnosis.ok("a", "fine"), diagnosis.grave("c", "bad", "act"))

    assert list(as_text(found)) == [
        "host",
        "  ok: fine",
        "  grave: bad",
        "    hint: act",
        "1 ok, 0 to note, 1 grave",
    ]
    assert '"healthy": false' in as_document(found)


def test_what_breaks_a_farm_of_traffic_servers_is_grave_and_what_may_a_note(tmp_path: Path) -> None:
    driver = TrafficServerDriver(name="ats", key_file=Path("/k/k"), ack_dir=Path("/a"), config_dir=tmp_path)
    server = ServerConfig(name="ats", ring="edge", driver=driver, probe=None, sni=None, ca_file=None)
    records, certificates = tmp_path / "records.config", tmp_path / "ssl_multicert.config"
    records.write_text("CONFIG proxy.config.ssl.server.session_ticket.enable INT 1\n")
    certificates.write_text("dest_ip=* ssl_cert_name=site.pem\n")
    assert verdicts(farm_files.findings(server)) == {"server.farm": OK, "server.context": OK}

    certificates.write_text("dest_ip=192.0.2.1 ssl_cert_name=site.pem\n")
    assert verdicts(farm_files.findings(server)) == {"server.farm": NOTE, "server.context": OK}

    records.write_text("CONFIG proxy.config.ssl.server.session_ticket.enable INT 0\n")
    assert verdicts(farm_files.findings(server)) == {"server.farm": GRAVE, "server.context": OK}
    assert list(farm_files.findings(replace(server, driver=replace(driver, config_dir=None)))) == []
