"""Real processes: killed, frozen, told to stop or to reload, without a store, and under a clock that is set back."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from keyrotd.testing.children import start_child, wait_until
from keyrotd.testing.fleet import RING, Fleet, Pace
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.live import free_port
from tests.scenes import haproxies
from tests.servers_found import faketime, wheel_haproxy, wheel_valkey

PACE = Pace(rotation_interval="60s", poll_interval="200ms", lease_ttl="1500ms", node_ttl="1s")
LEASE_S, TICK_S = 1.5, 0.25
#: What a busy machine with two cores may add to any of this.
MARGIN_S = 2.0


class Scene:
    """A fleet of one node and two schedulers, whose daemons all listen."""

    def __init__(self, directory: Path, pace: Pace = PACE) -> None:
        self.ports = {name: free_port() for name in ("s1", "s2", "a1")}
        self.fleet = Fleet(
            directory,
            (partial(HAProxy, exe=wheel_haproxy()),),
            nodes=1,
            pace=pace,
            store_exe=wheel_valkey(),
            amend=self.listening,
        )

    def listening(self, name: str, text: str) -> str:
        return text.replace('listen = "off"', f'listen = "127.0.0.1:{self.ports[name]}"')

    def start(self) -> None:
        self.fleet.start()
        self.store = self.fleet.store()
        wait_until(lambda: self.fleet.in_step(self.store), "the first window is read back")

    def close(self) -> None:
        for child in self.fleet.processes.values():
            child.send_signal(signal.SIGCONT)
        self.fleet.close()

    def ring(self) -> list[str]:
        return haproxies(self.fleet)[0].ring()

    def leader(self) -> str:
        """Name of the scheduler that holds the lease, '' while none does."""
        leader = self.store.look().leader
        return next((n for n, child in self.fleet.processes.items() if f"-{child.pid}-" in leader), "")

    def until_leads(self, wanted: Callable[[str], bool], what: str) -> float:
        began_s = time.monotonic()
        wait_until(lambda: wanted(self.leader()), what)
        return time.monotonic() - began_s

    def until_steady(self) -> str:
        """Wait until somebody leads and the other one stands by; return the leader."""
        for number in (1, 2):
            if f"scheduler-{number}" not in self.fleet.processes:
                self.fleet.start_scheduler(number)
        wait_until(
            lambda: self.leader() != "" and all(self.ask(f"s{n}", "/readyz")[0] == 200 for n in (1, 2)), "steady"
        )
        return self.leader()

    def events(self, process: str, name: str) -> list[dict[str, Any]]:
        lines = (self.fleet.directory / f"{process}.log").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def ask(self, name: str, page: str) -> tuple[int, str]:
        line = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=5)
        try:
            line.request("GET", page)
            answer = line.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            line.close()

    def until_ready(self, name: str) -> None:
        wait_until(lambda: self.ask(name, "/readyz") == (200, "ready\n"), f"{name} is ready")

    def until_metric(self, name: str, row: str, value: float) -> None:
        wait_until(lambda: self.metric(name, row) == value, f"{name} says {row} {value}")

    def metric(self, name: str, row: str) -> float | None:
        found = re.search(rf"^{re.escape(row)} (\S+)$", self.ask(name, "/metrics")[1], re.MULTILINE)
        return None if found is None else float(found[1])

    def config(self, name: str, *changes: tuple[str, str]) -> None:
        path = self.fleet.config(name)
        text = path.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with TemporaryDirectory(prefix="kf", dir="/tmp") as directory:
        scene = Scene(Path(directory, "f"))
        try:
            scene.start()
            yield scene
        finally:
            scene.close()


def test_daemons_tell_machines_how_they_are(scene: Scene) -> None:
    leader = scene.until_steady()
    window = scene.fleet.window(scene.store)
    assert window is not None
    for name in scene.ports:
        assert scene.ask(name, "/livez") == (200, "alive\n")
        assert scene.ask(name, "/passwd")[0] == 404
        assert scene.metric(name, "keyrotd_config_last_reload_successful") == 1
        last_at = scene.metric(name, "keyrotd_last_tick_timestamp_seconds")
        assert last_at is not None
        assert abs(time.time() - last_at) < 10
    assert sum(scene.metric(name, f'keyrotd_leader{{ring="{RING}"}}') or 0 for name in ("s1", "s2")) == 1
    assert scene.metric("a1", f'keyrotd_installs_total{{outcome="installed",ring="{RING}",server="haproxy"}}') == 1
    for name in (f"s{leader[-1]}", "a1"):
        scene.until_metric(name, f'keyrotd_epoch{{ring="{RING}"}}', window.epoch)
    assert scene.metric("a1", f'keyrotd_isolated{{ring="{RING}"}}') == 0


def test_a_leader_told_to_stop_hands_over_before_its_lease_ends(scene: Scene) -> None:
    leader = scene.until_steady()

    scene.fleet.processes[leader].terminate()
    took_s = scene.until_leads(lambda found: found not in {leader, ""}, "the other one leads")
    scene.fleet.processes.pop(leader).wait(10)

    assert took_s < LEASE_S - TICK_S  # it did not wait for the lease: one tick, and what the machine takes
    assert [event["why"] for event in scene.events(leader, "lease.lost")][-1:] == ["stopping"]
    assert scene.events(leader, "daemon.stopped")


def test_a_leader_killed_is_followed_within_the_lease_and_a_tick(scene: Scene) -> None:
    leader, window = scene.until_steady(), scene.fleet.window(scene.store)

    scene.fleet.kill(leader)
    took_s = scene.until_leads(lambda found: found not in {leader, ""}, "the other one leads")

    assert took_s < LEASE_S + TICK_S + MARGIN_S
    assert scene.fleet.window(scene.store) == window


def test_a_leader_frozen_beyond_its_lease_wakes_up_fenced(scene: Scene) -> None:
    frozen, ring = scene.until_steady(), scene.ring()
    process = scene.fleet.processes[frozen]
    published = len(scene.events(frozen, "window.published"))
    lost = len(scene.events(frozen, "lease.lost"))
    process.send_signal(signal.SIGSTOP)
    try:
        scene.until_leads(lambda found: found not in {frozen, ""}, "the other one leads")
        heir = scene.leader()
    finally:
        process.send_signal(signal.SIGCONT)

    wait_until(lambda: len(scene.events(frozen, "lease.lost")) > lost, "it knows that it was overtaken")

    assert scene.leader() == heir
    assert len(scene.events(frozen, "window.published")) == published
    assert scene.ring() == ring
    assert scene.fleet.in_step(scene.store)


def test_a_broken_configuration_changes_nothing_and_a_good_one_is_taken(scene: Scene) -> None:
    leader = scene.until_steady()
    ring = scene.ring()
    names = {leader: f"s{leader[-1]}", "agent-1": "a1"}
    whole = {name: scene.fleet.config(name).read_text() for name in names.values()}
    worst = f'keyrotd_vulnerability_window_seconds{{kind="worst",ring="{RING}"}}'
    wait_until(lambda: scene.metric(names[leader], worst) is not None, "the leader has measured")
    before_s = scene.metric(names[leader], worst)
    try:
        for process, name in names.items():
            scene.config(name, ('ticket_lifetime = "4s"', 'ticket_lifetime = "8d"'), ("poll_interval", "pol_interval"))
            scene.fleet.processes[process].send_signal(signal.SIGHUP)
        for process, name in names.items():
            scene.until_metric(name, "keyrotd_config_last_reload_successful", 0)
            (fault,) = [each for each in scene.events(process, "fault.found") if each["fault"] == "configuration"]
            assert "pol_interval" in fault["text"]
            assert fault["hint"]
            assert scene.ask(name, "/readyz")[0] == 200
        assert scene.ring() == ring
        assert scene.metric(names[leader], worst) == before_s

        for process, name in names.items():
            scene.fleet.config(name).write_text(whole[name])
            scene.config(name, ('ticket_lifetime = "4s"', 'ticket_lifetime = "6s"'))
            with scene.fleet.config(name).open("a") as file:
                file.write('[log]\nlevel = "debug"\n')
            scene.fleet.processes[process].send_signal(signal.SIGHUP)
        for process, name in names.items():
            scene.until_metric(name, "keyrotd_config_last_reload_successful", 1)
            assert scene.events(process, "configuration.reloaded")
        wait_until(lambda: scene.metric(names[leader], worst) not in {before_s, None}, "the new policy is in force")
        assert scene.ring() == ring
    finally:
        for name, text in whole.items():
            scene.fleet.config(name).write_text(text)


def test_an_agent_that_ends_leaves_its_haproxy_alone_and_so_does_the_next_one(scene: Scene) -> None:
    scene.until_steady()
    ring, pid = scene.ring(), scene.fleet.servers[0].pid
    log = scene.fleet.directory / "agent-1.log"

    scene.fleet.stop("agent-1")
    assert scene.ring() == ring
    log.unlink()
    scene.fleet.start_agent(1)
    wait_until(lambda: scene.ask("a1", "/readyz")[0] == 200, "the new agent is ready")

    assert scene.ring() == ring
    assert scene.fleet.servers[0].pid == pid
    assert scene.events("agent-1", "cache.restored")
    assert scene.events("agent-1", "window.installed") == []


def test_a_store_that_ends_takes_nobody_out_of_service(scene: Scene) -> None:
    scene.until_steady()
    ring = scene.ring()
    scene.fleet.stop_store()
    try:
        wait_until(lambda: (scene.metric("a1", 'keyrotd_store_errors_total{operation="poll"}') or 0) > 1, "away")
        wait_until(lambda: (scene.metric("s1", 'keyrotd_store_errors_total{operation="lead"}') or 0) > 1, "away")
        for name in scene.ports:
            assert scene.ask(name, "/livez")[0] == scene.ask(name, "/readyz")[0] == 200
        assert scene.ring() == ring
        faults = [event for event in scene.events("agent-1", "fault.found") if event["fault"] == f"{RING}: store"]
        assert len(faults) == 1
        assert faults[0]["hint"]
    finally:
        scene.fleet.start_store()
    wait_until(lambda: scene.leader() != "" and scene.fleet.in_step(scene.store), "all is well again")
    assert scene.ring() == ring


#: However long a busy machine keeps a leader waiting, neither its lease nor a key ends by that.
PATIENT = replace(PACE, rotation_interval="1h", lease_ttl="60s")
#: Two hours are known from any delay.
STEP_S, FAR_S = 7_200, 1_800


@pytest.mark.debian
@pytest.mark.parametrize("step", ["-2h", "+2h"])
def test_a_real_clock_set_back_or_forward_under_a_leader(step: str) -> None:
    ask = [str(faketime()), "-f", "+0", "printenv", "LD_PRELOAD"]
    preload = subprocess.run(ask, capture_output=True, check=True, text=True).stdout.strip()
    with TemporaryDirectory(prefix="kf", dir="/tmp") as directory:
        stamp = Path(directory, "stamp")
        stamp.write_text("+0\n")
        scene = Scene(Path(directory, "f"), PATIENT)
        fleet = scene.fleet
        environment = {
            "LD_PRELOAD": preload,
            "FAKETIME_TIMESTAMP_FILE": str(stamp),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a clock that is set is not a machine that slept
        }
        try:
            fleet.start_store()
            config = fleet._configure("s1", agent=None)
            argv = [sys.executable, "-m", "keyrotd", "scheduler", "--config", str(config)]
            argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()), *argv]
            fleet.processes["scheduler-1"] = start_child(argv, log=fleet.directory / "scheduler-1.log")
            fleet.start_agent(1)
            wait_until(fleet.servers[0].key_file.exists, "the key file is written")
            fleet.servers[0].start()
            scene.store = fleet.store()
            wait_until(lambda: fleet.in_step(scene.store), "the first window is read back")
            window, ring = fleet.window(scene.store), scene.ring()
            beat_s = f'keyrotd_beat_timestamp_seconds{{ring="{RING}"}}'

            stamp.write_text(f"{step}\n")
            wait_until(lambda: _stepped(scene.metric("s1", "keyrotd_last_tick_timestamp_seconds")), "its clock is set")
            before_s = scene.metric("a1", beat_s) or 0
            wait_until(lambda: (scene.metric("a1", beat_s) or 0) >= before_s + 1, "the leader goes on")

            assert not _stepped(scene.metric("a1", beat_s))  # the fleet's time is as it was
            assert scene.metric("s1", f'keyrotd_lease_transitions_total{{ring="{RING}"}}') == 1
            assert (fleet.window(scene.store), scene.ring()) == (window, ring)

            fleet.stop("scheduler-1")  # a new start with that clock signs nothing
            fleet.pace = replace(PATIENT, lease_ttl=PACE.lease_ttl)  # whoever stands aside does so for a lease
            fleet._configure("s1", agent=None)
            fleet.processes["scheduler-1"] = start_child(argv, log=fleet.directory / "scheduler-1.log")
            wait_until(
                lambda: any("clocks disagree" in event["text"] for event in scene.events("scheduler-1", "fault.found")),
                "it says so",
            )
            assert scene.metric("s1", f'keyrotd_leader{{ring="{RING}"}}') in {0, None}
            stamp.write_text("+0\n")
            wait_until(lambda: scene.leader() == "scheduler-1", "it leads once its clock is right")
            assert (fleet.window(scene.store), scene.ring()) == (window, ring)
        finally:
            scene.close()


def _stepped(told_s: float | None) -> bool:
    return told_s is not None and abs(abs(told_s - time.time()) - STEP_S) < FAR_S
