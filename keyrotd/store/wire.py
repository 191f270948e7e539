"""
What is asked of a store, and one bound on time and bytes for each question, whatever it takes.

redis-py's own retries multiply its timeouts. Here a question is asked again once when the connection was lost before
it, and when a node says that another one should be asked; all of that within the one bound.
"""

import re
import threading
import time
from itertools import count
from typing import Any, Final

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store.addresses import Address
from keyrotd.store.ear import Ear
from keyrotd.store.line import FAILED, Bounds, Line, Words, converse, fileno, subscribe
from keyrotd.store.redispy import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisConnectionError,
    RedisError,
    RedisTimeoutError,
    ResponseError,
    TryAgainError,
)
from keyrotd.store.route import Turn, route_to
from keyrotd.store.scripts import Run

#: 64 offered windows take 4 MiB; only reports may take more.
ANSWER_BYTES: Final = 8_388_608

_SHOWN_CHARACTERS = 160
#: A slot that moves while we ask takes two or three; nodes that send us round in circles get no more than these.
_FOLLOWED = 8
_PAUSE_S = 0.01
#: What is said on a channel is short; whoever may publish may say anything, and as often.
_SAID_BYTES = 65_536

Command = Run | Words


class Wire:
    """
    Asks the one node that should be asked; finds it and connects by itself. Belongs to one thread.

    With an `ear` the connection also hears a channel: another thread may then watch `fileno`, and `listen`.
    """

    def __init__(self, address: Address, *, timeout_ms: int) -> None:
        self.address = address
        self.timeout_ms = timeout_ms
        self.ear: Ear | None = None
        self._route = route_to(address)
        self._bounds = Bounds()
        self._connection: Line | None = None
        self._listening = False
        self._turn = threading.RLock()  # whoever reads from the connection, reads alone

    def ask(self, operation: str, *commands: Command, answer_bytes: int = ANSWER_BYTES) -> list[Any]:
        """Send all commands in one round trip; a command's refusal is a ResponseError among the answers."""
        with self._turn:  # whoever listens just now puts the bounds back as it found them
            self._bounds.begin(self.timeout_ms, answer_bytes)
        return self.ask_on(operation, *commands)

    def ask_on(self, operation: str, *commands: Command) -> list[Any]:
        """Ask more, in what is left of the same bounds."""
        # That the server closed an idle connection shows only now, and says nothing about the server of this moment.
        if self._connection is not None:
            try:
                return self._exchange(commands)
            except FAILED as error:
                self._lose(error)
                if isinstance(error, RedisTimeoutError):
                    raise unavailable(self.address, operation, error, self.timeout_ms) from error
        try:
            return self._exchange(commands)
        except FAILED as error:
            self._lose(error)
            raise unavailable(self.address, operation, error, self.timeout_ms) from error

    def then(self, *command: str | bytes | int, answer_bytes: int = ANSWER_BYTES) -> Any:  # noqa: ANN401 - an answer has whatever shape the server gave it
        """
        Ask one thing more on the very same connection, in what is left of the same bounds; None if that fails.

        `answer_bytes` may narrow them.
        """
        if self._connection is None:
            return None
        with self._turn:
            self._bounds.left = min(self._bounds.left, answer_bytes)
        try:
            return self._exchange((command,))[0]
        except FAILED as error:
            self._lose(error)
            return None

    @property
    def remaining_ms(self) -> int:
        return int(self._bounds.remaining_s * 1000)

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.disconnect()
                self._connection, self._listening = None, False

    # Hearing.

    @property
    def fileno(self) -> int:
        """What to watch for something said; -1 while nothing can be."""
        line = self._connection
        return fileno(line) if self._listening and line is not None else -1

    def listen(self) -> None:
        """Take in what was said since the last question, and wait for nothing."""
        with self._turn:
            if not self._listening or self._connection is None:
                return
            try:
                with self._bounds.glancing(_SAID_BYTES):
                    while True:
                        self._connection.read_response(disconnect_on_error=False, push_request=True)
            except RedisTimeoutError:
                return
            except FAILED as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.close()
        if self.ear is not None:
            self.ear.lose(str(unavailable(self.address, "wait", error, self.timeout_ms)))
            self.ear.changed()

    def _subscribe(self, line: Line, ear: Ear) -> None:
        """Before anything is asked: what is published from now on is either read or heard of."""
        try:
            subscribe(line, ear.channel, ear.hear)
        except ResponseError as refusal:
            ear.refuse(str(unavailable(self.address, "wait", refusal, self.timeout_ms)))
        else:
            self._listening = True
            ear.begin()

    def _exchange(self, commands: tuple[Command, ...]) -> list[Any]:
        with self._turn:
            try:
                return self._asked(commands)
            finally:
                if self.ear is not None:
                    self.ear.changed()

    def _asked(self, commands: tuple[Command, ...]) -> list[Any]:
        for turns in count():
            if self._connection is None:
                self._connection = self._route.reach(self._bounds)
            if self.ear is not None and not self._listening and self.ear.due:
                self._subscribe(self._connection, self.ear)
            answers = _converse(self._connection, commands)
            for at, answer in enumerate(answers):
                if type(answer) is AskError:  # redis-py calls each MOVED an ASK too
                    answers[at] = self._aside(answer, commands[at])
            refusals = [answer for answer in answers if isinstance(answer, ResponseError)]
            turn = max(map(self._route.turn, refusals), default=Turn.STAY)
            if turn in {Turn.LEAVE, Turn.FOLLOW}:
                self.close()
            pause_s = _PAUSE_S * 2**turns
            if turn is Turn.WAIT and pause_s < self._bounds.remaining_s:
                time.sleep(pause_s)
            elif turn is not Turn.FOLLOW or turns == _FOLLOWED:
                break
        return answers

    def _aside(self, refusal: AskError, command: Command) -> Any:  # noqa: ANN401 - as `then`
        # Nothing but this very command may go there: another would be taken too, for a key that has yet to arrive.
        line = self._route.aside(refusal, self._bounds)
        if line is None:
            return refusal
        try:
            return _converse(line, (command,), before=(("ASKING",),))[0]
        finally:
            line.disconnect()


def _converse(line: Line, commands: tuple[Command, ...], *, before: tuple[Words, ...] = ()) -> list[Any]:
    """Ask all in one round trip, and once more if the node never saw a script: see scripts.py."""
    brief = [command.brief if isinstance(command, Run) else command for command in commands]
    answers = converse(line, [*before, *brief])
    if any(isinstance(answer, NoScriptError) for answer in answers):
        whole = [command.whole if isinstance(command, Run) else command for command in commands]
        answers = converse(line, [*before, *whole])
    return answers[len(before) :]


def unavailable(address: Address, operation: str, error: BaseException, timeout_ms: int) -> StoreUnavailable:
    """What a fault of the store means to us, with a hint where somebody can act; never a credential."""
    raw = f"{error.status_code} {error}" if isinstance(error, AskError) else str(error)  # redis-py leaves MOVED out
    words = "".join(character if character.isprintable() else " " for character in raw)[:_SHOWN_CHARACTERS]
    hint = _hint(error, words)
    if isinstance(error, RedisTimeoutError):
        words = f"no answer within {timeout_ms} ms"
    elif not isinstance(error, RedisError | OSError):
        words = f"an answer that cannot be used ({words or type(error).__name__})"
    return StoreUnavailable(f"store {address}: {operation}: {words}", operation=operation, hint=hint)


def _hint(error: BaseException, words: str) -> str | None:
    if words.startswith("sentinel ") and (hint := _hint_on_sentinels(error, words)):
        return hint
    if isinstance(error, AuthenticationError):
        return "set the user and password (or password_file) of store.url to what the store expects"
    if isinstance(error, NoPermissionError) or "can't run this command" in words or "can't access" in words:
        return "`keyrotd acl` prints the rights that each role needs"
    if isinstance(error, ReadOnlyError):
        return "store.url names a replica; name the primary"
    if isinstance(error, OutOfMemoryError):
        return "raise the store's maxmemory: a ring takes less than 1 MiB and 1 KiB a node"
    if isinstance(error, BusyLoadingError):
        return "the store is still loading its data; nothing to do"
    if "unknown command" in words.lower():
        return "keyrotd needs Redis 7.0 or later, or Valkey"
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return "name the authority that signed the store's certificate: store.url?ca_file=FILE"
    if isinstance(error, MovedError | AskError | ClusterCrossSlotError):
        return "store.url names a node of a cluster: write redis+cluster:// for redis://"
    if isinstance(error, ClusterDownError | TryAgainError):
        return "the cluster is moving slots or choosing a new primary; all keys stay until it is done"
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "is the store stopped or overloaded, or the way to it cut? all keys stay until it answers again"
    if _lacks_a_file(error, words):
        return "store.url names a file that cannot be read here: `keyrotd check` says which"
    if isinstance(error, RedisConnectionError | OSError):
        return "the store does not answer: does it run, and where store.url says? all keys stay until it does"
    return None


def _lacks_a_file(error: BaseException, words: str) -> bool:
    # password_file and its like are read anew at each connection. Of a certificate that is not there redis-py says
    # ENOENT as if a host had answered it, which none does; the path of a socket does.
    if isinstance(error, OSError) and error.filename is not None:
        return True
    return re.match(r"Error 2 connecting to [^/]", words) is not None


def _hint_on_sentinels(error: BaseException, words: str) -> str | None:
    if isinstance(error, AuthenticationError):
        return "set sentinel_password_file (and sentinel_username) of store.url to what the sentinels expect"
    if "monitors nothing" in words:
        return "after its sentinels store.url has the name that `sentinel monitor` gave to the primary"
    if "unknown command" in words:
        return "what listens there is no sentinel; sentinels listen on port 26379 by default"
    return None
