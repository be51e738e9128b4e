"""The guard between the connection's read loop and the callbacks it calls: no error of a callback reaches the loop.

A chain of callbacks handles a fact: delivered, read, stored, told. Each request keeps the delivery that it is made for,
and its answer is handed over for the same delivery. So the guard knows in every callback of the chain which delivery
must come to an end, and no callback handles errors by itself.

BaseException and all its subclasses count: a panic in an extension written in Rust, `sys.exit()` in an author's code,
a CancelledError that nobody asked for. Signals are heard by handlers of the event loop, which raise nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
Given = TypeVarTuple("Given")


class InHand(Protocol):
    """A delivery or a request that is being handled, and must come to an end."""

    def failed(self, error: BaseException) -> None:
        """End the delivery or request: handling it has raised this error."""


class Say(Protocol):
    """Logs an error that must not reach the caller."""

    def __call__(self, event: str, error: BaseException, subject: str = "") -> None: ...


class Guard:
    """Calls what handles something, and keeps what that raises from whoever called.

    Args:
        say: logs what was raised where nothing was in hand.
        is_strict: let errors through. For simulations that look for our own mistakes, which would be retried here.
    """

    __slots__ = ("_say", "current", "is_strict")

    def __init__(self, say: Say, is_strict: bool = False) -> None:
        self._say, self.is_strict = say, is_strict
        self.current: InHand | None = None
        """What is being dealt with at this moment; whoever asks for an answer keeps it until that comes."""

    def call(self, whose: InHand | None, then: Callable[[*Given], object], *given: *Given) -> None:
        """Call `then` for something in hand, which is told if that raises; if it is None, that is only logged."""
        outer, self.current = self.current, whose
        try:
            then(*given)
        except BaseException as error:
            self.ended(None if whose is None else whose.failed, error)
        finally:
            self.current = outer

    def take(self, delivery: T, then: Callable[[T], None], failed: Callable[[T, BaseException], None]) -> None:
        """Call `then` with a delivery; `failed` is called if that raises."""
        try:
            then(delivery)
        except BaseException as error:
            self.ended(lambda raised: failed(delivery, raised), error)

    def ended(self, failed: Callable[[BaseException], None] | None, error: BaseException, subject: str = "") -> None:
        """Deal with an error: `failed` knows what becomes of what was in hand; None says that nothing was."""
        if self.is_strict:
            raise error
        if failed is None:
            self._say("callback.faulty", error, subject)
            return
        try:
            failed(error)
        except BaseException as worse:
            self._say("callback.faulty", worse, subject)
