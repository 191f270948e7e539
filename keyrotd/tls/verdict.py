"""What a probe's matrix means, in words for people. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from keyrotd.core.messages import ProbeState
from keyrotd.core.stek import NAME_BYTES, Scheme, Stek
from keyrotd.tls.handshake import Fault, Handshake
from keyrotd.tls.probe import Matrix, Sighting
from keyrotd.tls.ticket import opens_ticket, sealed, sealed_by_zeros

_FAULT_HINTS = {
    ProbeState.UNREACHABLE: "is it running, and is this its address?",
    ProbeState.RESET: "the server's log says why; Envoy resets every handshake while it has no ticket keys",
    ProbeState.CERTIFICATE: "name its CA with --ca and its name with --sni, or look at tickets alone with --insecure",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth saying. `grave`: resumption or secrecy is broken; otherwise it is good to know."""

    words: str
    hint: str
    grave: bool = True


@dataclass(frozen=True, slots=True)
class Expected:
    """What the asker knows of the fleet: tickets' longest life, the sealing key's name, or a ring's keys by role."""

    lifetime_s: int | None = None
    key_name: bytes | None = None
    keys: tuple[tuple[str, Stek], ...] = ()


def findings(matrix: Matrix, expected: Expected) -> tuple[Finding, ...]:
    """Everything that `matrix` shows to be wrong or odd, targets first; nothing grave means that all resume."""
    found = [finding for sighting in matrix.sightings for finding in _of_sighting(sighting, expected)]
    return tuple(dict.fromkeys((*found, *_of_offers(matrix))))


def _of_sighting(sighting: Sighting, expected: Expected) -> Iterator[Finding]:
    who, seen = f"{sighting.target}, TLS {sighting.version.value}", sighting.outcome
    if isinstance(seen, Fault):
        yield _of_fault(sighting, seen)
    elif seen.ticket is None:
        yield Finding(f"{who}: issues no tickets", "turn session tickets on")
    elif not sealed(seen.ticket):
        yield Finding(
            f"{who}: issues session numbers instead of sealed tickets",
            "only the server that issued a number can resume it; turn session tickets on",
            grave=False,
        )
    else:
        yield from _of_ticket(who, seen, seen.ticket, expected)


def _of_fault(sighting: Sighting, fault: Fault) -> Finding:
    if fault.unspoken:
        return Finding(
            f"{sighting.target}, TLS {sighting.version.value}: {fault.words}",
            "others do: a client may come back with a ticket of theirs",
        )
    version = f", TLS {sighting.version.value}" if fault.state is ProbeState.RESET else ""
    return Finding(f"{sighting.target}{version}: {fault.words}", _FAULT_HINTS[fault.state])


def _of_ticket(who: str, seen: Handshake, ticket: bytes, expected: Expected) -> Iterator[Finding]:
    if sealed_by_zeros(ticket):
        yield Finding(f"{who}: seals with an all-zero key", "anybody can read what it says: replace its key now")
    if expected.key_name is not None and seen.key_name != expected.key_name:
        yield Finding(
            f"{who}: seals under key {ticket[:NAME_BYTES].hex()}, expected {expected.key_name.hex()}",
            "it has not been given this key, or another one is its current",
        )
    if expected.keys:
        yield from _of_key(who, ticket, expected)
    if expected.lifetime_s is not None and (seen.lifetime_hint_s or 0) > expected.lifetime_s:
        yield Finding(
            f"{who}: lifetime hint {seen.lifetime_hint_s} s is above {expected.lifetime_s} s",
            "clients will offer tickets whose key is gone; lower the server's session timeout",
            grave=False,
        )


def _of_key(who: str, ticket: bytes, expected: Expected) -> Iterator[Finding]:
    """Judge the key itself, by the MAC that it put on the ticket: a name alone is public."""
    name = ticket[:NAME_BYTES]
    role, stek = next(((role, stek) for role, stek in expected.keys if stek.name == name), ("", None))
    if stek is None:
        yield Finding(
            f"{who}: seals under key {name.hex()}, which is not in the ring's window",
            "no agent serves it, or its node is isolated: see `keyrotd status`",
        )
    elif not any(opens_ticket(ticket, stek.secrets(scheme), scheme) for scheme in Scheme):
        yield Finding(
            f"{who}: the ticket bears the name of the ring's {role} key, another key sealed it",
            "somebody gave this server a key under a copied name: replace it now",
        )
    elif role != "current":
        yield Finding(f"{who}: seals with the ring's {role} key instead of current", "its agent is behind, or ahead")


def _of_offers(matrix: Matrix) -> Iterator[Finding]:
    """One finding per taker and version, and none for what a target's own fault explains."""
    faulty = {(seen.target, seen.version) for seen in matrix.sightings if isinstance(seen.outcome, Fault)}
    refused: dict[str, list[str]] = {}
    for offer in matrix.offers:
        if offer.state is ProbeState.REFUSED:
            itself = " (its own)" if offer.issuer == offer.taker else ""
            refused.setdefault(f"{offer.taker}, TLS {offer.version.value}", []).append(f"{offer.issuer}{itself}")
        elif (
            offer.state not in {ProbeState.RESUMED, ProbeState.NO_TICKETS}
            and not {(offer.issuer, offer.version), (offer.taker, offer.version)} & faulty
        ):
            yield Finding(
                f"{offer.taker}, TLS {offer.version.value}: offered a ticket of {offer.issuer}: {offer.words}",
                _FAULT_HINTS[offer.state],
            )
    for taker, issuers in refused.items():
        yield Finding(f"{taker}: refuses the tickets of {', '.join(issuers)}", _REFUSED_HINT)


_REFUSED_HINT = (
    "compare their keys, then their certificates; targets of different names want one --sni, and servers of "
    "different kinds never resume each other: probe one kind at a time"
)
