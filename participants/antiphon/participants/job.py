"""One delivery in a worker's hands, from its arrival until it is acked, handed back or ended."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import structlog

from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import EVENTS
from antiphon.link import Delivery

from .execution import Execution

log = structlog.get_logger()


class SealedAnswer(msgspec.Struct, gc=False):
    """An answer's event, encoded, and how often it was published."""

    type: str
    subject: str
    data: bytes
    publishes: int = 0


class Job:
    """A delivered command or event, and how far the worker has come with it."""

    __slots__ = (
        "address",
        "answer",
        "delivery",
        "end_reason",
        "execution",
        "is_leaving",
        "is_overdue",
        "overdue",
        "task",
        "ticks",
        "traceparent",
        "type",
    )

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.task: asyncio.Task[None] | None = None
        self.address: CommandAddress | None = None
        """The row of the inbox, once the subject was read."""
        self.type = self.traceparent = ""
        """What the envelope says, once it was read."""
        self.execution: Execution | None = None
        """What is performed, once the message was read."""
        self.answer: SealedAnswer | None = None
        """What will be published; None before it is sealed, and for a reaction that publishes nothing."""
        self.ticks = 0
        """How many turns of the worker's timer the job has seen."""
        self.is_overdue = False
        """Whether the worker cancelled the task because the job took too long."""
        self.overdue = ""
        """Where the handler stood then; empty if no handler was at work."""
        self.is_leaving = False
        """Whether the worker cancelled the task because the worker ends, which is no fault of the command."""
        self.end_reason = ""
        """Why the message must not be delivered again although it was not performed."""

    @property
    def is_event(self) -> bool:
        """Whether the message is an event, which no coordinator sent."""
        return self.delivery.stream.startswith(EVENTS)

    @property
    def message(self) -> str:
        """The id of the message, under which its deliveries are counted: its subject. A sequence would be another
        message's where the stream was restored, or is one of several."""
        return self.delivery.subject

    @property
    def goes_on(self) -> bool:
        """Whether the handler is still at work."""
        return self.execution is not None and self.execution.call.goes_on

    def log(self, what: str, **facts: Any) -> None:
        """Log a warning with the names that `show` uses: saga, step and attempt."""
        address = self.address
        about = {"saga": str(address.saga), "step": address.step, "attempt": address.attempt} if address else {}
        facts |= {"subject": self.delivery.subject, "sequence": self.delivery.sequence, **about}
        try:
            log.warning(what, **facts)
        except BaseException:  # an error of an author's that cannot be printed
            log.warning(what, **{name: fact for name, fact in facts.items() if name != "exc_info"})
