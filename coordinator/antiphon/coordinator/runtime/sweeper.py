"""The sweeper: open sagas in which nothing has happened for long, looked at although nothing was delivered for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from antiphon.contracts.errors import Ambiguous, Unusable
from antiphon.contracts.identity import COORDINATOR, LOCK, SagaKey
from antiphon.contracts.stored import Delivered
from antiphon.contracts.subjects import parse_fact
from antiphon.link.faults import say

from ..decision.dues import FAR_NS
from ..decision.facts import Fact, Tick
from ..decision.replay import Replayed
from ..definition.versions import Versions
from .journals import Journals
from .lock_handler import LockHandler
from .parking import HAND_BACK_SECONDS

log = structlog.get_logger()

IDLE_SECONDS: Final = 30.0
"""How long nothing may happen to an open saga before the sweeper looks after it."""

IDLE_SECONDS_MAX: Final = FAR_NS / 2e9
"""The most that may be said instead: a saga's first tick comes well before anything that has no timer without one."""

SWEEP_SECONDS_MAX: Final = 600.0
"""The longest pause between two looks at an open saga."""

GATHER_SECONDS: Final = 0.02
"""How long the sweeper gathers starts, to ask for their outcomes in one read."""

TakeIn = Callable[[SagaKey, Versions, list[Fact], Callable[[bool], None]], None]
"""Takes facts of a saga in as if they were delivered; the callback is told whether all are durable."""


class Sweeper:
    """The starts of sagas that may be open, from their delivery until their sagas have ended.

    Args:
        journals: the coordinator's.
        idle_seconds: for how long nothing has happened to a saga that is looked after.
        take_in: takes in the facts that a journal does not name.
    """

    def __init__(self, journals: Journals, idle_seconds: float, take_in: TakeIn) -> None:
        if idle_seconds > IDLE_SECONDS_MAX:
            raise ValueError(f"idle_seconds is {idle_seconds:g}; above {IDLE_SECONDS_MAX:g} timers would be late")
        self._journals, self._idle_seconds, self._take_in = journals, idle_seconds, take_in
        self._store = journals.store
        self._gathered: list[Watch] = []

    def watch(self, delivery: Delivered) -> None:
        """Look after the saga of a delivered start once it can have been idle for long enough."""
        watch = Watch(self, delivery)
        self._store.guard.call(watch, self._wait, watch)

    def _wait(self, watch: Watch) -> None:
        age_seconds = (self._journals.now_ns() - watch.delivery.stored_ns) / 1e9
        self._store.later(max(0.0, self._idle_seconds - age_seconds), partial(self._gather, watch))

    def _gather(self, watch: Watch) -> None:
        try:
            watch.key = parse_fact(watch.delivery.subject).saga
        except Unusable:
            watch.delivery.ack()  # the consumer of facts parks it
            return
        self._gathered.append(watch)
        if len(self._gathered) == 1:
            self._store.guard.call(None, self._store.later, GATHER_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Look after all gathered sagas."""
        gathered, self._gathered = Gathered(self._gathered), []
        self._store.guard.call(gathered, self._look_after_all, gathered.watches)

    def _look_after_all(self, watches: list[Watch]) -> None:
        """Ask for the outcomes of all at once, and look after those that have none."""

        def judge(ended: set[SagaKey] | Ambiguous) -> None:
            for watch in watches:
                self._store.guard.call(watch, self._judge, watch, ended)

        self._store.ended([watch.key for watch in watches if watch.key is not None], judge)

    def _judge(self, watch: Watch, ended: set[SagaKey] | Ambiguous) -> None:
        if isinstance(ended, Ambiguous):
            watch.delivery.hand_back(self._idle_seconds)
        elif watch.key is None or (watch.key in ended and not self._may_owe(watch, watch.key)):
            watch.delivery.ack()
        elif watch.key in ended:
            self._tell_again(watch.key, watch.delivery)
        else:
            self._look_after(watch.key, watch.delivery)

    def _may_owe(self, watch: Watch, key: SagaKey) -> bool:
        """Whether an ended saga may have something to tell that nobody else tells: to its locks, children or parent.

        Where a delivery brought the end, that delivery comes again until all is told. But an earlier look of the
        sweeper may have written the end, and have come to nothing before it told.
        """
        if watch.delivery.deliveries < 2 or key.type not in self._journals.definitions:
            return False
        definitions = self._journals.definitions[key.type].definitions
        is_child = parse_fact(watch.delivery.subject).source == COORDINATOR
        return is_child or any(each.locks is not None or each.children for each in definitions)

    def _tell_again(self, key: SagaKey, delivery: Delivered) -> None:
        """Tell others what the end of a saga obliges to, and be done with it."""
        versions = self._journals.definitions[key.type]

        def go_on(result: Replayed | Exception) -> None:
            if isinstance(result, Replayed):
                self._take_in(key, versions, [Tick(self._journals.now_ns())], on_told)
            elif isinstance(result, Ambiguous):
                delivery.hand_back(self._idle_seconds)
            else:
                delivery.ack()  # it was purged, which waits for its relatives, or nobody here can read it

        def on_told(is_durable: bool) -> None:
            if is_durable:
                delivery.ack()
            else:
                delivery.hand_back(HAND_BACK_SECONDS)

        self._journals.look(key, versions, go_on)

    def _look_after(self, key: SagaKey, delivery: Delivered) -> None:
        versions = self._journals.definitions.get(key.type)
        if versions is None:
            delivery.hand_back(self._idle_seconds)
            return

        def go_on(result: Replayed | Exception) -> None:
            if isinstance(result, Replayed):
                self._take_in(key, versions, self._facts(key, result), on_taken)
            else:
                self._journals.say_if_lacking(key, result)
                delivery.hand_back(self._idle_seconds)

        def on_taken(is_durable: bool) -> None:
            self.look_again(delivery, is_durable)

        self._journals.look(key, versions, go_on)

    def _facts(self, key: SagaKey, found: Replayed) -> list[Fact]:
        """What a saga is told: the time, which sets its timer where that was lost or lies far ahead; before that, of a
        saga in which nothing happens, what its journal does not name."""
        now_ns = self._journals.now_ns()
        if now_ns - found.touched_ns < self._idle_seconds * 1e9:
            return [Tick(now_ns)]
        for lock in found.history.asks:
            LockHandler.look_after(self._store, SagaKey.of(LOCK, lock)).begin()
        if found.unnamed:
            log.warning("sweeper.found_facts", saga=str(key), count=len(found.unnamed))
        return [*found.unnamed, Tick(now_ns)]

    def look_again(self, delivery: Delivered, is_durable: bool) -> None:
        """Look at a saga again later, unless it has ended by then; soon where this look changed nothing durably."""
        pause = self._idle_seconds * delivery.deliveries if is_durable else HAND_BACK_SECONDS
        delivery.hand_back(min(SWEEP_SECONDS_MAX, pause))


class Watch:
    """A start in the sweeper's hands, and the saga that it began once that is known."""

    __slots__ = ("_sweeper", "delivery", "key")

    def __init__(self, sweeper: Sweeper, delivery: Delivered) -> None:
        self._sweeper, self.delivery = sweeper, delivery
        self.key: SagaKey | None = None

    def failed(self, error: BaseException) -> None:
        """Look at the saga again, ever later; it is never given up, because the cause may be mended."""
        self._sweeper.look_again(self.delivery, is_durable=True)
        say("sweeper.faulty", error, self.delivery.subject, deliveries=self.delivery.deliveries)


class Gathered:
    """Starts that the sweeper looks after together."""

    def __init__(self, watches: list[Watch]) -> None:
        self.watches = watches

    def failed(self, error: BaseException) -> None:
        """Look at all of them again."""
        for watch in self.watches:
            watch.failed(error)
