"""The two databases, for the suite that both pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.deploy.local.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sagas.db"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.new_database()
