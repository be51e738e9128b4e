"""What an author writes: a saga as a value, built of named, typed, pure step functions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from antiphon.contracts.messages import Command, Compensation, Event
from antiphon.contracts.retry import Retry

from .check import check_compensation, check_saga, check_step, made_by
from .graph import Definition, define

if TYPE_CHECKING:
    from .history import History

S = TypeVar("S", bound=Event)
R = TypeVar("R", bound=Event)
C = TypeVar("C", bound=Command[Any])
C_co = TypeVar("C_co", bound=Command[Any], covariant=True)

COMPENSATION_RETRY: Final = Retry(attempts=3)
"""How often a participant tries one compensation command before it hands the matter back to the coordinator."""

COMPENSATION_BACKOFF: Final = Retry(attempts=10, first_seconds=1, factor=2, cap_seconds=900)
"""How far apart the coordinator sends compensations again, for ever; after `attempts` the saga is parked too."""


class State(Generic[S]):
    """What a step function may look at: the start, and the replies of the steps it comes after."""

    __slots__ = ("_history",)

    def __init__(self, history: History) -> None:
        self._history = history

    @property
    def start(self) -> S:
        """The event the saga began with."""
        return cast(S, self._history.start)

    @property
    def reason(self) -> str:
        """Why the saga is being compensated; empty while it runs forward."""
        return self._history.turned

    @property
    def saga_id(self) -> str:
        """The id the saga was started with."""
        return self._history.key.id

    def __getitem__(self, step: Step[Command[R]]) -> R:
        """The reply a step has earned.

        Raises:
            LookupError: the step is not done; name it in `after`.
        """
        reply = self._history.steps[step.name].reply
        if reply is None:
            raise LookupError(f"step {step.name} has no reply yet; name it in `after`")
        return cast(R, reply)


class Step(Generic[C_co]):
    """One step of a saga; made by `Saga.step`."""

    def __init__(self, saga: Saga[Any], make: Callable[[State[Any]], C_co], after: tuple[Step[Any], ...]) -> None:
        self.saga, self.make, self.after = saga, make, after
        self.name = make.__name__
        self.command: type[C_co] = made_by(make, Command, f"step {make.__name__}")
        self.retry = Retry()
        self.needs_no_compensation = False
        self.undo_make: Callable[[State[Any]], Any] | None = None
        self.undo_command: type[Compensation[Any]] | None = None

    def compensation(
        self: Step[C], make: Callable[[State[S]], Compensation[C]]
    ) -> Callable[[State[S]], Compensation[C]]:
        """Decorate the function that makes the command which undoes this step's effect.

        It is sent when the saga is compensated and this step is done, or may have happened.

        Raises:
            DefinitionError: it undoes another command, or this step has a compensation already.
        """
        self.undo_command = check_compensation(self, make)
        self.undo_make = make
        self.saga.changed()
        return make


class Saga(Generic[S]):
    """A business operation over several participants.

    Args:
        start: the event it begins with.
        name: its type, a token of letters, digits, `_` and `-`.
        version: counts changes of its shape; sagas in flight keep the version they began with.
        deadline: after this time from its start it is compensated, unless it has ended.
        compensation_retry: how a participant tries one compensation command.
        compensation_backoff: how the coordinator sends it again, for ever; `attempts` says after how many the saga is
            also parked.

    Raises:
        DefinitionError: the name is no token, or a bound makes no sense.
    """

    def __init__(
        self,
        start: type[S],
        *,
        name: str,
        version: int,
        deadline: timedelta,
        compensation_retry: Retry = COMPENSATION_RETRY,
        compensation_backoff: Retry = COMPENSATION_BACKOFF,
    ) -> None:
        self.start, self.name, self.version, self.deadline = start, name, version, deadline
        self.compensation_retry, self.compensation_backoff = compensation_retry, compensation_backoff
        self.steps: list[Step[Any]] = []
        check_saga(self)

    def step(
        self,
        *,
        after: Step[Any] | tuple[Step[Any], ...] = (),
        retry: Retry = Retry(),  # noqa: B008 - frozen
        needs_no_compensation: bool = False,
    ) -> Callable[[Callable[[State[S]], C]], Step[C]]:
        """Decorate a function from the saga's state to the command of this step.

        Args:
            after: the steps that must be done first.
            retry: how the participant tries the command before its outcome counts as unknown.
            needs_no_compensation: say so where there is nothing to undo; otherwise decorate a compensation.

        Raises:
            DefinitionError: the step is unsound; the sentence names it and the remedy.
        """

        def declare(make: Callable[[State[S]], C]) -> Step[C]:
            step = Step(self, make, after if isinstance(after, tuple) else (after,))
            step.retry, step.needs_no_compensation = retry, needs_no_compensation
            check_step(self, step)
            self.steps.append(step)
            self.changed()
            return step

        return declare

    def changed(self) -> None:
        """Forget the compiled definition, because the saga has grown."""
        self.__dict__.pop("definition", None)

    @cached_property
    def definition(self) -> Definition:
        """The whole saga as checked, immutable data.

        Raises:
            DefinitionError: it is not complete; the sentence names the step and the remedy.
        """
        return define(self)
