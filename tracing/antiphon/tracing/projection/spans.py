"""A span as data: what every exporter, file format and picture here is made from. Pure."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

PROJECTION: Final = "3"
"""The version of the rules by which spans are made, which is the version of their scope. It changes whenever a stored
journal would give other bytes than before, so that what was exported by other rules can be told apart."""

SCOPE: Final = "antiphon.tracing"
NAMESPACE: Final = "antiphon"
COORDINATOR_SERVICE: Final = "antiphon"
"""The service of all spans that are not a participant's."""

MOMENT_NS: Final = 16
"""What lasts no longer took no time: where the journal gives spans no length they have a nanosecond each, and some lie
in a row."""

MICROSECOND_NS: Final = 1_000

FOLLOWS_NS: Final = 2_000
"""How much later than what it follows a span begins. Jaeger's page counts in microseconds, and takes one span for the
cause of another only if it ended strictly before (jaeger-ui, CriticalPath/utils/findLastFinishingChildSpan.ts)."""

SpanKind = Literal["internal", "producer", "consumer"]
Status = Literal["unset", "ok", "error"]
Value = str | int | float | bool


class SpanEvent(msgspec.Struct, frozen=True):
    """Something that happened within a span."""

    name: str
    at_ns: int
    attributes: dict[str, Value] = {}


class SpanLink(msgspec.Struct, frozen=True):
    """Another span that this one has to do with."""

    trace_id: str
    span_id: str
    why: str


class Span(msgspec.Struct, frozen=True):
    """One span. Ids are hexadecimal, times nanoseconds since 1970; `parent_id` is empty on the root."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: SpanKind
    service: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Value]
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()
    status: Status = "unset"
    message: str = ""
    """Of an error: why."""
    closed_by: int = 0
    """The entry that made it final, by its sequence in SAGA; 0 while the span is still open. Not exported."""


class Open:
    """A span whose end is not known yet.

    Whatever is put into it lies inside it, because its end is moved to the latest of that, and its own start is moved
    into its parent. So children lie inside their parents by construction. It lasts a nanosecond at least: Jaeger warns
    of a span that ends when it begins, makes it longer, and then warns that it reaches beyond its parent (Jaeger 2.13).
    """

    __slots__ = (
        "_event_times",
        "attributes",
        "children",
        "events",
        "is_closed",
        "kind",
        "latest_ns",
        "links",
        "message",
        "name",
        "parent",
        "service",
        "span_id",
        "start_ns",
        "status",
        "trace_id",
    )

    def __init__(
        self, trace_id: str, span_id: str, name: str, kind: SpanKind, service: str, start_ns: int, parent: Open | None
    ) -> None:
        self.trace_id, self.span_id, self.name, self.service = trace_id, span_id, name, service
        self.kind: SpanKind = kind
        self.parent = parent
        self.start_ns: int = max(start_ns, parent.start_ns) if parent else start_ns
        self.latest_ns = self.start_ns + 1
        self.attributes: dict[str, Value] = {}
        self.events: list[SpanEvent] = []
        self._event_times = set[int]()
        """In microseconds."""
        self.links: list[SpanLink] = []
        self.children: list[Open] = []
        """Those that are still open."""
        self.is_closed = False
        self.status: Status = "unset"
        self.message = ""
        if parent is not None:
            parent.children.append(self)
            parent.reach(self.latest_ns)

    def begin_at(self, at_ns: int) -> None:
        """Have it begin later than was thought."""
        self.start_ns = max(at_ns, self.parent.start_ns) if self.parent else at_ns
        self.reach(self.start_ns + 1)

    def reach(self, at_ns: int) -> None:
        """Have it last at least until then."""
        if at_ns > self.latest_ns:
            self.latest_ns = at_ns

    def event(self, name: str, at_ns: int, **attributes: Value) -> None:
        """Note something that happened. What happened at once lies a microsecond apart: Jaeger sorts events by their
        names, and its page then by their times, in microseconds."""
        at_ns = max(at_ns, self.start_ns)
        while at_ns // MICROSECOND_NS in self._event_times:
            at_ns += MICROSECOND_NS
        self._event_times.add(at_ns // MICROSECOND_NS)
        self.reach(at_ns)
        self.events.append(SpanEvent(name, at_ns, {f"saga.{key}": value for key, value in attributes.items() if value}))

    def link(self, trace_id: str, span_id: str, why: str) -> None:
        """Point to another span."""
        self.links.append(SpanLink(trace_id, span_id, why))

    def fail(self, message: str) -> None:
        """Mark it as an error, and say why."""
        self.status, self.message = "error", message

    def closed(self, at_ns: int, closed_by: int) -> Span:
        """The span with its end, which is `at_ns` or, if that is later, the end of what lies in it."""
        self.reach(at_ns)
        span = self.seen(self.latest_ns, closed_by)
        self.is_closed = True
        if self.parent is not None:
            self.parent.children.remove(self)
            self.parent.reach(span.end_ns)
        return span

    def seen(self, at_ns: int, closed_by: int = 0) -> Span:
        """The span as it looks at some time."""
        return Span(
            self.trace_id,
            self.span_id,
            self.parent.span_id if self.parent else "",
            self.name,
            self.kind,
            self.service,
            self.start_ns,
            max(at_ns, self.latest_ns),
            dict(self.attributes),
            tuple(self.events),
            tuple(self.links),
            self.status,
            self.message,
            closed_by,
        )
