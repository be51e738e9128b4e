"""A saga that nobody leads, observed: how it turns and ends, and who is waited for once it is late. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import End, Record

from .facts import Action, Finish
from .history import History
from .transitions import reason_of, start_compensating


def happened(history: History, event: Event) -> History:
    """The history of a choreography once a participant has emitted an event: it turns, it ends, or it goes on."""
    heard = history.definition.events[event.__contract__.type]
    history = replace(history, last=event, late="", is_quiet=False, said_ns=history.now_ns)
    match heard.means:
        case "completed" | "compensated" if history.over is None:
            history = replace(history, over=heard.means)
            return start_compensating(history, reason_of(event)) if heard.means == "compensated" else history
        case "turn":
            return start_compensating(history, reason_of(event))
        case _:
            return history


def observe(history: History) -> Iterator[Action]:
    """End where it was said that all is over; past the deadline say who is waited for, if nothing more is said."""
    if history.over is not None:
        yield Finish(End(outcome=history.over, reason=history.turned))
    elif history.is_quiet and not history.late:
        yield Record(parked=_late(history))


def _late(history: History) -> str:
    """Why a choreography is late, in a sentence for an operator."""
    definition, last = history.definition, history.last
    type_ = definition.start_type if last is None else last.__contract__.type
    next_ = definition.begins if last is None else definition.events[type_].next
    return f"{history.noted}, and {' or '.join(next_)} has not reacted to {type_}"
