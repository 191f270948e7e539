"""What an idle agent costs: its memory, its share of a core, what it asks of the store; and the price of `--help`."""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run

from keyrotd.store import addresses
from keyrotd.store.redis import RedisStore
from keyrotd.testing.children import wait_until
from keyrotd.testing.fleet import Fleet, Pace
from keyrotd.testing.live import LiveServer
from tests.bench.lines import Lines, timed_ms
from tests.bench.relay import Relay
from tests.scenes import short_directory, started

#: Nothing is due while anybody looks. The first window comes fast, then the agent starts again with its usual poll.
_IDLE = Pace(rotation_interval="4h", ticket_lifetime="2h", overdue_after="30m", poll_interval="250ms", node_ttl="30s")
_USUAL_POLL = "5s"
_CPU_S = 30.0
_POLLS = 40
#: Every poll says it once, and nothing else does.
_POLL = b"GETRANGE"


def memory(lines: Lines) -> None:
    with _one_node() as (fleet, line):
        _start_agent_anew(fleet, line, poll_interval=_USUAL_POLL)
        agent = status_mib(fleet.processes["agent-1"].pid)
        scheduler = status_mib(fleet.processes["scheduler-1"].pid)
    locked = agent["VmLck"]
    lines.judge("agent, resident (VmRSS)", agent["VmRSS"], "MiB", most=48)
    lines.say("  memory locking", f"on: VmLck {locked:.0f} MiB of mappings" if locked else "OFF: not allowed here")
    lines.figure("scheduler, resident", scheduler["VmRSS"], "MiB")
    lines.figure("a bare interpreter, resident", _bare_interpreter_mib(), "MiB")


def cpu(lines: Lines) -> None:
    with _one_node() as (fleet, line):
        _start_agent_anew(fleet, line, poll_interval=_USUAL_POLL)
        pid = fleet.processes["agent-1"].pid
        spent_s, began_s = cpu_s(pid), time.monotonic()
        time.sleep(_CPU_S)
        share = (cpu_s(pid) - spent_s) / (time.monotonic() - began_s)
    lines.judge(f"idle agent over {_CPU_S:.0f} s, a poll every {_USUAL_POLL}", 100 * share, "% of a core", most=0.5)


def store(lines: Lines) -> None:
    with (
        _one_node() as (fleet, line),
        Relay(fleet.relay_path, to=addresses.embedded_socket(fleet.directory)) as relay,
    ):
        fleet.relayed = True
        _start_agent_anew(fleet, line, poll_interval="250ms")
        before = relay.count(_POLL)
        wait_until(lambda: relay.count(_POLL).asked >= before.asked + _POLLS, "the agent polls")
        after = relay.count(_POLL)
        fleet.stop("agent-1")
    polls = after.asked - before.asked
    lines.judge("round trips an idle poll", (after.round_trips - before.round_trips) / polls, "", most=1)
    lines.judge("reply to an idle poll", (after.answered_bytes - before.answered_bytes) / polls, "bytes", most=400)


def help_time(lines: Lines) -> None:
    exe = Path(sys.executable).with_name("keyrotd")
    told = timed_ms(lambda: run([exe, "--help"], check=True, stdout=DEVNULL), 20)
    bare = timed_ms(lambda: run([sys.executable, "-c", "pass"], check=True), 20)
    lines.judge("keyrotd --help, median of 20", statistics.median(told), "ms", most=100)
    lines.spread("python -c pass", bare, "ms")


@dataclass
class OneNode(Fleet):
    """One scheduler, one agent; with `relayed` the agent reaches the store through `relay_path`."""

    nodes: int = 1
    schedulers: int = 1
    relayed: bool = False

    @property
    def relay_path(self) -> Path:
        return self.directory / "relay.sock"

    def _configure(self, name: str, *, agent: LiveServer | None) -> Path:
        path = super()._configure(name, agent=agent)
        if self.relayed and agent is not None:
            path.write_text(path.read_text().replace(self.store_url, f"unix://{self.relay_path}"))
        return path


@contextmanager
def _one_node() -> Iterator[tuple[OneNode, RedisStore]]:
    with short_directory() as directory:
        fleet = OneNode(directory, pace=_IDLE)
        with started(fleet) as operator:
            yield fleet, operator.store


def _start_agent_anew(fleet: OneNode, store: RedisStore, *, poll_interval: str) -> None:
    """Return when it has installed, probed and reported in its new life."""

    def said() -> int:
        return max((report.counter for report in fleet.reports(store)), default=0)

    last_word = said()
    fleet.stop("agent-1")
    fleet.pace = replace(fleet.pace, poll_interval=poll_interval)
    fleet.start_agent(1)
    wait_until(lambda: said() > last_word + 1 and fleet.in_step(store), "the agent is in step again")


def status_mib(pid: int) -> dict[str, float]:
    rows = (row.split() for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].removesuffix(":"): int(words[1]) / 1024 for words in rows if words[-1] == "kB"}


def cpu_s(pid: int) -> float:
    # proc(5): utime and stime are fields 14 and 15; the name in field 2 may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bare_interpreter_mib() -> float:
    argv = [sys.executable, "-c", "print(flush=True); input()"]
    with Popen(argv, stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        resident = status_mib(child.pid)["VmRSS"]
        child.communicate(b"\n")
    return resident
