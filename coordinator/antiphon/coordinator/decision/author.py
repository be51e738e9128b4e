"""The author's functions: each is called at most once in a decision, and whatever it raises is a fault.

What has been sent is read from the journal and never asked for again, so an answer need not be the same the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from antiphon.contracts.errors import BadIdentity, TooLarge, WrongShape
from antiphon.contracts.identity import check_token

from ..definition.definition import StepDefinition
from ..definition.steps import State
from .history import History

LOCKS_MAX: Final = 50
"""How many locks a saga may need. Each is granted by an entry of its journal, which must keep room for its steps."""


class AuthorFault(Exception):
    """One of the author's functions raised something, or made what cannot be sent: the saga is parked with this."""


class Author:
    """The author's functions, asked for one decision.

    Args:
        error_texts: whether a fault gives the text of what was raised, which may hold values of a saga, and stays in
            its journal for ever; otherwise it names the class, and the text stands in the log.
    """

    def __init__(self, error_texts: bool = False) -> None:
        self._error_texts = error_texts
        self._made: dict[tuple[str, str], Any] = {}
        self.error: BaseException | None = None
        """What was raised last."""

    def is_wanted(self, history: History, step: StepDefinition) -> bool:
        """What the step's `when` says.

        Raises:
            AuthorFault: it raised something.
        """
        when = step.when
        if when is None:
            return True

        def is_wanted(state: State[Any]) -> bool:
            return bool(when(state))

        wanted: bool = self._ask(step.name, "when", is_wanted, _state(history, step))
        return wanted

    def command(self, history: History, step: StepDefinition) -> Any:
        """The command of a step, or the event that its child begins with.

        Raises:
            AuthorFault: the function raised something, or made something else.
        """
        template = step.template("do")
        made = self._ask(step.name, "do", template.make, _state(history, step))
        if type(made) is not template.shape:
            what = "event" if step.kind == "child" else "command"
            raise AuthorFault(f"{step.name} made {_a(made)}, not the {what} it is annotated with")
        return made

    def commands(self, history: History, step: StepDefinition) -> list[Any]:
        """The commands of a step over a list.

        Raises:
            AuthorFault: the function raised something, made no list, or a list of something else, or one too long.
        """
        make = step.template("do").make

        def listed(state: State[Any]) -> list[Any]:
            made = make(state)
            if not isinstance(made, list | tuple):
                raise AuthorFault(f"{step.name} made {_a(made)}, not a list")
            return list(cast("Iterable[Any]", made))

        found: list[Any] = self._ask(step.name, "do", listed, _state(history, step))
        if len(found) > step.elements_max:
            raise AuthorFault(
                f"{step.name} made a list of {len(found)} commands, and at_most={step.elements_max} are allowed"
            )
        for each in found:
            if type(each) is not step.template("do").shape:
                raise AuthorFault(f"{step.name} made {_a(each)}, not the command it is annotated with")
        return found

    def compensation(self, history: History, step: StepDefinition, name: str, command: Any, reply: Any) -> Any:
        """The command that undoes a step or an element.

        Args:
            history: the saga's.
            step: the step's definition.
            name: what is undone: the step, or one of its elements.
            command: what was sent.
            reply: what was answered; None where nobody knows.

        Raises:
            AuthorFault: the function raised something, or made something else.
        """
        template = step.template("undo")
        given: tuple[Any, ...] = (_state(history, step), command, reply)[: template.takes]
        made = self._ask(name, "undo", template.make, *given)
        if type(made) is not template.shape:
            raise AuthorFault(f"{name} made {_a(made)}, not the command it is annotated with")
        return made

    def locks(self, history: History) -> tuple[str, ...]:
        """The locks a saga needs, in the one order in which all sagas ask, lest two wait for each other.

        Raises:
            AuthorFault: the function raised something, or named what is no lock, none, or too many.
        """
        function = history.definition.locks
        assert function is not None
        name = function.__name__

        def named(start: Any) -> list[str]:
            return sorted(frozenset(function(start)))

        found = self._ask(name, "locks", named, history.start)
        try:
            return checked_locks(name, found)
        except BadIdentity as error:
            self.error = error
            raise AuthorFault(str(error) if self._error_texts else f"{name} named a lock that is no token") from error
        except ValueError as error:
            raise AuthorFault(str(error)) from error

    def keys(self, function: Callable[[Any], Any], start: Any) -> Any:
        """What a saga is to be found by.

        Raises:
            AuthorFault: the function raised something.
        """
        return self._ask(function.__name__, "keys", function, start)

    def faulted(self, name: str, error: Exception) -> str:
        """Why a saga cannot go on, for its journal."""
        if isinstance(error, AuthorFault):
            return str(error)
        self.error = error
        return f"{name} raised {self._described(error)}"

    def _ask(self, name: str, what: str, function: Callable[..., Any], *given: object) -> Any:
        """Call a function, unless this decision has called it before."""
        if (name, what) in self._made:
            return self._made[name, what]
        try:
            made = self.call(name, function, *given)
        except AuthorFault:
            raise
        except BaseException as error:  # a Rust extension's panic is no Exception, and must not end the process either
            self.error = error
            raise AuthorFault(f"{name} raised {self._described(error)}") from error
        self._made[name, what] = made
        return made

    def call(self, name: str, function: Callable[..., Any], *given: object) -> Any:
        """Call a function. Tests ask it twice here."""
        return function(*given)

    def _described(self, error: BaseException) -> str:
        if self._error_texts:
            return _text_of(error)
        # Antiphon's own sentences name fields and limits, and no values.
        return f"{type(error).__name__}: {error}" if isinstance(error, TooLarge | WrongShape) else type(error).__name__


def checked_locks(name: str, found: Iterable[Any]) -> tuple[str, ...]:
    """The locks that a function named, each once, in the order in which all sagas ask.

    Raises:
        BadIdentity: one of them is no token.
        ValueError: there are none, or too many.
    """
    keys = tuple(sorted({check_token(key if isinstance(key, str) else repr(key), "lock") for key in found}))
    if not keys:
        raise ValueError(f"{name} named no lock; name at least one, or drop locks=")
    if len(keys) > LOCKS_MAX:
        raise ValueError(f"{name} named {len(keys)} locks, and {LOCKS_MAX} are the most a saga may need")
    return keys


def _text_of(error: BaseException) -> str:
    try:
        return repr(error)
    except BaseException:  # an author's own
        return type(error).__name__


def _state(history: History, step: StepDefinition) -> State[Any]:
    return State(history, step.visible)


def _a(made: object) -> str:
    return f"a {type(made).__name__}"
