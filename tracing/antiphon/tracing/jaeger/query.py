"""Which sagas are looked for, and whether one is among them. Pure.

A saga is found if one span of its trace is as asked: of the service, with the operation's name, as long as asked, and
with all attributes, of which each may be the root's instead. So `saga.outcome` finds sagas by any service in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ..projection.spans import Span

DEPTH: Final = 100
"""How many sagas are searched for where nobody says; Jaeger's own default."""
FOREVER_NS: Final = 2**63 - 1
SAGA: Final = "saga "
"""How a root is called, before the saga's type."""


class Query(msgspec.Struct, frozen=True):
    """Which sagas are looked for. Times are nanoseconds, since 1970 and of spans' lengths; both ends belong to them."""

    service: str = ""
    operation: str = ""
    attributes: dict[str, str] = {}
    since_ns: int = 0
    until_ns: int = FOREVER_NS
    shortest_ns: int = 0
    longest_ns: int = FOREVER_NS
    depth: int = DEPTH

    @property
    def saga_type(self) -> str:
        """The type that all sagas have that can be found; empty if it may be any."""
        named = self.operation.removeprefix(SAGA) if self.operation.startswith(SAGA) else ""
        return self.attributes.get("saga.type", "") or ("" if named in ("", "started") else named)


def matches(query: Query, spans: Iterable[Span]) -> bool:
    """Whether a saga with these spans is among what is asked for."""
    every = list(spans)
    roots = [span for span in every if not span.parent_id]
    if not roots or not query.since_ns <= roots[0].start_ns <= query.until_ns:
        return False
    return any(_is_asked(query, span, roots[0]) for span in every)


def _is_asked(query: Query, span: Span, root: Span) -> bool:
    return (
        query.service in ("", span.service)
        and query.operation in ("", span.name)
        and query.shortest_ns <= span.end_ns - span.start_ns <= query.longest_ns
        and all(_has(span, key, value) or _has(root, key, value) for key, value in query.attributes.items())
    )


def _has(span: Span, key: str, wanted: str) -> bool:
    match key:
        case "error":
            return shown(span.status == "error") == wanted.lower()
        case "span.kind":
            return span.kind == wanted.lower()
        case _:
            return key in span.attributes and shown(span.attributes[key]) == wanted


def shown(value: object) -> str:
    """A value as Jaeger's page would have it, where everything is text."""
    return str(value).lower() if isinstance(value, bool) else str(value)
