"""A real exporter and a backend beside real processes: whoever dies, the backend ends up with what the journals say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.topology import EXPORTER_CONSUMER
from antiphon.deploy.cli.trace import sagas_since
from antiphon.link import Link
from antiphon.link.setup import api
from antiphon.tracing.export.reading import read_projection
from antiphon.tracing.projection.project import Projection

from .processes import Child, supervised
from .receiver import Stored, expected, receiver
from .server import Platform, until

ACK_WAIT_SECONDS: Final = 1.0
"""What a killed exporter held is delivered again after this time; in production after thirty seconds."""


@asynccontextmanager
async def traced(up: Platform, folder: Path, kill_at: str = "") -> AsyncIterator[None]:
    """Export the trace of every saga for the length of a block, and then hold the backend against the journals.

    Args:
        up: a platform that is set up.
        folder: where the exporter's log goes.
        kill_at: kill points of the exporter, one for each of its first lives.
    """
    with receiver() as (backend, environment):
        link = await up.connect("administrator")
        try:
            await hasten(link)
            environment |= up.environment("exporter")
            log = folder / "exporter.log"
            child = Child("exporter", ["antiphon.deploy", "exporter"], environment, log, kill_at)
            with supervised({child.role: child}):
                await until(lambda: "exporter.ready" in log.read_text(), what="an exporter at work")
                yield
                await until_nothing_is_pending(link)
            assert len(child.exits) == len(kill_at.split()), log.read_text()[-2000:]
            assert_equal(backend.spans, await all_projections(link))
        finally:
            await link.close()


async def hasten(link: Link) -> None:
    """Have what an exporter held that died delivered again soon."""
    hasty = replace(EXPORTER_CONSUMER, ack_wait_seconds=ACK_WAIT_SECONDS).config()
    for stream in link.pairs.saga:
        answer = await api(link, f"CONSUMER.CREATE.{stream}.exporter", {"stream_name": stream, "config": hasty})
        assert "error" not in answer, answer


async def until_nothing_is_pending(link: Link) -> None:
    """Wait until the backend has confirmed whatever any journal made final."""
    async with asyncio.timeout(120):
        while True:
            with suppress(Ambiguous):  # this link may not have noticed yet that a killed server is back
                infos = [await api(link, f"CONSUMER.INFO.{stream}.exporter") for stream in link.pairs.saga]
                if all(each["num_pending"] == each["num_ack_pending"] == 0 for each in infos):
                    return
            await asyncio.sleep(0.05)


async def all_projections(link: Link) -> list[Projection]:
    """The trace of every saga there is."""
    return [await read_projection(link, key) for key in await sagas_since(link, 0)]


def assert_equal(stored: Stored, projections: Iterable[Projection]) -> None:
    """No span is missing, none is there that should not be, none has contradicted itself, and each has its place."""
    found = list(projections)
    wanted = expected(span for projection in found for span in projection.spans)
    assert wanted
    assert wanted.keys() - stored.keys() == set(), "spans that never came"
    assert stored.keys() - wanted.keys() == set(), "spans of nothing that happened"
    assert [ident for ident in wanted if stored[ident] != wanted[ident]] == [], "spans with other bytes than they have"
    for projection in found:
        if projection.outcome:
            assert_one_tree(projection)


def assert_one_tree(projection: Projection) -> None:
    """An ended saga's trace has one root, no orphan, no id twice, and children inside their parents, each of some
    length."""
    spans = {span.span_id: span for span in projection.spans}
    assert len(spans) == len(projection.spans), "two spans of one id"
    assert [span for span in projection.spans if not span.parent_id] == [projection.spans[-1]]
    assert not projection.open
    for span in projection.spans[:-1]:
        parent = spans[span.parent_id]
        assert parent.start_ns <= span.start_ns < span.end_ns <= parent.end_ns, (span, parent)
