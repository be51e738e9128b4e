"""What a person wants to know of a saga, built from its messages without any definition. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec

from antiphon.contracts import clock, identity, subjects
from antiphon.contracts.envelope import decode, unpack
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import END_TYPE, End, SagaState
from antiphon.contracts.reader import Journal, is_purged
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.contracts.topology import EVENTS, SAGA

from ..decision.entries import child_id
from ..decision.history import ENTRIES_MAX
from .pauses import NOTHING_PAUSED, Pauses
from .standing import Standing, acted_after_all, standing
from .summary import read_cause, read_told, tell, unread
from .wording import LineKind, Wording, of_cause, of_entry, of_fact, parent_of


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a saga's timeline.

    `at` is when the server stored it (RFC 3339); `since_start_ms` counts from the first line; `late` marks a fact
    that the journal does not name: the saga had ended, or ended before it was taken in, or no coordinator has done that
    yet.
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
    left_out: int = 0
    """How many messages of EVENTS are not among the lines: of a saga to which too many were written to show all."""
    forgotten: str = ""
    """Who had it forgotten what was said in it, when and why."""
    purged: bool = False
    """It has ended, and its journal or its events were purged since: the lines are what is left."""


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


def timeline_of(
    key: SagaKey,
    pages: SagaPages,
    pauses: Pauses = NOTHING_PAUSED,
    children: tuple[str, ...] = (),
    left_out: int = 0,
) -> Timeline:
    """A saga as its messages tell it.

    Args:
        key: the saga.
        pages: its journal and its events, of which at least one is there.
        pauses: what stands still.
        children: the sagas that its steps started, as `type/id`.
        left_out: how many messages of EVENTS there are besides.
    """
    entries, events = pages.entries, pages.events
    journal = Journal()
    read = [journal.entry(message) for message in entries]
    named = {entry.envelope.cause for entry in read}
    began = min(message.stored_ns for message in (*events, *entries))
    lines = [_event_line(journal, message, began, f"e{message.sequence}" not in named) for message in events]
    facts = _facts(journal, events)
    lines += [_line(entry.sequence, entry.at_ns, began, SAGA, of_entry(entry, facts)) for entry in read]
    # At equal times (one clock tick of the server) a fact stands right before what was decided on it.
    place = {(SAGA, entry.sequence): (number, 1) for number, entry in enumerate(read)}
    for number, entry in enumerate(read):
        place.setdefault((EVENTS, entry.cause_sequence), (number, 0))
    nowhere = len(read), 0
    lines.sort(key=lambda line: (line.at, place.get((line.stream, line.sequence), nowhere), line.sequence))
    stands = standing(entries, events)
    is_open = stands.state in ("running", "compensating")
    return Timeline(
        type=key.type,
        id=key.id,
        state=stands.state,
        reason=_reason(key, stands, pages),
        definition=read[0].envelope.definition if read else "",
        lines=tuple(lines),
        parked="; ".join(need.reason for need in (*stands.needs, *acted_after_all(entries, events))),
        paused=stands.paused or (pauses.of(key.type, stands.waits_for) if is_open else ""),
        parent=_parent(key, events),
        children=children,
        entries=len(entries),
        left_out=left_out,
        forgotten=_forgotten(entries),
        purged=not left_out and is_purged(entries, events),
    )


def _forgotten(entries: list[StoredMessage]) -> str:
    """What the end of a saga says of its having been forgotten."""
    if not entries or not subjects.is_end(entries[-1].subject):
        return ""
    with suppress(Unusable):
        return unpack(decode(entries[-1].data, entries[-1].subject), END_TYPE, End).forgotten
    return ""


def spoken(line: Line) -> str:
    """A line of a timeline as a text."""
    attempt = f" #{line.attempt}" if line.attempt > 1 else ""
    about = f" {line.step}{attempt}" if line.step else ""
    return f"{line.at[:19].replace('T', ' ')} {line.who}{about}: {line.text}"


def summary_of(
    key: SagaKey,
    start: StoredMessage,
    pages: SagaPages,
    pauses: Pauses = NOTHING_PAUSED,
) -> Summary:
    """A saga in one line.

    Args:
        key: the saga.
        start: the message that started it.
        pages: its journal, or its end alone, and its events, as far as its journal needs them.
        pauses: what stands still.
    """
    stands = standing(pages.entries, pages.events)
    last = pages.entries[-1] if pages.entries else None
    end = last if last is not None and last.subject == subjects.end_subject(key) else None
    return Summary(
        type=key.type,
        id=key.id,
        state=stands.state,
        started=clock.rfc3339(start.stored_ns),
        ended=clock.rfc3339(end.stored_ns) if end else "",
        reason=_reason(key, stands, pages),
        parked=stands.parked,
        paused="" if end else stands.paused or pauses.of(key.type, stands.waits_for),
    )


def _reason(key: SagaKey, stands: Standing, pages: SagaPages) -> str:
    """Why a saga is being, or was, compensated. Only its end says so in full; before that it is what turned it."""
    if stands.state != "compensating":
        return stands.reason
    facts, row = {message.sequence: message for message in pages.events}, unread(key)
    with suppress(Unusable):
        for message in pages.entries:
            if (told := read_told(message)) is not None:
                cause = facts.get(told.cause_sequence)
                row = tell(row, told, read_cause(cause) if cause is not None else None)
    return row.reason


def unreadable(key: SagaKey, start: StoredMessage, error: Unusable) -> Summary:
    """A saga whose journal cannot be read, in one line."""
    return Summary(
        type=key.type,
        id=key.id,
        state="running",
        started=clock.rfc3339(start.stored_ns),
        parked=f"its journal cannot be read: {error}",
    )


def child_ids(key: SagaKey, entries: Iterable[StoredMessage]) -> list[str]:
    """The ids of the sagas that the steps of a saga started."""
    commands = [subjects.parse_entry(message.subject).command for message in entries]
    return [
        child_id(key, command.step, command.attempt)
        for command in commands
        if command is not None and (command.participant, command.direction) == (identity.COORDINATOR, "do")
    ]


def _facts(journal: Journal, events: Iterable[StoredMessage]) -> dict[str, str]:
    """The facts in words, by the cause that a journal names them with."""
    found: dict[str, str] = {}
    for message in events:
        with suppress(Unusable):
            found[f"e{message.sequence}"] = of_cause(journal.fact(message))
    return found


def _parent(key: SagaKey, events: list[StoredMessage]) -> str:
    start = subjects.start_subject(key, identity.COORDINATOR)
    for message in events:
        if message.subject == start:
            with suppress(Unusable):
                return parent_of(decode(message.data, message.subject))
    return ""


def _line(sequence: int, at_ns: int, began: int, stream: str, said: Wording, late: bool = False) -> Line:
    return Line(
        at=clock.rfc3339(at_ns),
        since_start_ms=round((at_ns - began) / 1e6, 3),
        kind=said.kind,
        who=said.who,
        step=said.step,
        attempt=said.attempt,
        text=said.text,
        stream=stream,
        sequence=sequence,
        late=late,
    )


def _event_line(journal: Journal, message: StoredMessage, began: int, late: bool) -> Line:
    try:
        said = of_fact(journal.fact(message))
    except Unusable as error:
        said = Wording(kind="unknown", who="?", text=f"unusable: {error.reason}")
    return _line(message.sequence, message.stored_ns, began, EVENTS, said, late)
