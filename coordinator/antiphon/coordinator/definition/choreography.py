"""A saga that no coordinator leads, as a value: how it begins, what may be said on the way, and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

from antiphon.contracts.messages import Event

from .check import check_choreography
from .compile import compile_choreography
from .declared import DeclaredChoreography
from .definition import Definition
from .retention import Declared
from .saga import Saga

S = TypeVar("S", bound=Event)


class Choreography(DeclaredChoreography[S]):
    """A business operation in which participants react to each other's events.

    What they do stands in the participants (`reacts_to`); this is what a coordinator has to know so that it can say
    whether such a saga is under way, over, or late. It sends nothing.

    Args:
        start: the event it begins with; clients publish it.
        name: its type, a token of letters, digits, `_` and `-`, which reactions give as their `saga_type`.
        version: counts changes of what may be said in it; sagas in flight keep the version they began with.
        deadline: a saga that has not ended so long after its start is late, and stays so until it ends.
        flow: every event that is followed by others, the start too, with the participants (or the one) that react to
            it. Of a saga that is late it says who is waited for; an event that is neither here nor an end is parked.
        completes: the event that says all is done, or several, each of which does.
        compensates: the events each of which says that whatever had been done is undone.
        turns: the events of `flow` after which what was done is being undone. Their `reason`, if they have one, is
            the saga's.
        keys: what its sagas are to be found by, as for a saga.
        retention: how long its journal and events are kept once it has ended, as for a saga.

    Raises:
        DefinitionError: an event cannot be what it is named for; the sentence has the remedy.
    """

    def __init__(
        self,
        start: type[S],
        *,
        name: str,
        version: int,
        deadline: timedelta,
        flow: Mapping[type[Event], str | Sequence[str]],
        completes: type[Event] | Sequence[type[Event]],
        compensates: type[Event] | Sequence[type[Event]] = (),
        turns: type[Event] | Sequence[type[Event]] = (),
        keys: Callable[[S], dict[str, str]] | None = None,
        retention: Declared = None,
    ) -> None:
        followed = {event: (next_,) if isinstance(next_, str) else tuple(next_) for event, next_ in flow.items()}
        ends = several(completes), several(compensates)
        super().__init__(start, name, version, deadline, followed, *ends, several(turns), keys, retention)
        check_choreography(self)

    @cached_property
    def definition(self) -> Definition:
        """What a coordinator observes it by."""
        return compile_choreography(self)


AnySaga = Saga[Any] | Choreography[Any]
"""What a coordinator serves."""


def several(events: type[Event] | Sequence[type[Event]]) -> tuple[type[Event], ...]:
    """One event or many, as a tuple."""
    return (events,) if isinstance(events, (type, str)) else tuple(events)
