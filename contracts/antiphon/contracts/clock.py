"""Times of the server, nanoseconds since 1970, in the forms that others read. Nothing here asks what time it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(at_ns: int) -> str:
    """A server's time as RFC 3339 in UTC, rounded up to the microsecond so that a timer is never early."""
    seconds, microseconds = divmod(-(-at_ns // 1000), 1_000_000)
    return f"{_to_the_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=256)
def _to_the_second(seconds: int) -> str:
    """A time without its fraction, remembered: what is due is written twice, and many sagas are due in one second."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:-6]


def nanoseconds(time: datetime) -> int:
    """An aware datetime as nanoseconds since 1970, exact to the microsecond it has."""
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def moment(at_ns: int) -> datetime:
    """A server's time (nanoseconds since 1970) as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=at_ns // 1000)
