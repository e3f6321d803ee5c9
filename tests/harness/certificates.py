"""A certificate authority of its own, for servers and clients under test."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True)
class Certificate:
    """PEM files; the key is in PKCS#8."""

    cert: Path
    key: Path

    def traditional_key(self) -> Path:
        """A copy of the key in PKCS#1 (RSA) or SEC 1 (EC)."""
        return self._key_copy("traditional", PrivateFormat.TraditionalOpenSSL, NoEncryption())

    def locked_key(self, passphrase: str) -> Path:
        """A copy of the key behind a passphrase."""
        return self._key_copy("locked", PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode()))

    def _key_copy(self, name: str, how: PrivateFormat, encryption: KeySerializationEncryption) -> Path:
        private = load_pem_private_key(self.key.read_bytes(), None)
        copy = self.key.with_suffix(f".{name}.key")
        copy.write_bytes(private.private_bytes(Encoding.PEM, how, encryption))
        return copy


class Authority:
    """`ca` is the PEM file to trust."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = name
        self._authority = trustme.CA()
        self.ca = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, *hosts: str, rsa: bool = False, not_after: datetime | None = None) -> Certificate:
        """For `hosts` (a client's has a mail address or any name); valid for years unless `not_after` says less."""
        kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        before = datetime(2020, 1, 1, tzinfo=UTC) if not_after else None
        made = self._authority.issue_cert(*hosts, key_type=kind, not_before=before, not_after=not_after)
        files = Certificate(self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key")
        files.cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        private = load_pem_private_key(made.private_key_pem.bytes(), None)
        files.key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files
