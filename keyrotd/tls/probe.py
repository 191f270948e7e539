"""
What servers do with tickets, seen from outside: who issues them under which key, and whose resume on whom.

Only a full handshake that succeeded refuses a ticket: a connection that was reset proves nothing about keys.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from ssl import SSLContext

from keyrotd.core.errors import KeyrotdError
from keyrotd.core.messages import ProbeState
from keyrotd.core.stek import Scheme, Secrets
from keyrotd.tls.handshake import Fault, Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.target import Target
from keyrotd.tls.ticket import opens_ticket, sealed

#: Handshakes under way at once: enough for a fleet, not enough to be noticed by it.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """
    What one probe showed of one server. `fault` is words for people, '' when there is nothing to say.

    `key_name` and `lifetime_hint_s` are None while no ticket was seen. `took_ms` is the full handshake's, 0 if none.
    """

    state: ProbeState
    key_name: bytes | None = None
    lifetime_hint_s: int | None = None
    took_ms: int = 0
    fault: str = ""


def prove(target: Target, *, sni: str | None, trust: Trust, current: Secrets, scheme: Scheme, timeout_ms: int) -> Proof:
    """
    Whether a server seals with `current` (the key itself, not only its name) and opens its own fresh ticket.

    Two handshakes of TLS 1.2, or of TLS 1.3 where the server resets those, within `timeout_ms` in all.
    """
    deadline_s = time.monotonic() + timeout_ms / 1000
    try:
        seen = visit(target, client_context(Version.TLS12, trust), sni=sni, timeout_ms=timeout_ms)
        if isinstance(seen, Fault) and seen.state is ProbeState.RESET:
            seen = visit(target, client_context(Version.TLS13, trust), sni=sni, timeout_ms=_left_ms(deadline_s))
    except KeyrotdError as error:
        return Proof(state=ProbeState.CERTIFICATE, fault=str(error))
    if isinstance(seen, Fault):
        return Proof(state=seen.state, fault=seen.words)
    if seen.session is None or seen.ticket is None or not sealed(seen.ticket):
        state, fault = ProbeState.NO_TICKETS, "it issues no sealed tickets"
    elif not opens_ticket(seen.ticket, current, scheme):
        state = ProbeState.WRONG_KEY
        fault = "the key's name is right, the key is not" if seen.key_name == current.name else "another key seals"
    else:
        again = resume(target, seen.context, seen.session, sni=sni, timeout_ms=_left_ms(deadline_s))
        state, fault = _resumption(again)
    return Proof(
        state=state, key_name=seen.key_name, lifetime_hint_s=seen.lifetime_hint_s, took_ms=seen.took_ms, fault=fault
    )


def _left_ms(deadline_s: float) -> int:
    return max(round((deadline_s - time.monotonic()) * 1000), 1)


def _resumption(answer: Handshake | Fault) -> tuple[ProbeState, str]:
    match answer:
        case Handshake(resumed=True):
            return ProbeState.RESUMED, ""
        case Handshake():
            return ProbeState.REFUSED, "a fresh ticket did not resume"
        case Fault():
            return answer.state, answer.words


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one full handshake with one server showed."""

    target: Target
    version: Version
    outcome: Handshake | Fault


@dataclass(frozen=True, slots=True)
class Offer:
    """
    What became of a ticket of `issuer` offered to `taker`.

    RESUMED, or REFUSED by a full handshake that succeeded, twice, with two fresh tickets; NO_TICKETS when the issuer
    had none to offer; else the state of the connection that failed, and its words.
    """

    issuer: Target
    taker: Target
    version: Version
    state: ProbeState
    words: str = ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Every target seen in every version that any of them speaks, and every ordered pair, itself included."""

    sightings: tuple[Sighting, ...]
    offers: tuple[Offer, ...]

    @property
    def resumes(self) -> bool:
        """Whether every ticket resumes everywhere."""
        return all(offer.state is ProbeState.RESUMED for offer in self.offers)


def matrix(
    targets: Sequence[Target], versions: Iterable[Version], *, sni: str | None, trust: Trust, timeout_ms: int
) -> Matrix:
    """Look at every target, then offer everyone's ticket to everyone. Raises KeyrotdError for a bad CA file."""
    client = _Client({version: client_context(version, trust) for version in versions}, sni, timeout_ms)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        seen = tuple(pool.map(lambda pair: client.look(*pair), product(targets, client.contexts)))
        sightings = _spoken(seen)
        offers = pool.map(lambda pair: client.offer(*pair), product(sightings, targets))
        return Matrix(sightings, tuple(offers))


def offered(
    own: Target, takers: Iterable[Target], *, sni: str | None, trust: Trust, timeout_ms: int
) -> tuple[Offer, ...]:
    """
    Offer a fresh ticket of one server to others, one after the other; nothing when it has none to offer.

    Each handshake asks for `sni`, by default the name of `own`, and takes `timeout_ms` at most. Raises KeyrotdError for
    a bad CA file.
    """
    contexts = {version: client_context(version, trust) for version in Version}
    client = _Client(contexts, sni or own.server_name, timeout_ms)
    seen = client.look(own, Version.TLS12)
    if isinstance(seen.outcome, Fault) and seen.outcome.state is ProbeState.RESET:
        seen = client.look(own, Version.TLS13)
    if isinstance(seen.outcome, Fault) or seen.outcome.session is None:
        return ()
    return tuple(client.offer(seen, taker) for taker in takers)


def _spoken(sightings: tuple[Sighting, ...]) -> tuple[Sighting, ...]:
    """Without the versions that all targets say they do not speak, unless that is all of them."""
    spoken = {
        sighting.version
        for sighting in sightings
        if not (isinstance(sighting.outcome, Fault) and sighting.outcome.unspoken)
    }
    return tuple(sighting for sighting in sightings if not spoken or sighting.version in spoken)


@dataclass(frozen=True, slots=True)
class _Client:
    contexts: dict[Version, SSLContext]
    sni: str | None
    timeout_ms: int

    def look(self, target: Target, version: Version) -> Sighting:
        return Sighting(target, version, self._visit(target, version))

    def offer(self, sighting: Sighting, taker: Target) -> Offer:
        issuer, version = sighting.target, sighting.version
        state, words = self._offer(sighting.outcome, taker)
        if state is ProbeState.REFUSED:
            # Its key may have left since it was issued, and some servers open a ticket once only.
            state, words = self._offer(self._visit(issuer, version), taker)
        return Offer(issuer, taker, version, state, words)

    def _offer(self, issued: Handshake | Fault, taker: Target) -> tuple[ProbeState, str]:
        if isinstance(issued, Fault):
            return issued.state, issued.words
        if issued.session is None:
            return ProbeState.NO_TICKETS, "no ticket to offer"
        return _resumption(resume(taker, issued.context, issued.session, sni=self.sni, timeout_ms=self.timeout_ms))

    def _visit(self, target: Target, version: Version) -> Handshake | Fault:
        return visit(target, self.contexts[version], sni=self.sni, timeout_ms=self.timeout_ms)
