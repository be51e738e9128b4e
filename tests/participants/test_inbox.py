"""The rules of the inbox: every row, both directions, every attempt; and the same table in the folder's README."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from antiphon.contracts.wire import Direction
from antiphon.participants.inbox import (
    AlreadyUndone,
    Answer,
    Decision,
    NothingToUndo,
    Row,
    RunCompensation,
    RunHandler,
    SendAgain,
    Superseded,
    decide,
)

YES, NO = Answer("stock.reserved.v1", b"{}"), Answer("stock.reserve.refused.v1", b"{}")
ROWS: dict[str, Row | None] = {
    "none": None,
    "done": Row("done", 2, YES),
    "refused": Row("refused", 2, NO),
    "undone": Row("undone", 2, YES),
    "void": Row("void", 0),
}
LATE, AGO = Superseded("its compensation has been here"), Superseded("attempt 2 has been answered")

TABLE: dict[tuple[str, Direction], dict[str, Decision]] = {
    ("none", "do"): {"earlier": RunHandler(), "same": RunHandler(), "later": RunHandler()},
    ("done", "do"): {"earlier": AGO, "same": SendAgain(YES), "later": SendAgain(YES)},
    ("refused", "do"): {"earlier": AGO, "same": SendAgain(NO), "later": RunHandler()},
    ("undone", "do"): {"earlier": LATE, "same": LATE, "later": LATE},
    ("void", "do"): {"earlier": LATE, "same": LATE, "later": LATE},
    ("none", "undo"): dict.fromkeys(("earlier", "same", "later"), NothingToUndo(attempt=0)),
    ("done", "undo"): dict.fromkeys(("earlier", "same", "later"), RunCompensation(YES)),
    ("refused", "undo"): dict.fromkeys(("earlier", "same", "later"), NothingToUndo(attempt=2)),
    ("undone", "undo"): dict.fromkeys(("earlier", "same", "later"), AlreadyUndone(found=True)),
    ("void", "undo"): dict.fromkeys(("earlier", "same", "later"), AlreadyUndone(found=False)),
}
ATTEMPTS = {"earlier": 1, "same": 2, "later": 3}
README = Path(__file__).parents[2] / "participants" / "README.md"


@pytest.mark.parametrize(("row", "direction", "when"), [*product(ROWS, ("do", "undo"), ATTEMPTS)])
def test_every_row_and_every_command_has_its_decision(row: str, direction: Direction, when: str) -> None:
    assert decide(ROWS[row], direction, ATTEMPTS[when]) == TABLE[row, direction][when]


@pytest.mark.parametrize("direction", ["do", "undo"])
def test_a_row_without_the_answer_it_must_hold_is_no_row(direction: Direction) -> None:
    with pytest.raises(ValueError, match="must hold its answer"):
        decide(Row("done", 1), direction, 1)


def test_the_readme_shows_the_same_table() -> None:
    text = README.read_text()
    for line in readme_table():
        assert line in text, f"participants/README.md lacks: {line}"


def readme_table() -> list[str]:
    """The table as the README has it."""
    lines = ["| the row is | earlier `do` | same `do` | later `do` | `undo`, any attempt |", "|---|---|---|---|---|"]
    for row in ROWS:
        cells = [*TABLE[row, "do"].values(), TABLE[row, "undo"]["same"]]
        lines.append(f"| {row} | {' | '.join(words(cell) for cell in cells)} |")
    return lines


def words(decision: Decision) -> str:
    match decision:
        case RunHandler():
            return "call the handler"
        case RunCompensation():
            return "call the compensation with the stored answer; becomes undone"
        case SendAgain():
            return "answer as stored"
        case Superseded():
            return "superseded"
        case NothingToUndo():
            return "done, nothing found; becomes void"
        case AlreadyUndone(found):
            return "done, found" if found else "done, nothing found"


if __name__ == "__main__":
    print("\n".join(readme_table()))  # noqa: T201
