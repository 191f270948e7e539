"""Figures as markdown: a column for each regime, ratios to the first of them in the same run, counts beside them."""

from collections.abc import Iterable, Iterator, Sequence

from keyrotd.tls.handshake import Version
from tests.resumption.measure import Found, Plan
from tests.resumption.regimes import Kind
from tests.resumption.upstream import Route


def of_clients(kind: Kind, plan: Plan, found: Sequence[Found]) -> Iterator[str]:
    yield f"{_stage(kind, plan)}:"
    yield ""
    yield from _head([one.regime for one in found])
    yield _row("connections", [str(len(one.visits)) for one in found])
    yield _row("tickets opened", [f"{_percent(one.opened_share)} of {one.offered}" for one in found])
    for version in Version:
        shares = [_percent(one.resumed_share(version)) for one in found]
        yield _row(f"TLS {version.value}: resumed handshakes", shares)
    yield _ratios("server CPU per 1000 connections", "s", [one.cpu_ms_each for one in found])
    for version in Version:
        times = [one.first_byte_ms(version) for one in found]
        yield _ratios(f"TLS {version.value}: first byte, median", "ms", [median for median, _ in times])
        yield _ratios(f"TLS {version.value}: first byte, p95", "ms", [p95 for _, p95 in times])
    yield _row("failed connections", [_failed(one) for one in found])
    yield _row("idle connections closed", [f"{one.idle_closed} of {one.idle}" for one in found])
    yield ""


def of_upstream(kind: Kind, plan: Plan, routes: Sequence[Route]) -> Iterator[str]:
    yield f"An nginx with `proxy_ssl_session_reuse` in front of {_stage(kind, plan)}:"
    yield ""
    regimes = dict.fromkeys(route.regime for route in routes)
    yield from _head(list(regimes))
    for way, version in dict.fromkeys((route.way, route.version) for route in routes):
        group = [route for route in routes if (route.way, route.version) == (way, version)]
        what = f"{way}, TLS {version.value}"
        yield _row(f"{what}: resumed", [f"{_percent(route.resumed_share)} of {len(route.reuses)}" for route in group])
        yield _ratios(f"{what}: connect, median", "ms", [route.connect_ms for route in group])
    failed = [sum(route.failed for route in routes if route.regime == regime) for regime in regimes]
    yield _row("failed requests", map(str, failed))
    yield ""


def _failed(one: Found) -> str:
    return ", ".join(f"{count}: {words}" for words, count in one.failed.items()) or "0"


def _stage(kind: Kind, plan: Plan) -> str:
    scene = f"{plan.nodes} {kind.title} nodes behind one balancer, {plan.key} certificate"
    return f"{scene}, round trip {2 * plan.one_way_ms:g} ms, {plan.rotations} rotations"


def _head(columns: Sequence[str]) -> Iterator[str]:
    yield f"| | {' | '.join(columns)} |"
    yield f"|---{'|---:' * len(columns)}|"


def _row(what: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join((what, *cells))} |"


def _ratios(what: str, unit: str, figures: Sequence[float]) -> str:
    return _row(what, [f"x {figure / figures[0]:.2f} ({figure:.3g} {unit})" for figure in figures])


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
