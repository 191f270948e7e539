"""
Two Debian 12 that really boot follow docs/systemd.md word by word, and are then treated badly.

They boot once, for all of these claims; each asks for what was written down meanwhile.
"""

import os

import pytest

from tests import booted, servers_found

pytestmark = [pytest.mark.debian, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    servers_found.systemd_nspawn()
    servers_found.mmdebstrap()
    if os.geteuid() != 0:
        pytest.skip("not run: only root boots a container")
    why_not = booted.forbidden(tmp_path_factory.mktemp("probe"))
    if why_not is not None:
        pytest.skip(f"not run: this machine boots no container: {why_not}")
    return booted.facts(tmp_path_factory.mktemp("hosts"))


def test_nothing_came_to_a_stop_on_the_way(facts: dict[str, str]) -> None:
    assert [f"{fact}: {value}" for fact, value in facts.items() if "given up" in fact] == []


def test_every_command_of_the_page_does_what_it_should(facts: dict[str, str]) -> None:
    ran = {fact.partition(": page ")[2]: value for fact, value in facts.items() if ": page " in fact}

    assert ran == dict.fromkeys(booted.blocks(), "0")


@pytest.mark.parametrize("unit", ["keyrotd-agent", "keyrotd-scheduler"])
def test_daemons_are_ready_and_little_exposed_by_the_running_manager(facts: dict[str, str], unit: str) -> None:
    exposure = facts[f"node1: exposure {unit}"]
    print(f"{unit}: exposure {exposure}, as the booted manager says")

    assert facts[f"node1: active {unit}"] == "active notify"
    assert facts[f"node1: verified {unit}"].split() == ["0"]
    assert float(exposure) <= 1.2


def test_each_host_resumes_the_other_s_tickets(facts: dict[str, str]) -> None:
    """`probe` leaves with 0 only if all do; `rotate --now`, only once both have read the next window back."""
    assert facts["node1: page from-your-own-machine-1"] == "0"
    assert "2 live" in facts["node1: fleet"]


def test_credentials_are_the_daemon_s_alone(facts: dict[str, str]) -> None:
    agent, scheduler = (f"/run/credentials/keyrotd-{role}.service" for role in ("agent", "scheduler"))
    shared = ["edge.kek", "store.password", "verify.key"]

    assert facts["node1: credential"] == "400 keyrotd yes"
    assert facts["node1: credential for a tls server"] == "no"
    assert facts["node1: secret for keyrotd"] == "no"
    assert facts["node1: agent sees"].split() == [f"{agent}/{name}" for name in shared]
    assert facts["node1: scheduler sees"].split() == [
        f"{scheduler}/{name}" for name in sorted([*shared, "operator-verify.key", "signing.key"])
    ]


def test_key_files_are_in_memory_and_for_members_of_the_group(facts: dict[str, str]) -> None:
    assert facts["node1: key file"] == "640 keyrotd keyrotd-tls tmpfs"
    assert facts["node1: key file for a member"] == "yes"
    assert facts["node1: key file for others"] == "no"
    assert facts["node1: state"] == "700 keyrotd"


def test_key_files_are_kept_over_a_stop_and_a_server_starts_from_them(facts: dict[str, str]) -> None:
    assert facts["node1: key file after stop"] == "640 keyrotd keyrotd-tls"
    assert facts["node1: haproxy without agent"] == "active inactive"


def test_a_group_of_somebody_else_s_needs_the_page_s_drop_in(facts: dict[str, str]) -> None:
    assert facts["node1: group without drop-in"] == "640 keyrotd keyrotd-tls"
    assert facts["node1: group with drop-in"] == "640 keyrotd haproxy"


def test_a_reload_is_taken_or_refused_by_one_process_that_runs_on(facts: dict[str, str]) -> None:
    assert facts["node1: reloaded"] == "active 0"
    assert facts["node1: bad reload"] == "active 0"
    assert facts["node1: one process"] == "yes"


def test_a_faulty_configuration_is_not_started_again_and_again(facts: dict[str, str]) -> None:
    """State, exit status and restarts."""
    assert facts["node1: bad start"] == "failed 78 0"


def test_the_watchdog_ends_a_daemon_that_hangs_and_another_one_starts(facts: dict[str, str]) -> None:
    assert facts["node1: watchdog"] == "1 active another process"
    assert facts["node1: watchdog said"] == "yes"


@pytest.mark.parametrize("unit", ["keyrotd-agent", "keyrotd-scheduler"])
def test_no_daemon_is_restarted_for_a_store_that_is_away(facts: dict[str, str], unit: str) -> None:
    """For more than three periods of the watchdog. Restarts, state, result."""
    assert facts["node1: store away said"] == "yes"
    assert facts[f"node1: store away {unit}"] == "0 active success"
    assert facts["node1: well again"] == "0"


def test_an_agent_starts_without_the_store(facts: dict[str, str]) -> None:
    assert facts["node1: start without store"] == "active"


def test_a_server_that_boots_first_waits_for_its_key_file(facts: dict[str, str]) -> None:
    """HAProxy, its agent, and how often HAProxy had to be started again."""
    assert facts["node2: boot order"] == "active active 0"


def test_an_upgrade_starts_new_processes(facts: dict[str, str]) -> None:
    assert facts["node1: upgraded"] == "active"


def test_uninstalling_leaves_nothing_behind(facts: dict[str, str]) -> None:
    assert facts["node2: left behind"].strip() == ""


def test_one_machine_runs_and_comes_back_when_its_store_dies(facts: dict[str, str]) -> None:
    assert facts["node2: standalone"] == "active 0"
    assert float(facts["node2: standalone exposure"]) <= 1.2
    assert facts["node2: standalone without its store"] == "1 active"


@pytest.mark.parametrize("unit", ["keyrotd-agent", "keyrotd-scheduler"])
def test_no_daemon_may_dump_core(facts: dict[str, str], unit: str) -> None:
    assert facts[f"node1: core limit {unit}"] == "0 0"


def test_pages_are_locked_where_systemd_may_raise_the_limit(facts: dict[str, str]) -> None:
    most, locked = facts["node1: locks"].split()
    if most != "unlimited":
        pytest.skip(f"not run: on this machine nobody in a container may lock more than {most} KiB")

    assert locked == "1"


def test_hosts_that_no_unit_names_are_out_of_reach(facts: dict[str, str]) -> None:
    if facts["node2: out of reach of a unit that names nobody"] == "reached":
        pytest.skip("not run: on this machine systemd cannot filter addresses (no cgroup of version 2 with eBPF)")

    assert "not permitted" in facts["node2: out of reach of a unit that names nobody"].lower()
