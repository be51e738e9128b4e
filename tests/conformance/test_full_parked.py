"""PARKED as a whole has no room: what belongs there is neither lost nor tried all the time, and no saga waits."""

from __future__ import annotations

from typing import Final

import pytest
import structlog

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import PARKED
from antiphon.coordinator.runtime import memory, parking
from antiphon.coordinator.runtime.parking import ROOM_SECONDS_MAX
from tests.conformance.fleet import KEY, Fleet

HOUR: Final = 3600.0
KEPT: Final = 20


def forged(source: str, number: int) -> tuple[str, bytes]:
    """What a participant stores that only another one may say."""
    path = SagaKey.of("trip", f"forged-{number}").path
    owner = "hotel" if source != "hotel" else "bank"
    return subjects.event_subject(path, source, f"{owner}-booked", "book_room", 1), b"{}"


def fill(fleet: Fleet, is_full: bool = True) -> None:
    for store in fleet.stores:
        store.parked_is_full = is_full


def stored(fleet: Fleet, ending: str) -> int:
    return sum(message.subject.endswith(ending) for message in fleet.platform.streams[PARKED])


@pytest.mark.parametrize("coordinators", [1, 2])
def test_what_finds_no_room_is_tried_ever_more_rarely_and_parked_once_there_is_room(coordinators: int) -> None:
    fleet = Fleet(coordinators)
    fill(fleet)
    for number in range(3):
        fleet.put(*forged("bank", number))
    with structlog.testing.capture_logs() as lines:
        fleet.run(6 * HOUR)
    tries = sum(len(store.park_tries) for store in fleet.stores)
    assert 3 * 6 * HOUR / ROOM_SECONDS_MAX <= tries <= 3 * (6 * HOUR / ROOM_SECONDS_MAX + 20)
    assert fleet.pending_facts() == 3
    assert [line for line in lines if line["event"] == "parked.full"], "it is said why"
    fill(fleet, is_full=False)
    fleet.run(ROOM_SECONDS_MAX + 1)
    assert (stored(fleet, ".bank"), fleet.pending_facts()) == (3, 0)


def test_of_one_source_as_many_wait_for_room_as_would_be_kept_and_of_others_no_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (memory, parking):
        monkeypatch.setattr(module, "PARKED_PER_SOURCE_MAX", KEPT)
    fleet = Fleet()
    fill(fleet)
    for number in range(KEPT + 50):
        fleet.put(*forged("bank", number))
    fleet.put(*forged("hotel", 0))
    fleet.run(60)
    assert fleet.pending_facts() == KEPT + 1
    fill(fleet, is_full=False)
    fleet.run(ROOM_SECONDS_MAX + 1)
    assert (stored(fleet, ".bank"), stored(fleet, ".hotel")) == (KEPT, 1)
    assert fleet.pending_facts() == 0


def test_a_saga_that_waits_for_a_person_goes_on_and_is_listed_once_there_is_room() -> None:
    can_be_undone = False

    def play(command: CommandAddress) -> AnswerKind | None:
        if command.direction == "undo":
            return "done" if can_be_undone else "exhausted"
        return "refused" if command.step == "charge_card" else "done"

    fleet = Fleet(play=play)
    fill(fleet)
    fleet.start()
    fleet.run(2 * HOUR)
    assert fleet.history().parked
    assert stored(fleet, KEY.path) == 0
    fill(fleet, is_full=False)
    fleet.run(ROOM_SECONDS_MAX + 1)
    assert stored(fleet, KEY.path) == 1
    fill(fleet)
    can_be_undone = True
    fleet.run(HOUR)
    assert fleet.state() == "compensated"
