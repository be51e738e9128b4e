"""A trace drawn as a waterfall: a tree on the left, time to the right, in a terminal or as plain text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace
from rich.table import Table
from rich.text import Text

from antiphon.tracing.project import Projection
from antiphon.tracing.spans import Span
from antiphon.tracing.tree import Difference, Row, label, rows

NAMES_MIN: Final = 24
NAMES_MAX: Final = 46
LENGTHS: Final = 11
BARS_MIN: Final = 20
NOTES: Final = 40
"""How much of a reason is shown behind its bar."""

CRITICAL, ORDINARY, WAITING, MOMENT = "█", "─", "·", "◆"
STATES: Final = {"completed": "green", "compensated": "magenta", "": "cyan"}
LEGEND: Final = (
    (f"{CRITICAL} on the critical path  {ORDINARY} beside it  {WAITING} in the queue  {MOMENT} a moment   ", "dim"),
    ("done ", "green"),
    ("refused ", "red"),
    ("unknown ", "yellow"),
    ("compensated ", "magenta"),
    ("running", "cyan"),
)


def waterfall(projection: Projection, width: int, with_sends: bool = False, now_ns: int = 0) -> Text:
    """Draw one saga.

    Args:
        projection: its trace.
        width: of the terminal, in characters.
        with_sends: whether the sending of commands is shown.
        now_ns: to which time spans last that are not over; the last entry's when 0.
    """
    spans = [*projection.spans, *(_until(span, now_ns) for span in projection.open)]
    drawn = rows(spans, with_sends)
    if not drawn:
        return Text(f"{projection.key} has no journal yet")
    scale = _Scale(drawn, width)
    lines = [_head(projection, drawn[0].span), *(scale.line(row) for row in drawn), Text.assemble(*LEGEND)]
    return Text("\n").join(lines)


def _head(projection: Projection, root: Span) -> Text:
    outcome = projection.outcome
    reason = f": {root.attributes['saga.reason']}" if "saga.reason" in root.attributes else ""
    return Text.assemble(
        (f"{projection.key}  ", "bold"),
        (outcome or "running", STATES[outcome]),
        f"{reason}  in {duration(root.end_ns - root.start_ns)}  ",
        (f"{root.attributes.get('saga.definition', '')}  trace {root.trace_id}", "dim"),
    )


class _Scale:
    """Where what stands in a drawing of some width."""

    def __init__(self, drawn: list[Row], width: int) -> None:
        widest = max(2 * row.depth + len(label(row.span)) for row in drawn)
        self.names = min(max(NAMES_MIN, widest + 1), NAMES_MAX)
        self.bars = max(BARS_MIN, width - self.names - LENGTHS - 2)
        self.start_ns = min(row.span.start_ns for row in drawn)
        self.length_ns = max(1, max(row.span.end_ns for row in drawn) - self.start_ns)

    def line(self, row: Row) -> Text:
        """One row."""
        span, colour = row.span, _colour(row)
        name = f"{'  ' * row.depth}{label(span)}"
        if len(name) > self.names - 1:
            name = f"{name[: self.names - 2]}…"
        length = duration(span.end_ns - span.start_ns) if span.end_ns > span.start_ns else ""
        line = Text(f"{name:<{self.names}}", "bold" if row.depth == 0 else colour)
        line.append(f"{length:>{LENGTHS - 2}}  ", "" if row.is_critical else "dim")
        self._bar(line, row, colour)
        return line

    def _bar(self, line: Text, row: Row, colour: str) -> None:
        span = row.span
        first, last = self._column(span.start_ns), self._column(span.end_ns)
        queued = span.attributes.get("saga.queue_ms", 0.0)
        waited = self._column(span.start_ns - round(float(queued) * 1e6)) if queued else first
        glyph = CRITICAL if row.is_critical else ORDINARY
        bar = MOMENT if span.end_ns == span.start_ns else glyph * max(1, last - first)
        note = "▶" if row.is_open else _note(span)
        is_before = bool(note) and first + len(bar) + len(note) >= self.bars and len(note) < waited
        line.append(f"{note:>{waited - 1}} " if is_before else " " * waited, colour)
        line.append(WAITING * (first - waited), "dim")
        line.append(bar, colour)
        if note and not is_before:
            line.append(f" {note}", colour)

    def _column(self, at_ns: int) -> int:
        share = max(0, at_ns - self.start_ns) / self.length_ns
        return min(self.bars - 1, int(share * self.bars))


def _colour(row: Row) -> str:
    span = row.span
    match span.attributes.get("saga.outcome"):
        case "refused":
            return "red"
        case "unknown":
            return "yellow"
        case "compensated" | "undone":
            return "magenta"
        case "abandoned":
            return "dim"
        case "done" | "completed":
            return "green"
        case _ if row.is_open:
            return "cyan"
        case _ if span.status == "error":
            return "yellow"
        case _:
            return "magenta" if span.attributes.get("saga.direction") == "undo" else "blue"


def _note(span: Span) -> str:
    said = span.message or str(span.attributes.get("saga.reason") or span.attributes.get("saga.lock") or "")
    if not span.parent_id:
        return ""
    return said if len(said) <= NOTES else f"{said[: NOTES - 1]}…"


def _until(span: Span, now_ns: int) -> Span:
    return replace(span, end_ns=now_ns) if now_ns > span.end_ns else span


def difference_table(one: Projection, other: Projection, found: Iterable[Difference]) -> Table:
    """Two traces side by side; marked where they went another way."""
    table = Table(box=None, padding=(0, 1))
    table.add_column("")
    table.add_column(str(one.key), justify="right")
    table.add_column("")
    table.add_column(str(other.key), justify="right")
    table.add_column("")
    table.add_column("change", justify="right")
    for each in found:
        style = "bold yellow" if each.is_another_way else ""
        change = _signed(each.change_ns) if each.one and each.other else ""
        cells = (*_cells(each.one), *_cells(each.other))
        table.add_row(Text(each.name), *(Text(cell) for cell in cells), Text(change), style=style)
    return table


def _cells(span: Span | None) -> tuple[str, str]:
    if span is None:
        return "", "not there"
    return duration(span.end_ns - span.start_ns), str(
        span.attributes.get("saga.outcome") or span.attributes.get("saga.answer") or ""
    )


def duration(length_ns: int) -> str:
    """A length of time as a person reads it."""
    seconds = length_ns / 1e9
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"


def _signed(change_ns: int) -> str:
    return f"{'+' if change_ns >= 0 else '-'}{duration(abs(change_ns))}"
