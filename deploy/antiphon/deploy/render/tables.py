"""Sagas drawn in a terminal; without one, the same as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from antiphon.contracts.counting import counted
from antiphon.contracts.identity import SagaKey
from antiphon.coordinator.views.parked import Dismissal, Waiting
from antiphon.coordinator.views.timeline import Line, Summary, Timeline
from antiphon.coordinator.views.wording import LineKind
from antiphon.tracing.projection.links import checked_link

from .terminal import console, foreign, parts
from .waterfall import duration, shortened

STEP_CHARS_MAX: Final = 32
WHO_CHARS_MAX: Final = 20
"""A name of somebody's choice leaves room for what happened: names may have 64 characters and more."""

MARKS: Final[dict[LineKind, tuple[str, str]]] = {
    "start": ("●", "bold"),
    "command": ("→", "cyan"),
    "answer": ("✓", "green"),
    "refusal": ("✗", "red"),
    "unknown": ("?", "yellow"),
    "compensation": ("↩", "magenta"),
    "cancel": ("■", "yellow"),
    "signal": ("◆", "cyan"),
    "event": ("♪", "green"),
    "operator": ("☞", "yellow"),
    "notice": ("◇", "cyan"),
    "parked": ("‖", "red"),
    "record": ("·", "dim"),
    "timer": ("◷", "yellow"),
    "end": ("◼", "bold"),
}
"""How each kind of line is marked, and its colour."""

TERMS: Final = {
    "not taken in": "the saga ended without it, and nothing followed from it",
    "not taken in yet": "no coordinator has read it so far",
    "superseded": "the participant did nothing, since a compensation or a later attempt had come before",
    "exhausted": "the participant has failed as often as it may try; whether it happened is not known",
}
"""What words in a timeline mean, said below it where they stand in it."""

COLOURS: Final = {"completed": "green", "compensated": "magenta", "running": "cyan", "compensating": "yellow"}


PURGED: Final = (
    "It has ended, and its journal and events were purged since; the outcome stays. Where it was archived: "
    "--archive FOLDER"
)


def print_timeline(told: Timeline, jaeger: str | None = None) -> None:
    """Draw one saga: a heading, and a line for each fact.

    Args:
        told: the saga.
        jaeger: where Jaeger is, for a link to its trace; ANTIPHON_JAEGER_URL when left out.
    """
    out = console()
    reason, definition = f": {told.reason}" if told.reason else "", f"  {told.definition}" if told.definition else ""
    state = (told.state, COLOURS[told.state])
    out.print(parts((f"{told.type}/{told.id}", "bold"), "  ", state, reason, (definition, "dim")))
    if told.entries > told.entries_max // 2:  # for most sagas nobody needs to know
        out.print(foreign(f"its journal has {told.entries} of {told.entries_max} entries", "yellow"))
    for word, text in (("parked ", told.parked), ("", told.paused), ("started by ", told.parent)):
        if text:
            out.print(foreign(f"{word}{text}", "yellow"))
    if told.children:
        out.print(foreign(f"started {', '.join(told.children)}", "dim"))
    if told.left_out:
        out.print(foreign(f"not shown: {counted(told.left_out, 'message')} more that were written to it", "yellow"))
    if told.forgotten:
        out.print(foreign(f"forgotten {told.forgotten}", "yellow"))
    elif told.purged:
        out.print(foreign(PURGED, "yellow"))
    if link := checked_link(SagaKey.of(told.type, told.id), jaeger):
        out.print(foreign(link, "dim"), soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    has_ended = told.state in ("completed", "compensated")
    end_ms = max((line.since_start_ms for line in told.lines if not line.late), default=0.0)
    said = set[str]()
    for line in told.lines:
        when = "after the end" if line.since_start_ms > end_ms else "not taken in"
        late = when if has_ended else "not taken in yet"
        table.add_row(*_cells(line, late))
        said |= {late} if line.late else {line.text.partition(":")[0]}
    out.print(table)
    for word in sorted(said & TERMS.keys()):
        out.print(foreign(f"{word}: {TERMS[word]}", "dim"), soft_wrap=True)


def print_summaries(found: Iterable[Summary], saga_type: str = "*") -> None:
    """Draw a table of sagas, of one type or of all."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("saga", "state", "started", "ended", "waits", "reason"):
        table.add_column(heading, no_wrap=heading != "reason", overflow="fold")
    for each in found:
        state = foreign(each.state, COLOURS[each.state])
        waits = Text("parked", "red") if each.parked else Text("paused", "yellow") if each.paused else Text()
        times = map(foreign, (_clock(each.started), _clock(each.ended)))
        reason = foreign(each.reason or each.parked or each.paused)
        table.add_row(foreign(f"{each.type}/{each.id}"), state, *times, waits, reason)
    of_type = "" if saga_type == "*" else f" of type {saga_type}"
    console().print(table if table.row_count else foreign(f"no sagas{of_type} were started here yet."))


def print_waiting(found: Iterable[Waiting]) -> None:
    """Draw a table of what waits for a person."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("what", "step", "since", "tried", "why"):
        table.add_column(heading, no_wrap=heading != "why", overflow="fold")
    for each in found:
        what = each.saga if each.kind == "saga" else f"message {each.sequence} ({each.kind})"
        if each.is_unreadable:
            what = f"message {each.sequence} (unreadable)"
        if each.kind == "paused":
            what = each.subject
        if each.more:
            what = f"{each.more:,} message{'' if each.more == 1 else 's'} ({each.kind})"
        why = each.reason if each.kind == "saga" or not each.saga else f"{each.saga}: {each.reason}"
        if each.is_unreadable:
            why += f" ({each.subject}, {each.size_bytes:,} bytes, noticed by {each.noticed_by})"
        link = checked_link(SagaKey.of(*each.saga.split("/"))) if each.saga else ""
        told = Text("\n").join([foreign(why), foreign(link, "dim")]) if link else foreign(why)
        table.add_row(*map(foreign, (what, each.step, _clock(each.since), str(each.tried or ""))), told)
    console().print(table if table.row_count else "nothing waits for a person.")


def print_dismissals(found: Mapping[int, Sequence[Dismissal]]) -> None:
    """Draw a table of what operators said of messages that were set aside."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("message", "what", "by", "when", "why"):
        table.add_column(heading, no_wrap=heading != "why", overflow="fold")
    for number, said in sorted(found.items()):
        for each in said:
            table.add_row(*map(foreign, (str(number), each.verb, each.user, _clock(each.at), each.reason)))
    console().print(table if table.row_count else "nobody has dismissed a message or sent one again.")


def _cells(line: Line, late: str) -> list[Text]:
    mark, colour = MARKS[line.kind]
    attempt = f" #{line.attempt}" if line.attempt > 1 else ""
    remark = f" ({late})" if line.late else ""
    return [
        Text(f"+{duration(round(line.since_start_ms * 1e6))}"),
        Text(mark, colour),
        foreign(f"{shortened(line.step, STEP_CHARS_MAX)}{attempt}", colour),
        foreign(shortened(line.who, WHO_CHARS_MAX)),
        parts(line.text, (remark, "dim")),
    ]


def _clock(at: str) -> str:
    """RFC 3339 without the fraction, which no reader of a table wants."""
    return at[:19].replace("T", " ")
