"""What a process tells whoever starts, watches and ends it: four pages over HTTP, on one small port.

| page | 200 where | else 503 |
|---|---|---|
| `/livez` | the event loop turns | start the process anew |
| `/readyz` | it is connected, the server is as it must be, and nobody told it to end | wait; the page says for what |
| `/version` | always | |
| `/metrics` | the process has metrics | 501; the page says what to install |

The names are those of Kubernetes' own components. The pages are answered by a thread, so that a loop which stands still
is told, too, and the loop does nothing for them.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.registration import WIRE, printable

from .registration import VERSION_VARIABLE

if TYPE_CHECKING:
    from socketserver import ThreadingTCPServer

    from .connection import Link
    from .fitness import Fitness

PORT_MAX: Final = 65_535
TURN_SECONDS: Final = 5.0
"""For how long the loop may stand still before `/livez` says so; whoever asks should wait longer."""
TEXT: Final = "text/plain; charset=utf-8"


class Page(msgspec.Struct, frozen=True):
    """An answer to a request."""

    body: bytes
    content_type: str = TEXT
    status: HTTPStatus = HTTPStatus.OK


class Probes:
    """What a process says of itself. It is not ready until `ready` is called, nor after `ending`.

    Args:
        is_asked_for: whether anybody can see it.
    """

    def __init__(self, *, is_asked_for: bool = False) -> None:
        self.is_asked_for = is_asked_for
        self.metrics: Callable[[str], Page] | None = None
        """Makes the page of the metrics, for what the request accepts; called in a thread."""
        self.without_metrics = "this process has no metrics of its own"
        """Why there is no such page."""
        self._waits = "it starts"
        self._link: Link | None = None
        self._fitness: Fitness | None = None

    def ready(self, link: Link, fitness: Fitness | None = None) -> None:
        """Say that the process is at work.

        Args:
            link: without a connection it is not ready.
            fitness: nor where the server is not as it must be.
        """
        self._waits, self._link, self._fitness = "", link, fitness

    def ending(self) -> None:
        """Say that the process was told to end."""
        self._waits = "it was told to end"

    def obstacles(self) -> list[str]:
        """What keeps the process from being ready, a sentence each."""
        found = [self._waits] if self._waits else []
        if self._link is not None and not self._link.is_connected:
            found.append("it has no connection to a NATS server")
        if self._fitness is not None:
            found += [f"{each.sentence}; {each.remedy}" for each in self._fitness.differences if each.is_grave]
        return found


@contextmanager
def served(address: str) -> Generator[Probes]:
    """Answer requests for the length of the block.

    Args:
        address: `host:port`; empty for none, and then nothing is imported for it.

    Raises:
        PlatformError: it is no address, or nobody can listen there.
    """
    probes = Probes(is_asked_for=bool(address))
    if not address:
        yield probes
        return
    host, port = address_of(address)
    try:
        server = _server(host, port, probes, asyncio.get_running_loop())
    except OSError as error:
        raise PlatformError(f"nobody can listen at {address!r} ({error}). Give a free host:port with --http.") from None
    thread = threading.Thread(target=server.serve_forever, name="probes", daemon=True)
    thread.start()
    try:
        yield probes
    finally:
        server.shutdown()
        server.server_close()


def address_of(text: str) -> tuple[str, int]:
    """A host and a port out of `host:port`.

    Raises:
        PlatformError: it is not that; no host would be every interface of the machine, which must be said.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
        raise PlatformError(f"{text!r} is no address. Give a host and a port, such as 127.0.0.1:9464.")
    if not host:
        raise PlatformError(
            f"{text!r} names no host. Give 127.0.0.1{text} for this machine alone, or 0.0.0.0{text} for "
            "whoever gets there."
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _live(loop: asyncio.AbstractEventLoop) -> Page:
    turned = threading.Event()
    try:
        loop.call_soon_threadsafe(turned.set)
    except RuntimeError:  # it is closed: the process is about to end
        return Page(b"the event loop has ended\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
    if turned.wait(TURN_SECONDS):
        return Page(b"ok\n")
    said = f"the event loop has not turned for {TURN_SECONDS:g} s: code that blocks stands in it\n"
    return Page(said.encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)


def _ready(probes: Probes) -> Page:
    if obstacles := probes.obstacles():
        return Page("".join(f"{each}\n" for each in obstacles).encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
    return Page(b"ok\n")


def _version() -> Page:
    versions = {
        "antiphon": importlib.metadata.version("antiphon"),
        "wire": WIRE,
        "python": platform.python_version(),
        "program": printable(os.environ.get(VERSION_VARIABLE, "")),
    }
    return Page(msgspec.json.encode(versions), "application/json")


def _metrics(probes: Probes, accepted: str) -> Page:
    if probes.metrics is None:
        return Page(f"{probes.without_metrics}\n".encode(), status=HTTPStatus.NOT_IMPLEMENTED)
    return probes.metrics(accepted)


def _server(host: str, port: int, probes: Probes, loop: asyncio.AbstractEventLoop) -> ThreadingTCPServer:
    import socket
    from http.server import BaseHTTPRequestHandler
    from socketserver import ThreadingTCPServer

    class Server(ThreadingTCPServer):  # an HTTPServer asks for the name of the host, which may take long
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        allow_reuse_address = True
        daemon_threads = True

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "antiphon", ""
        timeout = 5.0
        """Seconds that a client may be silent."""
        pages: ClassVar[dict[str, Callable[[str], Page]]] = {
            "/livez": lambda accepted: _live(loop),
            "/readyz": lambda accepted: _ready(probes),
            "/version": lambda accepted: _version(),
            "/metrics": lambda accepted: _metrics(probes, accepted),
        }

        def do_GET(self) -> None:
            make = self.pages.get(self.path.partition("?")[0])
            if make is None:
                self._send(Page(" ".join(self.pages).encode() + b"\n", status=HTTPStatus.NOT_FOUND))
            else:
                self._send(make(self.headers.get("Accept", "")))

        do_HEAD = do_GET

        def _send(self, page: Page) -> None:
            self.send_response(page.status)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(page.body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: what was asked is of no interest, and foreign text."""

    return Server((host, port), Handler)
