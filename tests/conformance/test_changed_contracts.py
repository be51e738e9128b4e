"""Messages that changed under their names and versions: what cannot be read parks its saga at once and names the field,
and a coordinator that can read it goes on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from antiphon.contracts import Event, SagaKey, subjects
from antiphon.contracts.payloads import Operation, Parked, Record, StatusAnswer, verb_type
from antiphon.contracts.topology import SAGA
from antiphon.coordinator import Saga
from antiphon.coordinator.decision.facts import Finish
from antiphon.coordinator.runtime.coordinator import LATE_SECONDS, Coordinator
from antiphon.coordinator.runtime.fact_handler import DELIVERIES_MAX
from tests.conformance.fleet import SWEEPER, TIMERS, Fleet
from tests.support.parcels import before, moved, optional, renamed, strict
from tests.support.raw_worker import _envelope

KEY = SagaKey.of("parcel", "p1")
DAY = 86_400.0
READABLE = "; a coordinator whose contracts fit it goes on with the saga"


class Depot(Fleet):
    """A coordinator that may be replaced by one with other messages, and a depot that a test plays."""

    def __init__(self, saga: Saga[Any] = before.PARCEL) -> None:
        super().__init__(saga=saga, play=lambda command: None)

    def begin(self, start: Event | None = None) -> None:
        self.tell(subjects.start_subject(KEY), "client", start or before.ParcelAsked(item="vase"))
        self.run()

    def tell(self, subject: str, source: str, event: Event, command: str = "") -> None:
        self.put(subject, _envelope(subject, source, event.__contract__.type, event, command))

    def packed(self, event: Event) -> None:
        subject = subjects.event_subject(KEY.path, "depot", "depot-packed", "pack", 1)
        self.tell(subject, "depot", event, str(self.entries(KEY)[0].sequence))
        self.run()

    def addressed(self) -> None:
        self.tell(subjects.signal_subject(KEY, "parcel-addressed"), "client", before.Addressed(town="Brno"))
        self.run()

    def shipped(self) -> None:
        subject = subjects.event_subject(KEY.path, "depot", "depot-shipped", "ship", 1)
        command = str(next(each.sequence for each in self.entries(KEY) if getattr(each.what, "step", "") == "ship"))
        self.tell(subject, "depot", before.Shipped(label="l-1"), command)
        self.run()

    def ask(self, verb: Any, **what: Any) -> None:
        subject = subjects.verb_subject(KEY, "ada", verb, f"k{len(self.entries(KEY))}")
        self.put(subject, _envelope(subject, "operator", verb_type(verb), Operation(**what)))
        self.run()

    def only(self, saga: Saga[Any]) -> Coordinator:
        """Have a coordinator with these messages take the place of the one there is."""
        for old in self.coordinators:
            self.hear_no_more(old.on_fact)
            self.platform.leave(TIMERS, old.on_fired)
            self.platform.leave(SWEEPER, old.on_start_to_watch)
        new = Coordinator(self.stores[0], [saga.definition])
        self.coordinators = [new]
        self.join(new)
        return new

    def index(self) -> list[tuple[str, str]]:
        """What waits for a person: kind and reason."""
        found = [msgspec.json.decode(data, type=Parked) for data in self.parked()]
        return [(each.kind, each.reason.removesuffix(READABLE)) for each in found]

    def faults(self) -> list[str]:
        whats = [each.what for each in self.entries(KEY)]
        return [what.fault.removesuffix(READABLE) for what in whats if isinstance(what, Record) and what.unread]

    def status(self, coordinator: Coordinator | None = None, seconds: float = 0.5) -> StatusAnswer | None:
        answers: list[StatusAnswer] = []
        (coordinator or self.coordinators[0]).status(KEY, answers.append)
        self.run(seconds)
        return answers[0] if answers else None


def sent(depot: Depot) -> list[str]:
    return [step for step, _, _ in depot.sends(KEY)]


LACKS_CURRENCY = "its start cannot be read: ParcelAsked: Object missing required field `currency`"
LACKS_PARCEL = "depot-packed of depot cannot be read: Packed: Object missing required field `parcel`"


def test_the_first_entry_and_no_other_names_the_digest_of_the_schemas() -> None:
    depot = Depot()
    depot.begin()
    depot.packed(before.Packed(parcel="p"))
    depot.addressed()
    stored = depot.platform.read(SAGA, [subjects.journal_filter(KEY)])
    digests = [msgspec.json.decode(message.data).get("schemas") for message in stored]
    assert digests[0] == before.PARCEL.definition.schemas
    assert set(digests[1:]) == {None}


def test_a_start_that_lacks_a_field_parks_its_saga_at_once_and_status_says_which() -> None:
    depot = Depot(renamed.PARCEL)
    depot.begin()
    assert depot.index() == [("saga", LACKS_CURRENCY)]
    assert depot.pending_facts() == 0
    answer = depot.status(seconds=LATE_SECONDS + 0.5)
    assert answer is not None
    assert answer.status is not None
    assert answer.status.state == "running"
    assert answer.status.unread.startswith(LACKS_CURRENCY)
    assert answer.status.parked == answer.status.unread


def test_it_begins_by_itself_once_a_coordinator_can_read_it() -> None:
    depot = Depot(renamed.PARCEL)
    depot.begin()
    depot.only(before.PARCEL)
    depot.run(120)
    assert sent(depot) == ["pack"]
    answer = depot.status()
    assert answer is not None
    assert answer.status is not None
    assert (answer.status.parked, answer.status.unread) == ("", "")


def test_it_ends_if_it_is_cancelled_since_nothing_of_it_was_done() -> None:
    depot = Depot(renamed.PARCEL)
    depot.begin()
    depot.ask("retry", reason="again")
    assert [what.rejected.removesuffix(READABLE) for what in records(depot) if what.by] == [LACKS_CURRENCY]
    depot.ask("cancel", reason="the shop has closed")
    (end,) = [each.what.end for each in depot.entries(KEY) if isinstance(each.what, Finish)]
    assert (end.outcome, end.reason) == ("compensated", "cancelled by ada: the shop has closed")


def records(depot: Depot) -> list[Record]:
    return [each.what for each in depot.entries(KEY) if isinstance(each.what, Record)]


def test_an_answer_that_lacks_a_field_parks_its_saga_at_once() -> None:
    depot = Depot()
    depot.begin()
    depot.packed(renamed.Packed(box="b"))
    assert [reason for _, reason in depot.index()] == [LACKS_PARCEL]
    depot.addressed()
    assert sent(depot) == ["pack"]
    assert len(depot.faults()) == 1
    depot.only(renamed.PARCEL)
    depot.run(120)  # its start lacks a currency there
    assert sent(depot) == ["pack"]


@pytest.mark.parametrize("event", [before.Shipped(label="x"), b'{"no":"envelope"}', b"\xff"])
def test_an_answer_of_another_type_or_without_an_envelope_parks_its_saga_too(event: Event | bytes) -> None:
    depot = Depot()
    depot.begin()
    subject = subjects.event_subject(KEY.path, "depot", "depot-packed", "pack", 1)
    if isinstance(event, bytes):
        depot.put(subject, event)
        depot.run()
    else:
        depot.tell(subject, "depot", event, str(depot.entries(KEY)[0].sequence))
        depot.run()
    (parked,) = depot.index()
    assert parked[0] == "saga"
    assert parked[1].startswith("depot-packed of depot cannot be read: ")


def test_a_signal_that_cannot_be_read_parks_its_saga() -> None:
    depot = Depot()
    depot.begin()
    subject = subjects.signal_subject(KEY, "parcel-addressed")
    depot.put(subject, _envelope(subject, "client", "parcel.addressed.v1", before.Packed(parcel="p")))
    depot.run()
    (parked,) = depot.index()
    assert parked[1].startswith(
        "the signal parcel-addressed cannot be read: Addressed: Object missing required field `town`"
    )


def test_a_journal_that_names_what_cannot_be_read_any_more_is_parked_and_goes_on_with_whoever_can() -> None:
    """The old coordinators took the answer in; the new ones cannot fold it."""
    depot = Depot()
    depot.begin(optional.ParcelAsked(item="vase"))
    depot.packed(before.Packed(parcel="p"))
    depot.only(renamed.PARCEL)
    depot.addressed()
    assert {reason for _, reason in depot.index()} == {LACKS_CURRENCY}
    assert sent(depot) == ["pack"]
    depot.only(optional.PARCEL)
    depot.run(120)
    assert sent(depot) == ["pack", "ship"]
    depot.shipped()
    assert depot.platform.last(SAGA, subjects.end_subject(KEY))
    assert len(depot.faults()) == 1


def test_a_journal_that_names_what_somebody_said_whom_nobody_here_knows_does_not_stand_still_in_silence() -> None:
    depot = Depot()
    depot.begin()
    depot.packed(before.Packed(parcel="p"))
    depot.only(moved.PARCEL)
    depot.addressed()
    depot.run(DELIVERIES_MAX + 5)
    (parked,) = depot.index()
    assert parked[0] == "saga"
    assert "which the journal names, cannot be read: only attic may answer step 'pack'" in parked[1]
    depot.only(before.PARCEL)
    depot.run(60)
    assert sent(depot) == ["pack", "ship"]


def test_a_saga_that_was_parked_so_and_whose_deadline_passes_stays_parked_and_is_compensated_by_whoever_can() -> None:
    depot = Depot()
    depot.begin()
    depot.only(renamed.PARCEL)
    depot.packed(before.Packed(parcel="p"))
    depot.run(2 * 3600)
    answer = depot.status(seconds=2)
    assert answer is not None
    assert answer.status is not None
    assert (answer.status.state, sent(depot)) == ("compensating", ["pack"])
    assert answer.status.parked.startswith(LACKS_CURRENCY)
    depot.only(before.PARCEL)
    depot.run(DAY)
    assert depot.sends(KEY) == [("pack", "do", 1), ("pack", "undo", 1)]


def test_a_saga_whose_start_cannot_be_read_ends_at_its_deadline() -> None:
    depot = Depot(renamed.PARCEL)
    depot.begin()
    depot.run(2 * 3600)
    assert depot.platform.last(SAGA, subjects.end_subject(KEY))
    assert sent(depot) == []


def test_a_late_answer_that_cannot_be_read_is_set_aside_and_parks_nobody() -> None:
    depot = Depot()
    depot.begin()
    depot.tell(subjects.cancel_subject(KEY), "client", before.Addressed(town="x"))
    depot.ask("cancel", reason="enough")
    depot.packed(renamed.Packed(box="b"))
    assert ("undecodable", LACKS_PARCEL) in depot.index()
    assert depot.faults() == []
    depot.run(300)
    assert len([kind for kind, _ in depot.index() if kind == "undecodable"]) == 2


def test_an_edit_and_a_resolve_that_do_not_fit_any_more_park_the_saga() -> None:
    depot = Depot()
    depot.begin()
    depot.ask("cancel", reason="enough")
    subject = subjects.event_subject(KEY.path, "depot", "depot-unpack-exhausted", "pack", 1)
    sequence = next(each.sequence for each in depot.entries(KEY) if getattr(each.what, "direction", "") == "undo")
    depot.put(subject, _envelope(subject, "depot", "depot.unpack.exhausted.v1", Reason(reason="stuck"), str(sequence)))
    depot.run(0.1)
    depot.ask("edit", step="pack", payload=msgspec.Raw(b'{"reason":"by hand"}'))
    assert [what.rejected for what in records(depot) if what.by == "ada"][-1] == ""
    depot.only(strict.PARCEL)
    depot.run(7200)
    assert depot.faults()[-1].startswith("the payload of ada's edit of pack cannot be read: Unpack: Object missing")


def test_an_entry_that_no_coordinator_here_can_read_is_said_with_its_field() -> None:
    depot = Depot()
    depot.begin()
    subject = subjects.record_subject(KEY, "n2")
    payload = Reason(reason="")
    depot.platform.store(SAGA, subject, _envelope(subject, "coordinator", "saga.recorded.v1", payload))
    bad = depot.platform.streams[SAGA][-1]
    wrong = bad.data.replace(b'{"reason":""}', b'{"fault":7}')
    depot.platform.streams[SAGA][-1] = msgspec.structs.replace(bad, data=wrong)
    depot.addressed()
    depot.run(DELIVERIES_MAX + 5)
    (parked,) = depot.index()
    assert parked[0] == "undecodable"
    assert parked[1].startswith(
        "an entry of its journal cannot be read: Record: Expected `str`, got `int` - at `$.fault`"
    )
    assert depot.pending_facts() == 0


class Reason(msgspec.Struct):
    reason: str


# --- how it stands, asked of coordinators that differ -----------------------------------------------------------------


def test_whoever_cannot_tell_leaves_the_word_to_whoever_can() -> None:
    depot = Depot()
    depot.begin()
    stranger = Coordinator(depot.stores[0], [renamed.PARCEL.definition])
    for unable in (stranger, Coordinator(depot.stores[0], [])):
        assert depot.status(unable) is None
        assert depot.status(unable, LATE_SECONDS + 0.1) is not None
    answer = depot.status()
    assert answer is not None
    assert answer.status is not None
    assert answer.status.parked == ""


def test_coordinators_of_one_kind_share_status_requests_and_those_that_differ_get_each() -> None:
    def queue(*sagas: Saga[Any]) -> str:
        fleet = Fleet()
        return Coordinator(fleet.stores[0], [saga.definition for saga in sagas]).status_queues["parcel"]

    assert queue(before.PARCEL) == queue(before.PARCEL)
    assert len({queue(before.PARCEL), queue(optional.PARCEL), queue(renamed.PARCEL)}) == 3
