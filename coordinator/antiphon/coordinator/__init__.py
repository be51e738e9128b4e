"""Definitions, the deciding core, the loop that performs it, and the client."""

from antiphon.contracts.retry import Retry

from .changes import Change
from .choreography import Choreography
from .client import Antiphon, Handle, Outcome
from .operators import HaltVerbs, Operator, SagaVerbs
from .saga import Awaited, Saga, State, Step

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
