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
from antiphon.coordinator.views.parked import Index
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
def test_a_count_that_is_none_is_unusable(count: object) -> None:
    with pytest.raises(Unusable):
        index_of(("parked.fault-more.hotel.client", msgspec.json.encode({"count": count})))


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
