"""What can go wrong, sorted by who must act; every error names the actor, the want and the find."""


class KeyrotdError(Exception):
    """A fault that keyrotd expected; `hint`, if any, says what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(KeyrotdError):
    """A person must edit a file. `faults` lists every (fault, hint) found, not only the first."""

    def __init__(self, faults: list[tuple[str, str | None]]) -> None:
        super().__init__("; ".join(fault for fault, _ in faults))
        self.faults = tuple(faults)


class StoreUnavailable(KeyrotdError):  # noqa: N818 - a state of the world, not a bug: wait, the next tick tries again
    """The store did not answer, or not in time. `operation` is a word of the port, for counting."""

    def __init__(self, message: str, *, operation: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.operation = operation


class LeaseLost(KeyrotdError):  # noqa: N818 - likewise: stand by at once
    """Another scheduler leads, or this one's lease ran out."""


class CorruptWindow(KeyrotdError):  # noqa: N818 - likewise: keep the old keys, page someone
    """Bytes that claim to be a window, beat, request or report and are not. `reason` is a closed set of words."""

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class InstallFailed(KeyrotdError):  # noqa: N818 - likewise: keep the old keys, retry, report behind
    """A server did not take, or did not show, the keys that it was given."""


class WeakSeed(KeyrotdError):  # noqa: N818 - likewise
    """A seed that no honest random source makes."""
