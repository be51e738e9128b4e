"""A saga looked at although nothing was delivered for it: the facts its journal does not name yet, and the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from antiphon.contracts.topology import EVENTS
from antiphon.contracts.wire import SagaKey, start_subject

from .errand import Errand
from .facts import Fact
from .versions import Versions

if TYPE_CHECKING:
    from .run import Coordinator


class Review:
    """Facts of one saga, taken as if each were delivered once the one before it is durable.

    Args:
        facts: what is to be taken in, in this order.
        then: called once, with whether all of it is durable.
    """

    stream, data, sequence, stored_ns = EVENTS, b"", 0, 0
    deliveries = 0  # what is reviewed is never given up here; that is for the delivery that brings the fact itself

    def __init__(
        self,
        coordinator: Coordinator,
        key: SagaKey,
        versions: Versions,
        facts: list[Fact],
        then: Callable[[bool], None],
    ) -> None:
        self._coordinator, self._key, self._versions = coordinator, key, versions
        self._facts, self._then = iter(facts), then
        self.subject = start_subject(key)

    def ack(self) -> None:
        """Go on with the next fact, if there is one."""
        fact = next(self._facts, None)
        if fact is None:
            self._then(True)
        else:
            Errand(self._coordinator, self._key, self._versions, self, fact=fact).run()

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        """Leave the rest for another look."""
        self._then(False)

    def in_progress(self) -> None:
        """Nobody waits for this."""
