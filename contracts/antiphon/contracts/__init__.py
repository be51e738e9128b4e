"""What travels between coordinator, participants and clients, and nothing that does I/O."""

from .errors import (
    AlreadyStarted,
    AntiphonError,
    BadIdentity,
    DefinitionError,
    Forged,
    PlatformError,
    Refused,
    RightsMissing,
    ServerUnfit,
    ServerUnreachable,
    StillRunning,
    StreamMissing,
    TooLarge,
    Unavailable,
    Undecodable,
    UnknownSaga,
    UnknownType,
    Unrecoverable,
    WrongShape,
)
from .messages import Command, Compensation, Contract, Event
from .retry import Retry
from .wire import SagaKey

__all__ = [
    "AlreadyStarted",
    "AntiphonError",
    "BadIdentity",
    "Command",
    "Compensation",
    "Contract",
    "DefinitionError",
    "Event",
    "Forged",
    "PlatformError",
    "Refused",
    "Retry",
    "RightsMissing",
    "SagaKey",
    "ServerUnfit",
    "ServerUnreachable",
    "StillRunning",
    "StreamMissing",
    "TooLarge",
    "Unavailable",
    "Undecodable",
    "UnknownSaga",
    "UnknownType",
    "Unrecoverable",
    "WrongShape",
]
