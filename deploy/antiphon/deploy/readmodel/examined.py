"""What `antiphon doctor` says of the read model's database: reachable, of this release, filled. It is only read."""

from __future__ import annotations

from sqlalchemy import func, select

from antiphon.contracts.counting import counted
from antiphon.contracts.errors import PlatformError

from ..admin.doctor.databases import read_only, settings_of, tables_in
from ..admin.doctor.findings import Deployment, Finding
from .model import generations, incomplete, sagas


async def readmodel(found: Deployment) -> list[Finding]:
    """The read model's database, where one is named."""
    return await _look(found.readmodel) if found.readmodel else []


async def _look(url: str) -> list[Finding]:
    what, start = "the read model's database", "antiphon readmodel --database, which makes its tables and fills them"
    try:
        async with read_only(url) as connection:
            if generations.name not in await connection.run_sync(tables_in):
                return [Finding("readmodel", "fault", f"{what} holds no read model of this release", start)]
            live = await connection.scalar(select(generations.c.generation).where(generations.c.is_live))
            if live is None:
                said = f"{what} holds a read model that is not filled yet"
                return [Finding("readmodel", "warning", said, f"look whether it runs: {start}")]
            rows = await connection.scalar(select(func.count()).where(sagas.c.generation == live))
            lacking = await connection.scalar(select(func.count()).where(incomplete.c.generation == live))
            findings = [Finding("readmodel", "fine", f"{what} can be read, and has {counted(rows or 0, 'saga')}")]
            if lacking:
                said = f"of {counted(lacking, 'saga')} the read model's rows lack something"
                findings.append(Finding("readmodel", "warning", said, "antiphon list --json, which says what and why"))
            return [*findings, *await settings_of("readmodel", what, connection)]
    except PlatformError as error:
        return [Finding("readmodel", "fault", f"{what} cannot be read: {error}", f"is it there? {start}")]
