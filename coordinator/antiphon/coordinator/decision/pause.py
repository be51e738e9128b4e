"""What an operator's request makes of a saga type, or of a participant, that can be paused and resumed, and whose time
stands still meanwhile. Pure.

The state is kept like that of a lock: in a journal of its own, under its own guard, each entry in the place of the one
before. The last requests are part of it, so that whoever asked finds out what became of the request, and so that a
request which is delivered again is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final

import msgspec

from antiphon.contracts.bounds import REASON_CHARS_MAX
from antiphon.contracts.clock import nanoseconds, rfc3339
from antiphon.contracts.envelope import decode, unpack
from antiphon.contracts.errors import Unusable
from antiphon.contracts.payloads import PAUSE_STATE_TYPE, PauseState, Request
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import parse_state

from .facts import Operated
from .timeouts import Late

REQUESTS_MAX: Final = 50
"""How many requests are kept: with the longest reasons the state still fits into one message."""

REASON_BYTES_MAX: Final = 4096
"""Of a reason that has more, as one of characters that JSON spells out, only half as many are kept."""


def is_decided(state: PauseState, sequence: int) -> bool:
    """Whether a request was decided on before: the state names it, or has forgotten all from its time."""
    known = [request.sequence for request in state.requests]
    return sequence in known or (len(known) == REQUESTS_MAX and sequence < min(known))


def decided(state: PauseState, fact: Operated, wrong: str = "") -> PauseState:
    """The state once a request was decided on.

    Args:
        state: the state before.
        fact: the request.
        wrong: why nobody can ask that of what has this name; the request is rejected then.
    """
    rejected = wrong or rejection(state, fact)
    paused = state.paused
    if not rejected:
        paused = f"paused by {fact.user}: {_reason(fact)}" if fact.verb == "pause" else ""
    request = Request(
        sequence=fact.sequence,
        at=rfc3339(fact.at_ns),
        user=fact.user,
        verb=fact.verb,
        reason=_reason(fact),
        rejected=rejected,
    )
    return PauseState(paused=paused, requests=(*state.requests, request)[-REQUESTS_MAX:])


def rejection(state: PauseState, fact: Operated) -> str:
    """Why a request comes too late or makes no sense, as a sentence; empty if it can be fulfilled."""
    match fact.verb:
        case "pause":
            return f"it is paused already: {state.paused}" if state.paused else ""
        case "resume":
            return "" if state.paused else "it is not paused"
        case _:
            return f"it can be paused and resumed; {fact.verb} is for a single saga"


def standing_still(late: list[Late], states: Mapping[str, PauseState], at_ns: int) -> list[Late]:
    """Of steps whose time is up those that wait for a participant which is paused, or was resumed so lately that the
    step has not had all its time since.

    Args:
        late: the steps.
        states: the states of participants that were ever paused, by name.
        at_ns: what time it is.
    """
    return [each for each in late if _stands_still(each, states.get(each.participant), at_ns)]


def _stands_still(late: Late, state: PauseState | None, at_ns: int) -> bool:
    if state is None:
        return False
    if state.paused:
        return True
    resumed = [request.at for request in state.requests if request.verb == "resume" and request.is_accepted]
    return bool(resumed) and nanoseconds(datetime.fromisoformat(resumed[-1])) + late.timeout_ns > at_ns


def _reason(fact: Operated) -> str:
    reason = fact.operation.reason[:REASON_CHARS_MAX]
    return reason if len(msgspec.json.encode(reason)) <= REASON_BYTES_MAX else reason[: REASON_CHARS_MAX // 2]


def read_pause_state(stored: StoredMessage) -> PauseState:
    """The state in a stored message."""
    return unpack(decode(stored.data, stored.subject), PAUSE_STATE_TYPE, PauseState)


def read_pause_states(found: Iterable[StoredMessage]) -> dict[str, PauseState]:
    """The states in stored messages, by what they are about; one that cannot be read, which coordinators log when they
    look at the states, keeps nobody from the others."""
    states: dict[str, PauseState] = {}
    for stored in found:
        with suppress(Unusable):
            states[parse_state(stored.subject).id] = read_pause_state(stored)
    return states
