import ssl
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from exporter.identity import NodeIDError, node_id_bytes, node_id_from_certificates, read_node_id

IDS = {
    "129MF8ha7SLjB4XECabmPHXCLoZ1tCvzfNx62fCzw84xSUqLGHJ": (
        "96a75171879a9ae36e0d81e82c711094ded61efdfea658f39740c52940098000"
    ),
    "12jxn7m3nXRfMmvkKQiocAM2iTKEdKUL56ZWPXeqgeVAoLYM9vK": (
        "e53ef0d48dd0368d95d235112e4ad7269bbf51b72f38a24612a73ade68ff8000"
    ),
    "1ZXTMLjQjZjMrB2LSk3YbyMxuPohfknyHa7Ypc85WkboVDFg4W": (
        "49da27325a7f39458be1b6db39bcb74fa46b49ff79658a53c360008281cc8000"
    ),
}
A = next(iter(IDS))
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def certificate(key: Key, signer: Key, *, name: str = "", years: int = 1) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=365 * years))
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.2.1"), b"\0"), critical=False)
        .sign(signer, hashes.SHA256())
    )


def pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


@pytest.mark.parametrize(("text", "expected"), IDS.items())
def test_node_ids_are_decoded(text: str, expected: str) -> None:
    assert node_id_bytes(text).hex() == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has 0 bytes"),
        (A[:-1] + "K", "checksum"),
        (A[:-1] + "0", "base58 lacks"),
        (A[:-1] + "é", "base58 lacks"),
        (A + "1", "bytes"),
        (A[:-1], "bytes|checksum"),
        ("1" * 10_000, "bytes"),
        ("z" * 10_000, "bytes"),
    ],
)
def test_what_is_no_node_id_is_refused(text: str, problem: str) -> None:
    with pytest.raises(NodeIDError, match=problem):
        node_id_bytes(text)


@pytest.mark.parametrize(
    ("authority", "name", "years"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "", 1),
        (
            ec.generate_private_key(ec.SECP384R1()),
            "x" * 60,
            1,
        ),
        (rsa.generate_private_key(65537, 2048), "authority", 100),  # past 2050 the dates have another form
    ],
)
def test_the_node_id_is_that_of_the_authoritys_key(authority: Key, name: str, years: int, tmp_path: Path) -> None:
    leaf = ec.generate_private_key(ec.SECP256R1())
    chain = pem(
        certificate(leaf, authority, name=name, years=years), certificate(authority, authority, name=name, years=years)
    )
    key = authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    expected = sha256(sha256(key).digest()).digest()[:31] + b"\0"
    assert node_id_bytes(node_id_from_certificates(chain)) == expected
    (tmp_path / "identity.cert").write_text(chain)
    assert read_node_id(tmp_path) == read_node_id(tmp_path / "identity.cert") == node_id_from_certificates(chain)


def test_a_chain_that_is_none_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    one = pem(certificate(key, key))
    damaged = one.replace("\nMI", "\nMA", 1)
    whole = ssl.PEM_cert_to_DER_cert(one)
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    cut = ssl.DER_cert_to_PEM_cert(whole[: whole.index(point) + 10])
    for content, problem in {
        "": "found 0 certificates",
        one: "found 1 certificates",
        one + damaged: "damaged",
        one + cut: "damaged",
        one + "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----": "damaged",
        one + "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----": "damaged",
        "\x00\xff" * 500: "found 0 certificates",
    }.items():
        (tmp_path / "identity.cert").write_text(content)
        with pytest.raises(NodeIDError, match=problem) as error:
            read_node_id(tmp_path)
        assert str(tmp_path / "identity.cert") in str(error.value)


def test_an_identity_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NodeIDError, match=r"identity\.cert: No such file"):
        read_node_id(tmp_path)
