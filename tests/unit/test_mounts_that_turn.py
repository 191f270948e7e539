"""A daemon watches the mounts of the configuration that it goes by, and tries a turn again that it could not take."""

from pathlib import Path

import pytest

from keyrotd.cli.reload import Turns
from keyrotd.testing.clock import FakeClock


class Mount:
    """A file behind a link that is turned."""

    def __init__(self, folder: Path) -> None:
        self.path, self.folder, self.turns = folder / "key", folder, 0
        folder.mkdir()
        self.path.symlink_to("..data/key")
        self.turn()

    def turn(self) -> None:
        self.turns += 1
        (self.folder / f"..{self.turns}").mkdir()
        (self.folder / f"..{self.turns}/key").touch()
        (self.folder / "..new").symlink_to(f"..{self.turns}")
        (self.folder / "..new").rename(self.folder / "..data")


class HandClock(FakeClock):
    def __init__(self) -> None:
        self.now_at = 1_000_000
        super().__init__(lambda: self.now_at)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_a_turn_is_seen_once_when_it_is_taken(tmp_path: Path, clock: HandClock) -> None:
    mount = Mount(tmp_path / "m")
    turns = Turns([mount.path], clock)
    assert not turns.seen()

    mount.turn()
    assert turns.seen()
    turns.begin()
    turns.taken([mount.path])

    clock.now_at += 60_000
    assert not turns.seen()


def test_a_turn_that_could_not_be_taken_is_tried_again_after_a_pause(tmp_path: Path, clock: HandClock) -> None:
    mount = Mount(tmp_path / "m")
    turns = Turns([mount.path], clock)

    mount.turn()
    assert turns.seen()
    turns.begin()
    assert not turns.seen()

    clock.now_at += 10_000
    assert turns.seen()


def test_another_turn_is_not_kept_waiting(tmp_path: Path, clock: HandClock) -> None:
    mount = Mount(tmp_path / "m")
    turns = Turns([mount.path], clock)
    mount.turn()
    assert turns.seen()

    mount.turn()

    assert turns.seen()


def test_the_paths_of_a_fresh_configuration_are_watched(tmp_path: Path, clock: HandClock) -> None:
    old, new = Mount(tmp_path / "old"), Mount(tmp_path / "new")
    turns = Turns([old.path], clock)
    turns.begin()
    turns.taken([new.path])

    old.turn()
    assert not turns.seen()
    new.turn()
    assert turns.seen()


def test_a_turn_during_a_reload_is_another_turn(tmp_path: Path, clock: HandClock) -> None:
    mount = Mount(tmp_path / "m")
    turns = Turns([mount.path], clock)
    turns.begin()

    mount.turn()
    turns.taken([mount.path])

    assert turns.seen()
