"""Every type that travels, in every way there is; every one that does not, where it is defined. In memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from antiphon.contracts import DefinitionError, Event
from antiphon.contracts.compat.schema import schema_of
from antiphon.contracts.values import is_same
from antiphon.coordinator.testing import given, rehearse
from antiphon.participants.testing import Service
from tests.support.cargo import HALTED, TRAVELS, WAYS, Cargo, message


@pytest.fixture(params=TRAVELS)
def cargo(request: pytest.FixtureRequest) -> Cargo:
    return Cargo(*TRAVELS[request.param])


async def test_a_value_arrives_as_it_was_sent_in_every_way_of_a_rehearsal(cargo: Cargo) -> None:
    async with Service.open(cargo.mover) as service, rehearse([cargo.saga, cargo.child], [service]) as rehearsal:
        saga = await rehearsal.start(cargo.saga, cargo.start(field=cargo.value))
        await saga.signal(cargo.cleared, cargo.signal(field=cargo.value))
        assert (saga.outcome(), rehearsal.parked) == ("completed", []), saga.story()
        again = await rehearsal.start(cargo.saga, cargo.start(field=cargo.value))
        assert again.key == saga.key
        other = await rehearsal.start(cargo.saga, cargo.start(field=cargo.value), id="2")
        await rehearsal.stop("mover")
        await other.signal(cargo.cleared, cargo.signal(field=cargo.value))
        await other.cancel("enough")
        await rehearsal.restart("mover")
        await rehearsal.run()
        assert (other.outcome(), rehearsal.parked) == ("compensated", []), other.story()
    require_all(cargo, WAYS)


async def test_a_service_hands_over_what_the_wire_would(cargo: Cargo) -> None:
    async with Service.open(cargo.mover) as service:
        reply = await service.do(cargo.command(field=cargo.value))
        cargo.see("reply", reply)
        assert await service.undo(cargo.undo(field=cargo.value))
    require_all(cargo, {"command", "reply", "compensation", "stored reply"})


def test_a_scenario_hands_over_what_the_wire_would(cargo: Cargo) -> None:
    moved = cargo.reply(field=cargo.value)
    done = (
        given(cargo.saga, cargo.start(field=cargo.value))
        .when(cargo.first, moved)
        .when_signalled(cargo.cleared, cargo.signal(field=cargo.value))
        .when(cargo.list, moved, element=0)
        .when(cargo.list, moved, element=1)
    )
    done.is_not_parked()
    done.when_cancelled("enough").when_child_compensated(cargo.begin, "cancelled").when_all_undone().is_compensated()
    require_all(cargo, {"start", "signal", "reply"})


def test_what_travels_can_be_exported(cargo: Cargo) -> None:
    assert schema_of(cargo.start)["$id"] == "cargo.begun.v1"


@pytest.mark.parametrize("name", HALTED)
def test_what_does_not_travel_is_refused_where_it_is_defined(name: str) -> None:
    type_, sentence = HALTED[name]
    with pytest.raises(DefinitionError, match=rf"(?s)Halted\.{sentence}.*contracts/README.md lists what travels"):
        message(Event, "halted", type_)


def require_all(cargo: Cargo, ways: set[str]) -> None:
    assert cargo.seen.keys() >= ways
    for way, seen in cargo.seen.items():
        assert is_same(seen, cargo.value), way
        assert is_another(seen, cargo.value), f"{way} was handed over as it was"


def is_another(seen: Any, value: Any) -> bool:
    """Whether it is not the very object; of what does not change there may be one."""
    return seen is not value or copy.deepcopy(value) is value
