"""Steps that wait for a signal, or for a participant's own event: it has come, or one of `unless` has. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from antiphon.contracts.messages import Event

from .history import History
from .transitions import done, reason_of, refuse


def came(history: History, step: str, event: Event) -> History:
    """The first thing said to a step counts."""
    if step in history.signals:
        return history
    history = replace(history, signals={**history.signals, step: event})
    is_awaited = history.steps[step].phase == "awaiting" and not history.turned
    return fulfil(history, step) if is_awaited else history


def fulfil(history: History, name: str) -> History:
    """The awaited event, or one of `unless`, has arrived."""
    event = history.signals[name]
    if not isinstance(event, history.definition.step(name).unless):
        return done(history, name, event)
    return refuse(history, name, f"{name} was refused: {reason_of(event)}", reason_of(event))
