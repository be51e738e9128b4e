"""A saga that no coordinator leads, as a value: which event it begins with, and which ones say that it is over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from antiphon.contracts.messages import Event

from .check import check_choreography


class Choreography:
    """A business operation in which participants react to each other's events.

    What they do stands in the participants (`reacts_to`); this is what a coordinator has to know so that it can say
    whether such a saga is under way, over, or late. It sends nothing.

    Args:
        start: the event it begins with; clients publish it.
        name: its type, a token of letters, digits, `_` and `-`, which reactions give as their `saga_type`.
        version: counts changes of what it begins and ends with.
        deadline: a saga that has not ended so long after its start is late.
        completes: the event that says all is done, or several, each of which does.
        compensates: the events each of which says that whatever had been done is undone.

    Raises:
        DefinitionError: an event cannot be what it is named for; the sentence has the remedy.
    """

    def __init__(
        self,
        start: type[Event],
        *,
        name: str,
        version: int,
        deadline: timedelta,
        completes: type[Event] | Sequence[type[Event]],
        compensates: type[Event] | Sequence[type[Event]] = (),
    ) -> None:
        self.start, self.name, self.version, self.deadline = start, name, version, deadline
        self.completes, self.compensates = _several(completes), _several(compensates)
        check_choreography(self)

    @property
    def ends(self) -> tuple[type[Event], ...]:
        """All events that end it."""
        return (*self.completes, *self.compensates)


def _several(events: type[Event] | Sequence[type[Event]]) -> tuple[type[Event], ...]:
    return (events,) if isinstance(events, type) else tuple(events)
