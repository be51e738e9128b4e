"""Errors that a database had inside a transaction, and whether they mean that it gave the transaction up."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, ExceptionContext, event

from antiphon.contracts.errors import Refused, Unavailable, Unrecoverable

from .databases import Busy
from .engines import first_line, trouble_of


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


class Faults:
    """The first error of each open transaction of an engine.

    Args:
        engine: is listened to.
    """

    def __init__(self, engine: Engine) -> None:
        self._first: WeakKeyDictionary[Connection, Fault] = WeakKeyDictionary()
        event.listen(engine, "handle_error", self._notice)
        event.listen(engine, "rollback_savepoint", self._forgive)

    def meaning(self, connection: Connection | None, error: Exception, is_gone: bool = False) -> Exception:
        """The error that leaves a transaction: `error`, or `Busy` where the database gave the transaction up.

        Args:
            connection: on which the transaction was; None where its handler never asked for one.
            error: what was raised in it.
            is_gone: whether it is known that the database ended it.
        """
        # An author's word stands, whatever the database did.
        if isinstance(error, Busy | Refused | Unavailable | Unrecoverable):
            return error
        if not is_gone and not self._is_given_up(connection, error):
            return error
        busy = Busy(f"the transaction was given up: {first_line(error)}")
        busy.__cause__ = error
        return busy

    def _is_given_up(self, connection: Connection | None, error: Exception) -> bool:
        """Whether the database ended a transaction for a reason that is no fault of the transaction.

        The database's first error decides, not what the author made of that error: after it nothing could be
        committed, so an error that was caught, or raised again as another one, has the same cause.
        """
        fault = None if connection is None else self._first.get(connection)
        if fault is None:
            # Past SQLAlchemy: the author asked the driver, or another database, or the socket broke below it.
            return trouble_of(error) in ("deadlock", "ended") or (connection is not None and _is_closed(connection))
        return fault.is_final or (fault.is_passing and getattr(error, "orig", None) is fault.error)

    def _notice(self, context: ExceptionContext) -> None:
        if context.connection is not None:
            fault = Fault(context.original_exception, context.is_disconnect)
            known = self._first.get(context.connection)
            if (fault.is_final or fault.is_passing or context.is_disconnect) and (known is None or known.is_passing):
                self._first[context.connection] = fault

    def _forgive(self, connection: Connection, name: str, context: object) -> None:
        """The savepoint was rolled back, so the transaction goes on: forget its error."""
        self._first.pop(connection, None)


def _is_closed(connection: Connection) -> bool:
    """Whether the driver's connection has broken."""
    if connection.closed or connection.invalidated:
        return False  # the author closed it, or SQLAlchemy did when a statement was cancelled
    driver: Any = connection.connection.driver_connection
    is_closed = getattr(driver, "is_closed", None)
    return bool(is_closed and is_closed())
