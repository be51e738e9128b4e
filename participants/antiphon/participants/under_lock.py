"""What is done to a row while it is locked, whatever the message asks: answered, given up, left as it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from antiphon.contracts.errors import TooLarge
from antiphon.link import killpoints

from . import inbox as rules
from .databases import Database, Inbox, Manner, ShareFailed
from .execution import Execution
from .inbox import Answer, Row
from .procedures import Known, Procedure
from .reasons import OwnWords

T = TypeVar("T")

Seal = Callable[[Answer], None]
"""Makes the event of an answer, ready to be sent: before the commit, so that nothing is done that cannot be said.

Raises:
    TooLarge: the event would be larger than the protocol allows.
"""


class Unsendable(OwnWords):
    """The answer cannot be sent, so that no attempt would help."""


async def transact(
    database: Database, execution: Execution, body: Callable[[Inbox], Awaitable[T]], manner: Manner = "shared"
) -> T:
    """Do something in one transaction, and once more in one of its own where the COMMIT with others failed."""
    try:
        async with database.begin(execution.address, manner) as inbox:
            return await body(inbox)
    except ShareFailed:
        async with database.begin(execution.address, "own") as inbox:
            return await body(inbox)


async def tell(procedure: Procedure, row: Row | None, decision: Known, seal: Seal, inbox: Inbox) -> Answer:
    """Answer a message for which nothing is to be called."""
    answer, written = procedure.known(row, decision)
    seal(answer)
    killpoints.reached("worker.in_transaction")
    await write(inbox, row, written)
    return answer


async def give_up(procedure: Procedure, row: Row | None, seal: Seal, inbox: Inbox, reason: str) -> Answer:
    """Answer that no attempt is left."""
    answer = procedure.negative("exhausted", reason)
    seal(answer)
    # Of a run that ended here the row must say so, or an operator's close would wait for it for ever.
    await write(inbox, row, rules.given_up(row) or (row if row is not None and row.claim else None))
    return answer


async def write(inbox: Inbox, row: Row | None, written: Row | None) -> None:
    """Write a row, or leave it as it was.

    Args:
        inbox: in whose transaction the row is locked.
        row: as it was found.
        written: as it shall be; None where nothing is to be written.
    """
    if written is not None:
        await inbox.settle(written)
    elif row is None:
        await inbox.leave()


def seal_or_give_up(seal: Seal, answer: Answer) -> None:
    """Seal the answer that a handler gave.

    Raises:
        Unsendable: it is too large.
    """
    try:
        seal(answer)
    except TooLarge as error:
        raise Unsendable(f"its answer cannot be sent: {error.reason}; nothing was done") from None
