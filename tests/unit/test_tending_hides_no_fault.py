"""A server that is away, and a folder that cannot be written either: both are told."""

import random

from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import Keys
from keyrotd.core.messages import ServerState
from keyrotd.core.stek import SEED_BYTES, Stek
from keyrotd.daemon.tending import Orders, Server, tend
from keyrotd.testing.twins import MemoryServer

CHANCE = random.Random(1)


class Unwritable(MemoryServer):
    """Its file cannot be written; whether it runs is another matter."""

    def install(self, keys: Keys) -> None:
        _ = keys
        raise InstallFailed(f"server {self.name}: wants to write its file, no space left", hint="free space")


def fresh() -> Stek:
    return Stek(CHANCE.randbytes(SEED_BYTES), "edge")


def orders() -> Orders:
    return Orders(keys=Keys(current=fresh(), next=fresh(), previous=()), settled=True, ours=True)


def test_a_server_that_is_away_is_told_beside_the_file_that_cannot_be_written() -> None:
    server = Unwritable(name="h")
    server.stop()

    tended = tend(Server(driver=server, prove=None), orders(), None)

    assert tended.report.state is ServerState.FAILED
    assert tended.report.fault == "server h: wants to write its file, no space left; and server h: nobody is there"
    assert tended.hint == "free space"


def test_a_server_that_is_only_away_is_told_once() -> None:
    server = MemoryServer(name="h", file=True)
    server.stop()

    tended = tend(Server(driver=server, prove=None), orders(), None)

    assert (tended.report.state, tended.report.fault) == (ServerState.UNREACHABLE, "server h: nobody is there")
