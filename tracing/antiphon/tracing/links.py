"""Where to look at a saga in Jaeger."""

from __future__ import annotations

import os
from typing import Final

from antiphon.contracts.wire import SagaKey

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
