"""What an operator asks for is done, refused or late, and said so node by node."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from keyrotd.cli import exits
from keyrotd.cli.desk import observe
from keyrotd.cli.forecast import asking
from keyrotd.cli.main import run
from keyrotd.cli.orders import Terms, ordered, question, refuse_rotation, still_burning
from keyrotd.cli.situation import foresee
from keyrotd.cli.words import instant
from keyrotd.core.decide import Hold
from keyrotd.core.errors import KeyrotdError, StoreUnavailable
from keyrotd.core.messages import Goal, Report, Request
from keyrotd.core.policy import Interval
from keyrotd.seal.keyfiles import OperatorKey, make_secrets
from keyrotd.seal.messages import write_report
from keyrotd.store.memory import Fault
from tests.stage import KEK, MINUTE, OPERATOR, POLICY, RING, SIGNER, Stage

TERMS = Terms(operator=OPERATOR, wait=True, timeout_ms=60_000, id="one")


def settled(stage: Stage) -> Stage:
    stage.pause(2 * MINUTE)
    return stage


def asked(stage: Stage, goal: Goal = Goal.ROTATE, *, drop_live_keys: bool = False) -> Request:
    return asking(goal, observe(stage.desk(), stage), who="ann@ops", reason="a test", drop_live_keys=drop_live_keys)


def told(stage: Stage, request: Request, *, kek: bool = True, terms: Terms = TERMS) -> list[str]:
    desk = stage.desk(kek=kek)
    return list(ordered(desk, observe(desk, stage), request, terms, stage))


def test_each_node_is_told_as_it_reads_the_window_back() -> None:
    stage = settled(Stage())

    lines = told(stage, asked(stage))

    window = observe(stage.desk(), stage).reading.window
    assert window is not None
    assert lines == [
        "ring edge: asked to rotate past epoch 1, as ann@ops",
        f"epoch 2 published within 1.2s: {window.current.name.hex()[:8]} is current, digest {window.digest[:8]}",
        "waiting for edge-1, edge-2",
        "  edge-1 read it back within 5s",
        "  edge-2 read it back within 5s",
        "epoch 2 is read back by every live node, 5s after the order: 2 live nodes",
    ]


def test_a_rotation_that_waits_for_no_silent_node_names_it() -> None:
    stage = settled(Stage())
    stage.away = {"edge-2"}
    stage.pause(2 * MINUTE)

    lines = told(stage, asked(stage))

    assert lines[-2] == "not live, and not waited for: edge-2"
    assert lines[-1].endswith("after the order: 1 live node")


def test_without_the_kek_the_leaders_signed_word_tells_the_end() -> None:
    stage = settled(Stage())

    lines = told(stage, asked(stage), kek=False)

    assert lines[-1].startswith("epoch 2 is read back by every live node, ")
    assert lines[-1].endswith(" after the order: by the leader's word")
    assert not any(line.startswith("  ") for line in lines)
    assert observe(stage.desk(), stage).confirmed_at is not None


def test_a_ring_without_live_nodes_waits_for_nobody() -> None:
    stage = settled(Stage(nodes=1))
    stage.away = {"edge-1"}
    stage.pause(MINUTE)

    assert (
        told(stage, asked(stage))[-1] == "epoch 2 is read back by every live node, 1.2s after the order: 0 live nodes"
    )


def test_no_wait_returns_once_it_is_handed_in() -> None:
    stage = settled(Stage())
    request = asked(stage)

    lines = told(stage, request, terms=replace(TERMS, wait=False))

    assert lines == [
        "ring edge: asked to rotate past epoch 1, as ann@ops",
        "not waiting; the request is void at 2027-03-01T12:12:00Z",
    ]
    stage.pause(5_000)
    assert observe(stage.desk(), stage).healthy
    window = observe(stage.desk(), stage).reading.window
    assert window is not None
    assert window.epoch == 2


def test_a_rotation_that_drops_a_live_key_is_refused_here_with_the_instant() -> None:
    stage = settled(Stage(slots=3))
    told(stage, asked(stage))
    stage.pause(30_000)
    request = asked(stage)

    with pytest.raises(KeyrotdError, match="ring edge: refused: a server has too few slots") as refused:
        refuse_rotation(observe(stage.desk(), stage), request)

    assert str(refused.value.hint).startswith("free from 2027-03-01T14:0")


def test_a_rotation_that_is_held_first_and_then_refused_is_refused_at_once() -> None:
    stage = settled(Stage(slots=3))
    told(stage, asked(stage))
    stage.pause(1_000)
    situation, request = observe(stage.desk(), stage), asked(stage)
    assert situation.confirmed_at is not None
    assert isinstance(foresee(situation, request), Hold)

    with pytest.raises(KeyrotdError, match="ring edge: refused: a server has too few slots") as refused:
        refuse_rotation(situation, request)

    assert str(refused.value.hint).startswith("free from 2027-03-01T14:0")
    refuse_rotation(situation, replace(request, drop_live_keys=True))


def test_before_the_window_is_confirmed_a_held_rotation_is_left_to_the_leader() -> None:
    stage = settled(Stage(slots=3))
    told(stage, asked(stage))
    stage.pause(1_000)
    situation = replace(observe(stage.desk(), stage), confirmed_at=None)

    refuse_rotation(situation, asked(stage))


def test_the_leaders_own_refusal_is_told_with_the_instant() -> None:
    stage = settled(Stage(slots=3))
    told(stage, asked(stage))
    stage.pause(30_000)

    with pytest.raises(KeyrotdError, match=r"refused by the leader: .*; free from 2027-03-01T14:0.*Z") as refused:
        told(stage, asked(stage), kek=False)

    assert "--drop-live-keys" in str(refused.value.hint)


def test_an_older_refusal_is_not_taken_for_an_answer() -> None:
    stage = settled(Stage(slots=3))
    told(stage, asked(stage))
    stage.pause(30_000)
    with pytest.raises(KeyrotdError, match="refused by the leader"):
        told(stage, asked(stage))

    lines = told(stage, asked(stage, drop_live_keys=True), terms=replace(TERMS, id="two"))

    assert lines[-1].startswith("epoch 3 is read back by every live node")


def test_a_held_rotation_says_why_and_goes_on_when_it_may() -> None:
    stage = settled(Stage())
    told(stage, asked(stage))

    lines = told(stage, asked(stage), terms=replace(TERMS, id="two"))

    assert lines[1].startswith("held: the last publish is too fresh")
    assert lines[-1].startswith("epoch 3 is read back by every live node")


def test_a_node_that_does_not_follow_is_named_when_time_is_up() -> None:
    stage = settled(Stage())
    request = asked(stage)
    stage.away = {"edge-2"}

    with pytest.raises(KeyrotdError) as late:
        told(stage, request, terms=replace(TERMS, timeout_ms=10_000))

    assert str(late.value) == (
        "ring edge: epoch 2 is published, and not read back by every live node within 10s: behind: edge-2"
    )


def test_a_node_that_falls_silent_before_it_read_back_is_named_with_the_end_of_the_old_keys() -> None:
    stage = settled(Stage())
    request = asked(stage)
    old = observe(stage.desk(), stage).reading.window
    stage.away = {"edge-2"}

    lines, refused = cut_short(stage, request)

    assert lines[-2:] == ["waiting for edge-1, edge-2", "  edge-1 read it back within 5s"]
    assert old is not None
    assert refused == (
        "ring edge: epoch 2 is read back by every live node, but edge-2 fell silent and may still open the old keys "
        f"until {instant(old.current.opens_until, request.made_at)}"
    )


def test_a_node_that_falls_silent_before_it_read_a_revocation_back_may_open_burnt_keys() -> None:
    stage = settled(Stage())
    request = asked(stage, Goal.REVOKE)
    old = observe(stage.desk(), stage).reading.window
    stage.away = {"edge-2"}

    _, refused = cut_short(stage, request)

    assert old is not None
    assert refused.endswith(
        f"edge-2 fell silent and may still open burnt keys until {instant(old.next.opens_until, request.made_at)}"
    )


def test_a_node_that_falls_silent_after_it_read_back_is_not_missed() -> None:
    stage = settled(Stage())
    desk, request = stage.desk(), asked(stage)
    watch = Absences(stage, after_epoch=2)

    lines = list(ordered(desk, observe(desk, stage), request, TERMS, watch))

    assert stage.away == {"edge-2"}
    assert any(line.startswith("  edge-2 read it back within") for line in lines)
    assert lines[-1].startswith("epoch 2 is read back by every live node")


def test_a_node_that_joins_meanwhile_and_falls_silent_is_named() -> None:
    stage = settled(Stage(nodes=3))
    stage.away = {"edge-3"}
    stage.pause(MINUTE)
    desk, request = stage.desk(), asked(stage)
    lines = ordered(desk, observe(desk, stage), request, TERMS, stage)
    stage.storage.ring(RING).reports["edge-3"] = write_report(
        replace(last_report(stage, "edge-3"), reported_at=stage.now_at), (KEK,)
    )

    with pytest.raises(KeyrotdError, match="edge-3 fell silent and may still open the old keys"):
        list(lines)


def cut_short(stage: Stage, request: Request) -> tuple[list[str], str]:
    """Return what is told until the order ends in a refusal, and its words."""
    desk, lines = stage.desk(), list[str]()
    with pytest.raises(KeyrotdError) as refused:
        lines += ordered(desk, observe(desk, stage), request, TERMS, stage)  # what came before the end is kept
    return lines, str(refused.value)


def last_report(stage: Stage, node: str) -> Report:
    return next(found.report for found in observe(stage.desk(), stage).nodes if found.name == node)


@dataclass
class Absences:
    """A watch over the stage whose edge-2 is lost for good as soon as it has read `after_epoch` back."""

    stage: Stage
    after_epoch: int

    def wall_ms(self) -> int:
        return self.stage.wall_ms()

    def boot_ms(self) -> int:
        return self.stage.boot_ms()

    def pause(self, duration_ms: int) -> None:
        self.stage.pause(duration_ms)
        found = last_report(self.stage, "edge-2")
        if found.epoch == self.after_epoch and found.read_back == found.holds:
            self.stage.away = {"edge-2"}
            self.stage.pause(MINUTE)


def test_a_leader_that_dies_meanwhile_leaves_the_request_standing() -> None:
    stage = settled(Stage())
    request = asked(stage)
    stage.away = {"scheduler-1"}

    desk, lines = stage.desk(), list[str]()
    with pytest.raises(KeyrotdError, match="nothing published within 1m: the leader did not say why") as late:
        lines += ordered(desk, observe(desk, stage), request, TERMS, stage)

    assert lines[1:] == ["waiting for scheduler-1 to publish"]
    assert str(late.value.hint).startswith("the request stands until 2027-03-01T12:12:00Z")


def test_a_store_that_is_away_for_a_while_is_waited_for() -> None:
    stage = settled(Stage())
    desk, request = stage.desk(), asked(stage)
    since = observe(desk, stage)
    lines = ordered(desk, since, request, TERMS, stage)
    handed_in = next(lines)
    failures = iter([Fault.AWAY] * 3)
    desk.store.fault = lambda _: next(failures, None)  # type: ignore[attr-defined]  # it is a MemoryStore

    assert [handed_in, *lines][-1].endswith(": 2 live nodes")


def test_reports_that_the_store_lost_acknowledge_nothing() -> None:
    stage = settled(Stage())
    desk, request = stage.desk(), asked(stage)
    lines = ordered(desk, observe(desk, stage), request, TERMS, stage)
    heard = [next(lines), next(lines)]
    stage.storage.ring(RING).reports.clear()
    stage.away = {"edge-2"}

    with pytest.raises(KeyrotdError, match="behind: edge-2"):
        heard += lines


def test_a_store_that_stays_away_is_the_end() -> None:
    stage = settled(Stage())
    desk, request = stage.desk(), asked(stage)
    lines = ordered(desk, observe(desk, stage), request, TERMS, stage)
    next(lines)
    desk.store.fault = lambda _: Fault.AWAY  # type: ignore[attr-defined]  # it is a MemoryStore

    with pytest.raises(StoreUnavailable):
        list(lines)


def test_without_a_leader_nothing_is_asked_for() -> None:
    stage = settled(Stage())
    stage.away = {"scheduler-1"}
    stage.pause(MINUTE)
    situation = observe(stage.desk(), stage)

    with pytest.raises(KeyrotdError) as refused:
        refuse_rotation(situation, asked(stage))

    assert str(refused.value) == (
        "ring edge: no leader: nobody has the lease, the last beat was 1m ago; nothing was asked for"
    )
    assert refused.value.hint == "is a scheduler running, and can it reach the store?"


def test_before_the_first_window_nothing_is_asked_for_and_the_speak_time_is_named() -> None:
    stage = Stage()
    stage.pause(3_000)

    with pytest.raises(KeyrotdError) as refused:
        refuse_rotation(observe(stage.desk(), stage), asked(stage))

    assert str(refused.value) == (
        "ring edge: scheduler-1 has the lease and signs nothing yet: a new leader lets every node speak first, "
        "no beat was ever signed; nothing was asked for"
    )
    assert str(refused.value.hint).startswith("this takes up to 44s from when it took the lease; ")


def test_a_strangers_order_is_followed_by_nobody() -> None:
    stage = settled(Stage())
    stranger = OperatorKey(SIGNER.secret)

    with pytest.raises(KeyrotdError, match="nothing published within"):
        told(stage, asked(stage), terms=replace(TERMS, operator=stranger))


def test_revoke_lists_who_may_still_open_burnt_keys() -> None:
    stage = settled(Stage(nodes=3))
    stage.away = {"edge-3"}
    stage.pause(MINUTE)
    before = observe(stage.desk(), stage)

    lines = told(stage, asked(stage, Goal.REVOKE))

    assert lines[-1].startswith("epoch 2 is read back by every live node")
    window = observe(stage.desk(), stage).reading.window
    assert window is not None
    assert window.barrier == 2
    assert before.reading.window is not None
    assert list(still_burning(before)) == [
        "not live: edge-3, last heard 2027-03-01T12:01:55Z (1m5s ago); "
        "it may open burnt keys until 2027-03-02T02:01:27Z (in 13h58m)"
    ]
    assert question(before).startswith("ring edge: burn every key on 2 live nodes? ")


def test_a_ring_that_publishes_twice_meanwhile_is_followed_to_the_newest() -> None:
    brisk = replace(
        POLICY, schedule=Interval(12_000), ticket_lifetime_ms=6_000, max_seal_age_ms=48_000, overdue_after_ms=1_500
    )
    stage = settled(Stage(policy=brisk))
    stage.away = {"edge-2"}

    lines, silenced = cut_short(stage, asked(stage))

    assert [line.split(" within")[0] for line in lines if "published within" in line] == [
        "epoch 8 published",
        "epoch 9 published",
    ]
    assert silenced.startswith("ring edge: epoch 9 is read back by every live node, but edge-2 fell silent")


# The command line.


def configured(folder: Path, *, url: str, rings: tuple[str, ...] = (RING,), operator: bool = True) -> Path:
    texts = make_secrets(RING, lambda length: KEK.secret[:length])
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(text)
    sections = "".join(f'[[ring]]\nname = "{ring}"\nkek_file = "{ring}.kek"\n' for ring in rings)
    key = 'operator_key_file = "operator.key"\n' if operator else ""
    path = folder / "keyrotd.toml"
    path.write_text(
        f'[store]\nurl = "{url}"\ntimeout = "200ms"\n[secrets]\nverify_key_file = "verify.key"\n{key}{sections}'
    )
    return path


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["rotate", "--now", "--ring", "nowhere"], exits.USAGE),
        (["rotate", "--timeout", "soon"], exits.USAGE),
        (["rotate", "--now", "--reason", "two\nlines"], exits.USAGE),
        (["revoke", "--reason", "no one is at the terminal"], exits.USAGE),
        (["revoke", "--yes"], exits.USAGE),
        (["pause", "--for", "1h"], exits.USAGE),
        (["pause", "--reason", "x"], exits.USAGE),
        (["pause", "--reason", "x", "--for", "soon"], exits.USAGE),
        (["pause", "--reason", "x", "--for", "1h"], exits.STORE_AWAY),
        (["resume"], exits.STORE_AWAY),
        (["status", "--ring", "nowhere"], exits.USAGE),
        (["rotate"], exits.STORE_AWAY),
        (["rotate", "--now"], exits.STORE_AWAY),
        (["revoke", "--yes", "--reason", "x"], exits.STORE_AWAY),
        (["status"], exits.STORE_AWAY),
        (["history"], exits.STORE_AWAY),
        (["inspect"], exits.STORE_AWAY),
        (["acl"], exits.DONE),
    ],
)
def test_exit_codes_of_a_wrong_line_and_of_a_store_that_is_away(
    tmp_path: Path, args: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path / "c", url=f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setenv("KEYROTD_CONFIG", str(config))
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal

    assert run(args) == code


def test_several_rings_are_never_rotated_by_leaving_a_word_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path / "c", url=f"unix://{tmp_path}/nobody.sock", rings=(RING, "core"))

    assert run(["rotate", "--now", "--config", str(config)]) == exits.USAGE
    assert "name the ring with --ring: edge, core" in capsys.readouterr().err


def test_without_an_operator_key_nobody_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path / "c", url=f"unix://{tmp_path}/nobody.sock", operator=False)

    assert run(["rotate", "--now", "--config", str(config)]) == exits.CONFIGURATION
    assert "secrets.operator_key_file: an operator needs it" in capsys.readouterr().err
