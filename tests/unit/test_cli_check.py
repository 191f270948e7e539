"""keyrotd check lists every fault of a configuration and its key files, or shows what is promised."""

import json
import os
from pathlib import Path

import pytest

from keyrotd.cli import exits
from keyrotd.cli.main import run
from keyrotd.core.window import rotate
from keyrotd.servers.catalogue import DRIVERS
from tests.stage import HOUR, MINUTE, NOON, POLICY, stek, window_at

SERVER = """
[[server]]
name = "h"
ring = "edge"
driver = "haproxy"
socket = "/run/h.sock"
key_file = "/run/h.keys"
probe = "127.0.0.1:443"
[[server]]
name = "n"
ring = "edge"
driver = "command"
key_file = "/run/n.key"
layout = "openssl80"
command = ["/bin/true"]
"""


@pytest.fixture
def path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A configuration fresh from init."""
    run(["init", str(tmp_path)])
    capsys.readouterr()
    return tmp_path / "keyrotd.toml"


def test_what_is_promised_is_told_in_order(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text("utf-8") + SERVER, "utf-8")
    runtime_dir = next(line.split('"')[1] for line in path.read_text("utf-8").splitlines() if "runtime_dir" in line)

    assert run(["check", "--config", str(path)]) == exits.DONE

    assert capsys.readouterr().out.splitlines() == [
        f"{path}: no fault",
        "can be: scheduler, agent, standalone, operator",
        f"store: unix://{path.parent / runtime_dir}/store.sock, namespace keyrotd, timeout 1s",
        "",
        "ring edge: rotates every 4h",
        "              0s  a key is made; every node opens with it (next)",
        "              4h  it seals (current)",
        "              8h  its successor seals, it opens only (previous)",
        "     10h43s500ms  it is gone, if every node was in step",
        "             12h  no node seals with it, however late a rotation came",
        "     14h43s500ms  no node opens anything with it, however late a rotation came (V)",
        "  without a scheduler nodes go on in step, 4h on each key, for 6d9h59m16s500ms after the last one ended",
        "  R 4h, T 2h, eps 43s500ms, V 14h43s500ms",
        "  a node that cannot install is waited for 30m; previous keys: all that still open",
        "  two publishes are 12s apart at least",
        "  `keyrotd pause` may hold a rotation until 7h59m58s after the last one",
        "  server h: haproxy, 3 keys, no reload, probed at 127.0.0.1:443",
        "  server n: command, any number of keys, reloads the server, up to 1m30s late, not probed",
    ]


def test_however_late_a_rotation_comes_the_bounds_that_are_told_hold() -> None:
    late_at = NOON + 4 * HOUR + 3 * HOUR
    before = window_at(NOON)
    after = rotate(
        before, fresh=stek(9), fence=1, now_at=late_at, terms=POLICY.terms(late_at), settled_at=NOON + MINUTE
    )

    key = after.current
    assert key.name == before.next.name
    assert key.opens_until - key.made_at == POLICY.worst_ms
    assert key.seals_until is not None
    assert key.seals_from is not None
    assert key.seals_until - key.seals_from == POLICY.max_seal_age_ms - 3 * HOUR
    assert key.opens_until - key.seals_until == POLICY.ticket_lifetime_ms + POLICY.eps_ms


def test_a_cron_schedule_is_told_by_its_gaps(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = path.read_text("utf-8").replace(
        'rotation_interval = "4h"', 'rotation_cron = "0 0,10 * * *"\nmax_seal_age = "30h"\nprevious_keys = 1'
    )
    path.write_text(text, "utf-8")

    run(["check", "--config", str(path)])

    told = capsys.readouterr().out
    assert 'ring edge: rotates at "0 0,10 * * *" UTC, gaps of 10h to 14h' in told
    assert "previous keys: at most 1" in told
    assert "can be: scheduler, operator\n" in told


def test_every_fault_of_every_key_file_is_listed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = path.parent / "secrets"
    (secrets / "edge.kek").unlink()
    (secrets / "signing.key").chmod(0o644)
    (secrets / "verify.key").write_text("nonsense\n", "utf-8")

    code = run(["check", "--config", str(path)])

    told = capsys.readouterr()
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert (code, told.out) == (exits.CONFIGURATION, "")
    assert [line.split(": ")[1].split(",")[0] for line in errors] == [
        str(secrets / "verify.key"),
        str(secrets / "signing.key"),
        str(secrets / "edge.kek"),
    ]


def test_keys_that_are_no_pair_are_found(
    path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path_factory.mktemp("other")
    run(["init", str(other)])
    capsys.readouterr()
    for name in ("signing.key", "operator.key"):
        (other / "secrets" / name).replace(path.parent / "secrets" / name)

    code = run(["check", "--config", str(path)])

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    secrets = path.parent / "secrets"
    assert code == exits.CONFIGURATION
    assert errors == [
        f"error: {secrets}/verify.key: does not know the first key of {secrets}/signing.key",
        f"error: {secrets}/operator-verify.key: does not know the first key of {secrets}/operator.key",
    ]


def test_a_role_needs_its_own_files_and_no_others(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text("utf-8") + SERVER, "utf-8")
    for name in ("signing.key", "operator-verify.key", "operator.key"):
        (path.parent / "secrets" / name).unlink()

    codes = {role: run(["check", "--config", str(path), "--role", role]) for role in ("agent", "scheduler", "operator")}

    assert codes == {"agent": exits.DONE, "scheduler": exits.CONFIGURATION, "operator": exits.CONFIGURATION}
    assert run(["check", "--config", str(path)]) == exits.CONFIGURATION
    capsys.readouterr()


def test_a_role_says_what_the_configuration_lacks(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--config", str(path), "--role", "agent"]) == exits.CONFIGURATION

    assert capsys.readouterr().err == (
        f"error: {path}: server: an agent needs one\nhint: add [[server]] with a driver: {', '.join(DRIVERS)}\n"
    )


def test_the_environment_names_the_configuration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYROTD_CONFIG", str(path))

    assert run(["check"]) == exits.DONE


def checked(path: Path, capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """The faults that are told, without what they begin with."""
    run(["check", "--config", str(path), *args])
    return [line.removeprefix("error: ") for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def test_what_opens_the_store_is_judged_like_other_secrets(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    password = path.parent / "store.password"
    url = f"redis+sentinel://keyrotd@h1,h2/m?password_file={password}&sentinel_password_file={password}-s"
    path.write_text(path.read_text("utf-8").replace('"embedded:"', f'"{url}"'), "utf-8")
    password.write_text("x", "utf-8")
    password.chmod(0o644)

    assert checked(path, capsys) == [
        f"{password}: others may read or change it (mode 0644)",
        f"{password}-s: cannot be read: no such file or directory",
    ]

    (path.parent / "store.password-s").touch(mode=0o600)
    password.chmod(0o640)
    assert checked(path, capsys) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_password_of_somebody_else_is_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    password = path.parent / "store.password"
    password.touch(mode=0o600)
    os.chown(password, 4711, 0)
    path.write_text(path.read_text("utf-8").replace('"embedded:"', f'"unix:///s?password_file={password}"'), "utf-8")

    assert checked(path, capsys) == [f"{password}: belongs to user 4711"]


def test_certificates_that_are_not_there_or_none_are_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = path.parent
    (home / "nonsense.pem").write_text("no PEM", "utf-8")
    options = "&".join(f"{key}={home}/nonsense.pem" for key in ("ca_file", "cert_file", "key_file"))
    text = path.read_text("utf-8").replace('"embedded:"', f'"rediss://store?{options}"')
    path.write_text(text + SERVER.replace('443"', f'443"\nca_file = "{home}/missing.pem"'), "utf-8")
    (home / "nonsense.pem").chmod(0o600)

    assert [words.partition(": [")[0] for words in checked(path, capsys)] == [
        f"CA file {home}/nonsense.pem does not load",
        f"{home}/nonsense.pem: does not load with its key",
        f"{home}/missing.pem: cannot be read: no such file or directory",
    ]
    assert [words for words in checked(path, capsys, "--role", "scheduler") if "missing" in words] == []


TRAFFIC_SERVER = """
[[server]]
name = "ats"
ring = "edge"
driver = "trafficserver"
key_file = "/run/keyrotd/ats.keys"
ack_dir = "/run/keyrotd-ats"
config_dir = "ats"
"""


def test_what_breaks_a_farm_of_traffic_servers_is_a_fault(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text("utf-8") + TRAFFIC_SERVER, "utf-8")
    config_dir = path.parent / "ats"
    config_dir.mkdir()
    (config_dir / "records.config").write_text("CONFIG proxy.config.ssl.server.ticket_key.filename STRING /etc/k\n")
    (config_dir / "ssl_multicert.config").write_text("dest_ip=192.0.2.1 ssl_cert_name=a.pem\n")

    assert run(["check", "--config", str(path)]) == exits.CONFIGURATION

    told = capsys.readouterr().err
    assert "server ats: proxy.config.ssl.server.ticket_key.filename is set" in told
    assert "dest_ip" not in told


def test_what_may_break_a_farm_is_told_with_what_must_be_alike(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text("utf-8") + TRAFFIC_SERVER, "utf-8")
    config_dir = path.parent / "ats"
    config_dir.mkdir()
    (config_dir / "records.config").write_text("CONFIG proxy.config.ssl.server.multicert.filename STRING my.config\n")
    (config_dir / "my.config").write_text("dest_ip=* ssl_cert_name=site.pem\ndest_ip=192.0.2.1 ssl_cert_name=a.pem\n")

    assert run(["check", "--config", str(path)]) == exits.DONE

    told = capsys.readouterr().out
    assert "    note: a.pem: dest_ip is 192.0.2.1" in told
    assert (
        "    the same on every node, or no ticket resumes: "
        'the default certificate is called "site.pem", CAs of clients: none' in told
    )


EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


def test_offline_a_configuration_is_judged_where_none_of_its_files_is(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the tests of somebody's own repository: what it names is on other machines, as are the variables."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    text = EXAMPLE.read_text("utf-8").replace('"secrets/', '"$CREDENTIALS_DIRECTORY/')
    (path.parent / "elsewhere.toml").write_text(text, "utf-8")
    there = str(path.parent / "elsewhere.toml")

    assert run(["check", "--config", there]) == exits.CONFIGURATION
    assert "$CREDENTIALS_DIRECTORY is not set" in capsys.readouterr().err
    assert run(["check", "--config", there, "--offline"]) == exits.DONE
    assert "no fault" in capsys.readouterr().out
    assert run(["check", "--config", there, "--offline", "--role", "agent"]) == exits.DONE
    assert run(["check", "--config", there, "--offline", "--role", "scheduler"]) == exits.CONFIGURATION
    assert "signing_key_file: a scheduler needs it" in capsys.readouterr().err


def test_offline_faults_of_the_configuration_itself_are_faults(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace("[[ring]]", "[[rign]]"), "utf-8")

    assert run(["check", "--config", str(path), "--offline"]) == exits.CONFIGURATION


def test_faults_can_be_read_by_a_program(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--config", str(path), "--json"]) == exits.DONE
    assert json.loads(capsys.readouterr().out) == {
        "config": str(path),
        "faults": [],
        "can_be": ["scheduler", "operator"],
    }

    path.write_text(path.read_text("utf-8") + "[agent]\nnode = 1\n", "utf-8")
    assert run(["check", "--config", str(path), "--json"]) == exits.CONFIGURATION
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == [{"fault": f"{path}: agent.node: want a string, found the number 1", "hint": ""}]
    assert found["can_be"] == []


def test_a_group_that_is_not_here_is_a_fault(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text("utf-8") + SERVER + 'group = "nobody-is-in-it"\nowner = "0"\n', "utf-8")

    assert checked(path, capsys) == ["server n: group: this machine has no group 'nobody-is-in-it'"]
    assert run(["check", "--config", str(path), "--offline"]) == exits.DONE
    assert run(["check", "--config", str(path), "--role", "scheduler"]) == exits.DONE


def test_keys_on_a_disk_are_warned_of(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in path.read_text("utf-8").splitlines() if not row.startswith("runtime_dir")]
    path.write_text("\n".join(['runtime_dir = "/proc"', *rows, SERVER]), "utf-8")

    assert run(["check", "--config", str(path)]) == exits.DONE

    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("warning: runtime_dir: /proc is on a disk")
    assert told[1].startswith("hint: ")


def test_fragments_are_told_with_the_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path.parent / "conf.d").mkdir()
    (path.parent / "conf.d" / "servers.toml").write_text(SERVER, "utf-8")

    assert run(["check", "--config", str(path)]) == exits.DONE

    said = capsys.readouterr().out
    assert "with 1 of conf.d: servers.toml" in said
    assert "server n: command" in said
