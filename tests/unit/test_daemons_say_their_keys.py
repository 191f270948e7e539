"""A daemon says by which keys it goes, and how old its KEK is; a scheduler signs with no key that it cannot verify."""

import math
import os
from pathlib import Path

import pytest

from keyrotd import secrets
from keyrotd.cli.daemons import Parts
from keyrotd.cli.main import run
from keyrotd.config import Config, load
from keyrotd.core.errors import ConfigError
from keyrotd.daemon.clock import SystemClock
from keyrotd.seal import keyedits
from keyrotd.seal.keyfiles import Kek, SigningKey, VerifyKey, make_kek, make_secrets
from tests.faults.rig import Recorder


@pytest.fixture
def config(tmp_path: Path) -> Config:
    run(["init", str(tmp_path), "--store", f"unix://{tmp_path}/nobody.sock"])
    return load(tmp_path / "keyrotd.toml")


def started(config: Config) -> Recorder:
    recorder = Recorder()
    running = Parts(config=config, reporter=recorder, clock=SystemClock(), holder="me").running("scheduler")
    assert running.job.wakes is not None
    running.job.wakes.close()
    return recorder


def test_a_daemon_names_its_keys_and_dates_the_kek(config: Config) -> None:
    (ring,), folder = config.rings, config.path.parent / "secrets"
    (kek,) = secrets.read(ring.kek_file, Kek)
    (verifier,) = secrets.read(folder / "verify.key", VerifyKey)
    made_at = keyedits.entries(secrets.text(ring.kek_file, Kek), Kek, "kek")[0].made_at
    assert made_at is not None

    recorder = started(config)

    (event,) = recorder.events("trust.taken")
    assert (event["ring"], event["signing_key"], event["verify_keys"], event["keks"]) == (
        "edge",
        verifier.id,
        [verifier.id],
        [kek.id],
    )
    assert recorder.value("kek_made_timestamp_seconds", ring="edge") == made_at / 1000


def test_a_kek_without_a_mark_has_no_age(config: Config) -> None:
    config.rings[0].kek_file.write_text(make_kek("edge", os.urandom))

    assert math.isnan(started(config).value("kek_made_timestamp_seconds", ring="edge"))


def test_a_signing_key_that_its_own_scheduler_cannot_verify_is_refused(config: Config) -> None:
    signing = config.path.parent / "secrets/signing.key"
    signing.write_text(make_secrets("edge", os.urandom)["signing.key"])
    assert secrets.read(signing, SigningKey)

    with pytest.raises(ConfigError, match=r"verify\.key: does not know the first key of .*signing\.key"):
        started(config)
