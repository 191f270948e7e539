"""`keyrotd rekey`: change the keys that protect the keys, one stage at a time, and lock nobody out."""

import errno
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import click

from keyrotd import secrets
from keyrotd.cli.desk import Desk, SystemWatch, only_ring, open_desks
from keyrotd.cli.lockout import Judge, Shown, bound_to_others, look_twice, unaware_of
from keyrotd.cli.options import CONFIG_OPTION
from keyrotd.cli.situation import Situation
from keyrotd.cli.words import span
from keyrotd.config import Config, load
from keyrotd.core.decide import listed
from keyrotd.core.errors import ConfigError, KeyrotdError
from keyrotd.seal import keyedits
from keyrotd.seal.keyfiles import KEY_BYTES, K, Kek, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey
from keyrotd.servers import files

STAGES = ("add", "promote", "retire")
KINDS = ("kek", "signing", "operator")

_EPILOG = """
\b
Examples:
  keyrotd rekey kek add --ring edge       # then copy the file, and reload
  keyrotd rekey kek promote --ring edge   # likewise
  keyrotd rekey kek retire --ring edge    # likewise

\b
Exit code: 0 done, or it was done already; 1 refused, and nothing was changed unless it says what; 2 usage;
69 store away; 78 configuration.
"""


@click.command(epilog=_EPILOG)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("stage", type=click.Choice(STAGES))
@CONFIG_OPTION
@click.option("--ring", metavar="RING", help="Whose KEK; needed where the configuration has several.")
@click.option(
    "--without",
    "given_up",
    multiple=True,
    metavar="NODE",
    help="Lock this node out: it is gone, or not to be trusted. As often as needed.",
)
def rekey(config_path: Path, *, kind: str, stage: str, ring: str | None, given_up: tuple[str, ...]) -> None:
    """
    Change a long-lived key, from the host where `keyrotd init` made the secrets.

    Three stages, each an edit of the key files here, to be copied to the other hosts as it says: add (everyone learns
    to accept the new key), promote (it seals or signs), retire (the old one is refused). Promote and retire ask the
    live fleet first, twice and so long apart that every agent has spoken, and refuse while a node or the leader would
    be locked out, or a node's report cannot be proven. Comments in the files stay.
    """
    if kind != "kek" and ring is not None:
        raise click.UsageError(f"--ring is for kek: every ring has the same {kind} key")
    config = load(config_path)
    change = _change(config, kind, ring)
    with _alone(change):
        lines = {"add": _add, "promote": _promote, "retire": _retire}[stage](change, _Fleet(config, change, given_up))
        for line in lines:
            click.echo(line)


@dataclass(frozen=True, slots=True)
class KeyFile(Generic[K]):
    """One file of keys of one kind, here."""

    path: Path
    kind: type[K]

    def text(self) -> str:
        return secrets.text(self.path, self.kind)

    def read(self) -> tuple[K, ...]:
        return secrets.read(self.path, self.kind)

    def without(self, key_ids: Collection[str]) -> str:
        return keyedits.without(self.text(), self.kind, key_ids, str(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    Which files change: `own` has the keys that seal or sign, `public` (None for a KEK) those that everyone verifies by.

    `rings` are those whose nodes are concerned; `told` says, for each stage, who gets which file.
    """

    called: str
    command: str
    own: KeyFile[Any]
    public: KeyFile[Any] | None
    rings: tuple[str, ...]
    told: Mapping[str, str]

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.own.path,) if self.public is None else (self.own.path, self.public.path)

    def texts(self) -> tuple[str, str]:
        """What stands in `own` and in `public`."""
        return self.own.text(), "" if self.public is None else self.public.text()


def _change(config: Config, kind: str, ring: str | None) -> Change:
    match kind:
        case "kek":
            return _kek(config, only_ring(config, ring))
        case "signing":
            return _signing(config)
        case _:
            return _operator(config)


def _kek(config: Config, name: str) -> Change:
    path = next(ring.kek_file for ring in config.rings if ring.name == name)
    copy = f"copy {path} to every scheduler and every agent of ring {name}, in any order, and reload them"
    return Change(
        called="KEK",
        command=f"keyrotd rekey kek {{}} --ring {name}",
        own=KeyFile(path, Kek),
        public=None,
        rings=(name,),
        told=dict.fromkeys(STAGES, copy),
    )


def _signing(config: Config) -> Change:
    own = _needed(config, "signing_key_file", config.secrets.signing_key_file)
    public = config.secrets.verify_key_file
    return Change(
        called="signing key",
        command="keyrotd rekey signing {}",
        own=KeyFile(own, SigningKey),
        public=KeyFile(public, VerifyKey),
        rings=tuple(ring.name for ring in config.rings),
        told={
            "add": f"copy {public} to every host, and reload the daemons there; {own} stays here",
            "promote": f"copy {own} to every scheduler, and reload it",
            "retire": f"copy {own} to every scheduler and {public} to every host, in any order, and reload the daemons",
        },
    )


def _operator(config: Config) -> Change:
    own = _needed(config, "operator_key_file", config.secrets.operator_key_file)
    public = _needed(config, "operator_verify_key_file", config.secrets.operator_verify_key_file)
    return Change(
        called="operator key",
        command="keyrotd rekey operator {}",
        own=KeyFile(own, OperatorKey),
        public=KeyFile(public, OperatorVerifyKey),
        rings=tuple(ring.name for ring in config.rings),
        told={
            "add": f"copy {public} to every scheduler, and reload it; {own} stays here",
            "promote": f"give {own} to the people who had it",
            "retire": f"copy {public} to every scheduler, and reload it; give {own} to the people who had it",
        },
    )


def _needed(config: Config, key: str, path: Path | None) -> Path:
    if path is None:
        raise ConfigError(
            [(f"{config.path}: secrets.{key}: is missing", "run this where `keyrotd init` made the secrets")]
        )
    return path


# The stages. Each yields what was done and what a person is to do next; an error says if anything was changed.


def _add(change: Change, _fleet: "_Fleet") -> Iterator[str]:
    content, public = change.texts()
    found = keyedits.entries(content, change.own.kind, str(change.own.path))
    newest, missing = _newest(change), _missing_public(change)
    if len(found) > 1 and newest not in missing:
        first = newest == found[0].id
        raise KeyrotdError(
            f"{change.own.path}: holds {len(found)} keys, so a change is under way: {change.called} {newest} "
            + ("seals or signs, and an older one is left" if first else "was added, and not promoted"),
            hint=f"{change.command.format('retire' if first else 'promote')} goes on with it",
        )
    if len(found) == 1 and missing:
        raise KeyrotdError(
            f"{change.own.path}: {change.called} {newest} signs, and {change.public and change.public.path} lacks it",
            hint="the two files are of different fleets, or one was edited: `keyrotd check` lists every fault",
        )
    written: list[Path] = []
    if len(found) == 1:
        key = change.own.kind(os.urandom(KEY_BYTES))
        # Later than the one before, whatever our clock says: the mark tells which of the two is the newer.
        made_at = max(_now_at(), (found[0].made_at or 0) + 1)
        _write(change.own.path, keyedits.added(content, key, made_at), written)
        yield f"{change.own.path}: {change.called} {key.id} is added; {found[0].id} still seals or signs"
        newest = key.id
    # After the private file: a run that ends in between is taken up where it ended. No other key that the public file
    # lacks is put there: it was taken out by a retire that ended early.
    if change.public is not None:
        verify_key = next(key.verify_key for key in change.own.read() if key.id == newest)
        _write(change.public.path, keyedits.added(public, verify_key, _now_at()), written)
        yield f"{change.public.path}: knows {newest} too"
    yield from _next(change, "add", f"{change.command.format('promote')} refuses until everyone has it")


def _promote(change: Change, fleet: "_Fleet") -> Iterator[str]:
    before = change.texts()
    found = keyedits.entries(before[0], change.own.kind, str(change.own.path))
    newest = _newest(change)
    if newest == found[0].id:
        yield f"{change.own.path}: {change.called} {newest} is first already, nothing is changed"
    else:
        _refuse_unknown(change, newest)
        _refuse(change, "promoted", newest, fleet.unaware(newest))
        _refuse_edited(change, before)
        _write(change.own.path, keyedits.put_first(before[0], change.own.kind, newest, str(change.own.path)), [])
        yield f"{change.own.path}: {change.called} {newest} is promoted"
    rotated = "" if change.called == "operator key" else "; `keyrotd rotate --now` spares the wait for the next window"
    yield from _next(
        change, "promote", f"{change.command.format('retire')} refuses while the old key is in use{rotated}"
    )


def _retire(change: Change, fleet: "_Fleet") -> Iterator[str]:
    before = change.texts()
    found = keyedits.entries(before[0], change.own.kind, str(change.own.path))
    newest = _newest(change)
    old = tuple(entry.id for entry in found if entry.id != newest)
    if not old:
        yield f"{change.own.path}: {change.called} {newest} is the only one, nothing is changed"
    elif newest != found[0].id:
        raise KeyrotdError(
            f"{change.own.path}: {change.called} {newest} is not promoted; nothing was changed",
            hint=f"{change.command.format('promote')} comes first",
        )
    else:
        _refuse_unknown(change, newest)
        _refuse(change, "retired", listed(old), fleet.bound(newest, old))
        _refuse_edited(change, before)
        written: list[Path] = []
        # The public file first: which of its keys go, the private one tells, also to a run after one that ended early.
        if change.public is not None and {key.id for key in change.public.read()} & {*old}:
            _write(change.public.path, change.public.without(old), written)
        _write(change.own.path, change.own.without(old), written)
        yield f"{change.own.path}: {change.called} {listed(old)} is retired, {newest} stays"
    yield from _next(change, "retire", None)


def _next(change: Change, stage: str, after: str | None) -> Iterator[str]:
    yield f"next: {change.told[stage]}"
    if after is not None:
        yield f"then: {after}"


def _newest(change: Change) -> str:
    found = keyedits.newest(keyedits.entries(change.own.text(), change.own.kind, str(change.own.path)))
    if found is None:
        raise KeyrotdError(
            f"{change.own.path}: holds several keys, and no mark says which is the newest",
            hint="put `# made 2027-03-01T12:00:00.000Z`, with its own instant, on the line above the newest key",
        )
    return found.id


def _missing_public(change: Change) -> set[str]:
    """The ids of this host's private keys that the public file lacks."""
    if change.public is None:
        return set()
    return {key.id for key in change.own.read()} - {key.id for key in change.public.read()}


def _refuse_unknown(change: Change, key_id: str) -> None:
    if key_id in _missing_public(change):
        raise KeyrotdError(
            f"{change.own.path}: holds a key that is not in {change.public and change.public.path}",
            hint=f"{change.command.format('add')} puts it there",
        )


def _refuse_edited(change: Change, before: tuple[str, str]) -> None:
    """The fleet was asked about the files as they were."""
    if change.texts() != before:
        raise KeyrotdError(
            f"{change.own.path}: somebody changed the keys while the fleet was asked; this command changed nothing",
            hint="keep to `keyrotd rekey`, and try again",
        )


def _refuse(change: Change, done: str, key_ids: str, hindrances: Iterator[str]) -> None:
    found = list(dict.fromkeys(hindrances))
    if found:
        raise KeyrotdError(
            f"{change.called} {key_ids} is not {done}, nothing was changed: {listed(found, 20)}",
            hint="copy the files, reload, and try again a poll later; --without NODE leaves out a node that is gone "
            "for good, or whose report nobody can prove",
        )


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The live fleet, asked only when a stage needs to know."""

    config: Config
    change: Change
    given_up: tuple[str, ...]

    def unaware(self, key_id: str) -> Iterator[str]:
        """Who does not accept the key, with the ring where there are several."""
        nodes = self.change.own.kind is not OperatorKey  # nodes read no orders

        def judged(desk: Desk, shown: Shown, situation: Situation) -> Iterator[str]:
            found = unaware_of(key_id, shown, situation, nodes=nodes, given_up=self.given_up)
            return self._of(desk, found)

        return self._asked(judged)

    def bound(self, newest: str, old: Collection[str]) -> Iterator[str]:
        """What still needs one of the old keys."""
        if self.change.own.kind is OperatorKey:
            return self.unaware(newest)

        def judged(desk: Desk, shown: Shown, situation: Situation) -> Iterator[str]:
            found = bound_to_others(
                shown,
                situation,
                verifiers=tuple(key for key in desk.verifiers if key.id not in old),
                keks=tuple(kek for kek in desk.keks or () if kek.id not in old),
                given_up=self.given_up,
            )
            return self._of(desk, found)

        return self._asked(judged)

    def _asked(self, judged: Judge) -> Iterator[str]:
        nodes = self.change.own.kind is not OperatorKey
        with open_desks(self.config, self.change.rings) as opened:
            desks = [_proving(desk) if nodes else desk for desk in opened]
            yield from look_twice(desks, SystemWatch(), judged, again=_say_again)

    def _of(self, desk: Desk, hindrances: Iterator[str]) -> Iterator[str]:
        several = len(self.change.rings) > 1
        return (f"ring {desk.ring}: {words}" if several else words for words in hindrances)


def _say_again(pause_ms: int) -> None:
    click.echo(f"nothing hinders it so far; looking again in {span(pause_ms)}, when every agent has spoken", err=True)


def _proving(desk: Desk) -> Desk:
    if desk.keks is None:
        raise KeyrotdError(
            f"ring {desk.ring}: its KEK is not here, and it alone proves what the nodes say",
            hint="run this where `keyrotd init` made the secrets, or as a user who may read them",
        )
    return desk


def _now_at() -> int:
    return SystemWatch().wall_ms()


@contextmanager
def _alone(change: Change) -> Iterator[None]:
    """Be the only rekey that changes these files, all of which can be written."""
    change.texts()  # what cannot be read has words of its own
    for path in change.paths:
        _refuse_unwritable(path)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(change.own.path, _LOCK_MS))
        except TimeoutError as error:
            raise KeyrotdError(
                f"{change.own.path}: another `keyrotd rekey` is changing it; nothing was changed",
                hint="wait until it is done, then see what it did",
            ) from error
        except OSError as error:
            words, hint = files.words(error)
            told = f"{change.own.path}: cannot be locked: {words}; nothing was changed"
            raise KeyrotdError(told, hint=hint) from error
        yield


#: Another stage is over by then, unless it asks the fleet.
_LOCK_MS = 1_000


def _refuse_unwritable(path: Path) -> None:
    found, me = path.lstat(), os.geteuid()
    if not stat.S_ISREG(found.st_mode):
        raise KeyrotdError(
            f"{path}: is a link into what somebody else writes, as Kubernetes mounts secrets; nothing was changed",
            hint="change the files that the Secret is made of, on the host where they are kept, and apply it",
        )
    if _has_access_list(path):
        raise KeyrotdError(
            f"{path}: has an access list, which a new file in its place would not have; nothing was changed",
            hint="take it off (setfacl -b FILE, then chmod 0600), and put it back when the change is over",
        )
    foreign = found.st_uid != me or found.st_gid not in {os.getegid(), *os.getgroups()}
    if not os.access(path.parent, os.W_OK | os.X_OK) or (me != 0 and foreign):
        raise KeyrotdError(
            f"{path}: cannot be replaced, for the same readers, by user {me}; nothing was changed",
            hint="run this as root or as the owner of the files and of their directory",
        )


def _write(path: Path, content: str, written: list[Path]) -> None:
    """Replace a key file whole, for the same readers as before. `written` are those that this stage has replaced."""
    found = path.lstat()
    access = files.Access(mode=stat.S_IMODE(found.st_mode), owner=str(found.st_uid), group=str(found.st_gid))
    try:
        files.write(path, content.encode(), access)
    except OSError as error:
        words, hint = files.words(error)
        done = f"{listed([str(each) for each in written])} was changed already" if written else "nothing was changed"
        raise KeyrotdError(
            f"{path}: cannot be written: {words}; {done}",
            hint="; ".join(filter(None, (hint, "the same command takes it up again" if written else None))) or None,
        ) from error
    written.append(path)


def _has_access_list(path: Path) -> bool:
    # Where there is one, the mode's group bits are its mask, and say nothing of the group.
    try:
        return bool(os.getxattr(path, "system.posix_acl_access", follow_symlinks=False))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
