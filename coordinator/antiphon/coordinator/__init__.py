"""Definitions, the deciding core, the loop that performs it, and the client."""

from typing import TYPE_CHECKING

from antiphon.contracts.lazy import on_demand

if TYPE_CHECKING:
    from antiphon.contracts.retry import Retry

    from .client.changes import Change
    from .client.client import Antiphon, Handle, Outcome
    from .client.operator import HaltVerbs, Operator, PauseVerbs, SagaVerbs
    from .definition.choreography import Choreography
    from .definition.saga import Saga
    from .definition.steps import Awaited, State, Step
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "Antiphon": ".client.client",
            "Awaited": ".definition.steps",
            "Change": ".client.changes",
            "Choreography": ".definition.choreography",
            "PauseVerbs": ".client.operator",
            "Handle": ".client.client",
            "HaltVerbs": ".client.operator",
            "Operator": ".client.operator",
            "Outcome": ".client.client",
            "Retry": "antiphon.contracts.retry",
            "Saga": ".definition.saga",
            "SagaVerbs": ".client.operator",
            "State": ".definition.steps",
            "Step": ".definition.steps",
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
    "PauseVerbs",
    "Retry",
    "Saga",
    "SagaVerbs",
    "State",
    "Step",
]
