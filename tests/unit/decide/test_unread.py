"""A message that cannot be read: what it stops, whatever else the saga went through, and what it does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.payloads import CANCEL_TYPE, CHILD_START_TYPE, CancelRequest, ChildStart, Parent, Record
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.coordinator.decision.accept import accept
from antiphon.coordinator.decision.decide import decide
from antiphon.coordinator.decision.facts import Finish, Send, Start, Unread
from antiphon.coordinator.decision.fold import fold
from antiphon.coordinator.decision.history import History, begin
from antiphon.coordinator.decision.notices import notices
from antiphon.coordinator.decision.plan import plan
from antiphon.coordinator.decision.replay import replay
from antiphon.coordinator.definition.versions import by_type
from tests.support.raw_worker import _envelope, answer_message, start_message
from tests.support.trip import REPLIES, TRIP
from tests.unit.decide.life import BEGUN_NS, KEY, TIME, Life
from tests.unit.decide.test_replay import EVENTS, SAGAS, live

WHY = "it cannot be read"


@given(st.sampled_from(SAGAS), st.lists(EVENTS, max_size=12), st.integers(0, 30), st.booleans())
def test_nothing_is_sent_while_a_fact_that_the_journal_names_cannot_be_read(
    saga: Any, events: list[tuple[Any, ...]], place: int, paused: bool
) -> None:
    life = live(saga, events)
    named = sorted(life.refolded().named)
    sequence = named[place % len(named)]
    fact = Unread(sequence, BEGUN_NS, "named", WHY)
    history = fold(begin(KEY, life.definition), life.entries(), {**life.facts, sequence: fact})
    found = decide(history)
    assert not any(isinstance(each, Send) for each in found)
    assert all(each == Record(fault=WHY, unread=True) for each in found if isinstance(each, Record))
    if any(isinstance(each, Finish) for each in found):
        assert not any(isinstance(entry.what, Send) for entry in life.entries())


@given(st.lists(EVENTS, max_size=12))
def test_whoever_can_read_everything_reads_over_the_entry_that_another_could_not(events: list[tuple[Any, ...]]) -> None:
    life = live(TRIP, events)
    before = life.refolded()
    if before.end is None:
        life.take(Unread(len(life.facts) + 1, life.now_ns, "named", WHY))
        # The fact itself is one that changes nothing for whoever reads it.
        facts = {**life.facts, len(life.facts): Start(len(life.facts), BEGUN_NS, REPLIES["book_room"])}
        after = fold(begin(KEY, life.definition), life.entries(), facts)
        assert decide(after) == decide(before)
        assert (after.fault, after.unread) == (before.fault, "")


def unread_answer(life: Life, **changes: Any) -> History:
    fact = Unread(len(life.facts) + 1, life.now_ns, "answer", WHY, "book_room")
    life.take(msgspec.structs.replace(fact, **changes))
    return life.history


def test_an_answer_counts_while_it_is_awaited_only() -> None:
    life = Life()
    life.start()
    assert unread_answer(life, direction="undo").unread == ""
    assert unread_answer(life, step="book_seat").unread == ""
    assert unread_answer(life).unread == WHY
    life = Life()
    life.start()
    life.answer("book_room")
    assert unread_answer(life).unread == ""


def test_a_start_counts_once() -> None:
    life = Life()
    life.start()
    life.take(Unread(9, life.now_ns, "start", WHY))
    assert life.history.unread == ""


# --- as stored --------------------------------------------------------------------------------------------------------


def stored(sequence: int, message: tuple[str, bytes]) -> StoredMessage:
    subject, data = message
    return StoredMessage(subject, sequence, BEGUN_NS, data)


def test_what_the_journal_names_and_nobody_may_say_today_is_unread_and_what_it_does_not_name_is_passed_over() -> None:
    life = Life()
    life.start()
    life.answer("book_room")
    command = subjects.CommandAddress(KEY, "airline", "book_room", "do", 1)  # the hotel's step
    events = [stored(1, start_message(KEY)), stored(2, answer_message(command, 10, "done"))]
    versions = by_type([TRIP.definition])["trip"]
    found = replay(KEY, versions, SagaPages(life.journal, events))
    assert "which the journal names, cannot be read: only hotel may answer step 'book_room'" in found.history.unread
    assert replay(KEY, versions, SagaPages(life.journal[:1], events)).unnamed == []


@pytest.mark.parametrize(("type_", "data"), [("trip.asked.v2", b"{}"), ("trip.asked.v1", b"{}")])
def test_a_child_whose_start_cannot_be_read_knows_its_parent_and_tells_it_once_it_is_cancelled(
    type_: str, data: bytes
) -> None:
    parent = Parent(type="tour", id="o1", step="travel", attempt=1, hold=True)
    subject = subjects.start_subject(KEY, "coordinator")
    start = ChildStart(parent=parent, type=type_, event=msgspec.Raw(data), child=str(KEY))
    message = _envelope(subject, "coordinator", CHILD_START_TYPE, start)
    fact = accept(TRIP.definition, subjects.parse_fact(subject), message, subject, 1, BEGUN_NS)
    assert isinstance(fact, Unread)
    assert (fact.of, fact.parent) == ("start", parent)
    (entry,) = plan(begin(KEY, TRIP.definition), fact, TIME).entries
    cancel = subjects.cancel_subject(KEY, "coordinator")
    request = _envelope(cancel, "coordinator", CANCEL_TYPE, CancelRequest(reason="enough"))
    wish = accept(TRIP.definition, subjects.parse_fact(cancel), request, cancel, 2, BEGUN_NS)
    (end,) = plan(msgspec.structs.replace(entry.after, sequence=7), wish, TIME + timedelta(seconds=1)).entries
    assert end.after.end is not None
    assert [*notices(end.after)] == [subjects.child_subject(SagaKey.of("tour", "o1"), "compensated", "travel", 1)]
