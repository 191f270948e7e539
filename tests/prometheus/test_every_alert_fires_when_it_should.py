"""Prometheus itself works the rules out: each alert over series that must set it off, and over some that must not."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.alerts import RULES, alerts
from tests.servers_found import promtool

pytestmark = pytest.mark.debian

HOUR = 3600
DAY = 24 * HOUR


@dataclass(frozen=True)
class Story:
    """
    Series by what they are called without `keyrotd_`, in promtool's notation, one value a minute.

    `fires` sets the alert off by `minute`, `calm` comes close and does not.
    """

    alert: str
    fires: dict[str, str]
    calm: dict[str, str]
    minute: int = 30


def due(minute: int, until: int) -> dict[str, str]:
    return {
        'rotation_due_timestamp_seconds{ring="r"}': f"{minute * 60}+0x90",
        'key_seals_until_timestamp_seconds{ring="r"}': f"{until * 60}+0x90",
    }


STORIES = [
    Story(
        "KeyrotdNoLeader",
        fires={'leader{ring="r",instance="a"}': "0+0x60", 'leader{ring="r",instance="b"}': "1 0+0x60"},
        calm={'leader{ring="r",instance="a"}': "0+0x60", 'leader{ring="r",instance="b"}': "1+0x60"},
    ),
    Story(
        "KeyrotdNoLeader",  # no scheduler is left to be scraped
        fires={'beat_timestamp_seconds{ring="r",instance="a"}': "0+60x10 600+0x60"},
        calm={
            'beat_timestamp_seconds{ring="r",instance="a"}': "0+60x10 600+0x60",
            'beat_timestamp_seconds{ring="r",instance="b"}': "0+60x60",
        },
    ),
    Story("KeyrotdRotationOverdue", fires=due(18, 38), calm=due(22, 42)),
    Story(
        "KeyrotdRotationOverdue",
        fires={**due(18, 38), 'rotation_paused_until_timestamp_seconds{ring="r"}': "0+0x60"},
        calm={**due(18, 38), 'rotation_paused_until_timestamp_seconds{ring="r"}': "3600+0x60"},
    ),
    Story("KeyrotdSealingEndsSoon", fires=due(10, 30), calm=due(16, 36)),
    Story(
        "KeyrotdNodesBehind",
        fires={'nodes{ring="r",state="behind"}': "1 0 2+0x60", 'nodes{ring="r",state="in_step"}': "9+0x60"},
        calm={'nodes{ring="r",state="behind"}': "2+0x10 0+0x10 1+0x60", 'nodes{ring="r",state="silent"}': "1+0x60"},
    ),
    Story(
        "KeyrotdNodesOverdue",
        fires={'nodes_overdue{ring="r"}': "0+0x9 1+0x60"},
        calm={'nodes_overdue{ring="r"}': "0+0x60"},
    ),
    Story(
        "KeyrotdNodesSilent",
        fires={'nodes{ring="r",state="silent"}': "3+0x60", 'nodes{ring="r",state="in_step"}': "7+0x60"},
        calm={'nodes{ring="r",state="silent"}': "2+0x60", 'nodes{ring="r",state="in_step"}': "8+0x60"},
    ),
    Story(
        "KeyrotdStranded",
        fires={
            'succession_steps{ring="r",instance="a"}': "0+0x9 1+0x60",
            'succession_steps{ring="r",instance="b"}': "0+0x60",
        },
        calm={'succession_steps{ring="r",instance="a"}': "0+0x60", 'nodes{ring="r",state="stranded"}': "0+0x60"},
    ),
    Story(
        "KeyrotdStranded",
        fires={'nodes{ring="r",state="stranded"}': "4+0x60"},
        calm={'nodes{ring="r",state="joining"}': "4+0x60"},
    ),
    Story("KeyrotdIsolated", fires={'isolated{ring="r"}': "1+0x60"}, calm={'isolated{ring="r"}': "1+0x3 0+0x60"}),
    Story(
        "KeyrotdIsolated", fires={'nodes{ring="r",state="isolated"}': "1+0x60"}, calm={'isolated{ring="r"}': "0+0x60"}
    ),
    Story(
        "KeyrotdDrift",
        fires={'drift_total{ring="r",server="h",instance="a"}': "0 1 1 2 3 4+0x60"},
        calm={
            'drift_total{ring="r",server="h",instance="a"}': "0 1 2+0x60",
            'drift_total{ring="r",server="h",instance="b"}': "0 1 2+0x60",
        },
    ),
    Story(
        "KeyrotdResumptionLow",
        fires={
            'probe_resumption_ratio{ring="r",instance="a"}': "0.5+0x60",
            'probe_resumption_ratio{ring="r",instance="b"}': "1+0x60",
        },
        calm={
            'probe_resumption_ratio{ring="r",instance="a"}': "0.8+0x60",
            'probe_resumption_ratio{ring="r",instance="b"}': "1+0x60",
        },
    ),
    Story(
        "KeyrotdResumptionBelowObjective",
        fires={
            'peer_probes_total{ring="r",instance="a",outcome="resumed"}': "0+98x60",
            'peer_probes_total{ring="r",instance="b",outcome="refused"}': "0+2x60",
        },
        calm={
            'peer_probes_total{ring="r",outcome="resumed"}': "0+995x60",
            'peer_probes_total{ring="r",outcome="refused"}': "0+5x60",
            'peer_probes_total{ring="r",outcome="unreachable"}': "0+500x60",
        },
    ),
    Story(
        "KeyrotdResumptionBelowObjective",
        fires={
            'peer_probes_total{ring="r",outcome="resumed"}': "0+0x60",
            'peer_probes_total{ring="r",outcome="refused"}': "0+1x60",
        },
        calm={  # off, or nobody decided
            'peer_probes_total{ring="r",outcome="resumed"}': "0+0x60",
            'peer_probes_total{ring="r",outcome="refused"}': "0+0x60",
        },
    ),
    Story(
        "KeyrotdDroppedKeys",
        fires={'dropped_keys_total{ring="r",server="h"}': "0+0x9 1+0x60"},
        calm={'dropped_keys_total{ring="r",server="h"}': "5+0x60"},
    ),
    Story(
        "KeyrotdWindowsRefused",
        fires={'windows_refused_total{ring="r",reason="bad signature"}': "1+12x60"},
        calm={'windows_refused_total{ring="r",reason="bad signature"}': "1 2 3+0x60"},
    ),
    Story("KeyrotdFork", fires={'forks_total{ring="r"}': "0+0x9 1+0x60"}, calm={'forks_total{ring="r"}': "3+0x60"}),
    Story(
        "KeyrotdStoreRegressed",
        fires={'store_regressions_total{ring="r"}': "0+0x9 1+0x60"},
        calm={'store_regressions_total{ring="r"}': "1+0x60"},
    ),
    Story(
        "KeyrotdOldKek",
        fires={'kek_made_timestamp_seconds{ring="r"}': f"{-31 * DAY}+0x120"},
        calm={
            'kek_made_timestamp_seconds{ring="r"}': f"{-29 * DAY}+0x120",
            'kek_made_timestamp_seconds{ring="s"}': "NaN+0x120",
        },
        minute=90,
    ),
    Story(
        "KeyrotdStoreErrors",
        fires={'store_errors_total{operation="poll"}': "0+1x60", "tick_duration_seconds_count": "0+12x60"},
        calm={'store_errors_total{operation="poll"}': "0 1+0x60", "tick_duration_seconds_count": "0+12x60"},
    ),
    Story(
        "KeyrotdStoreAway",
        fires={'store_errors_total{operation="poll"}': "0+9x60", "tick_duration_seconds_count": "0+12x60"},
        calm={'store_errors_total{operation="poll"}': "0+5x60", "tick_duration_seconds_count": "0+12x60"},
    ),
    Story(
        "KeyrotdConfigReloadFailed",
        fires={"config_last_reload_successful": "1+0x9 0+0x60"},
        calm={"config_last_reload_successful": "1 0 1+0x60"},
    ),
    Story(
        "KeyrotdNotTicking",
        fires={"last_tick_timestamp_seconds": "0+60x9 540+0x60"},
        calm={"last_tick_timestamp_seconds": "0+60x60"},
    ),
    Story("KeyrotdTickErrors", fires={"tick_errors_total": "0+0x25 1+0x60"}, calm={"tick_errors_total": "0 1 2+0x60"}),
    Story(
        "KeyrotdDown",
        fires={'up{job="keyrotd-agent"}': "1 0+0x60"},
        calm={'up{job="other"}': "0+0x60", 'up{job="keyrotd"}': "1+0x60"},
    ),
]


def case(name: str, story: Story, series: dict[str, str], *, fires: bool) -> dict[str, Any]:
    expected = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "name": name,
        "interval": "1m",
        "input_series": [
            {"series": text if text.startswith("up{") else f"keyrotd_{text}", "values": values}
            for text, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{story.alert}",alertstate="firing"}})',
                "eval_time": f"{story.minute}m",
                "exp_samples": expected,
            }
        ],
    }


def test_every_alert_has_its_story() -> None:
    assert {story.alert for story in STORIES} == set(alerts())


def test_the_rules_are_sound_to_prometheus() -> None:
    told = subprocess.run(
        [promtool(), "check", "rules", "--lint=all", "--lint-fatal", RULES], capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stdout + told.stderr


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    tests = [
        case(f"{story.alert} {word}", story, series, fires=word == "fires")
        for story in STORIES
        for word, series in (("fires", story.fires), ("calm", story.calm))
    ]
    path = tmp_path / "stories.json"  # which is YAML too
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))

    told = subprocess.run([promtool(), "test", "rules", path], capture_output=True, text=True, check=False)

    assert told.returncode == 0, told.stdout + told.stderr
