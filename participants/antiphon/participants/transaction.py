"""What a handler is given beside its command: the transaction its effect belongs to, and the facts of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antiphon.contracts.subjects import CommandAddress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import CursorResult, Executable
    from sqlalchemy.ext.asyncio import AsyncConnection


class Transaction:
    """The participant's database transaction: the effect and the inbox row become durable together or not at all.

    A handler neither commits nor rolls back; it returns, or it raises.
    """

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
        key = f"{self.saga_type}/{self.saga_id}/{self.step}"
        return key if self._address.direction == "do" else f"{key}/undo"

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
