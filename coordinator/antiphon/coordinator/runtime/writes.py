"""A plan on its way into the store: entries under the guard, the timer, then the notices."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from antiphon.contracts.errors import Conflict
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.stored import AlreadyStored, Outcome
from antiphon.link.killpoints import reached

from ..decision.dues import may_have_timer
from ..decision.planned import Plan, Planned, Timer
from .journals import Journals
from .ports import ArmGuard


class Handler(Protocol):
    """Made the plan, and waits for it to be durable. One of the two is called once."""

    def all_stored(self) -> None:
        """Every part of the plan is durable."""

    def not_stored(self, outcome: Exception) -> None:
        """A part of the plan was not stored, or its answer was lost."""


class Writes:
    """One plan being performed: the first timer beside the first entry; one entry after the other; any later timer
    after the last; then notices."""

    __slots__ = ("_failed", "_guard", "_handler", "_journals", "_key", "_left", "_plan", "_stored")

    def __init__(self, handler: Handler, journals: Journals, key: SagaKey, what: Plan, guard: int) -> None:
        self._handler, self._journals, self._key, self._plan = handler, journals, key, what
        self._guard = guard
        self._stored = 0
        """How many entries are."""
        self._left = 0
        """How much is under way side by side: the entries and the first timer; later the notices."""
        self._failed = False

    def begin(self) -> None:
        """Send what may be sent at once. The first timer goes first, and the server stores in the order sent."""
        entries, timer = self._plan.entries, self._plan.timer
        first = timer if timer is not None and timer.first else None
        self._left = bool(entries) + (first is not None)
        if not self._left:
            self._all_appended()
        if first is not None:
            self._arm(first, "first")
        if entries:
            self._append(entries[0])

    def _append(self, entry: Planned) -> None:
        journals, after, draft = self._journals, entry.after, entry.draft
        is_last = entry is self._plan.entries[-1]
        journals.cache.expect(self._key, after, draft, not is_last)
        unschedule = after.end is not None and may_have_timer(after)
        journals.store.append(self._key, draft.subject, draft.data, self._guard, unschedule, self._on_appended)

    def _on_appended(self, outcome: Outcome) -> None:
        if not isinstance(outcome, int):
            self._fail(outcome)
            return
        entries = self._plan.entries
        entry = entries[self._stored]
        self._guard = outcome
        self._stored += 1
        self._journals.cache.stored(self._key, entry.draft, outcome)
        if entry.after.entries == 1 or entry.after.end is not None:
            self._journals.count(entry.after, entry.draft)
        if self._stored < len(entries):
            reached("coordinator.between_appends")
            self._append(entries[self._stored])
        else:
            self._part_done()

    def _part_done(self) -> None:
        self._left -= 1
        if self._left == 0 and not self._failed:
            self._all_appended()

    # --- the timer ----------------------------------------------------------------------------------------------------

    def _all_appended(self) -> None:
        timer = self._plan.timer
        if timer is None or timer.first:
            self._tell()
        else:
            self._arm(timer, self._guard)

    def _arm(self, timer: Timer, guard: ArmGuard) -> None:
        """Set the timer. A later one is guarded by the entry it was computed from: set from an old journal, it could
        take the place of another coordinator's that is due sooner."""
        self._journals.store.arm(self._key, timer.due_ns, timer.body, guard, partial(self._on_armed, guard))

    def _on_armed(self, guard: ArmGuard, outcome: Outcome) -> None:
        if guard == "first" and isinstance(outcome, int | Conflict | AlreadyStored):
            self._part_done()
        elif isinstance(outcome, int):
            self._tell()
        else:
            self._fail(outcome)

    # --- notices ------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        if not self._plan.notices:
            self._handler.all_stored()
            return
        reached("coordinator.before_tell")
        self._left = len(self._plan.notices)
        time = self._journals.store.now()
        for notice in self._plan.notices:
            self._journals.store.tell(notice.subject, notice.encode(time), self._on_told)

    def _on_told(self, outcome: Outcome) -> None:
        if not isinstance(outcome, int | AlreadyStored):
            self._fail(outcome)
            return
        self._left -= 1
        if self._left == 0 and not self._failed:
            self._handler.all_stored()

    def _fail(self, outcome: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._journals.cache.forget(self._key)
            self._handler.not_stored(outcome)
