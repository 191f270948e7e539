"""Every alert asks for metrics that exist, and the runbook says what to do about it."""

import re

import pytest

from tests.alerts import ROOT, RULES, alerts, unknown_metrics

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def test_every_metric_and_label_in_the_rules_exists() -> None:
    rules = RULES.read_text()

    assert list(unknown_metrics(rules.partition("groups:")[2])) == []


def test_what_does_not_exist_is_found() -> None:
    expression = 'sum(keyrotd_nodes{mood="sad"}) + keyrotd_nonsense + keyrotd_tick_duration_seconds_bucket{le="1"}'

    assert list(unknown_metrics(expression)) == ["nodes{mood}", "nonsense"]


def test_no_two_alerts_share_a_name() -> None:
    assert len(alerts()) == len(set(alerts())) > 0


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_points_to_its_section_of_the_runbook(alert: str) -> None:
    section = re.search(rf"^### {alert}\n(.+?)(?=^##)", RUNBOOK, re.MULTILINE | re.DOTALL)

    assert f"runbook: docs/runbook.md#{alert.lower()}\n" in RULES.read_text()
    assert section is not None
    assert [point for point in ("\n- Look at: ", "\n- Do: ", "\n- Clears: ") if point not in section[1]] == []


def test_the_runbook_explains_no_alert_that_is_gone() -> None:
    assert re.findall(r"^### (Keyrotd\w+)$", RUNBOOK, re.MULTILINE) == alerts()


def test_every_link_within_the_runbook_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
    }

    assert [link for link in re.findall(r"\]\(#([^)]+)\)", RUNBOOK) if link not in anchors] == []
