"""An operator's word on a message that was set aside: it is dismissed, or a coordinator handles it once more.

The request itself is the record, in EVENTS under the operator's name, and what lists PARKED reads it there. A message
is sent again by handling it as if it was delivered, so what a crash leaves undone is done when the request comes again.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import PARKED_MESSAGE
from antiphon.contracts.payloads import OnceMore, parked_kind
from antiphon.contracts.stored import Delivered, NotRead, StoredMessage
from antiphon.contracts.subjects import parse_fact
from antiphon.contracts.topology import EVENTS

from ..decision.facts import OperatedOnMessage
from .parking import HAND_BACK_SECONDS, Parking
from .ports import Store

log = structlog.get_logger()


class MessageHandler:
    """One request about a message in PARKED.

    Args:
        store: where the message is.
        parking: takes the request if handling it raises.
        take: handles a fact.
        number: where PARKED holds the message.
        delivery: of the request.
        fact: the request.
    """

    __slots__ = ("_delivery", "_fact", "_number", "_parking", "_store", "_take")

    def __init__(
        self,
        store: Store,
        parking: Parking,
        take: Callable[[Delivered], None],
        number: str,
        delivery: Delivered,
        fact: OperatedOnMessage,
    ) -> None:
        self._store, self._parking, self._take = store, parking, take
        self._number, self._delivery, self._fact = number, delivery, fact

    def begin(self) -> None:
        """Deal with the request under a guard of its own."""
        self._store.guard.call(self, self.run)

    def failed(self, error: BaseException) -> None:
        """Have the request delivered again, or park it."""
        self._parking.faulty(self._delivery, error)

    def run(self) -> None:
        """Ack what is said by being there; read the message that is to be sent again."""
        fact = self._fact
        log.info("message.asked", number=self._number, verb=fact.verb, by=fact.user, reason=fact.operation.reason)
        if fact.verb == "dismiss":
            self._delivery.ack()
            return
        try:
            subject = unpack_raw(fact.operation.payload, OnceMore, self._delivery.subject).subject
            is_request = parse_fact(subject).saga.type == PARKED_MESSAGE  # it would send itself for ever
        except Unusable as error:
            self._parking.park(self._delivery, parked_kind(error), str(error))
            return
        if is_request:
            self._parking.park(self._delivery, "forged", "a request to send a message again cannot be sent again")
        else:
            self._store.facts([subject], self._on_found)

    def _on_found(self, found: list[StoredMessage] | NotRead) -> None:
        if not isinstance(found, list):
            self._delivery.hand_back(HAND_BACK_SECONDS)
        elif found:
            stream = self._store.pairs.stream_at(EVENTS, found[0].subject) or EVENTS
            self._take(_Again(stream, found[0], self._delivery))
        else:
            self._delivery.ack()  # EVENTS was purged of it


class _Again:
    """A message as if it was delivered; what is said of it is said of the request to send it again."""

    def __init__(self, stream: str, message: StoredMessage, asked: Delivered) -> None:
        self.stream, self.subject, self.data = stream, message.subject, message.data
        self.sequence, self.stored_ns = message.sequence, message.stored_ns
        self._asked = asked

    @property
    def deliveries(self) -> int:
        """Those of the request: each is a try."""
        return self._asked.deliveries

    def ack(self) -> None:
        """Say that all the message asks for is durable."""
        self._asked.ack()

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        """Have it tried again after the delay, by any coordinator."""
        self._asked.hand_back(delay_seconds)

    def in_progress(self) -> None:
        """Keep it for another ack wait."""
        self._asked.in_progress()
