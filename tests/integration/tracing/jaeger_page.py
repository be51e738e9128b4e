"""The critical path as Jaeger's page finds it: the rule of jaeger-ui, packages/jaeger-ui/src/components/TracePage/
CriticalPath (index.ts and utils/, Apache-2.0, at c321fb3), in whole microseconds as the page has them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from antiphon.tracing.projection.spans import Span


def edges(spans: Iterable[Span]) -> Counter[tuple[str, str]]:
    """The service graph as Jaeger's storages count it: by parents alone, and without what a service has to do with
    itself (jaeger, internal/storage/v2/memory/tenant.go and internal/storage/v1/badger/dependencystore, at v2.20.0)."""
    service = {span.span_id: span.service for span in spans}
    found = Counter((service[span.parent_id], span.service) for span in spans if span.parent_id)
    return Counter({(caller, called): count for (caller, called), count in found.items() if caller != called})


def page_path(spans: Iterable[Span]) -> dict[str, int]:
    """The spans on the path, by id, and how many microseconds of the path each holds itself."""
    by_id = {span.span_id: span for span in spans}
    times = {span.span_id: (span.start_ns // 1000, span.end_ns // 1000) for span in by_id.values()}
    children = defaultdict[str, list[str]](list)
    for span in by_id.values():
        children[span.parent_id].append(span.span_id)
    found: dict[str, int] = {}
    (current,) = children[""]
    until: int | None = None
    while current:
        start, end = times[current]
        ended = [
            child for child in children[current] if times[child][0] < end and (until is None or times[child][1] < until)
        ]
        last = max(ended, key=lambda child: times[child][1], default=None)
        upper = end if until is None else until
        lower = start if last is None else times[last][1]
        found[current] = found.get(current, 0) + upper - lower
        if last is not None:
            current, until = last, None
        else:
            current, until = by_id[current].parent_id, start
    return found
