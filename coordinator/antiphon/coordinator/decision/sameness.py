"""Whether a start or a signal that is sent again is the one that was stored. Pure.

By values and not by bytes: a field with a default may have been added meanwhile, and one moment can be written in many
ways. Whoever sends it may have another version of the class than the coordinator, so a field that is not known here is
never left out of the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from antiphon.contracts.envelope import Envelope, pack, unpack_raw
from antiphon.contracts.errors import Undecodable
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import Resent, ResentAnswer, start_digest
from antiphon.contracts.values import is_same

SAME = ResentAnswer(verdict="same")
OTHER = ResentAnswer(verdict="other")
NONE = ResentAnswer(verdict="none")


def resent(payload: Event, *, prospect: bool = False) -> Resent:
    """What is sent again, with the fields that hold their defaults.

    Args:
        payload: what is, or was, to be stored.
        prospect: whether to ask, too, what may come of it.

    Raises:
        WrongShape: a field holds what would not arrive as it is, or not at all.
    """
    fields = msgspec.structs.fields(payload)
    defaults = tuple(each.encode_name for each in fields if has_default(payload, each))
    return Resent(type=payload.__contract__.type, data=pack(payload), defaults=defaults, prospect=prospect)


def has_default(payload: Event, field: msgspec.structs.FieldInfo) -> bool:
    """Whether a field of a payload holds its default."""
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return default is not msgspec.NODEFAULT and is_same(getattr(payload, field.name), default)


def compare(shape: type[Event] | None, stored: Envelope, again: Resent) -> ResentAnswer | None:
    """Whether what was stored is what is sent again; None where that cannot be told here.

    Args:
        shape: the event's class, as far as it is known here.
        stored: what was stored first.
        again: what is sent now.
    """
    if stored.type != again.type:
        return OTHER
    if bytes(stored.data) == bytes(again.data):
        return SAME
    there, now = _plain(stored.data), _plain(again.data)
    added = now.keys() - there.keys()
    if _is_equal({name: now[name] for name in now if name not in added or name not in again.defaults}, there):
        return SAME
    told = _by_class(shape, stored, again) if shape is not None and shape.__contract__.type == again.type else None
    return told or (OTHER if added - set(again.defaults) else None)


def compare_by_digest(digest: str, again: Resent) -> ResentAnswer:
    """Whether what is sent again is the start of which a digest alone is left."""
    return SAME if has_digest(digest, again.type, again.data, again.defaults) else OTHER


def has_digest(digest: str, type_: str, data: msgspec.Raw, defaults: Sequence[str]) -> bool:
    """Whether a start has that digest: as it is, or without the fields that may have been added since, which are among
    those that hold their defaults, the last first."""
    if start_digest(type_, data) == digest:
        return True
    rest = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    for name in reversed(defaults):
        if rest.pop(name, None) is not None and start_digest(type_, msgspec.json.encode(rest)) == digest:
            return True
    return False


def _by_class(shape: type[Event], stored: Envelope, again: Resent) -> ResentAnswer | None:
    try:
        now = unpack_raw(again.data, shape)
    except Undecodable:
        return None
    if not _holds_all(pack(now), again.data):
        return None
    try:
        there = unpack_raw(stored.data, shape)
    except Undecodable as error:
        return ResentAnswer(verdict="unread", reason=error.reason)
    if not _holds_all(pack(there), stored.data):
        return None
    return SAME if is_same(there, now) else OTHER


def _plain(data: msgspec.Raw) -> dict[str, Any]:
    """A payload as JSON has it; what is no object has no fields."""
    found = msgspec.json.decode(data)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _is_equal(one: object, other: object) -> bool:
    """Whether two values are written alike, where true is no 1."""
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def _holds_all(read: msgspec.Raw, written: msgspec.Raw) -> bool:
    """Whether a class has a field for all that was written."""
    return _covers(msgspec.json.decode(read), msgspec.json.decode(written))


def _covers(read: Any, written: Any) -> bool:
    if isinstance(read, dict) and isinstance(written, dict):
        return all(name in read and _covers(read[name], each) for name, each in cast("dict[str, Any]", written).items())
    if isinstance(read, list) and isinstance(written, list):
        pairs = zip(cast("Sequence[Any]", read), cast("Sequence[Any]", written), strict=False)
        return all(_covers(one, other) for one, other in pairs)
    return True
