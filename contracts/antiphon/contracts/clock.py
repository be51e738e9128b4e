"""Times of the server, nanoseconds since 1970, in the forms that others read. Nothing here asks what time it is."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from .bounds import SEQUENCE_MAX
from .errors import SECONDS_MAX

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
    """A datetime as nanoseconds since 1970, exact to the microsecond it has, and from 0 to 2**63 - 1: a message may say
    any year. One without a zone is taken for UTC."""
    since = (time if time.tzinfo is not None else time.replace(tzinfo=UTC)) - _EPOCH
    at_ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    return 0 if at_ns < 0 else at_ns if at_ns <= SEQUENCE_MAX else SEQUENCE_MAX


def duration_ns(text: str) -> int:
    """A length of time as the wire says it, in seconds, as nanoseconds: at most a hundred years, and 0 where the text
    says none."""
    try:
        seconds = float(text)
    except ValueError:
        return 0
    return round(min(seconds, SECONDS_MAX) * 1e9) if math.isfinite(seconds) and seconds > 0 else 0


def moment(at_ns: int) -> datetime:
    """A server's time (nanoseconds since 1970) as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=at_ns // 1000)
