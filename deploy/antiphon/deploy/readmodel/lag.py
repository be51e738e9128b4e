"""How far a read model is behind the streams, for its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from antiphon.link import Link
from antiphon.link.tail import ALL
from antiphon.tracing.export.backlog import age_seconds
from antiphon.tracing.telemetry.metrics import READMODEL_OLDEST, READMODEL_UNREAD, Gauges


async def look(link: Link, committed: Callable[[], Mapping[str, int]], gauges: Gauges) -> None:
    """Put into the gauges how many messages are not read, and how old the oldest of them is.

    Args:
        link: a connection with a read model's rights.
        committed: up to which sequence of each stream the rows are in the database.
        gauges: where what is found is put.

    Raises:
        Ambiguous: the server gave no answer.
    """
    oldest = list[int]()
    for stream in (*link.pairs.saga, *link.pairs.events):
        position = committed().get(stream, 0)
        last = await link.get_latest(stream, ALL)
        unread = max(0, last.sequence - position) if last is not None else 0
        gauges[READMODEL_UNREAD, (("messaging.destination.name", stream),)] = unread
        if unread:
            oldest += [each.stored_ns for each in await link.next_page(stream, ALL, position + 1, most=1)]
    gauges[READMODEL_OLDEST, ()] = age_seconds(oldest)
