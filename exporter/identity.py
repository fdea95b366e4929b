"""Node IDs: base58check text to the 32 bytes that the rollout rule is computed over."""

from hashlib import sha256

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BYTES = 32


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
