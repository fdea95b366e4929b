"""Node IDs: base58check text, the 32 bytes that the rollout rule is computed over, and where they come from."""

import re
import ssl
from hashlib import sha256
from pathlib import Path

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BYTES = 32
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_LARGEST_FILE_BYTES = 64 * 1024
_SUBJECT_PUBLIC_KEY = 6
"""Its place among the fields of a certificate after the version: serial, algorithm, issuer, validity, subject, key."""


class NodeIDError(ValueError):
    """A text that is not a node ID."""


def node_id_bytes(text: str) -> bytes:
    """Decode a node ID (storj/common, storj/node.go and base58/base58check.go).

    The payload is a version byte, 32 bytes and a four-byte checksum. The version stands in for the last of the 32
    bytes, and 0 is the only one there is; upstream reads any other as 0.

    Raises:
        NodeIDError: not base58, a wrong checksum, or not 32 bytes.
    """
    number = 0
    for character in text[:100]:
        digit = _ALPHABET.find(character)
        if digit < 0:
            raise NodeIDError(f"not a node ID: {text[:100]!r} has {character!r}, which base58 lacks")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    decoded = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8)
    payload, checksum = decoded[:-4], decoded[-4:]
    if len(payload) != _BYTES + 1:
        raise NodeIDError(f"not a node ID: {text[:100]!r} has {max(len(payload) - 1, 0)} bytes, expected {_BYTES}")
    if sha256(sha256(payload).digest()).digest()[:4] != checksum:
        raise NodeIDError(f"not a node ID: {text[:100]!r} has a wrong checksum")
    return payload[1:-1] + b"\0"


def read_node_id(identity: Path) -> str:
    """Compute the node ID from `identity.cert`, given the file or the directory it is in; the key is not needed.

    Raises:
        NodeIDError: the file cannot be read, or is not an identity.
    """
    path = identity / "identity.cert" if identity.is_dir() else identity
    try:
        with path.open("rb") as file:
            return node_id_from_certificates(file.read(_LARGEST_FILE_BYTES).decode("ascii", "replace"))
    except OSError as error:
        raise NodeIDError(f"{path}: {error.strerror}") from None
    except NodeIDError as error:
        raise NodeIDError(f"{path}: {error}") from None


def node_id_from_certificates(pem: str) -> str:
    """Compute the node ID of a chain of certificates, leaf first (storj/common, identity/identity.go).

    It is a double SHA-256 of the second certificate's public key; the last byte is the version, 0.

    Raises:
        NodeIDError: not at least two certificates.
    """
    chain = _CERTIFICATE.findall(pem)
    if len(chain) < 2:
        raise NodeIDError(f"found {len(chain)} certificates, expected the node's own and its authority's")
    try:
        key = _public_key(ssl.PEM_cert_to_DER_cert(chain[1]))
    except (ValueError, IndexError):
        raise NodeIDError("the second certificate is damaged") from None
    payload = b"\0" + sha256(sha256(key).digest()).digest()[:-1] + b"\0"
    return _base58(payload + sha256(sha256(payload).digest()).digest()[:4])


def _public_key(certificate: bytes) -> bytes:
    """Cut the SubjectPublicKeyInfo, with its header, out of a certificate in DER."""
    _, start, _ = _element(certificate, 0)
    _, at, _ = _element(certificate, start)
    tag, _, end = _element(certificate, at)
    if tag == 0xA0:  # the version, which may be left out
        at = end
    for _ in range(_SUBJECT_PUBLIC_KEY - 1):
        _, _, at = _element(certificate, at)
    _, _, end = _element(certificate, at)
    return certificate[at:end]


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the DER element at this place, where its content starts, and where it ends."""
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        start += length - 0x80
        length = int.from_bytes(der[at + 2 : start])
    if start + length > len(der):
        raise ValueError("an element is longer than what holds it")
    return der[at], start, start + length


def _base58(data: bytes) -> str:
    number, text = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text
