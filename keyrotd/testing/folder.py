"""A folder's twin: a dict, whole or not at all like the real one."""

from dataclasses import dataclass, field


@dataclass
class MemoryFolder:
    """`full` makes every write fail as a full disk does."""

    files: dict[str, bytes] = field(default_factory=dict)
    full: bool = False

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.files[name] = data
