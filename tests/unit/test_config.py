"""A configuration is one value, or every fault of it at once."""

import socket
from pathlib import Path

import pytest

from keyrotd import config, durations
from keyrotd.config import Config, Listen, Role, load, needs
from keyrotd.core.errors import ConfigError
from keyrotd.core.policy import Interval
from keyrotd.daemon.schedule import Cron
from keyrotd.seal.messages import MAX_SERVERS
from keyrotd.servers.catalogue import DRIVERS
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.servers.ring import MAX_SLOTS
from keyrotd.tls.target import Target

NOW_AT = 1_795_230_000_000
HOUR_MS = 3_600_000

STORE = '[store]\nurl = "redis://store.example"\n'
SECRETS = '[secrets]\nverify_key_file = "secrets/verify.key"\n'
RING = '[[ring]]\nname = "edge"\nkek_file = "secrets/edge.kek"\n'
LEAST = STORE + SECRETS + RING
SERVER = '[[server]]\nname = "h"\nring = "edge"\ndriver = "haproxy"\nsocket = "/run/h.sock"\nkey_file = "/run/h.keys"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where keyrotd.toml is, and we are."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str) -> Config:
    Path("keyrotd.toml").write_text(text, "utf-8")
    return load(Path("keyrotd.toml"), now_at=NOW_AT)


def refused(text: str) -> list[tuple[str, str | None]]:
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    return [(words.removeprefix("keyrotd.toml: "), hint) for words, hint in caught.value.faults]


def faults(text: str) -> list[str]:
    return [words for words, _ in refused(text)]


def test_the_least_that_is_needed_gets_the_defaults(folder: Path) -> None:
    found = loaded(LEAST)
    policy = found.rings[0].policy

    assert (found.runtime_dir, found.state_dir) == (Path("/run/keyrotd"), Path("/var/lib/keyrotd"))
    assert (found.store.namespace, found.store.timeout_ms, found.store.wait_replicas) == ("keyrotd", 1000, 0)
    assert found.scheduler == config.SchedulerConfig(
        tick_interval_ms=1000, lease_ttl_ms=10_000, node_ttl_ms=30_000, listen=Listen("127.0.0.1", 9754)
    )
    assert found.agent.listen == Listen("127.0.0.1", 9755)
    assert (found.agent.poll_interval_ms, found.agent.start_grace_ms) == (5000, 10_000)
    assert policy.schedule == Interval(4 * HOUR_MS)
    assert (policy.ticket_lifetime_ms, policy.max_seal_age_ms) == (2 * HOUR_MS, 8 * HOUR_MS)
    assert (policy.overdue_after_ms, policy.previous_keys) == (HOUR_MS // 2, None)
    assert found.servers == ()
    assert found.secrets.verify_key_file == folder / "secrets/verify.key"
    assert found.secrets.signing_key_file is None


@pytest.mark.usefixtures("folder")
def test_a_server_is_built_with_what_its_section_says() -> None:
    found = loaded(LEAST + SERVER + 'probe = "127.0.0.1:443"\nsni = "www.example"\nmode = "0640"\ntimeout = "500ms"\n')

    (server,) = found.servers_of("edge")

    assert server.driver == HAProxyDriver(
        name="h", socket=(Path("/run/h.sock"),), key_file=(Path("/run/h.keys"),), mode=0o640, timeout_ms=500
    )
    assert (server.probe, server.sni, server.ca_file) == (Target("127.0.0.1", 443), "www.example", None)


@pytest.mark.usefixtures("folder")
def test_a_node_is_called_as_its_host_unless_told_otherwise() -> None:
    assert loaded(LEAST).agent.node == socket.gethostname()
    assert loaded(LEAST + '[agent]\nnode = "edge-1"\n').agent.node == "edge-1"


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc" / "keyrotd.toml"
    path.write_text('runtime_dir = "run"\nstate_dir = "../state"\n' + LEAST, "utf-8")

    found = load(path, now_at=NOW_AT)

    assert found.runtime_dir == tmp_path / "etc" / "run"
    assert found.state_dir == tmp_path / "etc" / "../state"
    assert found.rings[0].kek_file == tmp_path / "etc" / "secrets/edge.kek"


@pytest.mark.usefixtures("folder")
def test_every_fault_is_told_at_once() -> None:
    text = (
        'runtimedir = "/run/k"\n'
        '[store]\nurl = "http://x"\ntimeout = 5\n'
        "[secrets]\n"
        '[[ring]]\nname = "Edge"\nticket_lifetime = "2 hours"\nmax_strandet = "6d"\n'
        '[agent]\nlisten = "9755"\n'
        '[[server]]\nname = "h"\nring = "core"\ndriver = "haproxi"\n'
        '[log]\nformat = "xml"\nlevel = 3\n'
    )

    assert refused(text) == [
        ("runtimedir: is not known", "did you mean runtime_dir?"),
        ("store.timeout: want a duration with its unit, found the number 5", 'is it "5s"?'),
        ("secrets.verify_key_file: is missing", "every host has one: `keyrotd init` makes it"),
        ("log.format: want one of json, console, found 'xml'", None),
        ("log.level: want one of debug, info, warning, error, found the number 3", None),
        (
            "store.url: it begins with no scheme that keyrotd knows",
            "redis://[USER@]HOST[:PORT][/DB], redis+sentinel://[USER@]HOST,HOST/NAME, "
            "redis+cluster://[USER@]HOST,HOST, rediss for TLS (and ?ca_file=, cert_file=, key_file=), "
            "unix:///PATH or embedded:; each takes ?password_file=",
        ),
        (
            "agent.listen: want HOST:PORT or off, found '9755'",
            "127.0.0.1:9754, [::1]:9754 or, for all the world to see, 0.0.0.0:9754",
        ),
        (
            'ring "Edge": max_strandet: is not known',
            "did you mean max_stranded?",
        ),
        ('ring "Edge": kek_file: is missing', "the ring's own: `keyrotd init` makes it"),
        (
            "ring \"Edge\": ticket_lifetime: want a duration such as 500ms, 5s or 1h30m, found '2 hours'",
            "units are d, h, m, s and ms, largest first, each once",
        ),
        ("ring \"Edge\": name: want lower-case letters, digits and `._-`, at most 63, found 'Edge'", None),
        (f"server \"h\": driver: want one of {', '.join(DRIVERS)}, found 'haproxi'", "did you mean haproxy?"),
    ]


@pytest.mark.usefixtures("folder")
def test_an_unknown_key_is_met_with_the_nearest_known_one() -> None:
    typo = LEAST + 'rotation-interval = "1h"\n' + SERVER + 'key_fil = "/x"\n' + '[agents]\nnode = "a"\n'

    assert refused(typo) == [
        ("agents: is not known", "did you mean agent?"),
        ("ring \"edge\": 'rotation-interval': is not known", "did you mean rotation_interval?"),
        ('server "h": key_fil: is not known', "did you mean key_file?"),
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("ticket_lifetime = 7200", "ticket_lifetime: want a duration with its unit, found the number 7200"),
        ("ticket_lifetime = true", 'ticket_lifetime: want a duration such as "1h30m", found the boolean true'),
        ('previous_keys = "2"', "previous_keys: want a whole number, found a string"),
        ("previous_keys = -1", "previous_keys: want a number between 0 and 1000000, found -1"),
        ("previous_keys = 2.0", "previous_keys: want a whole number, found the number 2.0"),
        ("rotation_cron = 3", "rotation_cron: want a string, found the number 3"),
        ("rotation_cron = 2026-01-01", "rotation_cron: want a string, found a date or time"),
        ('rotation_cron = "0 3 * *"', "rotation_cron: want 5 fields, found 4"),
        ('rotation_cron = ""', "rotation_cron: want a string, found nothing"),
        ('rotation_cron = "0 3\\t* * *"', "rotation_cron: want a string, found unprintable characters"),
    ],
)
def test_a_value_of_another_type_is_told_by_what_it_is(line: str, fault: str) -> None:
    assert faults(LEAST + line) == [f'ring "edge": {fault}']


@pytest.mark.usefixtures("folder")
def test_a_value_in_the_wrong_place_is_not_quoted() -> None:
    assert "swordfish" not in str(refused(LEAST + 'previous_keys = "swordfish"'))


@pytest.mark.usefixtures("folder")
def test_a_ring_rotates_by_interval_or_by_cron() -> None:
    both = 'rotation_interval = "4h"\nrotation_cron = "0 */4 * * *"\n'

    (ring,) = loaded(LEAST + 'rotation_cron = "0 */4 * * *"\n').rings

    assert ring.policy.schedule == Cron("0 */4 * * *", longest_ms=4 * HOUR_MS, shortest_ms=4 * HOUR_MS)
    assert faults(LEAST + both) == ['ring "edge": rotation_cron: stands beside rotation_interval']


@pytest.mark.usefixtures("folder")
def test_an_uneven_cron_promises_by_its_longest_gap() -> None:
    (ring,) = loaded(LEAST + 'rotation_cron = "0 3 * * 1-5"\nmax_seal_age = "79h"\nticket_lifetime = "8h"\n').rings

    assert ring.policy.rotation_interval_ms == 72 * HOUR_MS
    assert faults(LEAST + 'rotation_cron = "0 3 * * 1-5"\n') == [
        'ring "edge": a key would be worth stealing for 9d2h8m53s100ms, over 7d'
    ]


@pytest.mark.usefixtures("folder")
def test_relations_between_values_are_checked_by_name() -> None:
    text = LEAST.replace("[[ring]]", '[scheduler]\nlease_ttl = "3s"\nnode_ttl = "8s"\n[[ring]]') + (
        'rotation_interval = "3d"\nticket_lifetime = "9d"\noverdue_after = "4d"\n'
    )

    assert [words.split(" is ")[0].split(" + ")[0] for words in faults(text)] == [
        'ring "edge": ticket_lifetime',
        'ring "edge": overdue_after 4d',
        'ring "edge": overdue_after 4d',
        'ring "edge": node_ttl 8s',
        'ring "edge": lease_ttl 3s does not outlast tick_interval',
    ]


@pytest.mark.usefixtures("folder")
def test_servers_bind_the_policy_of_their_ring_and_of_no_other() -> None:
    slow = LEAST + 'rotation_interval = "2h"\n'
    other = '[[ring]]\nname = "core"\nkek_file = "secrets/core.kek"\n'

    assert loaded(slow).rings[0].policy.rotation_interval_ms == 2 * HOUR_MS
    assert loaded(slow + other + SERVER.replace('"edge"', '"core"')).servers[0].ring == "core"
    assert [words[:40] for words in faults(slow + SERVER)] == ['ring "edge": a server with 3 key slots n']


@pytest.mark.usefixtures("folder")
def test_a_command_that_runs_seldom_forbids_a_rotation_that_comes_often() -> None:
    often = LEAST + 'rotation_interval = "1m"\nticket_lifetime = "20s"\n'
    command = (
        '[[server]]\nname = "n"\nring = "edge"\ndriver = "command"\nkey_file = "/run/n.key"\nlayout = "openssl80"\n'
        'command = ["/bin/true"]\nmin_interval = "2m"\ntimeout = "1s"\n'
    )

    assert loaded(often).rings[0].policy.overdue_after_ms > 0
    assert faults(often + command) == [
        'ring "edge": rotation every 1m is more often than nodes can follow (2m1s)',
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "4h", "1d", "36h"])
@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_the_default_of_overdue_after_breaks_no_promise(interval: str, share: float) -> None:
    ticket_lifetime_ms = int(durations.parse(interval) * share)

    (ring,) = loaded(LEAST + f'rotation_interval = "{interval}"\nticket_lifetime = "{ticket_lifetime_ms}ms"\n').rings

    policy = ring.policy
    assert 0 < policy.overdue_after_ms <= policy.rotation_interval_ms // 8


@pytest.mark.usefixtures("folder")
def test_the_default_of_overdue_after_is_the_same_on_hosts_with_and_without_servers() -> None:
    tight = LEAST + 'ticket_lifetime = "3h45m"\n'

    assert loaded(tight).rings == loaded(tight + SERVER).rings


@pytest.mark.usefixtures("folder")
def test_names_are_given_once() -> None:
    twin_ring = RING.replace("edge.kek", "other.kek")

    assert faults(LEAST + twin_ring) == ['ring "edge": there are two of this name']
    assert faults(LEAST + SERVER + SERVER.replace("/run/h.keys", "/run/i.keys")) == [
        'server "h": there are two of this name'
    ]


def test_what_must_not_be_shared_is_not(folder: Path) -> None:
    shared_kek = RING.replace('"edge"', '"core"')
    shared_file = SERVER.replace('"h"', '"i"')

    assert faults(LEAST + shared_kek) == [f"kek_file {folder}/secrets/edge.kek: two rings share it"]
    assert faults(LEAST + SERVER + shared_file) == ["key_file /run/h.keys: two servers share it"]
    assert faults('runtime_dir = "/srv/k"\nstate_dir = "/srv/k"\n' + LEAST) == ["state_dir: is runtime_dir too"]


@pytest.mark.usefixtures("folder")
def test_a_server_belongs_to_a_ring_that_there_is() -> None:
    assert refused(LEAST + SERVER.replace('ring = "edge"', 'ring = "egde"')) == [
        ('server "h": ring: there is no ring "egde"', "known: edge")
    ]


@pytest.mark.usefixtures("folder")
def test_a_node_has_no_more_servers_of_a_ring_than_its_report_can_tell_of() -> None:
    many = [SERVER.replace('"h"', f'"h{n}"').replace("h.keys", f"h{n}.keys") for n in range(MAX_SERVERS + 1)]

    assert len(loaded(LEAST + "".join(many[:-1])).servers) == MAX_SERVERS
    assert faults(LEAST + "".join(many)) == [
        'ring "edge": has 33 servers on this node, and a report tells of 32 at most'
    ]


@pytest.mark.usefixtures("folder")
def test_a_driver_speaks_of_its_own_section() -> None:
    assert faults(LEAST + SERVER + "slots = 2\n") == [f'server "h": slots 2 is not within 3 and {MAX_SLOTS}']
    assert faults(LEAST + SERVER.replace('socket = "/run/h.sock"', "socket = []")) == [
        'server "h": socket: want a path or a list of paths, found an empty list'
    ]


@pytest.mark.usefixtures("folder")
def test_trust_without_a_probe_is_a_mistake() -> None:
    assert faults(LEAST + SERVER + 'sni = "x"\nca_file = "ca.pem"\n') == [
        'server "h": sni: there is no probe that it could serve',
        'server "h": ca_file: there is no probe that it could serve',
    ]


@pytest.mark.usefixtures("folder")
def test_sections_have_their_brackets() -> None:
    assert refused(STORE + SECRETS + '[ring]\nname = "edge"\n') == [
        ("ring: want a list of sections, found something else", "write [[ring]], in double brackets"),
        ("ring: there is none", "add [[ring]] with a name and a kek_file"),
    ]
    assert refused("store = 5\n" + SECRETS + RING) == [("store: want a section, found something else", "write [store]")]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "listen"),
    [("off", None), ("[::1]:9754", Listen("::1", 9754)), ("0.0.0.0:80", Listen("0.0.0.0", 80))],
)
def test_daemons_listen_where_they_are_told(text: str, listen: Listen | None) -> None:
    assert loaded(LEAST + f'[agent]\nlisten = "{text}"\n').agent.listen == listen


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("text", [":9754", "localhost", "localhost:0", "localhost:65536", "::1:9754", "a b:1", "on"])
def test_what_is_no_address_to_listen_at_is_refused(text: str) -> None:
    assert faults(LEAST + f'[agent]\nlisten = "{text}"\n') == [f"agent.listen: want HOST:PORT or off, found {text!r}"]


@pytest.mark.usefixtures("folder")
def test_a_file_that_cannot_be_read_is_said_in_words() -> None:
    with pytest.raises(ConfigError) as absent:
        load(Path("absent.toml"), now_at=NOW_AT)
    Path("latin.toml").write_bytes(b'name = "\xe9"\n')
    with pytest.raises(ConfigError) as latin:
        load(Path("latin.toml"), now_at=NOW_AT)

    assert absent.value.faults == (
        ("absent.toml: cannot be read: no such file or directory", "`keyrotd init DIR` writes one"),
    )
    assert latin.value.faults == (("latin.toml: is not UTF-8", "is this the file you meant?"),)
    assert faults("[store\n") == ["is not TOML: expected ']' at the end of a table declaration (at line 1, column 7)"]
    assert faults("#" * (config.MAX_FILE_BYTES + 1)) == [f"is over {config.MAX_FILE_BYTES} bytes"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("role", "lacking"),
    [
        ("scheduler", ["secrets.signing_key_file", "secrets.operator_verify_key_file"]),
        ("agent", ["server"]),
        ("standalone", ["secrets.signing_key_file", "secrets.operator_verify_key_file", "server"]),
        ("operator", ["secrets.operator_key_file"]),
    ],
)
def test_a_role_says_what_it_lacks(role: Role, lacking: list[str]) -> None:
    full = LEAST.replace(
        SECRETS,
        SECRETS + 'signing_key_file = "s"\noperator_verify_key_file = "v"\noperator_key_file = "o"\n',
    )

    assert [words.split(": ")[1] for words, _ in needs(loaded(LEAST), role)] == lacking
    assert needs(loaded(full + SERVER), role) == ()


@pytest.mark.usefixtures("folder")
def test_a_file_that_is_nested_without_end_is_refused_in_words() -> None:
    assert faults("x = " + "[" * 100_000) == ["is nested too deeply"]


@pytest.mark.usefixtures("folder")
def test_what_would_only_fail_in_the_daemon_is_refused_here() -> None:
    probed = SERVER + 'probe = "127.0.0.1:443"\n'

    assert faults(LEAST + probed + 'sni = ".example.com"\n') == ["server \"h\": sni: '.example.com' is no host name"]
    assert faults(LEAST.replace("[[ring]]", '[scheduler]\nlease_ttl = "10m"\n[[ring]]')) == [
        'ring "edge": lease_ttl 10m is over 5m'
    ]


@pytest.mark.usefixtures("folder")
def test_peers_are_asked_only_where_somebody_said_so() -> None:
    asking = '[agent]\npeer_probes = 3\npeer_networks = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]\n'

    off, on = loaded(LEAST).agent, loaded(LEAST + asking).agent

    assert (off.peer_probes, off.peer_interval_ms, off.peer_networks) == (0, 300_000, ())
    assert (on.peer_probes, [str(network) for network in on.peer_networks]) == (
        3,
        ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"],
    )


@pytest.mark.usefixtures("folder")
def test_what_peers_may_be_asked_has_bounds() -> None:
    assert faults(LEAST + "[agent]\npeer_probes = 1\n") == ["agent.peer_networks: is missing beside peer_probes"]
    assert faults(LEAST + '[agent]\npeer_networks = ["10.0.0.1/8"]\n') == [
        "agent.peer_networks: 10.0.0.1/8 has host bits set"
    ]
    assert faults(LEAST + '[agent]\npeer_probes = 17\npeer_interval = "9s"\npeer_networks = ["10.0.0.0/8"]\n') == [
        "agent.peer_probes: is over 16",
        "agent.peer_interval: is below 10s",
    ]


@pytest.mark.usefixtures("folder")
def test_a_server_is_advertised_by_an_address_of_its_host() -> None:
    def advertised(text: str) -> Target | None:
        return loaded(LEAST + SERVER + f'advertise = "{text}"\n').servers[0].advertise

    assert advertised("192.0.2.7:8443") == Target("192.0.2.7", 8443)
    assert advertised(":8443") == Target(socket.gethostname(), 8443)
    assert faults(LEAST + SERVER + 'advertise = "unix:/run/x"\n') == [
        "server \"h\": advertise: want HOST:PORT, found 'unix:/run/x'"
    ]
