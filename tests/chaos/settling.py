"""A shipping service whose answers do not come in time, and the process of it that a test may kill.

`python -m tests.chaos.settling WHAT SERVERS DATABASE` is what runs in that process.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final, Literal
from unittest.mock import patch

from antiphon.contracts import Unavailable
from antiphon.contracts.errors import Ambiguous
from antiphon.link import Link, Outcome
from antiphon.order.messages import ScheduleShipping, ShippingScheduled
from antiphon.order.shipping import shipping
from antiphon.participants import Participant, Transaction, serve

What = Literal["scheduled", "not scheduled"]
"""scheduled: the parcel is booked, and the answer gets lost. not scheduled: the carrier cannot be reached."""

ACK_WAIT_SECONDS: Final = 1.0
"""After this time what somebody held who was killed is delivered again."""
NOT_BEFORE_SECONDS: Final = 600.0
"""When a failed attempt is made again: after the test."""

stuck = Participant("shipping", tables=shipping.tables)


@stuck.handles(ScheduleShipping)
async def schedule(command: ScheduleShipping, tx: Transaction) -> ShippingScheduled:
    """Book nothing."""
    raise Unavailable("the carrier cannot be reached", retry_after=NOT_BEFORE_SECONDS)


PARTICIPANTS: Final[dict[What, Participant]] = {"scheduled": shipping, "not scheduled": stuck}


class MuteLink(Link):
    """A connection on which every answer to the command gets lost; the answer to a settlement comes through."""

    def publish(self, subject: str, data: bytes, headers: str, then: Callable[[Outcome], None]) -> None:
        """Store a message, or lose it."""
        if ".shipping-scheduled." in subject:
            asyncio.get_running_loop().call_soon(then, Ambiguous("it got lost"))
        else:
            super().publish(subject, data, headers, then)


if __name__ == "__main__":
    what, servers, database = sys.argv[1:]
    participant = shipping if what == "scheduled" else stuck
    with patch.object(sys.modules["antiphon.participants.serve"], "Link", MuteLink):
        asyncio.run(serve(participant, servers, database, ack_wait_seconds=ACK_WAIT_SECONDS))
