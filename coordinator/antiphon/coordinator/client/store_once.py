"""How clients and operators store what can be stored once: tried again until it is certain that it is there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec

from antiphon.contracts.envelope import Envelope, encode, pack, unpack_raw
from antiphon.contracts.errors import Ambiguous, PlatformError, StreamMissing, Undecodable
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import End, start_digest
from antiphon.contracts.values import is_same
from antiphon.link import AlreadyStored, Link, NobodyStores, Rejected

PATIENCE_SECONDS: Final = 30.0
"""How long a message is tried again while the server gives no answer. Each may be stored twice safely."""

PAUSE_SECONDS: Final = 0.25


def message(subject: str, source: str, type_: str, payload: msgspec.Struct) -> bytes:
    """The bytes of a message that begins here.

    Raises:
        TooLarge: they are more than the protocol allows.
        WrongShape: a field holds what would not arrive as it is, or not at all.
    """
    return encode(Envelope(id=subject, source=source, type=type_, time=datetime.now(UTC), data=pack(payload)))


class Other(msgspec.Struct, frozen=True):
    """That another payload was stored before, or one that cannot be read: then why."""

    unread: str = ""


def compared(stored: Envelope, payload: Event) -> Other | None:
    """What was stored, unless it is this payload.

    By their values and not by their bytes: a field with a default may have been added meanwhile, and one moment can be
    written in many ways.
    """
    if stored.type != payload.__contract__.type:
        return Other()
    try:
        return None if is_same(unpack_raw(stored.data, type(payload)), payload) else Other()
    except Undecodable as error:
        return Other(unread=error.reason)


def is_started_with(end: End, payload: Event) -> bool:
    """Whether an end may be that of the saga which this payload starts, as far as the digest in it tells.

    Only the digest is left where the start was purged. What was started before a field with a default was added is the
    same, so such fields are left out one after the other, the last first.
    """
    contract, rest = payload.__contract__, msgspec.json.decode(pack(payload), type=dict[str, msgspec.Raw])
    if end.start in ("", start_digest(contract.type, pack(payload))):
        return True
    for field in reversed(msgspec.structs.fields(payload)):
        if field.encode_name in rest and _has_default(payload, field):
            del rest[field.encode_name]
            if start_digest(contract.type, msgspec.json.encode(rest)) == end.start:
                return True
    return False


def _has_default(payload: Event, field: msgspec.structs.FieldInfo) -> bool:
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return default is not msgspec.NODEFAULT and is_same(getattr(payload, field.name), default)


async def store_once(link: Link, subject: str, data: bytes) -> bool:
    """Store a message whose subject takes one; false if there was one already.

    Raises:
        PlatformError: it could not be stored; the sentence says why.
    """
    loop = asyncio.get_running_loop()
    patience_ends = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            await link.store(subject, data)
            return True
        except AlreadyStored:
            return False
        except Rejected as error:
            raise PlatformError(
                f"the server refused to store {subject}, so nothing has changed: {error}. Mend that and try again."
            ) from None
        except Ambiguous as error:
            raise_if_failed(link)
            if isinstance(error, NobodyStores):
                raise StreamMissing(
                    f"no stream stores {subject}. Create the streams once, as administrator: antiphon setup"
                ) from None
            if loop.time() > patience_ends:
                raise PlatformError(
                    f"the server does not answer ({error}); nobody knows whether it stored {subject}. "
                    "Try again with the same id."
                ) from None
            await asyncio.sleep(PAUSE_SECONDS)


def raise_if_failed(link: Link) -> None:
    """Say what is wrong with the link, if that explains a missing answer.

    Raises:
        PlatformError: the connection is lost for good, or a right is missing.
    """
    if link.failure.done():
        raise link.failure.result()
