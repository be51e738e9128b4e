"""What EVENTS holds of one saga is read whole, or by the sources it knows where strangers have written too much."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.payloads import Record
from antiphon.contracts.stored import StoredMessage, TooManySubjects
from antiphon.link.reading import BATCH_MAX
from antiphon.link.sagas import read_events

KEY = SagaKey.of("order", "o1")
NOW = datetime(2026, 11, 26, tzinfo=UTC)


def entry(sequence: int, cause: str) -> StoredMessage:
    """A record of a journal, and the fact that it names."""
    subject = subjects.record_subject(KEY, f"n{sequence}")
    envelope = Envelope(
        id=subject, source="coordinator", type="saga.recorded.v1", time=NOW, cause=cause, data=pack(Record())
    )
    return StoredMessage(subject, sequence, sequence, encode(envelope))


def said(sequence: int, source: str, event: str) -> StoredMessage:
    return StoredMessage(subjects.event_subject(KEY.path, source, event, "on-x", 1), sequence, sequence, b"")


class Events:
    """EVENTS, in which a read of everything is refused; counts the reads."""

    def __init__(self, stored: list[StoredMessage], refusal: Ambiguous) -> None:
        self.stored, self.refusal, self.reads = stored, refusal, 0

    async def read_all(self, stream: str, filters: list[str]) -> list[StoredMessage]:
        self.reads += 1
        if filters == [subjects.saga_events_filter(KEY)]:
            raise self.refusal
        starts = tuple(each.removesuffix(">") for each in filters)
        return [message for message in self.stored if message.subject.startswith(starts)]

    async def next_page(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = BATCH_MAX
    ) -> list[StoredMessage]:
        assert subject_filter == subjects.saga_events_filter(KEY)
        return [message for message in self.stored if message.sequence >= from_sequence][: min(most, 3)]


async def test_a_server_that_does_not_answer_is_asked_once() -> None:
    events = Events([], Ambiguous("nobody answered in time"))
    with pytest.raises(Ambiguous, match="in time"):
        await read_events(events, KEY, [])
    assert events.reads == 1


async def test_participants_that_no_command_names_are_read_though_a_stranger_wrote_too_much() -> None:
    """A choreography: its journal has no commands, and names what was said by its place."""
    flood = [said(number, "stranger", f"x{number}") for number in range(1, 40)]
    ours = [said(50, "billing", "paid"), said(60, "billing", "booked"), said(70, "shipping", "sent")]
    events = Events([*flood, *ours], TooManySubjects("413"))
    found = await read_events(events, KEY, [entry(1, "e50"), entry(2, "e70")])
    assert [each.sequence for each in found] == [1, 2, 3, 50, 60, 70]
