"""How far a read model has read, as it says so in the bucket of read models. Pure.

Coordinators purge no saga that a read model has not read, and none by whose messages one of them knows the streams
again. Untrusted, so it is read strictly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from .bounds import SEQUENCE_MAX, Sequence
from .errors import Undecodable
from .identity import SagaKey
from .pairs import PAIRS_MAX
from .registration import TokenOrNone
from .subjects import parse_readmodel
from .topology import PLACE_BYTES_MAX

KEPT_MAX: Final = 16
"""How many sagas one read model may have kept for it, however old they are."""

Name = Annotated[str, Meta(max_length=200)]


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Up to where a read model has read.

    Args:
        saga: the last message of SAGA; of the first pair where there are several.
        events: the last message of EVENTS; the same.
        further: the last messages of SAGA and of EVENTS in each further pair.
        kept: the sagas (type/id) by whose messages it knows the streams again.
        database: a name that no other database has, so that two under one name are told apart.
    """

    saga: Sequence = 0
    events: Sequence = 0
    further: Annotated[tuple[tuple[Sequence, Sequence], ...], Meta(max_length=PAIRS_MAX)] = ()
    kept: Annotated[tuple[Name, ...], Meta(max_length=KEPT_MAX)] = ()
    database: TokenOrNone = ""

    def of_pair(self, pair: int) -> tuple[int, int]:
        """The last messages of SAGA and of EVENTS in one pair; 0 where it has said nothing of that."""
        if pair == 0:
            return self.saga, self.events
        return self.further[pair - 1] if pair <= len(self.further) else (0, 0)

    def encode(self) -> bytes:
        """As the bucket takes it."""
        return msgspec.json.encode(self)


_decode = msgspec.json.Decoder(Place).decode


def read_place(subject: str, data: bytes) -> tuple[str, Place]:
    """The name of a read model, and its place.

    Raises:
        Forged: it stands where no read model's does.
        Undecodable: it is none.
    """
    name = parse_readmodel(subject)
    if len(data) > PLACE_BYTES_MAX:
        raise Undecodable(f"{len(data)} bytes, and a place may have {PLACE_BYTES_MAX}", subject=subject)
    try:
        return name, _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(str(error), subject=subject) from None


class Reader(msgspec.Struct, frozen=True):
    """A read model as others know it."""

    name: str
    place: Place
    heard_ns: int
    """When it said so, in nanoseconds since 1970."""
    fault: str = ""
    """Why what it says cannot be read; then it has read nothing as far as anybody knows."""


class ReadUpTo(msgspec.Struct, frozen=True):
    """What all read models have read of one pair of streams."""

    saga: int = SEQUENCE_MAX
    events: int = SEQUENCE_MAX
    kept: frozenset[str] = frozenset()
    last: Reader | None = None
    """Who is the furthest behind; None where there is no read model."""

    def keeps(self, key: SagaKey) -> bool:
        """Whether a read model knows a stream again by this saga."""
        return str(key) in self.kept


def read_up_to(readers: Iterable[Reader], pair: int = 0) -> ReadUpTo:
    """What all of these have read of a pair of streams."""
    known = sorted(readers, key=lambda reader: reader.place.of_pair(pair))
    if not known:
        return ReadUpTo()
    return ReadUpTo(
        known[0].place.of_pair(pair)[0],
        min(reader.place.of_pair(pair)[1] for reader in known),
        frozenset(name for reader in known for name in reader.place.kept),
        known[0],
    )
