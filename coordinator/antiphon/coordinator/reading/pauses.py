"""What stands still because somebody paused it: saga types and participants, read from their states in SAGA."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from antiphon.contracts import clock, identity, subjects
from antiphon.contracts.errors import Unusable
from antiphon.contracts.topology import SAGA
from antiphon.link import Link

from ..decision.pause import read_pause_state
from ..views.pauses import Pause, Pauses


async def read_pauses(link: Link) -> Pauses:
    """What stands still.

    Args:
        link: a connection with an operator's rights.

    Raises:
        Ambiguous: the server gave no answer.
    """
    return Pauses(*await asyncio.gather(_paused(link, identity.SAGA_TYPE), _paused(link, identity.PARTICIPANT)))


async def _paused(link: Link, family: str) -> dict[str, Pause]:
    found: dict[str, Pause] = {}
    for message in await link.read_all(SAGA, [subjects.states_filter(family)]):
        with suppress(Unusable):  # coordinators have logged it
            name, state = subjects.parse_state(message.subject).id, read_pause_state(message)
            if state.paused:
                since = next(
                    (each.at for each in reversed(state.requests) if each.verb == "pause" and each.is_accepted), ""
                )
                found[name] = Pause(name, state.paused, since or clock.rfc3339(message.stored_ns))
    return found
