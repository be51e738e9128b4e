"""The exporter's numbers as metrics. Apart from the exporter, which knows nothing of metrics."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from antiphon.link.probes import Probes

from ..export.backlog import Backlog
from .counts import Counts
from .metrics import EXPORT_OLDEST, EXPORT_WAITING, Gauges, differing, looked_after, measuring


class ExporterMetrics:
    """What one exporter counts, and what is looked up for it."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.gauges: Gauges = {}
        self.differ = differing(self.gauges)
        self._backlog: Backlog | None = None

    def show(self, backlog: Backlog) -> None:
        """Show what the exporter has not handed over yet."""
        self._backlog = backlog

    async def look(self) -> None:
        """Put what there is into the gauges."""
        if self._backlog is not None:
            self.gauges[EXPORT_WAITING, ()] = self._backlog.entries()
            self.gauges[EXPORT_OLDEST, ()] = self._backlog.oldest_seconds()


@asynccontextmanager
async def exporter_metrics(probes: Probes) -> AsyncGenerator[ExporterMetrics]:
    """Show an exporter's numbers for the length of the block, if anybody wants to see them."""
    metrics = ExporterMetrics()
    with measuring(metrics.counts, metrics.gauges, probes, "antiphon-exporter", shares_endpoint=False):
        async with looked_after(probes, metrics.look, shares_endpoint=False):
            yield metrics
