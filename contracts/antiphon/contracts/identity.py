"""Who is meant: sagas and their keys, the sources that write for the platform, and the tokens all names consist of."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from .errors import BadIdentity

PARTITIONS: Final = 64
"""Values of `<k>`. A fixed number, so that every language computes the same token and a later split can go by it."""

TOKEN_CHARS_MAX: Final = 64
CLIENT: Final = "client"
"""The source of what programs store: starts, cancels, signals. Also the owner of events that no participant owns."""
COORDINATOR: Final = "coordinator"
OPERATOR: Final = "operator"
LOCK: Final = "lock"
"""The type under which the journals of locks are kept."""
SAGA_TYPE: Final = "saga-type"
"""The type under which it is kept whether all sagas of one type stand still."""
PARTICIPANT: Final = "participant"
"""The type under which it is kept whether a participant stands still."""

PARKED_MESSAGE: Final = "parked"
"""The type under which operators say what is to become of a message in PARKED; the id is where PARKED holds it."""

NOBODY: Final = "platform"
"""A name no participant may have, and under which nothing is stored."""

PLATFORM_SOURCES: Final = (CLIENT, COORDINATOR, OPERATOR)
"""Who may write to any saga; everybody else is a participant."""

RESERVED: Final = frozenset(
    {CLIENT, OPERATOR, COORDINATOR, LOCK, SAGA_TYPE, PARTICIPANT, PARKED_MESSAGE, NOBODY, "antiphon"}
)
"""Names no participant may have, because they are sources or families of subjects of their own."""

NOT_SAGAS: Final = frozenset({LOCK, SAGA_TYPE, PARTICIPANT, PARKED_MESSAGE})
"""Families of subjects that nothing starts."""

_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{1,{TOKEN_CHARS_MAX}}}")

Token = Annotated[str, msgspec.Meta(pattern=rf"\A[A-Za-z0-9_-]{{1,{TOKEN_CHARS_MAX}}}\Z")]
"""A token in a message."""


def is_token(text: str) -> bool:
    """Whether a text may stand as one token of a subject."""
    return _TOKEN.fullmatch(text) is not None


def check_token(text: str, what: str) -> str:
    """Return `text` if it may stand as one token of a subject.

    Raises:
        BadIdentity: it is empty, longer than 64 characters, or has a character outside `[A-Za-z0-9_-]`.
    """
    if not is_token(text):
        raise BadIdentity(f"{what} {text[:80]!r} must be 1 to {TOKEN_CHARS_MAX} characters out of A-Z a-z 0-9 _ -")
    return text


def dashed(name: str) -> str:
    """The token of a dotted message name: `inventory.reserve.refused` is `inventory-reserve-refused` in a subject."""
    return name.replace(".", "-")


class SagaKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """A saga's identity: its type and id together, and the path they make."""

    type: str
    id: str
    path: str
    """`<k>.<type>.<id>`: the three tokens all subjects of this saga share; `<k>` is its partition."""

    @classmethod
    def of(cls, saga_type: str, saga_id: str) -> SagaKey:
        """The key of a saga named by a person or a program.

        Raises:
            BadIdentity: the type or the id cannot be a token.
        """
        key = find_key(saga_type, saga_id)
        if key is None:
            check_token(saga_type, "saga type")
            check_token(saga_id, "saga id")
        assert key is not None
        return key

    @property
    def partition(self) -> int:
        """`<k>`, computed from both."""
        return int(self.path.partition(".")[0])

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


@lru_cache(maxsize=4096)
def digest(saga_type: str, saga_id: str) -> bytes:
    """SHA-256 of `<type>/<id>`: the partition is its first byte, the trace id its first sixteen."""
    return hashlib.sha256(f"{saga_type}/{saga_id}".encode()).digest()


def partition_of(saga_type: str, saga_id: str) -> int:
    """`<k>`: the first byte of the saga's digest modulo 64."""
    return digest(saga_type, saga_id)[0] % PARTITIONS


@lru_cache(maxsize=4096)
def find_key(saga_type: str, saga_id: str) -> SagaKey | None:
    """The key of a saga, remembered: a saga's messages come close together, and the partition is a hash. None where
    its type or its id is not a token."""
    if not is_token(saga_type) or not is_token(saga_id):
        return None
    return SagaKey(saga_type, saga_id, f"{partition_of(saga_type, saga_id)}.{saga_type}.{saga_id}")
