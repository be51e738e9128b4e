"""Sagas and participants named on the command line as `module:attribute`, or by the module or package that has them."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar, cast

from antiphon.contracts.errors import AntiphonError
from antiphon.coordinator.definition.choreography import AnySaga, Choreography
from antiphon.coordinator.definition.saga import Saga

T = TypeVar("T")

NO_PART: Final = re.compile("tests?|test_.*|.*_test|conftest")
"""The names of modules in a package that are no part of what it does."""


class CannotLoad(AntiphonError):
    """What the command line names cannot be imported, or is something else. The sentence has the remedy."""


class WrongValue(CannotLoad):
    """An option has a value that it cannot have, whatever there is on the server. Nothing was begun."""


def load(path: str, kind: type[T]) -> T:
    """The object at `module:attribute`, searched in the current folder first.

    Raises:
        CannotLoad: there is no such module or attribute, it fails to import, or it is of another kind.
        DefinitionError: its module defines something unsound.
    """
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise CannotLoad(f"{path!r} is not module:attribute, such as antiphon.order.saga:order.")
    module = load_module(module_name)
    found = getattr(module, attribute, None)
    if not isinstance(found, kind):
        raise CannotLoad(f"{path} is no {kind.__name__}. {_instead(module, kind)}")
    return found


def load_saga(path: str) -> AnySaga:
    """The saga or choreography at `module:attribute`.

    Raises:
        CannotLoad, DefinitionError: as `load`.
    """
    if isinstance(load(path, object), Choreography):
        return load(path, cast("type[Choreography[Any]]", Choreography))
    return load(path, cast("type[Saga[Any]]", Saga))


def load_sagas(path: str) -> list[AnySaga]:
    """The saga or choreography at `module:attribute`, or all that a module or a package has.

    Raises:
        CannotLoad, DefinitionError: as `load`.
    """
    if ":" in path:
        return [load_saga(path)]
    kinds: tuple[type[Any], ...] = (Saga, Choreography)
    found = [*found_in(path, kinds).values()]
    if not found:
        raise CannotLoad(f"{path} has neither a saga nor a choreography.")
    return found


def found_in(name: str, kinds: tuple[type[Any], ...]) -> dict[str, Any]:
    """All of some kinds that a module has, or the modules of a package, each once, by `module:attribute`.

    Left out are modules that do something when they are imported, `__main__`, and tests.

    Raises:
        CannotLoad: there is no such module, or one of them fails to import.
        DefinitionError: one of them defines something unsound.
    """
    found: dict[int, tuple[str, Any]] = {}
    for module in _modules_of(load_module(name)):
        for attribute, value in vars(module).items():
            if isinstance(value, kinds):
                found.setdefault(id(value), (f"{module.__name__}:{attribute}", value))
    return dict(found.values())


def _modules_of(module: ModuleType) -> Iterator[ModuleType]:
    """A module, and if it is a package those below it, in the order of their names."""
    yield module
    for each in sorted(pkgutil.iter_modules(getattr(module, "__path__", [])), key=lambda each: each.name):
        if each.name != "__main__" and not NO_PART.fullmatch(each.name):
            yield from _modules_of(load_module(f"{module.__name__}.{each.name}"))


def load_module(name: str) -> ModuleType:
    """The module of this name, searched in the current folder first.

    Raises:
        CannotLoad: there is none, or it fails to import.
        DefinitionError: it defines something unsound.
    """
    if not name or name.startswith("."):
        raise CannotLoad(
            f"{name!r} is no module's name, such as antiphon.order.saga: name it as from the folder where it can be "
            "found, and run this there."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except AntiphonError:
        raise
    except ModuleNotFoundError as error:
        remedy = (
            "Run this where the module can be found (the current folder is searched first), or install it."
            if error.name and name.startswith(error.name)
            else f"{name} needs it: install it."
        )
        raise CannotLoad(f"cannot import {name}: there is no module {error.name!r}. {remedy}") from None
    except SystemExit as error:
        said = f"it ends the process, with {error.code!r}, instead of only defining things"
        raise CannotLoad(f"cannot import {name}: {said} ({_place(error)}).") from None
    except Exception as error:
        raise CannotLoad(f"cannot import {name}: {type(error).__name__}: {error} ({_place(error)}).") from None


def _place(error: BaseException) -> str:
    """The file and line that it comes from."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{where.filename}, line {where.lineno}"


def _instead(module: ModuleType, kind: type[object]) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, kind)]
    if not names:
        return f"{module.__name__} has none."
    return f"{module.__name__} has {', '.join(f'{module.__name__}:{name}' for name in names)}."
