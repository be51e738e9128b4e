"""What an author writes: a saga as a value, built of named, typed, pure step functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Final, TypeVar, overload

from antiphon.contracts.messages import Command, Event
from antiphon.contracts.retry import Retry

from .check import (
    check_awaited,
    check_child,
    check_predicate,
    check_recorded,
    check_saga,
    check_signal,
    check_step,
    made_by,
    made_by_each,
)
from .compile import compile_saga
from .declared import DeclaredSaga, DeclaredStep
from .definition import Definition
from .retention import Declared
from .steps import Awaited, Child, ListStep, OptionalStep, Signal, State, Step, Wait

S = TypeVar("S", bound=Event)
R = TypeVar("R", bound=Event)
C = TypeVar("C", bound=Command[Any])
T = TypeVar("T", bound=DeclaredStep)

COMPENSATION_RETRY: Final = Retry(attempts=3)
"""How often a participant tries one compensation command before it hands the matter back to the coordinator."""

BACKOFF: Final = Retry(attempts=10, first_seconds=1, factor=2, cap_seconds=900)
"""How far apart the coordinator sends again what must succeed, for ever; after `attempts` the saga is parked too."""

ELEMENTS_MAX: Final = 50
"""How many elements a step over a list takes, unless it says otherwise."""


class Saga(DeclaredSaga[S]):
    """A business operation over several participants.

    Args:
        start: the event it begins with.
        name: its type, a token of letters, digits, `_` and `-`.
        version: counts changes of its shape; sagas in flight keep the version they began with.
        deadline: after this time from its start it is compensated, unless it has ended or passed its pivot. Less than
            the 4 s that the death of a worker may take is warned of (`HastyTimeout`).
        compensation_retry: how a participant tries one compensation command.
        backoff: how the coordinator sends again what must succeed: compensations, steps past the pivot, the question
            what became of a pivot. For ever; `attempts` says after how many the saga is also parked.
        locks: a named function from the start to keys (tokens of letters, digits, `_` and `-`). Of all sagas that
            name a key only one runs at a time, from its first step to its end; the others wait in the order in which
            they asked.
        keys: a named function from the start to what its sagas are to be found by, for instance
            `{"customer_id": start.customer_id}`: at most 8 names, tokens, with values of up to 200 characters. They
            stand in the journal and in the read model, readable for every operator. If it raises, the saga is parked.
        retention: how long its journal and events are kept once it has ended: one time, or one by outcome,
            `{"completed": timedelta(days=7)}`. Left out, and for an outcome that is left out, they are kept for ever. A
            saga that has not ended, parked or not, is always kept. Of one that was purged the outcome stays. What the
            newest version says holds for the sagas of all versions, and an operator may say otherwise.

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
        backoff: Retry = BACKOFF,
        locks: Callable[[S], Iterable[str]] | None = None,
        keys: Callable[[S], dict[str, str]] | None = None,
        retention: Declared = None,
    ) -> None:
        super().__init__(start, name, version, deadline, compensation_retry, backoff, locks, keys, retention)
        check_saga(self)

    @overload
    def step(
        self,
        *,
        after: DeclaredStep | Sequence[DeclaredStep] = (),
        timeout: timedelta | None = None,
        retry: Retry = ...,
        pivot: bool = False,
        needs_no_compensation: bool = False,
    ) -> Callable[[Callable[[State[S]], C]], Step[S, C]]: ...

    @overload
    def step(
        self,
        *,
        when: Callable[[State[S]], bool],
        after: DeclaredStep | Sequence[DeclaredStep] = (),
        timeout: timedelta | None = None,
        retry: Retry = ...,
        needs_no_compensation: bool = False,
    ) -> Callable[[Callable[[State[S]], C]], OptionalStep[S, C]]: ...

    def step(
        self,
        *,
        when: Callable[[State[S]], bool] | None = None,
        after: DeclaredStep | Sequence[DeclaredStep] = (),
        timeout: timedelta | None = None,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        pivot: bool = False,
        needs_no_compensation: bool = False,
    ) -> Callable[[Callable[[State[S]], Any]], Any]:
        """Decorate a function from the saga's state to the command of this step.

        Args:
            when: a named function that says, once the steps before are over, whether this one is needed. A step that
                is not is skipped, and its reply is None in what follows.
            after: the steps that must be done, or skipped, first. Steps that do not depend on each other run at once.
            timeout: how long the answer is waited for; afterwards the outcome counts as unknown. None leaves it to
                the saga's deadline. Give it more than the 4 s within which another worker has answered in the place of
                one that died, or each such death compensates a healthy saga; less is warned of (`HastyTimeout`).
            retry: how the participant tries the command before its outcome counts as unknown.
            pivot: the point of no return. Once this command is sent the saga is not turned any more, unless the
                command is refused or turns out never to have happened; the steps after it are tried until they succeed.
            needs_no_compensation: say so where there is nothing to undo; otherwise decorate a compensation.

        Raises:
            DefinitionError: the step is unsound; the sentence names it and the remedy.
        """

        def declare(make: Callable[[State[S]], Any]) -> Any:
            step: Step[S, Any] | OptionalStep[S, Any]
            step = (Step if when is None else OptionalStep)(self, "command", make.__name__, after)
            step.command = made_by(make, Command, f"step {make.__name__}")
            step.make, step.when, step.timeout, step.retry = make, when, timeout, retry
            step.is_pivot, step.needs_no_compensation = pivot, needs_no_compensation
            if when is not None:
                check_predicate(self, step, when)
            return self._declared(step)

        return declare

    def each(
        self,
        *,
        after: DeclaredStep | Sequence[DeclaredStep] = (),
        at_most: int = ELEMENTS_MAX,
        timeout: timedelta | None = None,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        needs_no_compensation: bool = False,
    ) -> Callable[[Callable[[State[S]], list[C]]], ListStep[S, C]]:
        """Decorate a function from the saga's state to a list of commands, which are sent at once.

        The step is done when all are; its replies are a tuple in the order of the list. One refusal turns the saga.

        Args:
            after: the steps that must be done, or skipped, first.
            at_most: how long the list may be. A longer one stops the saga, parked, before anything is sent.
            timeout, retry, needs_no_compensation: as for a step, of each command.

        Raises:
            DefinitionError: the step is unsound; the sentence names it and the remedy.
        """

        def declare(make: Callable[[State[S]], list[C]]) -> ListStep[S, C]:
            step: ListStep[S, C] = ListStep(self, "list", make.__name__, after)
            step.command = made_by_each(make, f"step {make.__name__}")
            step.make, step.timeout, step.retry, step.elements_max = make, timeout, retry, at_most
            step.needs_no_compensation = needs_no_compensation
            return self._declared(step)

        return declare

    def signal(
        self,
        event: type[R],
        *,
        after: DeclaredStep | Sequence[DeclaredStep] = (),
        within: timedelta | None = None,
    ) -> Signal[R]:
        """A step that waits for an event from outside: `handle.signal(step, event)` sends it. It may come before the
        step's turn; before the saga is started it is taken only where `wait_for_start=True` says so.

        Args:
            event: its class, owned by nobody. A saga waits once for each.
            after: the steps that must be done, or skipped, first.
            within: how long it is waited for; afterwards the saga is compensated. None leaves it to the deadline.
                Past the pivot no time turns the saga: it is parked then, and goes on when the signal comes after all.

        Raises:
            DefinitionError: the step is unsound; the sentence names it and the remedy.
        """
        step: Signal[R] = Signal(self, "signal", check_signal(self, event), after)
        step.signal, step.timeout, step.needs_no_compensation = event, within, True
        return self._declared(step)

    def awaits(
        self,
        event: type[R],
        *,
        after: DeclaredStep | Sequence[DeclaredStep] = (),
        within: timedelta | None = None,
        unless: type[Event] | Sequence[type[Event]] = (),
    ) -> Awaited[R]:
        """A step that waits for an event which a participant emits by itself, on something that has happened or of its
        own accord. It may come early.

        Nobody can call off what was not commanded. If the participant acts on the event of an earlier command, and what
        it does is not to happen once the saga turns, make that command the pivot: from when it is sent neither a
        cancel nor the deadline turns the saga, and the answer to the question whether it goes forward or back is this
        event, or one of `unless`.

        Args:
            event: its class, owned by the participant that emits it. A saga waits once for each.
            after: the steps that must be done, or skipped, first.
            within: how long it is waited for; afterwards the saga is compensated. None leaves it to the deadline.
                Past the pivot no time turns the saga: it is parked then, and goes on when the event comes after all.
                As for the timeout of a step, less than 4 s is warned of.
            unless: the events that say it will not come, each owned by the same participant: nothing has happened
                there, and the saga is compensated. Right after the pivot this undoes the pivot too, which then has a
                compensation.

        Raises:
            DefinitionError: the step is unsound; the sentence names it and the remedy.
        """
        failures = (unless,) if isinstance(unless, (type, str)) else tuple(unless)
        step: Awaited[R] = Awaited(self, "event", check_awaited(self, event, failures), after)
        step.signal, step.unless, step.timeout, step.needs_no_compensation = event, failures, within, True
        return self._declared(step)

    def records(self, *events: type[Event]) -> None:
        """Declare events that participants emit by themselves in sagas of this type, and from which nothing follows.

        They are recorded when they come, and seen in the saga's timeline and trace. Any other event that no step
        awaits is parked: a saga says who may write into its journal.

        Raises:
            DefinitionError: it is no event of a participant, or the saga knows it already.
        """
        for event in events:
            check_recorded(self, event)
            self.recorded.append(event)
        self.changed()

    notes = records
    """The name that `records` had first; definitions written with it stay as they are."""

    def wait(self, name: str, duration: timedelta, *, after: DeclaredStep | Sequence[DeclaredStep] = ()) -> Wait:
        """A step that is done when some time has passed since the steps before it; a process need not run meanwhile.

        Args:
            name: the step's, a token.
            duration: how long. At most 250 ms more pass, and never less.
            after: the steps that must be done, or skipped, first.

        Raises:
            DefinitionError: the step is unsound; the sentence names it and the remedy.
        """
        step = Wait(self, "wait", name, after)
        step.timeout, step.needs_no_compensation = duration, True
        return self._declared(step)

    def child(
        self,
        saga: Saga[R],
        *,
        after: DeclaredStep | Sequence[DeclaredStep] = (),
        timeout: timedelta | None = None,
        needs_no_compensation: bool = False,
    ) -> Callable[[Callable[[State[S]], R]], Child[R]]:
        """Decorate a function from the saga's state to the event that another saga starts with.

        The step is done when that saga has completed, and refused when it was compensated. If this saga is
        compensated later, the other is cancelled and compensated too: until this one has ended, it only waits.

        Args:
            saga: the definition of the other.
            after: the steps that must be done, or skipped, first.
            timeout: how long the other may take before it is cancelled and this saga is compensated. As for the timeout
                of a step, less than 4 s is warned of.
            needs_no_compensation: the other ends by itself and stays as it is, whatever becomes of this one.

        Raises:
            DefinitionError: the step is unsound; the sentence names it and the remedy.
        """

        def declare(make: Callable[[State[S]], R]) -> Child[R]:
            step: Child[R] = Child(self, "child", make.__name__, after)
            check_child(step, saga, make)
            step.make, step.child, step.timeout = make, saga, timeout
            step.needs_no_compensation = needs_no_compensation
            return self._declared(step)

        return declare

    def _declared(self, step: T) -> T:
        check_step(self, step)
        self.steps.append(step)
        self.changed()
        return step

    @cached_property
    def definition(self) -> Definition:
        """The whole saga as checked, immutable data.

        Raises:
            DefinitionError: it is not complete; the sentence names the step and the remedy.
        """
        return compile_saga(self)
