"""Definitions, the deciding core, the loop that performs it, and the client."""

from antiphon.contracts.retry import Retry

from .client import Antiphon, Handle, Outcome
from .saga import Saga, State, Step

__all__ = ["Antiphon", "Handle", "Outcome", "Retry", "Saga", "State", "Step"]
