"""The main coroutine of a participant's process: connect, work until told to stop, drain."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import structlog

from antiphon.contracts.errors import StreamMissing
from antiphon.contracts.topology import PARTICIPANT_ACK_WAIT_SECONDS, SAGA, participant_consumer_name
from antiphon.link import Credentials, Link, require_accepted, settle_collector
from antiphon.link.delivery import DRAIN_SECONDS_MAX
from antiphon.link.faults import settle_tracebacks
from antiphon.link.fitness import Fitness, payload, pulls
from antiphon.link.pairs import find_pairs, is_served
from antiphon.link.probes import served
from antiphon.link.process import CLOSE_SECONDS, Ending, signals
from antiphon.link.registration import new_instance, registered
from antiphon.tracing.telemetry import handler_spans
from antiphon.tracing.telemetry.metrics import Gauges, differing, measuring

from .capabilities import capabilities_of
from .databases import open_database
from .notes import open_notes
from .participant import Participant
from .worker import CANCEL_SECONDS, CONCURRENCY, GRACE_SECONDS, HANDLER_SECONDS_MAX, Worker, undo_places

log = structlog.get_logger()


async def serve(
    participant: Participant,
    servers: str | list[str],
    database_url: str,
    *,
    concurrency: int = CONCURRENCY,
    undo_concurrency: int | None = None,
    reaction_concurrency: int | None = None,
    name: str | None = None,
    credentials: Credentials | None = None,
    grace_seconds: float = GRACE_SECONDS,
    ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS,
    handler_seconds: float = HANDLER_SECONDS_MAX,
    http: str = "",
    error_texts: bool = False,
) -> None:
    """Perform a participant's commands and reactions until SIGTERM or SIGINT, then drain and return.

    What does not end then is abandoned: a handler that ignores a cancel, a thread, code that blocks the event loop. Its
    commands are delivered to others, where it stands goes to stderr, and the process ends with exit code 1.

    Args:
        participant: the handlers.
        servers: one NATS URL, several separated by commas, or a list of them.
        database_url: see `open_database`.
        concurrency: how many commands are performed at once.
        undo_concurrency: how many compensations are performed at once; half as many when left out.
        reaction_concurrency: how many reactions run at once; as many as commands when left out.
        name: the connection's name, by default the participant's; its right to an inbox hangs on it.
        credentials: who connects; taken from the environment when left out.
        grace_seconds: how long handlers may still run after the signal.
        ack_wait_seconds: what the participant's consumers are configured with, if that is shorter than the default.
        handler_seconds: how long a handler may run; then it is cancelled, which is a failed attempt.
        http: `host:port` of the pages that say whether it lives and is ready, and of its metrics; see
            `antiphon.link.probes`.
        error_texts: whether the texts of handlers' errors travel, into journals and traces; else only their classes.

    Spans of the handlers' own go where OTEL_EXPORTER_OTLP_ENDPOINT says, unless an SDK is set up already; see
    `antiphon.tracing.telemetry.handler_spans`.

    Raises:
        PlatformError: the server, a stream, a right or the database is missing, or was lost for good; the sentence
            says what to do.
    """
    handler_spans.set_up(participant.name)
    undo_concurrency = undo_concurrency or undo_places(concurrency)
    reaction_concurrency = (reaction_concurrency or concurrency) if participant.reactions else 0
    instance = new_instance()
    settle_tracebacks()
    notes = open_notes(database_url, participant.name, instance)
    database = open_database(database_url, connections=concurrency + undo_concurrency + reaction_concurrency + 1)
    ending = Ending(grace_seconds + DRAIN_SECONDS_MAX + CANCEL_SECONDS + CLOSE_SECONDS)
    with served(http) as probes, ExitStack() as held:
        link = await Link.connect(servers, name=name or participant.name, credentials=credentials)
        try:
            await find_pairs(link, lambda: is_served(link, SAGA, participant_consumer_name(participant.name, "do")))
            await database.open(participant.tables)
            held.enter_context(signals(ending))  # before that nothing is in hand, and a signal simply ends the process
            worker = Worker(
                participant,
                link,
                database,
                concurrency=concurrency,
                undo_concurrency=undo_concurrency,
                reaction_concurrency=reaction_concurrency,
                ack_wait_seconds=ack_wait_seconds,
                handler_seconds=handler_seconds,
                error_texts=error_texts,
                notes=notes,
                instance=instance,
            )
            gauges: Gauges = {}
            fitness = Fitness(link, [payload(link), pulls(link, lambda: worker.pulls)], differing(gauges))
            is_accepted = False
            with measuring(worker.counts, gauges, probes, participant.name):
                await worker.start()
                try:
                    await require_accepted(worker.pulls, _say_what_is_missing)
                    is_accepted = True
                    settle_collector()
                    if not link.failure.done():
                        log.info("participant.ready", participant=participant.name)
                    probes.ready(link, fitness)
                    abilities = capabilities_of(participant)
                    async with (
                        fitness.watched(),
                        registered(link, abilities, instance=instance, fitness=fitness, database=database.number),
                    ):
                        await asyncio.wait((link.failure, ending.told), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    probes.ending()
                    await worker.drain(grace_seconds)
                    if is_accepted:
                        left = worker.held + worker.deaf
                        log.info("participant.drained", participant=participant.name, left=left)
                    _settle(ending, worker)
            if link.failure.done():
                raise link.failure.result()
        finally:
            await link.close()
            await database.close()
            await handler_spans.flush()


def _say_what_is_missing(what: StreamMissing, seconds: float) -> None:
    log.warning("participant.waits", reason=str(what), seconds=seconds)


def _settle(ending: Ending, worker: Worker) -> None:
    for stack in ending.threads():
        log.warning("thread.left", stack=stack)
    ending.settle(are_handlers_left=bool(worker.held or worker.deaf))
