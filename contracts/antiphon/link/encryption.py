"""TLS with a NATS server: what the server is known by, what it is shown, and sentences for what fails."""

from __future__ import annotations

import logging
import ssl
from typing import Final

from antiphon.contracts.errors import PlatformError

NOT_ENCRYPTED: Final = "the server does not encrypt"
"""What nats-py is told by who refuses to tell a server anything."""

EXPIRED: Final = 10
OTHER_HOST: Final = (62, 64)  # another name, another address
"""Verify codes of OpenSSL (x509_vfy.h)."""


def tls_context(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """What the server is known by, and what it is shown.

    Args:
        ca_file: certificates of those who may vouch for it; those that the system trusts when left out.
        cert_file: the certificate of this process.
        key_file: its key; in the same file when left out.

    Raises:
        PlatformError: a file is missing, or is not what it should be.
    """
    logging.getLogger("asyncio").addFilter(_is_worth_saying)
    if key_file and not cert_file:
        raise PlatformError("NATS_KEY is the key of a certificate, and NATS_CERT names none. Set both.")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # SSLError is one
        raise PlatformError(f"NATS_CA: {ca_file} cannot be used ({error}). Give certificates in PEM.") from None
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file, password=_without_passphrase)
        except (OSError, ValueError) as error:
            files = " and ".join(filter(None, (cert_file, key_file)))
            raise PlatformError(
                f"NATS_CERT and NATS_KEY: {files} cannot be used ({error}). Give a certificate and its key in PEM, the "
                "key without a passphrase."
            ) from None
    return context


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Not what asyncio says whenever nats-py closes an encrypted connection. However often the filter is added, it is
    there once."""
    return not record.getMessage().startswith("returning true from eof_received()")


def _without_passphrase() -> str:
    """What OpenSSL is told instead of asking at the terminal."""
    raise ValueError("the key has a passphrase")


def tls_trouble(error: Exception) -> str:
    """What is wrong with an encrypted connection, and what to do; empty where the error is another one."""
    if NOT_ENCRYPTED in str(error):
        return f"{NOT_ENCRYPTED}. Set up TLS there, or leave out tls:// and NATS_CA, NATS_CERT and NATS_KEY here."
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_the_server(error)
    if isinstance(error, ssl.SSLError):
        return _said_by_the_server(error)
    return ""


def _of_the_server(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == EXPIRED:
        return "the server's certificate has expired. Give the server a new one."
    if error.verify_code in OTHER_HOST:
        return (
            f"the server's certificate is for another name ({error.verify_message}). Use a name that the certificate "
            "has, or give the server one with this name."
        )
    return (
        f"the server's certificate is not trusted ({error.verify_message}). NATS_CA has to name the file with the "
        "certificates of those who signed it."
    )


def _said_by_the_server(error: ssl.SSLError) -> str:
    """What the server has against the certificate of this process: an alert, in OpenSSL's words."""
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "certificate required" in reason or "bad certificate" in reason or "handshake failure" in reason:
        said = "the server wants a certificate from whoever connects"
    elif "certificate expired" in reason:
        said = "the certificate of this process has expired"
    elif "unknown ca" in reason or "certificate unknown" in reason:
        said = "the server does not trust the certificate of this process"
    else:
        return f"TLS failed ({reason}). Look at the server's log."
    return f"{said}. NATS_CERT and NATS_KEY have to name one that its own CA has signed, and that is still good."
