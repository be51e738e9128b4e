"""Who gets to the server, and whether anybody can listen: encryption, certificates, passwords."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from datetime import UTC, datetime
from typing import Any, Final

from antiphon.contracts.errors import PlatformError, RightsMissing
from antiphon.link import Credentials, Link
from antiphon.link.addresses import ask_for_tls, place_of
from antiphon.link.encryption import tls_context, tls_trouble

from .findings import Deployment, Finding, Grade, in_two

SECONDS: Final = 5.0
DAY: Final = 86_400.0
SOON_DAYS, AT_ONCE_DAYS = 30, 7
"""When a certificate that runs out is a warning, and when it is a fault."""
LOOPBACK: Final = frozenset(("127.0.0.1", "::1", "localhost"))


async def encryption(found: Deployment) -> list[Finding]:
    """Whether others on the network can read along."""
    if _wants_tls(found):
        return [Finding("encryption", "fine", "the connection is encrypted")]
    far = [host for host, _ in map(place_of, found.servers) if host not in LOOPBACK]
    if not far:
        return [Finding("encryption", "fine", "not encrypted, and the server is on this machine")]
    remedy = "TLS at the server, and NATS_CA (or tls:// in the URL) for each process: deploy/README.md, TLS"
    return [Finding("encryption", "warning", f"the connection with {', '.join(far)} is not encrypted", remedy)]


async def certificates(found: Deployment) -> list[Finding]:
    """For how long the certificates of the servers, and that of this user, are good."""
    if not _wants_tls(found):
        return []
    findings = [await _of_server(found.credentials, host, port) for host, port in map(place_of, found.servers)]
    if found.credentials.cert_file:
        findings.append(_of_file(found.credentials.cert_file))
    return findings


async def door(found: Deployment) -> list[Finding]:
    """Whether the server lets anybody in."""
    own = found.credentials
    if own.cert_file:  # which may be what the server knows a user by (verify_and_map)
        said = "whether a certificate alone lets anybody in is not tried"
        return [Finding("passwords", "unknown", said, "look at the server's configuration: accounts, verify_and_map")]
    nobody = Credentials(ca_file=own.ca_file)
    try:
        link = await Link.connect(
            list(found.servers), name="doctor", credentials=nobody, timeout_seconds=SECONDS, patient=False
        )
    except RightsMissing:
        return [Finding("passwords", "fine", "nobody gets in without a password or key")]
    await link.close()
    remedy = "accounts, by antiphon rights: deploy/README.md, Rights"
    return [Finding("passwords", "warning", "the server lets everybody in, without a password or key", remedy)]


def _wants_tls(found: Deployment) -> bool:
    return found.credentials.wants_tls or ask_for_tls(found.servers)


async def _of_server(credentials: Credentials, host: str, port: int) -> Finding:
    """Shake hands as a client of NATS does, after the server's greeting, and look at what the server shows."""
    what = f"the certificate of {host}:{port}"
    context = tls_context(credentials.ca_file, credentials.cert_file, credentials.key_file)
    try:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                await reader.readline()
                await writer.start_tls(context, server_hostname=host)
                shown: dict[str, Any] = writer.get_extra_info("peercert")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except ssl.SSLCertVerificationError as error:
        sentence, remedy = in_two(tls_trouble(error))
        return Finding("certificates", "fault", f"{what}: {sentence}", remedy)
    except (OSError, TimeoutError, ValueError) as error:
        return Finding(
            "certificates", "unknown", f"{what} could not be looked at ({str(error) or type(error).__name__})"
        )
    return _judged(what, ssl.cert_time_to_seconds(shown["notAfter"]), "give the server a new one")


def _of_file(path: str) -> Finding:
    """The one that this user shows. Only ssl's own tests read a file, by a function that is not promised to stay."""
    what = f"the certificate in {path}"
    read: Any = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    if read is None:
        return Finding("certificates", "unknown", f"{what} cannot be read by this Python")
    try:
        until = ssl.cert_time_to_seconds(read(path)["notAfter"])
    except (OSError, KeyError, ValueError) as error:
        raise PlatformError(f"{what} cannot be read: {error}.") from None
    return _judged(what, until, "have a new one signed, and set NATS_CERT and NATS_KEY")


def _judged(what: str, until: float, remedy: str) -> Finding:
    days = (until - time.time()) / DAY
    day = datetime.fromtimestamp(until, UTC).date()
    if days > SOON_DAYS:
        return Finding("certificates", "fine", f"{what} is good until {day}")
    grade: Grade = "fault" if days < AT_ONCE_DAYS else "warning"
    said = "has run out on" if days < 0 else "runs out on"
    return Finding("certificates", grade, f"{what} {said} {day}", remedy)
