"""What makes a definition unsound, each with the remedy. Runs as the definition's module is imported."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

from antiphon.contracts.errors import BadIdentity, DefinitionError, HastyTimeout
from antiphon.contracts.fields import require_travels
from antiphon.contracts.identity import CLIENT, RESERVED, TOKEN_CHARS_MAX, check_token
from antiphon.contracts.messages import Command, Compensation, Event, Message, name_of, settle_type
from antiphon.contracts.reader import answer_kind
from antiphon.contracts.retry import LONGEST

from .declared import DeclaredChoreography, DeclaredSaga, DeclaredStep
from .haste import hasty_deadline, hasty_step
from .retention import check_retention

STEPS_MAX: Final = 100
"""A journal holds at most 900 entries; a hundred steps, their compensations and a few retries fit."""

COMMANDS_MAX: Final = 200
"""How many commands a saga may send, a step over a list as many as it has elements. Each has four entries at worst (it
was sent, was answered, was undone, and that was answered), which leaves a hundred for what is tried again."""

ELEMENT_CHARS: Final = 4
"""What an element's number adds to the step's name in subjects: a dash and up to three digits."""

T = TypeVar("T")


def check_saga(saga: DeclaredSaga[Any]) -> None:
    """Refuse a saga whose own settings are unsound."""
    where = f"saga {saga.name!r}"
    check_settings(where, saga)
    if saga.locks is not None:
        _require_named(saga.locks, f"locks of {where}")
    warn_of_haste(hasty_deadline(saga.name, saga.deadline.total_seconds()), frames=2)


def check_settings(where: str, saga: DeclaredSaga[Any] | DeclaredChoreography[Any]) -> None:
    """Refuse what neither a saga nor a choreography may say about itself."""
    _require_token(saga.name, where)
    if saga.name in RESERVED:
        raise DefinitionError(f"{where}: that is a name of the platform; call the saga something else.")
    start: Any = saga.start
    if not (isinstance(start, type) and issubclass(start, Event)):
        raise DefinitionError(f"{where} must start with an Event class, not {saga.start!r}.")
    if saga.version < 1:
        raise DefinitionError(f"{where}: version={saga.version}, but versions count from 1.")
    require_travels(start)
    if _is_time(where, "deadline", saga.deadline) and saga.deadline <= timedelta(0):
        raise DefinitionError(f"{where}: its deadline must lie in the future, for instance timedelta(hours=24).")
    _require_bounded(where, "deadline", saga.deadline, "where it is never to be late")
    check_retention(where, saga.retention)
    if saga.keys is not None:
        _require_named(saga.keys, f"keys of {where}")


def _is_time(where: str, what: str, duration: object) -> bool:
    """Whether it is a length of time, which is refused where it is none."""
    if isinstance(duration, timedelta):
        return True
    raise DefinitionError(f"{where}: its {what} is {duration!r}; say it as timedelta(seconds=30), for instance.")


def _require_bounded(where: str, what: str, duration: timedelta, otherwise: str) -> None:
    """Refuse what lies so far ahead that the server could not say when it is."""
    if duration > LONGEST:
        raise DefinitionError(
            f"{where}: its {what} of {duration} is too long for the server's clock. The longest is a hundred years: "
            f"say timedelta(days={LONGEST.days}) or less, {otherwise}."
        )


def require_start(saga: DeclaredSaga[Any] | DeclaredChoreography[Any], start: Event) -> None:
    """Refuse an event that a saga does not start with; one derived from it is another message."""
    if type(start) is not saga.start:
        raise DefinitionError(
            f"saga {saga.name!r} starts with {saga.start.__name__}, not with {type(start).__name__}. Send one."
        )


def require_awaited(step: DeclaredStep, saga: str, event: Event) -> None:
    """Refuse an event that a saga's step does not wait for; one derived from it is another message."""
    if step.saga.name != saga or type(event) is not step.signal:
        raise DefinitionError(f"saga {saga!r} waits for no {type(event).__name__} there.")


def check_choreography(saga: DeclaredChoreography[Any]) -> None:
    """Refuse a choreography of which nobody could say where it is."""
    where = f"choreography {saga.name!r}"
    check_settings(where, saga)
    if not saga.completes:
        raise DefinitionError(f"{where} never completes: name in completes= the event that says all is done.")
    for event in (*saga.flow, *saga.completes, *saga.compensates):
        _require_travels_if_any(event)
    for event in (*saga.completes, *saga.compensates):
        _check_end(where, saga, event)
    for event in saga.completes:
        if event in saga.compensates:
            raise DefinitionError(f"{where}: {event.__name__} cannot both complete and compensate it; keep one.")
    _check_flow(where, saga)


def _require_travels_if_any(message: object) -> None:
    """Of what is a message; what is none is refused elsewhere."""
    if _is_message(message, Message):
        require_travels(cast("type[Message]", message))


def _check_flow(where: str, saga: DeclaredChoreography[Any]) -> None:
    if saga.start not in saga.flow:
        raise DefinitionError(
            f"{where}: its flow does not say who reacts to {saga.start.__name__}, with which it starts; add "
            f"{saga.start.__name__}: and the participant."
        )
    for event, following in saga.flow.items():
        if not _is_message(event, Event):
            raise DefinitionError(f"{where}: its flow consists of Event classes, not {event!r}.")
        if event is not saga.start and event.__contract__.owner == CLIENT:
            raise DefinitionError(
                f"{where}: {event.__name__} comes from clients, and what follows from its start is said by "
                "participants. Give the event an owner."
            )
        if event in saga.ends or not following:
            raise DefinitionError(
                f"{where}: {event.__name__} stands in its flow, and "
                f"{'ends it as well' if event in saga.ends else 'nobody reacts to it'}. Name who goes on, or name it "
                "in completes= or compensates=."
            )
    if lost := [event.__name__ for event in saga.turns if event not in saga.flow]:
        raise DefinitionError(f"{where} turns with {lost[0]}, which is not in its flow; say there who reacts to it.")


def _check_end(where: str, saga: DeclaredChoreography[Any], event: object) -> None:
    if not _is_message(event, Event):
        raise DefinitionError(f"{where} must end with Event classes, not {event!r}.")
    found = cast("type[Event]", event)
    if found is saga.start:
        raise DefinitionError(f"{where} would end with {found.__name__}, which it starts with; name what comes last.")
    if found.__contract__.owner == CLIENT:
        raise DefinitionError(
            f"{where}: {found.__name__} comes from clients, and what ends a choreography is said by the participant "
            "that does its last part. Give the event an owner."
        )


def check_step(saga: DeclaredSaga[Any], step: DeclaredStep) -> None:
    """Refuse a step that does not fit into the saga as it is so far."""
    where = _where(step)
    _require_token(step.name, where)
    if step.kind == "list" and len(step.name) > TOKEN_CHARS_MAX - ELEMENT_CHARS:
        raise DefinitionError(
            f"{where} is over a list, and so its name may have {TOKEN_CHARS_MAX - ELEMENT_CHARS} letters. Shorten it."
        )
    if any(other.name == step.name for other in saga.steps):
        raise DefinitionError(f"{where} is declared twice; give one of them another name.")
    if len(saga.steps) >= STEPS_MAX:
        raise DefinitionError(f"{where} is one too many: a saga has at most {STEPS_MAX}. Split the saga.")
    for other in saga.steps:
        if _is_element(other.name, step) or _is_element(step.name, other):
            raise DefinitionError(f"{where} and {other.name!r}: one is called as an element of the other; rename it.")
    for earlier in step.after:
        _require_step(where, earlier)
        if earlier.saga is not saga:
            raise DefinitionError(
                f"{where} is after {earlier.name!r}, which belongs to saga {earlier.saga.name!r}. "
                "Name steps of its own."
            )
    if step.timeout is not None and _is_time(where, "time", step.timeout) and step.timeout <= timedelta(0):
        raise DefinitionError(
            f"{where} waits for {step.timeout}, and that must be more than nothing, for instance timedelta(seconds=30)."
        )
    if step.timeout is not None:
        _require_bounded(where, "time", step.timeout, "or leave it out where only the deadline is to end it")
    _check_size(saga, step, where)
    _check_pivot(saga, step, where)
    seconds = step.timeout.total_seconds() if step.timeout is not None else 0.0
    warn_of_haste(hasty_step(saga.name, step.name, step.kind, seconds), frames=3)


def _require_step(where: str, found: object) -> None:
    """Refuse in `after` what is no step, such as the name of one, or a function that was not decorated."""
    if not isinstance(found, DeclaredStep):
        said = f"the function {found.__name__}, which is no step" if inspect.isfunction(found) else repr(found)
        raise DefinitionError(f"{where} is after {said}; give after= the step itself, or a list of steps.")


def warn_of_haste(sentence: str, frames: int) -> None:
    """Warn of what gives up too early, if a sentence says so: sound, and seldom what its author wants.

    Args:
        sentence: why; empty for no warning.
        frames: how far above the function that calls this one the author's line is.
    """
    if sentence:
        warnings.warn(sentence, HastyTimeout, stacklevel=frames + 2)


def _check_size(saga: DeclaredSaga[Any], step: DeclaredStep, where: str) -> None:
    if step.kind == "list" and step.elements_max < 1:
        raise DefinitionError(f"{where}: at_most={step.elements_max}, and a list may have at least one element.")
    if sum(other.elements_max or 1 for other in (*saga.steps, step)) > COMMANDS_MAX:
        raise DefinitionError(
            f"{where}: that is too many, because steps and elements of lists may be "
            f"{COMMANDS_MAX} together. Lower it, or start a child saga for each part."
        )


def _is_element(name: str, step: DeclaredStep) -> bool:
    """Whether an element of a step over a list may be called so."""
    list_name, _, number = name.rpartition("-")
    return step.kind == "list" and list_name == step.name and number.isdigit()


def _check_pivot(saga: DeclaredSaga[Any], step: DeclaredStep, where: str) -> None:
    """Refuse what the point of no return does not bear."""
    pivots = [other for other in saga.steps if other.is_pivot]
    if step.is_pivot:
        if pivots:
            raise DefinitionError(f"{where}: {pivots[0].name!r} is the pivot already; a saga has one. Drop pivot=True.")
        if step.when is not None:
            raise DefinitionError(
                f"{where} is the pivot and may be skipped; then nothing would be the point of no return. Drop `when`, "
                "or make the step after it the pivot."
            )
        if step.needs_no_compensation:
            raise DefinitionError(f"{where} is the pivot, which is never undone; drop needs_no_compensation=True.")
        _require_own_reply(step, where)
    if is_past_pivot(step):
        if step.needs_no_compensation and step.kind in ("command", "list", "child"):
            raise DefinitionError(
                f"{where} comes after the pivot and is never undone; drop needs_no_compensation=True."
            )
        if step.kind == "child" and step.timeout is not None:
            raise DefinitionError(
                f"{where} comes after the pivot, from where the saga only goes forward; drop `timeout`: the other saga "
                "has a deadline of its own, and is started again if it was compensated."
            )


def _require_own_reply(step: DeclaredStep, where: str) -> None:
    """Refuse a pivot whose reply has the name, in subjects, of what Antiphon finds out about it."""
    if step.command is None:
        return
    sent, reply = step.command.__contract__, step.command.__reply__
    if answer_kind("settle", name_of(settle_type(sent)), reply.__contract__.token) is not None:
        raise DefinitionError(
            f"{where} is the pivot, and {reply.__name__} is called {reply.__contract__.name!r}, which is how Antiphon "
            f"says what became of {step.command.__name__}. Give the event, or the command, another name."
        )


def is_past_pivot(step: DeclaredStep) -> bool:
    """Whether the pivot is among the steps it comes after."""
    return any(earlier.is_pivot for earlier in ancestors(step))


def ancestors(step: DeclaredStep) -> list[DeclaredStep]:
    """All steps it comes after, however far back."""
    found: dict[str, DeclaredStep] = {}
    waiting = list(step.after)
    while waiting:
        earlier = waiting.pop()
        if earlier.name not in found:
            found[earlier.name] = earlier
            waiting.extend(earlier.after)
    return list(found.values())


def check_compensation(step: DeclaredStep, make: Callable[..., Any]) -> tuple[type[Compensation[Any]], int]:
    """Refuse a compensation that does not undo its step; return the class of the command it makes, and how much the
    function takes of the state, the command to undo, and the reply to it."""
    where = f"compensation {make.__name__!r} of step {step.name!r}"
    command: type[Compensation[Any]] = made_by(make, Compensation, where)
    assert step.command is not None
    if step.undo_command is not None:
        raise DefinitionError(f"{where}: the step has a compensation already; keep one.")
    if step.needs_no_compensation:
        raise DefinitionError(f"{where}: the step says needs_no_compensation=True; drop one of the two.")
    if is_past_pivot(step):
        raise DefinitionError(
            f"{where}: the step comes after the pivot, from where the saga only goes forward. Drop the compensation, "
            "or make a later step the pivot."
        )
    if command.__undoes__ is not step.command:
        raise DefinitionError(
            f"{where} makes {command.__name__}, which undoes {command.__undoes__.__name__}, but the step sends "
            f"{step.command.__name__}. Make a Compensation[{step.command.__name__}]."
        )
    return command, _takes(step, make, where)


def _takes(step: DeclaredStep, make: Callable[..., Any], where: str) -> int:
    """How many arguments a compensation takes; refuse one that takes something else than it will be given."""
    assert step.command is not None
    least = 2 if step.kind == "list" else 1
    hints = get_type_hints(make)
    names = [each.name for each in inspect.signature(make).parameters.values() if each.default is each.empty]
    if not least <= len(names) <= 3:
        count = f"{len(names)} argument{'s' * (len(names) != 1)}"
        raise DefinitionError(
            f"{where} takes {count}, and is given the state, the command to undo, and the reply to it or None: take "
            f"the first {'two, or all three' if least == 2 else 'one, two, or all three'}."
        )
    reply = step.command.__reply__
    for name, wanted in zip(names[1:], (step.command, reply | None), strict=False):
        if hints.get(name, wanted) not in (wanted, Any):
            spoken = reply.__name__ + " | None" if wanted is not step.command else step.command.__name__
            raise DefinitionError(f"{where}: its argument {name!r} is given a {spoken}; annotate it so.")
    return len(names)


def check_predicate(saga: DeclaredSaga[Any], step: DeclaredStep, when: Callable[..., Any]) -> None:
    """Refuse a `when` without a name, which the picture of the saga needs."""
    _require_named(when, f"`when` of {_where(step)}")


def check_signal(saga: DeclaredSaga[Any], event: type[Event]) -> str:
    """Refuse a signal that is none; return the name of its step."""
    where = f"a signal of saga {saga.name!r}"
    found: Any = event
    if not (isinstance(found, type) and issubclass(found, Event)):
        raise DefinitionError(f"{where} must be an Event class, not {event!r}.")
    if event.__contract__.owner != CLIENT:
        raise DefinitionError(
            f"{where}: {event.__name__} is owned by {event.__contract__.owner!r}, and a signal comes from outside. "
            "Declare an event without an owner."
        )
    require_travels(event)
    return event.__contract__.token


def check_awaited(saga: DeclaredSaga[Any], event: type[Event], unless: tuple[type[Event], ...]) -> str:
    """Refuse events that a step cannot wait for; return the name of the step."""
    where = f"a step of saga {saga.name!r}"
    for each in (event, *unless):
        _check_emitted(saga, where, each)
    owner = event.__contract__.owner
    for each in unless:
        if each.__contract__.owner != owner:
            raise DefinitionError(
                f"{where} waits for {event.__name__} of {owner!r} unless there is {each.__name__} of "
                f"{each.__contract__.owner!r}. Only who would have emitted the one can say that it will not come: name "
                f"an event of {owner!r}."
            )
        if each is event:
            raise DefinitionError(f"{where} waits for {event.__name__} unless it comes; name another in unless=.")
    return event.__contract__.token


def check_recorded(saga: DeclaredSaga[Any], event: type[Event]) -> None:
    """Refuse an event that cannot be recorded."""
    _check_emitted(saga, f"saga {saga.name!r}", event)


def _check_emitted(saga: DeclaredSaga[Any], where: str, event: object) -> None:
    if not _is_message(event, Event):
        raise DefinitionError(f"{where} hears Event classes, not {event!r}.")
    found = cast("type[Event]", event)
    require_travels(found)
    if found.__contract__.owner == CLIENT:
        raise DefinitionError(
            f"{where}: {found.__name__} has no owner, so it comes from outside. Wait for it with "
            f"{saga.name}.signal(), or give it the participant that emits it as owner."
        )
    known = [*saga.recorded, *(each for step in saga.steps for each in (step.signal, *step.unless))]
    if found in known:
        raise DefinitionError(f"{where}: the saga hears {found.__name__} already; a saga does so once for each event.")


def _is_saga(found: object) -> bool:
    return isinstance(found, DeclaredSaga)


def check_child(step: DeclaredStep, child: DeclaredSaga[Any], make: Callable[..., Any]) -> None:
    """Refuse a function that does not start the child."""
    if not _is_saga(child):
        raise DefinitionError(
            f"{_where(step)} starts {child!r}, which is no saga: give child() the saga itself, made by Saga(...)."
        )
    made = made_by(make, Event, _where(step))
    if made is not child.start:
        raise DefinitionError(
            f"{_where(step)} makes {made.__name__}, but saga {child.name!r} starts with {child.start.__name__}. "
            "Make one."
        )


def check_complete(saga: DeclaredSaga[Any]) -> None:
    """Refuse a saga that lacks something only its end can show."""
    if not saga.steps:
        raise DefinitionError(f"saga {saga.name!r} has no steps; decorate a function with @{saga.name}.step().")
    pivot = next((step for step in saga.steps if step.is_pivot), None)
    before = {step.name for step in ancestors(pivot)} if pivot else set[str]()
    for step in saga.steps:
        is_past = is_past_pivot(step)
        if pivot is not None and step is not pivot and step.name not in before and not is_past:
            raise DefinitionError(
                f"{_where(step)} is neither before nor after the pivot {pivot.name!r}, so nobody could say whether it "
                f"may still be undone. Add it to the pivot's `after`, or {pivot.name!r} to its own."
            )
        if not (is_past or step.is_pivot):
            _require_undoable(step)
    if pivot is not None:
        _check_way_back(saga, pivot)


def _check_way_back(saga: DeclaredSaga[Any], pivot: DeclaredStep) -> None:
    """Refuse a pivot that is undone although nothing after it turns the saga, and the reverse."""
    past = [step for step in saga.steps if is_past_pivot(step)]
    turning = [step for step in past if step.unless]
    if not turning:
        if pivot.undo_command is not None:
            raise DefinitionError(
                f"{_where(pivot)} is the pivot, which is never undone, and has a compensation. Drop that, make a later "
                "step the pivot, or wait after it for an event with unless=."
            )
        return
    first = turning[0]
    if pivot.undo_command is None:
        raise DefinitionError(
            f"{_where(first)} may turn the saga after its pivot {pivot.name!r}, which then must be undone: decorate a "
            f"function with @{pivot.name}.compensation, or drop `unless`."
        )
    for step in past:
        if step is not first and first not in ancestors(step):
            raise DefinitionError(
                f"{_where(step)} comes after the pivot and is never undone, but {first.name!r} may still turn the "
                f"saga. Put it after {first.name!r}."
            )
    if len(turning) > 1:
        raise DefinitionError(
            f"{_where(turning[1])} may turn the saga, but what comes before it is past the pivot and never undone. "
            "Drop `unless`."
        )


def _require_undoable(step: DeclaredStep) -> None:
    if step.needs_no_compensation:
        return
    if step.kind == "child":
        assert step.child is not None
        pivot = next((other for other in step.child.steps if other.is_pivot), None)
        if pivot is not None:
            raise DefinitionError(
                f"{_where(step)} starts saga {step.child.name!r}, which cannot be undone past its pivot "
                f"{pivot.name!r}. Say needs_no_compensation=True, or start it after a pivot of this saga."
            )
    elif step.undo_command is None:
        raise DefinitionError(
            f"{_where(step)} cannot be undone: decorate a function with @{step.name}.compensation, or say "
            "needs_no_compensation=True where there is nothing to undo."
        )


def made_by(make: Callable[..., Any], kind: type[T], where: str) -> type[Any]:
    """The message class a function says it returns."""
    made = _returned(make, where)
    if not _is_message(made, kind):
        raise DefinitionError(f"{where} must say which {kind.__name__} it makes: annotate what the function returns.")
    require_travels(made)
    if issubclass(made, Command):
        require_travels(made.__reply__)
    return cast(type[Any], made)


def made_by_each(make: Callable[..., Any], where: str) -> type[Command[Any]]:
    """The command class of the list a function says it returns."""
    made = _returned(make, where)
    found: Any = get_args(made)[0] if get_origin(made) is list else None
    if not _is_message(found, Command):
        raise DefinitionError(f"{where} must say of which Command it makes a list: annotate it with list[...].")
    require_travels(found)
    require_travels(found.__reply__)
    return cast(type[Command[Any]], found)


def _is_message(found: Any, kind: type[Any]) -> bool:
    return isinstance(found, type) and issubclass(found, kind) and hasattr(found, "__contract__")


def _returned(make: Callable[..., Any], where: str) -> Any:
    if inspect.iscoroutinefunction(make):
        raise DefinitionError(f"{where} is async, but steps are pure functions: drop the `async`.")
    try:
        return get_type_hints(make).get("return")
    except NameError as error:
        raise DefinitionError(f"{where}: its annotations cannot be read ({error}); import what they name.") from None


def _require_named(function: Callable[..., Any], where: str) -> None:
    if getattr(function, "__name__", "<lambda>") == "<lambda>" or inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{where} must be a plain function with a name, which stands in pictures and sentences.")


def _where(step: DeclaredStep) -> str:
    return f"step {step.name!r} of saga {step.saga.name!r}"


def _require_token(name: str, where: str) -> None:
    try:
        check_token(name, "the name")
    except BadIdentity as error:
        raise DefinitionError(f"{where}: {error}.") from None
