"""One fact on its way into a journal: know the history, plan, append entry by entry under the guard, then ack.

Whatever goes wrong (a conflict, a lost answer, a crash) costs nothing but another look, because nothing is remembered
that the streams do not hold.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from antiphon.contracts.errors import Ambiguous, Conflict, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import ParkedKind, parked_kind
from antiphon.contracts.stored import AlreadyStored, Outcome
from antiphon.contracts.subjects import FactAddress
from antiphon.contracts.topology import COORDINATOR
from antiphon.link.faults import say
from antiphon.link.killpoints import reached

from ..decision.accept import accept
from ..decision.facts import Answer, Fact, Start, Tick
from ..decision.fold import Unfoldable
from ..decision.history import History, begin
from ..decision.plan import Plan, Planned, Timer, plan
from ..decision.replay import OtherDefinition, Replayed
from ..definition.definition import Definition
from ..definition.versions import Versions
from .ports import ArmGuard, Delivered

if TYPE_CHECKING:
    from .coordinator import Coordinator

log = structlog.get_logger()

TRIES_MAX: Final = 6
"""Conflicts in a row before a fact is handed back: others are busy with this saga, or the reads are old."""

PAUSE_SECONDS: Final = 0.002
"""After a second conflict so long, and twice as long after each further one, is left to whoever is busy."""

HAND_BACK_SECONDS: Final = 1.0
"""How soon another coordinator, or a replica that has caught up, shall look at what cannot be handled now."""

DELIVERIES_MAX: Final = 10
"""After so many deliveries a fact that no saga, or no coordinator here, knows is parked."""


class FactHandler:
    """A fact, the delivery that brought it, and how far it has come. Whatever is raised on the way ends in `failed`.

    A message of EVENTS becomes a fact only once it is known by which definition; `address` is its subject then, and
    `fact` is given for what is none.
    """

    __slots__ = (
        "_address",
        "_before",
        "_coordinator",
        "_definition",
        "_delivery",
        "_fact",
        "_key",
        "_parked",
        "_tries",
        "_versions",
    )

    def __init__(
        self,
        coordinator: Coordinator,
        key: SagaKey,
        versions: Versions,
        delivery: Delivered,
        address: FactAddress | None = None,
        fact: Fact | None = None,
    ) -> None:
        self._coordinator, self._key, self._versions = coordinator, key, versions
        self._delivery, self._address, self._fact = delivery, address, fact
        self._definition: Definition | None = None
        self._before: History | None = None
        """What was known before the fact, once it was planned with."""
        self._parked = ""
        self._tries = 0

    # --- knowing the history ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Handle the fact, under a guard of its own: who calls may have another one in hand."""
        self._coordinator.store.guard.call(self, self.run)

    def run(self) -> None:
        """Go on from the cache if it holds enough, else from a read.

        A tick that finds nothing due adds nothing to the journal, so that no guard would tell it that the cache is old.
        """
        case = self._coordinator.cache.get(self._key)
        if case is None or not self._versions.is_led:
            self._begin_or_read()
            return
        if isinstance(self._fact, Tick):
            self._read()
            return
        fact = self._accepted(case.history.definition)
        if fact is None:
            return
        if case.is_settled:
            self._use(case.history, fact)
        else:
            case.waiting.append(self.begin)

    def _accepted(self, definition: Definition) -> Fact | None:
        """The fact, read by a definition; None after the delivery was parked, because it is none."""
        address, delivery = self._address, self._delivery
        if address is None or self._definition is definition:
            return self._fact
        try:
            self._fact = accept(
                definition, address, delivery.data, delivery.subject, delivery.sequence, delivery.stored_ns
            )
        except Unusable as error:
            self._coordinator.park(delivery, parked_kind(error), str(error))
            return None
        self._definition = definition
        return self._fact

    def _begin_or_read(self) -> None:
        # Nothing is read for a new saga: if it is not new after all, the guard of its first entry says so.
        is_start = self._address is not None and self._address.event == "start"
        if not is_start or self._delivery.deliveries != 1:
            self._read()
        elif (fact := self._accepted(self._versions.newest)) is not None:
            self._go_on_from(begin(self._key, self._versions.newest), fact)

    def _use(self, history: History, fact: Fact) -> None:
        """Use a cached history, unless the command that the fact answers is newer than it."""
        if isinstance(fact, Answer) and fact.command > history.sequence:
            self._read()
        else:
            self._go_on_from(history, fact)

    def _read(self) -> None:
        """Read the saga, or, where another errand is reading it, see what that makes of it first: of several that read
        at once all but one would meet a conflict."""
        cache = self._coordinator.cache
        if cache.is_read(self._key, self.begin):
            return
        cache.forget(self._key)
        self._coordinator.read(self._key, self._versions, self._on_read)

    def _on_read(self, result: Replayed | Exception) -> None:
        try:
            self._go_on_with(result)
        finally:
            self._coordinator.cache.was_read(self._key)

    def _go_on_with(self, result: Replayed | Exception) -> None:
        match result:
            case Replayed(history=history):
                fact = self._accepted(history.definition)
                if fact is None:
                    return
                if history.entries and history.end is None and history.definition.is_led:
                    self._coordinator.cache.keep(self._key, history)
                earlier = [] if history.definition.is_led or history.end else _before(fact, result.unnamed)
                if earlier:
                    self._take_first(earlier)
                elif history.entries or isinstance(fact, Start | Tick):
                    self._go_on_from(history, fact)
                else:
                    self._give_up_after(DELIVERIES_MAX, "orphan", f"saga {self._key} was never started")
            case Unfoldable() | Ambiguous():
                self._hand_back(str(result))
            case OtherDefinition():
                self._give_up_after(DELIVERIES_MAX, "unhandled", str(result))
            case _:
                self.failed(result)

    def _take_first(self, facts: list[Fact]) -> None:
        """Have what was said before recorded before this: nobody asks for what a choreography's journal lacks, and
        the event that ends it closes the journal."""

        def go_on(is_durable: bool) -> None:
            if is_durable:
                self.run()
            else:
                self._hand_back("what was said before could not be recorded")

        self._coordinator.take_in(self._key, self._versions, facts, go_on)

    # --- performing the plan ------------------------------------------------------------------------------------------

    def _go_on_from(self, history: History, fact: Fact) -> None:
        is_repeated = self._tries > 0 or self._delivery.deliveries > 1
        hold = self._coordinator.hold_on(self._key.type)
        if hold:
            self._coordinator.paused_types.hold_back(self._key)
        coordinator = self._coordinator
        now, author = coordinator.store.now(), coordinator.author()
        what = plan(history, fact, now, is_repeated, hold, author, coordinator.sampling_ratio)
        if what.fault and what.error is not None:
            say("saga.faulted", what.error, saga=str(self._key), fault=what.fault)
        elif what.fault:
            log.error("saga.faulted", saga=str(self._key), fault=what.fault)
        self._parked, self._before = what.parked, history
        _Writes(self, self._coordinator, self._key, what, history.sequence).begin()

    def all_stored(self) -> None:
        """Every part of the plan is durable, and so is the fact."""
        reached("coordinator.appended")
        self._count()
        if self._parked:
            self._coordinator.park_saga(self._key, self._delivery, self._parked)
        else:
            self._delivery.ack()

    def _count(self) -> None:
        """Count what the fact was: one that was known before, or an answer that somebody has waited for."""
        counts, fact, before = self._coordinator.counts, self._fact, self._before
        if self._delivery.deliveries > 1:
            counts.add("redeliveries", COORDINATOR)
        if before is None or fact is None or isinstance(fact, Tick):
            return
        if fact.sequence in before.named:
            counts.add("duplicates", COORDINATOR)
        elif counts.record is not None and isinstance(fact, Answer) and (step := before.steps.get(fact.step)):
            seconds = (fact.at_ns - step.sent_ns) / 1e9
            name = before.definition.step(fact.step).name
            counts.took("step_seconds", seconds, self._key.type, name, fact.direction, fact.kind)

    def not_stored(self, outcome: Exception) -> None:
        """Somebody else was first, or nobody knows: what the journal says is what counts."""
        if isinstance(outcome, Conflict):
            self._coordinator.counts.add("conflicts")
        if not isinstance(outcome, Conflict) or self._tries >= TRIES_MAX:
            self._hand_back(str(outcome))
            return
        self._tries += 1
        if self._tries == 1:
            self._read()
        else:
            self._coordinator.store.later(self._by_lot(PAUSE_SECONDS * 2**self._tries), self.begin)

    def _by_lot(self, seconds: float) -> float:
        """About so long, and not as long as another coordinator's fact of the same saga."""
        return seconds * (0.5 + self._delivery.sequence * 7 % 16 / 16)

    # --- other ends ---------------------------------------------------------------------------------------------------

    def _hand_back(self, why: str) -> None:
        log.info("fact.handed_back", saga=str(self._key), why=why, subject=self._delivery.subject)
        self._delivery.hand_back(self._by_lot(HAND_BACK_SECONDS))

    def failed(self, error: BaseException) -> None:
        """Have the fact come again, or park it: handling it raised."""
        self._coordinator.faulty(self._delivery, error)
        # Its entry may be pending there for ever, and others wait for that.
        self._coordinator.cache.forget(self._key)
        self._coordinator.cache.was_read(self._key)

    def _give_up_after(self, deliveries_max: int, kind: ParkedKind, reason: str) -> None:
        if self._delivery.deliveries < deliveries_max:
            self._hand_back(reason)
        else:
            self._coordinator.park(self._delivery, kind, reason)


def _before(fact: Fact, unnamed: list[Fact]) -> list[Fact]:
    """What no entry names yet and comes before a fact: by its place in the stream, the start in any case, and before a
    tick everything that is known."""
    if isinstance(fact, Start):
        return []
    return [
        each
        for each in unnamed
        if isinstance(each, Start)
        or isinstance(fact, Tick)
        or (not isinstance(each, Tick) and each.sequence < fact.sequence)
    ]


class _Writes:
    """One plan being performed: the first timer beside the first entry; one entry after the other; any later timer
    after the last; then what is told."""

    __slots__ = ("_coordinator", "_entries", "_errand", "_failed", "_guard", "_key", "_left", "_plan")

    def __init__(self, errand: FactHandler, coordinator: Coordinator, key: SagaKey, what: Plan, guard: int) -> None:
        self._errand, self._coordinator, self._key, self._plan = errand, coordinator, key, what
        self._entries = iter(what.entries)
        self._guard = guard
        self._left = len(what.entries)
        self._failed = False

    def begin(self) -> None:
        """Send what may be sent at once. The first timer goes first, and the server stores in the order sent."""
        timer = self._plan.timer
        if timer is not None and timer.first:
            self._left += 1
            self._arm(timer, "first")
        if self._left == 0:
            self._all_appended()
        else:
            self._next()

    def _next(self) -> None:
        entry = next(self._entries, None)
        if entry is None:
            return
        self._coordinator.cache.expect(self._key, entry.after, entry.draft, self._left_after(entry))
        self._coordinator.store.append(
            self._key,
            entry.draft.subject,
            entry.draft.data,
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
        if entry.after.entries == 1 or entry.after.end is not None:
            self._coordinator.count(entry.after, entry.draft)
        if self._left_after(entry):
            reached("coordinator.between_appends")
        self._next()
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
        self._coordinator.store.arm(self._key, timer.due_ns, timer.body, guard, partial(self._on_armed, guard))

    def _on_armed(self, guard: ArmGuard, outcome: Outcome) -> None:
        if guard == "first" and isinstance(outcome, int | Conflict | AlreadyStored):
            self._part_done()
        elif isinstance(outcome, int):
            self._tell()
        else:
            self._fail(outcome)

    # --- what others wait for -----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        if not self._plan.notices:
            self._errand.all_stored()
            return
        reached("coordinator.before_tell")
        self._left = len(self._plan.notices)
        time = self._coordinator.store.now()
        for tell in self._plan.notices:
            self._coordinator.store.tell(tell.subject, tell.encode(time), self._on_told)

    def _on_told(self, outcome: Outcome) -> None:
        if not isinstance(outcome, int | AlreadyStored):
            self._fail(outcome)
            return
        self._left -= 1
        if self._left == 0 and not self._failed:
            self._errand.all_stored()

    def _fail(self, outcome: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._coordinator.cache.forget(self._key)
            self._errand.not_stored(outcome)
