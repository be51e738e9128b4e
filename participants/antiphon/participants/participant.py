"""Which commands a participant handles, and how it takes their effects back: a value, filled by decorators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeGuard, TypeVar, overload

from antiphon.contracts.errors import BadIdentity, DefinitionError
from antiphon.contracts.fields import require_travels
from antiphon.contracts.identity import check_token
from antiphon.contracts.messages import Command, Compensation, Event, Message, Settle, settle_type
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import Direction
from antiphon.contracts.topology import Listener, check_participant

from .reaction import REACTION_RETRY, Reaction, ReactsTo, UndoesOn
from .signatures import annotation, check_given, named, parameters, text
from .transaction import Outside, Transaction

if TYPE_CHECKING:
    from sqlalchemy import MetaData

R = TypeVar("R", bound=Event)
E = TypeVar("E", bound=Event)
A = TypeVar("A", bound=Event)
C = TypeVar("C", bound=Command[Any])
C_co = TypeVar("C_co", bound=Command[Any], covariant=True)
G = TypeVar("G", Transaction, Outside)
"""What a handler is given beside its message."""
K = TypeVar("K", bound=Compensation[Any])


@dataclass(frozen=True, slots=True)
class CommandHandler:
    """The function that carries a command out, and the event it earns."""

    command: type[Command[Any]]
    reply: type[Event]
    call: Callable[[Any, Any], Awaitable[Event]]
    concurrency: int | None
    """How many of these may run at once in one worker; None leaves it to the worker's own bound."""
    is_outside: bool = False
    """Whether it has effects outside the database, and so runs outside a transaction."""
    is_slow: bool = False
    """Whether its statements take long."""

    @property
    def shape(self) -> type[Message]:
        """What the handler takes."""
        return self.command


@dataclass(frozen=True, slots=True)
class CompensationHandler:
    """The function that takes a command's effect back, given what was answered then."""

    compensation: type[Compensation[Any]]
    command: type[Command[Any]]
    reply: type[Event]
    call: Callable[[Any, Any, Any], Awaitable[None]]
    is_outside: bool = False
    """Whether it has effects outside the database, and so runs outside a transaction."""
    is_slow: bool = False
    """Whether its statements take long."""

    @property
    def shape(self) -> type[Message]:
        """What the handler takes."""
        return self.compensation


@dataclass(frozen=True, slots=True)
class Settlement:
    """The question what became of a command. Every handled command has one, and the inbox answers it."""

    command: type[Command[Any]]

    @property
    def shape(self) -> type[Settle]:
        """What travels with the question."""
        return Settle


AnyHandler = CommandHandler | CompensationHandler | Settlement


class HasName(Protocol):
    """A saga or a choreography, of which a participant needs to know no more than the type."""

    @property
    def name(self) -> str:
        """Its type."""
        ...


class Participant:
    """One service's part in sagas.

    Args:
        name: its name on the wire, the owner of its commands and events.
        tables: SQLAlchemy tables that a worker creates at its start where they are missing.
        starts: the sagas, or their types, that its program starts as a client. It is a right of its own, and
            `antiphon rights --app` takes it from here.

    Raises:
        DefinitionError: the name cannot be a participant's, or a saga's type is no token.
    """

    def __init__(self, name: str, *, tables: MetaData | None = None, starts: Sequence[str | HasName] = ()) -> None:
        types = [each if isinstance(each, str) else each.name for each in starts]
        try:
            check_participant(name)
            self.starts = tuple(check_token(each, "saga type") for each in types)
        except BadIdentity as error:
            raise DefinitionError(f"{error}.") from None
        self.name, self.tables = name, tables
        self.handlers: dict[str, CommandHandler] = {}
        """By the type of the command."""
        self.compensations: dict[str, CompensationHandler] = {}
        """By the type of the compensation."""
        self.settlements: dict[str, Settlement] = {}
        """By the type of the question."""
        self.reactions: list[Reaction] = []
        """In the order in which they were declared."""

    @overload
    def handles(
        self,
        command: type[C],
        *,
        concurrency: int | None = None,
        outside: Literal[False] = False,
        slow: bool = False,
    ) -> Handles[C, Transaction]: ...

    @overload
    def handles(
        self, command: type[C], *, concurrency: int | None = None, outside: Literal[True], slow: bool = False
    ) -> Handles[C, Outside]: ...

    def handles(
        self, command: type[C], *, concurrency: int | None = None, outside: bool = False, slow: bool = False
    ) -> Handles[C, Any]:
        """Decorate the function that carries out a command of this participant.

        Args:
            command: the command's class; it names the event the function returns.
            concurrency: how many of these commands may run at once in one worker, where a worker's own number is too
                many; counts from 1.
            outside: say so where the function has effects outside the participant's database, such as a call of a web
                service. It then holds no transaction while it waits, and takes an `Outside` for its second parameter.
            slow: its statements take long (above some 100 ms each): in SQLite they run on a thread, so that they do not
                keep the worker from all else. Elsewhere it changes nothing.

        Returns:
            A decorator for `async def function(command, tx)`, which gives the function back unchanged.

        Raises:
            DefinitionError: the command is another participant's or handled already, or the function does not fit.
        """
        _require_owned(self.name, command)
        if concurrency is not None and concurrency < 1:
            raise DefinitionError(f"{command.__name__}: concurrency={concurrency}, and it counts from 1.")
        return Handles(self, command, concurrency, outside, slow)

    def handler(self, direction: Direction, message_type: str) -> AnyHandler | None:
        """What answers a command of this type, if anything does."""
        if direction == "do":
            return self.handlers.get(message_type)
        return self.compensations.get(message_type) or self.settlements.get(message_type)

    @property
    def listener(self) -> Listener:
        """The participant's name, and the subjects of the events that it reacts to: what `antiphon setup` needs."""
        return Listener(self.name, tuple(each.filter for each in self.reactions))

    @overload
    def compensates(
        self, command: type[C], *, outside: Literal[False] = False, slow: bool = False
    ) -> Compensates[C, Transaction]: ...

    @overload
    def compensates(
        self, command: type[C], *, outside: Literal[True], slow: bool = False
    ) -> Compensates[C, Outside]: ...

    def compensates(self, command: type[C], *, outside: bool = False, slow: bool = False) -> Compensates[C, Any]:
        """Decorate the function that takes back the effect of a command of this participant.

        The function is called only where the effect is there, with the compensation, the event that was answered
        then, and the transaction. Which compensation it takes stands in its first parameter's annotation.

        Args:
            command: the class of the command whose effect is taken back.
            outside: say so where it has effects outside the participant's database; see `handles`.
            slow: as with `handles`.

        Returns:
            A decorator for `async def function(compensation, answer, tx)`, which gives the function back unchanged.

        Raises:
            DefinitionError: the command is another participant's or compensated already, or the function does not fit.
        """
        _require_owned(self.name, command)
        return Compensates(self, command, outside, slow)

    @overload
    def reacts_to(
        self,
        event: type[E],
        *,
        saga_type: str = "",
        refused: type[Event] | None = None,
        needs_no_compensation: bool = False,
        retry: Retry = ...,
        outside: Literal[False] = False,
        slow: bool = ...,
        signal: bool = ...,
    ) -> ReactsTo[E, Transaction]: ...

    @overload
    def reacts_to(
        self,
        event: type[E],
        *,
        saga_type: str = "",
        refused: type[Event] | None = None,
        needs_no_compensation: bool = False,
        retry: Retry = ...,
        outside: Literal[True],
        slow: bool = ...,
        signal: bool = ...,
    ) -> ReactsTo[E, Outside]: ...

    @overload
    def reacts_to(
        self,
        event: type[E],
        *,
        saga_type: str = "",
        undoes: Callable[[Any, Any], Awaitable[A]],
        retry: Retry = ...,
        outside: Literal[False] = False,
        slow: bool = ...,
        signal: bool = ...,
    ) -> UndoesOn[E, A, Transaction]: ...

    @overload
    def reacts_to(
        self,
        event: type[E],
        *,
        saga_type: str = "",
        undoes: Callable[[Any, Any], Awaitable[A]],
        retry: Retry = ...,
        outside: Literal[True],
        slow: bool = ...,
        signal: bool = ...,
    ) -> UndoesOn[E, A, Outside]: ...

    def reacts_to(
        self,
        event: type[Any],
        *,
        saga_type: str = "",
        refused: type[Event] | None = None,
        needs_no_compensation: bool = False,
        undoes: Callable[[Any, Any], Awaitable[Any]] | None = None,
        retry: Retry = REACTION_RETRY,
        outside: bool = False,
        slow: bool = False,
        signal: bool = False,
    ) -> Any:
        """Decorate the function that is called when an event is heard, although no coordinator asks for it.

        It is given the event and the transaction, and returns the event that follows from it (`-> Reserved`), one of
        several (`-> Reserved | BackOrdered`), or None. What it returns is published in the same saga.

        Args:
            event: the class of the event, whoever owns it.
            saga_type: the sagas whose events are heard; those of every saga when left out.
            refused: the event that is published when the function raises `Refused`, after all it did was rolled back;
                made of the reason alone. Without one a refusal counts as any other error.
            needs_no_compensation: say so where there is nothing to take back, whatever comes later; otherwise
                `antiphon flow check` wants to know who takes it back when a later reaction refuses, or when the saga
                whose event it was is turned by its coordinator.
            undoes: the function of an earlier reaction of this participant. The decorated one takes its effect back:
                it is called only where that effect is there, with the event, what was published then, and the
                transaction. Where the effect is not there yet, it never will be.
            retry: how far apart it is tried again when it raises, for ever; after `attempts` it waits for a person too.
            outside: say so where it has effects outside the participant's database; see `handles`.
            slow: as with `handles`.
            signal: say so where clients send the event to a saga that is under way (`saga.signal`). Otherwise what
                comes from clients is heard only where it is the start of its saga.

        Raises:
            DefinitionError: the event is heard already, or the function does not fit.
        """
        if undoes is None:
            needs_none = needs_no_compensation
            reacts: ReactsTo[Any, Any] = ReactsTo(
                self.name, self.reactions, event, saga_type, refused, needs_none, retry, outside, slow, signal
            )
            return reacts
        takes_back: UndoesOn[Any, Any, Any] = UndoesOn(
            self.name, self.reactions, event, saga_type, undoes, retry, outside, slow, signal
        )
        return takes_back


class Handles(Generic[C_co, G]):
    """The decorator that `Participant.handles` returns; covariant, so that the command tells the reply."""

    def __init__(
        self, participant: Participant, command: type[C_co], concurrency: int | None, is_outside: bool, is_slow: bool
    ) -> None:
        self._participant, self._command, self._concurrency = participant, command, concurrency
        self._is_outside, self._is_slow = is_outside, is_slow

    def __call__(
        self: Handles[Command[R], G], function: Callable[[C_co, G], Awaitable[R]]
    ) -> Callable[[C_co, G], Awaitable[R]]:
        """Register the function and give it back unchanged."""
        command, handlers = self._command, self._participant.handlers
        first, given = parameters(function, ("command", "outside" if self._is_outside else "tx"))
        check_given(function, given, self._is_outside)
        if (found := annotation(function, first)) not in (None, command):
            raise DefinitionError(
                f"{named(function)} handles {command.__name__}, but its first parameter is {text(found)}. "
                "Make both the same."
            )
        if command.__contract__.type in handlers:
            other = handlers[command.__contract__.type].call
            raise DefinitionError(
                f"{command.__name__} is handled by {named(other)} and by {named(function)}. Keep one of them."
            )
        question = settle_type(command.__contract__)
        if (undoing := self._participant.compensations.get(question)) is not None:
            raise _same_as_question(undoing.compensation, command)
        handlers[command.__contract__.type] = CommandHandler(
            command, command.__reply__, function, self._concurrency, self._is_outside, self._is_slow
        )
        self._participant.settlements[question] = Settlement(command)
        return function


class Compensates(Generic[C_co, G]):
    """The decorator that `Participant.compensates` returns."""

    def __init__(self, participant: Participant, command: type[C_co], is_outside: bool, is_slow: bool) -> None:
        self._participant, self._command = participant, command
        self._is_outside, self._is_slow = is_outside, is_slow

    def __call__(
        self: Compensates[Command[R], G], function: Callable[[K, R, G], Awaitable[None]]
    ) -> Callable[[K, R, G], Awaitable[None]]:
        """Register the function and give it back unchanged."""
        command, compensations = self._command, self._participant.compensations
        first, second, given = parameters(function, ("command", "answer", "outside" if self._is_outside else "tx"))
        check_given(function, given, self._is_outside)
        compensation = _compensation(function, first, command)
        if (found := annotation(function, second)) not in (None, command.__reply__):
            raise DefinitionError(
                f"{named(function)} compensates {command.__name__}, which is answered with "
                f"{command.__reply__.__name__}, but its second parameter is {text(found)}. Make both the same."
            )
        if (asked := self._participant.settlements.get(compensation.__contract__.type)) is not None:
            raise _same_as_question(compensation, asked.command)
        if compensation.__contract__.type in compensations:
            other = compensations[compensation.__contract__.type].call
            raise DefinitionError(
                f"{compensation.__name__} is handled by {named(other)} and by {named(function)}. Keep one of them."
            )
        compensations[compensation.__contract__.type] = CompensationHandler(
            compensation, command, command.__reply__, function, self._is_outside, self._is_slow
        )
        return function


def _same_as_question(compensation: type[Compensation[Any]], command: type[Command[Any]]) -> DefinitionError:
    return DefinitionError(
        f"{compensation.__name__} is called {compensation.__contract__.name!r}, as is the question what became of "
        f"{command.__name__}. Give the compensation another name."
    )


def _require_owned(name: str, command: object) -> None:
    if not _is_command(command):
        raise DefinitionError(f"{text(command)} is no Command; a participant handles and compensates commands.")
    require_travels(command)
    require_travels(command.__reply__)
    owner = command.__contract__.owner
    if owner != name:
        raise DefinitionError(
            f"{command.__name__} is owned by {owner!r}, not by {name!r}. Let {owner!r} handle it, or change the owner "
            f"of {command.__reply__.__name__}."
        )


def _compensation(function: Callable[..., Any], first: str, command: type[Command[Any]]) -> type[Compensation[Any]]:
    found = annotation(function, first)
    if not _is_compensation(found):
        raise DefinitionError(
            f"{named(function)} compensates {command.__name__}, so its first parameter must be annotated with a class "
            f"derived from Compensation[{command.__name__}]; it is {text(found)}."
        )
    if found.__undoes__ is not command:
        raise DefinitionError(
            f"{named(function)} compensates {command.__name__}, but {found.__name__} undoes "
            f"{found.__undoes__.__name__}. Take a Compensation[{command.__name__}], or name "
            f"{found.__undoes__.__name__} in the decorator."
        )
    require_travels(found)
    return found


def _is_compensation(found: object) -> TypeGuard[type[Compensation[Any]]]:
    return isinstance(found, type) and issubclass(found, Compensation)


def _is_command(found: object) -> TypeGuard[type[Command[Any]]]:
    return isinstance(found, type) and issubclass(found, Command)
