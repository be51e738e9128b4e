"""The inbox's rules: what to do with a message, given what this participant has already done for its step.

There is one row for each saga, step and list element, shared by the command, its compensation and an operator's close.
It is locked while it is asked about: whoever comes second waits for whoever is inside, and then sees what became of it.
The README of this folder shows these functions as tables, and says why they are so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from antiphon.contracts.messages import CloseForm

RowState = Literal["claimed", "open", "done", "refused", "undoing", "undone", "void"]
"""done: the effect is there. refused: a business no, nothing happened. undone: the effect was there and was taken back.
void: nothing happened and nothing ever will, because a compensation or a settlement found no effect.

Of handlers with effects outside the database, too: claimed: a command was begun and its end is not committed; it is
expected again. open: the same, and it is not expected; it may have happened outside. undoing: a compensation was begun
and its end is not committed."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The type and the payload of an answer's event: the part that is the same whoever asks."""

    type: str
    data: bytes


SILENCE: Final = Answer("", b"")
"""The answer of a reaction that publishes nothing."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """What the inbox holds of one step. A step that was never answered has no row."""

    state: RowState
    attempt: int
    """The attempt of the command that `answer` was given to; 0 where the compensation came first. Of a row that is
    claimed or undoing, the attempt that claimed it last. In the row of a reaction, the mark of the event that `answer`
    followed from."""
    answer: Answer | None = None
    """The event or the refusal; kept when the effect of a command is undone, and where that of a reaction is, replaced
    by what followed from the undoing."""
    claim: int = 0
    """How often the row was claimed for a run outside a transaction."""
    runs: tuple[str, ...] = ()
    """The runs that have begun and not said that they ended, as `<claim>@<instance of the worker>`."""
    due_at: datetime | None = None
    """Until when the command of a claimed row is expected again."""
    digest: str = ""
    """Of the payload that was claimed first."""
    closed: str = ""
    """The operators' closes that were accepted, as `<number>:<user>`, one after the other."""


class Spent(msgspec.Struct, frozen=True, gc=False):
    """Counts of a message's deliveries, by what became of them. Also what is to be added to such counts."""

    failed: int = 0
    """The handler was called and raised."""
    returned: int = 0
    """Handed back without an attempt, or known to be harmless since."""
    alone: int = 0
    """Performed alone, without a known end: the command took its worker with it."""

    @property
    def attempts(self) -> int:
        """How many attempts these were."""
        return self.failed + self.alone

    def lost(self, deliveries: int) -> int:
        """How many earlier deliveries have no known end: perhaps the worker died, of whichever command."""
        return max(0, deliveries - 1 - self.failed - self.returned - self.alone)

    def plus(self, more: Spent) -> Spent:
        """Both together."""
        return Spent(self.failed + more.failed, self.returned + more.returned, self.alone + more.alone)


# --- what to do -------------------------------------------------------------------------------------------------------


class RunHandler(msgspec.Struct, frozen=True, gc=False):
    """Carry the command out; its answer makes the row done or refused."""


class RunCompensation(msgspec.Struct, frozen=True, gc=False):
    """Take the effect back; the row becomes undone."""

    answer: Answer


class SendAgain(msgspec.Struct, frozen=True, gc=False):
    """Nothing to do but to answer as before."""

    answer: Answer


class NothingToUndo(msgspec.Struct, frozen=True, gc=False):
    """There is no effect, and there never will be one: the row becomes void."""

    attempt: int


class AlreadyUndone(msgspec.Struct, frozen=True, gc=False):
    """There is no effect any more, or never was, and the row says so already."""

    found: bool


class Superseded(msgspec.Struct, frozen=True, gc=False):
    """The command came too late and must not be carried out."""

    reason: str


class AnotherWas(msgspec.Struct, frozen=True, gc=False):
    """This once-per-saga reaction already ran for another event."""


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Hand the message back, without an attempt: something else has to end first."""

    reason: str


class MayHaveHappened(msgspec.Struct, frozen=True, gc=False):
    """A run outside was begun, nobody knows its end, and nobody is expected to find out: the row is open."""


class RowIsMissing(msgspec.Struct, frozen=True, gc=False):
    """This participant has answered that the command is done, and this database has never heard of it."""


class OtherPayload(msgspec.Struct, frozen=True, gc=False):
    """A run outside was begun with another payload, and nobody knows its end. This one must not run beside it."""


OnDo = RunHandler | SendAgain | Superseded | OtherPayload
OnUndo = RunCompensation | NothingToUndo | RowIsMissing | AlreadyUndone | Superseded | Wait | MayHaveHappened
OnSettle = SendAgain | NothingToUndo | AlreadyUndone | Wait | MayHaveHappened
OnEvent = RunHandler | SendAgain | Superseded | AnotherWas | Wait
OnUndoingEvent = OnUndo | SendAgain


def on_do(row: Row | None, attempt: int, digest: str = "") -> OnDo:
    """What to do with a command.

    Args:
        row: the row, if there is one.
        attempt: the command's.
        digest: of the command's payload.
    """
    match row:
        case None:
            return RunHandler()
        case Row(closed=closed) if closed:
            return Superseded("an operator has closed it")
        case Row(state="undoing" | "undone" | "void"):
            return Superseded("it was undone or ruled out before")
        case Row(attempt=seen, state=state) if attempt < seen:
            return Superseded(f"attempt {seen} has been {'begun' if state in ('claimed', 'open') else 'answered'}")
        case Row(state="claimed" | "open", digest=first) if first and digest and first != digest:
            return OtherPayload()
        # The same command, again or after a later attempt: the outside knows it by its key.
        case Row(state="claimed" | "open"):
            return RunHandler()
        # A later attempt is a new question: who asks again after a no wants another look.
        case Row(state="refused", attempt=seen) if attempt > seen:
            return RunHandler()
        case Row(state="done" | "refused", answer=Answer() as answer):
            return SendAgain(answer)
        case Row():
            raise ValueError(f"a row that is {row.state} must hold its answer")


def on_undo(row: Row | None, attempt: int = 1, now: datetime | None = None, *, is_answered: bool = False) -> OnUndo:
    """What to do with a compensation.

    Args:
        row: the row, if there is one.
        attempt: the compensation's. Of two that run outside the later one counts; else it decides nothing.
        now: the time, by which it is known whether the command of a claimed row is still expected.
        is_answered: whether the participant has answered before that the command is done. Then there was a row.
    """
    match row:
        case None if is_answered:
            return RowIsMissing()
        case None:
            return NothingToUndo(attempt=0)
        case Row(state="refused", attempt=seen):
            return NothingToUndo(attempt=seen)
        case Row(state="claimed") if not _is_past(row, now):
            return Wait("its command is under way outside the database")
        case Row(state="claimed" | "open"):
            return MayHaveHappened()
        case Row(state="undoing", attempt=seen) if attempt < seen:
            return Superseded(f"attempt {seen} has been begun")
        case Row(state="done" | "undoing", answer=Answer() as answer):
            return RunCompensation(answer)
        case Row(state="undone"):
            return AlreadyUndone(found=True)
        case Row(state="void"):
            return AlreadyUndone(found=False)
        case Row():
            raise ValueError(f"a row that is {row.state} must hold its answer")


def on_settle(row: Row | None, now: datetime | None = None) -> OnSettle:
    """What to say about a command: as to a compensation, but an effect stays, and its answer is given again. What was
    said once stays true after the effect was taken back."""
    if row is not None and row.state in ("done", "undoing", "undone") and row.answer is not None:
        return SendAgain(row.answer)
    match on_undo(row, 1, now):
        case RunCompensation() | Superseded() | RowIsMissing():
            raise AssertionError("handled above")
        case no_effect:
            return no_effect


def on_event(row: Row | None, mark: int) -> OnEvent:
    """What to do about an event, which has no attempts; its mark tells it from others that have the same row."""
    match row:
        case Row(state="done" | "refused", attempt=seen) if seen != mark:
            return AnotherWas()
        case Row(state="claimed" | "open", attempt=seen) if seen != mark:
            return Wait("another event is being reacted to outside the database")
        case _:
            decision = on_do(row, mark)
            assert not isinstance(decision, OtherPayload), "an event has no digest"
            return decision


def on_undoing_event(row: Row | None, mark: int, now: datetime | None = None) -> OnUndoingEvent:
    """What to do about an event whose reaction takes an effect back: as with a compensation, but the answer to the
    event that came first is published, and published again."""
    match row:
        case Row(state="undone", attempt=seen, answer=Answer() as answer) if seen == mark:
            return SendAgain(answer)
        case Row(state="undoing", attempt=seen) if seen != mark:
            return Wait("another event is taking the effect back outside the database")
        case _:
            return on_undo(row, mark, now)


def _is_past(row: Row, now: datetime | None) -> bool:
    """Whether the command of a claimed row is expected no more."""
    return row.due_at is not None and now is not None and now > row.due_at


# --- runs outside a transaction ---------------------------------------------------------------------------------------


def claimed(
    row: Row | None, state: RowState, attempt: int, instance: str, due_at: datetime | None, digest: str = ""
) -> Row:
    """The row with one more claim: a run begins, and whoever had claimed it before may not commit any more."""
    claim = (row.claim if row else 0) + 1
    return Row(
        state,
        attempt,
        row.answer if row and state == "undoing" else None,
        claim,
        (*(row.runs if row else ()), f"{claim}@{instance}"),
        due_at,
        (row.digest if row else "") or digest,
        row.closed if row else "",
    )


def is_owner(row: Row | None, claim: int, state: RowState) -> bool:
    """Whether a run still owns the row that it has claimed: nobody has claimed, closed or ended it since."""
    states = ("claimed", "open") if state == "claimed" else (state,)
    return row is not None and row.claim == claim and row.state in states


def without_run(row: Row, run: str) -> Row:
    """The row once a run has said that it ended."""
    return replace(row, runs=tuple(each for each in row.runs if each != run))


def given_up(row: Row | None) -> Row | None:
    """The row once the attempts have run out: if a run was begun outside, nobody knows what became of it. None where
    nothing is to be written."""
    return replace(row, state="open") if row is not None and row.state == "claimed" else None


# --- closes -----------------------------------------------------------------------------------------------------------


class Close(msgspec.Struct, frozen=True, gc=False):
    """An operator's word for what became of a step: which close of it this is, as what, and by whom."""

    number: int
    form: CloseForm
    answer: Answer | None
    """The operator's answer to the command, with the form done."""
    claim: int
    """The claim after which the operator has looked outside; 0 where none is named."""
    user: str


class CloseCounts(msgspec.Struct, frozen=True, gc=False):
    """The operator's word counts; the row to be written, if it does not say so already."""

    row: Row | None


class MachineWas(msgspec.Struct, frozen=True, gc=False):
    """The machine's work is committed, and decides."""

    verdict: Literal["done", "refused", "undone", "void"]
    attempt: int
    answer: Answer | None


class InDoubt(msgspec.Struct, frozen=True, gc=False):
    """A claim may have done it outside: look there first, then name that claim."""

    claim: int


OnClose = CloseCounts | MachineWas | InDoubt | Wait

_BECOMES: Final[dict[CloseForm, RowState]] = {"done": "done", "never": "void", "undone": "undone"}


def on_close(row: Row | None, close: Close) -> OnClose:
    """What to say to an operator's close. What the machine has committed decides; the operator's word counts only where
    it has committed nothing, and never against a run that may still act."""
    match row:
        case Row(closed=closed) if any(each.partition(":")[0] == str(close.number) for each in closed.split()):
            return CloseCounts(None)
        case None:
            return CloseCounts(_closed(None, "void" if close.form == "undone" else _BECOMES[close.form], close))
        case Row(state="claimed" | "open" | "undoing", runs=runs) if runs:
            return Wait(f"a run outside the database has not ended: {', '.join(runs)}")
        case Row(state="claimed" | "open" | "undoing", claim=claim) if close.claim != claim:
            return InDoubt(claim)
        case Row(state="undoing") if close.form != "undone":
            return MachineWas("undone", row.attempt, row.answer)
        case Row(state="claimed" | "open" | "undoing"):
            return CloseCounts(_closed(row, _BECOMES[close.form], close))
        case Row(state="done", claim=claim) if close.form == "undone" and close.claim and close.claim != claim:
            return InDoubt(claim)
        case Row(state="done") if close.form == "undone":
            return CloseCounts(_closed(row, "undone", close))
        case Row(state="refused") if close.form == "undone":
            return CloseCounts(_closed(row, "void", close))
        case Row(state="done" | "refused" | "undone" | "void" as verdict):
            return MachineWas(verdict, row.attempt, row.answer)
        case Row():
            raise AssertionError(f"no rule for a row that is {row.state}")


def _closed(row: Row | None, state: RowState, close: Close) -> Row:
    kept = row or Row("void", 0)
    answer = close.answer if state == "done" else None if state == "void" else kept.answer
    closed = f"{kept.closed} {close.number}:{close.user}".strip()
    return replace(kept, state=state, answer=answer, closed=closed, due_at=None)
