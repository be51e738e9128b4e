"""The projector: keeps the read model in step with the streams, and builds it from nothing.

It reads both streams in order from the position that the model has, and writes rows and position as one. So it needs no
consumer and no ack: whatever it had not committed when it died, it reads again. Any number may run over one database
(the others find that they were overtaken, and follow), and any number of databases may be filled.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from antiphon.contracts.errors import Ambiguous, AntiphonError, PlatformError, Unusable
from antiphon.contracts.identity import NOT_SAGAS, SagaKey
from antiphon.contracts.pairs import ONE_PAIR, Pairs
from antiphon.contracts.subjects import is_of_a_saga, is_start, saga_in
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.views.summary import (
    Cause,
    Overview,
    Told,
    begun,
    read_cause,
    read_told,
    tell,
    unread,
)
from antiphon.link import Credentials, Link, OtherStream, Reads, StoredMessage, Tail, settle_collector
from antiphon.link.faults import class_of, say
from antiphon.link.fitness import Fitness, payload, reads
from antiphon.link.killpoints import reached
from antiphon.link.pairs import find_pairs
from antiphon.link.probes import Probes, served
from antiphon.link.process import told_to_stop
from antiphon.link.tail import ALL, LAG_SECONDS_MAX, LOOK_SECONDS
from antiphon.participants.engines import trouble_of
from antiphon.tracing.telemetry.counts import Counts
from antiphon.tracing.telemetry.metrics import Gauges, differing, looked_after, measuring

from .announcing import Announcing
from .lag import look
from .model import Generation, Model, Overtaken, Places, name_of, opened
from .retention import Purged

log = structlog.get_logger()

FACTS_MAX: Final = 20_000
"""Messages of EVENTS kept until the entry that names them comes; an older one is read again by its sequence."""
ROWS_MAX: Final = 20_000
"""Rows kept in memory, so that a saga's next entry finds what the last one left."""
WRITE_MAX: Final = 5_000
"""Entries applied in one transaction while there is much to catch up with."""
LOOK_AGAIN_SECONDS: Final = 0.01
"""How soon a fact is looked for again that a replica did not have."""
PAUSE_SECONDS: Final = 1.0
"""How long to wait after the server or the database gave no answer."""
FAILURES_MAX: Final = 3
"""With `--once`: after so many failures in a row that nobody has expected it ends."""
FAULT_SECONDS_MAX: Final = 60.0
"""How long at most after what nobody has expected; twice as long each time it happens."""


NO_ANSWER: Final = "no_answer"
OTHER_STREAM: Final = "other_stream"
UNREADABLE: Final = "unreadable"
FAULTY: Final = "faulty"
"""What failures are counted as: server or database give no answer; a stream is not the one that was read; an entry
cannot be read; a mistake of ours."""


class Lane:
    """The two streams of one pair, read on and on.

    Args:
        link: reads them.
        saga: the name of the stream of journals.
        events: that of the stream of events.
        places: up to where they were read.
    """

    def __init__(self, link: Reads, saga: str, events: str, places: Places) -> None:
        self._link = link
        self.saga, self.events = saga, events
        self._saga = Tail(
            link, saga, places.saga, lambda message: is_of_a_saga(message.subject), others=places.earlier_saga
        )
        self._events = Tail(link, events, places.events, others=places.earlier_events)
        self._facts: dict[int, StoredMessage] = {}
        self._gone_from = 0

    @property
    def places(self) -> Places:
        """Up to where they were read."""
        return Places(self._saga.mark, self._events.mark, self._saga.others, self._events.others)

    @property
    def positions(self) -> dict[str, int]:
        """The same by stream, with what came behind it and stays nowhere."""
        return {self.saga: self._saga.position, self.events: self._events.position}

    async def read_entries(self) -> list[StoredMessage]:
        """The next journal entries, up to a bound."""
        found: list[StoredMessage] = []
        while len(found) < WRITE_MAX and (page := await self._saga.read()):
            found += page
        return found

    async def read_events(self, up_to: int) -> list[StoredMessage]:
        """The facts that entries name, and at least a page: starts that no coordinator has taken in are told too."""
        found: list[StoredMessage] = []
        while page := await self._events.read():
            found += page
            self._gone_from = 0
            self._facts.update((message.sequence, message) for message in page)
            if self._events.mark.sequence >= up_to:
                break
        return found

    async def cause(self, told: Told) -> Cause | None:
        """The fact that an entry was decided on. An end says all by itself, and outlives the facts."""
        sequence = told.cause_sequence
        if not sequence or told.address.kind == "end":
            return None
        message = self._facts.get(sequence) or await self._look_up(sequence)
        return read_cause(message) if message is not None else None

    async def _look_up(self, sequence: int) -> StoredMessage | None:
        """A fact by its sequence; none where it was purged.

        What stands behind it shows that it was. Where there is nothing behind it the replica may lag, and only time
        tells; what is found out then holds for all that would stand there, until there is more.
        """
        if 0 < self._gone_from <= sequence:
            return None
        patience_ends = time.monotonic() + LAG_SECONDS_MAX
        while not (page := await self._link.next_page(self.events, ALL, sequence, most=1)):
            if time.monotonic() > patience_ends:
                self._gone_from = sequence
                return None
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return page[0] if page[0].sequence == sequence else None

    def bound_memory(self, facts_max: int) -> None:
        """Forget old facts."""
        if len(self._facts) > 2 * facts_max:
            self._facts = dict(list(self._facts.items())[-facts_max:])


class Projector:
    """Applies what the streams hold to one generation of the model.

    Args:
        link: reads the streams.
        model: where the rows are.
        generation: of the rows.
        counts: for metrics.
        pairs: the pairs of streams.

    Raises:
        OtherStream: the generation was made of another number of pairs.
    """

    def __init__(
        self,
        link: Reads,
        model: Model,
        generation: Generation,
        counts: Counts | None = None,
        pairs: Pairs = ONE_PAIR,
    ) -> None:
        self._model, self.generation, self._counts = model, generation, counts or Counts()
        places = generation.places.all if generation.places != Places() else (Places(),) * pairs.count
        if len(places) != pairs.count:
            raise OtherStream(f"the model was made of {len(places)} pairs of streams, and there are {pairs.count}")
        self._lanes = [Lane(link, *each) for each in zip(pairs.saga, pairs.events, places, strict=True)]
        self._rows: dict[str, Overview] = {}
        self._unread: list[tuple[StoredMessage, str]] = []
        """Entries that could not be read, each with the reason, until their sagas' rows say so."""
        self.committed = self._positions()
        """Up to which sequences of the streams the rows are in the database."""
        self.sagas = 0
        """How many sagas were seen to begin."""

    async def advance(self) -> int:
        """Apply what is there, up to a bound, and return how many messages that was; 0 when the model is in step.

        Raises:
            OtherStream: the streams are not those that the model was made of.
            Overtaken: another projector has moved this generation on, or ended it.
            Ambiguous, SQLAlchemyError: no answer; make another projector and go on.
        """
        entries, events = list[tuple[Lane, Told]](), list[StoredMessage]()
        for lane in self._lanes:
            told = await self._read_entries(lane)
            entries += ((lane, each) for each in told)
            events += await lane.read_events(max((each.cause_sequence for each in told), default=0))
        reached("readmodel.read")
        places = self._places()
        if places == self.generation.places:
            self.committed = self._positions()
            return 0
        starts = list(_starts(events))
        unread, self._unread = _by_saga(self._unread), []
        await self._load(entries, starts, unread)
        changed = await self._applied(entries, starts, unread)
        self.generation = await self._model.write(self.generation, places, changed)
        self.committed = self._positions()
        self._counts.add_many("messages_projected", len(entries) + len(unread), SAGA)
        self._counts.add_many("messages_projected", len(events), EVENTS)
        self._counts.add_many("projection_failures", len(unread), UNREADABLE)
        self._bound_memory()
        return len(entries) + len(unread) + len(events)

    def _places(self) -> Places:
        first, *further = (lane.places for lane in self._lanes)
        places = replace(first, further=tuple(further))
        # Of a model that has read nothing yet, one pair stands for all.
        return Places() if all(each == Places() for each in (first, *further)) else places

    def _positions(self) -> dict[str, int]:
        return {stream: at for lane in self._lanes for stream, at in lane.positions.items()}

    async def _read_entries(self, lane: Lane) -> list[Told]:
        found: list[Told] = []
        for message in await lane.read_entries():
            try:
                told = read_told(message)
            except BaseException as error:
                self._unread.append((message, _said_of(error, subject=message.subject)))
                continue
            if told is not None:
                found.append(told)
        return found

    # --- rows ---------------------------------------------------------------------------------------------------------

    async def _load(
        self, entries: Iterable[tuple[Lane, Told]], starts: Iterable[Cause], unread: Iterable[SagaKey]
    ) -> None:
        """Have the rows at hand that are about to change."""
        keys = {str(told.address.saga) for _, told in entries}
        keys |= {str(start.address.saga) for start in starts}
        keys |= {str(key) for key in unread}
        wanted = [name for name in keys if name not in self._rows]
        if wanted:
            self._rows |= await self._model.rows(self.generation, wanted)

    async def _applied(
        self,
        entries: Iterable[tuple[Lane, Told]],
        starts: Iterable[Cause],
        unread: dict[SagaKey, tuple[StoredMessage, str]],
    ) -> list[Overview]:
        changed: dict[str, Overview] = {}
        for start in starts:
            self._keep(changed, begun(self._row(start.address.saga), start))
        for lane, told in entries:
            before, cause = self._row(told.address.saga), await lane.cause(told)
            try:
                self._keep(changed, tell(before, told, cause))
            except BaseException as error:
                reason = _said_of(error, saga=name_of(before))
                self._keep(changed, _lacking(before, told.sequence, told.stored_ns, reason))
        for key, (message, reason) in unread.items():
            self._keep(changed, _lacking(self._row(key), message.sequence, message.stored_ns, reason))
        return list(changed.values())

    def _row(self, key: SagaKey) -> Overview:
        row = self._rows.get(str(key))
        if row is None:
            self.sagas += 1
            row = unread(key)
        return row

    def _keep(self, changed: dict[str, Overview], row: Overview) -> None:
        changed[name_of(row)] = self._rows[name_of(row)] = row

    def forget(self, names: Iterable[str]) -> None:
        """Sagas that are in the model no more: should one begin anew, nothing of it is known."""
        for name in names:
            self._rows.pop(name, None)

    def _bound_memory(self) -> None:
        for lane in self._lanes:
            lane.bound_memory(FACTS_MAX // len(self._lanes))
        if len(self._rows) > ROWS_MAX:
            self._rows.clear()


def _said_of(error: BaseException, **where: str) -> str:
    """Log that an entry could not be read, and say it for its saga's row."""
    if isinstance(error, Unusable):
        log.warning("readmodel.unusable_entry", reason=error.reason, **where)
        return f"an entry cannot be read: {error.reason}"
    say("readmodel.faulty_entry", error, **where)
    return f"reading an entry raised {class_of(error)}"


def _lacking(before: Overview, sequence: int, stored_ns: int, reason: str) -> Overview:
    """A saga's row without an entry that could not be read."""
    return replace(
        before,
        sequence=max(before.sequence, sequence),
        started_ns=before.started_ns or stored_ns,
        changed_ns=max(before.changed_ns, stored_ns),
        incomplete=before.incomplete or reason,
    )


def _by_saga(unread: Iterable[tuple[StoredMessage, str]]) -> dict[SagaKey, tuple[StoredMessage, str]]:
    """By the sagas that the subjects name; of what names none there is the line of the log alone."""
    found = ((saga_in(message.subject), (message, reason)) for message, reason in unread)
    return {key: which for key, which in found if key is not None}


def _starts(events: Iterable[StoredMessage]) -> Iterator[Cause]:
    for message in events:
        if is_start(message.subject):
            cause = read_cause(message)
            if cause is not None and cause.address.is_start and cause.address.saga.type not in NOT_SAGAS:
                yield cause


# --- the process ------------------------------------------------------------------------------------------------------


async def serve(
    servers: str,
    database: str,
    *,
    rebuild: bool,
    once: bool,
    name: str,
    credentials: Credentials | None = None,
    http: str = "",
) -> None:
    """Keep a read model in step with the streams until SIGTERM or SIGINT.

    Args:
        servers: URLs of NATS servers.
        database: where the model is.
        rebuild: whether to build it from nothing first; readers see the old one meanwhile.
        once: whether to return as soon as it is in step.
        name: the connection's name, and the one under which coordinators know how far the model has read; with `once`
            only where it is known to them already.
        credentials: who connects; taken from the environment when left out.
        http: `host:port` of the pages that say whether it lives and is ready, and of its metrics; see
            `antiphon.link.probes`.

    Raises:
        PlatformError: the server, a right or the database is missing; the sentence says what to do.
    """
    async with AsyncExitStack() as held:
        probes = held.enter_context(served(http))
        link = await Link.connect(servers, name=name, credentials=credentials)
        held.push_async_callback(link.close)
        await find_pairs(link)
        model = await held.enter_async_context(opened(database, writes=True))
        settle_collector()
        told = told_to_stop(then=probes.ending)
        announcing = Announcing(link, name, await model.database(), joins=not once)
        gauges: Gauges = {}
        service = _Service(link, model, told, once, probes, announcing, gauges)
        held.enter_context(measuring(service.counts, gauges, probes, "antiphon-readmodel"))
        await held.enter_async_context(looked_after(probes, partial(look, link, lambda: service.committed, gauges)))
        await service.run(rebuild)
        log.info("readmodel.stopped")


class _Service:
    """A projector that is made anew whenever something failed: all it needs to know is in the database."""

    def __init__(
        self,
        link: Link,
        model: Model,
        told: asyncio.Event,
        once: bool,
        probes: Probes,
        announcing: Announcing,
        gauges: Gauges,
    ) -> None:
        self._link, self._model, self._told, self._once, self._probes = link, model, told, once, probes
        self._announcing, self.counts = announcing, Counts()
        self.committed: Mapping[str, int] = {}
        self._fitness = Fitness(link, [payload(link), reads(link, (SAGA, EVENTS))], differing(gauges))
        self._waits_for = ""
        """What was said last of an answer that does not come; empty while all is well."""
        self._failures = 0

    async def run(self, rebuild: bool) -> None:
        """Work until told to stop."""
        async with self._fitness.watched(), self._announcing.kept_up():
            await self._work(rebuild)

    async def _work(self, rebuild: bool) -> None:
        pause = PAUSE_SECONDS
        while not self._told.is_set():
            try:
                generation = await self._first(rebuild)
                rebuild = False
                log.info("readmodel.ready", generation=generation.number, live=generation.is_live)
                self._probes.ready(self._link, self._fitness)
                await self._follow(generation)
                return
            except OtherStream as error:
                log.warning("readmodel.rebuild", why=str(error))
                self.counts.add("projection_failures", OTHER_STREAM)
                rebuild = True
            except Overtaken:
                log.info("readmodel.overtaken")
            except (Ambiguous, SQLAlchemyError, sqlite3.Error, OSError) as error:
                self.counts.add("projection_failures", NO_ANSWER)
                self._wait_for(error)
                await self._link.until(self._told, PAUSE_SECONDS)
            except AntiphonError:
                raise  # a sentence for whoever started this process
            except Exception as error:
                self._fail(error)
                self.counts.add("projection_failures", FAULTY)
                say("readmodel.faulty", error, again_in_seconds=pause)
                await self._link.until(self._told, pause)
                pause = min(FAULT_SECONDS_MAX, 2 * pause)

    def _wait_for(self, error: Exception) -> None:
        """Say once what does not answer."""
        why = str(error).partition("\n")[0]
        if why != self._waits_for:
            log.warning("readmodel.waits", why=why)
        self._waits_for = why
        if self._once and not self._fitness.is_ready:
            raise PlatformError(" ".join(f"{each.sentence}; {each.remedy}." for each in self._fitness.differences))
        if isinstance(error, SQLAlchemyError) and trouble_of(error) is None:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Give up where somebody waits for the end, and nothing gets on."""
        self._failures += 1
        if self._once and self._failures >= FAILURES_MAX:
            raise PlatformError(f"the read model cannot be brought into step: {class_of(error)}. The log says more.")

    async def _first(self, rebuild: bool) -> Generation:
        """The generation to go on with: the one being built, else the one that is live, else a new one."""
        known = await self._model.generations()
        return await self._model.new_generation() if rebuild or not known else known[-1]

    async def _follow(self, generation: Generation) -> None:
        """Apply what comes, and have a generation that has caught up take the place of the one before."""
        pairs, began = self._link.pairs, time.monotonic()
        projector = Projector(self._link, self._model, generation, self.counts, pairs)
        purged = Purged(self._link, self._model)
        while not self._told.is_set():
            self._announcing.at(projector.generation.places)
            self.committed = projector.committed
            is_behind = await projector.advance()
            self._waits_for, self._failures = "", 0
            if is_behind:
                continue
            if self._model.is_gone:
                gone_file = FileNotFoundError("its file was deleted or replaced")
                raise self._model.unusable(gone_file, "Start this process again: it builds the model from nothing.")
            if not projector.generation.is_live:
                await self._take_over(projector, time.monotonic() - began)
            self._announcing.at(projector.generation.places)
            self.committed = projector.committed
            if self._once:
                return
            if gone := await purged.look_now_and_then(projector.generation):
                projector.forget(gone)
                log.info("readmodel.purged", sagas=len(gone))
            await self._link.until(self._told, LOOK_SECONDS)

    async def _take_over(self, projector: Projector, seconds: float) -> None:
        reached("readmodel.built")
        await self._model.make_live(projector.generation)
        projector.generation = replace(projector.generation, is_live=True)
        log.info("readmodel.built", sagas=projector.sagas, seconds=round(seconds, 1))
        await self._model.sweep()
