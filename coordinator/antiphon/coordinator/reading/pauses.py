"""What stands still because somebody paused it: saga types and participants, read from their states in SAGA."""

from __future__ import annotations

import asyncio

from antiphon.contracts import identity, subjects
from antiphon.contracts.payloads import PauseState
from antiphon.contracts.topology import SAGA
from antiphon.link import Link

from ..decision.pause import read_pause_states
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
    stored = await link.read_all(SAGA, [subjects.states_filter(family)])
    states = read_pause_states(stored)
    return {name: Pause(name, state.paused, _since(state)) for name, state in states.items() if state.paused}


def _since(state: PauseState) -> str:
    """When it was paused; empty where so many requests came since that the state has forgotten."""
    return next((each.at for each in reversed(state.requests) if each.verb == "pause" and each.is_accepted), "")
