"""What the decorators of this folder read from a handler's signature: enough to refuse it as its module is imported."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, ForwardRef, get_type_hints

from antiphon.contracts.errors import DefinitionError


def parameters(function: Callable[..., Any], wanted: tuple[str, ...]) -> list[str]:
    """The names of a handler's parameters, if it can be called as the library will."""
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{named(function)} must be an `async def` function.")
    found = list(inspect.signature(function).parameters.values())
    needed = [p for p in found if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) != len(wanted):
        takes = "1 parameter" if len(needed) == 1 else f"{len(needed)} parameters"
        raise DefinitionError(f"{named(function)} must take {', '.join(wanted)}; it takes {takes}.")
    return [parameter.name for parameter in needed]


def annotation(function: Callable[..., Any], parameter: str) -> Any:
    """The class a parameter is annotated with, or None. Only this one is resolved: others may be for type checkers."""
    annotation = function.__annotations__.get(parameter)
    if not isinstance(annotation, str):
        return annotation
    holder = type("holder", (), {"__annotations__": {parameter: ForwardRef(annotation)}})
    try:
        return get_type_hints(holder, vars(sys.modules[function.__module__]))[parameter]
    except NameError as error:
        raise DefinitionError(
            f"{named(function)}: the annotation {annotation!r} of {parameter!r} cannot be resolved ({error}). "
            "Import or define that class at the top of the module, not under TYPE_CHECKING and not in a function."
        ) from None


def check_given(function: Callable[..., Any], parameter: str, is_outside: bool) -> None:
    """Refuse a handler that is declared with `outside=True` and takes a Transaction, or the other way round."""
    found = function.__annotations__.get(parameter)
    name = found if isinstance(found, str) else getattr(found, "__name__", "")
    if is_outside and name.rpartition(".")[2] == "Transaction":
        how = "with outside=True, so its {0!r} is an Outside, not a Transaction"
    elif not is_outside and name.rpartition(".")[2] == "Outside":
        how = "without outside=True, so its {0!r} is a Transaction, not an Outside"
    else:
        return
    raise DefinitionError(f"{named(function)} is declared {how.format(parameter)}.")


def named(function: Callable[..., Any]) -> str:
    """A function as a sentence names it."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def text(found: object) -> str:
    """An annotation, or what stands in its place, as a sentence names it."""
    if found is None:
        return "without an annotation"
    return getattr(found, "__name__", repr(found))
