"""
What in Traffic Server's own files breaks a farm without a word. Pure: texts in, findings out.

The rules were measured on 9.2.9 and read in the sources of 10; deploy/trafficserver/README.md explains each.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography import x509


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """One node's files, None where there is none: records, certificates by address, the CAs that clients may have."""

    records: str | None
    certificates: str | None
    authorities: bytes | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """`certain`: it breaks resumption as it stands. Else it may, or it should be known."""

    certain: bool
    words: str
    hint: str


@dataclass(frozen=True, slots=True)
class Context:
    """
    What Traffic Server makes its session-id context of. A ticket resumes only where its issuer's is the same.

    `certificate`: the *name* of the default certificate's file, '' where there is no default. `authorities`: subjects
    of the CAs, in the order of their file; None where that file was not to be read.
    """

    certificate: str
    authorities: tuple[str, ...] | None

    def __str__(self) -> str:
        default = f'the default certificate is called "{self.certificate}"' if self.certificate else "no default one"
        if self.authorities is None:
            return f"{default}, the CAs of clients could not be read"
        return f"{default}, CAs of clients: {', then '.join(self.authorities) or 'none'}"


def breakers(files: Files) -> tuple[Breaker, ...]:
    """Every breaker, the certain ones first; none for files that are as they should be."""
    found = [*_of_records(files.records), *_of_certificates(files.certificates)]
    return tuple(sorted(found, key=lambda breaker: not breaker.certain))


def context(files: Files) -> Context:
    """What must be the same on every node of a ring, as far as this node's files show it."""
    named = [line.get("ssl_cert_name", "") for line in _certificates(files.certificates or "") if _is_default(line)]
    if not _set(records(files.records or ""), AUTHORITIES):
        return Context(named[-1] if named else "", ())
    return Context(named[-1] if named else "", None if files.authorities is None else _subjects(files.authorities))


#: Where the certificates' table lies, if not in ssl_multicert.config.
CERTIFICATES = "proxy.config.ssl.server.multicert.filename"
#: The CAs that clients' certificates may come from; its folder.
AUTHORITIES = "proxy.config.ssl.CA.cert.filename"
AUTHORITIES_FOLDER = "proxy.config.ssl.CA.cert.path"

_TICKETS = "proxy.config.ssl.server.session_ticket.enable"
_TICKET_COUNT = "proxy.config.ssl.server.session_ticket.number"
_KEY_FILE = "proxy.config.ssl.server.ticket_key.filename"
_EARLY_DATA = "proxy.config.ssl.server.max_early_data"


_FOLDER = "is config_dir Traffic Server's own, and may keyrotd's user read it?"


def records(text: str) -> Mapping[str, str]:
    """`proxy.config....` by name, of records.config or records.yaml; the last of a name counts."""
    if _is_yaml(text):
        return {
            f"proxy.config.{'.'.join(path[1:])}": value
            for path, value in _leaves(text)
            if path[0] in {"records", "ts"} and len(path) > 1
        }
    found = (line.split(None, 3) for line in text.splitlines() if line.startswith(("CONFIG ", "LOCAL ")))
    return {words[1]: words[3].strip() for words in found if len(words) == len(("CONFIG", "name", "type", "value"))}


def _of_records(text: str | None) -> Iterator[Breaker]:
    if text is None:
        yield Breaker(False, "no records.config or records.yaml can be read", _FOLDER)
        return
    said = records(text)
    if said.get(_TICKETS) == "0":
        yield Breaker(True, f"{_TICKETS} is 0: no session ever resumes by a ticket", "set it to 1, or delete the line")
    if said.get(_TICKET_COUNT) == "0":
        yield Breaker(True, f"{_TICKET_COUNT} is 0: no ticket in TLS 1.3", "delete the line: OpenSSL sends two")
    if _set(said, _KEY_FILE):
        yield Breaker(
            True,
            f"{_KEY_FILE} is set: a later configuration reload brings that file's key back",
            "delete the line; keyrotd's plugin needs none",
        )
    if said.get(_EARLY_DATA, "0") != "0":
        yield Breaker(
            False,
            f"{_EARLY_DATA} is not 0: a ticket's early data can be replayed once on every node",
            "each node guards against replays alone; set it to 0 unless every request is safe to repeat",
        )


def _of_certificates(text: str | None) -> Iterator[Breaker]:
    if text is None:
        yield Breaker(False, "no table of certificates can be read", _FOLDER)
        return
    lines = list(_certificates(text))
    for line in lines:
        name, address = line.get("ssl_cert_name", "a certificate"), line.get("dest_ip", "*")
        if line.get("ssl_ticket_enabled") == "0":
            yield Breaker(True, f"{name}: ssl_ticket_enabled is 0: its sessions never resume by a ticket", "delete it")
        if line.get("ssl_ticket_number") == "0":
            yield Breaker(True, f"{name}: ssl_ticket_number is 0: no ticket in TLS 1.3", "delete it")
        if address != "*":
            yield Breaker(
                False,
                f"{name}: dest_ip is {address}: once any plugin asks for the local address early, or over QUIC, "
                "tickets on it are sealed by a random key of this process",
                "take dest_ip out, or write dest_ip=*: names choose certificates, and Traffic Server has no fix yet",
            )
    defaults = [line.get("ssl_cert_name", "") for line in lines if _is_default(line)]
    if len(defaults) > 1:
        yield Breaker(
            False,
            f"there are {len(defaults)} lines with dest_ip=*: {', '.join(defaults)}",
            "keep one: whose name counts for the session-id context must not depend on their order",
        )


def _certificates(text: str) -> Iterator[dict[str, str]]:
    """Each certificate's words, of ssl_multicert.config or ssl_multicert.yaml."""
    if not _is_yaml(text):
        for line in text.splitlines():
            if words := dict(_WORD.findall(line.strip())) if not line.lstrip().startswith("#") else {}:
                yield {name: value.strip('"') for name, value in words.items()}
        return
    entries: dict[str, dict[str, str]] = {}
    for (*_, entry, name), value in (leaf for leaf in _leaves(text) if len(leaf[0]) > 1):
        entries.setdefault(entry, {})[name] = value
    yield from entries.values()


_WORD = re.compile(r'(\w+)=("[^"]*"|\S+)')


def _is_default(line: Mapping[str, str]) -> bool:
    return line.get("dest_ip") == "*"


def _set(said: Mapping[str, str], name: str) -> bool:
    return said.get(name, "NULL") not in {"NULL", "null", "~", ""}


def _is_yaml(text: str) -> bool:
    return re.search(r"^(?:records|ts|ssl_multicert):", text, re.MULTILINE) is not None


def _leaves(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """
    Every `path, value` of block YAML, which is how these files are written. An entry of a list counts as its number.

    What stands in flow style ({a: b}) is not seen: the probe still is.
    """
    above: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines()):
        found = _YAML_LINE.match(line)
        if found is None:
            continue
        indent = len(found["indent"])
        while above and above[-1][0] >= indent:
            above.pop()
        if found["dash"] is not None:
            above.append((indent, str(number)))
            indent += len(found["dash"])
        value = (found["quoted"] or "")[1:-1] or found["plain"] or ""
        if value:
            yield (*(name for _, name in above), found["name"]), value
        else:
            above.append((indent, found["name"]))


_YAML_LINE = re.compile(
    r"(?P<indent> *)(?P<dash>- +)?(?P<name>[\w.]+):(?: +!\S+)?"
    r"""(?: +(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<plain>[^\s#"'][^#]*?)))? *(?:#.*)?$"""
)


def _subjects(pem: bytes) -> tuple[str, ...] | None:
    try:
        return tuple(certificate.subject.rfc4514_string() for certificate in x509.load_pem_x509_certificates(pem))
    except ValueError:
        return None
