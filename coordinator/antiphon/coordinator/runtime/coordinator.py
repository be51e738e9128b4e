"""The coordinator: what wakes it, and the sweeper that looks after what was not woken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import structlog

from antiphon.contracts.errors import Ambiguous, AntiphonError, Unusable
from antiphon.contracts.identity import COORDINATOR, LOCK, NOT_SAGAS, SagaKey
from antiphon.contracts.payloads import Parked, ParkedKind, StatusAnswer, parked_kind
from antiphon.contracts.stored import SagaPages
from antiphon.contracts.subjects import FactAddress, parse_announcement, parse_fact, parse_fired
from antiphon.link.faults import class_of, say
from antiphon.link.killpoints import reached
from antiphon.tracing.telemetry.counts import Counts

from ..decision.accept import accept_request
from ..decision.author import Author
from ..decision.entries import Draft
from ..decision.facts import Fact, Tick
from ..decision.fold import Unfoldable
from ..decision.history import History
from ..decision.replay import OtherDefinition, Replayed, replay, status_answer
from ..definition.definition import Definition
from ..definition.versions import Versions, by_type
from .cache import Cache
from .catch_up import CatchUp
from .fact_handler import DELIVERIES_MAX, HAND_BACK_SECONDS, FactHandler
from .lock_handler import LockHandler
from .pause_handler import PauseHandler
from .paused_types import PausedTypes
from .ports import Delivered, Store

log = structlog.get_logger()

IDLE_SECONDS: Final = 30.0
"""How long nothing may happen to an open saga before the sweeper looks after it."""

SWEEP_SECONDS_MAX: Final = 600.0
"""The longest pause between two looks at an open saga."""

GATHER_SECONDS: Final = 0.02
"""How long the sweeper gathers starts, to ask for their outcomes in one read."""

FAULTY_DELIVERIES_MAX: Final = 5
"""After so many deliveries a fact whose handling raises is parked."""


class Coordinator:
    """One of any number of coordinators; all are equal, and share the work by sharing consumers."""

    def __init__(
        self,
        store: Store,
        definitions: Iterable[Definition],
        idle_seconds: float = IDLE_SECONDS,
        author: Callable[[], Author] = Author,
        sampling_ratio: float = 1.0,
    ) -> None:
        self.store, self.idle_seconds, self.author = store, idle_seconds, author
        self.sampling_ratio = sampling_ratio
        """The share of sagas whose traces are sampled, of those that nobody has sent a command for yet."""
        self.counts = Counts()
        self.sagas = by_type(definitions)
        self.cache = Cache()
        self.paused_types = PausedTypes(self)
        self._gathered: list[Watch] = []
        self._lacking: set[str] = set()

    def begin(self, then: Callable[[], None]) -> None:
        """Find out what stands still, and call `then`: before that nothing may be handled."""
        self.paused_types.begin(then)

    def on_announced(self, subject: str, data: bytes) -> None:
        """Another coordinator says that a saga type stands otherwise than before."""
        self.store.guard.call(None, self._heard, subject, data)

    def _heard(self, subject: str, data: bytes) -> None:
        if data.isdigit():
            self.paused_types.heard(parse_announcement(subject), int(data))

    def on_fact(self, delivery: Delivered) -> None:
        """A message of EVENTS was delivered."""
        self.store.guard.take(delivery, self._take_fact, self.faulty)

    def _take_fact(self, delivery: Delivered) -> None:
        reached("coordinator.pulled")
        try:
            address = parse_fact(delivery.subject)
        except Unusable as error:
            self.park(delivery, parked_kind(error), str(error))
            return
        if address.saga.type in NOT_SAGAS:
            self._on_fact_of_none(address, delivery)
            return
        versions = self._versions(address.saga, delivery)
        if versions is not None:
            FactHandler(self, address.saga, versions, delivery, address).begin()

    def _on_fact_of_none(self, address: FactAddress, delivery: Delivered) -> None:
        """A message about something else than a saga."""
        if address.saga.type == LOCK:
            LockHandler.of(self.store, address, delivery, self.faulty).begin()
            return
        try:
            fact = accept_request(address, delivery.data, delivery.subject, delivery.sequence, delivery.stored_ns)
        except Unusable as error:
            self.park(delivery, parked_kind(error), str(error))
            return
        PauseHandler(self, address.saga, delivery, fact).begin()

    def on_fired(self, delivery: Delivered) -> None:
        """A saga's timer was delivered."""
        self.store.guard.take(delivery, self._take_fired, self.faulty)

    def _take_fired(self, delivery: Delivered) -> None:
        try:
            key = parse_fired(delivery.subject)
        except Unusable as error:
            self.park(delivery, parked_kind(error), str(error))
            return
        versions = self._versions(key, delivery)
        if versions is not None:
            FactHandler(self, key, versions, delivery, fact=Tick(delivery.stored_ns)).begin()

    def hold_on(self, saga_type: str) -> str:
        """Why sagas of this type are to stand still; empty if they are not."""
        return self.paused_types.paused.get(saga_type, "")

    def on_start_to_watch(self, delivery: Delivered) -> None:
        """A start was delivered to the sweeper: look after its saga once that can have been idle for long enough."""
        watch = Watch(self, delivery)
        self.store.guard.call(watch, self._watch, watch)

    def status(self, key: SagaKey, then: Callable[[StatusAnswer], None]) -> None:
        """Read how a saga stands."""
        versions = self.sagas.get(key.type)
        if versions is None:
            then(StatusAnswer(error=f"no coordinator here has a saga {key.type!r}"))
        else:
            self.read(key, versions, lambda result: then(status_answer(result, self.hold_on(key.type))))

    def read(self, key: SagaKey, versions: Versions, then: Callable[[Replayed | Exception], None]) -> None:
        """Read and fold a saga; `then` is called once, with what was found or why nothing was.

        What else folding raises goes to what is in hand.
        """

        def take(pages: SagaPages | Ambiguous) -> None:
            result: Replayed | Exception
            try:
                result = pages if isinstance(pages, Ambiguous) else replay(key, versions, pages)
            except (AntiphonError, Unfoldable) as error:
                result = error
            then(result)

        self.store.read(key, versions.sources, take)

    def review(self, key: SagaKey, then: Callable[[bool], None]) -> None:
        """Look at a saga for which nothing was delivered: take in what its journal does not name, and decide.

        `then` is called once, with whether that could be done. What is due by our clock is due.
        """
        versions = self.sagas[key.type]
        review = CatchUp(self, key, versions, then)

        def go_on(result: Replayed | Exception) -> None:
            if isinstance(result, Replayed):
                review.take([*result.unnamed, Tick(self._now_ns())])
            else:
                self._say_if_lacking(key, result)
                review.hand_back()

        self.store.guard.call(review, self.read, key, versions, go_on)

    def take_in(self, key: SagaKey, versions: Versions, facts: list[Fact], then: Callable[[bool], None]) -> None:
        """Take facts in, one after the other, as if they were delivered; `then` is told whether all are durable."""
        CatchUp(self, key, versions, then).take(facts)

    def _say_if_lacking(self, key: SagaKey, error: Exception) -> None:
        """Log once for each definition that sagas here need and this coordinator does not have."""
        if isinstance(error, OtherDefinition) and error.label not in self._lacking:
            self._lacking.add(error.label)
            log.warning("coordinator.lacks_definition", definition=error.label, saga=str(key), remedy=str(error))

    def faulty(self, delivery: Delivered, error: BaseException) -> None:
        """Handling a fact raised, whoever's code that was: have it come again, to any coordinator, and not for ever.

        The reason names the error's class alone. Its text may hold what is private, and is in the log.
        """
        if delivery.deliveries < FAULTY_DELIVERIES_MAX:
            delivery.hand_back(HAND_BACK_SECONDS)
        else:
            self.park(
                delivery, "fault", f"handling it raised {class_of(error)}; the log of the coordinators says where"
            )
        say("fact.faulty", error, delivery.subject, deliveries=delivery.deliveries)

    def park(self, delivery: Delivered, kind: ParkedKind, reason: str) -> None:
        """Set a message aside, and ack it once PARKED holds it."""
        log.warning("fact.parked", kind=kind, reason=reason, subject=delivery.subject)
        self.counts.add("messages_parked", kind)
        parked = Parked(
            kind=kind,
            reason=reason,
            noticed_by=COORDINATOR,
            stream=delivery.stream,
            sequence=delivery.sequence,
            subject=delivery.subject,
            data=delivery.data,
        )

        self.store.park(parked, lambda outcome: _settle(delivery, outcome))

    def park_saga(self, key: SagaKey, delivery: Delivered, reason: str) -> None:
        """Put a saga into the index of what waits for a person, and ack the fact that brought it there."""
        log.warning("saga.parked", saga=str(key), reason=reason)
        self.counts.add("sagas_parked", key.type)
        index = Parked(
            kind="saga",
            reason=reason,
            noticed_by=COORDINATOR,
            stream=delivery.stream,
            sequence=delivery.sequence,
            subject=delivery.subject,
            data=b"",
            saga=key,
        )
        self.store.park(index, lambda outcome: _settle(delivery, outcome))

    def count(self, history: History, entry: Draft) -> None:
        """Count a saga whose first or last entry was stored just now."""
        saga_type = history.key.type
        if history.entries == 1:
            self.counts.add("sagas_started", saga_type)
        if history.end is not None:
            outcome = history.end.outcome
            self.counts.add("sagas_ended", saga_type, outcome)
            self.counts.took("saga_seconds", (entry.at_ns - history.started_ns) / 1e9, saga_type, outcome)

    def _versions(self, key: SagaKey, delivery: Delivered) -> Versions | None:
        """The definitions of a saga, or None after the delivery went back to whoever may have them."""
        versions = self.sagas.get(key.type)
        if versions is None:
            reason = f"no coordinator here has a saga {key.type!r}; run one that does"
            if delivery.deliveries < DELIVERIES_MAX:
                delivery.hand_back(HAND_BACK_SECONDS)
            else:
                self.park(delivery, "unhandled", reason)
        return versions

    # --- the sweeper --------------------------------------------------------------------------------------------------

    def _watch(self, watch: Watch) -> None:
        age_seconds = (self._now_ns() - watch.delivery.stored_ns) / 1e9
        self.store.later(max(0.0, self.idle_seconds - age_seconds), partial(self._gather, watch))

    def _gather(self, watch: Watch) -> None:
        try:
            watch.key = parse_fact(watch.delivery.subject).saga
        except Unusable:
            watch.delivery.ack()  # the consumer of facts parks it
            return
        self._gathered.append(watch)
        if len(self._gathered) == 1:
            self.store.guard.call(None, self.store.later, GATHER_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Look after all gathered sagas."""
        gathered, self._gathered = Gathered(self._gathered), []
        self.store.guard.call(gathered, self._look_after_all, gathered.watches)

    def _look_after_all(self, watches: list[Watch]) -> None:
        """Ask for the outcomes of all at once, and look after those that have none."""

        def judge(ended: set[SagaKey] | Ambiguous) -> None:
            for watch in watches:
                self.store.guard.call(watch, self._judge, watch, ended)

        self.store.ended([watch.key for watch in watches if watch.key is not None], judge)

    def _judge(self, watch: Watch, ended: set[SagaKey] | Ambiguous) -> None:
        if isinstance(ended, Ambiguous):
            watch.delivery.hand_back(self.idle_seconds)
        elif watch.key is None or watch.key in ended:
            watch.delivery.ack()
        else:
            self._look_after(watch.key, watch.delivery)

    def _look_after(self, key: SagaKey, delivery: Delivered) -> None:
        versions = self.sagas.get(key.type)
        if versions is None:
            delivery.hand_back(self.idle_seconds)
            return

        def go_on(result: Replayed | Exception) -> None:
            now_ns = self._now_ns()
            if isinstance(result, Replayed) and now_ns - result.touched_ns >= self.idle_seconds * 1e9:
                if result.unnamed:
                    log.warning("sweeper.found_facts", saga=str(key), count=len(result.unnamed))
                # The last is for a timer that was lost: what is due by our clock is due.
                facts = [*result.unnamed, Tick(now_ns)]
                self.take_in(key, versions, facts, lambda is_durable: self.look_again(delivery, is_durable))
                for lock in result.history.asks:
                    LockHandler.look_after(self.store, SagaKey.of(LOCK, lock)).begin()
            else:
                if isinstance(result, Exception):
                    self._say_if_lacking(key, result)
                delivery.hand_back(self.idle_seconds)

        self.read(key, versions, go_on)

    def look_again(self, delivery: Delivered, is_durable: bool) -> None:
        """Look at a saga again later, unless it has ended by then; soon where the look came to nothing."""
        pause = self.idle_seconds * delivery.deliveries if is_durable else HAND_BACK_SECONDS
        delivery.hand_back(min(SWEEP_SECONDS_MAX, pause))

    def _now_ns(self) -> int:
        return round(self.store.now().timestamp() * 1e9)


class Watch:
    """A start in the sweeper's hands, and the saga that it began once that is known."""

    __slots__ = ("_coordinator", "delivery", "key")

    def __init__(self, coordinator: Coordinator, delivery: Delivered) -> None:
        self._coordinator, self.delivery = coordinator, delivery
        self.key: SagaKey | None = None

    def failed(self, error: BaseException) -> None:
        """Look at the saga again, ever later; it is never given up, because what is wrong with it may be mended."""
        self._coordinator.look_again(self.delivery, is_durable=True)
        say("sweeper.faulty", error, self.delivery.subject, deliveries=self.delivery.deliveries)


class Gathered:
    """Starts that the sweeper looks after together."""

    def __init__(self, watches: list[Watch]) -> None:
        self.watches = watches

    def failed(self, error: BaseException) -> None:
        """Look at all of them again."""
        for watch in self.watches:
            watch.failed(error)


def _settle(delivery: Delivered, outcome: object) -> None:
    """Ack what was set aside once that is durable."""
    if isinstance(outcome, int):
        delivery.ack()
    else:
        delivery.hand_back(HAND_BACK_SECONDS)
