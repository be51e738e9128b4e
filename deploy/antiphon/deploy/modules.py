"""Sagas and participants named on the command line as `module:attribute`, or by the module or package that has them."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from difflib import get_close_matches
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
    module_name, colon, attribute = path.rpartition(":")
    _require_no_file(module_name if colon else path, f":{attribute}" if colon else "")
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
    _require_no_file(name)
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
    except AntiphonError as error:
        if error.args and error.args[0] == str(error):
            error.args = (f"{error} ({_place(error, name)})",)
        raise
    except ModuleNotFoundError as error:
        raise CannotLoad(f"cannot import {name}: {_not_there(name, error)}") from None
    except SyntaxError as error:
        said = f"{type(error).__name__}: {error.msg}"
        raise CannotLoad(
            f"cannot import {name}: {said} ({_shortened(error.filename or name)}, line {error.lineno})."
        ) from None
    except SystemExit as error:
        said = f"it ends the process, with {error.code!r}, instead of only defining things"
        raise CannotLoad(f"cannot import {name}: {said} ({_place(error, name)}).") from None
    except Exception as error:
        raise CannotLoad(f"cannot import {name}: {type(error).__name__}: {error} ({_place(error, name)}).") from None


def _require_no_file(name: str, attribute: str = "") -> None:
    """Refuse the path of a file where the name of a module is meant, with that name."""
    parts = [part for part in re.split(r"[/\\]", name.removesuffix(".py")) if part not in ("", ".")]
    is_file = name.endswith(".py") or len(parts) > 1
    if is_file and all(part.isidentifier() for part in parts) and name[:1] not in "/\\":
        raise CannotLoad(f"{name + attribute!r} is no module's name; did you mean {'.'.join(parts)}{attribute}?")


def _not_there(name: str, error: ModuleNotFoundError) -> str:
    """Which module is missing, where it is imported, and what may have been meant: a module of the same package has
    been misspelt or forgotten, and only one of somebody else's is to be installed."""
    missing = error.name or name
    is_itself = name == missing or name.startswith(f"{missing}.")
    said = f"there is no module {missing!r}" + ("" if is_itself else f" ({_place(error, name)})")
    package, _, last = missing.rpartition(".")
    near = _near(package or ("" if is_itself else name.rpartition(".")[0]), last)
    if near:
        return f"{said}; did you mean {near!r}?"
    if package and package in sys.modules:
        return f"{said}. It belongs to {package}: is its file there, and called {last}.py?"
    if is_itself:
        return f"{said}. Run this where the module can be found (the current folder is searched first), or install it."
    return f"{said}. Install it."


def _near(package: str, name: str) -> str:
    """The module of a package whose name is closest to one that is missing; nothing where none is close."""
    folder = getattr(sys.modules.get(package), "__path__", None) if package else [str(Path.cwd())]
    names = [each.name for each in pkgutil.iter_modules(folder)] if folder else []
    near = get_close_matches(name, names, n=1)
    return f"{package}.{near[0]}".lstrip(".") if near else ""


def _place(error: BaseException, name: str) -> str:
    """The file and line of the author's from which it comes: the last that belongs to the package of the module, or to
    no installed one; else whichever is last."""
    frames = [
        (str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith("<frozen") and frame.f_code.co_filename != __file__
    ]
    parts = name.split(".")
    root = ".".join(parts[: 2 if parts[0] == "antiphon" else 1])
    own = [each for each in frames if _is_below(each[0], root) or not _is_installed(*each[:2])]
    if not (own or frames):
        return name
    _, file, line = (own or frames)[-1]
    return f"{_shortened(file)}, line {line}"


def _is_below(module: str, root: str) -> bool:
    return module == root or module.startswith(f"{root}.")


def _is_installed(module: str, file: str) -> bool:
    """Whether it belongs to the library, to another one, or to Python."""
    paths = (sysconfig.get_path(each) for each in ("stdlib", "purelib", "platlib"))
    return _is_below(module, "antiphon") or file.startswith("<") or any(file.startswith(path) for path in paths)


def _shortened(file: str) -> str:
    """A file as seen from the current folder, where it lies in that."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def _instead(module: ModuleType, kind: type[object]) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, kind)]
    if not names:
        return f"{module.__name__} has none."
    return f"{module.__name__} has {', '.join(f'{module.__name__}:{name}' for name in names)}."
