"""A trace: a text that says who does what, in which order, and indented below it what the journals hold then.

    A declined card gives the room back.

    saga trip

    client starts {"traveller": "Ada", "nights": 2}
        > hotel book_room do 1 {"nights": 2}
    hotel refuses book_room "full"
        > ends compensated: book_room was refused: full

`name: ` before a line means another saga than `main`; a child is called after its parent and its step.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent
MAIN: Final = "main"

_LINE = re.compile(
    r"""(?:(?P<saga>[\w-]+):\ )?
    (?P<who>[\w-]+)
    \ (?P<verb>starts|cancels|signals|answers|refuses|gives\ up|undoes|cannot\ undo|settles|closes|says|passes|asks\ to)
    (?:\ (?P<operation>retry|edit|resolve|cancel|pause|resume)\b)?
    (?:\ (?P<what>[a-z][\w-]*|[0-9.]+))??
    (?:\ attempt\ (?P<attempt>\d+))?
    (?:\ after\ claim\ (?P<claim>\d+))?
    (?:\ because\ (?P<reason>"[^"]*"))?
    (?:\ (?P<never>never))?
    (?:\ (?P<payload>\{.*\}))?""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Deed:
    """One line of a trace: who does what, to which saga."""

    line: str
    saga: str
    who: str
    verb: str
    operation: str
    what: str
    attempt: int
    claim: int
    reason: str
    never: bool
    payload: dict[str, Any] | None


@dataclass(frozen=True)
class Trace:
    """A scenario, and below each of its deeds the lines of the journals that must come of it."""

    name: str
    heading: tuple[str, ...]
    saga: str
    deeds: tuple[Deed, ...]
    text: str

    @property
    def needs_time(self) -> bool:
        """Whether anything in it waits for time to pass."""
        return any(deed.verb == "passes" for deed in self.deeds)


@dataclass
class Played:
    """What came of a trace: for each deed the lines of the journals, and for each line its cause."""

    lines: list[list[str]] = field(default_factory=list[list[str]])
    causes: list[str] = field(default_factory=list[str])


def read_trace(path: Path) -> Trace:
    """Read a trace's file; its journal is compared as text."""
    text = path.read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("  ")]
    first = next(number for number, line in enumerate(lines) if line.startswith("saga "))
    deeds = tuple(_deed(line) for line in lines[first + 1 :])
    return Trace(path.stem, tuple(lines[:first]), lines[first].removeprefix("saga "), deeds, text)


def _deed(line: str) -> Deed:
    match = _LINE.fullmatch(line)
    assert match is not None, f"nobody knows what is meant by: {line}"
    found = match.groupdict(default="")
    return Deed(
        line,
        found["saga"] or MAIN,
        found["who"],
        found["verb"],
        found["operation"],
        found["what"],
        int(found["attempt"] or 0),
        int(found["claim"] or 0),
        json.loads(found["reason"] or '""'),
        bool(found["never"]),
        json.loads(found["payload"]) if found["payload"] else None,
    )


def written(trace: Trace, played: Played) -> str:
    """The trace as a text, with what came of it."""
    parts = [*trace.heading, "", f"saga {trace.saga}", ""]
    for deed, lines in zip(trace.deeds, played.lines, strict=False):
        parts += [deed.line, *(f"    > {line}" for line in lines)]
    return "\n".join(parts) + "\n"


def difference(trace: Trace, wanted: str, found: str) -> str:
    """Where two tellings of a trace differ; empty if they do not."""
    lines = difflib.unified_diff(
        wanted.splitlines(), found.splitlines(), f"{trace.name}.txt", "what came of it", "", "", 99
    )
    return "\n".join(line.rstrip("\n") for line in lines)
