"""Definitions, the deciding core, the loop that performs it, and the client."""

from typing import TYPE_CHECKING

from antiphon.contracts.lazy import on_demand

if TYPE_CHECKING:
    from antiphon.contracts.retry import Retry

    from .changes import Change
    from .choreography import Choreography
    from .client import Antiphon, Handle, Outcome
    from .operators import HaltVerbs, Operator, SagaVerbs
    from .saga import Awaited, Saga, State, Step
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "Antiphon": ".client",
            "Awaited": ".saga",
            "Change": ".changes",
            "Choreography": ".choreography",
            "HaltVerbs": ".operators",
            "Handle": ".client",
            "Operator": ".operators",
            "Outcome": ".client",
            "Retry": "antiphon.contracts.retry",
            "Saga": ".saga",
            "SagaVerbs": ".operators",
            "State": ".saga",
            "Step": ".saga",
        },
    )

__all__ = [
    "Antiphon",
    "Awaited",
    "Change",
    "Choreography",
    "HaltVerbs",
    "Handle",
    "Operator",
    "Outcome",
    "Retry",
    "Saga",
    "SagaVerbs",
    "State",
    "Step",
]
