"""A participant that cannot work is refused when its module is imported, with the remedy in the sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from antiphon.contracts import Command, Compensation, DefinitionError, Event
from antiphon.participants import Participant, Transaction

from .stock import RESERVED, Release, Reserve, Reserved

if TYPE_CHECKING:
    from .stock import Release as Unseen


class Charged(Event, name="billing.charged", owner="billing"):
    amount: int


class Charge(Command[Charged], name="billing.charge"):
    amount: int


class Refund(Compensation[Charge], name="billing.refund"):
    reason: str


class Counted(Event, name="stock.counted", owner="stock"):
    pieces: int


class Count(Command[Counted], name="stock.count"):
    pass


class Unsettle(Compensation[Count], name="stock.reserve.settle"):
    pass


class Recount(Compensation[Count], name="stock.recount"):
    pass


async def reserve(command: Reserve, tx: Transaction) -> Reserved:
    return Reserved(reservation_id="r-1")


async def release(command: Release, reserved: Reserved, tx: Transaction) -> None:
    pass


def test_handlers_are_found_by_the_type_on_the_wire_and_stay_plain_functions() -> None:
    stock = Participant("stock")
    assert stock.handles(Reserve, concurrency=2)(reserve) is reserve
    assert stock.compensates(Reserve)(release) is release
    handler, compensation = stock.handlers["stock.reserve.v1"], stock.compensations["stock.release.v1"]
    assert (handler.command, handler.reply, handler.concurrency) == (Reserve, Reserved, 2)
    assert (compensation.compensation, compensation.command, compensation.reply) == (Release, Reserve, Reserved)


@pytest.mark.parametrize("name", ["client", "lock", "antiphon", "exporter", "readmodel"])
def test_a_name_of_the_platform_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="call the participant something else"):
        Participant(name)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "x" * 65, "*"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="must be 1 to 64 characters"):
        Participant(name)


def test_what_handlers_may_not_be() -> None:
    def plain(command: Reserve, tx: Transaction) -> Reserved:
        return RESERVED

    async def short(command: Reserve) -> Reserved:
        return RESERVED

    async def other(command: Charge, tx: Transaction) -> Reserved:
        return RESERVED

    refused(lambda stock: stock.handles(Charge), "owned by 'billing', not by 'stock'. Let 'billing' handle it")
    refused(lambda stock: stock.handles(Reserved), "Reserved is no Command")
    refused(lambda stock: stock.handles(Reserve, concurrency=0), "counts from 1")
    refused(lambda stock: stock.handles(Reserve)(plain), "must be an `async def` function")
    refused(lambda stock: stock.handles(Reserve)(short), "must take command, tx; it takes 1 parameter\\.")
    refused(lambda stock: stock.handles(Reserve)(other), "handles Reserve, but its first parameter is Charge")


def test_a_command_has_one_handler() -> None:
    async def another(command: Reserve, tx: Transaction) -> Reserved:
        return RESERVED

    async def another_release(command: Release, reserved: Reserved, tx: Transaction) -> None: ...

    def twice(stock: Any) -> None:
        stock.handles(Reserve)(reserve)
        stock.handles(Reserve)(another)

    def twice_back(stock: Any) -> None:
        stock.compensates(Reserve)(release)
        stock.compensates(Reserve)(another_release)

    refused(twice, r"Reserve is handled by .*test_participant.reserve and by .*another. Keep one of them")
    refused(twice_back, r"Release is handled by .*release and by .*another_release. Keep one of them")


def test_what_compensations_may_not_be() -> None:
    async def other(command: Refund, reserved: Reserved, tx: Transaction) -> None: ...
    async def sibling(command: Recount, reserved: Reserved, tx: Transaction) -> None: ...
    async def named_so(command: Unsettle, counted: Counted, tx: Transaction) -> None: ...
    async def wrong_answer(command: Release, reserved: Counted, tx: Transaction) -> None: ...
    async def bare(command, reserved, tx) -> None: ...  # type: ignore[no-untyped-def]
    async def a_command(command: Reserve, reserved: Reserved, tx: Transaction) -> None: ...
    async def short(command: Release, tx: Transaction) -> None: ...
    async def unseen(command: Unseen, reserved: Reserved, tx: Transaction) -> None: ...
    def plain(command: Release, reserved: Reserved, tx: Transaction) -> None: ...

    refused(lambda stock: stock.compensates(Charge), "owned by 'billing'")
    refused(lambda stock: stock.compensates(Reserve)(other), "but Refund undoes Charge")
    refused(lambda stock: stock.compensates(Reserve)(sibling), r"Recount undoes Count. Take a Compensation\[Reserve\]")
    refused(lambda stock: stock.compensates(Reserve)(wrong_answer), "answered with Reserved, but .* is Counted")
    why = "called 'stock.reserve.settle', as is the question what became of Reserve"
    refused(lambda stock: (stock.handles(Reserve)(reserve), stock.compensates(Count)(named_so)), why)
    refused(lambda stock: (stock.compensates(Count)(named_so), stock.handles(Reserve)(reserve)), why)
    refused(lambda stock: stock.compensates(Reserve)(bare), "derived from .*; it is without an annotation")
    refused(lambda stock: stock.compensates(Reserve)(a_command), "derived from Compensation.*; it is Reserve")
    refused(lambda stock: stock.compensates(Reserve)(short), "must take command, answer, tx")
    refused(lambda stock: stock.compensates(Reserve)(unseen), "at the top of the module, not under TYPE_CHECKING")
    refused(lambda stock: stock.compensates(Reserve)(plain), "must be an `async def` function")


def refused(declare: Callable[[Any], object], sentence: str) -> None:
    """Declaring it raises, with the sentence."""
    with pytest.raises(DefinitionError, match=sentence):
        declare(Participant("stock"))
