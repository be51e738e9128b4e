"""The rules of the inbox: every row, every question, every attempt; and the same tables in the folder's README."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import pytest

from antiphon.contracts.messages import CloseForm
from antiphon.participants.inbox import (
    AlreadyUndone,
    Answer,
    Close,
    CloseCounts,
    InDoubt,
    MachineWas,
    MayHaveHappened,
    NothingToUndo,
    OnClose,
    OnDo,
    OnSettle,
    OnUndo,
    OtherPayload,
    Row,
    RowIsMissing,
    RowState,
    RunCompensation,
    RunHandler,
    SendAgain,
    Superseded,
    Wait,
    on_close,
    on_do,
    on_settle,
    on_undo,
)

Question = Literal["do", "undo", "settle"]
Decision = OnDo | OnUndo | OnSettle

YES, NO, HAND = (Answer(name, b"{}") for name in ("stock.reserved.v1", "stock.reserve.refused.v1", "by hand"))
NOW = datetime(2026, 11, 27, tzinfo=UTC)
SOON, PAST = NOW + timedelta(seconds=1), NOW - timedelta(seconds=1)
ROWS: dict[str, Row | None] = {
    "none": None,
    "claimed": Row("claimed", 2, None, 3, ("3@w",), SOON, "payload"),
    "claimed, past its time": Row("claimed", 2, None, 3, ("3@w",), PAST, "payload"),
    "open": Row("open", 2, None, 3, (), None, "payload"),
    "done": Row("done", 2, YES),
    "done by hand": Row("done", 2, HAND, closed="1:ada"),
    "refused": Row("refused", 2, NO),
    "undoing": Row("undoing", 2, YES, 3, ("3@w",)),
    "undone": Row("undone", 2, YES),
    "void": Row("void", 0),
}
LATE, AGO = Superseded("it was undone or ruled out before"), Superseded("attempt 2 has been answered")
BEGUN = Superseded("attempt 2 has been begun")
BY_HAND, WAIT = Superseded("an operator has closed it"), Wait("its command is under way outside the database")
RUN, OPEN = RunHandler(), MayHaveHappened()
When = Literal["earlier", "same", "later"]
WHEN: tuple[When, ...] = get_args(When)


def any_attempt(decision: Decision) -> dict[When, Decision]:
    return dict.fromkeys(WHEN, decision)


TABLE: dict[tuple[str, Question], dict[When, Decision]] = {
    ("none", "do"): any_attempt(RUN),
    ("claimed", "do"): {"earlier": BEGUN, "same": RUN, "later": RUN},
    ("claimed, past its time", "do"): {"earlier": BEGUN, "same": RUN, "later": RUN},
    ("open", "do"): {"earlier": BEGUN, "same": RUN, "later": RUN},
    ("done", "do"): {"earlier": AGO, "same": SendAgain(YES), "later": SendAgain(YES)},
    ("done by hand", "do"): any_attempt(BY_HAND),
    ("refused", "do"): {"earlier": AGO, "same": SendAgain(NO), "later": RUN},
    ("undoing", "do"): any_attempt(LATE),
    ("undone", "do"): any_attempt(LATE),
    ("void", "do"): any_attempt(LATE),
    ("none", "undo"): any_attempt(NothingToUndo(attempt=0)),
    ("claimed", "undo"): any_attempt(WAIT),
    ("claimed, past its time", "undo"): any_attempt(OPEN),
    ("open", "undo"): any_attempt(OPEN),
    ("done", "undo"): any_attempt(RunCompensation(YES)),
    ("done by hand", "undo"): any_attempt(RunCompensation(HAND)),
    ("refused", "undo"): any_attempt(NothingToUndo(attempt=2)),
    ("undoing", "undo"): {
        "earlier": BEGUN,
        "same": RunCompensation(YES),
        "later": RunCompensation(YES),
    },
    ("undone", "undo"): any_attempt(AlreadyUndone(found=True)),
    ("void", "undo"): any_attempt(AlreadyUndone(found=False)),
    ("none", "settle"): any_attempt(NothingToUndo(attempt=0)),
    ("claimed", "settle"): any_attempt(WAIT),
    ("claimed, past its time", "settle"): any_attempt(OPEN),
    ("open", "settle"): any_attempt(OPEN),
    ("done", "settle"): any_attempt(SendAgain(YES)),
    ("done by hand", "settle"): any_attempt(SendAgain(HAND)),
    ("refused", "settle"): any_attempt(NothingToUndo(attempt=2)),
    ("undoing", "settle"): any_attempt(SendAgain(YES)),
    ("undone", "settle"): any_attempt(SendAgain(YES)),
    ("void", "settle"): any_attempt(AlreadyUndone(found=False)),
}
QUESTIONS: tuple[Question, ...] = get_args(Question)
ATTEMPTS = dict(zip(WHEN, (1, 2, 3), strict=True))
DECIDE: dict[Question, Callable[[Row | None, int], Decision]] = {
    "do": lambda row, attempt: on_do(row, attempt, "payload"),
    "undo": lambda row, attempt: on_undo(row, attempt, NOW),
    "settle": lambda row, attempt: on_settle(row, NOW),
}
README = Path(__file__).parents[3] / "participants" / "README.md"


@pytest.mark.parametrize(("row", "question", "when"), [*product(ROWS, QUESTIONS, WHEN)])
def test_every_row_and_every_question_has_its_decision(row: str, question: Question, when: When) -> None:
    assert DECIDE[question](ROWS[row], ATTEMPTS[when]) == TABLE[row, question][when]


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("row", ROWS)
def test_what_was_answered_before_has_a_row_or_the_database_is_another_one(row: str, when: When) -> None:
    decision = on_undo(ROWS[row], ATTEMPTS[when], NOW, is_answered=True)
    assert decision == (TABLE[row, "undo"][when] if ROWS[row] is not None else RowIsMissing())


@pytest.mark.parametrize("question", ["do", "undo"])
def test_a_row_without_the_answer_it_must_hold_is_no_row(question: Question) -> None:
    with pytest.raises(ValueError, match="must hold its answer"):
        DECIDE[question](Row("done", 1), 1)


@pytest.mark.parametrize("row", ["claimed", "open"])
def test_another_payload_does_not_run_where_one_may_have_happened_outside(row: str) -> None:
    assert on_do(ROWS[row], 3, "edited") == OtherPayload()
    assert on_do(ROWS[row], 1, "edited") == BEGUN


def test_every_state_has_a_row_here() -> None:
    assert {row.state for row in ROWS.values() if row is not None} == set(get_args(RowState))


# --- closes -----------------------------------------------------------------------------------------------------------

IDLE: dict[str, Row | None] = {
    **{name: row for name, row in ROWS.items() if row is None or not row.runs},
    "claimed, no run left": Row("claimed", 2, None, 3, (), SOON, "payload"),
    "undoing, no run left": Row("undoing", 2, YES, 3, ()),
}
FORMS: tuple[CloseForm, ...] = get_args(CloseForm)
COUNTS = "counts"


def close(form: CloseForm, claim: int = 0, number: int = 2) -> Close:
    return Close(number, form, HAND if form == "done" else None, claim, "bob")


def said(decision: OnClose) -> str:
    match decision:
        case CloseCounts(row):
            return f"closed; {row.state if row else 'as it is'}"
        case MachineWas(verdict):
            return f"rejected: {verdict}"
        case InDoubt():
            return "in doubt: look there, then name the claim"
        case Wait():
            return "wait for the run"


CLOSES: dict[str, tuple[str, str, str]] = {
    "none": ("closed; done", "closed; void", "closed; void"),
    "claimed, no run left": ("closed; done", "closed; void", "closed; undone"),
    "open": ("closed; done", "closed; void", "closed; undone"),
    "done": ("rejected: done", "rejected: done", "closed; undone"),
    "done by hand": ("rejected: done", "rejected: done", "closed; undone"),
    "refused": ("rejected: refused", "rejected: refused", "closed; void"),
    "undoing, no run left": ("rejected: undone", "rejected: undone", "closed; undone"),
    "undone": ("rejected: undone", "rejected: undone", "rejected: undone"),
    "void": ("rejected: void", "rejected: void", "rejected: void"),
}
"""What is said to a close that names the row's claim, where it has one."""


@pytest.mark.parametrize(("row", "form"), [*product(CLOSES, FORMS)])
def test_every_row_and_every_close_has_its_decision(row: str, form: CloseForm) -> None:
    found = IDLE[row]
    assert said(on_close(found, close(form, found.claim if found else 0))) == CLOSES[row][FORMS.index(form)]


@pytest.mark.parametrize(("row", "form", "claim"), [*product(("claimed, no run left", "open"), FORMS, (0, 2))])
def test_a_close_of_a_row_in_doubt_must_name_its_claim(row: str, form: CloseForm, claim: int) -> None:
    assert on_close(IDLE[row], close(form, claim)) == InDoubt(3)


def test_an_undoing_close_that_names_another_claim_saw_what_was_before() -> None:
    assert on_close(Row("done", 2, YES, 3), close("undone", 2)) == InDoubt(3)
    assert on_close(IDLE["undoing, no run left"], close("undone", 2)) == InDoubt(3)


@pytest.mark.parametrize(("row", "form", "claim"), [*product(("claimed", "undoing"), FORMS, (0, 3))])
def test_a_close_waits_for_a_run_that_may_still_act(row: str, form: CloseForm, claim: int) -> None:
    assert isinstance(on_close(ROWS[row], close(form, claim)), Wait)


def test_a_close_that_was_accepted_is_accepted_again() -> None:
    first = on_close(None, close("done", number=11))
    assert isinstance(first, CloseCounts)
    assert first.row == Row("done", 0, HAND, closed="11:bob")
    assert on_close(first.row, close("done", number=11)) == CloseCounts(None)
    assert isinstance(on_close(first.row, close("done", number=1)), MachineWas)


# --- the README -------------------------------------------------------------------------------------------------------


def test_the_readme_shows_the_same_tables() -> None:
    text = README.read_text()
    for line in readme_table() + closes_table():
        assert line in text, f"participants/README.md lacks: {line}"


def readme_table() -> list[str]:
    """The table as the README has it."""
    lines = ["| the row is | earlier `do` | same `do` | later `do` | `undo` | settle |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        cells = [words(cell) for cell in (*TABLE[row, "do"].values(), TABLE[row, "undo"]["same"])]
        lines.append(f"| {row} | {' | '.join(cells)} | {settled(TABLE[row, 'settle']['same'])} |")
    return lines


def closes_table() -> list[str]:
    """The table of closes as the README has it."""
    lines = ["| the row is | close as done | close as never | close as undone |", "|---|---|---|---|"]
    return [*lines, *(f"| {row} | {' | '.join(cells)} |" for row, cells in CLOSES.items())]


def settled(decision: Decision) -> str:
    match decision:
        case SendAgain():
            return "happened, as stored"
        case NothingToUndo():
            return "never happened; becomes void"
        case AlreadyUndone():
            return "never happened"
        case _:
            return words(decision)


def words(decision: Decision) -> str:
    match decision:
        case RunHandler():
            return "call the handler"
        case RunCompensation():
            return "call the compensation; becomes undone"
        case SendAgain():
            return "answer as stored"
        case Superseded():
            return "superseded"
        case NothingToUndo():
            return "nothing found; becomes void"
        case AlreadyUndone(found):
            return "done, found" if found else "nothing found"
        case Wait():
            return "hand back"
        case MayHaveHappened():
            return "may have happened; becomes open"
        case RowIsMissing() | OtherPayload():
            return "exhausted"


if __name__ == "__main__":
    print("\n".join([*readme_table(), "", *closes_table()]))  # noqa: T201
