"""One command, compensation, settlement or event as it is performed: what was delivered, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import CommandAddress

from .calling import Call, Watch
from .databases import Manner
from .procedures import Procedure
from .routing import Route


class Execution:
    """The performing of one message.

    Args:
        address: the saga, step, direction and attempt; names the row of the inbox.
        procedure: what the message asks of the inbox, and what is done about it.
        retry: how many attempts there are, and how far apart.
        message: the id under which the database counts the deliveries of this message.
        deliveries: how often the message was delivered, this time included.
    """

    __slots__ = (
        "address",
        "call",
        "claim",
        "deliveries",
        "has_rested",
        "is_alone",
        "lost",
        "manner",
        "message",
        "on_wait",
        "procedure",
        "retry",
        "route",
        "run",
        "started",
        "tries",
        "watch",
    )

    def __init__(
        self,
        address: CommandAddress,
        procedure: Procedure,
        retry: Retry,
        message: str,
        deliveries: int,
    ) -> None:
        self.address, self.procedure, self.retry = address, procedure, retry
        self.message, self.deliveries = message, deliveries
        self.manner: Manner = "shared"
        """How the transaction of a plain handler is kept apart from those of others."""
        self.watch: Watch | None = None
        """Looks whether a handler waits, where others wait for its transaction's end."""
        self.on_wait: Callable[[], None] | None = None
        """Called once if it does."""
        self.claim = 0
        """The number of the claim, once a run outside a transaction has begun."""
        self.route: Route | None = None
        """The reaction, where the message is an event."""
        self.run = ""
        """What the row calls that run."""
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
