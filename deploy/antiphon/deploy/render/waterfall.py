"""A trace drawn as a waterfall: a tree on the left, time to the right, in a terminal or as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace
from rich.table import Table
from rich.text import Text

from antiphon.contracts.foreign_text import harmless
from antiphon.tracing.projection.differences import Difference
from antiphon.tracing.projection.project import Projection
from antiphon.tracing.projection.spans import Span
from antiphon.tracing.projection.tree import Row, label, rows

from .terminal import foreign, parts

NAMES_MIN: Final = 12
NAMES_MAX: Final = 46
LENGTHS: Final = 11
BARS_MIN: Final = 20
"""Where there is no room for as much, lengths are left out: the bars tell them, too."""
CHANGES_MIN: Final = 80
"""In less than so many characters two traces are compared without the column of changes."""
OPEN_END: Final = 2
"""What is kept free behind the bars, for the mark of what goes on."""

CRITICAL, ORDINARY, COMPUTED, WAITING, MOMENT, GOES_ON = "█", "─", "┄", "·", "◆", "▶"
PLAIN: Final = str.maketrans("█─┄·◆▶…", "#-~.*>.")
"""What is drawn where there is nothing but ASCII."""
STATES: Final = {"completed": "green", "compensated": "magenta", "": "cyan"}
LEGEND: Final = (
    (f"{CRITICAL} on the critical path  {ORDINARY} beside it  ", "dim"),
    (f"{COMPUTED} a try that came to nothing, its times computed  ", "dim"),
    (f"{WAITING} in the queue  {MOMENT} a moment   ", "dim"),
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

    Returns:
        Lines of no more than that width, unless it is less than 40.
    """
    spans = [*projection.spans, *(_until(span, now_ns) for span in projection.open)]
    drawn = rows(spans, with_sends)
    if not drawn:
        return foreign(f"{projection.key} has no journal yet")
    scale = _Scale(drawn, width)
    head = wrapped(_head(projection, drawn[0].span), width)
    bars = [line for row in drawn for line in scale.lines(row)]
    return Text("\n").join([*head, *bars, *wrapped(_legend(drawn), width)])


def wrapped(text: Text, width: int) -> list[Text]:
    """A text in lines of at most a width, broken between words."""
    breaks, begins = list[int](), 0
    for word in re.finditer(r"\S+", text.plain):
        if word.end() - begins > width and word.start() > begins:
            begins = word.start()
            breaks.append(begins)
    lines = [*text.divide(breaks)]
    for line in lines:
        line.rstrip()
    return lines


def shortened(text: str, width: int) -> str:
    """A text that loses its middle where it is too long: what tells names apart is at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: max(0, width - 1 - tail)]}…{text[len(text) - tail :]}"


def _legend(drawn: Iterable[Row]) -> Text:
    """What the signs mean; of computed times only where there are some."""
    has_computed = any(_is_computed(row.span) for row in drawn)
    return Text.assemble(*(part for part in LEGEND if has_computed or not part[0].startswith(COMPUTED)))


def _head(projection: Projection, root: Span) -> Text:
    outcome = projection.outcome
    reason = f": {root.attributes['saga.reason']}" if "saga.reason" in root.attributes else ""
    return parts(
        (f"{projection.key}  ", "bold"),
        (outcome or ("compensating" if projection.turned else "running"), STATES[outcome]),
        f"{reason}  in {duration(root.end_ns - root.start_ns)}  ",
        (f"{root.attributes.get('saga.definition', '')}  trace {root.trace_id}", "dim"),
    )


class _Scale:
    """Where what stands in a drawing of some width."""

    def __init__(self, drawn: list[Row], width: int) -> None:
        self.width = width
        widest = max(2 * row.depth + len(_label(row.span)) for row in drawn)
        self.lengths = LENGTHS if width >= NAMES_MIN + LENGTHS + BARS_MIN + OPEN_END else 0
        room = width - self.lengths - BARS_MIN - OPEN_END
        self.names = max(NAMES_MIN, min(widest + 1, NAMES_MAX, room))
        self.bars = max(1, width - self.names - self.lengths - OPEN_END)
        self.start_ns = min(row.span.start_ns for row in drawn)
        self.length_ns = max(1, max(row.span.end_ns for row in drawn) - self.start_ns)

    def lines(self, row: Row) -> list[Text]:
        """One row: a line, and below it its note where there is no room beside the bar."""
        span, colour = row.span, _colour(row)
        indent = "  " * row.depth
        name = f"{indent}{shortened(_label(span), self.names - 1 - len(indent))}"
        length = duration(span.end_ns - span.start_ns) if self.lengths and span.end_ns > span.start_ns else ""
        line = Text(f"{name:<{self.names}}", "bold" if row.depth == 0 else colour)
        if self.lengths:
            line.append(f"{length:>{LENGTHS - 2}}  ", "" if row.is_critical else "dim")
        below = self._bar(line, row, colour)
        cut = f"{indent}  {below}"[: self.width]
        return [line, Text(cut if len(cut) < self.width else f"{cut[:-1]}…", colour)] if below else [line]

    def _bar(self, line: Text, row: Row, colour: str) -> str:
        """Draw it, with what is to be noted behind or before it; what has no room there."""
        span = row.span
        first, last = self._column(span.start_ns), self._column(span.end_ns)
        queued = span.attributes.get("saga.queue_ms", 0.0)
        waited = self._column(span.start_ns - round(float(queued) * 1e6)) if queued else first
        glyph = COMPUTED if _is_computed(span) else CRITICAL if row.is_critical else ORDINARY
        bar = MOMENT if span.end_ns == span.start_ns else glyph * max(1, last - first)
        note = _note(span)
        fits_behind = first + len(bar) + 1 + len(note) <= self.bars + OPEN_END
        is_before = bool(note) and (row.is_open or not fits_behind) and len(note) < waited
        line.append(f"{note:>{waited - 1}} " if is_before else " " * waited, colour)
        line.append(WAITING * (first - waited), "dim")
        line.append(f"{bar} {GOES_ON}" if row.is_open else bar, colour)
        if not note or is_before:
            return ""
        if row.is_open or not fits_behind:
            return note
        line.append(f" {note}", colour)
        return ""

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
    if not span.parent_id:
        return ""  # the head has it
    attributes = span.attributes
    return harmless(span.message or str(attributes.get("saga.reason") or attributes.get("saga.lock") or ""))


def _label(span: Span) -> str:
    return harmless(label(span))


def _is_computed(span: Span) -> bool:
    return bool(span.attributes.get("saga.synthesised"))


def _until(span: Span, now_ns: int) -> Span:
    return replace(span, end_ns=now_ns) if now_ns > span.end_ns else span


def difference_table(found: Iterable[Difference], width: int) -> Table:
    """Two traces side by side, marked where they went another way; in a narrow terminal without the change."""
    drawn = [(each, [*map(harmless, (*_cells(each.one), *_cells(each.other), _change(each)))]) for each in found]
    headings = ("one", "", "other", "", "change") if width >= CHANGES_MIN else ("one", "", "other", "")
    taken = sum(
        1 + max(len(heading), *(len(cells[place]) for _, cells in drawn)) for place, heading in enumerate(headings)
    )
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for each, cells in drawn:
        name = shortened(harmless(each.name), max(NAMES_MIN, width - taken))
        style = "bold yellow" if each.is_another_way else ""
        table.add_row(*(Text(cell) for cell in (name, *cells[: len(headings)])), style=style)
    return table


def _change(each: Difference) -> str:
    return _signed(each.change_ns) if each.one and each.other else ""


def _cells(span: Span | None) -> tuple[str, str]:
    return ("", "not there") if span is None else (duration(span.end_ns - span.start_ns), result(span))


def result(span: Span) -> str:
    """What came of a span: its outcome, or its answer; empty if neither is known."""
    return str(span.attributes.get("saga.outcome") or span.attributes.get("saga.answer") or "")


def duration(length_ns: int) -> str:
    """A length of time as a person reads it."""
    seconds = length_ns / 1e9
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02}:{seconds:02} h"
    return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"


def _signed(change_ns: int) -> str:
    return f"{'+' if change_ns >= 0 else '-'}{duration(abs(change_ns))}"
