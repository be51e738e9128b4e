"""How a participant reacts to events, rightly and wrongly."""

from __future__ import annotations

from antiphon.contracts import Event, Retry
from antiphon.participants import Participant, Transaction


class Ordered(Event, name="shop.ordered"):
    pieces: int


class Unpaid(Event, name="billing.unpaid", owner="billing"):
    reason: str


class Reserved(Event, name="stock.reserved", owner="stock"):
    pieces: int


class BackOrdered(Event, name="stock.back-ordered", owner="stock"):
    pieces: int


class Short(Event, name="stock.short", owner="stock"):
    reason: str


stock = Participant("stock")


@stock.reacts_to(Ordered, saga_type="shop", refused=Short, retry=Retry(attempts=3))
async def reserve(event: Ordered, tx: Transaction) -> Reserved | BackOrdered:
    return Reserved(pieces=event.pieces) if event.pieces < 9 else BackOrdered(pieces=event.pieces)


@stock.reacts_to(Unpaid, saga_type="shop", undoes=reserve)
async def release(event: Unpaid, answer: Reserved | BackOrdered, tx: Transaction) -> None:
    print(event.reason, answer.pieces, tx.saga_id)


@stock.reacts_to(Unpaid)
async def maybe(event: Unpaid, tx: Transaction) -> Reserved | None:
    return None


@stock.reacts_to(Ordered, saga_type="shop")  # error: arg-type, reportArgumentType
async def hears_another_event(event: Unpaid, tx: Transaction) -> None:
    pass


@stock.reacts_to(Ordered, saga_type="shop")  # error: type-var, reportArgumentType
async def answers_with_a_text(event: Ordered, tx: Transaction) -> str:
    return "done"


@stock.reacts_to(Ordered, saga_type="shop")  # error: arg-type, reportArgumentType
async def takes_no_transaction(event: Ordered) -> None:
    pass


@stock.reacts_to(Unpaid, saga_type="shop", undoes=reserve)  # error: arg-type, reportArgumentType
async def expects_less_than_was_answered(event: Unpaid, answer: Reserved, tx: Transaction) -> None:
    pass


@stock.reacts_to(Unpaid, undoes=reserve, refused=Short)  # error: call-overload, reportCallIssue
async def refuses_to_undo(event: Unpaid, answer: Reserved | BackOrdered, tx: Transaction) -> None:
    pass


@stock.reacts_to(Unpaid, undoes=maybe)  # error: type-var, reportArgumentType
async def undoes_what_may_be_silent(event: Unpaid, answer: Reserved, tx: Transaction) -> None:
    pass
