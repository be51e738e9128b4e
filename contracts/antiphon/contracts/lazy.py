"""Packages that load a module of theirs only when somebody asks for a name in it (PEP 562).

So whoever defines a saga or a participant loads neither a network client nor a database. Type checkers see ordinary
imports, which a package writes under TYPE_CHECKING beside the call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType


def on_demand(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`.

    Args:
        package: the package's own name.
        names: by each public name the module that has it, `.saga` or `antiphon.contracts.retry`.
    """

    of_a_module = {name for name, module in names.items() if module == f".{name}"}

    class Package(ModuleType):
        """Where a module and a name in it are called alike, the package's is the name, also once the module is loaded,
        when Python would put the module there."""

        def __setattr__(self, name: str, value: object) -> None:
            is_module = isinstance(value, ModuleType) and name in of_a_module
            super().__setattr__(name, getattr(value, name) if is_module else value)

    def get(name: str) -> object:
        module = names.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found: object = getattr(import_module(module, package), name)
        setattr(sys.modules[package], name, found)  # asked for once
        return found

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    if of_a_module:
        sys.modules[package].__class__ = Package
    return get, listed
