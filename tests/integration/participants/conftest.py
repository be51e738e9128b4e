"""The three databases, for the suite that all of them pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.deploy.local.postgres import Postgres

from .stock import Store, sqlite_url


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
