"""The index of what waits for a person: one message in PARKED for each message that could not be used."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from .errors import BadIdentity, Forged, Undecodable, Unusable
from .wire import SagaKey, parked_saga_subject, parked_subject

DATA_BYTES_MAX: Final = 512 * 1024
"""How much of a message is kept. As base64 it stays below the server's default max_payload of 1 MB; whoever sends more
loses the connection."""

ParkedKind = Literal["forged", "undecodable", "orphan", "unhandled", "fault", "saga"]
"""Why: it contradicts its subject; its bytes are wrong; no saga began; nobody here knows it; handling it raises. `saga`
is an index entry of a saga whose journal says that a person is needed."""


WITHDRAWN: Final = ""
"""The reason that takes back what the same participant said of the same message before: it has come to its end."""


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was set aside, with where it came from and what it was. `data` is base64 in JSON."""

    kind: ParkedKind
    reason: str
    noticed_by: str
    stream: str
    sequence: int
    subject: str
    data: bytes
    saga: SagaKey | None = None

    @property
    def destination(self) -> str:
        """The subject in PARKED: a saga's own, or by kind and by who noticed."""
        if self.saga is not None:
            return parked_saga_subject(self.saga)
        return parked_subject(self.kind, self.noticed_by)

    def encode(self) -> bytes:
        """As JSON, small enough to be stored whatever the message was: of a huge one, the beginning."""
        return msgspec.json.encode(msgspec.structs.replace(self, data=self.data[:DATA_BYTES_MAX]))


def parked_kind(error: Unusable) -> ParkedKind:
    """The kind of an unusable message, by the error that found it."""
    match error:
        case Forged() | BadIdentity():
            return "forged"
        case Undecodable():
            return "undecodable"
        case _:
            return "fault"
