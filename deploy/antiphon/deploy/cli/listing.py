"""`antiphon list` from the read model: which sagas, in which order, and what is printed of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec
from rich import box
from rich.table import Table

from antiphon.contracts.clock import rfc3339
from antiphon.contracts.identity import check_token
from antiphon.contracts.payloads import SagaState
from antiphon.coordinator.views.summary import Overview

from ..readmodel.model import Query, Sort, opened
from ..render.plain import warn
from ..render.tables import COLOURS
from ..render.terminal import console, foreign, say_json
from .filters import UNITS, more_than

WHY_CHARS_MAX: Final = 160
NAMED_MAX: Final = 5
"""So many sagas of which the read model lacks something are named; of the rest there is the count."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A saga as `list --json` prints it. Times are RFC 3339 in UTC, and empty where there is none."""

    type: str
    id: str
    state: SagaState
    definition: str
    started: str
    changed: str
    ended: str
    age_seconds: float
    """Since its start: to its end, or to now."""
    steps: tuple[str, ...]
    parked: str
    paused: str
    reason: str
    keys: dict[str, str]
    incomplete: str
    """Why the row does not say all; empty where it does."""


async def list_from_model(
    database: str,
    saga_type: str,
    state: SagaState | None,
    parked: bool,
    older_ns: int,
    keys: Sequence[tuple[str, str]],
    sort: Sort,
    limit: int,
    as_json: bool,
) -> None:
    """Print what the read model has."""
    now_ns = time.time_ns()
    query = Query(
        type="" if saga_type == "*" else check_token(saga_type, "saga type"),
        state=state,
        parked=parked,
        started_before_ns=now_ns - older_ns if older_ns else 0,
        keys=dict(keys),
        sort=sort,
        limit=limit + 1,
    )
    async with opened(database) as model:
        rows = await model.find(query)
        names, count = await model.lacking(NAMED_MAX)
    found = [listed(row, now_ns) for row in rows[:limit]]
    if as_json:
        say_json(found)
    else:
        print_listed(found)
    if len(rows) > limit:
        warn(f"antiphon: {more_than(limit)}")
    if count:
        warn(_lacking(names, count))


def _lacking(names: Sequence[str], count: int) -> str:
    others = f" and {count - len(names)} more" if count > len(names) else ""
    return (
        f"the read model does not have all of {count} saga{'' if count == 1 else 's'}: {', '.join(names)}{others}. Its "
        "log says why, and `antiphon show` reads their journals."
    )


def listed(row: Overview, now_ns: int) -> Listed:
    """A row for a reader."""
    return Listed(
        type=row.type,
        id=row.id,
        state=row.state,
        definition=row.definition,
        started=_time(row.started_ns),
        changed=_time(row.changed_ns),
        ended=_time(row.ended_ns),
        age_seconds=round(((row.ended_ns or now_ns) - row.started_ns) / 1e9, 3),
        steps=row.steps,
        parked=row.parked,
        paused=row.paused,
        reason=row.reason,
        keys=row.keys,
        incomplete=row.incomplete,
    )


def print_listed(found: Sequence[Listed]) -> None:
    """Draw a table of sagas."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("saga", "state", "age", "started", "steps", "keys", "why"):
        table.add_column(heading, no_wrap=heading not in ("steps", "keys", "why"), overflow="fold")
    for each in found:
        keys = ", ".join(f"{name}={value}" for name, value in each.keys.items())
        lacking = _marked("incomplete", each.incomplete)
        why = "; ".join(part for part in (lacking, _marked("parked", each.parked), each.paused, each.reason) if part)
        cells = (_age(each.age_seconds), each.started[:19].replace("T", " "), ", ".join(each.steps), keys)
        state = foreign(each.state, COLOURS[each.state])
        table.add_row(foreign(f"{each.type}/{each.id}"), state, *map(foreign, cells), foreign(_shortened(why)))
    console().print(table if table.row_count else "no saga is like that.")


def _shortened(why: str) -> str:
    """A reason as far as a table has room; `show` and --json have all of it."""
    return why if len(why) <= WHY_CHARS_MAX else f"{why[: WHY_CHARS_MAX - 1]}…"


def _time(at_ns: int) -> str:
    return rfc3339(at_ns) if at_ns else ""


def _marked(what: str, why: str) -> str:
    return f"{what}: {why}" if why else ""


def _age(seconds: float) -> str:
    """The age in its two largest units."""
    for (unit, size), smaller in zip([("d", 86_400), ("h", 3600), ("m", 60)], ("h", "m", "s"), strict=True):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}{int(seconds % size // UNITS[smaller])}{smaller}"
    return f"{seconds:.1f}s"
