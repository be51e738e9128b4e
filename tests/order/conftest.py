"""The three services on fresh databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.order.services import PARTICIPANTS, Services, services


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Services]:
    """All three services, each with a SQLite database of its own."""
    async with services({each.name: f"sqlite:///{tmp_path / each.name}.db" for each in PARTICIPANTS}) as opened:
        yield opened
