"""
What every driver must hold, as claims to run over a real server or a twin.

    @pytest.mark.parametrize("claim", CLAIMS)
    def test_my_driver(claim): ...
        claim(Subject(driver=MyDriver(...), sealed=..., shut=...))

Each claim wants a server of its own that has never held our keys. Claims raise AssertionError, and no key is in it.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import Installed, Keys, in_step
from keyrotd.core.stek import Stek
from keyrotd.servers.port import Driver

Rand = Callable[[int], bytes]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """
    A driver and what its author knows about the server behind it.

    `sealed`: the names of the keys that began to seal so far, oldest first, where that can be seen from outside.
    `shut`: inside of it the server is out of reach, and afterwards back with the keys that it had in memory, or with
    those of its file if it watches that by itself.
    """

    driver: Driver
    sealed: Callable[[], Sequence[bytes]] | None = None
    shut: Callable[[], AbstractContextManager[None]] | None = None


def installed_keys_are_read_back(subject: Subject, rand: Rand = os.urandom) -> None:
    keys = some_keys(rand, previous=1)

    subject.driver.install(keys)

    assert in_step(subject.driver.observe(), keys), "observe() shows other keys than were installed"


def keys_that_were_not_installed_are_not_shown(subject: Subject, rand: Rand = os.urandom) -> None:
    keys = some_keys(rand, previous=1)
    subject.driver.install(keys)

    swapped = Keys(current=keys.next, next=keys.current, previous=keys.previous)

    seen = subject.driver.observe()
    assert not in_step(seen, some_keys(rand, previous=1)), "foreign keys count as installed"
    assert not in_step(seen, swapped), "observe() does not tell which key seals"
    assert not in_step(seen, rotated(keys, rand)), "a rotation that has not happened counts as installed"


def nothing_changes_when_keys_are_installed_twice(subject: Subject, rand: Rand = os.urandom) -> None:
    keys = some_keys(rand, previous=1)
    subject.driver.install(keys)
    before, sealed = subject.driver.observe(), _sealed(subject)

    subject.driver.install(keys)

    assert subject.driver.observe() == before, "installing what is there changed it"
    assert _sealed(subject) == sealed, "installing what is there made a key seal anew"


def a_first_window_without_previous_keys_fits(subject: Subject, rand: Rand = os.urandom) -> None:
    keys = some_keys(rand, previous=0)

    subject.driver.install(keys)

    assert in_step(subject.driver.observe(), keys)


def a_rotation_seals_with_nothing_but_the_new_current(subject: Subject, rand: Rand = os.urandom) -> None:
    keys = some_keys(rand, previous=0)
    subject.driver.install(keys)
    for _ in range(4):
        keys, sealed = rotated(keys, rand), len(_sealed(subject))

        subject.driver.install(keys.lingering())

        assert in_step(subject.driver.observe(), keys.lingering())
        assert set(_sealed(subject)[sealed:]) <= {keys.current.name}, "a key sealed that is not current"


def the_least_useful_keys_are_cut(subject: Subject, rand: Rand = os.urandom) -> None:
    keys = some_keys(rand, previous=6)

    subject.driver.install(keys)

    seen = subject.driver.observe()
    assert in_step(seen, keys)
    for place in seen.places:
        slots = 2 + len(keys.previous) if place.slots is None else place.slots
        expected = {stek.secrets(place.scheme).fingerprint for stek in keys.fit(slots).opening}
        assert place.opens == expected, f"{place.where} does not open with the most useful keys"


def leaving_keys_are_gone_once_the_window_is_confirmed(subject: Subject, rand: Rand = os.urandom) -> None:
    keys = some_keys(rand, previous=1)
    subject.driver.install(keys)
    confirmed = Keys(current=keys.current, next=keys.next, leaving=keys.previous)
    subject.driver.install(confirmed.lingering())

    subject.driver.install(confirmed)

    seen = subject.driver.observe()
    assert in_step(seen, confirmed), "a key stays that opens no longer"


def revoked_keys_are_gone_at_once(subject: Subject, rand: Rand = os.urandom) -> None:
    burnt = some_keys(rand, previous=2)
    subject.driver.install(burnt)
    fresh = some_keys(rand, previous=0)

    subject.driver.install(fresh)

    for place in subject.driver.observe().places:
        left = {stek.secrets(place.scheme).fingerprint for stek in burnt.opening}
        assert not place.opens & left, f"{place.where} opens with a revoked key"


def an_unreachable_server_is_told_and_keeps_its_keys(subject: Subject, rand: Rand = os.urandom) -> None:
    if subject.shut is None:
        return
    keys = some_keys(rand, previous=1)
    subject.driver.install(keys)
    wanted = rotated(keys, rand)

    with subject.shut():
        assert _fails(subject.driver.observe), "observe() shows a server that cannot be reached"
        assert _fails(lambda: subject.driver.install(wanted)), "install() is content without a server"

    # One that reads its file by itself has the new keys by now; of the others none may have begun to seal.
    seen = subject.driver.observe()
    assert seals(seen, keys.current) or in_step(seen, wanted), "a failed install left neither the old nor the new keys"
    subject.driver.install(wanted)
    assert in_step(subject.driver.observe(), wanted), "what failed once cannot be done again"


CLAIMS: tuple[Callable[[Subject], None], ...] = (
    installed_keys_are_read_back,
    keys_that_were_not_installed_are_not_shown,
    nothing_changes_when_keys_are_installed_twice,
    a_first_window_without_previous_keys_fits,
    a_rotation_seals_with_nothing_but_the_new_current,
    the_least_useful_keys_are_cut,
    leaving_keys_are_gone_once_the_window_is_confirmed,
    revoked_keys_are_gone_at_once,
    an_unreachable_server_is_told_and_keeps_its_keys,
)


def check_driver(make: Callable[[], AbstractContextManager[Subject]]) -> None:
    """All claims, each on a fresh server."""
    for claim in CLAIMS:
        with make() as subject:
            claim(subject)


def some_keys(rand: Rand, *, previous: int, ring: str = "contract") -> Keys:
    """Fresh keys by role."""
    current, next_, *older = (Stek(rand(32), ring) for _ in range(2 + previous))
    return Keys(current=current, next=next_, previous=tuple(older))


def rotated(keys: Keys, rand: Rand) -> Keys:
    """One epoch on: every key one role further. Of three previous keys one may open no longer, and lingers."""
    former = (keys.current, *keys.previous, *keys.leaving)
    return Keys(
        current=keys.next,
        next=Stek(rand(32), keys.current.ring),
        previous=former[:2],
        leaving=former[2:],
    )


def seals(installed: Installed, stek: Stek) -> bool:
    """Whether `stek` is what some place of the server seals with."""
    return any(place.seals == stek.secrets(place.scheme).fingerprint for place in installed.places)


def _sealed(subject: Subject) -> Sequence[bytes]:
    return () if subject.sealed is None else tuple(subject.sealed())


def _fails(act: Callable[[], object]) -> bool:
    try:
        act()
    except InstallFailed:
        return True
    return False
