"""The certificate by which the Dask scheduler, its workers and its clients know each other."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.settings import Home

CERTIFICATE, KEY = "dask.crt", "dask.key"
VALID_DAYS = 825


def tls_folder(home: Home) -> Path:
    """Where certificate and key lie; whoever has them may run code on the cluster."""
    return home.services / "tls"


def make_certificate(home: Home) -> Path:
    """A key and a certificate signed by itself, made once; the folder that holds them.

    All sides show this certificate and accept no other.
    """
    folder = tls_folder(home)
    if (folder / CERTIFICATE).is_file():
        return folder
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sluice")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(folder / KEY, private)
    _write_private(folder / CERTIFICATE, certificate.public_bytes(encoding))
    return folder


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def tls_environment(home: Home) -> dict[str, str]:
    """Dask's settings that make every side use the certificate and refuse connections without it."""
    folder = tls_folder(home)
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    pairs = {f"{prefix}{side}__CERT": str(folder / CERTIFICATE) for side in ("SCHEDULER", "WORKER", "CLIENT")}
    pairs |= {f"{prefix}{side}__KEY": str(folder / KEY) for side in ("SCHEDULER", "WORKER", "CLIENT")}
    pairs[f"{prefix}CA_FILE"] = str(folder / CERTIFICATE)
    pairs["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] = "true"
    return pairs
