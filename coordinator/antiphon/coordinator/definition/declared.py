"""What an author has declared of a saga, as plain data: what is checked, and what a definition is compiled from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

from antiphon.contracts.messages import Command, Compensation, Event
from antiphon.contracts.retry import Retry

from .definition import StepKind
from .retention import Declared

S = TypeVar("S", bound=Event)


class DeclaredSaga(Generic[S]):
    """What an author says of a saga that a coordinator leads; made by `Saga`, which says what each part is for."""

    def __init__(
        self,
        start: type[S],
        name: str,
        version: int,
        deadline: timedelta,
        compensation_retry: Retry,
        backoff: Retry,
        locks: Callable[[S], Iterable[str]] | None,
        keys: Callable[[S], dict[str, str]] | None,
        retention: Declared,
    ) -> None:
        self.start, self.name, self.version, self.deadline = start, name, version, deadline
        self.compensation_retry, self.backoff, self.locks, self.keys = compensation_retry, backoff, locks, keys
        self.retention = retention
        self.steps: list[DeclaredStep] = []
        self.recorded: list[type[Event]] = []

    def changed(self) -> None:
        """Forget the compiled definition, because the saga has grown."""
        self.__dict__.pop("definition", None)


class DeclaredChoreography(Generic[S]):
    """What an author says of a saga that nobody leads; made by `Choreography`, which says what each part is for."""

    def __init__(
        self,
        start: type[S],
        name: str,
        version: int,
        deadline: timedelta,
        flow: Mapping[type[Event], tuple[str, ...]],
        completes: tuple[type[Event], ...],
        compensates: tuple[type[Event], ...],
        turns: tuple[type[Event], ...],
        keys: Callable[[S], dict[str, str]] | None,
        retention: Declared,
    ) -> None:
        self.start, self.name, self.version, self.deadline = start, name, version, deadline
        self.flow, self.completes, self.compensates = flow, completes, compensates
        self.turns, self.keys, self.retention = turns, keys, retention

    @property
    def ends(self) -> tuple[type[Event], ...]:
        """All events that end it."""
        return (*self.completes, *self.compensates)


class DeclaredStep:
    """What an author says of one step, of whichever kind; made by the methods of `Saga`."""

    def __init__(
        self, saga: DeclaredSaga[Any], kind: StepKind, name: str, after: DeclaredStep | Sequence[DeclaredStep]
    ) -> None:
        self.saga, self.name = saga, name
        self.kind: StepKind = kind
        # A string is many, too, and None is no list: whatever is none stays as it is, for the check to name it.
        self.after: tuple[DeclaredStep, ...] = tuple(after) if isinstance(after, (list, tuple)) else (after,)  # type: ignore[assignment]
        self.make: Callable[[Any], Any] | None = None
        self.when: Callable[[Any], bool] | None = None
        self.command: type[Command[Any]] | None = None
        self.undo_make: Callable[..., Any] | None = None
        self.undo_command: type[Compensation[Any]] | None = None
        self.undo_takes = 1
        self.signal: type[Event] | None = None
        self.unless: tuple[type[Event], ...] = ()
        self.child: DeclaredSaga[Any] | None = None
        self.retry = Retry()
        self.timeout: timedelta | None = None
        self.elements_max = 0
        self.is_pivot = False
        self.needs_no_compensation = False
