"""What an operator's request makes of a saga type, or of a participant, that can be paused and resumed. Pure.

The state is kept like that of a lock: in a journal of its own, under its own guard, each entry in the place of the one
before. The last requests are part of it, so that whoever asked finds out what became of the request, and so that a
request which is delivered again is known.
"""

from __future__ import annotations

from typing import Final

from antiphon.contracts.clock import rfc3339
from antiphon.contracts.payloads import Halt, Request

from .facts import Operated

REQUESTS_MAX: Final = 50
"""How many requests are kept: with reasons of a thousand characters the state still fits into one message."""

REASON_CHARS_MAX: Final = 1000


def is_decided(halt: Halt, sequence: int) -> bool:
    """Whether a request was decided on before: the state names it, or has forgotten all from its time."""
    known = [request.sequence for request in halt.requests]
    return sequence in known or (len(known) == REQUESTS_MAX and sequence < min(known))


def decided(halt: Halt, fact: Operated, wrong: str = "") -> Halt:
    """The state once a request was decided on.

    Args:
        halt: the state before.
        fact: the request.
        wrong: why nobody can ask that of what has this name; the request is rejected then.
    """
    rejected = wrong or rejection(halt, fact)
    paused = halt.paused
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
    return Halt(paused=paused, requests=(*halt.requests, request)[-REQUESTS_MAX:])


def rejection(halt: Halt, fact: Operated) -> str:
    """Why a request comes too late or makes no sense, as a sentence; empty if it can be fulfilled."""
    match fact.verb:
        case "pause":
            return f"it is paused already: {halt.paused}" if halt.paused else ""
        case "resume":
            return "" if halt.paused else "it is not paused"
        case _:
            return f"it can be paused and resumed; {fact.verb} is for a single saga"


def _reason(fact: Operated) -> str:
    return fact.operation.reason[:REASON_CHARS_MAX]
