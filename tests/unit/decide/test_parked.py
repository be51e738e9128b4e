"""What is listed of PARKED is what subjects say, whatever bodies claim."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.errors import Unusable
from antiphon.contracts.payloads import WITHDRAWN, More, Parked
from antiphon.contracts.stored import StoredMessage
from antiphon.coordinator.views import parked as view
from antiphon.coordinator.views.parked import Index, unread_parked
from antiphon.deploy.render.tables import print_waiting
from antiphon.link import overflow
from antiphon.link.overflow import Overflow

KEY = SagaKey.of("trip", "t1")
ACCUSED = subjects.event_subject(KEY.path, "hotel", "room-booked", "book_room", 1)


def parked(**given: Any) -> Parked:
    fields: dict[str, Any] = {
        "kind": "forged",
        "reason": "its envelope lies",
        "noticed_by": "coordinator",
        "stream": "EVENTS",
        "sequence": 7,
        "subject": ACCUSED,
        "data": b"",
    }
    return Parked(**(fields | given))


def index_of(*messages: tuple[str, bytes]) -> Index:
    index = Index()
    for sequence, (subject, data) in enumerate(messages, 1):
        index.take(StoredMessage(subject, sequence, 0, data))
    return index


def at_its_place(message: Parked) -> tuple[str, bytes]:
    return message.destination, message.encode()


def reasons(index: Index) -> list[tuple[str, str]]:
    return [(message.noticed_by, message.reason) for _, message in index.messages]


@pytest.mark.parametrize(
    "place", ["parked.forged.hotel.hotel", "parked.forged.hotel", "parked.withdrawn.hotel.EVENTS-7"]
)
def test_who_claims_to_be_the_coordinator_takes_nothing_back(place: str) -> None:
    index = index_of(at_its_place(parked()), (place, parked(reason=WITHDRAWN).encode()))
    assert reasons(index) == [("coordinator", "its envelope lies")]


def test_who_claims_to_be_the_coordinator_is_not_listed_in_its_place() -> None:
    claim = "parked.forged.hotel.hotel", parked(reason="all is well").encode()
    assert reasons(index_of(claim, at_its_place(parked()))) == [
        ("hotel", "all is well"),
        ("coordinator", "its envelope lies"),
    ]


def test_no_body_makes_a_message_an_index_entry_or_of_another_kind() -> None:
    index = index_of(("parked.fault.hotel.client", parked(kind="orphan", saga=KEY).encode()))
    assert (index.sagas, [(message.kind, message.saga) for _, message in index.messages]) == ({}, [("fault", None)])


def test_the_saga_of_an_index_entry_is_that_of_its_subject() -> None:
    other = SagaKey.of("trip", "other")
    assert set(index_of((subjects.parked_saga_subject(KEY), parked(kind="saga", saga=other).encode())).sagas) == {KEY}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("takes_back_as_before", [False, True])
def test_a_participant_takes_back_what_it_parked_whatever_release_did_which(
    old: bool, takes_back_as_before: bool
) -> None:
    fault = parked(kind="fault", noticed_by="hotel", reason="stuck")
    place = "parked.fault.hotel" if old else fault.destination
    back = msgspec.structs.replace(fault, reason=WITHDRAWN)
    back_at = "parked.fault.hotel" if takes_back_as_before else back.destination
    assert reasons(index_of((place, fault.encode()))) == [("hotel", "stuck")]
    assert reasons(index_of((place, fault.encode()), (back_at, back.encode()))) == []


def test_a_message_of_an_earlier_release_is_listed_without_its_source() -> None:
    index = index_of(("parked.forged.coordinator", parked().encode()))
    ((_, message),) = index.messages
    assert (message.noticed_by, message.source, message.reason) == ("coordinator", "", "its envelope lies")


def test_what_there_was_no_room_for_is_counted() -> None:
    place = subjects.more_subject(parked().destination)
    index = index_of(at_its_place(parked()), (place, More(count=3).encode()), (place, More(count=1200).encode()))
    (more,) = index.more
    assert (more.more, more.kind, more.noticed_by, more.source) == (1203, "forged", "coordinator", "hotel")
    assert "1,203 more from hotel" in more.reason


def test_the_table_says_how_many_there_are_beside_those_that_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    print_waiting(index_of((subjects.more_subject(parked().destination), More(count=1203).encode())).more)
    table = " ".join(capsys.readouterr().out.split())  # a narrow terminal breaks its lines
    assert "1,203 messages (forged)" in table
    assert "and at least 1,203 more from hotel; the first ones are kept" in table


def test_a_participant_that_makes_up_sources_fills_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "NOTICED_MAX", 5)
    made_up = [
        (f"parked.fault.hotel.s{number}", parked(sequence=number, noticed_by="hotel").encode()) for number in range(20)
    ]
    index = index_of(*made_up, at_its_place(parked(sequence=99)))
    assert [message.noticed_by for _, message in index.messages] == ["hotel"] * 5 + ["coordinator"]
    assert [(each.more, each.noticed_by, each.source) for each in index.more] == [(15, "hotel", "")]


@pytest.mark.parametrize("count", [0, -1, 2**60, "many"])
def test_a_count_that_is_none_is_listed_as_unreadable(count: object) -> None:
    index = index_of(("parked.fault-more.hotel.client", msgspec.json.encode({"count": count})))
    assert index.more == []
    assert [found.is_unreadable for _, found in index.unreadable] == [True]


UNREADABLE = [
    b"",
    b"x",
    b"\xff\xfe",
    b'{"kind": "\xff"}',
    b"null",
    b"{}",
    b"[" * 100_000,
    b"x" * 700_000,
    parked(sequence=-1).encode(),
    parked(sequence=2**64).encode(),
    parked().encode().replace(b'"data":""', b'"data":"no base64"'),
]


@pytest.mark.parametrize("data", UNREADABLE, ids=lambda data: ascii(data[:20]))
@pytest.mark.parametrize(
    ("place", "kind", "noticed_by"),
    [
        ("parked.forged.hotel.client", "forged", "hotel"),
        ("parked.undecodable.coordinator", "undecodable", "coordinator"),
        ("parked.withdrawn.hotel.EVENTS-7", "fault", "hotel"),
        ("parked.fault-more.hotel.client", "fault", "hotel"),
        ("parked.saga.1.trip.t1", "forged", "unknown"),
        ("parked.nonsense", "forged", "unknown"),
    ],
)
def test_what_cannot_be_read_is_listed_as_such_beside_all_others(
    place: str, kind: str, noticed_by: str, data: bytes
) -> None:
    index = index_of(at_its_place(parked()), (place, data), at_its_place(parked(sequence=8)))
    assert len(index.messages) == 2
    ((stored, found),) = index.unreadable
    assert (stored.sequence, found.sequence, found.subject) == (2, 2, place)
    assert (found.kind, found.noticed_by, found.size_bytes) == (kind, noticed_by, len(data))
    assert found.reason.startswith("what PARKED holds there cannot be read: ")
    assert [each.sequence for each, _ in index.entries] == [1, 2, 3]
    shown = unread_parked(StoredMessage(place, 2, 0, data), Unusable("no JSON"))
    assert (shown.data, shown.subject, shown.noticed_by) == (data, place, noticed_by)


def test_the_saga_of_an_index_entry_is_listed_whatever_its_body_is() -> None:
    assert set(index_of((subjects.parked_saga_subject(KEY), b"\xff")).sagas) == {KEY}


def test_the_table_shows_where_what_cannot_be_read_stands_and_how_large_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_waiting([found for _, found in index_of(("parked.fault.hotel.client", b"\xff" * 1234)).unreadable])
    table = "".join(capsys.readouterr().out.split())  # a narrow terminal breaks its lines anywhere
    assert "message1(unreadable)" in table
    assert "(parked.fault.hotel.client,1,234bytes,noticedbyhotel)" in table


def test_what_cannot_be_read_and_is_written_without_end_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "NOTICED_MAX", 5)
    index = index_of(*[("parked.fault.hotel.client", b"x")] * 8, ("parked.fault.bank.client", b"x"))
    assert [found.noticed_by for _, found in index.unreadable] == ["hotel"] * 5 + ["bank"]
    assert [(each.more, each.noticed_by) for each in index.more] == [(3, "hotel")]


def test_the_index_keeps_no_bytes() -> None:
    index = index_of(at_its_place(parked(data=b"x" * 1000)), ("parked.fault.hotel.client", b"x" * 1000))
    assert all(stored.data == b"" for stored, _ in index.entries)
    assert [message.data for _, message in index.messages] == [b""]


def test_a_flood_is_told_in_few_messages() -> None:
    overflow = Overflow()
    told = [said for _ in range(60_000) if (said := overflow.add("parked.forged.coordinator.hotel"))]
    assert {subject for subject, _ in told} == {"parked.forged-more.coordinator.hotel"}
    counts = [msgspec.json.decode(data, type=More).count for _, data in told]
    assert (len(counts) < 20, counts[0], sum(counts)) == (True, 1, 32_768)


def test_subjects_without_end_are_not_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "SUBJECTS_MAX", 3)
    counting = Overflow()
    said = [counting.add(f"parked.fault.hotel.s{number}") is not None for number in range(5)]
    assert said == [True, True, True, False, False]
