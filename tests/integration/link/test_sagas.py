"""What EVENTS holds of one saga is read whole, or by a page and what its journal names where too much was written."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.payloads import Record
from antiphon.contracts.stored import NotRead, StoredMessage, TooManySubjects
from antiphon.link.reading import BATCH_MAX
from antiphon.link.sagas import PAGE_MAX, read_events, read_named_events

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

    def __init__(self, stored: list[StoredMessage], refusal: NotRead) -> None:
        self.stored, self.refusal, self.reads = stored, refusal, 0

    async def read_all(self, stream: str, filters: list[str]) -> list[StoredMessage]:
        self.reads += 1
        if filters == [subjects.saga_events_filter(KEY)]:
            raise self.refusal
        assert not any(map(subjects.is_filter, filters))
        return [message for message in self.stored if message.subject in filters]

    def stream_at(self, stream: str, subject: str) -> str:
        return stream

    async def get_all_at(self, stream: str, sequences: Collection[int]) -> list[StoredMessage]:
        return [message for message in self.stored if message.sequence in sequences]

    async def next_page(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = BATCH_MAX
    ) -> list[StoredMessage]:
        return (await self.page_with_rest(stream, subject_filter, from_sequence, most))[0]

    async def page_with_rest(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = BATCH_MAX
    ) -> tuple[list[StoredMessage], int]:
        assert subject_filter == subjects.saga_events_filter(KEY)
        found = [message for message in self.stored if message.sequence >= from_sequence]
        return found[:most], len(found[most:])


async def test_a_server_that_does_not_answer_is_asked_once() -> None:
    events = Events([], Ambiguous("nobody answered in time"))
    with pytest.raises(Ambiguous, match="in time"):
        await read_events(events, KEY, [])
    assert events.reads == 1


async def test_of_a_flooded_saga_a_page_is_read_from_its_start_and_all_that_its_journal_names() -> None:
    before = said(1, "stranger", "early")
    start = StoredMessage(subjects.start_subject(KEY), 2, 2, b"")
    flood = [said(number, "billing", f"x{number}") for number in range(3, 1203)]
    ours = [said(1210, "billing", "paid"), said(1220, "billing", "booked"), said(1230, "shipping", "sent")]
    events = Events([before, start, *flood, *ours], TooManySubjects("413"))
    found = await read_events(events, KEY, [entry(1, "e2"), entry(2, "e1210"), entry(3, "e1230")])
    assert [each.sequence for each in found.messages] == [*range(2, 2 + PAGE_MAX), 1210, 1230]
    assert found.left_out == len([start, *flood, *ours]) - len(found.messages)


async def test_what_a_journal_names_is_read_and_nothing_else() -> None:
    events = Events([said(number, "billing", f"x{number}") for number in range(1, 9)], TooManySubjects("413"))
    found = await read_named_events(events, [entry(1, "e2"), entry(2, "t99"), entry(3, "e7"), entry(4, "e12")])
    assert ([each.sequence for each in found], events.reads) == ([2, 7], 0)
