"""Handlers without a broker: what a test of a participant's author sees, under the inbox's rules."""

from __future__ import annotations

from typing import cast

import pytest

from antiphon.contracts import Command, Event, Refused
from antiphon.order.data import load_catalogue
from antiphon.order.inventory import inventory, stock
from antiphon.order.messages import ReserveInventory
from antiphon.participants import Participant, Transaction
from antiphon.participants.answering import ANSWER_BYTES_MAX
from antiphon.participants.memory import MemoryTransaction
from antiphon.participants.testing import Service, Superseded
from antiphon.participants.under_lock import Unsendable
from tests.support.trip import BookRoom, FreeRoom, RoomBooked
from tests.unit.testing.hotel import hotel

TWO, TOO_MANY, FREE = BookRoom(nights=2), BookRoom(nights=8), FreeRoom(reason="no")


async def test_a_command_is_carried_out_and_answered() -> None:
    async with Service.open(hotel) as service:
        assert await service.do(TWO) == RoomBooked(room="room 2")
        assert service.effects == ["2 nights for 1"]


async def test_a_command_that_comes_again_is_answered_from_the_inbox() -> None:
    async with Service.open(hotel) as service:
        first = await service.do(TWO)
        assert await service.do(TWO) == await service.do(TWO, attempt=2) == first
        assert service.effects == ["2 nights for 1"]


async def test_each_saga_asks_for_itself() -> None:
    async with Service.open(hotel) as service:
        await service.do(TWO, saga="trip/a")
        await service.do(TWO, saga="trip/b")
        assert service.effects == ["2 nights for a", "2 nights for b"]


async def test_an_effect_is_taken_back_once_by_what_was_answered_then() -> None:
    async with Service.open(hotel) as service:
        await service.do(TWO)
        assert await service.undo(FREE)
        assert await service.undo(FREE, attempt=2)
        assert service.effects == ["2 nights for 1", "room 2 freed for 1"]


async def test_undo_before_do_finds_nothing_and_rules_the_command_out() -> None:
    async with Service.open(hotel) as service:
        assert not await service.undo(FREE)
        with pytest.raises(Superseded, match="it was undone or ruled out before"):
            await service.do(TWO)
        assert service.effects == []


async def test_what_became_of_a_command_is_its_answer_or_never() -> None:
    async with Service.open(hotel) as service:
        booked = await service.do(TWO)
        assert await service.settle(BookRoom) == booked
        assert await service.settle(BookRoom, saga="trip/other") is None
        with pytest.raises(Superseded):
            await service.do(TWO, saga="trip/other")
        assert service.effects == ["2 nights for 1"]


class Poem(Event, name="poem.written", owner="poet"):
    text: str


class WritePoem(Command[Poem], name="poem.write"):
    letters: int


poet = Participant("poet")


@poet.handles(WritePoem)
async def write(command: WritePoem, tx: Transaction) -> Poem:
    cast("MemoryTransaction", tx).effects.append(command.letters)
    return Poem(text="x" * command.letters)


async def test_an_answer_that_no_worker_could_send_is_refused_and_leaves_no_effect() -> None:
    async with Service.open(poet) as service:
        assert len((await service.do(WritePoem(letters=200_000))).text) == 200_000
        for letters in (ANSWER_BYTES_MAX, 2_000_000):
            with pytest.raises(Unsendable, match="its answer cannot be sent"):
                await service.do(WritePoem(letters=letters), saga=f"poem/{letters}")
        assert service.effects == [200_000]


async def test_a_refusal_is_an_error_with_its_reason_and_leaves_no_effect() -> None:
    async with Service.open(hotel) as service:
        with pytest.raises(Refused, match="a week is the most"):
            await service.do(TOO_MANY)
        assert await service.refusal(TOO_MANY) == "a week is the most"
        assert not await service.undo(FREE)
        assert service.effects == []


async def test_what_was_to_be_refused_and_was_not_is_a_failure() -> None:
    async with Service.open(hotel) as service:
        with pytest.raises(AssertionError, match=r"hotel was to refuse BookRoom\(nights=2\), and answered RoomBooked"):
            await service.refusal(TWO)


async def test_what_a_handler_raises_reaches_the_test_and_nothing_has_happened() -> None:
    async with Service.open(hotel) as service:
        with pytest.raises(ZeroDivisionError):
            await service.do(BookRoom(nights=0))
        assert service.effects == []
        assert not await service.undo(FREE)


async def test_a_participant_with_tables_has_them_in_sqlite_in_memory() -> None:
    item = load_catalogue()[0]
    async with Service.open(inventory) as service:
        await service.do(ReserveInventory(order_id="o-1", item_id=item.item_id, quantity=1))
        found = await service.execute(stock.select().where(stock.c.item_id == item.item_id))
        assert found == [(item.item_id, item.stock, item.stock - 1)]
        with pytest.raises(LookupError, match="look into this one with `execute`"):
            _ = service.effects
