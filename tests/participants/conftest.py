"""The three databases, for the suite that all of them pass."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.postgres import REQUIRED, Postgres, postgres

from .stock import Store, sqlite_url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL for all tests; they are skipped where there is none, unless it must be there."""
    try:
        with postgres() as server:
            yield server
    except LookupError as error:
        if os.environ.get(REQUIRED) == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty database of each kind."""
    kind: str = request.param
    match kind:
        case "memory":
            found = Store(kind, "memory:")
        case "sqlite":
            found = Store(kind, sqlite_url(tmp_path))
        case _:
            server: Postgres = request.getfixturevalue("postgres_server")
            found = Store(kind, server.new_database())
    yield found
    await found.close()
