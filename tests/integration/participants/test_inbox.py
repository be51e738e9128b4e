"""The rules of the inbox: every row, both directions, every attempt; and the same table in the folder's README."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import pytest

from antiphon.participants.inbox import (
    AlreadyUndone,
    Answer,
    NothingToUndo,
    OnDo,
    OnSettle,
    OnUndo,
    Row,
    RunCompensation,
    RunHandler,
    SendAgain,
    Superseded,
    on_do,
    on_settle,
    on_undo,
)

Question = Literal["do", "undo", "settle"]
Decision = OnDo | OnUndo | OnSettle

YES, NO = Answer("stock.reserved.v1", b"{}"), Answer("stock.reserve.refused.v1", b"{}")
ROWS: dict[str, Row | None] = {
    "none": None,
    "done": Row("done", 2, YES),
    "refused": Row("refused", 2, NO),
    "undone": Row("undone", 2, YES),
    "void": Row("void", 0),
}
LATE, AGO = Superseded("it was undone or ruled out before"), Superseded("attempt 2 has been answered")

TABLE: dict[tuple[str, Question], dict[str, Decision]] = {
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
    ("none", "settle"): dict.fromkeys(("earlier", "same", "later"), NothingToUndo(attempt=0)),
    ("done", "settle"): dict.fromkeys(("earlier", "same", "later"), SendAgain(YES)),
    ("refused", "settle"): dict.fromkeys(("earlier", "same", "later"), NothingToUndo(attempt=2)),
    ("undone", "settle"): dict.fromkeys(("earlier", "same", "later"), AlreadyUndone(found=True)),
    ("void", "settle"): dict.fromkeys(("earlier", "same", "later"), AlreadyUndone(found=False)),
}
QUESTIONS: tuple[Question, ...] = get_args(Question)
ATTEMPTS = {"earlier": 1, "same": 2, "later": 3}
DECIDE: dict[Question, Callable[[Row | None, int], Decision]] = {
    "do": on_do,
    "undo": lambda row, attempt: on_undo(row),
    "settle": lambda row, attempt: on_settle(row),
}
README = Path(__file__).parents[3] / "participants" / "README.md"


@pytest.mark.parametrize(("row", "question", "when"), [*product(ROWS, QUESTIONS, ATTEMPTS)])
def test_every_row_and_every_question_has_its_decision(row: str, question: Question, when: str) -> None:
    assert DECIDE[question](ROWS[row], ATTEMPTS[when]) == TABLE[row, question][when]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_row_without_the_answer_it_must_hold_is_no_row(question: Question) -> None:
    with pytest.raises(ValueError, match="must hold its answer"):
        DECIDE[question](Row("done", 1), 1)


def test_the_readme_shows_the_same_table() -> None:
    text = README.read_text()
    for line in readme_table():
        assert line in text, f"participants/README.md lacks: {line}"


def readme_table() -> list[str]:
    """The table as the README has it."""
    lines = [
        "| the row is | earlier `do` | same `do` | later `do` | `undo`, any attempt | settle, any attempt |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        cells = [words(cell) for cell in (*TABLE[row, "do"].values(), TABLE[row, "undo"]["same"])]
        lines.append(f"| {row} | {' | '.join(cells)} | {settled(TABLE[row, 'settle']['same'])} |")
    return lines


def settled(decision: Decision) -> str:
    match decision:
        case SendAgain():
            return "happened, as stored"
        case NothingToUndo():
            return "never happened; becomes void"
        case _:
            return "never happened"


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
