"""A store owner with a memory: keeps every value that a key ever had, and puts any of them back."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.faults.suite.stands import Alone

_LOOK_EVERY_S = 0.02


@dataclass
class Recorder:
    """What is absent is no value, and not brought back: that is FLUSHALL's affair."""

    stand: Alone
    rand: random.Random
    seen: dict[bytes, dict[bytes, int]] = field(default_factory=dict, init=False)
    replayed: int = field(default=0, init=False)

    @contextmanager
    def recording(self) -> Iterator[None]:
        stop = threading.Event()
        recorder = threading.Thread(target=self._record, args=(stop,))
        recorder.start()
        try:
            yield
        finally:
            stop.set()
            recorder.join()

    def replay(self, redis: Any) -> None:
        """Some value of some key comes back, with the time to live that it had."""
        key = self.rand.choice(list(self.seen))
        value, ttl_ms = self.rand.choice(list(self.seen[key].items()))
        redis.restore(key, ttl_ms, value, replace=True)
        self.replayed += 1

    def _record(self, stop: threading.Event) -> None:
        with self.stand.redis as redis:
            while not stop.wait(_LOOK_EVERY_S):
                for key in redis.scan_iter():
                    value, ttl_ms = redis.dump(key), redis.pttl(key)
                    if value is not None:
                        self.seen.setdefault(key, {})[value] = max(ttl_ms, 0)  # 0: it does not expire
