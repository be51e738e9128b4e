"""What a person does with traces: look at one, follow it, write it to a file, compare two, export old ones again."""

from __future__ import annotations

import asyncio
import io
import os
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from antiphon.contracts import subjects
from antiphon.contracts.clock import nanoseconds
from antiphon.contracts.counting import counted
from antiphon.contracts.errors import AntiphonError, PlatformError, UnknownSaga, Unusable
from antiphon.contracts.foreign_text import harmless_json
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import parse_entry, parse_fact
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link import Link
from antiphon.tracing.export.formats import jaeger, otlp
from antiphon.tracing.export.reading import Purged, read_projection
from antiphon.tracing.projection.differences import differences
from antiphon.tracing.projection.links import jaeger_link, require_page
from antiphon.tracing.projection.project import Projection

from ..modules import CannotLoad
from ..render.plain import warn
from ..render.terminal import console, foreign, say, say_encoded, say_json
from ..render.waterfall import PLAIN, difference_table, result, waterfall
from .archives import read_from
from .sagas import find, reader
from .values import value_of

Format = Literal["picture", "jaeger", "otlp"]

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
UNITS_NS: Final = {unit: seconds * 10**9 for unit, seconds in UNITS.items()}

LOOK_SECONDS: Final = 0.25
"""How often a saga that is followed is looked at."""
BEGIN_SECONDS: Final = 1.0
"""How often one is looked for that has not begun; by its id alone that is a search."""

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as shells have it."""


class NotTakenIn(AntiphonError):
    """A saga was started, and no coordinator has begun its journal."""

    def __init__(self, saga: SagaKey) -> None:
        super().__init__(f"no coordinator has begun saga {saga} yet, which was started. Run one with its definition.")


async def show_trace(
    server: str, id: str, form: Format, output: Path | None, with_sends: bool, jaeger_url: str, follow: bool
) -> None:
    """Draw a saga's trace, or write it in a format that others open; with `follow` once the saga has ended."""
    if jaeger_url:
        require_page(jaeger_url)
    out = console()
    async with reader(server) as link:
        found = await (_follow(link, id, with_sends, out) if follow else read_trace(link, await find(link, id)))
    if form == "picture" or found.outcome or not follow:
        _tell(found, form, output, with_sends, jaeger_url)
    if follow and not found.outcome:
        raise typer.Exit(INTERRUPTED)


def show_archived_trace(
    folder: Path, id: str, form: Format, output: Path | None, with_sends: bool, jaeger_url: str
) -> None:
    """The same, of a saga that an archive has."""
    if jaeger_url:
        require_page(jaeger_url)
    _tell(read_from(folder, id).projection(), form, output, with_sends, jaeger_url)


def _tell(found: Projection, form: Format, output: Path | None, with_sends: bool, jaeger_url: str) -> None:
    if form == "picture":
        _draw_to(output, found, with_sends, jaeger_url)
    else:
        spans = [*found.spans, *found.open]
        _write(msgspec.json.format(msgspec.json.encode(jaeger(spans) if form == "jaeger" else otlp(spans))), output)


async def _follow(link: Link, id: str, with_sends: bool, out: Console) -> Projection:
    """Draw a saga's trace anew in a terminal whenever there is more of it, until the saga has ended, or until Ctrl-C:
    then what there was last is the answer."""
    found: Projection | None = None
    try:
        found = await _begun(link, id)
        with Live(console=out, auto_refresh=False, transient=True) as live:
            while not found.outcome:
                live.update(_last_lines(waterfall(found, out.width, with_sends, time.time_ns()), out), refresh=True)
                await asyncio.sleep(LOOK_SECONDS)
                found = await read_trace(link, found.key)
    except asyncio.CancelledError:
        if found is None:
            raise typer.Exit(INTERRUPTED) from None
    return found


async def _begun(link: Link, id: str) -> Projection:
    """A saga's trace; a saga that has not begun is waited for."""
    is_told = False
    while True:
        try:
            return await read_trace(link, await find(link, id))
        except (UnknownSaga, NotTakenIn):
            if not is_told:
                warn(f"antiphon: saga {id} has not begun; waiting for it until Ctrl-C.")
            is_told = True
            await asyncio.sleep(BEGIN_SECONDS)


async def compare_traces(server: str, one: str, other: str, as_json: bool) -> bool:
    """Put two sagas side by side; whether they went another way somewhere."""
    async with reader(server) as link:
        first = await read_trace(link, await find(link, one))
        second = await read_trace(link, await find(link, other))
    found = differences([*first.spans, *first.open], [*second.spans, *second.open])
    if as_json:
        say_json([_told(each.name, each.one, each.other, each.is_another_way) for each in found])
    else:
        out = console()
        for name, projection in (("one", first), ("other", second)):
            out.print(foreign(f"{name:<5}  {projection.key}  {projection.outcome or 'running'}"), soft_wrap=True)
        out.print(difference_table(found, out.width))
    return any(each.is_another_way for each in found)


async def export_again(server: str, since: str, slow_seconds: float) -> None:
    """Export the traces of all sagas that began or ended since a time.

    Raises:
        CannotLoad: that is no time in the past.
        PlatformError: the environment makes no sense, or the backend did not take a trace.
    """
    from antiphon.tracing.export.exporter import NotTaken, reexport
    from antiphon.tracing.export.otlp import Backend
    from antiphon.tracing.projection.sampling import ratio_of

    ratio = ratio_of(os.environ)
    with value_of("--since"):
        since_ns = moment_of(since, time.time_ns())
    backend = Backend()
    async with reader(server) as link:
        keys = await sagas_since(link, since_ns)
        try:
            count = await reexport(link, keys, backend.send, slow_seconds, ratio)
        except NotTaken as error:
            why = f": {backend.failure.reason}" if backend.failure else ""
            raise PlatformError(
                f"the backend at {backend.endpoint} did not take the trace of saga {error.key}{why}. {error.count} of "
                f"{counted(len(keys), 'saga')} exported before. Look whether it takes OTLP there; the variables "
                "OTEL_EXPORTER_OTLP_* say where and how."
            ) from None
        finally:
            backend.close()
    say(f"exported {count} of {counted(len(keys), 'saga')} again; the others were not sampled.")


async def sagas_since(link: Link, since_ns: int) -> list[SagaKey]:
    """All sagas that began or ended since a time, in that order."""
    found: dict[SagaKey, None] = {}
    for stream, wanted in ((EVENTS, subjects.STARTS_FILTER), (SAGA, subjects.ENDS_FILTER)):
        async for message in link.scan(stream, wanted):
            if message.stored_ns >= since_ns:
                with suppress(Unusable):  # a forged start is parked, and stops nobody here
                    found[_saga_at(message.subject)] = None
    return list(found)


def moment_of(text: str, now_ns: int) -> int:
    """A time, or how long ago it was, as nanoseconds since 1970; without a zone it is the time of this machine.

    Raises:
        CannotLoad: it is neither, or nothing can have happened since.
    """
    if ago := re.fullmatch(r"([0-9]{1,6})([smhdw])", text):
        at_ns = now_ns - int(ago.group(1)) * UNITS_NS[ago.group(2)]
    else:
        try:
            at_ns = nanoseconds(datetime.fromisoformat(text).astimezone(UTC))
        except (ValueError, OverflowError):
            raise CannotLoad(
                f"{text!r} is neither a time (2026-11-24T09:00Z) nor how long ago (90m, 2h, 3d, 1w)."
            ) from None
    if at_ns >= now_ns:
        raise CannotLoad(f"{text} is not in the past, so there is nothing to export since then.")
    return at_ns


def _saga_at(subject: str) -> SagaKey:
    return parse_fact(subject).saga if subjects.is_start(subject) else parse_entry(subject).saga


async def read_trace(link: Link, key: SagaKey) -> Projection:
    try:
        found = await read_projection(link, key)
    except Purged as error:
        raise CannotLoad(str(error)) from None
    if found.read_to:
        return found
    if await link.read_all(EVENTS, subjects.start_subjects(key)):
        raise NotTakenIn(key)
    raise UnknownSaga(key.type, key.id)


def _draw_to(output: Path | None, found: Projection, with_sends: bool, jaeger_url: str) -> None:
    """Draw a saga's trace on the terminal, or into a file."""
    if output is None:
        draw(console(), found, with_sends, jaeger_url)
        return
    drawn = io.StringIO()
    draw(console(drawn), found, with_sends, jaeger_url)
    _save(drawn.getvalue().encode(), output)


def draw(out: Console, found: Projection, with_sends: bool, jaeger_url: str) -> None:
    """Draw a saga's trace, up to now if it runs, and say where Jaeger shows it."""
    picture = _fitting(waterfall(found, out.width, with_sends, time.time_ns()), out)
    out.print(picture, no_wrap=True, crop=False, overflow="ignore")
    if url := jaeger_link(found.key, jaeger_url):
        out.print(foreign(url), soft_wrap=True)


def _fitting(picture: Text, out: Console) -> Text:
    """A picture in signs that can be written there."""
    if out.options.ascii_only:
        picture.plain = picture.plain.translate(PLAIN)
    return picture


def _last_lines(picture: Text, out: Console) -> Text:
    """As much of a picture as a terminal holds: what happens now is at its end."""
    lines = _fitting(picture, out).split("\n")
    return Text("\n").join([*lines[:1], *lines[1:][-max(1, out.height - 2) :]])


def _told(name: str, one: Any, other: Any, is_another_way: bool) -> dict[str, Any]:
    def side(span: Any) -> dict[str, Any] | None:
        if span is None:
            return None
        return {"ms": (span.end_ns - span.start_ns) / 1e6, "outcome": result(span)}

    return {"name": name, "one": side(one), "other": side(other), "differs": is_another_way}


def _write(data: bytes, output: Path | None) -> None:
    if output is None:
        say_encoded(data)
    else:
        _save(harmless_json(data) + b"\n", output)


def _save(data: bytes, output: Path) -> None:
    try:
        output.write_bytes(data)
    except OSError as error:
        raise CannotLoad(f"cannot write the trace to {output}: {error.strerror}.") from None
