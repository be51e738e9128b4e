"""The coordinator's process: a link, the shared consumers, and the way out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec
import structlog

from antiphon.contracts import subjects
from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.payloads import StatusAnswer
from antiphon.contracts.topology import (
    ANSWERS,
    CLIENT_FACTS,
    COORDINATOR_ACK_WAIT_SECONDS,
    EVENTS,
    OPERATOR_FACTS,
    PEER_FACTS,
    SAGA,
    STARTS,
    SWEEPER,
    TIMERS,
)
from antiphon.link import Link, Pull, require_platform, settle_collector
from antiphon.link.faults import class_of, say
from antiphon.link.process import drain, told_to_stop
from antiphon.link.registration import registered
from antiphon.link.setup import heard
from antiphon.tracing.projection.sampling import ratio_of
from antiphon.tracing.telemetry.metrics import Gauges, measuring, wants_metrics

from ..decision.author import Author
from ..definition.capabilities import capabilities_of
from ..definition.choreography import AnySaga
from ..definition.definition import Definition
from .coordinator import Coordinator
from .gauges import keep_looking
from .jetstream import JetStreamStore
from .schemas import agree
from .sweeper import IDLE_SECONDS

log = structlog.get_logger()

FACTS_HELD_MAX: Final = {ANSWERS: 200, STARTS: 100, CLIENT_FACTS: 100, OPERATOR_FACTS: 20, PEER_FACTS: 100}
"""Facts a coordinator holds at once, of each kind: together few enough to be done well within the ack wait, enough to
fill a connection. What waits behind a flood of another kind waits for those that are held, and for no more."""

TIMERS_HELD_MAX: Final = 200
"""The same, of timers that are due."""

FACT_SECONDS_MAX: Final = 15.0
"""How long a coordinator keeps a fact that does not get on; then another one shall have it. Above the time after which
a write or a read without an answer is given up."""

KEPT: Final = {"ack_wait_seconds": COORDINATOR_ACK_WAIT_SECONDS, "keep_seconds_max": FACT_SECONDS_MAX}

STARTS_HELD_MAX: Final = 100
"""Starts the sweeper holds until they are old enough to look after."""


async def serve(
    servers: str | list[str],
    sagas: Iterable[AnySaga],
    *,
    name: str = "coordinator",
    idle_seconds: float = IDLE_SECONDS,
    metrics: str = "",
    error_texts: bool = False,
    sampling_ratio: float | None = None,
    incompatible_contracts: bool = False,
) -> None:
    """Run a coordinator until SIGTERM or SIGINT, then finish what it holds.

    Args:
        servers: URLs of NATS servers.
        sagas: the definitions it decides by, and the choreographies it observes.
        name: the connection's name.
        idle_seconds: after how long without a word an open saga is looked after.
        metrics: `host:port` on which Prometheus may fetch metrics; see `antiphon.tracing.telemetry.metrics`.
        error_texts: whether the texts of what sagas' own functions raise go into journals; else only their classes.
        sampling_ratio: the share of sagas, from 0 to 1, whose traces are sampled; by default what OTEL_TRACES_SAMPLER
            and OTEL_TRACES_SAMPLER_ARG say. It holds for sagas that are sent their first command.
        incompatible_contracts: whether to run although sagas in flight began with messages that do not fit those of the
            definitions; such a saga is parked once one of its messages cannot be read.

    Raises:
        PlatformError: the environment or the platform is not as it must be; the sentence has the remedy.
        DefinitionError: a definition is not complete.
        ContractsChanged: messages of a definition have changed, and sagas in flight began with the ones before.
    """
    ratio = ratio_of(os.environ) if sampling_ratio is None else sampling_ratio
    definitions = [saga.definition for saga in sagas]
    link = await Link.connect(servers, name=name)
    try:
        await require_platform(link)
        await say_who_is_unheard(link, definitions)
        author = partial(Author, error_texts)
        coordinator = Coordinator(JetStreamStore(link), definitions, idle_seconds, author, ratio)
        versions = coordinator.journals.definitions.values()
        every = [definition for each in versions for definition in each.definitions]
        await agree(link, every, incompatible=incompatible_contracts)
        async with _measured(link, coordinator, metrics):
            pulls = await attach(link, coordinator)
            settle_collector()
            told = told_to_stop()  # before anybody hears that it is ready, and may tell it
            log.info("coordinator.ready", sagas=[definition.label for definition in definitions])
            async with registered(link, capabilities_of(definitions)):
                await link.until(told)
            await drain(pulls, [pull for pull in pulls if pull.consumer != SWEEPER])  # starts simply come again
            log.info("coordinator.drained")
    finally:
        await link.close()


async def say_who_is_unheard(link: Link, definitions: Iterable[Definition]) -> None:
    """Log the participants of these sagas that nobody set up: what they store is found by the sweeper alone, late.

    Raises:
        Ambiguous: the server gave no answer.
    """
    sources = {source for definition in definitions for source in definition.sources}
    if unheard := sorted(sources - await heard(link)):
        remedy = " ".join(f"--participant {name}" for name in unheard)
        log.warning("participants.unheard", participants=unheard, remedy=f"as administrator: antiphon setup {remedy}")


@asynccontextmanager
async def _measured(link: Link, coordinator: Coordinator, address: str) -> AsyncGenerator[None]:
    """Show the coordinator's numbers, and what is looked up for them, if anybody wants to see them."""
    gauges: Gauges = {}
    with measuring(coordinator.counts, gauges, address, "antiphon-coordinator"):
        looking = None
        if wants_metrics(address):
            sources = {source for versions in coordinator.journals.definitions.values() for source in versions.sources}
            looking = asyncio.ensure_future(keep_looking(link, sorted(sources), gauges))
        try:
            yield
        finally:
            if looking is not None:
                looking.cancel()


async def attach(link: Link, coordinator: Coordinator) -> list[Pull]:
    """Load the paused types, then begin to pull and to answer status requests."""

    def on_status(subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        link.guard.call(StatusRequest(link, reply, subject), ask, subject, reply)

    def ask(subject: str, reply: str) -> None:
        def answer(found: StatusAnswer) -> None:
            link.send(reply, msgspec.json.encode(found))

        try:
            coordinator.status(subjects.parse_status(subject), answer)
        except AntiphonError as error:
            answer(StatusAnswer(error=str(error)))

    def on_announced(subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        coordinator.on_announced(subject, data)

    # Subscribed before the states are read, so that no pause falls in between.
    await link.subscribe(subjects.ANNOUNCE_FILTER, on_announced)
    link.on_reconnect.append(coordinator.paused_types.look)
    known = asyncio.Event()
    coordinator.begin(known.set)
    await link.until(known)
    for saga_type, queue in coordinator.status_queues.items():
        await link.subscribe(subjects.status_filter(saga_type), on_status, queue=queue)
    return [
        await link.pull(SAGA, TIMERS, TIMERS_HELD_MAX, coordinator.on_fired, **KEPT),
        await link.pull(EVENTS, SWEEPER, STARTS_HELD_MAX, coordinator.on_start_to_watch),
        *[
            await link.pull(EVENTS, name, places, coordinator.on_fact, **KEPT)
            for name, places in FACTS_HELD_MAX.items()
        ],
    ]


class StatusRequest:
    """A status request, which is answered in any case: silence would mean that no coordinator of its type runs."""

    def __init__(self, link: Link, reply: str, subject: str) -> None:
        self._link, self._reply, self._subject = link, reply, subject

    def failed(self, error: BaseException) -> None:
        """Answer that it cannot be told."""
        sentence = f"looking it up raised {class_of(error)}, and the coordinator's log says where"
        self._link.send(self._reply, msgspec.json.encode(StatusAnswer(error=sentence)))
        say("status.faulty", error, self._subject)
