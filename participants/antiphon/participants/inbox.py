"""The inbox's rules: what to do with a command, given what this participant has already done for its step.

There is one row for each saga, step and list element, shared by the command and its compensation and claimed before a
handler runs: whoever comes second waits for whoever is inside, and then sees what became of it. The README of this
folder shows `on_do`, `on_undo` and `on_settle` as one table.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

RowState = Literal["done", "refused", "undone", "void"]
"""done: the effect is there. refused: a business no, nothing happened. undone: the effect was there and was taken back.
void: nothing happened and nothing ever will, because a compensation or a settlement found no effect."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An event's type and payload: all of it that does not depend on who asks."""

    type: str
    data: bytes


SILENCE: Final = Answer("", b"")
"""What comes of a reaction that publishes nothing."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """What the inbox holds of one step. Nothing is held of a step nobody has been answered about."""

    state: RowState
    attempt: int
    """The attempt of the command that `answer` was given to; 0 where the compensation came first. In the row of a
    reaction, the mark of the event that `answer` followed from."""
    answer: Answer | None = None
    """The event or the refusal; kept when the effect of a command is undone, and where that of a reaction is, replaced
    by what followed from the undoing."""


class Spent(msgspec.Struct, frozen=True, gc=False):
    """What became of a command's deliveries, as far as anybody came to say it. Also what is to be added to it."""

    failed: int = 0
    """The handler was called and raised."""
    returned: int = 0
    """Handed back without an attempt, or known to be harmless since."""
    alone: int = 0
    """The command was performed alone, and nothing was heard since: it took its worker with it."""

    @property
    def attempts(self) -> int:
        """How many attempts these were."""
        return self.failed + self.alone

    def lost(self, deliveries: int) -> int:
        """How many deliveries before this one nothing is known of: perhaps the worker died, of whichever command."""
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
    """Another event of the same kind came first, and what follows from it is there: once in a saga."""


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
    """What to do about an event that has an effect taken back: as with a compensation, but whichever event came first
    has something published, and has it published again."""
    match row:
        case Row(state="undone", attempt=seen, answer=Answer() as answer) if seen == mark:
            return SendAgain(answer)
        case _:
            return on_undo(row)
