"""What participants have done that a saga's journal cannot know, because SAGA was restored from a backup. Pure.

A saga goes the same way once more as far as the answers of its participants lead it, which its participants still have.
What led it besides may be lost or come otherwise now: signals, cancels, other sagas, and times that are over by now. So
it is asked whether the saga could go another way than what was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from .dues import earliest_ns
from .facts import Answer, Start
from .history import History
from .replay import Replayed

MARGIN_NS: Final = 3_600_000_000_000
"""An hour: within it the answers of all participants have come again."""


TAKEN_BACK: Final = frozenset({"undoing", "undone", "void"})
NOTHING_LEFT: Final = TAKEN_BACK | {"refused"}


class Done(msgspec.Struct, frozen=True, gc=False):
    """What a participant's inbox says of one step."""

    state: str
    attempt: int = 0


def overtaken(found: Replayed, rows: Mapping[str, Done], now_ns: int, margin_ns: int = MARGIN_NS) -> str:
    """Why a saga could go another way than what was done, as a sentence; empty where it could not.

    Args:
        found: the saga, as the restored streams tell it.
        rows: what the inboxes of its participants say, by the step or the element of a list. Reactions are none.
        now_ns: the time, by this process's clock.
        margin_ns: a time that is over so soon counts as over.
    """
    history = found.history
    if history.end is not None or not history.definition.is_led:
        return ""
    rows = {name: row for name, row in rows.items() if _is_step(history, name)}
    if back := [] if history.turned or _turns(history, rows) else _taken_back(found, rows):
        return f"{_were(back)} taken back, and its journal goes forward"
    if not (ahead := _ahead(history, rows)):
        return ""
    what = f"{_were(ahead)} done, and its journal has not sent that"
    if history.turned:
        return f"{what} and goes back"
    if any(row.state in NOTHING_LEFT for row in rows.values()):
        return f"{what}; others were refused or taken back, so that it turns before"
    why = _may_turn(found, now_ns + margin_ns) or _waits_for(history, rows, ahead)
    return f"{what}; {why}" if why else ""


def _is_step(history: History, name: str) -> bool:
    return name in history.definition.steps or name.rpartition("-")[0] in history.definition.steps


def _taken_back(found: Replayed, rows: Mapping[str, Done]) -> list[str]:
    """Steps that are done by the journal, or by an answer that it does not name yet, and were undone since."""
    steps = found.history.steps
    answered = {fact.step for fact in found.unnamed if isinstance(fact, Answer) and fact.event is not None}
    return [
        name
        for name, row in rows.items()
        if row.state in TAKEN_BACK and (name in answered or (name in steps and steps[name].phase == "done"))
    ]


def _turns(history: History, rows: Mapping[str, Done]) -> bool:
    """Whether an answer that the saga waits for turns it. It comes before the point of no return, since each step that
    may turn a saga is before its pivot."""
    return any(
        step.phase == "sent"
        and name in rows
        and rows[name].state in NOTHING_LEFT
        and not history.definition.step(name).is_retriable
        for name, step in history.steps.items()
    )


def _ahead(history: History, rows: Mapping[str, Done]) -> list[str]:
    """Steps that were done, or begun, and never sent as far as the journal goes."""
    return [
        name
        for name, row in rows.items()
        if row.state in ("done", "claimed", "open") and (name not in history.steps or not history.steps[name].attempts)
    ]


def _may_turn(found: Replayed, until_ns: int) -> str:
    """Why something else than the answers of participants may turn the saga before it gets as far once more."""
    history = found.history
    if history.fault or history.paused or history.unread:
        return "it stands still"
    if _earliest_ns(found) < until_ns:
        return "a time of it is over by now, or soon"
    if any(not isinstance(fact, Answer | Start) for fact in found.unnamed):
        return "it was told something that its journal does not know"
    return ""


def _earliest_ns(found: Replayed) -> int:
    """When the first time comes that the saga waits for."""
    history = found.history
    if history.has_started:
        return earliest_ns(history)
    starts = [fact.at_ns for fact in found.unnamed if isinstance(fact, Start)]
    return min(starts, default=0) + history.definition.deadline_ns


def _waits_for(history: History, rows: Mapping[str, Done], ahead: list[str]) -> str:
    """Why it may not get as far once more, although it does not turn."""
    if history.definition.locks is not None and not (history.asks and history.granted.issuperset(history.asks)):
        return "another saga may have its lock first"
    far = [name for name in ahead if not _is_reached(history, rows, name)]
    return f"what it waited for before {', '.join(far)} may not come again" if far else ""


def _is_reached(history: History, rows: Mapping[str, Done], name: str) -> bool:
    """Whether the answers of participants alone lead to a step."""
    definition = history.definition
    for earlier in definition.step(name).after:
        step = history.steps[earlier]
        if step.phase in ("done", "skipped"):
            continue
        if definition.step(earlier).kind != "command" or rows.get(earlier, Done("")).state != "done":
            return False
        if not _is_reached(history, rows, earlier):
            return False
    return True


def _were(names: list[str]) -> str:
    return f"{', '.join(names)} {'was' if len(names) == 1 else 'were'}"
