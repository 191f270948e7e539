"""nginx with the Lua reader: every worker and server takes the file's keys, while it runs, and those alone."""

from collections.abc import Iterator

import pytest

from keyrotd.testing.children import wait_until
from keyrotd.tls.handshake import Version
from tests.nginx_lua import POLL_MS, Stage, staged
from tests.nginx_sites import BOTH_VERSIONS, WORKERS, new_window
from tests.scenes import now_at

pytestmark = pytest.mark.debian

#: Enough connections that the kernel gives each of two workers one, all but surely.
_MANY = 8


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.mark.parametrize("cold_key", [True, False], ids=["with a cold key", "without any key configured"])
@pytest.mark.parametrize("version", BOTH_VERSIONS)
def test_a_ticket_of_one_nginx_resumes_on_every_worker_of_another(
    stage: Stage, version: Version, *, cold_key: bool
) -> None:
    """On http, on another port, on stream, under another name: from the first connection on."""
    window = new_window()
    options = "" if cold_key else "take_all = true,"
    a = stage.started("a", window, options=options, cold_key=cold_key)
    b = stage.started("b", window, options=options, cold_key=cold_key)
    client = stage.client(version)

    for ours, theirs in zip(a.targets, b.targets, strict=True):
        shake = client.visit(ours)

        assert shake.key_name == window.keys[0].name
        assert [client.resumes(shake, theirs) for _ in range(_MANY)] == [True] * _MANY
    assert client.resumes(client.visit(a.targets[0], "other.test"), b.targets[1], "localhost")
    assert [(ack.contexts, ack.fault) for ack in (*a.acks(), *b.acks())] == [(5, None)] * 4


@pytest.mark.parametrize("version", BOTH_VERSIONS)
def test_a_key_that_left_the_window_opens_nothing_and_a_new_one_seals(stage: Stage, version: Version) -> None:
    """The same workers, three windows: next opens before it seals, previous opens after it, and then no more."""
    first = new_window()
    site = stage.started("a", first)
    client, target, workers = stage.client(version), site.targets[0], site.workers
    old = client.visit(target)

    second = first.rotated()
    site.install(second)
    assert client.sealed_by(target) == first.keys[1].name
    assert [client.resumes(old, target) for _ in range(_MANY)] == [True] * _MANY

    third = second.rotated(keep=2)
    site.install(third)
    assert client.sealed_by(target) == second.keys[1].name
    assert [client.resumes(old, target) for _ in range(_MANY)] == [False] * _MANY
    assert site.workers == workers


def test_whoever_resumes_under_an_older_key_is_given_a_ticket_of_the_new_one(stage: Stage) -> None:
    """In TLS 1.2 too, where a server may or may not renew."""
    first = new_window()
    site = stage.started("a", first)
    client = stage.client(Version.TLS12)
    old = client.visit(site.targets[0])

    site.install(first.rotated())

    assert client.resume(old, site.targets[0]).key_name == first.keys[1].name


def test_an_excluded_server_keeps_its_own_key(stage: Stage) -> None:
    """Named by its first server_name; the others take the file's."""
    window = new_window()
    site = stage.started("a", window, options='exclude = {"own.test"},')
    client = stage.client(Version.TLS13)

    assert client.sealed_by(site.own_target, "own.test") not in window.names
    assert client.sealed_by(site.targets[0]) == window.keys[0].name
    assert [ack.contexts for ack in site.acks()] == [4, 4]


def test_stream_is_left_alone_where_that_is_asked(stage: Stage) -> None:
    window = new_window()
    site = stage.started("a", window, options="stream = false,")
    client = stage.client(Version.TLS13)

    assert client.sealed_by(site.targets[2]) not in window.names
    assert client.sealed_by(site.targets[0]) == window.keys[0].name


def test_servers_without_a_key_of_their_own_are_named(stage: Stage) -> None:
    """What was forgotten for stream is said, and http has the file's keys all the same."""
    window = new_window()
    site = stage.site("a", window)
    site.nginx.amend = _without_a_key_for_stream

    site.start()

    client = stage.client(Version.TLS13)
    assert site.nginx.said("servers without a ssl_session_ticket_key: 1") == WORKERS
    assert client.sealed_by(site.targets[0]) == window.keys[0].name
    assert client.sealed_by(site.targets[2]) not in window.names
    assert [ack.contexts for ack in site.acks()] == [4] * WORKERS


def test_a_server_behind_one_that_wants_no_tickets_seals_with_the_files_keys(stage: Stage) -> None:
    """OpenSSL asks the listener's default server, also for those whose own tickets are on."""
    window = new_window()
    site = stage.site("a", window)
    site.nginx.amend = lambda text: text.replace(
        "server_name localhost;", "server_name first.test; ssl_session_tickets off;", 1
    ).replace("server_name other.test;", "server_name localhost;")

    site.start()

    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) == window.keys[0].name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('exclude = {"misspelt.test"},', "exclude names misspelt.test, which is the first name of no server"),
        ("", "no server has a ssl_session_ticket_key, and take_all is not set"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nginx_goes_on(stage: Stage, options: str, words: str) -> None:
    """A misspelt name must not hand a server the keys that it was to be kept from."""
    site = stage.started("a", new_window(), options=options, cold_key=bool(options))

    site.wait_for_fault("layout")

    assert site.nginx.said(words) == len(site.workers)
    assert stage.client(Version.TLS13).visit(site.targets[0]).session is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("pole = 1,", "there is no option pole"),
        ('poll = "1s",', "option poll wants a number"),
        ("poll = 0,", "option poll wants 0.05 to 60 seconds"),
    ],
)
def test_wrong_options_are_said_and_nginx_goes_on(stage: Stage, options: str, words: str) -> None:
    site = stage.site("a", new_window(), options=options)

    site.nginx.start()
    wait_until(lambda: site.nginx.said(words) == 2, "both workers say what is wrong")

    assert stage.client(Version.TLS13).visit(site.targets[0]).session is not None
    assert site.acks() == ()


_ANOTHER_KEY = """
    local contexts = require "keyrotd.contexts"
    local layout = contexts.layout
    function contexts.layout(version)
        local found = layout(version)
        found.key = found.key == "keyrotd_key_1022" and "keyrotd_key_1023" or "keyrotd_key_1022"
        return found
    end
"""


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("ngx.config.nginx_version = 1999000", "nginx 1999000 is none of 1019000 to "),
        ("ngx.config.nginx_version = 1018000", "nginx 1018000 is none of 1019000 to "),
        (
            "ngx.config.nginx_version = ngx.config.nginx_version < 1023002 and 1023002 or 1022001",
            "nginx does not have its ticket keys where version ",
        ),
        (_ANOTHER_KEY, "nginx's ticket keys take "),
    ],
    ids=["newer than the newest tested", "older than any known", "not what it says", "keys of another size"],
)
def test_an_nginx_that_is_not_known_is_left_alone(stage: Stage, before: str, words: str) -> None:
    window = new_window()
    site = stage.site("a", window)
    site.reader.before = before
    site.start()

    assert [ack.fault for ack in site.acks()] == ["layout"] * 2
    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) not in window.names
    site.write(window.rotated().content)
    wait_until(lambda: all(ack.touched_at > now_at() - POLL_MS for ack in site.acks()), "it still says that it lives")
    assert site.nginx.said(words) == 2


def test_the_first_good_file_is_taken_without_a_restart(stage: Stage) -> None:
    """Until then nginx's own key opens on all its workers."""
    site = stage.started("a")
    client, window = stage.client(Version.TLS13), new_window()
    before = client.visit(site.targets[0])
    assert [ack.fault for ack in site.acks()] == ["missing", "missing"]
    assert [client.resumes(before, site.targets[0]) for _ in range(_MANY)] == [True] * _MANY

    site.install(window)

    assert client.sealed_by(site.targets[0]) == window.keys[0].name
    assert [ack.fault for ack in site.acks()] == [None, None]


def _without_a_key_for_stream(text: str) -> str:
    http, stream = text.split("\nstream {")
    return http + "\nstream {" + stream.replace("ssl_session_ticket_key", "# ssl_session_ticket_key")
