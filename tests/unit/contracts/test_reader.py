"""The one reader of a journal: what entries and facts are, known from the commands that the journal has."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode
from antiphon.contracts.reader import Journal, answer_kind, cause_sequence, command_kind, named_sequences
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import Sending

KEY = SagaKey.of("library", "l1")


def stored(subject: str, type_: str, sequence: int = 1, cause: str = "") -> StoredMessage:
    envelope = Envelope(
        id=subject, source="any", type=type_, time=datetime.now(UTC), data=msgspec.Raw(b"{}"), cause=cause
    )
    return StoredMessage(subject, sequence, 0, encode(envelope))


def sent(type_: str, direction: Sending = "do", attempt: int = 1, cause: str = "e1") -> StoredMessage:
    return stored(subjects.command_subject(KEY, "desk", "lend", direction, attempt), type_, cause=cause)


def said(name: str, attempt: int = 1, step: str = "lend") -> StoredMessage:
    token = name.replace(".", "-")
    return stored(subjects.event_subject(KEY.path, "desk", token, step, attempt), f"{name}.v1")


def test_an_answer_is_known_by_the_command_that_it_answers() -> None:
    journal = Journal()
    kinds = [journal.entry(each).kind for each in (sent("loan.v1"), sent("loan.settle.v1", "undo"))]
    assert kinds == ["do", "settle"]
    names = ["loan.made", "loan.refused", "loan.settled", "loan.settle.exhausted", "other.refused"]
    assert [journal.fact(said(name)).kind for name in names] == ["done", "refused", "settled", "exhausted", "done"]
    assert journal.fact(said("loan.made", attempt=2)).kind == "answer"


def test_a_compensation_is_one_whatever_its_name() -> None:
    journal = Journal()
    kinds = [journal.entry(each).kind for each in (sent("loan.v1"), sent("return.settle.v1", "undo"))]
    assert kinds == ["do", "undo"]
    names = ["return.settle.done", "return.settle.refused", "loan.superseded", "return.settled"]
    assert [journal.fact(said(name)).kind for name in names] == ["undone", "refused", "superseded", "done"]


def test_a_close_is_no_attempt_and_has_one_answer() -> None:
    journal = Journal()
    kinds = [journal.entry(each).kind for each in (sent("loan.v1"), sent("loan.close.v1", "close"))]
    assert kinds == ["do", "close"]
    facts = [journal.fact(said(name)) for name in ("loan.closed", "loan.refused", "loan.made")]
    assert [(fact.kind, fact.answers and fact.answers.direction) for fact in facts] == [
        ("closed", "close"),
        ("refused", "do"),
        ("done", "do"),
    ]


def test_a_reply_that_was_called_closed_before_there_were_closes_is_one() -> None:
    journal = Journal()
    journal.entry(sent("loan.v1"))
    assert journal.fact(said("loan.closed")).kind == "done"


def test_what_nobody_was_asked_for_is_no_answer() -> None:
    journal = Journal()
    assert journal.fact(said("loan.refused", step="on-asked")).kind == "event"
    found = [
        (subjects.start_subject(KEY), "start"),
        (subjects.cancel_subject(KEY, "coordinator"), "cancel"),
        (subjects.signal_subject(KEY, "refused"), "signal"),
        (subjects.verb_subject(KEY, "ada", "pause", "k"), "request"),
        (subjects.release_subject(KEY), "notice"),
    ]
    assert [journal.fact(stored(subject, "any.v1")).kind for subject, _ in found] == [kind for _, kind in found]


@pytest.mark.parametrize("cause", ["", "t123", "e", "e-1", "e١", "e" + "9" * 20])
def test_what_is_no_sequence_is_none(cause: str) -> None:
    assert cause_sequence(cause) == 0


def test_a_journal_tells_which_facts_it_names() -> None:
    entries = [sent("loan.v1", cause="e7"), sent("loan.v1", attempt=2, cause="t5"), sent("x.v1", "undo", cause="e7")]
    unreadable = [StoredMessage("saga.x", 9, 9, data) for data in (b"", b"[" * 5000, b'{"cause":7}', b"\xff")]
    assert named_sequences([*entries, *unreadable]) == [7]


def test_a_question_is_one_only_where_its_command_is_known() -> None:
    assert command_kind("undo", "loan.settle.v1", "loan.v1") == "settle"
    assert command_kind("undo", "loan.settle.v1", "") == "undo"
    assert command_kind("undo", "loan.settle.v2", "loan.v1") == "undo"
    assert command_kind("do", "loan.settle.v1", "loan.v1") == "do"
    assert command_kind("close", "loan.close.v1", "") == "close"
    assert answer_kind("settle", "loan.settle", "loan-done") is None
