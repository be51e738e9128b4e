"""URLs of NATS servers, as people and variables give them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from antiphon.contracts.errors import ServerUnreachable

SCHEMES: Final = frozenset(("nats", "tls", "ws", "wss"))
"""At which nats-py finds a server."""
PORT: Final = 4222

_USER: Final = re.compile(r"//[^\s,]*@")
"""Whose password may have any character but these, also where it should have been escaped."""


def require_address(url: str) -> None:
    """Refuse what nats-py would fail at without a sentence.

    Raises:
        ServerUnreachable: it is no address of a server.
    """
    try:
        parts = _split(url)
        is_address = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or half an IPv6 address
        is_address = False
    if not is_address:
        raise ServerUnreachable(
            f"{without_password(url)!r} is no address of a NATS server. Give one such as nats://127.0.0.1:4222, or "
            "several with commas between them, in NATS_URL or --server."
        )


def place_of(url: str) -> tuple[str, int]:
    """The host and the port that an address names."""
    parts = _split(url)
    return parts.hostname or "", parts.port or PORT


def ask_for_tls(urls: Iterable[str]) -> bool:
    """Whether one of the addresses says that the server has to encrypt."""
    return any(url.startswith("tls://") for url in urls)


def without_password(text: str) -> str:
    """Addresses as people may see them: without who connects, and with which password."""
    return _USER.sub("//", text)


def _split(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"nats://{url}")
