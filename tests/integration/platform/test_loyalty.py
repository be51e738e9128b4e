"""Loyalty listens to orders that others lead, as a process on a real server: what it grants is seen in each order's
timeline and trace, and no order waits for it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from antiphon.contracts.identity import SagaKey
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.reading.sagas import timeline
from antiphon.link import Link
from antiphon.order.hybrid import shipping as hybrid_shipping
from antiphon.order.hybrid.saga import hybrid_order
from antiphon.order.loyalty import loyalty
from antiphon.order.saga import order
from antiphon.tracing.export.reading import read_projection
from antiphon.tracing.projection.project import Projection
from antiphon.tracing.projection.spans import Span
from tests.integration.order.test_rehearsal import PLACED
from tests.processes.test_registrations import process
from tests.support.server import platform

NAMES = ("inventory", "billing", "shipping", "loyalty")
SAGAS: tuple[Saga[Any], ...] = (order, hybrid_order)
GRANTED = "loyalty.granted.v1"

COORDINATOR = ("coordinator", "--app", "antiphon.order.saga:order", "--app", "antiphon.order.hybrid.saga:hybrid_order")


def participant(name: str, module: str = "") -> tuple[str, ...]:
    return ("participant", f"antiphon.order.{module or name}:{name}")


PROCESSES = {
    "coordinator": COORDINATOR,
    "inventory": participant("inventory"),
    "billing": participant("billing", "hybrid.billing"),
    "loyalty": participant("loyalty"),
    "shipping": participant("shipping", "hybrid.shipping"),
}


async def test_points_are_seen_in_the_trace_of_an_order_that_was_told_to_charge(tmp_path: Path) -> None:
    with platform(tmp_path, "accounts", participants=NAMES) as up:
        await up.set_up(listeners=[loyalty.listener, hybrid_shipping.shipping.listener])
        async with AsyncExitStack() as stack:

            async def run(name: str) -> None:
                database = () if name == "coordinator" else ("--database", f"sqlite:///{tmp_path / name}.db")
                await stack.enter_async_context(process(up, name, "antiphon.deploy", *PROCESSES[name], *database))

            for name in ("coordinator", "inventory", "billing", "loyalty"):
                await run(name)
            reader = await up.connect("administrator")
            stack.push_async_callback(reader.close)
            credentials = up.credentials("client")
            antiphon = await stack.enter_async_context(Antiphon.connect(up.servers, credentials=credentials))
            placed = msgspec.to_builtins(PLACED)
            handles = [await antiphon.start(saga, msgspec.convert(placed, saga.start), id="o-1") for saga in SAGAS]
            await asyncio.gather(*(granted(reader, handle.key) for handle in handles))
            await run("shipping")
            assert {(await handle.result(timeout=120)).outcome for handle in handles} == {"completed"}
            for handle in handles:
                spans = (await granted(reader, handle.key)).spans
                root, (reaction,) = spans[-1], [span for span in spans if said(span)]
                assert root.start_ns <= reaction.start_ns <= reaction.end_ns <= root.end_ns
                assert (reaction.name, reaction.service) == ("on payment.charged", "loyalty")
                assert "loyalty" in [line.who for line in (await timeline(reader, handle.key)).lines]


def said(span: Span) -> bool:
    return span.attributes.get("saga.event") == GRANTED


async def granted(reader: Link, key: SagaKey) -> Projection:
    """The trace of an order, once there are points in it."""
    async with asyncio.timeout(120):
        while True:
            found = await read_projection(reader, key)
            if any(said(span) for span in (*found.spans, *found.open)):
                return found
            await asyncio.sleep(0.05)
