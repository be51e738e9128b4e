"""Plays a trace on a platform, in memory or on a real server: its deeds, as the messages their doers would store."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from antiphon.contracts import SagaKey, identity, subjects
from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.messages import AnswerKind, Closed, Refusal, Settled, Undone
from antiphon.contracts.payloads import (
    CANCEL_TYPE,
    END_TYPE,
    RECORD_TYPE,
    CancelRequest,
    End,
    Operation,
    Record,
    verb_type,
)
from antiphon.contracts.topology import EVENTS, PLATFORM_CONSUMERS, SAGA, fact_consumers
from antiphon.coordinator.decision.author import Author
from antiphon.coordinator.decision.entries import CHILD_DIGITS
from antiphon.coordinator.definition.definition import Definition, Expected
from antiphon.coordinator.definition.versions import by_type
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.memory import MemoryPlatform, MemoryStore
from antiphon.coordinator.testing.story import recorded
from antiphon.link import AlreadyStored, Link, StoredMessage
from antiphon.link.setup import api, heard
from tests.conformance.traces.trace import MAIN, Deed, Played, Trace
from tests.support.journeys import DAY, everywhere

TELLING: Final = partial(Author, error_texts=True)
"""Traces are read by people, who want to see what a function raised."""

SECONDS_MAX: Final = 120.0
"""How long a real server may take for one deed."""


_HASH: Final = re.compile(rf"(?<=-\d)-[0-9a-f]{{{CHILD_DIGITS}}}$")
"""What stands behind the name of a child, after its parent's, its step's and the attempt's."""


class Stage(Protocol):
    """A platform with a coordinator on it, and everybody else played."""

    unit: timedelta

    async def put(self, subject: str, data: bytes) -> None:
        """Store in EVENTS, where the subject is free."""

    async def journal(self, key: SagaKey) -> list[StoredMessage]:
        """The entries of one saga."""
        ...

    async def event(self, key: SagaKey, sequence: int) -> str:
        """The subject of a message in EVENTS about a saga."""
        ...

    async def settle(self, seconds: float, counts: dict[SagaKey, int]) -> None:
        """Let time pass, and what is under way happen; on a server, until there are as many entries as named."""


class MemoryStage:
    """Virtual time, in which nothing is under way once it has settled."""

    def __init__(self) -> None:
        self.unit = DAY
        self.platform = MemoryPlatform()
        coordinator = Coordinator(
            MemoryStore(self.platform), [saga.definition for saga in everywhere(self.unit)], author=TELLING
        )
        *_, timers, sweeper = PLATFORM_CONSUMERS
        participants = {source for saga in everywhere(self.unit) for source in saga.definition.sources}
        for consumer in fact_consumers(participants):
            self.platform.consume(consumer, coordinator.on_fact)
        self.platform.consume(timers, coordinator.on_fired)
        self.platform.consume(sweeper, coordinator.on_start_to_watch)  # days are so far away that it sets the timers

    async def put(self, subject: str, data: bytes) -> None:
        self.platform.store(EVENTS, subject, data)

    async def journal(self, key: SagaKey) -> list[StoredMessage]:
        return self.platform.read(SAGA, [subjects.journal_filter(key)])

    async def event(self, key: SagaKey, sequence: int) -> str:
        return next(message.subject for message in self.platform.streams[EVENTS] if message.sequence == sequence)

    async def settle(self, seconds: float, counts: dict[SagaKey, int]) -> None:
        self.platform.run(seconds)

    def sagas(self) -> list[SagaKey]:
        """All sagas that have a journal, in the order they began."""
        entries = [message.subject for message in self.platform.streams[SAGA] if ".c." in message.subject]
        found = dict.fromkeys(tuple(subject.split(".")[2:4]) for subject in entries)
        return [SagaKey.of(*pair) for pair in found if pair[0] != identity.LOCK]


class ServerStage:
    """A real server; a coordinator must be attached to it with the sagas of this unit."""

    def __init__(self, link: Link, unit: timedelta) -> None:
        self._link, self.unit = link, unit

    async def put(self, subject: str, data: bytes) -> None:
        try:
            await self._link.store(subject, data)
        except AlreadyStored:
            return  # said twice, stored once

    async def journal(self, key: SagaKey) -> list[StoredMessage]:
        return await self._link.read_all(SAGA, [subjects.journal_filter(key)])

    async def event(self, key: SagaKey, sequence: int) -> str:
        found = await self._link.read_all(EVENTS, [f"evt.{key.path}.>"])
        return next(message.subject for message in found if message.sequence == sequence)

    async def settle(self, seconds: float, counts: dict[SagaKey, int]) -> None:
        """Time passes by itself here, and is over when what it brings is there."""
        for key, count in counts.items():
            await self._until(key, count)

    async def _until(self, key: SagaKey, count: int) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while len(await self.journal(key)) < count:
                await asyncio.sleep(0.01)

    async def is_idle(self) -> None:
        """Wait until every fact was acked, so that nothing more can come."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                facts = fact_consumers(await heard(self._link))
                found = [await api(self._link, f"CONSUMER.INFO.{EVENTS}.{each.name}") for each in facts]
                if all(each["num_pending"] == each["num_ack_pending"] == 0 for each in found):
                    return
                await asyncio.sleep(0.01)


class Play:
    """One trace on one stage."""

    def __init__(self, trace: Trace, stage: Stage) -> None:
        self._trace, self._stage = trace, stage
        sagas = {saga.name: saga for saga in everywhere(stage.unit)}
        self._definitions = by_type(saga.definition for saga in sagas.values())
        self.keys = {MAIN: self._key(MAIN, trace.saga)}

    async def in_memory(self, stage: MemoryStage) -> Played:
        """Play it, and see after each deed what is new in any journal."""
        played, seen = Played(), Counter[SagaKey]()
        for deed in self._trace.deeds:
            await self._do(deed)
            await stage.settle(self._seconds(deed), {})
            self.keys |= {self._name(key): key for key in stage.sagas()}
            stored = [m for key in self.keys.values() for m in (await stage.journal(key))[seen[key] :]]
            stored.sort(key=lambda message: message.sequence)
            seen.update(subjects.parse_entry(message.subject).saga for message in stored)
            played.lines.append([self._line(message) for message in stored])
            played.causes += [await self._cause(message) for message in stored]
        return played

    async def on_server(self, stage: ServerStage, model: Played, keys: dict[str, SagaKey]) -> None:
        """Play it, going on after each deed once the journals are as long as they were in memory."""
        self.keys, counts = keys, Counter[SagaKey]()
        for deed, lines in zip(self._trace.deeds, model.lines, strict=True):
            await self._do(deed)
            counts.update(keys[saga_of(line)] for line in lines)
            await stage.settle(0, counts)

    async def found(self, model: Played) -> Played:
        """What the journals hold now, in the order in which memory had it; what is more comes last.

        Sagas of one trace go on side by side, so that the order between them says nothing.
        """
        journals = {name: list(await self._stage.journal(key)) for name, key in self.keys.items()}
        played = Played()
        for lines in model.lines:
            stored = [journals[saga_of(line)].pop(0) for line in lines if journals[saga_of(line)]]
            played.lines.append([self._line(message) for message in stored])
            played.causes += [await self._cause(message) for message in stored]
        played.lines[-1] += [self._line(message) for rest in journals.values() for message in rest]
        return played

    # --- deeds as messages --------------------------------------------------------------------------------------------

    def _seconds(self, deed: Deed) -> float:
        return float(deed.what) * self._stage.unit.total_seconds() if deed.verb == "passes" else 0.0

    async def _do(self, deed: Deed) -> None:
        if deed.verb == "passes":
            return
        key = self.keys.setdefault(deed.saga, self._key(deed.saga, self._trace.saga))
        subject, source, type_, payload, command = await self._message(deed, key)
        time = datetime.now(UTC)
        envelope = Envelope(id=subject, source=source, type=type_, time=time, data=_raw(payload), command=command)
        await self._stage.put(subject, encode(envelope))

    async def _message(self, deed: Deed, key: SagaKey) -> tuple[str, str, str, object, str]:
        definition = self._definitions[key.type].newest
        match deed.who, deed.verb:
            case "client", "starts":
                return subjects.start_subject(key), "client", definition.start_type, deed.payload, ""
            case "client", "cancels":
                return subjects.cancel_subject(key), "client", CANCEL_TYPE, CancelRequest(reason=deed.reason), ""
            case "client", "signals":
                signal = definition.steps[deed.what].signal
                assert signal is not None
                return subjects.signal_subject(key, deed.what), "client", signal.__contract__.type, deed.payload, ""
            case participant, "says":
                said = next(e for e in definition.events.values() if e.shape.__contract__.token == deed.what)
                subject = subjects.event_subject(key.path, participant, deed.what, "on-something", 1)
                return subject, participant, said.shape.__contract__.type, deed.payload, ""
            case user, "asks to":
                return await self._request(deed, key, user)
            case _:
                return await self._answer(deed, key, definition)

    async def _request(self, deed: Deed, key: SagaKey, user: str) -> tuple[str, str, str, object, str]:
        happened = False if deed.never else None
        operation = Operation(step=deed.what, reason=deed.reason, happened=happened, claim=deed.claim, asks=True)
        if deed.payload is not None:
            operation = replace(operation, payload=_raw(deed.payload))
        number = len(await self._stage.journal(key))
        subject = subjects.verb_subject(key, user, deed.operation, f"n{number}")
        return subject, "operator", verb_type(deed.operation), operation, ""

    async def _answer(self, deed: Deed, key: SagaKey, definition: Definition) -> tuple[str, str, str, object, str]:
        direction: subjects.Sending = "undo" if deed.verb in ("undoes", "cannot undo", "settles") else "do"
        if deed.verb == "closes":
            direction = "close"
        sent = await self._sent(key, deed.what, direction)
        attempt = deed.attempt or max(sent, default=0)
        assert attempt in sent, f"{deed.line}: {deed.what} was never sent"
        token, expected = _expected(definition, deed, direction)
        subject = subjects.event_subject(key.path, deed.who, token, deed.what, attempt)
        return subject, deed.who, expected.type, _payload(deed, definition), str(sent[attempt])

    async def _sent(self, key: SagaKey, step: str, direction: subjects.Sending) -> dict[int, int]:
        """Where SAGA holds the attempts of a command."""
        commands = {m.sequence: subjects.parse_entry(m.subject).command for m in await self._stage.journal(key)}
        return {c.attempt: s for s, c in commands.items() if c and (c.step, c.direction) == (step, direction)}

    # --- entries as lines ---------------------------------------------------------------------------------------------

    def _line(self, message: StoredMessage) -> str:
        name = self._name(subjects.parse_entry(message.subject).saga)
        line = _told(message).replace(f"{self._trace.name}-", "")
        return line if name == MAIN else f"[{name}] {line}"

    async def _cause(self, message: StoredMessage) -> str:
        """The fact an entry was decided on, however the streams count."""
        cause = decode(message.data, message.subject).cause
        if not cause.startswith("e"):
            return "time" if cause else ""
        subject = await self._stage.event(subjects.parse_entry(message.subject).saga, int(cause[1:]))
        return ".".join(subject.split(".")[4:])

    def _key(self, name: str, saga_type: str) -> SagaKey:
        return SagaKey.of(saga_type, f"{self._trace.name}-{name}")

    def _name(self, key: SagaKey) -> str:
        return _HASH.sub("", key.id.removeprefix(f"{self._trace.name}-"))


def saga_of(line: str) -> str:
    """The name of the saga that a line is about."""
    return line[1:].partition("]")[0] if line.startswith("[") else MAIN


def _told(message: StoredMessage) -> str:
    address, envelope = subjects.parse_entry(message.subject), decode(message.data, message.subject)
    if address.command is not None:
        command = address.command
        payload = json.dumps(json.loads(bytes(envelope.data)), ensure_ascii=False)
        return f"{command.participant} {command.step} {command.direction} {command.attempt} {payload}"
    if address.kind == "rec":
        return recorded(unpack(envelope, RECORD_TYPE, Record))
    end = unpack(envelope, END_TYPE, End)
    return f"ends {end.outcome}{': ' * bool(end.reason)}{end.reason}"


KINDS: Final[dict[str, AnswerKind]] = {
    "answers": "done",
    "refuses": "refused",
    "gives up": "exhausted",
    "undoes": "done",
    "cannot undo": "exhausted",
    "settles": "settled",
    "closes": "closed",
}


def _expected(definition: Definition, deed: Deed, direction: subjects.Sending) -> tuple[str, Expected]:
    wanted = (definition.step(deed.what).name, direction, KINDS[deed.verb])
    return next(
        (token, expected)
        for (_, token), expected in definition.answers.items()
        if (expected.step, expected.direction, expected.kind) == wanted
    )


def _payload(deed: Deed, definition: Definition) -> object:
    if deed.verb == "answers":
        return deed.payload
    if deed.verb == "closes":
        return deed.payload or Closed(verdict="closed")
    if deed.verb == "undoes":
        return Undone(found=True)
    if deed.verb != "settles":
        return Refusal(reason=deed.reason)
    if deed.never:
        return Settled(happened=False)
    reply = definition.step(deed.what).reply
    assert reply is not None
    return Settled(happened=True, type=reply.__contract__.type, reply=_raw(deed.payload))


def _raw(payload: object) -> msgspec.Raw:
    if isinstance(payload, msgspec.Struct):
        return pack(payload)
    return msgspec.Raw(msgspec.json.encode(payload))
