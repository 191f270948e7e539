"""Telemetry that says nothing."""


class SilentTelemetry:
    def event(self, name: str, **fields: object) -> None:
        pass

    def fault(self, key: str, text: str | None, *, hint: str | None = None, **fields: object) -> None:
        pass

    def count(self, metric: str, **labels: str) -> None:
        pass

    def gauge(self, metric: str, value: float, **labels: str) -> None:
        pass

    def unset(self, metric: str, **labels: str) -> None:
        pass

    def observe(self, metric: str, value: float, **labels: str) -> None:
        pass
