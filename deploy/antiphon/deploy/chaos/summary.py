"""What a storm came to, as a document to be kept: Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .score import Row, Score, Spread

TOLD_MAX: Final = 200
"""How many lines of timelines a document has at most; the sentences themselves are all there."""


def as_markdown(score: Score, heading: str, about: Sequence[tuple[str, str]]) -> str:
    """A storm's score as a document.

    Args:
        score: what it came to.
        heading: of the document.
        about: what was run where, such as versions and the command: each a name and a value.
    """
    parts = [
        f"# {heading}",
        "\n".join(table(("what", "value"), [*about, *_facts(score)])),
        "## Faults by kind",
        "Seconds since a fault began, p50 / max: until a saga that began after it had ended, until all had ended that "
        "were under way, and until the processes that it ended served again. Faults that overlap share what they cost.",
        _rows("kind", score.kinds),
        "## Faults by sort",
        _rows("fault", score.rows),
        "## Sagas by outcome",
        "\n".join(table(("outcome", "sagas"), [(name, f"{count}") for name, count in score.outcomes.items()])),
        *_listed("Faults that did not come about", score.impossible),
        *_listed("Violations", score.violations),
        *_timelines(score),
        f"`{score.last_line}`",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(score: Score) -> list[tuple[str, str]]:
    return [
        ("seed", f"{score.seed}"),
        ("duration", f"{score.seconds:g} s"),
        ("sagas", f"{score.sagas}"),
        ("faults", f"{score.faults}"),
        ("kills of the stream's leader", f"{score.leader_kills}"),
        ("faults that did not come about", f"{len(score.impossible)}"),
        ("violations", f"{len(score.violations)}"),
        ("throughput", f"{score.rate:g} sagas/s"),
        ("a saga, p50 / max", f"{_seconds(score.duration)} s"),
    ]


def _rows(first: str, rows: Iterable[Row]) -> str:
    cells = [(row.sort, f"{row.faults}", *map(_seconds, (row.next_saga, row.under_way, row.process))) for row in rows]
    return "\n".join(table((first, "times", "next saga", "under way", "process"), cells))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, with all columns but the first to the right."""
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return [f"| {' | '.join(row)} |" for row in (headings, rule, *escaped)]


def _listed(heading: str, sentences: Sequence[str]) -> list[str]:
    return [f"## {heading}", "\n".join(f"- {each}" for each in sentences)] if sentences else []


def _timelines(score: Score) -> list[str]:
    lines = score.told.splitlines()
    if not lines:
        return []
    left = [f"… and {len(lines) - TOLD_MAX} lines more"] if len(lines) > TOLD_MAX else []
    return ["## Timelines", "\n".join(f"    {each}" for each in [*lines[:TOLD_MAX], *left])]


def _seconds(spread: Spread | None) -> str:
    return str(spread) if spread is not None else "-"
