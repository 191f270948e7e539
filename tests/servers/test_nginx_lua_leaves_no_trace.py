"""nginx with the Lua reader: what left the window is nowhere in a worker's memory, and installing costs none of it."""

import hashlib
import os
import urllib.request
from collections.abc import Iterator

import pytest

from keyrotd.core.stek import Scheme
from tests.nginx_lua import Site, Stage, staged
from tests.nginx_sites import BOTH_VERSIONS, WORKERS, new_window
from tests.process_memory import copies, flags_where, writable

pytestmark = pytest.mark.debian

_MANY = 8
_HEAD_BYTES = 96
_DIGEST_BYTES = 32
_INSTALLS = 3_000

#: Until then LuaJIT compiles what runs often.
_WARMING_UP = 1_000

#: An allocator and a garbage collector may breathe; a key left behind by each install would not fit in.
_BREATH_BYTES = 192 * 1024


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.mark.parametrize("cold_key", [True, False], ids=["with a cold key", "without any key configured"])
def test_retired_keys_are_gone_once_the_new_window_is_acknowledged(stage: Stage, *, cold_key: bool) -> None:
    """Each secret of the window stands in one place of a worker's memory; of those that left it, in none."""
    window = new_window()
    site = stage.started("a", window, options="" if cold_key else "take_all = true,", cold_key=cold_key)
    _use(stage, site)
    retired = list(window.keys)
    for _ in range(3):
        window = window.rotated(keep=2)
        site.install(window)
        _use(stage, site)
        retired += window.keys

    live = [key for key in retired if key.name in window.names]
    gone = [key for key in retired if key.name not in window.names]
    for worker in site.workers:
        assert copies(worker, live) == {key.name.hex(): (1, 1) for key in live}
        assert copies(worker, gone) == {key.name.hex(): (0, 0) for key in gone}


def test_keys_are_kept_out_of_core_dumps(stage: Stage) -> None:
    """The kernel's own word on the pages where they stand: `dd`, do not dump."""
    window = new_window()
    site = stage.started("a", window)

    for worker in site.workers:
        assert "dd" in flags_where(worker, window.keys[0].secrets(Scheme.AES256).aes)


def test_nothing_is_left_of_a_refused_file(stage: Stage) -> None:
    site = stage.started("a", new_window())
    spoilt = new_window()

    site.write(spoilt.content[:-1] + bytes([spoilt.content[-1] ^ 1]))
    site.wait_for_fault("bad-digest")

    for worker in site.workers:
        assert set(copies(worker, spoilt.keys).values()) == {(0, 0)}


def test_expired_keys_are_gone_with_their_bound(stage: Stage) -> None:
    window = new_window().bounded(seals_ms=300, opens_ms=600)
    site = stage.site("a", window)
    site.nginx.start()
    site.wait_for_fault("expired")

    for worker in site.workers:
        assert set(copies(worker, window.keys).values()) == {(0, 0)}


def test_the_cold_key_is_gone_from_a_worker_that_has_a_window(stage: Stage) -> None:
    site = stage.started("a", new_window())
    secret = (site.nginx.directory / "cold.key").read_bytes()[16:48]

    assert [writable(worker).count(secret) for worker in site.workers] == [0] * WORKERS


_STORM = """
    location = /storm { content_by_lua_block {
        local function memory()
            collectgarbage()
            collectgarbage()
            local resident = io.open("/proc/self/status"):read("*a"):match("RssAnon:%s*(%d+)")
            return resident * 1024 .. " " .. math.floor(collectgarbage("count") * 1024)
        end
        for i = 1, tonumber(ngx.var.arg_installs) do
            assert(os.rename("DIRECTORY/windows/" .. i, "DIRECTORY/keys/tickets"))
            POLL(false)
            if i == tonumber(ngx.var.arg_warm) then
                ngx.say(memory())
            end
        end
        ngx.say(memory())
    } }
"""


def test_thousands_of_installs_do_not_grow_a_worker(stage: Stage) -> None:
    """A worker's memory and its Lua heap, after a thousand installs and after three thousand more."""
    site = stage.site("a", new_window())
    site.reader.before = """
        local every = ngx.timer.every
        ngx.timer.every = function(delay, poll) POLL = poll return every(delay, poll) end
    """
    site.reader.locations = _STORM.replace("DIRECTORY", str(site.nginx.directory))
    _write_windows(site)
    site.start()

    url = f"http://127.0.0.1:{site.plain_port}/storm?installs={_WARMING_UP + _INSTALLS}&warm={_WARMING_UP}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        first, last = ([int(number) for number in line.split()] for line in answer.read().splitlines())

    print(f"\nresident {first[0]}, then {last[0]} bytes; Lua heap {first[1]}, then {last[1]} bytes")
    assert last[0] - first[0] < _BREATH_BYTES
    assert last[1] - first[1] < _BREATH_BYTES
    assert site.nginx.said("epoch 1 installed") >= _WARMING_UP + _INSTALLS


def _write_windows(site: Site) -> None:
    directory = site.nginx.directory / "windows"
    directory.mkdir()
    body = new_window().content[:-_DIGEST_BYTES]
    for number in range(1, _WARMING_UP + _INSTALLS + 1):
        keys = body[:_HEAD_BYTES] + os.urandom(len(body) - _HEAD_BYTES)
        (directory / str(number)).write_bytes(keys + hashlib.sha256(keys).digest())
    # The storm is a worker's, who moves files about.
    for path in (directory, site.key_file.parent):
        path.chmod(0o777)


def _use(stage: Stage, site: Site) -> None:
    for client in map(stage.client, BOTH_VERSIONS):
        for target in site.targets:
            shake = client.visit(target)
            assert [client.resumes(shake, target) for _ in range(_MANY)] == [True] * _MANY
