"""Whole sagas in memory, under virtual time: real coordinators, and participants with their own handlers and databases.

    async with Service.open(inventory) as stock, Service.open(billing) as cards:
        async with rehearse([order], [stock, cards]) as rehearsal:
            saga = await rehearsal.start(order, OrderPlaced(...))
            await rehearsal.run(timedelta(days=30))
            assert saga.outcome() == "completed"

Thirty days take as long as what happens in them. Time stands still while a handler runs, so a handler that waits for
something other than its database waits in real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Protocol, TypeVar, get_args

from antiphon.contracts import subjects
from antiphon.contracts.clock import moment
from antiphon.contracts.envelope import Envelope, decode, encode, pack
from antiphon.contracts.errors import AlreadySignalled, AlreadyStarted, TooLate
from antiphon.contracts.hints import meant
from antiphon.contracts.identity import CLIENT, SagaKey
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import (
    CANCEL_TYPE,
    CancelRequest,
    Ending,
    Parked,
    ResentAnswer,
    Status,
    StatusAnswer,
    read_parked,
)
from antiphon.contracts.stored import SagaPages
from antiphon.contracts.topology import EVENTS, PARKED, PLATFORM_CONSUMERS, SAGA, Listener, fact_consumers
from antiphon.link.faults import settle_tracebacks

from ..decision.prospects import prospect_of
from ..decision.replay import Replayed
from ..decision.sameness import OTHER, compare, resent
from ..definition.check import require_awaited, require_start, warn_of_haste
from ..definition.choreography import AnySaga, Choreography
from ..definition.definition import Definition
from ..definition.haste import hasty
from ..definition.saga import Saga
from ..definition.steps import Signal
from ..runtime.coordinator import Coordinator
from ..runtime.memory import NANO, MemoryPlatform, MemoryStore
from ..views.timeline import Timeline, spoken, timeline_of
from .stage import Death, Stage
from .twice import TwiceAuthor

S = TypeVar("S", bound=Event)
R = TypeVar("R", bound=Event)

PATIENCE_SECONDS: Final = 10.0
"""How long a handler may take in real time before the rehearsal says that it hangs."""


class Process(Protocol):
    """A participant's process that has begun."""

    async def drain(self, grace_seconds: float = ..., /) -> None:
        """End it."""


class Part(Protocol):
    """A participant that can take part; `antiphon.participants.testing.Service` is one."""

    @property
    def name(self) -> str:
        """Its name on the wire."""
        ...

    @property
    def listener(self) -> Listener:
        """Its name and what it reacts to."""
        ...

    async def begin(self, link: Stage, /) -> Process:
        """Begin to work on the commands that a link delivers, as a process of it would."""
        ...


class Rehearsed:
    """One saga of a rehearsal, as its client sees it, and a little more."""

    def __init__(self, rehearsal: Rehearsal, key: SagaKey) -> None:
        self._rehearsal, self.key = rehearsal, key

    def status(self) -> Status:
        """How it stands now.

        Raises:
            AssertionError: it was never started, or cannot be read.
        """
        return self._rehearsal.status_of(self.key)

    def outcome(self) -> Ending | None:
        """How it ended; None while it goes on."""
        state = self.status().state
        return state if state == "completed" or state == "compensated" else None

    def sent(self) -> list[str]:
        """The steps whose commands were sent, in order, with `undo` before those of compensations and `close` before
        those of which a participant was asked to take an operator's word."""
        entries = self._rehearsal.platform.read(SAGA, [subjects.journal_filter(self.key)])
        commands = [subjects.parse_entry(message.subject).command for message in entries]
        return [f"{each.direction} {each.step}".removeprefix("do ") for each in commands if each]

    def story(self) -> str:
        """What happened in it, in lines, as `antiphon show` tells it."""
        return "\n".join(map(spoken, self._rehearsal.timeline_of(self.key).lines))

    def __repr__(self) -> str:
        return f"<saga {self._rehearsal.in_a_word(self.key)}>"

    async def signal(self, step: Signal[R], event: R) -> None:
        """Send the event that a step waits for, now or later.

        Raises:
            AlreadySignalled, DefinitionError, TooLate, WrongShape: as of `Handle.signal`.
        """
        require_awaited(step, self.key.type, event)
        subject = subjects.signal_subject(self.key, step.name)
        self._rehearsal.require_in_time(subjects.same_subject(self.key, step.name), f"the signal {step.name}")
        if (told := await self._rehearsal.put(subject, event.__contract__.type, event)) is not None:
            raise AlreadySignalled(self.key.type, self.key.id, step.name, told.reason)

    async def cancel(self, reason: str) -> None:
        """Ask for it to be undone.

        Raises:
            TooLate: as of `Handle.cancel`.
        """
        self._rehearsal.require_in_time(subjects.same_cancel_subject(self.key), "the wish to cancel")
        await self._rehearsal.put(subjects.cancel_subject(self.key), CANCEL_TYPE, CancelRequest(reason=reason))


class Rehearsal:
    """The platform in memory, with everybody on it. Made by `rehearse`."""

    def __init__(self, definitions: Iterable[Definition], parts: Iterable[Part], coordinators: int) -> None:
        self.platform = MemoryPlatform()
        definitions = list(definitions)
        self._parts = {part.name: part for part in parts}
        self._stages: dict[str, Stage] = {}
        self._processes: dict[str, Process] = {}
        self._slow: dict[str, float] = {}
        self._accused: list[str] = []
        """Step functions that are none, in sentences."""
        self._coordinators = [
            Coordinator(MemoryStore(self.platform), definitions, author=lambda: TwiceAuthor(self._accused.append))
            for _ in range(coordinators)
        ]
        *_, timers, sweeper = PLATFORM_CONSUMERS
        facts = fact_consumers({*self._parts, *(source for each in definitions for source in each.sources)})
        for coordinator in self._coordinators:
            for consumer in facts:
                self.platform.consume(consumer, coordinator.on_fact)
            self.platform.consume(timers, coordinator.on_fired)
            self.platform.consume(sweeper, coordinator.on_start_to_watch)
            self.platform.coordinators.append(coordinator.on_announced)

    # --- what clients do ----------------------------------------------------------------------------------------------

    async def start(self, saga: Saga[S] | Choreography[S], start: S, *, id: str = "1") -> Rehearsed:
        """Begin a saga, and let everything happen that needs no time.

        Args:
            saga: its definition, or a choreography.
            start: the event it begins with.
            id: what it is called.

        Raises:
            AlreadyStarted, DefinitionError, WrongShape: as of `Antiphon.start`.
        """
        key = SagaKey.of(saga.name, id)
        require_start(saga, start)
        if (told := await self.put(subjects.start_subject(key), start.__contract__.type, start)) is not None:
            raise AlreadyStarted(key.type, key.id, told.reason)
        return Rehearsed(self, key)

    # --- time ---------------------------------------------------------------------------------------------------------

    async def run(self, duration: timedelta = timedelta(0)) -> None:
        """Let time pass, and everything happen that happens by then.

        Raises:
            AssertionError: a handler takes more than ten seconds of real time, or a step function answers otherwise
                when it is called again.
        """
        end_ns = self.platform.now_ns + round(duration.total_seconds() * NANO)
        await self._quiet()
        while self.platform.step(end_ns):
            await self._quiet()
        self.platform.now_ns = end_ns
        if self._accused:
            raise AssertionError(self._accused.pop())

    # --- faults -------------------------------------------------------------------------------------------------------

    async def stop(self, participant: str) -> None:
        """Have every process of a participant end. Its commands wait.

        Raises:
            AssertionError: it has none that runs.
        """
        self._running(participant).die()
        del self._stages[participant]
        await self._processes.pop(participant).drain(0.0)

    async def restart(self, participant: str) -> None:
        """Start a participant's process, in the place of the one before, if there is one.

        Raises:
            AssertionError: no such participant takes part.
        """
        self._require_part(participant)
        if participant in self._stages:
            await self.stop(participant)
        stage = self._stages[participant] = Stage(self.platform, self._parts[participant].listener)
        stage.slow_seconds = self._slow.get(participant, 0.0)
        self._processes[participant] = await self._parts[participant].begin(stage)

    def slow(self, participant: str, duration: timedelta) -> None:
        """Have a participant take so long for each command from now on, or once it is started again.

        Raises:
            AssertionError: no such participant takes part.
        """
        self._require_part(participant)
        self._slow[participant] = duration.total_seconds()
        if participant in self._stages:
            self._stages[participant].slow_seconds = duration.total_seconds()

    def crash(self, participant: str, when: Death) -> None:
        """Have a participant's process die at its next command, and be started again at once.

        Args:
            participant: whose process.
            when: `before commit`, so that nothing was done, or `after commit`, so that nobody was told.

        Raises:
            AssertionError: it has none that runs, or there is no such point.
        """
        stage = self._running(participant)
        if when not in get_args(Death):
            raise AssertionError(f"no process dies {when!r}; {meant(when, get_args(Death), 'there is')}")
        stage.dies = when

    # --- what is seen -------------------------------------------------------------------------------------------------

    @property
    def parked(self) -> list[Parked]:
        """What waits for a person, as the platform's index says."""
        return [read_parked(message.subject, message.data) for message in self.platform.streams[PARKED]]

    def __repr__(self) -> str:
        sagas = "; ".join(map(self.in_a_word, self._started())) or "no saga was started"
        stopped = sorted(self._parts.keys() - self._stages.keys())
        parts = f"{', '.join(self._parts) or 'nobody'} take part{', stopped: ' if stopped else ''}{', '.join(stopped)}"
        return f"<rehearsal at {moment(self.platform.now_ns):%Y-%m-%d %H:%M:%S}: {parts}; {sagas}>"

    def in_a_word(self, key: SagaKey) -> str:
        """A saga, how it stands, and why it was turned or waits for a person."""
        told = self.timeline_of(key)
        return ": ".join(part for part in (f"{key} {told.state}", told.reason or told.parked) if part)

    def timeline_of(self, key: SagaKey) -> Timeline:
        """What happened in a saga."""
        entries = self.platform.read(SAGA, [subjects.journal_filter(key)])
        return timeline_of(key, SagaPages(entries, self.platform.read(EVENTS, [subjects.saga_events_filter(key)])))

    def status_of(self, key: SagaKey) -> Status:
        """How a saga stands."""
        found: list[StatusAnswer] = []
        self._coordinators[0].status(key, found.append)
        while not found and self.platform.step(self.platform.now_ns):
            pass
        assert found, "the coordinators do not answer"
        assert found[0].status is not None, found[0].error or f"there is no saga {key}"
        return found[0].status

    # --- helpers ------------------------------------------------------------------------------------------------------

    def require_in_time(self, question: str, what: str) -> None:
        """Check that something can come of what a client is about to store.

        Args:
            question: the subject at which the client would ask.
            what: what it is called.

        Raises:
            TooLate: nothing can.
        """
        address = subjects.parse_same(question)
        key, journals, found = address.saga, self._coordinators[0].journals, list[Replayed | Exception]()
        journals.read(key, journals.definitions[key.type], found.append)
        while not found and self.platform.step(self.platform.now_ns):
            pass
        told = prospect_of(address, found[0]) if found else None
        is_stored = bool(self.platform.read(EVENTS, [address.stored_at]))
        if told is not None and told.prospect == "passed" and not is_stored:
            raise TooLate(key.type, key.id, what, told.why)

    async def put(self, subject: str, type_: str, payload: Event | CancelRequest) -> ResentAnswer | None:
        """Store what a client stores, and let everything happen that needs no time. What coordinators say of what was
        stored before, where that is not the same."""
        time = moment(self.platform.now_ns)
        envelope = Envelope(id=subject, source=CLIENT, type=type_, time=time, data=pack(payload))
        outcome = self.platform.store(EVENTS, subject, encode(envelope))
        await self.run()
        if isinstance(outcome, int) or isinstance(payload, CancelRequest):
            return None
        stored = decode(self.platform.read(EVENTS, [subject])[0].data, subject)
        told = compare(type(payload), stored, resent(payload)) or OTHER
        return None if told.verdict == "same" else told

    async def begin(self) -> None:
        """Start all participants."""
        for name in self._parts:
            await self.restart(name)

    async def end(self) -> None:
        """End all participants."""
        for name in list(self._stages):
            await self.stop(name)

    def _started(self) -> list[SagaKey]:
        starts = self.platform.read(EVENTS, [subjects.starts_filter()])
        return [key for message in starts if (key := subjects.saga_in(message.subject)) is not None]

    def _running(self, participant: str) -> Stage:
        self._require_part(participant)
        if participant not in self._stages:
            raise AssertionError(f"participant {participant} is stopped; restart it before it is stopped or crashes.")
        return self._stages[participant]

    def _require_part(self, participant: str) -> None:
        if participant not in self._parts:
            hint = meant(participant, self._parts, "only")
            raise AssertionError(f"no participant {participant!r} takes part in this rehearsal; {hint}")

    async def _quiet(self) -> None:
        """Wait, in real time, until nobody works on a command; and start again who died over one."""
        for name, stage in list(self._stages.items()):
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while stage.held:
                        stage.changed.clear()
                        await stage.changed.wait()
            except TimeoutError:
                raise AssertionError(
                    f"a handler of {name} has not returned within {PATIENCE_SECONDS:g} s of real time, while virtual "
                    "time stands still. Let it wait for nothing but its database."
                ) from None
            if stage.is_dead:
                await self.restart(name)


@asynccontextmanager
async def rehearse(
    sagas: Iterable[AnySaga], parts: Iterable[Part], *, coordinators: int = 1
) -> AsyncGenerator[Rehearsal]:
    """Bring a platform in memory up for the length of an `async with` block.

    What gives up before another worker can have taken over from one that died is warned of (`HastyTimeout`), also where
    the definition's own warning was not seen. A process that is to `crash` leaves its command to the next one for the
    3 s of virtual time that a server would.

    Args:
        sagas: the definitions.
        parts: the participants, each a `Service` of `antiphon.participants.testing` or something like it.
        coordinators: how many there are; they share the work.

    Raises:
        DefinitionError: a definition is not complete.
    """
    settle_tracebacks()
    definitions = [saga.definition for saga in sagas]
    for definition in definitions:
        for _, sentence in hasty(definition):
            warn_of_haste(sentence, frames=2)
    rehearsal = Rehearsal(definitions, parts, coordinators)
    await rehearsal.begin()
    try:
        yield rehearsal
    finally:
        await rehearsal.end()
