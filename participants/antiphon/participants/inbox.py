"""The inbox's rules: what to do with a command, given what this participant has already done for its step.

There is one row for each saga, step and list element, shared by the command and its compensation and claimed before a
handler runs: whoever comes second waits for whoever is inside, and then sees what became of it. The README of this
folder shows `on_do`, `on_undo` and `on_settle` as one table.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

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
    """The attempt of the command that `answer` was given to; 0 where the compensation came first. In the row of a
    reaction, the mark of the event that `answer` followed from."""
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
    """The numbers of the operators' closes that were accepted, each with who asked."""


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


OnDo = RunHandler | SendAgain | Superseded
OnUndo = RunCompensation | NothingToUndo | AlreadyUndone
OnSettle = SendAgain | NothingToUndo | AlreadyUndone


def on_do(row: Row | None, attempt: int) -> OnDo:
    """What to do with a command."""
    match row:
        case None:
            return RunHandler()
        case Row(state="undone" | "void"):
            return Superseded("it was undone or ruled out before")
        case Row(attempt=seen) if attempt < seen:
            return Superseded(f"attempt {seen} has been answered")
        # A later attempt is a new question: who asks again after a no wants another look.
        case Row(state="refused", attempt=seen) if attempt > seen:
            return RunHandler()
        case Row(state="done" | "refused", answer=Answer() as answer):
            return SendAgain(answer)
        case Row():
            raise ValueError(f"a row that is {row.state} must hold its answer")


def on_undo(row: Row | None) -> OnUndo:
    """What to do with a compensation. Its own attempt decides nothing: the row says whether there is an effect."""
    match row:
        case None:
            return NothingToUndo(attempt=0)
        case Row(state="refused", attempt=seen):
            return NothingToUndo(attempt=seen)
        case Row(state="done", answer=Answer() as answer):
            return RunCompensation(answer)
        case Row(state="undone"):
            return AlreadyUndone(found=True)
        case Row(state="void"):
            return AlreadyUndone(found=False)
        case Row():
            raise ValueError(f"a row that is {row.state} must hold its answer")


def on_settle(row: Row | None) -> OnSettle:
    """What to say about a command: as to a compensation, but an effect stays, and its answer is given again."""
    match on_undo(row):
        case RunCompensation(answer):
            return SendAgain(answer)
        case no_effect:
            return no_effect


def on_event(row: Row | None, mark: int) -> OnDo | AnotherWas:
    """What to do about an event, which has no attempts; its mark tells it from others that have the same row."""
    match row:
        case Row(state="done" | "refused", attempt=seen) if seen != mark:
            return AnotherWas()
        case _:
            return on_do(row, mark)


def on_undoing_event(row: Row | None, mark: int) -> OnUndo | SendAgain:
    """What to do about an event whose reaction takes an effect back: as with a compensation, but the answer to the
    event that came first is published, and published again."""
    match row:
        case Row(state="undone", attempt=seen, answer=Answer() as answer) if seen == mark:
            return SendAgain(answer)
        case _:
            return on_undo(row)
