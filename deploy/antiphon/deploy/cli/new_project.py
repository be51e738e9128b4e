"""`antiphon new`: a first project, copied from `template/` under a name of its own."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import unicodedata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from ..files import told_if_unwritable
from ..modules import CannotLoad
from ..render.terminal import say

TEMPLATE: Final = Path(__file__).parents[1] / "template"
TEMPLATE_NAME: Final = "shop"
"""What the project is called in the template, wherever its name stands as a word."""
FILES: Final = (
    ".gitignore",
    "Makefile",
    "README.md",
    "order.json",
    "pyproject.toml",
    "shop/__init__.py",
    "shop/billing.py",
    "shop/messages.py",
    "shop/saga.py",
    "shop/stock.py",
    "tests/__init__.py",
    "tests/test_orders.py",
    "tests/test_saga.py",
    "tests/test_whole_platform.py",
)
"""All that is copied: tools may have left other files beside these."""
NAME_CHARS_MAX: Final = 40
"""Lines of the template with a longer name in them would be wrapped otherwise."""

NAME: Final = re.compile(r"[A-Za-z](\w*[A-Za-z0-9])?", re.ASCII)
"""An identifier that is also a distribution's name."""
NEEDED: Final = frozenset({"antiphon", "hatchling", "mypy", "pytest", "pytest_asyncio", "ruff", "sqlalchemy", "tests"})
"""Modules of the project, and of what its Makefile installs: a package of that name would hide them."""


def new_project(place: Path) -> None:
    """Write a project into a new folder, or into an empty one. It is called as the folder is.

    Raises:
        CannotLoad: the folder is not empty, or its name cannot be a package's.
        CannotWrite: it cannot be written.
    """
    folder = place.resolve()
    name = folder.name
    _require_name(name)
    _require_empty(folder)
    with told_if_unwritable("the project", folder):
        for file in FILES:
            target = folder / _renamed(file, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_renamed((TEMPLATE / file).read_text(), name))
    say(*_next_steps(place, name))


def _require_name(name: str) -> None:
    if keyword.iskeyword(name):
        raise CannotLoad(f"{name!r} is a word of Python's own, so no package can be called so. {_another(name)}")
    if not NAME.fullmatch(name):
        raise CannotLoad(
            f"a project's name has the letters a to z, digits, and _ between them, as pip and Python want it, and "
            f"{name!r} has others. {_another(name)}"
        )
    if len(name) > NAME_CHARS_MAX:
        raise CannotLoad(f"{name!r} is longer than {NAME_CHARS_MAX} characters. Choose a shorter name.")
    if name in sys.stdlib_module_names:
        raise CannotLoad(f"{name!r} is a module of Python itself, which a package of yours would hide. Choose another.")
    if name in NEEDED:
        raise CannotLoad(f"{name!r} is a module that the project needs, and would hide. Choose another.")
    if (where := _installed(name)) is not None:
        raise CannotLoad(f"{name!r} is installed here already, in {where}. Choose another name.")


def _another(name: str) -> str:
    """A name like it that could be one, as an advice."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = [word for word in re.split(r"[^A-Za-z0-9]+", plain) if word]
    advised = "_".join(words).lower().lstrip("0123456789_")
    is_one = advised and not keyword.iskeyword(advised) and advised not in sys.stdlib_module_names
    return f"Try: antiphon new {advised if is_one else 'my_project'}"


def _installed(name: str) -> str | None:
    """Where a module of this name is found that is not merely a folder below the current one."""
    here = {"", str(Path.cwd())}
    found = PathFinder.find_spec(name, [path for path in sys.path if path not in here])
    return (
        None if found is None else found.origin or str(next(iter(found.submodule_search_locations or ()), "sys.path"))
    )


def _require_empty(folder: Path) -> None:
    with told_if_unwritable("the project", folder):
        if folder.exists() and not folder.is_dir():
            raise CannotLoad(f"{folder} is there already, and is no folder. Name another, or move it away.")
        if folder.exists() and any(folder.iterdir()):
            raise CannotLoad(f"{folder} is there already, and is not empty. Name another, or move it away.")


def _renamed(text: str, name: str) -> str:
    return re.sub(rf"\b{TEMPLATE_NAME}\b", name, text)


def _next_steps(place: Path, name: str) -> list[str]:
    # Another Python than the one that runs this may lack antiphon: where no environment is active, name ours.
    is_active = shutil.which("python3") == str(Path(sys.executable).with_name("python3"))
    python = "" if is_active else f" PYTHON={sys.executable}"
    return [
        f"{name} is written: two participants, the saga that leads them, and their tests.",
        "",
        *([] if place.resolve() == Path.cwd() else [f"  cd {place}"]),
        f"  make run{python}     # one order through a platform on this machine, and what happened",
        f"  make test{python}",
    ]
