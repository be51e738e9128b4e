"""Sagas and participants named on the command line as `module:attribute`."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from antiphon.contracts.errors import AntiphonError
from antiphon.coordinator.definition.choreography import AnySaga, Choreography
from antiphon.coordinator.definition.saga import Saga

T = TypeVar("T")


class CannotLoad(AntiphonError):
    """What the command line names cannot be imported, or is something else. The sentence has the remedy."""


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
