"""What the coordinator's loop needs from the world: deliveries that wake it, and a store it reads and appends to.

Everything is a callback, so that the loop is a plain state machine: it runs the same over JetStream, over memory with
virtual time, and in a test that decides the order of every answer.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, Protocol

from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.pairs import Pairs
from antiphon.contracts.stored import NotRead, Outcome, SagaPages, StoredMessage
from antiphon.link.guard import Guard

FACTS_READ_MAX: Final = 256
"""So many facts are read at most where a filter matches more. What comes later is delivered like everything else."""

ArmGuard = int | Literal["first"]
"""When a timer may be set: while the journal still ends at a sequence, or only if the saga has no timer."""


class Store(Protocol):
    """The streams, as far as a coordinator uses them; SAGA and EVENTS stand for those of all pairs. Each `then` is
    called exactly once.

    All are called by the guard, for whatever was in hand when the store was asked.
    """

    @property
    def guard(self) -> Guard:
        """Calls what a coordinator handles, too."""
        ...

    @property
    def pairs(self) -> Pairs:
        """The pairs of streams over which sagas are spread."""
        ...

    def append(
        self,
        key: SagaKey,
        subject: str,
        data: bytes,
        last_sequence: int,
        unschedule: bool,
        then: Callable[[Outcome], None],
    ) -> None:
        """Append an entry if the journal still ends at `last_sequence`; with `unschedule` it also cancels the timer."""

    def arm(self, key: SagaKey, due_ns: int, body: bytes, guard: ArmGuard, then: Callable[[Outcome], None]) -> None:
        """Set the saga's timer, if the guard lets it."""

    def tell(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        """Store a message in EVENTS, where its subject takes one."""

    def read(self, key: SagaKey, expected: list[str], then: Callable[[SagaPages | NotRead], None]) -> None:
        """Read a saga: its journal, all facts that this names, and what EVENTS holds where facts are expected.

        Args:
            key: the saga.
            expected: subjects, and filters of them; where more messages match than one read may count, the filters are
                left out, and of what matches the first `FACTS_READ_MAX` are read.
            then: called with what was found.
        """

    def facts(self, wanted: list[str], then: Callable[[list[StoredMessage] | NotRead], None]) -> None:
        """What EVENTS holds at subjects, in stream order; filters are taken as in `read`."""

    def facts_by_leader(self, wanted: list[str], then: Callable[[list[StoredMessage] | NotRead], None]) -> None:
        """What EVENTS holds at subjects by the word of the stream's leader, which no replica's lag can be behind."""

    def last(self, subject: str, then: Callable[[StoredMessage | Ambiguous | None], None]) -> None:
        """The last message that SAGA holds at a subject, None if there is none."""

    def states(self, family: str, then: Callable[[list[StoredMessage] | Ambiguous], None]) -> None:
        """The states that SAGA holds of all saga types, or of all participants, that ever stood still."""

    def starts(
        self, stream: str, saga_type: str, after: int, then: Callable[[list[StoredMessage] | Ambiguous], None]
    ) -> None:
        """The next starts of sagas of a type that a stream of events holds behind a sequence, in order; none at the
        end."""

    def announce(self, saga_type: str, sequence: int) -> None:
        """Tell all coordinators that the state of a saga type, which SAGA holds at `sequence`, has changed.

        They may not hear it.
        """

    def is_paused(self, stream: str, consumer: str, then: Callable[[bool | Ambiguous | None], None]) -> None:
        """Whether a consumer delivers nothing for now; None if there is no such consumer."""

    def pause(self, stream: str, consumer: str, paused: bool, then: Callable[[Ambiguous | None], None]) -> None:
        """Have a consumer deliver nothing until further notice, or go on at once."""

    def ended(self, keys: list[SagaKey], then: Callable[[set[SagaKey] | Ambiguous], None]) -> None:
        """Which of these sagas have ended."""

    def park(self, subject: str, data: bytes, then: Callable[[Outcome], None]) -> None:
        """Put a message into PARKED, the index of what waits for a person, unless its subject is full."""

    def now(self) -> datetime:
        """The time by this process's clock, in UTC."""
        ...

    def later(self, delay_seconds: float, call: Callable[[], None]) -> None:
        """Call after a delay."""
