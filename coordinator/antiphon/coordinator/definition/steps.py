"""The steps of a saga as an author holds them, and the state that the functions of a step are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, overload

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Command, Compensation, Event
from antiphon.contracts.payloads import End

from .check import check_compensation
from .declared import DeclaredStep

S = TypeVar("S", bound=Event)
R = TypeVar("R", bound=Event)
C = TypeVar("C", bound=Command[Any])
C_co = TypeVar("C_co", bound=Command[Any], covariant=True)


class Known(Protocol):
    """What is known of a saga when its author is asked: a history, as far as a state shows it."""

    @property
    def key(self) -> SagaKey: ...
    @property
    def start(self) -> Any: ...
    @property
    def turned(self) -> str: ...
    def outcome_of(self, name: str) -> Any: ...


class State(Generic[S]):
    """What a step function may look at: the start, and what became of the steps it comes after, however far back.

    Nothing else, so that a step's command is the same whoever computes it, and whenever.
    """

    __slots__ = ("_known", "_visible")

    def __init__(self, known: Known, visible: frozenset[str]) -> None:
        self._known, self._visible = known, visible

    @property
    def start(self) -> S:
        """The event the saga began with."""
        start: S = self._known.start
        return start

    @property
    def reason(self) -> str:
        """Why the saga is being compensated; empty while it runs forward."""
        return self._known.turned

    @property
    def saga_id(self) -> str:
        """The id the saga was started with."""
        return self._known.key.id

    @overload
    def __getitem__(self, step: Step[S, Command[R]]) -> R: ...
    @overload
    def __getitem__(self, step: OptionalStep[S, Command[R]]) -> R | None: ...
    @overload
    def __getitem__(self, step: ListStep[S, Command[R]]) -> tuple[R, ...]: ...
    @overload
    def __getitem__(self, step: Signal[R]) -> R: ...
    @overload
    def __getitem__(self, step: Awaited[R]) -> R: ...
    @overload
    def __getitem__(self, step: Child[Any]) -> End: ...

    def __getitem__(self, step: DeclaredStep) -> Any:
        """What a step has earned: the reply to its command, or the replies in the order of its list, or the signal
        or event, or how its child saga ended; None for an optional step that was skipped.

        Raises:
            LookupError: this step does not come after it; name it in `after`.
        """
        if step.name not in self._visible:
            raise LookupError(f"what became of step {step.name} is not known here; name it in `after`")
        return self._known.outcome_of(step.name)


def changed_state(state: State[S], change: Callable[[Known], Known]) -> State[S]:
    """What a step function would look at if another history of its saga were known."""
    return State(change(state._known), state._visible)  # pyright: ignore[reportPrivateUsage] # for tests only


class UndoableStep(DeclaredStep):
    """A step that may have a compensation."""

    def _undo_by(self, make: Callable[..., Any]) -> None:
        self.undo_command, self.undo_takes = check_compensation(self, make)
        self.undo_make = make
        self.saga.changed()


class Step(UndoableStep, Generic[S, C_co]):
    """A step that sends one command; made by `Saga.step`."""

    def compensation(
        self: Step[S, C],
        make: Callable[[State[S]], Compensation[C]]
        | Callable[[State[S], C], Compensation[C]]
        | Callable[[State[S], C, Any], Compensation[C]],
    ) -> Callable[..., Compensation[C]]:
        """Decorate the function that makes the command which undoes this step's effect.

        It is sent when the saga is compensated and this step is done, or may have happened. The function is called
        once. It takes the state; or the state and the command that is to be undone, as it was sent; or these and the
        reply to it, which is None where nobody knows it. The participant is given what it answered in any case.

        Raises:
            DefinitionError: it undoes another command, takes something else, or this step has a compensation already.
        """
        self._undo_by(make)
        return make


class OptionalStep(UndoableStep, Generic[S, C_co]):
    """A step that is skipped unless its `when` says yes; made by `Saga.step(when=...)`."""

    def compensation(
        self: OptionalStep[S, C],
        make: Callable[[State[S]], Compensation[C]]
        | Callable[[State[S], C], Compensation[C]]
        | Callable[[State[S], C, Any], Compensation[C]],
    ) -> Callable[..., Compensation[C]]:
        """As `Step.compensation`; a step that was skipped is not compensated."""
        self._undo_by(make)
        return make


class ListStep(UndoableStep, Generic[S, C_co]):
    """A step that sends one command for each element of a list; made by `Saga.each`."""

    def compensation(
        self: ListStep[S, C],
        make: Callable[[State[S], C], Compensation[C]] | Callable[[State[S], C, Any], Compensation[C]],
    ) -> Callable[..., Compensation[C]]:
        """Decorate the function that makes the command which undoes one element. It takes the state and that element's
        command, as it was sent; or these and the reply to it, which is None where nobody knows it."""
        self._undo_by(make)
        return make


class Signal(DeclaredStep, Generic[R]):
    """A step that is done when a person or another system says so; made by `Saga.signal`."""


class Awaited(DeclaredStep, Generic[R]):
    """A step that is done when a participant has emitted an event by itself; made by `Saga.awaits`."""


class Wait(DeclaredStep):
    """A step that is done when time has passed; made by `Saga.wait`."""


class Child(DeclaredStep, Generic[S]):
    """A step that is done when the saga it starts has completed; made by `Saga.child`."""
