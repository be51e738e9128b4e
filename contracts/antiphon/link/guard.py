"""The guard between the connection's loop and whatever it calls: nothing that is raised gets past it.

A fact is handled by a chain of callbacks: delivered, read, stored, told. Whatever asks for an answer does so for
somebody, and the answer is handed over for the same one; so the guard knows in any link of the chain whose delivery has
to come to an end, and no callback needs a handler of errors of its own.

BaseException and all that is below it count: a panic in an extension written in Rust, `sys.exit()` in an author's code,
a CancelledError that nobody asked for. Signals are heard by handlers of the event loop, which raise nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
Given = TypeVarTuple("Given")


class InHand(Protocol):
    """Something that is being dealt with, and must come to an end."""

    def failed(self, error: BaseException) -> None:
        """End it otherwise: dealing with it has raised an error."""


class Say(Protocol):
    """Logs an error that somebody else must not see."""

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
