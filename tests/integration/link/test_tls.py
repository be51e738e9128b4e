"""A link over TLS: who the server and the process are is proved both ways, and what fails is a sentence."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from antiphon.contracts.errors import PlatformError, ServerUnreachable
from antiphon.deploy.local.server import Server
from antiphon.link import Credentials, Link
from tests.support.server import until

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

HOST = "127.0.0.1"


@dataclass
class Files:
    """Certificates and their keys, each in a file."""

    folder: Path

    def __post_init__(self) -> None:
        self.ours, self.theirs = trustme.CA(), trustme.CA()
        self.ours.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        self.theirs.cert_pem.write_to_path(str(self.folder / "other-ca.pem"))

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def issue(self, name: str, *, ca: trustme.CA | None = None, of: str = HOST, expired: bool = False) -> str:
        """A certificate with its key in one file."""
        until = datetime(2021, 1, 1) if expired else None  # noqa: DTZ001 # as trustme takes it
        since = datetime(2020, 1, 1) if expired else None  # noqa: DTZ001
        made = (ca or self.ours).issue_cert(of, not_before=since, not_after=until)
        path = self.folder / f"{name}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)


@pytest.fixture(autouse=True)
def forgotten_sockets() -> Iterator[None]:
    """nats-py leaves the socket of a failed handshake to the garbage collector, which warns of it in whatever test it
    runs in."""
    yield
    gc.collect()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@contextmanager
def encrypting(folder: Path, cert: str, ca: str = "") -> Iterator[Server]:
    """A server that takes no plain connection, and none without a certificate where it has a CA."""
    verified = f'ca_file: "{ca}", verify: true' if ca else ""
    with Server(folder / "nats", accounts=f'tls {{ cert_file: "{cert}", key_file: "{cert}", {verified} }}') as server:
        yield server


async def connect(server: Server, ca: str | None = None, cert: str | None = None, scheme: str = "nats") -> None:
    """Connect, ask for a sign of life, and close."""
    url = server.url.replace("nats", scheme)
    link = await Link.connect(url, name="test", credentials=Credentials(ca_file=ca, cert_file=cert))
    try:
        assert await link.answers()
    finally:
        await link.close()


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_both_sides_prove_who_they_are(tmp_path: Path, files: Files, scheme: str) -> None:
    with encrypting(tmp_path, files.issue("server"), files.ca) as server:
        await connect(server, files.ca, files.issue("client"), scheme)


async def test_a_server_that_wants_a_certificate_gets_one_of_its_own_ca_or_refuses(
    tmp_path: Path, files: Files
) -> None:
    with encrypting(tmp_path, files.issue("server"), files.ca) as server:
        with pytest.raises(ServerUnreachable, match="wants a certificate from whoever connects"):
            await connect(server, files.ca)
        with pytest.raises(ServerUnreachable, match=r"does not trust the certificate of this process|wants a certi"):
            await connect(server, files.ca, files.issue("foreign", ca=files.theirs))
        with pytest.raises(ServerUnreachable, match=r"certificate of this process has expired|wants a certificate"):
            await connect(server, files.ca, files.issue("old", expired=True))


async def test_the_end_of_an_encrypted_connection_is_nothing_that_a_terminal_shows(
    tmp_path: Path, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    with encrypting(tmp_path, files.issue("server")) as server:
        link = await Link.connect(server.url, name="test", credentials=Credentials(ca_file=files.ca))
        await link.close()
        gc.collect()
        await asyncio.sleep(0.1)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize(
    ("of", "expired", "trusts", "said"),
    [
        (HOST, True, "ca.pem", "the server's certificate has expired. Give the server a new one."),
        ("nats.example.org", False, "ca.pem", "the server's certificate is for another name"),
        (HOST, False, "other-ca.pem", "the server's certificate is not trusted"),
        (HOST, False, None, "NATS_CA has to name the file"),
    ],
)
async def test_a_server_that_does_not_prove_who_it_is_is_told_nothing(
    tmp_path: Path, files: Files, of: str, expired: bool, trusts: str | None, said: str
) -> None:
    with (
        encrypting(tmp_path, files.issue("server", of=of, expired=expired)) as server,
        pytest.raises(ServerUnreachable, match=said),
    ):
        await connect(server, str(tmp_path / trusts) if trusts else None)


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_a_server_that_does_not_encrypt_hears_no_password(tmp_path: Path, files: Files, scheme: str) -> None:
    with Server(tmp_path / "nats", accounts='authorization { user: "x", password: "secret" }\ntrace: true') as server:
        credentials = Credentials(user="x", password="secret", ca_file=files.ca if scheme == "nats" else None)
        with pytest.raises(ServerUnreachable, match=r"the server does not encrypt\. Set up TLS there"):
            await Link.connect(server.url.replace("nats", scheme), name="test", credentials=credentials)
        assert "CONNECT" not in server.log.read_text()


async def test_a_certificate_that_expires_is_said_when_the_connection_is_made_anew(
    tmp_path: Path, files: Files
) -> None:
    with encrypting(tmp_path, files.issue("server")) as server:
        link = await Link.connect(server.url, name="test", credentials=Credentials(ca_file=files.ca))
        try:
            server.kill()
            files.issue("server", expired=True)
            with capture_logs() as lines:
                server.start()
                await until(lambda: any(line["event"] == "connection.refused" for line in lines))
            assert not link.is_connected
            files.issue("server")
            server.kill()
            server.start()
            await until(lambda: link.is_connected)
        finally:
            await link.close()
    (said,) = (line["reason"] for line in lines if line["event"] == "connection.refused")
    assert said == "the server's certificate has expired. Give the server a new one."


@pytest.mark.parametrize(
    ("ca", "cert", "key", "said"),
    [
        ("absent.pem", None, None, "NATS_CA: absent.pem cannot be used"),
        (None, "absent.pem", None, "NATS_CERT and NATS_KEY: absent.pem cannot be used"),
        (None, None, "key.pem", "NATS_CERT names none"),
    ],
)
async def test_a_file_that_cannot_be_used_is_a_sentence(
    ca: str | None, cert: str | None, key: str | None, said: str
) -> None:
    credentials = Credentials(ca_file=ca, cert_file=cert, key_file=key)
    with pytest.raises(PlatformError, match=said):
        await Link.connect("nats://127.0.0.1:1", name="test", credentials=credentials)


def test_the_environment_names_files_for_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret with spaces \n")
    for name, value in {
        "NATS_USER": "billing",
        "NATS_PASSWORD": "other",
        "NATS_PASSWORD_FILE": str(secret),
        "NATS_CA": "ca.pem",
        "NATS_CERT": "cert.pem",
        "NATS_KEY": "key.pem",
    }.items():
        monkeypatch.setenv(name, value)
    found = Credentials.from_environment()
    assert found.password == "s3cret with spaces "
    assert (found.ca_file, found.cert_file, found.key_file, found.wants_tls) == ("ca.pem", "cert.pem", "key.pem", True)
    monkeypatch.setenv("NATS_PASSWORD_FILE", str(tmp_path / "absent"))
    with pytest.raises(PlatformError, match=r"NATS_PASSWORD_FILE: .*absent cannot be read"):
        Credentials.from_environment()
