"""The gate: what becomes a fact, and what is forged or undecodable."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from antiphon.contracts import Forged, TooLarge, UnknownType, WrongShape
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, Envelope, encode, pack
from antiphon.contracts.messages import Refusal, Undone
from antiphon.contracts.payloads import CANCEL_TYPE, CancelRequest, start_digest
from antiphon.contracts.subjects import cancel_subject, event_subject, parse_fact, start_subject
from antiphon.coordinator.decision.accept import accept
from antiphon.coordinator.decision.facts import Answer, Cancel, Fact, Start, Unread
from tests.support.trip import ASKED, REPLIES, TRIP
from tests.unit.decide.life import KEY

BOOKED = event_subject(KEY.path, "hotel", "hotel-booked", "book_room", 1)


def take(subject: str = BOOKED, **changes: Any) -> Fact:
    """Accept an envelope, by default the reply to book_room."""
    attributes: dict[str, Any] = {
        "id": subject,
        "source": parse_fact(subject).source,
        "type": "hotel.booked.v1",
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "data": pack(REPLIES["book_room"]),
        "command": "12",
    }
    data = encode(Envelope(**{**attributes, **changes}))
    return accept(TRIP.definition, parse_fact(subject), data, subject, 5, 1_000)


def test_a_reply_becomes_a_fact_with_what_it_answers() -> None:
    assert take() == Answer(5, 1_000, "book_room", "do", 1, "done", 12, REPLIES["book_room"])


def test_a_start_and_a_cancel() -> None:
    start = take(start_subject(KEY), type="trip.asked.v1", data=pack(ASKED))
    assert start == Start(5, 1_000, ASKED, digest=start_digest("trip.asked.v1", pack(ASKED)))
    cancel = take(cancel_subject(KEY), type=CANCEL_TYPE, data=pack(CancelRequest(reason="no")))
    assert cancel == Cancel(5, 1_000, "no")


@pytest.mark.parametrize("kind", ["refused", "exhausted", "superseded"])
@pytest.mark.parametrize(("direction", "command"), [("do", "book"), ("undo", "free")])
def test_the_answers_every_command_may_get(kind: str, direction: str, command: str) -> None:
    subject = event_subject(KEY.path, "hotel", f"hotel-{command}-{kind}", "book_room", 2)
    fact = take(subject, type=f"hotel.{command}.{kind}.v1", data=pack(Refusal(reason="full")))
    assert fact == Answer(5, 1_000, "book_room", direction, 2, kind, 12, None, "full")  # type: ignore[arg-type] # pyright: ignore


def test_an_answered_compensation() -> None:
    subject = event_subject(KEY.path, "hotel", "hotel-free-done", "book_room", 1)
    assert take(subject, type="hotel.free.done.v1", data=pack(Undone(found=False))) == Answer(
        5, 1_000, "book_room", "undo", 1, "done", 12, found=False
    )


def test_an_envelope_that_contradicts_its_subject_is_forged() -> None:
    with pytest.raises(Forged, match="the envelope says"):
        take(id=event_subject(KEY.path, "hotel", "hotel-booked", "book_room", 2))


def test_an_envelope_from_another_source_is_forged() -> None:
    with pytest.raises(Forged, match="the envelope's source is 'airline'"):
        take(source="airline")


def test_nobody_answers_for_another() -> None:
    with pytest.raises(Forged, match="only hotel may answer step 'book_room'"):
        take(event_subject(KEY.path, "airline", "hotel-booked", "book_room", 1))


@pytest.mark.parametrize(("event", "step"), [("hotel-booked", "book_seat"), ("hotel-burnt", "book_room"), ("x", "y")])
def test_an_answer_that_no_step_awaits_is_unknown(event: str, step: str) -> None:
    with pytest.raises(UnknownType, match=f"step '{step}' awaits no '{event}'"):
        take(event_subject(KEY.path, "hotel", event, step, 1))


def unread(fact: Fact) -> tuple[str, str, int, str]:
    assert isinstance(fact, Unread)
    return fact.of, fact.step, fact.command, fact.reason.partition(": ")[2]


def test_a_reply_of_another_version_cannot_be_read() -> None:
    said = "type 'hotel.booked.v2', where 'hotel.booked.v1' belongs"
    of, step, command, reason = unread(take(type="hotel.booked.v2"))
    assert (of, step, command) == ("answer", "book_room", 12)
    assert reason.startswith(said)


@pytest.mark.parametrize("payload", [{}, {"room": 12}, {"room": None}, []])
def test_a_reply_of_another_shape_cannot_be_read_and_names_the_field(payload: Any) -> None:
    of, step, command, reason = unread(take(data=msgspec.Raw(msgspec.json.encode(payload))))
    assert (of, step, command) == ("answer", "book_room", 12)
    assert reason.startswith("RoomBooked: ")
    assert "room" in reason or payload == []


def test_what_no_saga_waits_for_is_undecodable_as_before() -> None:
    with pytest.raises(WrongShape):
        take(cancel_subject(KEY), type=CANCEL_TYPE, data=msgspec.Raw(b"{}"))
    with pytest.raises(Forged, match="names the sequence of its command"):
        take(command="x")


@pytest.mark.parametrize("command", ["", "x", "-1", "1" * 21, "²"])
def test_an_answer_names_the_sequence_of_its_command(command: str) -> None:
    with pytest.raises(Forged, match="names the sequence of its command"):
        take(command=command)


def test_a_message_that_is_too_large_is_not_even_read() -> None:
    large = b" " * (MESSAGE_BYTES_MAX + 1)
    of, step, command, reason = unread(accept(TRIP.definition, parse_fact(BOOKED), large, BOOKED, 5, 1_000))
    assert (of, step, command) == ("answer", "book_room", 0)
    assert reason.startswith(f"{MESSAGE_BYTES_MAX + 1} bytes")
    other = cancel_subject(KEY)
    with pytest.raises(TooLarge):
        accept(TRIP.definition, parse_fact(other), large, other, 5, 1_000)
