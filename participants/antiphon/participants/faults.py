"""Errors that a database had inside a transaction, and whether they mean that it gave the transaction up."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, ExceptionContext, event

from antiphon.contracts.errors import Refused, Unavailable, Unrecoverable

from .databases import Busy
from .engines import driver_error, first_line, trouble_of


class Fault:
    """An error of a statement or a commit, and what it means for the transaction."""

    __slots__ = ("error", "is_final", "is_passing")

    def __init__(self, error: BaseException, is_disconnect: bool) -> None:
        trouble = trouble_of(error)
        self.error = error
        # SQLAlchemy drops the connection, too, where a statement is cancelled, and that was the handler's own time-out.
        is_gone = is_disconnect and isinstance(error, Exception)
        self.is_final = is_gone or trouble in ("deadlock", "ended", "gone")
        """Whether nothing of the transaction can be committed any more, through no fault of its own."""
        self.is_passing = trouble in ("locked", "full")
        """Whether the statement would go well at another time, and the transaction could go on without it."""

    def is_meant_by(self, error: BaseException) -> bool:
        """Whether the database ended a transaction for a reason that is no fault of the transaction.

        The database's first error decides, not what the author made of that error: after it nothing could be
        committed, so an error that was caught, or raised again as another one, has the same cause.
        """
        return self.is_final or (self.is_passing and driver_error(error) is self.error)


def meaning_of(error: Exception, is_given_up: bool) -> Exception:
    """The error that leaves a transaction: `error`, or `Busy`.

    Args:
        error: what was raised in it.
        is_given_up: whether the database ended it, through no fault of its own.
    """
    # An author's word stands, whatever the database did.
    if isinstance(error, Busy | Refused | Unavailable | Unrecoverable) or not is_given_up:
        return error
    busy = Busy(f"the transaction was given up: {first_line(error)}")
    busy.__cause__ = error
    return busy


class Faults:
    """The first error of each open transaction of an engine.

    Args:
        engine: is listened to; for its errors alone, because whoever listens to more slows every statement down.
    """

    def __init__(self, engine: Engine) -> None:
        self._first: WeakKeyDictionary[Connection, Fault] = WeakKeyDictionary()
        event.listen(engine, "handle_error", self._notice)

    def meaning(self, connections: Iterable[Connection], error: Exception, *, is_lost: bool) -> Exception:
        """The error that leaves a transaction: `error`, or `Busy` where the database gave the transaction up.

        Args:
            connections: on which the transaction was; the one that was used first comes first.
            error: what was raised in it.
            is_lost: whether the driver's connection has broken, and SQLAlchemy has not heard of it.
        """
        fault = next((found for each in connections if (found := self._first.get(each)) is not None), None)
        if fault is None:
            # Past SQLAlchemy: the author asked the driver, or another database, or the socket broke below it.
            return meaning_of(error, is_lost or trouble_of(error) in ("deadlock", "ended"))
        return meaning_of(error, fault.is_meant_by(error))

    def forget(self, connections: Iterable[Connection]) -> None:
        """The transaction that was on these connections has ended."""
        for each in connections:
            self._first.pop(each, None)

    def __bool__(self) -> bool:
        """Whether any transaction has had an error."""
        return bool(self._first)

    def _notice(self, context: ExceptionContext) -> None:
        connection = context.connection
        if connection is None:
            return
        fault = Fault(context.original_exception, context.is_disconnect)
        known = self._first.get(connection)
        if (fault.is_final or fault.is_passing or context.is_disconnect) and (known is None or known.is_passing):
            self._first[connection] = fault
            if connection.in_nested_transaction():
                event.listen(connection, "rollback_savepoint", self._forgive)

    def _forgive(self, connection: Connection, name: str, context: object) -> None:
        """The savepoint was rolled back, so the transaction goes on: forget its error."""
        self._first.pop(connection, None)
