"""Where to look at a saga in Jaeger."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import SagaKey

from .ids import trace_id

VARIABLE: Final = "ANTIPHON_JAEGER_URL"


def jaeger_link(key: SagaKey, url: str | None = None) -> str:
    """The page of a saga's trace; empty if nobody said where Jaeger is.

    Args:
        key: the saga; it need not have begun, since its trace id is a hash.
        url: Jaeger's address, such as http://localhost:16686; ANTIPHON_JAEGER_URL when left out.
    """
    base = url if url is not None else os.environ.get(VARIABLE, "")
    return f"{base.rstrip('/')}/trace/{trace_id(key)}" if base else ""


def checked_link(key: SagaKey, url: str | None = None) -> str:
    """The same for a person, who is told where the address is none.

    Raises:
        PlatformError: it is none; the sentence has the remedy.
    """
    if base := url if url is not None else os.environ.get(VARIABLE, ""):
        require_page(base)
    return jaeger_link(key, url)


def require_page(url: str) -> None:
    """Refuse what cannot be the address of Jaeger's page, to which a trace's path is added.

    Raises:
        PlatformError: it is none; the sentence has the remedy.
    """
    try:
        page = urlsplit(url)
        is_page = page.scheme in ("http", "https") and bool(page.hostname) and not (page.query or page.fragment)
    except ValueError:  # as for http://[::1
        is_page = False
    if not is_page:
        raise PlatformError(
            f"{url!r} is no address of Jaeger. Give its page, such as http://localhost:16686, and no query behind it."
        )
