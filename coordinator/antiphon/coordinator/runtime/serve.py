"""The coordinator's process: a link, the shared consumers, and the way out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from antiphon.contracts import subjects
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.topology import (
    CLIENT_FACTS,
    OPERATOR_FACTS,
    PEER_FACTS,
    PLATFORM_CONSUMERS,
    STARTS,
    SWEEPER,
    TIMERS,
    answers_consumer,
    participant_consumers,
)
from antiphon.link import Credentials, Link, Pull, require_platform, settle_collector
from antiphon.link.faults import settle_tracebacks
from antiphon.link.fitness import Fitness, cluster, payload, settings
from antiphon.link.pairs import find_pairs
from antiphon.link.probes import Probes, served
from antiphon.link.process import drain, told_to_stop
from antiphon.link.registration import registered
from antiphon.link.setup import heard, require_answers
from antiphon.tracing.projection.sampling import ratio_of
from antiphon.tracing.telemetry.metrics import Gauges, differing, measuring, wants_metrics

from ..decision.author import Author
from ..definition.capabilities import capabilities_of
from ..definition.choreography import AnySaga
from ..definition.definition import Definition
from ..definition.retention import retentions
from ..definition.versions import by_type
from .admission import Admission, require_bounds, require_shares
from .answers import KEPT, AnswerPulls
from .bounded_clients import BoundedClients
from .comparing import Comparing
from .coordinator import Coordinator
from .forgetting import Forgetting
from .gauges import keep_looking
from .jetstream import JetStreamStore
from .pressure import watched
from .retention import Ends, Keeping
from .schemas import agree, begun_before
from .status_requests import answer_status_requests
from .sweeper import IDLE_SECONDS

log = structlog.get_logger()

FACTS_HELD_MAX: Final = {STARTS: 100, CLIENT_FACTS: 100, OPERATOR_FACTS: 20, PEER_FACTS: 100}
"""Facts a coordinator holds at once, of each kind and of all pairs of streams, besides what participants store:
together few enough to be done well within the ack wait, enough to fill a connection. What waits behind a flood of
another kind waits for those that are held, and for no more."""

TIMERS_HELD_MAX: Final = 200
"""The same, of timers that are due."""

STARTS_HELD_MAX: Final = 100
"""Starts the sweeper holds until they are old enough to look after."""


async def serve(
    servers: str | list[str],
    sagas: Iterable[AnySaga],
    *,
    name: str = "coordinator",
    idle_seconds: float = IDLE_SECONDS,
    credentials: Credentials | None = None,
    http: str = "",
    error_texts: bool = False,
    sampling_ratio: float | None = None,
    incompatible_contracts: bool = False,
    open_max: Mapping[str, int] | None = None,
    keeping: Keeping = Keeping(),  # noqa: B008 - frozen
) -> None:
    """Run a coordinator until SIGTERM or SIGINT, then finish what it holds.

    Args:
        servers: URLs of NATS servers.
        sagas: the definitions it decides by, and the choreographies it observes.
        name: the connection's name.
        idle_seconds: after how long without a word an open saga is looked after; at most half an hour, because what is
            due later than in an hour has no timer before that.
        credentials: who connects; taken from the environment when left out.
        http: `host:port` of the pages that say whether it lives and is ready, and of its metrics; see
            `antiphon.link.probes`.
        error_texts: whether the texts of what sagas' own functions raise go into journals; else only their classes.
        sampling_ratio: the share of sagas, from 0 to 1, whose traces are sampled; by default what OTEL_TRACES_SAMPLER
            and OTEL_TRACES_SAMPLER_ARG say. It holds for sagas that are sent their first command.
        incompatible_contracts: whether to run although sagas in flight began with messages that do not fit those of the
            definitions; such a saga is parked once one of its messages cannot be read.
        open_max: how many sagas of a type, by its name, that clients started may be open; a further one is refused. Set
            it alike for all coordinators.
        keeping: what an operator says of the end of old sagas. Set it alike for all coordinators, too.

    Raises:
        PlatformError: the environment or the platform is not as it must be, a type cannot have a bound, or a retention
            is given for a type that is not here; the sentence has the remedy.
        NotArchived: the archive cannot be written.
        DefinitionError: a definition is not complete.
        ContractsChanged: messages of a definition have changed, and sagas in flight began with the ones before.
    """
    settle_tracebacks()
    ratio = ratio_of(os.environ) if sampling_ratio is None else sampling_ratio
    definitions = [saga.definition for saga in sagas]
    require_bounds(open_max or {}, definitions)
    kept = retentions({name: each.newest.retention for name, each in by_type(definitions).items()}, keeping.overrides)
    if keeping.archive is not None:
        from antiphon.tracing.export.archive import require_writable

        require_writable(keeping.archive)
    gauges: Gauges = {}
    async with AsyncExitStack() as held:
        probes = held.enter_context(served(http))
        link = await Link.connect(servers, name=name, credentials=credentials)
        held.push_async_callback(link.close)
        pairs = await find_pairs(link)
        require_shares(pairs, open_max or {})
        await require_platform(link)
        fitness = fitness_of(link, definitions, gauges)
        await fitness.until_ready()
        await require_answers(link)
        await say_who_is_unheard(link, definitions)
        author = partial(Author, error_texts)
        store = JetStreamStore(link)
        admission = Admission(store, open_max, await begun_before(link)) if open_max else None
        coordinator = Coordinator(store, definitions, idle_seconds, author, ratio, admission)
        versions = coordinator.journals.definitions.values()
        every = [definition for each in versions for definition in each.definitions]
        await agree(link, every, incompatible=incompatible_contracts)
        async with (
            _measured(link, coordinator, probes, gauges),
            fitness.watched(),
            watched(link, coordinator, gauges),
            _asked(link, servers, name, credentials) as asked,
            Ends(link, kept, coordinator, keeping, gauges).brought_about(),
        ):
            attached = await attach(link, coordinator, asked)
            settle_collector()
            told = told_to_stop()  # before anybody hears that it is ready, and may tell it
            log.info("coordinator.ready", sagas=[definition.label for definition in definitions])
            probes.ready(link, fitness)
            archives = keeping.archive is not None
            async with registered(link, capabilities_of(definitions), fitness=fitness, archives=archives):
                await link.until(told)
            probes.ending()
            pulls = attached.stop_looking()
            await drain(pulls, [pull for pull in pulls if pull.consumer != SWEEPER])  # starts simply come again
            log.info("coordinator.drained")


@asynccontextmanager
async def _asked(
    link: Link, servers: str | list[str], name: str, credentials: Credentials | None
) -> AsyncGenerator[Link]:
    """A second connection, for requests of clients: where a flood of them has the server drop it, facts still come. Its
    failure is the first one's, too; that its server is cut off from the others it has to notice by itself."""

    def fail(failed: asyncio.Future[PlatformError]) -> None:
        if not link.failure.done():
            link.failure.set_result(failed.result())

    asked = await Link.connect(servers, name=name, credentials=credentials)
    asked.spread_over(link.pairs)
    asked.failure.add_done_callback(fail)
    try:
        async with Fitness(asked, [cluster(asked)]).watched():
            yield asked
    finally:
        asked.failure.remove_done_callback(fail)
        await asked.close()


async def say_who_is_unheard(link: Link, definitions: Iterable[Definition]) -> None:
    """Log the participants of these sagas that nobody set up: what they store is found by the sweeper alone, late.

    Raises:
        PlatformError: the server cannot tell.
    """
    sources = {source for definition in definitions for source in definition.sources}
    if unheard := sorted(sources - await heard(link)):
        remedy = " ".join(f"--participant {name}" for name in unheard)
        log.warning("participants.unheard", participants=unheard, remedy=f"as administrator: antiphon setup {remedy}")


def fitness_of(link: Link, definitions: Iterable[Definition], gauges: Gauges) -> Fitness:
    """What looks whether the platform is as coordinators need it: all streams, their consumers, and those of the
    participants that these sagas command."""
    steps = [step for definition in definitions for step in definition.steps.values()]
    commanded = sorted({step.participant for step in steps if step.kind in ("command", "list")})
    theirs = [each for name in commanded for each in (*participant_consumers(name), answers_consumer(name))]
    looks = [payload(link), settings(link, PLATFORM_CONSUMERS, theirs)]
    return Fitness(link, looks, differing(gauges))


@asynccontextmanager
async def _measured(link: Link, coordinator: Coordinator, probes: Probes, gauges: Gauges) -> AsyncGenerator[None]:
    """Show the coordinator's numbers, and what is looked up for them, if anybody wants to see them."""
    with measuring(coordinator.counts, gauges, probes, "antiphon-coordinator"):
        looking = None
        if wants_metrics(probes):
            sources = {source for versions in coordinator.journals.definitions.values() for source in versions.sources}
            looking = asyncio.ensure_future(keep_looking(link, sorted(sources), gauges))
        try:
            yield
        finally:
            if looking is not None:
                looking.cancel()


@dataclass(frozen=True)
class Attached:
    """The pulls of a coordinator."""

    fixed: list[Pull]
    answers: AnswerPulls
    clients: BoundedClients

    def stop_looking(self) -> list[Pull]:
        """Look for no more participants or clients, and return all pulls there are."""
        self.answers.stop_looking()
        self.clients.stop_looking()
        return [*self.fixed, *self.answers.by_consumer.values(), *self.clients.pulls.values()]


async def attach(link: Link, coordinator: Coordinator, asked: Link | None = None) -> Attached:
    """Load the paused types, then begin to pull and to answer status requests.

    Args:
        link: over which facts come.
        coordinator: handles them.
        asked: over which status requests come; the same link when left out.
    """

    def on_announced(subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        coordinator.on_announced(subject, data)

    # Subscribed before the states are read, so that no pause falls in between.
    await link.subscribe(subjects.ANNOUNCE_FILTER, on_announced)
    link.on_reconnect.append(coordinator.paused_types.look)
    known = asyncio.Event()
    coordinator.on_forget = Forgetting(link, coordinator.journals, coordinator.parking).take
    coordinator.begin(known.set)
    await link.until(known)
    await answer_status_requests(asked or link, coordinator)
    comparing = Comparing(asked or link, coordinator.journals, coordinator.requests)
    for saga_type, queue in coordinator.status_queues.items():
        await (asked or link).subscribe(subjects.same_filter(saga_type), comparing.on_question, queue=queue)
    answers = AnswerPulls(link, coordinator.on_fact)
    pairs, fixed = link.pairs, list[Pull]()
    for pair, (saga, events) in enumerate(zip(pairs.saga, pairs.events, strict=True)):
        timers, starts = pairs.shared(TIMERS_HELD_MAX)[pair], pairs.shared(STARTS_HELD_MAX)[pair]
        fixed.append(await link.pull(saga, TIMERS, timers, coordinator.on_fired, **KEPT))
        fixed.append(await link.pull(events, SWEEPER, starts, coordinator.on_start_to_watch))
        for name, places in FACTS_HELD_MAX.items():
            fixed.append(await link.pull(events, name, pairs.shared(places)[pair], coordinator.on_fact, **KEPT))
    await answers.begin()
    clients = BoundedClients(link, coordinator.journals.admission)
    clients.begin()
    return Attached(fixed, answers, clients)
