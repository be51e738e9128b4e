"""A test in memory fails where production would, with the same sentence."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from antiphon.contracts import AlreadySignalled, AlreadyStarted, DefinitionError, Event, WrongShape
from antiphon.coordinator.client.store_once import message as stored_message
from antiphon.coordinator.testing import given, rehearse
from antiphon.participants.testing import Service
from tests.support.cargo import Cargo, Part, Special, message

SENTENCE = r"nan is no number that JSON has; send None, or the word as a text - at `\$.field.weight`"
BAD, GOOD = Part(weight=math.nan), Part(weight=1.0)


@pytest.fixture
def cargo() -> Cargo:
    return Cargo(Part, GOOD)


def test_a_client_a_rehearsal_and_a_scenario_refuse_a_start_alike(cargo: Cargo) -> None:
    with pytest.raises(WrongShape, match=f"Begun: {SENTENCE}"):
        stored_message("evt", "client", "type", cargo.start(field=BAD))
    with pytest.raises(WrongShape, match=f"Begun: {SENTENCE}"):
        given(cargo.saga, cargo.start(field=BAD))


async def test_a_rehearsal_refuses_what_a_client_would(cargo: Cargo) -> None:
    async with rehearse([cargo.saga, cargo.child], []) as rehearsal:
        with pytest.raises(WrongShape, match=f"Begun: {SENTENCE}"):
            await rehearsal.start(cargo.saga, cargo.start(field=BAD))
        saga = await rehearsal.start(cargo.saga, cargo.start(field=GOOD))
        with pytest.raises(WrongShape, match=f"Cleared: {SENTENCE}"):
            await saga.signal(cargo.cleared, cargo.signal(field=BAD))
        with pytest.raises(AlreadyStarted, match="with another payload"):
            await rehearsal.start(cargo.saga, cargo.start(field=Part(weight=2)))
        assert (await rehearsal.start(cargo.saga, cargo.start(field=Part(weight=1)))).key == saga.key
        await saga.signal(cargo.cleared, cargo.signal(field=GOOD))
        with pytest.raises(AlreadySignalled, match="with another payload"):
            await saga.signal(cargo.cleared, cargo.signal(field=Part(weight=2)))


async def test_a_rehearsal_and_a_scenario_refuse_another_start(cargo: Cargo) -> None:
    other = message(Event, "other", Part)
    with pytest.raises(DefinitionError, match=r"saga 'cargo' starts with Begun, not with Other\. Send one"):
        given(cargo.saga, other(field=GOOD))
    async with rehearse([cargo.saga, cargo.child], []) as rehearsal:
        with pytest.raises(DefinitionError, match=r"saga 'cargo' starts with Begun, not with Other\. Send one"):
            await rehearsal.start(cargo.saga, other(field=GOOD))


def test_a_scenario_refuses_replies_signals_and_edits_that_would_not_arrive(cargo: Cargo) -> None:
    begun = given(cargo.saga, cargo.start(field=GOOD))
    with pytest.raises(WrongShape, match=f"Moved: {SENTENCE}"):
        begun.when(cargo.first, cargo.reply(field=BAD))
    with pytest.raises(WrongShape, match=f"Cleared: {SENTENCE}"):
        begun.when_signalled(cargo.cleared, cargo.signal(field=BAD))
    with pytest.raises(WrongShape, match=f"Move: {SENTENCE}"):
        begun.when_edited("alice", cargo.first, cargo.command(field=BAD))


def test_a_command_that_would_not_arrive_parks_its_saga_with_the_field(cargo: Cargo) -> None:
    cargo.value = BAD
    given(cargo.saga, cargo.start(field=GOOD)).is_parked("first raised WrongShape").is_parked("`$.field.weight`")


def test_an_element_a_childs_start_and_a_compensation_that_would_not_arrive_park_it_too(cargo: Cargo) -> None:
    moved = cargo.reply(field=GOOD)
    begun = given(cargo.saga, cargo.start(field=GOOD)).when(cargo.first, moved)
    listed = begun.when_signalled(cargo.cleared, cargo.signal(field=GOOD)).when(cargo.list, moved, element=0)
    cargo.value = BAD
    begun.when_signalled(cargo.cleared, cargo.signal(field=GOOD)).is_parked("each").is_parked("`$.field.weight`")
    listed.when(cargo.list, moved, element=1).is_parked("begin raised WrongShape").is_parked("`$.field.weight`")
    begun.when_cancelled("enough").is_parked("first raised WrongShape").is_parked("`$.field.weight`")


async def test_a_service_refuses_commands_replies_and_compensations_that_would_not_arrive(cargo: Cargo) -> None:
    async with Service.open(cargo.mover) as service:
        with pytest.raises(WrongShape, match=f"Move: {SENTENCE}"):
            await service.do(cargo.command(field=BAD))
        with pytest.raises(WrongShape, match=f"Unmove: {SENTENCE}"):
            await service.undo(cargo.undo(field=BAD))
        cargo.value = BAD
        with pytest.raises(WrongShape, match=f"Moved: {SENTENCE}"):
            await service.do(cargo.command(field=GOOD))
        cargo.value = Special()
        with pytest.raises(WrongShape, match=r"Moved: .*would arrive as a Part - at"):
            await service.do(cargo.command(field=GOOD))


async def test_a_step_function_sees_the_offset_and_not_the_object_it_was_given() -> None:
    noon = datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2), "summer"))
    cargo = Cargo(datetime, noon)
    given(cargo.saga, cargo.start(field=noon))
    assert cargo.seen["start"] == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert cargo.seen["start"].tzname() == "UTC+02:00"


def test_what_an_element_of_a_union_refuses_names_its_class() -> None:
    either: Any = message(Event, "either", Part | None)
    with pytest.raises(WrongShape, match=f"Either: {SENTENCE}"):
        stored_message("evt", "client", "type", either(field=BAD))
