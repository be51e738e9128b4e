"""README.md taken apart into its code blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.unit.packaging.project import ROOT

README = ROOT / "README.md"
SHELLS = {"sh", "bash", "shell", "console"}

# A block that cannot run says so to the reader of the source, in a comment on the line before it.
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")


@dataclass(frozen=True)
class Block:
    language: str
    first_line: int
    lines: tuple[str, ...]
    runs: bool


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text in order, with the number of the first line inside the fence."""
    lines = text.splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            opened = number
            continue
        before = next((earlier for earlier in reversed(lines[:opened]) if earlier.strip()), "")
        language = lines[opened].removeprefix("```").strip()
        yield Block(language, opened + 2, tuple(lines[opened + 1 : number]), NOT_RUN.fullmatch(before.strip()) is None)
        opened = None
    assert opened is None, f"the block opened in line {opened} is never closed"


def python_of(text: str) -> str:
    """The Python blocks as one program whose line numbers are those of the text, so that a traceback points into it."""
    program = [""] * len(text.splitlines())
    for block in blocks(text):
        if block.language == "python" and block.runs:
            program[block.first_line - 1 : block.first_line - 1 + len(block.lines)] = block.lines
    return "\n".join(program) + "\n"


def commands_of(text: str) -> Iterator[str]:
    """The lines that a reader would type."""
    for block in blocks(text):
        if block.language in SHELLS:
            yield from (line for line in typed(block) if line.strip() and not line.lstrip().startswith("#"))


def typed(block: Block) -> Iterator[str]:
    if any(line.startswith("$ ") for line in block.lines):  # a session: the other lines are what the machine answered
        yield from (line.removeprefix("$ ") for line in block.lines if line.startswith("$ "))
    else:
        yield from "\n".join(block.lines).replace("\\\n", " ").splitlines()
