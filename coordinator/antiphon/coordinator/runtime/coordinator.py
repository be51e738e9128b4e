"""The coordinator: what it is composed of, and what wakes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import LOCK, NOT_SAGAS, OPERATOR, PARKED_MESSAGE, SagaKey
from antiphon.contracts.payloads import StatusAnswer, parked_kind
from antiphon.contracts.stored import Delivered
from antiphon.contracts.subjects import FORGET, FactAddress, parse_announcement, parse_fact, parse_fired, status_queue
from antiphon.link.killpoints import reached
from antiphon.tracing.telemetry.counts import Counts

from ..decision.accept import accept_message_request, accept_request, check_lock_fact
from ..decision.author import Author
from ..decision.facts import Fact, Tick
from ..decision.replay import Purged, Replayed, status_answer
from ..definition.definition import Definition
from ..definition.versions import Versions
from .admission import Admission
from .fact_handler import DELIVERIES_MAX, CatchUp, FactHandler
from .journals import Journals
from .lock_handler import LockHandler
from .message_handler import MessageHandler
from .parking import HAND_BACK_SECONDS, Parking
from .pause_handler import PauseHandler
from .paused_types import PausedTypes
from .ports import Store
from .request_queue import RequestQueue
from .sweeper import IDLE_SECONDS, Sweeper

LATE_SECONDS: Final = 1.0
"""How long a coordinator that cannot tell how a saga stands leaves the word to others. An answer takes milliseconds."""


class Coordinator:
    """One of any number of coordinators; all are equal, and share the work by sharing consumers.

    Args:
        store: the two streams.
        definitions: of the sagas it decides.
        idle_seconds: after how long without a fact the sweeper looks after an open saga.
        author: makes an author for each decision.
        sampling_ratio: the share of sagas whose traces are sampled, of those that nobody has sent a command for yet.
        admission: which sagas may begin; all when left out.
    """

    def __init__(
        self,
        store: Store,
        definitions: Iterable[Definition],
        idle_seconds: float = IDLE_SECONDS,
        author: Callable[[], Author] = Author,
        sampling_ratio: float = 1.0,
        admission: Admission | None = None,
    ) -> None:
        self.store, self.counts = store, Counts()
        self.journals = Journals(store, definitions, self.counts, author, sampling_ratio, admission)
        self.parking = Parking(store, self.counts)
        self.paused_types = PausedTypes(store, self.review)
        self.requests = RequestQueue(self.counts, lambda: store.now().timestamp(), store.later)
        self.on_forget: Callable[[FactAddress, Delivered], None] | None = None
        """Serves requests to forget a saga; there are none where nothing can be purged."""
        self._sweeper = Sweeper(self.journals, idle_seconds, self.take_in)

    def begin(self, then: Callable[[], None]) -> None:
        """Load the paused types, then call `then`; deliver nothing earlier."""
        self.paused_types.begin(then)

    # --- deliveries ---------------------------------------------------------------------------------------------------

    def on_announced(self, subject: str, data: bytes) -> None:
        """Another coordinator announces that a saga type was paused or resumed."""
        self.store.guard.call(None, self._heard, subject, data)

    def _heard(self, subject: str, data: bytes) -> None:
        if data.isdigit():
            self.paused_types.heard(parse_announcement(subject), int(data))

    def on_fact(self, delivery: Delivered) -> None:
        """A message of EVENTS was delivered."""
        self.store.guard.take(delivery, self._take_fact, self.parking.faulty)

    def _take_fact(self, delivery: Delivered) -> None:
        reached("coordinator.pulled")
        try:
            address = parse_fact(delivery.subject)
        except Unusable as error:
            self.parking.park(delivery, parked_kind(error), str(error))
            return
        key = address.saga
        if key.type in NOT_SAGAS:
            self._on_fact_of_none(address, delivery)
            return
        if address.event == FORGET and address.source == OPERATOR and self.on_forget is not None:
            self.on_forget(address, delivery)
            return
        versions = self._versions(key, delivery)
        if versions is not None:
            FactHandler(self.journals, self.paused_types, self.parking, key, versions, delivery, address).begin()

    def _on_fact_of_none(self, address: FactAddress, delivery: Delivered) -> None:
        """A message about a lock, about pausing a saga type or a participant, or about a message in PARKED."""
        try:
            handler = self._handler_of_none(address, delivery)
        except Unusable as error:
            self.parking.park(delivery, parked_kind(error), str(error))
        else:
            handler.begin()

    def _handler_of_none(
        self, address: FactAddress, delivery: Delivered
    ) -> LockHandler | PauseHandler | MessageHandler:
        key, data, subject = address.saga, delivery.data, delivery.subject
        if key.type == LOCK:
            check_lock_fact(address, data, subject)
            return LockHandler.of(self.store, address, delivery, self.parking.faulty)
        if key.type == PARKED_MESSAGE:
            asked = accept_message_request(address, data, subject)
            return MessageHandler(self.store, self.parking, self._take_fact, key.id, delivery, asked)
        fact = accept_request(address, data, subject, delivery.sequence, delivery.stored_ns)
        return PauseHandler(self.journals, self.paused_types, self.parking, self.review, key, delivery, fact)

    def on_fired(self, delivery: Delivered) -> None:
        """A saga's timer was delivered."""
        self.store.guard.take(delivery, self._take_fired, self.parking.faulty)

    def _take_fired(self, delivery: Delivered) -> None:
        try:
            key = parse_fired(delivery.subject)
        except Unusable as error:
            self.parking.park(delivery, parked_kind(error), str(error))
            return
        versions = self._versions(key, delivery)
        if versions is not None:
            tick = Tick(delivery.stored_ns)
            FactHandler(self.journals, self.paused_types, self.parking, key, versions, delivery, fact=tick).begin()

    def _versions(self, key: SagaKey, delivery: Delivered) -> Versions | None:
        """The definitions of a saga; None after the delivery went back to the coordinators that may have them."""
        versions = self.journals.definitions.get(key.type)
        if versions is None:
            reason = f"no coordinator here has a saga {key.type!r}; run one that does"
            if delivery.deliveries < DELIVERIES_MAX:
                delivery.hand_back(HAND_BACK_SECONDS)
            else:
                self.parking.park(delivery, "unhandled", reason)
        return versions

    def on_start_to_watch(self, delivery: Delivered) -> None:
        """A start was delivered to the sweeper: look after its saga once that can have been idle for long enough."""
        self._sweeper.watch(delivery)

    @property
    def status_queues(self) -> dict[str, str]:
        """For each saga type the queue in which status requests are shared with coordinators of the same definitions
        and contracts."""
        return {
            saga_type: status_queue(f"{each.label} {each.schemas}" for each in versions.definitions)
            for saga_type, versions in self.journals.definitions.items()
        }

    # --- without a delivery -------------------------------------------------------------------------------------------

    def status(
        self, key: SagaKey, then: Callable[[StatusAnswer], None], read: Callable[[], None] = lambda: None
    ) -> None:
        """Read the state of a saga.

        `then` is called late where this coordinator cannot tell, for want of a definition or because a message does not
        fit its contracts: the first answer counts, and another coordinator may know better. `read` is called before, as
        soon as nothing is read for it any more.
        """

        def answer(found: StatusAnswer, is_certain: bool) -> None:
            read()
            if is_certain:
                then(found)
            else:
                self.store.later(LATE_SECONDS, lambda: then(found))

        versions = self.journals.definitions.get(key.type)
        if versions is None:
            answer(StatusAnswer(error=f"no coordinator here has a saga {key.type!r}"), False)
            return

        def on_read(result: Replayed | Exception) -> None:
            is_certain = isinstance(result, Purged) or (isinstance(result, Replayed) and not result.history.unread)
            answer(status_answer(result, self.paused_types.paused.get(key.type, "")), is_certain)

        self.journals.read(key, versions, on_read)

    def review(self, key: SagaKey, then: Callable[[bool], None]) -> None:
        """Look at a saga for which nothing was delivered: take in what its journal does not name, and decide.

        `then` is called once, with whether that could be done. What is due by our clock is due.
        """
        versions = self.journals.definitions[key.type]
        CatchUp(self.journals, self.paused_types, self.parking, key, versions, then).review()

    def take_in(self, key: SagaKey, versions: Versions, facts: list[Fact], then: Callable[[bool], None]) -> None:
        """Take facts in, one after the other, as if they were delivered; `then` is told whether all are durable."""
        CatchUp(self.journals, self.paused_types, self.parking, key, versions, then).take(facts)
