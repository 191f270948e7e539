"""A count that nobody saw begin is no increase to whoever scrapes: it begins at 0, before anything happens."""

from prometheus_client.parser import text_string_to_metric_families

from keyrotd.daemon.telemetry import Reporter


def test_counters_and_histograms_of_a_ring_are_shown_before_anything_happened() -> None:
    reporter = Reporter()

    reporter.expect("agent", "edge", ["haproxy", "envoy"])

    shown = [
        (sample.name, sample.labels.get("server"), sample.value)
        for family in text_string_to_metric_families(reporter.exposition().decode())
        for sample in family.samples
    ]
    for server in ("haproxy", "envoy"):
        assert ("keyrotd_drift_total", server, 0) in shown
        assert ("keyrotd_install_duration_seconds_count", server, 0) in shown
    assert not any(name == "keyrotd_publishes_total" for name, *_ in shown)  # an agent has nothing to say of those
