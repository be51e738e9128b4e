"""What makes a definition unsound, each with the remedy. Runs as the definition's module is imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from antiphon.contracts.errors import BadIdentity, DefinitionError
from antiphon.contracts.messages import Compensation, Event
from antiphon.contracts.wire import check_token

if TYPE_CHECKING:
    from .saga import Saga, Step

STEPS_MAX: Final = 100
"""A journal holds at most 900 entries; a hundred steps, their compensations and a few retries fit."""

T = TypeVar("T")


def check_saga(saga: Saga[Any]) -> None:
    """Refuse a saga whose own settings are unsound."""
    where = f"saga {saga.name!r}"
    _require_token(saga.name, where)
    start: Any = saga.start
    if not (isinstance(start, type) and issubclass(start, Event)):
        raise DefinitionError(f"{where} must start with an Event class, not {saga.start!r}.")
    if saga.version < 1:
        raise DefinitionError(f"{where}: version={saga.version}, but versions count from 1.")
    if saga.deadline <= timedelta(0):
        raise DefinitionError(f"{where}: its deadline must lie in the future, for instance timedelta(hours=24).")


def check_step(saga: Saga[Any], step: Step[Any]) -> None:
    """Refuse a step that does not fit into the saga as it is so far."""
    where = f"step {step.name!r} of saga {saga.name!r}"
    _require_token(step.name, where)
    if any(other.name == step.name for other in saga.steps):
        raise DefinitionError(f"{where} is declared twice; give one of the functions another name.")
    if len(saga.steps) >= STEPS_MAX:
        raise DefinitionError(f"{where} is one too many: a saga has at most {STEPS_MAX}. Split the saga.")
    for earlier in step.after:
        if earlier.saga is not saga:
            raise DefinitionError(f"{where} is after {earlier.name!r}, which belongs to saga {earlier.saga.name!r}.")


def check_compensation(step: Step[Any], make: Callable[..., Any]) -> type[Compensation[Any]]:
    """Refuse a compensation that does not undo its step; return the class of the command it makes."""
    where = f"compensation {make.__name__!r} of step {step.name!r}"
    command: type[Compensation[Any]] = made_by(make, Compensation, where)
    if step.undo_command is not None:
        raise DefinitionError(f"{where}: the step has a compensation already; keep one.")
    if step.needs_no_compensation:
        raise DefinitionError(f"{where}: the step says needs_no_compensation=True; drop one of the two.")
    if command.__undoes__ is not step.command:
        raise DefinitionError(
            f"{where} makes {command.__name__}, which undoes {command.__undoes__.__name__}, but the step sends "
            f"{step.command.__name__}. Make a Compensation[{step.command.__name__}]."
        )
    return command


def check_complete(saga: Saga[Any]) -> None:
    """Refuse a saga that lacks something only its end can show."""
    if not saga.steps:
        raise DefinitionError(f"saga {saga.name!r} has no steps; decorate a function with @{saga.name}.step().")
    for step in saga.steps:
        if step.undo_command is None and not step.needs_no_compensation:
            raise DefinitionError(
                f"step {step.name!r} of saga {saga.name!r} cannot be undone: decorate a function with "
                f"@{step.name}.compensation, or say needs_no_compensation=True where there is nothing to undo."
            )


def made_by(make: Callable[..., Any], kind: type[T], where: str) -> type[Any]:
    """The message class a function says it returns."""
    if inspect.iscoroutinefunction(make):
        raise DefinitionError(f"{where} is async, but steps are pure functions: drop the `async`.")
    try:
        made = get_type_hints(make).get("return")
    except NameError as error:
        raise DefinitionError(f"{where}: its annotations cannot be read ({error}); import what they name.") from None
    if not (isinstance(made, type) and issubclass(made, kind) and hasattr(made, "__contract__")):
        raise DefinitionError(f"{where} must say which {kind.__name__} it makes: annotate what the function returns.")
    return made


def _require_token(name: str, where: str) -> None:
    try:
        check_token(name, "the name")
    except BadIdentity as error:
        raise DefinitionError(f"{where}: {error}.") from None
