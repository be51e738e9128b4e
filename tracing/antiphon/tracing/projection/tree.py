"""A trace as rows of a tree, and its critical path. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from .spans import MOMENT_NS, Span

HIDDEN = ("saga started", "saga ended")
"""Spans that say nothing to whoever sees the whole; nor does what a step waits for, which is as long as the step."""


class Row(msgspec.Struct, frozen=True):
    """One span in a drawn trace."""

    span: Span
    depth: int
    is_critical: bool
    is_open: bool


def rows(spans: Iterable[Span], with_sends: bool = False) -> list[Row]:
    """The spans of one trace in the order in which they are drawn: by their start, each with its children behind it.

    Args:
        spans: all of them, final or not.
        with_sends: whether the sending of commands is shown; it mostly takes no time.
    """
    children = _children(spans)
    critical = critical_path(spans)

    def walk(parent: str, depth: int) -> Iterator[Row]:
        for span in sorted(children[parent], key=lambda span: (span.start_ns, span.end_ns, span.span_id)):
            if _is_hidden(span) or (span.kind == "producer" and not with_sends):
                continue
            yield Row(span, depth, span.span_id in critical, not span.closed_by)
            yield from walk(span.span_id, depth + 1)

    return list(walk("", 0))


def _is_hidden(span: Span) -> bool:
    return span.name in HIDDEN or (span.name.startswith("wait for ") and "saga.lock" not in span.attributes)


def critical_path(spans: Iterable[Span]) -> frozenset[str]:
    """The spans without which the saga would have ended sooner, by id.

    From the end backwards: of a span's children the one that ended last, then of those that had ended before it began
    the last, and so on; and in each of them the same again. (Jaeger's page goes by the same rule.)
    """
    children = _children(spans)
    found: set[str] = set()
    waiting = [(span, span.end_ns) for span in children[""]]
    while waiting:
        span, until_ns = waiting.pop()
        found.add(span.span_id)
        for child in sorted(children[span.span_id], key=lambda child: (child.end_ns, child.start_ns), reverse=True):
            if child.end_ns <= until_ns + MOMENT_NS and child.end_ns > child.start_ns + MOMENT_NS:
                waiting.append((child, child.end_ns))
                until_ns = child.start_ns
    return frozenset(found)


def label(span: Span) -> str:
    """What a span is called where its tree shows the rest."""
    element = span.attributes.get("saga.element")
    if element is not None:
        return f"{span.name.removesuffix(' element')}[{element}]"
    number = span.attributes.get("saga.attempt", 1)
    if "saga.event" in span.attributes:
        return f"{span.service} {span.name}"
    if "saga.direction" not in span.attributes and "saga.attempt" in span.attributes:
        return f"{span.name} (entry {number})"  # what stands in the journal there, which is no attempt
    return span.name if number == 1 else f"{span.name} #{number}"


def _children(spans: Iterable[Span]) -> defaultdict[str, list[Span]]:
    children = defaultdict[str, list[Span]](list)
    for span in spans:
        children[span.parent_id].append(span)
    return children
