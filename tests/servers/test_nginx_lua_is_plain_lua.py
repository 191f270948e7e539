"""nginx's Lua reader names no global and no variable that is not there: Lua itself would say so only when it runs."""

import subprocess

import pytest

from tests.nginx_lua import LUA
from tests.servers_found import luacheck

pytestmark = pytest.mark.debian


def test_luacheck_finds_nothing() -> None:
    argv = (luacheck(), "--std", "ngx_lua", "--max-line-length", "120", "--no-color", LUA)

    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
