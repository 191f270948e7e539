"""Certificates for tests and the demo: one small CA, leaves that strict verification accepts. Worthless elsewhere."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LeafKey = EllipticCurvePrivateKey | RSAPrivateKey

_LIFETIME = timedelta(days=2)
_CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """A CA of one's own. `issue` makes what HAProxy and nginx read: certificate, then key, in one PEM."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey
    made_at: datetime

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, *names: str, key: LeafKey | None = None) -> bytes:
        """A server's leaf for these DNS names and IP addresses, with a new P-256 key unless another is given."""
        return self._issue(names, ExtendedKeyUsageOID.SERVER_AUTH, key or generate_private_key(SECP256R1()))

    def issue_client(self, name: str) -> bytes:
        """A client's leaf, which no client takes from a server."""
        return self._issue((name,), ExtendedKeyUsageOID.CLIENT_AUTH, generate_private_key(SECP256R1()))

    def _issue(self, names: tuple[str, ...], purpose: x509.ObjectIdentifier, key: LeafKey) -> bytes:
        issuer = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        leaf = (
            _builder(names[0], self.certificate.subject, key, self.made_at)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            # Python 3.13 verifies with VERIFY_X509_STRICT, which wants this of a leaf and the key usage of its CA.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self.key, SHA256())
        )
        return leaf.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, directory: Path, *names: str, key: LeafKey | None = None) -> tuple[Path, Path]:
        """`ca.pem` for clients and `site.pem` for servers (`localhost` and 127.0.0.1 unless names are given)."""
        ca, site = directory / "ca.pem", directory / "site.pem"
        ca.write_bytes(self.pem)
        site.touch(mode=0o600)
        site.write_bytes(self.issue(*(names or ("localhost", "127.0.0.1")), key=key))
        return ca, site


def new_authority(now: datetime) -> Authority:
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keyrotd test CA")])
    certificate = (
        _builder("keyrotd test CA", name, key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )
    return Authority(certificate, key, now)


def _builder(subject: str, issuer: x509.Name, key: LeafKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
