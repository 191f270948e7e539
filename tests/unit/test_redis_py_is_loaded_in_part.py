"""The daemons pay for redis-py's connections and not for its clients; whoever wants those gets them all the same."""

import subprocess
import sys
from pathlib import Path

_WHOLE = """
__version__ = "9"
from redis.connection import Connection
"""
_DEPENDS_ON_THE_WHOLE = """
from redis import __version__
class Connection: pass
"""


def test_connections_load_without_the_clients() -> None:
    loaded = "[name for name in ('redis', 'redis.client', 'redis.asyncio', 'redis.cluster') if name in sys.modules]"

    assert printed(f"import sys, keyrotd.store.wakes; print({loaded})") == "[]"


def test_the_whole_package_loads_later_and_is_made_of_the_same_modules() -> None:
    script = """
from keyrotd.store import redispy
import redis
assert redis.Redis and redis.asyncio.Redis
assert redis.RedisError is redispy.RedisError and redis.Connection is redispy.Connection
from redis.observability import attributes
print(attributes.redis.__version__ == redis.__version__)
"""

    assert printed(script) == "True"


def test_a_package_that_was_loaded_before_is_left_alone() -> None:
    script = "import redis; from keyrotd.store import redispy; print(redis.Connection is redispy.Connection)"

    assert printed(script) == "True"


def test_a_redis_py_that_cannot_be_taken_apart_is_loaded_whole(tmp_path: Path) -> None:
    package = tmp_path / "redis"
    package.mkdir()
    (package / "__init__.py").write_text(_WHOLE)
    (package / "connection.py").write_text(_DEPENDS_ON_THE_WHOLE)
    script = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from keyrotd.store import redis_apart
print([name for name in sys.modules if name.startswith("redis")])
from redis.connection import Connection
"""

    assert printed(script) == "[]"


def printed(script: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.strip()
