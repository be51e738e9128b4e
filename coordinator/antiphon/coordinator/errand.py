"""One fact on its way into a journal: know the history, plan, append entry by entry under the guard, then ack.

Whatever goes wrong (a conflict, a lost answer, a crash) costs nothing but another look, because nothing is remembered
that the streams do not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.killpoints import reached
from antiphon.contracts.parked import ParkedKind
from antiphon.contracts.wire import SagaKey
from antiphon.link.outcomes import AlreadyStored, Outcome

from .facts import Answer, Fact, Start, Tick
from .graph import Definition
from .history import History, Unfoldable, begin
from .plan import Plan, Planned, plan
from .ports import Delivered
from .stored import Found, OtherDefinition

if TYPE_CHECKING:
    from .run import Coordinator

log = structlog.get_logger()

TRIES_MAX: Final = 5
"""Conflicts in a row before a fact is handed back: others are busy with this saga, or the reads are old."""

HAND_BACK_SECONDS: Final = 1.0
"""How soon another coordinator, or a replica that has caught up, shall look at what cannot be handled now."""

DELIVERIES_MAX: Final = 10
"""After so many deliveries a fact that no saga, or no coordinator here, knows is parked."""

FAULTY_DELIVERIES_MAX: Final = 5
"""After so many deliveries a fact whose handling raises is parked."""


class Errand:
    """A fact, the delivery that brought it, and how far it has come."""

    __slots__ = ("_coordinator", "_definition", "_delivery", "_fact", "_key", "_tries")

    def __init__(
        self, coordinator: Coordinator, key: SagaKey, definition: Definition, fact: Fact, delivery: Delivered
    ) -> None:
        self._coordinator, self._key, self._definition = coordinator, key, definition
        self._fact, self._delivery = fact, delivery
        self._tries = 0

    # --- knowing the history ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Go on from the cache if it holds enough, else from a read."""
        case = self._coordinator.cache.get(self._key)
        if case is None:
            self._begin_or_read()
        elif case.is_settled or case.is_confirmed_by(self._fact):
            self._use(case.history)
        else:
            case.waiting.append(self.run)

    def _begin_or_read(self) -> None:
        # Nothing is read for a new saga: if it is not new after all, the guard of its first entry says so.
        if isinstance(self._fact, Start) and self._delivery.deliveries == 1:
            self._go_on_from(begin(self._key, self._definition))
        else:
            self._read()

    def _use(self, history: History) -> None:
        """Use a cached history, unless the command that the fact answers is newer than it."""
        if isinstance(self._fact, Answer) and self._fact.command > history.sequence:
            self._read()
        else:
            self._go_on_from(history)

    def _read(self) -> None:
        self._coordinator.cache.forget(self._key)
        self._coordinator.read(self._key, self._definition, self._on_read)

    def _on_read(self, result: Found | Exception) -> None:
        match result:
            case Found(history=history) if history.entries or isinstance(self._fact, Start | Tick):
                self._go_on_from(history)
            case Found():
                self._give_up_after(DELIVERIES_MAX, "orphan", f"saga {self._key} was never started")
            case Unfoldable() | Ambiguous():
                self._hand_back(str(result))
            case OtherDefinition():
                self._give_up_after(DELIVERIES_MAX, "unhandled", str(result))
            case _:
                self._faulty(result)

    # --- performing the plan ------------------------------------------------------------------------------------------

    def _go_on_from(self, history: History) -> None:
        try:
            what = plan(history, self._fact, self._coordinator.store.now())
        except Exception as error:  # a defect of ours must not stop the loop; the fact comes again
            self._faulty(error)
            return
        if what.fault:
            log.error("saga.faulted", saga=str(self._key), fault=what.fault)
        _Writes(self, self._coordinator, self._key, what, history.sequence).begin()

    def all_stored(self) -> None:
        """Every part of the plan is durable, and so is the fact."""
        reached("coordinator.appended")
        self._delivery.ack()

    def not_stored(self, outcome: Exception) -> None:
        """Somebody else was first, or nobody knows: what the journal says is what counts."""
        if isinstance(outcome, Conflict) and self._tries < TRIES_MAX:
            self._tries += 1
            self._read()
        else:
            self._hand_back(str(outcome))

    # --- other ends ---------------------------------------------------------------------------------------------------

    def _hand_back(self, why: str) -> None:
        log.info("fact.handed_back", saga=str(self._key), why=why, subject=self._delivery.subject)
        self._delivery.hand_back(HAND_BACK_SECONDS)

    def _faulty(self, error: Exception) -> None:
        log.error("fact.faulty", saga=str(self._key), error=repr(error), exc_info=error)
        self._coordinator.cache.forget(self._key)
        self._give_up_after(FAULTY_DELIVERIES_MAX, "fault", f"handling it raised {error!r}")

    def _give_up_after(self, deliveries_max: int, kind: ParkedKind, reason: str) -> None:
        if self._delivery.deliveries < deliveries_max:
            self._hand_back(reason)
        else:
            self._coordinator.park(self._delivery, kind, reason)


class _Writes:
    """One plan being performed: the timer beside the first entry, then one entry after the other."""

    __slots__ = ("_coordinator", "_entries", "_errand", "_failed", "_guard", "_key", "_left", "_plan")

    def __init__(self, errand: Errand, coordinator: Coordinator, key: SagaKey, what: Plan, guard: int) -> None:
        self._errand, self._coordinator, self._key, self._plan = errand, coordinator, key, what
        self._entries = iter(what.entries)
        self._guard = guard
        self._left = len(what.entries) + (what.timer is not None)
        self._failed = False

    def begin(self) -> None:
        """Send what may be sent at once. The timer goes first, and the server stores in the order sent."""
        if self._left == 0:
            self._errand.all_stored()
            return
        if (timer := self._plan.timer) is not None:
            self._coordinator.store.arm(self._key, timer.due_ns, timer.body, timer.first, self._on_armed)
        self._next()

    def _next(self) -> None:
        entry = next(self._entries, None)
        if entry is None:
            return
        self._coordinator.cache.expect(self._key, entry.after, entry.draft, self._left_after(entry))
        self._coordinator.store.append(
            self._key,
            entry.draft,
            self._guard,
            entry.after.end is not None,
            lambda outcome: self._on_stored(entry, outcome),
        )

    def _left_after(self, entry: Planned) -> bool:
        return entry is not self._plan.entries[-1]

    def _on_stored(self, entry: Planned, outcome: Outcome) -> None:
        if not isinstance(outcome, int):
            self._fail(outcome)
            return
        self._guard = outcome
        self._coordinator.cache.stored(self._key, entry.draft, outcome)
        if self._left_after(entry):
            reached("coordinator.between_appends")
        self._next()
        self._part_done()

    def _on_armed(self, outcome: Outcome) -> None:
        # A conflict says that the saga has its first timer already.
        if isinstance(outcome, int | Conflict | AlreadyStored):
            self._part_done()
        else:
            self._fail(outcome)

    def _part_done(self) -> None:
        self._left -= 1
        if self._left == 0 and not self._failed:
            self._errand.all_stored()

    def _fail(self, outcome: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._coordinator.cache.forget(self._key)
            self._errand.not_stored(outcome)
