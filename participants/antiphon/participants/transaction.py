"""What a handler is given beside its command: the transaction its effect belongs to, and the facts of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antiphon.contracts.subjects import CommandAddress, Direction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sqlalchemy import CursorResult, Executable
    from sqlalchemy.ext.asyncio import AsyncConnection


def idempotency_key(address: CommandAddress, direction: Direction) -> str:
    """The text by which the outside knows an effect: `<type>/<id>/<step>`, with `/undo` behind it for its undoing."""
    key = f"{address.saga.type}/{address.saga.id}/{address.step}"
    return key if direction == "do" else f"{key}/undo"


class HandlerContext:
    """What a handler knows of its call."""

    __slots__ = ("_address",)

    def __init__(self, address: CommandAddress) -> None:
        self._address = address

    @property
    def saga_type(self) -> str:
        """The type of the saga that asks, for instance `order`."""
        return self._address.saga.type

    @property
    def saga_id(self) -> str:
        """The id of the saga that asks; it identifies the saga only together with its type."""
        return self._address.saga.id

    @property
    def step(self) -> str:
        """The name of the saga's step."""
        return self._address.step

    @property
    def attempt(self) -> int:
        """Which of the coordinator's commands for this step this is, counted from 1."""
        return self._address.attempt

    @property
    def idempotency_key(self) -> str:
        """The same text in every attempt and redelivery, for an effect outside this database.

        Such an effect happens at least once: pass this key on, so that the other side can make it exactly once.
        """
        return idempotency_key(self._address, self._address.way)


class Transaction(HandlerContext):
    """The participant's database transaction: the effect and the inbox row become durable together or not at all.

    A handler neither commits nor rolls back; it returns, or it raises.
    """

    __slots__ = ()

    @property
    def connection(self) -> AsyncConnection:
        """The SQLAlchemy connection inside the transaction.

        Raises:
            LookupError: the participant's database is in memory and has none.
        """
        raise LookupError("a database in memory has no connection; give the participant sqlite:///… or postgresql://….")

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Execute one SQLAlchemy statement inside the transaction.

        Args:
            statement: the statement.
            parameters: values for its bound parameters, or one mapping for each row.

        Raises:
            LookupError: the participant's database is in memory and has no connection.
        """
        return await self.connection.execute(statement, parameters)


class Outside(HandlerContext):
    """What a handler with effects outside the database is given. It holds no lock while it waits.

    Such a handler calls the outside first, with `idempotency_key`, and begins its transaction after that. Meanwhile
    another worker may take the matter over, with the same key; `begin` then raises, and nothing of this call counts.
    """

    __slots__ = ("_begin",)

    def __init__(self, address: CommandAddress, begin: Callable[[], Awaitable[Transaction]]) -> None:
        super().__init__(address)
        self._begin = begin

    async def begin(self) -> Transaction:
        """Begin the one transaction, in which the effect is committed together with the answer when the handler
        returns. A handler that writes nothing into the database need not call this.

        Raises:
            LostFence: somebody else has the matter by now; let it pass.
            RuntimeError: it was begun before.
        """
        return await self._begin()
