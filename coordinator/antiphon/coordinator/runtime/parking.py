"""Messages set aside for a person, sagas indexed as waiting for one, and deliveries whose handling raised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.payloads import Parked
from antiphon.contracts.stored import AlreadyStored, Delivered, NoRoom, Outcome
from antiphon.contracts.subjects import ParkedKind, parked_subject, source_in
from antiphon.contracts.topology import PARKED_PER_SOURCE_MAX
from antiphon.link.faults import class_of, say
from antiphon.link.overflow import Overflow
from antiphon.tracing.telemetry.counts import Counts

from .ports import Store

log = structlog.get_logger()

HAND_BACK_SECONDS: Final = 1.0
"""How soon another coordinator, or a replica that has caught up, shall look at what cannot be handled now."""

FAULTY_DELIVERIES_MAX: Final = 5
"""After so many deliveries a fact whose handling raises is parked."""


FULL_SECONDS: Final = 1.0
"""For so long after PARKED had no room at a subject, what belongs there is counted and neither sent nor logged."""

ROOM_SECONDS_MAX: Final = 600.0
"""How far apart at most the tries are to park what PARKED has no room for at all; twice as far with each delivery."""

SAY_SECONDS: Final = 60.0
"""How far apart lines of the log are that say that PARKED has no room at all."""


class Parking:
    """The way into PARKED. A delivery is acked once PARKED holds it, or has no room for it and holds the first ones of
    its kind; it is handed back where that is not certain.

    Where PARKED as a whole has no room, as many of a kind and source as it would keep are handed back, ever later,
    until somebody has made room; the others are counted.
    """

    __slots__ = ("_counts", "_full", "_overflow", "_said", "_store", "_waiting")

    def __init__(self, store: Store, counts: Counts) -> None:
        self._store, self._counts, self._overflow = store, counts, Overflow()
        self._waiting: dict[str, set[tuple[str, int]]] = {}
        """The streams and sequences of what waits for room, by the subject of PARKED where each belongs."""
        self._said = datetime.min.replace(tzinfo=UTC)
        self._full: dict[str, datetime] = {}
        """Subjects of PARKED that had no room, and until when that is taken to be so."""

    def park(self, delivery: Delivered, kind: ParkedKind, reason: str, stays: bool = False) -> None:
        """Set a message aside, where `stays` says so whatever becomes of its saga."""
        self._counts.add("messages_parked", kind)
        if self._is_full(parked_subject(kind, COORDINATOR, source_in(delivery.subject))):
            delivery.ack()
            return
        log.warning("fact.parked", kind=kind, reason=reason, subject=delivery.subject)
        self._put(delivery, kind, reason, delivery.data, None, stays)

    def park_saga(self, key: SagaKey, delivery: Delivered, reason: str) -> None:
        """Put a saga into the index of what waits for a person; the delivery is of the fact that led there."""
        log.warning("saga.parked", saga=str(key), reason=reason)
        self._counts.add("sagas_parked", key.type)
        self._put(delivery, "saga", reason, b"", key)

    def faulty(self, delivery: Delivered, error: BaseException) -> None:
        """Have a fact whose handling raised delivered again, to any coordinator, and park it after a few deliveries.

        The reason names the error's class alone. Its text may hold what is private, and is in the log.
        """
        if delivery.deliveries < FAULTY_DELIVERIES_MAX:
            delivery.hand_back(HAND_BACK_SECONDS)
        else:
            self.park(
                delivery, "fault", f"handling it raised {class_of(error)}; the log of the coordinators says where"
            )
        say("fact.faulty", error, delivery.subject, deliveries=delivery.deliveries)

    def _put(
        self,
        delivery: Delivered,
        kind: ParkedKind,
        reason: str,
        data: bytes,
        saga: SagaKey | None,
        stays: bool = False,
    ) -> None:
        parked = Parked(
            kind=kind,
            reason=reason,
            noticed_by=COORDINATOR,
            stream=delivery.stream,
            sequence=delivery.sequence,
            subject=delivery.subject,
            data=data,
            saga=saga,
            source=source_in(delivery.subject),
            stays=stays,
        )
        self._store.park(parked.destination, parked.encode(), lambda outcome: self._settle(delivery, outcome, parked))

    def _settle(self, delivery: Delivered, outcome: Outcome, parked: Parked) -> None:
        """Ack the delivery once PARKED holds its message, or as many like it as it takes."""
        match outcome:
            case int():
                self._waiting.clear()  # there is room again, also for what others have parked meanwhile
                delivery.ack()
            case AlreadyStored():
                if parked.saga is None:
                    self._full[parked.destination] = self._store.now() + timedelta(seconds=FULL_SECONDS)
                    self._count_more(parked.destination)
                delivery.ack()
            case NoRoom():
                self._wait_for_room(delivery, parked, outcome)
            case _:
                delivery.hand_back(HAND_BACK_SECONDS)

    def _wait_for_room(self, delivery: Delivered, parked: Parked, why: NoRoom) -> None:
        """PARKED takes nothing more. What its stream holds is not lost, and nobody is shown it until it is parked."""
        if self._store.now() - self._said > timedelta(seconds=SAY_SECONDS):
            self._said = self._store.now()
            log.warning("parked.full", subject=parked.subject, reason=str(why), remedy="deploy/README.md, Room")
        if parked.saga is None:
            waiting, place = self._waiting.setdefault(parked.destination, set()), (delivery.stream, delivery.sequence)
            if place not in waiting and len(waiting) >= PARKED_PER_SOURCE_MAX:
                self._count_more(parked.destination)
                delivery.ack()
                return
            waiting.add(place)
        delivery.hand_back(min(ROOM_SECONDS_MAX, HAND_BACK_SECONDS * 2.0 ** min(delivery.deliveries, 20)))

    def _is_full(self, destination: str) -> bool:
        """Whether PARKED had no room at a subject a moment ago; then one message more is counted there."""
        until = self._full.get(destination)
        if until is None:
            return False
        if self._store.now() > until:
            del self._full[destination]
            return False
        self._count_more(destination)
        return True

    def _count_more(self, destination: str) -> None:
        if told := self._overflow.add(destination):
            self._store.park(*told, lambda outcome: None)  # a count that is lost is told with the next one
