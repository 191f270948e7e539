"""Keys fit into slots by their use, and a server is in step only if it shows exactly what was asked of it."""

from dataclasses import replace

from keyrotd.core.keys import Installed, Keys, Place, Tenure, in_step, names, shows
from keyrotd.core.stek import Scheme, Stek
from tests.unit.builders import stek

K1, K2, K3, K4, K5 = (stek(number) for number in range(1, 6))
KEYS = Keys(current=K3, next=K4, previous=(K2, K1))


def place(seals: Stek | None, opens: tuple[Stek, ...], *, slots: int | None = None) -> Place:
    prints = frozenset(key.secrets(Scheme.AES256).fingerprint for key in opens)
    sealing = None if seals is None else seals.secrets(Scheme.AES256).fingerprint
    return Place(where="socket", scheme=Scheme.AES256, seals=sealing, opens=prints, slots=slots)


def test_what_opens_is_current_next_then_previous() -> None:
    assert KEYS.opening == (K3, K4, K2, K1)


def test_three_slots_take_current_next_and_the_most_useful_previous() -> None:
    assert Keys(current=K3, next=K4, previous=(K2,)) == KEYS.fit(3)
    assert Keys(current=K3, next=K4) == KEYS.fit(2)
    assert KEYS.fit(9) == KEYS


def test_leaving_keys_linger_behind_all_others_until_the_fleet_confirmed() -> None:
    keys = Keys(current=K3, next=K4, previous=(K2,), leaving=(K1,))

    assert Keys(current=K3, next=K4, previous=(K2, K1)) == keys.lingering()
    assert Keys(current=K3, next=K4, previous=(K2,)) == keys.lingering().fit(3)


def test_a_place_that_holds_exactly_the_keys_shows_them() -> None:
    assert shows(place(K3, KEYS.opening), KEYS)
    assert shows(place(K3, (K3, K4, K2), slots=3), KEYS)


def test_the_wrong_key_sealing_is_seen() -> None:
    assert not shows(place(K4, KEYS.opening), KEYS)
    assert not shows(place(None, KEYS.opening), KEYS)


def test_a_missing_key_and_one_too_many_are_seen() -> None:
    assert not shows(place(K3, (K3, K4, K2)), KEYS)
    assert not shows(place(K3, (*KEYS.opening, K5)), KEYS)


def test_the_same_name_with_other_secrets_is_seen() -> None:
    other = Place(
        where="socket",
        scheme=Scheme.AES256,
        seals=K3.secrets(Scheme.AES128).fingerprint,
        opens=frozenset(key.secrets(Scheme.AES128).fingerprint for key in KEYS.opening),
        slots=None,
    )

    assert not shows(other, KEYS)


def test_one_place_out_of_step_puts_the_server_out_of_step() -> None:
    good, bad = place(K3, KEYS.opening), place(K2, KEYS.opening)

    assert in_step(Installed(places=(good, good), instance="1"), KEYS)
    assert not in_step(Installed(places=(good, bad), instance="1"), KEYS)


def test_a_server_that_shows_no_place_is_not_in_step() -> None:
    assert not in_step(Installed(places=(), instance="1"), KEYS)


def test_a_server_has_as_many_slots_as_its_least_place() -> None:
    places = (place(None, (), slots=5), place(None, (), slots=3), place(None, ()))

    assert Installed(places=places, instance="1").slots == 3
    assert Installed(places=(place(None, ()),), instance="1").slots is None


def test_names_are_public_and_carry_no_secret() -> None:
    keys = Keys(current=K3, next=K4, previous=(K2,), leaving=(K1,))

    assert names(keys) == tuple(key.name.hex() for key in (K3, K4, K2, K1))
    assert K3.seed.hex() not in repr(keys)
    assert repr(K3.seed) not in repr(keys)


def test_a_server_that_keeps_time_must_show_for_how_long_it_holds_its_keys() -> None:
    tenure = Tenure(boot_id="b", epoch=7, step=0, seals_until_ms=5_000, opens_until_ms=9_000)
    keys = replace(KEYS, tenure=tenure)

    assert shows(place(K3, KEYS.opening), keys)
    assert shows(replace(place(K3, KEYS.opening), tenure=tenure), keys)
    assert not shows(replace(place(K3, KEYS.opening), tenure=replace(tenure, seals_until_ms=4_000)), keys)
    assert not shows(replace(place(K3, KEYS.opening), tenure=tenure), KEYS)
    assert keys.fit(3).tenure == keys.lingering().tenure == tenure


def test_bounds_that_were_measured_twice_agree_and_others_do_not() -> None:
    tenure = Tenure(boot_id="b", epoch=7, step=0, seals_until_ms=5_000, opens_until_ms=None)

    assert replace(tenure, seals_until_ms=5_100).agrees(tenure, within_ms=100)
    assert not replace(tenure, seals_until_ms=5_101).agrees(tenure, within_ms=100)
    assert not replace(tenure, seals_until_ms=None).agrees(tenure, within_ms=100)
    assert not replace(tenure, opens_until_ms=5_000).agrees(tenure, within_ms=100)
    assert not replace(tenure, boot_id="c").agrees(tenure, within_ms=100)
    assert not replace(tenure, epoch=8).agrees(tenure, within_ms=100)
