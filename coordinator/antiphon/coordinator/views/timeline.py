"""What a person wants to know of a saga, read from the two streams without any definition."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from antiphon.contracts import clock, identity, subjects
from antiphon.contracts.envelope import decode
from antiphon.contracts.errors import UnknownSaga, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import SagaState
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link import Link, StoredMessage

from ..decision.entries import child_id
from ..decision.history import ENTRIES_MAX
from ..decision.pause import read_pause_state
from .standing import standing
from .wording import LineKind, Wording, of_cause, of_entry, of_event, parent_of


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a saga's timeline.

    `at` is when the server stored it (RFC 3339); `since_start_ms` counts from the first line; `late` marks a fact
    that the journal does not name: the saga had ended, or no coordinator has taken it in yet.
    """

    at: str
    since_start_ms: float
    kind: LineKind
    who: str
    step: str = ""
    attempt: int = 0
    text: str
    stream: str
    sequence: int
    late: bool = False


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A saga, told in the order of its facts."""

    type: str
    id: str
    state: SagaState
    reason: str
    definition: str
    lines: tuple[Line, ...]
    parked: str = ""
    """Why it waits for a person."""
    paused: str = ""
    """Who had it stand still, and why."""
    parent: str = ""
    """The saga that started it, as `type/id`."""
    children: tuple[str, ...] = ()
    """The sagas that its steps started."""
    entries: int = 0
    """How many entries its journal has."""
    entries_max: int = ENTRIES_MAX
    """How many it may have."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A saga in one line."""

    type: str
    id: str
    state: SagaState
    started: str
    ended: str = ""
    reason: str = ""
    parked: str = ""
    paused: str = ""


async def timeline(link: Link, key: SagaKey) -> Timeline:
    """Read a whole saga.

    Raises:
        UnknownSaga: neither stream has anything of it.
    """
    events = await link.read_all(EVENTS, [f"evt.{key.path}.>"])
    entries = await link.read_all(SAGA, [subjects.journal_filter(key)])
    if not events and not entries:
        raise UnknownSaga(key.type, key.id)
    named = {_cause(message) for message in entries}
    began = min(message.stored_ns for message in (*events, *entries))
    lines = [_event_line(message, began, f"e{message.sequence}" not in named) for message in events]
    facts = _facts(events)
    lines += [_line(message, began, SAGA, of_entry(message, facts)) for message in entries]
    # At equal times (one clock tick of the server) a fact stands before what was decided on it.
    lines.sort(key=lambda line: (line.at, line.stream != EVENTS, line.sequence))
    stands = standing(entries, events)
    return Timeline(
        type=key.type,
        id=key.id,
        state=stands.state,
        reason=stands.reason,
        definition=_definition(entries),
        lines=tuple(lines),
        parked=stands.parked,
        paused=stands.paused or await _type_paused(link, key.type, stands.state),
        parent=_parent(events),
        children=await _children(link, key, entries),
        entries=len(entries),
    )


async def summaries(link: Link, saga_type: str = "*", limit: int = 50) -> list[Summary]:
    """The sagas started last, newest first.

    Args:
        link: a connection with an operator's rights.
        saga_type: only sagas of this type.
        limit: how many at most.
    """
    starts: list[tuple[SagaKey, StoredMessage]] = []
    async for message in link.scan(EVENTS, subjects.starts_filter(saga_type)):
        with suppress(Unusable):  # a forged start is parked; whoever stored it must not blind the operator
            starts.append((subjects.parse_fact(message.subject).saga, message))
        if len(starts) > 2 * limit:
            del starts[:limit]
    found = starts[-limit:][::-1]
    ends: dict[str, StoredMessage] = {}
    for first in range(0, len(found), 500):
        wanted = [subjects.end_subject(key) for key, _ in found[first : first + 500]]
        ends |= {message.subject: message for message in await link.read_all(SAGA, wanted)}
    paused = await paused_types(link)
    return [await _summary(link, key, start, ends.get(subjects.end_subject(key)), paused) for key, start in found]


async def paused_types(link: Link) -> dict[str, str]:
    """The saga types that stand still, with who had them and why."""
    states = await link.read_all(SAGA, [subjects.states_filter(identity.SAGA_TYPE)])
    found = {message.subject.split(".")[3]: read_pause_state(message).paused for message in states}
    return {saga_type: f"all sagas of its type are {paused}" for saga_type, paused in found.items() if paused}


async def _type_paused(link: Link, saga_type: str, state: SagaState) -> str:
    is_open = state in ("running", "compensating")
    return (await paused_types(link)).get(saga_type, "") if is_open else ""


async def _summary(
    link: Link, key: SagaKey, start: StoredMessage, end: StoredMessage | None, paused: dict[str, str]
) -> Summary:
    entries = [end] if end else await link.read_all(SAGA, [subjects.journal_filter(key)])
    # Only what operators and participants said tells whether a journal that speaks of them is out of date.
    has_records = any(subjects.parse_entry(message.subject).kind == "rec" for message in entries)
    events = await link.read_all(EVENTS, [f"evt.{key.path}.>"]) if has_records else []
    stands = standing(entries, events)
    return Summary(
        type=key.type,
        id=key.id,
        state=stands.state,
        started=clock.rfc3339(start.stored_ns),
        ended=clock.rfc3339(end.stored_ns) if end else "",
        reason=stands.reason,
        parked=stands.parked,
        paused="" if end else stands.paused or paused.get(key.type, ""),
    )


def _definition(entries: list[StoredMessage]) -> str:
    return decode(entries[0].data, entries[0].subject).definition if entries else ""


def _cause(message: StoredMessage) -> str:
    return decode(message.data, message.subject).cause


def _facts(events: list[StoredMessage]) -> dict[str, str]:
    """The facts in words, by the cause that a journal names them with."""
    found: dict[str, str] = {}
    for message in events:
        with suppress(Unusable):
            envelope = decode(message.data, message.subject)
            found[f"e{message.sequence}"] = of_cause(subjects.parse_fact(message.subject), envelope)
    return found


def _parent(events: list[StoredMessage]) -> str:
    for message in events:
        if message.subject.endswith(".coordinator.start"):
            with suppress(Unusable):
                return parent_of(decode(message.data, message.subject))
    return ""


async def _children(link: Link, key: SagaKey, entries: list[StoredMessage]) -> tuple[str, ...]:
    """The sagas that steps of this one started: their ids follow from the journal, their types from their starts."""
    ids: list[str] = []
    for message in entries:
        command = subjects.parse_entry(message.subject).command
        if command is not None and (command.participant, command.direction) == (identity.COORDINATOR, "do"):
            ids.append(child_id(key, command.step, command.attempt))
    if not ids:
        return ()
    starts = await link.read_all(EVENTS, [f"evt.*.*.{each}.coordinator.start" for each in ids])
    return tuple(str(SagaKey.of(*message.subject.split(".")[2:4])) for message in starts)


def _line(message: StoredMessage, began: int, stream: str, said: Wording, late: bool = False) -> Line:
    return Line(
        at=clock.rfc3339(message.stored_ns),
        since_start_ms=round((message.stored_ns - began) / 1e6, 3),
        kind=said.kind,
        who=said.who,
        step=said.step,
        attempt=said.attempt,
        text=said.text,
        stream=stream,
        sequence=message.sequence,
        late=late,
    )


def _event_line(message: StoredMessage, began: int, late: bool) -> Line:
    try:
        said = of_event(subjects.parse_fact(message.subject), decode(message.data, message.subject))
    except Unusable as error:
        said = Wording(kind="unknown", who="?", text=f"unusable: {error.reason}")
    return _line(message, began, EVENTS, said, late)
