"""Whether what a database URL needs is installed; asked before anything that imports it."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from antiphon.contracts.errors import PlatformError

DRIVERS: Final = {
    "sqlite": ("sqlite", "aiosqlite"),
    "postgresql": ("postgres", "asyncpg"),
    "postgres": ("postgres", "asyncpg"),
}
"""The extra and the driver, by the URL's scheme."""


def require_drivers(url: str) -> None:
    """Check that a read model can be opened at a URL.

    Raises:
        PlatformError: no such kind of database, or the extra that brings its driver is not installed.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme not in DRIVERS:
        raise PlatformError(f"{scheme!r} is no database for a read model. Give sqlite:///path or postgresql://….")
    extra, driver = DRIVERS[scheme]
    try:
        import_module("sqlalchemy")
        import_module(driver)
    except ModuleNotFoundError as error:
        raise PlatformError(
            f"this database needs the package {error.name!r}, which is not installed. "
            f"Run: pip install 'antiphon[{extra}]'"
        ) from None
