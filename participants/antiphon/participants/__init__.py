"""What a service team writes: a participant and its handlers. The worker runs them, each effect exactly once."""

from antiphon.contracts.errors import Refused, Unavailable

from .participant import Participant
from .transaction import Transaction

__all__ = ["Participant", "Refused", "Transaction", "Unavailable"]
