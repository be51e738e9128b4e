"""A saga looked at although nothing was delivered for it: the facts its journal does not name yet, and the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.subjects import start_subject
from antiphon.contracts.topology import EVENTS
from antiphon.link.faults import say

from ..decision.facts import Fact
from ..definition.versions import Versions
from .fact_handler import FactHandler

if TYPE_CHECKING:
    from .coordinator import Coordinator


class CatchUp:
    """Facts of one saga, taken as if each were delivered once the one before it is durable.

    What is raised on the way ends this look at this saga, and nothing that its caller has in hand.

    Args:
        then: called once, with whether all of it is durable.
    """

    stream, data, sequence, stored_ns = EVENTS, b"", 0, 0
    deliveries = 0  # what is reviewed is never given up here; that is for the delivery that brings the fact itself

    def __init__(
        self, coordinator: Coordinator, key: SagaKey, versions: Versions, then: Callable[[bool], None]
    ) -> None:
        self._coordinator, self._key, self._versions = coordinator, key, versions
        self._facts: Iterator[Fact] = iter(())
        self._guard = coordinator.store.guard
        self._caller = self._guard.current
        self._then: Callable[[bool], None] | None = then
        self.subject = start_subject(key)

    def take(self, facts: list[Fact]) -> None:
        """Take facts in, in this order."""
        self._facts = iter(facts)
        self.ack()

    def ack(self) -> None:
        """Go on with the next fact, if there is one."""
        fact = next(self._facts, None)
        if fact is None:
            self._end(True)
        else:
            FactHandler(self._coordinator, self._key, self._versions, self, fact=fact).begin()

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        """Leave the rest for another look."""
        self._end(False)

    def in_progress(self) -> None:
        """Nobody waits for this."""

    def failed(self, error: BaseException) -> None:
        """Leave the saga for another look: finding out what there is to take in raised."""
        say("review.faulty", error, saga=str(self._key))
        self._end(False)

    def _end(self, is_durable: bool) -> None:
        """Go back to whoever wanted the look, and to what they have in hand."""
        then, self._then = self._then, None
        if then is not None:
            self._guard.call(self._caller, then, is_durable)
