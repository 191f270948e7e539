"""
One section of a configuration file, read by the fields that it may have. Every fault is told, none stops the reading.

A field's text becomes what a driver takes (see `servers.catalogue.Type`); `into` is the name under which it takes it.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, assert_never

from keyrotd import durations
from keyrotd.servers.catalogue import REQUIRED, Field, Type

Fault: TypeAlias = tuple[str, str | None]

#: Nobody counts keys, slots or replicas beyond this.
MAX_COUNT = 1_000_000


@dataclass(frozen=True, slots=True)
class Section:
    """What one section says: values by key, converted, defaults filled in. A key with a fault has no value."""

    values: Mapping[str, Any]
    faults: tuple[Fault, ...]


def read(found: Mapping[str, object], fields: Mapping[str, Field], *, at: str, place: Callable[[str], Path]) -> Section:
    """Read `found` by `fields`; `at` names the section in faults, `place` says where a path leads."""
    values: dict[str, Any] = {}
    faults = [unknown(key, fields, at=at) for key in found if key not in fields]
    for key, field in fields.items():
        if key in found:
            try:
                values[key] = _converted(found[key], field, place)
            except Mismatch as mismatch:
                faults.append((f"{at}{key}: {mismatch}", mismatch.hint))
        elif field.default is REQUIRED:
            faults.append((f"{at}{key}: is missing", field.says))
        else:
            values[key] = field.default
    return Section(values, tuple(faults))


def unknown(key: str, known: Iterable[str], *, at: str) -> Fault:
    """Return the fault of a key that nobody knows, with the nearest that somebody does."""
    known = list(known)
    nearest = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    # A key is whatever the file says, so it is shown as a quotation where it is no plain word.
    shown = key if key.isidentifier() and key.isascii() else repr(key)
    return f"{at}{shown}: is not known", f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"


class Mismatch(Exception):  # noqa: N818 - a step on the way to a fault
    """A value is not what its field takes."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _converted(found: object, field: Field, place: Callable[[str], Path]) -> object:
    match field.type:
        case Type.TEXT:
            return _text(found, "a string")
        case Type.PATH:
            return place(_text(found, "a path"))
        case Type.PATHS:
            return tuple(place(path) for path in _texts(found, "a path or a list of paths"))
        case Type.WORDS:
            if isinstance(found, str):
                raise Mismatch("want a list of words, found one string", 'no shell splits it: ["/usr/bin/x", "-y"]')
            return tuple(_texts(found, "a list of words"))
        case Type.DURATION:
            return _duration(found)
        case Type.MODE:
            return _mode(found)
        case Type.COUNT:
            if not isinstance(found, int) or isinstance(found, bool):
                raise Mismatch(f"want a whole number, found {_shown(found)}")
            if not 0 <= found <= MAX_COUNT:
                raise Mismatch(f"want a number between 0 and {MAX_COUNT}, found {found}")
            return found
        case Type.CHOICE:
            return _choice(found, field.choices)
        case _:
            assert_never(field.type)


def _text(found: object, want: str) -> str:
    if not isinstance(found, str):
        raise Mismatch(f"want {want}, found {_shown(found)}")
    if not found or not found.isprintable():
        raise Mismatch(f"want {want}, found {'nothing' if not found else 'unprintable characters'}")
    return found


def _texts(found: object, want: str) -> Iterator[str]:
    if isinstance(found, list) and not found:
        raise Mismatch(f"want {want}, found an empty list")
    return (_text(item, want) for item in (found if isinstance(found, list) else [found]))


_VARIABLE = re.compile(r"\$(?:\$|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})?")


def located(text: str, folder: Path, environ: Mapping[str, str] | None) -> Path:
    """
    Where a path leads that stands in a configuration of `folder`. Raises Mismatch.

    `$NAME` and `${NAME}` stand for what `environ` has under that name, `$$` for `$`. None: nobody knows, and they stay.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if found[0] == "$$":
            return "$"
        if name is None:
            raise Mismatch("has a $ that begins no variable's name", "$NAME, ${NAME}, or $$ for a dollar sign")
        if environ is None:
            return found[0]
        if not environ.get(name):
            raise Mismatch(f"${name} is not set", _SYSTEMD if name == "CREDENTIALS_DIRECTORY" else f"set {name}")
        return environ[name]

    path = _text(_VARIABLE.sub(value, text), "a path")
    if _KEY.search(text) or _KEY.search(path):
        # Not as the name of a file: it would be told to whoever hears that there is no such file.
        raise Mismatch("holds a key itself, want the path of a file", "take it for known by others: make a new one")
    return folder / path


#: How a line of a key file begins: see seal/keyfiles.
_KEY = re.compile(r"keyrotd-[a-z-]+-[0-9]+:")

_SYSTEMD = "systemd sets it for a unit with LoadCredential=; at a shell set it to the folder of these files"


def _duration(found: object) -> int:
    if isinstance(found, int | float) and not isinstance(found, bool):
        raise Mismatch(f"want a duration with its unit, found the number {found}", f'is it "{found}s"?')
    try:
        return durations.parse(_text(found, 'a duration such as "1h30m"'))
    except ValueError as error:
        raise Mismatch(str(error), "units are d, h, m, s and ms, largest first, each once") from None


def _mode(found: object) -> int:
    if isinstance(found, str) and len(found) <= 5 and found.isascii() and found.isdigit() and not set(found) & {*"89"}:  # noqa: PLR2004 - "00640"
        return int(found, 8)
    raise Mismatch(f"want a file mode, found {_shown(found)}", 'in octal and in quotes: "0640"')


def _choice(found: object, choices: tuple[str, ...]) -> str:
    word = _text(found, f"one of {', '.join(choices)}")
    if word not in choices:
        nearest = difflib.get_close_matches(word, choices, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else None
        raise Mismatch(f"want one of {', '.join(choices)}, found {word!r}", hint)
    return word


def _shown(found: object) -> str:
    """What stands in the file, in TOML's words: a value may be a password in the wrong place, so it is not quoted."""
    if isinstance(found, bool):
        return f"the boolean {str(found).lower()}"
    if isinstance(found, int | float):
        return f"the number {found}"
    words: dict[type, str] = {str: "a string", list: "a list", dict: "a table"}
    return words.get(type(found), "a date or time")
