"""One command, compensation, settlement or event as it is performed: what was delivered, and how far it has come."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import CommandAddress

from .calling import Call
from .routing import Route


class Execution:
    """The performing of one message.

    Args:
        address: the saga, step, direction and attempt; names the row of the inbox.
        payload: the decoded message; None where this participant has no handler for it.
        retry: how many attempts there are, and how far apart.
        message: the id under which the database counts the deliveries of this message.
        deliveries: how often the message was delivered, this time included.
        is_retriable: the saga can only go forward, so that a refusal is an error like others: tried again.
        route: the reaction, where the message is an event; None for a command. A reaction is tried for ever.
    """

    __slots__ = (
        "address",
        "call",
        "deliveries",
        "has_rested",
        "is_alone",
        "is_retriable",
        "lost",
        "message",
        "payload",
        "retry",
        "route",
        "started",
        "tries",
    )

    def __init__(
        self,
        address: CommandAddress,
        payload: Any,
        retry: Retry,
        message: str,
        deliveries: int,
        is_retriable: bool = False,
        route: Route | None = None,
    ) -> None:
        self.address, self.payload, self.retry = address, payload, retry
        self.message, self.deliveries = message, deliveries
        self.is_retriable, self.route = is_retriable, route
        self.has_rested = False
        """Whether a reaction that killed its worker before may be called once more."""
        self.is_alone = False
        """Whether the database was told that this message is performed alone."""
        self.lost = 0
        """How many earlier deliveries came to no known end."""
        self.tries = 0
        """How many attempts have begun, this one included; 0 until the inbox was read."""
        self.started: datetime | None = None
        """When the handler was called."""
        self.call = Call()
        """The call of the author's code."""
