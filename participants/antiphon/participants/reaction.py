"""Choreography: what a participant does by itself when it hears an event, declared, and checked on import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Final, Generic, TypeGuard, TypeVar, Union, get_args, get_origin

import msgspec

from antiphon.contracts.errors import BadIdentity, DefinitionError
from antiphon.contracts.fields import require_travels
from antiphon.contracts.identity import CLIENT, TOKEN_CHARS_MAX, check_token
from antiphon.contracts.messages import Contract, Event
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import REACTION_STEP_CHARS, heard_filter

from .signatures import annotation, check_given, named, parameters, text
from .transaction import Outside, Transaction

REACTION_RETRY: Final = Retry(attempts=10, first_seconds=1, factor=2, cap_seconds=900)
"""How far apart a reaction that fails is tried again, for ever; after `attempts` it waits for a person as well. No
coordinator could take the matter over, and whoever waits for its event would wait in vain."""

E = TypeVar("E", bound=Event)
A = TypeVar("A", bound=Event)
F = TypeVar("F", bound=Event | None)
G = TypeVar("G", Transaction, Outside)
"""What a reaction is given beside its event."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """The function that is called when an event is heard, and what may come of it."""

    event: type[Event]
    saga_type: str
    """Whose events are heard; empty for those of all sagas."""
    emits: tuple[type[Event], ...]
    """It publishes one of these."""
    may_be_silent: bool
    """Or nothing at all."""
    refused: type[Event] | None
    """What it publishes instead when it refuses; it has no effect then."""
    undoes: Reaction | None
    """The reaction whose effect it takes back."""
    needs_no_compensation: bool
    """It leaves nothing behind that a later failure would have to take back."""
    retry: Retry
    call: Callable[..., Awaitable[Event | None]]
    is_outside: bool = False
    """Whether it has effects outside the database, and so runs outside a transaction."""
    is_slow: bool = False
    """Whether its statements take long."""
    is_signal: bool = False
    """Whether a client's event is heard as a signal, and not as the start of its saga."""

    @property
    def filter(self) -> str:
        """Where the event is stored."""
        contract = self.event.__contract__
        return heard_filter(self.saga_type, contract.owner, contract.token, self.is_signal)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.call.__name__

    @property
    def outcomes(self) -> tuple[type[Event], ...]:
        """All events that it may publish."""
        return (*self.emits, self.refused) if self.refused else self.emits


class ReactsTo(Generic[E, G]):
    """The decorator that `Participant.reacts_to` returns; it adds a reaction to those of a participant, by its name."""

    def __init__(
        self,
        participant: str,
        reactions: list[Reaction],
        event: type[E],
        saga_type: str,
        refused: type[Event] | None,
        needs_no_compensation: bool,
        retry: Retry,
        is_outside: bool,
        is_slow: bool,
        is_signal: bool,
    ) -> None:
        _check_event(participant, event, saga_type, is_signal)
        if refused is not None:
            _check_refusal(participant, event, refused)
        self._participant, self._reactions = participant, reactions
        self._event, self._saga_type = event, saga_type
        self._refused, self._needs_none, self._retry = refused, needs_no_compensation, retry
        self._is_outside, self._is_slow, self._is_signal = is_outside, is_slow, is_signal

    def __call__(self, function: Callable[[E, G], Awaitable[F]]) -> Callable[[E, G], Awaitable[F]]:
        """Register the function and give it back unchanged."""
        first, given = parameters(function, ("event", "outside" if self._is_outside else "tx"))
        check_given(function, given, self._is_outside)
        _check_first(function, first, self._event)
        emits, may_be_silent = _outcomes(self._participant, function)
        if self._refused in emits:
            raise DefinitionError(
                f"{named(function)} returns {text(self._refused)}, which is what stands for its refusal: raise Refused "
                "instead, so that whatever it did is rolled back, or leave refused= out."
            )
        reaction = Reaction(
            event=self._event,
            saga_type=self._saga_type,
            emits=emits,
            may_be_silent=may_be_silent,
            refused=self._refused,
            undoes=None,
            needs_no_compensation=self._needs_none,
            retry=self._retry,
            call=function,
            is_outside=self._is_outside,
            is_slow=self._is_slow,
            is_signal=self._is_signal,
        )
        _register(self._participant, self._reactions, reaction)
        return function


class UndoesOn(Generic[E, A, G]):
    """The decorator that `Participant.reacts_to` returns where the reaction takes back what another one did."""

    def __init__(
        self,
        participant: str,
        reactions: list[Reaction],
        event: type[E],
        saga_type: str,
        undoes: Callable[[Any, Any], Awaitable[A]],
        retry: Retry,
        is_outside: bool,
        is_slow: bool,
        is_signal: bool,
    ) -> None:
        _check_event(participant, event, saga_type, is_signal)
        self._participant, self._reactions = participant, reactions
        self._event, self._saga_type, self._retry = event, saga_type, retry
        self._is_outside, self._is_slow, self._is_signal = is_outside, is_slow, is_signal
        self._undoes = _undone(participant, reactions, event, saga_type, undoes)

    def __call__(self, function: Callable[[E, A, G], Awaitable[F]]) -> Callable[[E, A, G], Awaitable[F]]:
        """Register the function and give it back unchanged."""
        first, second, given = parameters(function, ("event", "answer", "outside" if self._is_outside else "tx"))
        check_given(function, given, self._is_outside)
        _check_first(function, first, self._event)
        found = annotation(function, second)
        if found is not None and set(_members(found)) != set(self._undoes.emits):
            raise DefinitionError(
                f"{named(function)} takes back {named(self._undoes.call)}, which publishes "
                f"{' or '.join(map(text, self._undoes.emits))}, but its second parameter is {text(found)}. "
                "Make both the same."
            )
        emits, may_be_silent = _outcomes(self._participant, function)
        reaction = Reaction(
            event=self._event,
            saga_type=self._saga_type,
            emits=emits,
            may_be_silent=may_be_silent,
            refused=None,
            undoes=self._undoes,
            needs_no_compensation=True,
            retry=self._retry,
            call=function,
            is_outside=self._is_outside,
            is_slow=self._is_slow,
            is_signal=self._is_signal,
        )
        _register(self._participant, self._reactions, reaction)
        return function


def _check_event(participant: str, event: object, saga_type: str, is_signal: bool) -> None:
    """Refuse an event that no participant can react to."""
    if not _is_event(event):
        raise DefinitionError(f"{text(event)} is no Event; a participant reacts to events, and handles commands.")
    require_travels(event)
    contract = event.__contract__
    if len(contract.token) > TOKEN_CHARS_MAX - REACTION_STEP_CHARS:
        raise DefinitionError(
            f"{event.__name__}: a subject names what {participant} does on {contract.name!r}, so its name may "
            f"have {TOKEN_CHARS_MAX - REACTION_STEP_CHARS} characters."
        )
    try:
        check_token(saga_type or "any", "saga_type")
    except BadIdentity as error:
        raise DefinitionError(f"{participant} reacts to {event.__name__}: {error}.") from None
    if contract.owner == CLIENT and not saga_type:
        raise DefinitionError(
            f"{event.__name__} comes from clients, which start sagas of every type with what belongs to that type: say "
            f"of which sagas {participant} hears it, with saga_type=."
        )
    if is_signal and contract.owner != CLIENT:
        raise DefinitionError(
            f"{event.__name__} is owned by {contract.owner!r}, and signals come from clients; leave signal= out."
        )


def _check_first(function: Callable[..., Any], first: str, event: type[Event]) -> None:
    if (found := annotation(function, first)) not in (None, event):
        raise DefinitionError(
            f"{named(function)} reacts to {event.__name__}, but its first parameter is {text(found)}. "
            "Make both the same."
        )


def _check_refusal(participant: str, event: type[Event], refused: object) -> None:
    """The library makes this event, of a reason alone."""
    where = f"{participant} refuses {event.__name__} with {text(refused)}"
    if not _is_event(refused):
        raise DefinitionError(f"{where}, which is no Event; others react to a refusal as to any event.")
    _check_owner(participant, refused, where)
    fields = msgspec.structs.fields(refused)
    if {each.name for each in fields if each.required} - {"reason"} or "reason" not in {each.name for each in fields}:
        raise DefinitionError(
            f"{where}, which is made of the reason alone: declare `reason: str`, and give other fields a default."
        )


def _undone(
    participant: str, reactions: list[Reaction], event: type[Event], saga_type: str, undoes: Callable[..., Any]
) -> Reaction:
    """The reaction that a function was registered for."""
    where = f"{participant} takes back {named(undoes)} on {event.__name__}"
    found = next((each for each in reactions if each.call is undoes), None)
    if found is None:
        raise DefinitionError(
            f"{where}, which is none of its reactions: decorate it with @{participant}.reacts_to first."
        )
    if found.saga_type != saga_type:
        raise DefinitionError(
            f"{where} with saga_type={saga_type!r}, but that hears sagas of {found.saga_type or 'every type'!r}. "
            "Make both the same."
        )
    if found.undoes is not None:
        raise DefinitionError(f"{where}, which takes something back itself and stays.")
    if found.needs_no_compensation:
        raise DefinitionError(f"{where}, which says needs_no_compensation=True; drop one of the two.")
    if found.may_be_silent or not found.emits:
        raise DefinitionError(
            f"{where}, which may publish nothing; then there is no answer that says what was done. Let it always "
            "return an event."
        )
    return found


def _outcomes(participant: str, function: Callable[..., Any]) -> tuple[tuple[type[Event], ...], bool]:
    """The events a function says it may return, and whether None is among them."""
    if "return" not in function.__annotations__:
        raise DefinitionError(
            f"{named(function)} must say which events come of it: annotate what it returns, None where that is nothing."
        )
    emits: list[type[Event]] = []
    members = _members(annotation(function, "return"))
    for member in members:
        if member is NoneType:
            continue
        if not _is_event(member):
            raise DefinitionError(
                f"{named(function)} returns {text(member)}, and what comes of a reaction is an Event, one of several "
                "(A | B), or None."
            )
        _check_owner(participant, member, f"{named(function)} publishes {member.__name__}")
        emits.append(member)
    return tuple(emits), NoneType in members


def _check_owner(participant: str, event: type[Event], where: str) -> None:
    require_travels(event)
    owner = event.__contract__.owner
    if owner != participant:
        raise DefinitionError(
            f"{where}, which is owned by {owner!r}. Only its owner may publish it: give it owner={participant!r}, "
            "or publish another."
        )


def _register(participant: str, reactions: list[Reaction], reaction: Reaction) -> None:
    """Add a reaction, if the participant has no other for the same event."""
    for other in reactions:
        if _overlap(other, reaction):
            raise DefinitionError(
                f"{reaction.event.__name__} is heard by {named(other.call)} and by {named(reaction.call)}. Keep one of "
                "them, or give each a saga_type of its own."
            )
        theirs, ours = other.event.__contract__, reaction.event.__contract__
        if theirs.token == ours.token and (theirs.owner, theirs.name) != (ours.owner, ours.name):
            raise DefinitionError(
                f"{participant} hears {theirs.name!r} of {theirs.owner} and {ours.name!r} of {ours.owner}, which "
                f"subjects do not tell apart: both are {ours.token!r} there. Give one of them another name."
            )
    reactions.append(reaction)


def _overlap(one: Reaction, other: Reaction) -> bool:
    return _key(one.event.__contract__) == _key(other.event.__contract__) and (
        one.saga_type == other.saga_type or not (one.saga_type and other.saga_type)
    )


def _key(contract: Contract) -> tuple[str, str]:
    return contract.owner, contract.type


def _members(annotated: Any) -> tuple[Any, ...]:
    """The members of a union, or the one class that is annotated."""
    if get_origin(annotated) in (Union, UnionType):
        return get_args(annotated)
    return (NoneType,) if annotated is None else (annotated,)


def _is_event(found: object) -> TypeGuard[type[Event]]:
    return isinstance(found, type) and issubclass(found, Event) and hasattr(found, "__contract__")
