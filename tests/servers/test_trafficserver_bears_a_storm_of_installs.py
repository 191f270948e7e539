"""Thousands of installs into a real Traffic Server: nothing leaks, nothing retired is left, all is taken up at once."""

import os
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from keyrotd.core.stek import Scheme
from keyrotd.servers.keyfile import KeyFile, digest
from keyrotd.servers.trafficserver import TrafficServerDriver
from keyrotd.testing.children import wait_until
from keyrotd.testing.trafficserver import TrafficServer
from keyrotd.tls.handshake import Version
from tests.trafficservers import CLOCK, Stage, ack, running, some_steks, write

pytestmark = [pytest.mark.debian, pytest.mark.long]

_STORM = 500

#: After this time Traffic Server has freed and wiped what was replaced: 60 s, and its own slack.
_FREED_S = 75.0


class Retired(NamedTuple):
    """Nodes that gave up keys, each in its own way, and what of those keys was secret."""

    stage: Stage
    secrets: list[bytes]


@pytest.fixture(scope="module", autouse=True)
def retired() -> Iterator[Retired]:
    """Begun first and looked at last: it takes Traffic Server a minute, which the other tests fill."""
    with running(2, alone=True) as stage:
        (replacing, expiring), steks = stage.nodes, some_steks(2)
        secrets = [part for stek in steks for part in stek.secrets(Scheme.AES128)[1:]]
        stage.install(stage.window(*steks))
        assert all(held(node, secrets) == set(secrets) for node in stage.nodes), "the scan does not see live keys"
        write(replacing, stage.window().encode())
        write(expiring, stage.window(*steks, opens_until_ms=CLOCK.boot_ms() + 500).encode())
        wait_until(lambda: ack(expiring).fault == "expired", "the bound comes")
        yield Retired(stage, secrets)


def test_a_storm_under_sanitisers_finds_no_fault_and_no_leak() -> None:
    """Good windows of every size, bounds that come, broken files, clients: AddressSanitizer and UBSan see all of it."""
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
    preload = f"LD_PRELOAD={runtime('libasan.so')}:{runtime('libubsan.so')}"
    with running(1, poll_ms=50, alone=True, built=(f"CXXFLAGS={flags}",), under=("env", preload)) as stage:
        node, pid = stage.node, stage.node.pid
        for number in range(_STORM):
            bound = CLOCK.boot_ms() if number % 7 == 0 else None
            install(stage, driver_of(node), stage.window(*some_steks(1 + number % 96), seals_until_ms=bound))
            if number % 50 == 0:
                node.key_file.write_bytes(os.urandom(number))
                stage.visit(node, list(Version)[number // 50 % 2])
        assert node.pid == pid
        node.stop()

        leak, count = lost(node.said)

        assert "Sanitizer" not in node.said.replace(leak, "")
        assert "runtime error" not in node.said
        assert 0 < count < 10, "the sanitiser is deaf, or something leaks"


def test_installs_are_taken_up_at_once_by_a_nudge_and_within_a_poll_without() -> None:
    """From before the file is written to the acknowledgement: the delays that the README tells."""
    with running(1, poll_ms=1_000) as stage:
        nudged = [install(stage, driver_of(stage.node), stage.window()) for _ in range(100)]
        alone = replace(driver_of(stage.node), nudge=None)
        polled = [install(stage, alone, stage.window()) for _ in range(5)]

    for way, found in (("nudged", nudged), ("polled every second", polled)):
        print(f"\ninstalled, {way}: median {statistics.median(found):.1f} ms, worst {max(found):.1f} ms")
    assert statistics.median(nudged) < statistics.median(polled)


def test_keys_that_were_replaced_or_have_expired_leave_the_processes_memory(retired: Retired) -> None:
    """Also those in the plugin's own hands, and in whatever they were read into."""
    nodes = retired.stage.nodes

    wait_until(lambda: not any(held(node, retired.secrets) for node in nodes), "no retired key is left", _FREED_S)


def driver_of(node: TrafficServer) -> TrafficServerDriver:
    return TrafficServerDriver(
        name=node.name,
        key_file=node.key_file,
        ack_dir=node.ack_dir,
        group=node.group,
        nudge=node.nudge,
        timeout_ms=20_000,
    )


def install(stage: Stage, driver: TrafficServerDriver, window: KeyFile) -> float:
    """How many ms it took from before the file was written to the acknowledgement."""
    content = window.encode()
    began = time.perf_counter()
    write(stage.node, content)
    driver.hurry()
    wait_until(lambda: ack(stage.node).digest == digest(content), "it installs")
    return (time.perf_counter() - began) * 1000


def runtime(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
    return str(Path(found.strip()).resolve())


def lost(said: str) -> tuple[str, int]:
    """The words of the leak report, and of how many allocations it tells. Traffic Server itself loses two."""
    found = re.search(r"=+\n==\d+==ERROR: LeakSanitizer.*?leaked in (\d+) allocation\(s\)\.", said, re.DOTALL)
    return (found[0], int(found[1])) if found else ("", 0)


def held(node: TrafficServer, secrets: list[bytes]) -> set[bytes]:
    """Which of them are anywhere in its memory."""
    return {secret for part in memory(node.pid) for secret in secrets if secret in part}


def memory(pid: int) -> Iterator[bytes]:
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if " rw" in line]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as bytes_of:
        for begin, end in ((int(begin, 16), int(end, 16)) for begin, end in spans):
            bytes_of.seek(begin)
            try:
                yield bytes_of.read(end - begin)
            except OSError:  # a guard page, or gone meanwhile
                continue
