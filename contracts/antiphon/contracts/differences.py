"""How streams and consumers on a server differ from what `topology` says, in sentences. Pure.

Whoever administers a server may change a stream or a consumer so that it breaks a promise of the platform, and the
server says nothing of it. So processes compare, and an administrator is told what was changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from .envelope import MESSAGE_BYTES_MAX
from .subjects import matches
from .topology import ADVISORIES, ASKED_REPLICAS, BUCKETS, PARKED, Consumer, Stream

Config = Mapping[str, Any]
"""The configuration of a stream or consumer, as the server's API gives it."""

SETUP: Final = "as administrator: antiphon setup"
"""The remedy for everything that is set up."""

OFF: Final = (
    "sealed",
    "no_ack",
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "allow_atomic",
    "allow_batched",
    "allow_msg_counter",
    "allow_msg_schedules",
    "mirror",
    "sources",
    "subject_transform",
    "persist_mode",
)
"""What a stream has only where `topology` says so. With most of them its writers could erase, or forge, what others
wrote; some have the server answer before a message is stored, or take none."""

OFF_FOR_CONSUMERS: Final = (
    "backoff",
    "deliver_subject",
    "headers_only",
    "inactive_threshold",
    "max_batch",
    "max_bytes",
    "max_expires",
    "rate_limit_bps",
)
"""What no consumer of the platform has: it would deliver to somebody else, only a part, or go by itself."""

SERVER_SETS: Final = {"allow_rollup_hdrs": "allow_msg_schedules"}
"""What the server switches on by itself, with what."""

HARM: Final = {
    "allow_direct": "nobody can read sagas",
    "allow_msg_schedules": "no timer fires",
    "max_age": "what is older is gone, and a saga that has ended is shown as running",
    "max_bytes": "what has no room drops what is older, the journals of sagas with it",
    "max_msgs": "what has no room drops what is older, the journals of sagas with it",
    "max_msg_size": f"a message may have {MESSAGE_BYTES_MAX} bytes, and larger ones are refused",
    "max_msgs_per_subject": "what was said first need not be what counts",
    "num_replicas": "fewer servers may be lost before sagas are",
    "retention": "what was delivered is gone",
    "storage": "a restart of the server loses everything",
    "subjects": "what is stored there finds no stream",
    "ack_policy": "what is not done is not delivered again",
    "ack_wait": "what is being worked on is delivered to others meanwhile",
    "filter_subjects": "some messages are delivered to nobody",
    "max_ack_pending": "what waits to be tried again stands before the rest",
    "max_deliver": "what is tried again is given up after so many deliveries",
}
"""What follows where a setting is another one, for those where that is not plain."""

SLIGHT: Final = frozenset({"num_replicas", "ack_wait", "max_ack_pending"})
"""Settings that cost time or safety, and break no promise while nothing else fails."""
SIDE_STREAMS: Final = frozenset({PARKED, ADVISORIES, *(each.name for each in BUCKETS)})
"""Streams without which sagas go on."""
DURATIONS: Final = frozenset({"ack_wait", "inactive_threshold", "max_age", "max_expires"})
NUMBERS: Final = frozenset(
    {"max_age", "max_bytes", "max_consumers", "max_msg_size", "max_msgs", "max_msgs_per_subject"}
)
"""Bounds of a stream, of which zero and less are none."""
BOUNDED_BELOW_ZERO: Final = frozenset({"max_ack_pending", "max_deliver"})
"""Bounds of a consumer, of which less than zero is none."""


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as it must be."""

    sentence: str
    """What differs, and what it must be."""
    is_grave: bool = True
    """Whether a process is not ready while it is so."""
    remedy: str = SETUP
    patience_seconds: float = 0.0
    """For how long it must be so before it counts: the server says the same while it chooses a leader."""


def name_of(consumer: Consumer) -> str:
    """What a consumer is called in sentences."""
    return f"consumer {consumer.name} of stream {consumer.stream}"


def asked_replicas(configs: Mapping[str, Config]) -> int:
    """How many copies of each stream were asked for, as far as the streams tell; 0 where there are none."""
    return max((_asked(config) for config in configs.values()), default=0)


def _asked(config: Config) -> int:
    metadata: dict[str, str] = config.get("metadata") or {}
    text = metadata.get(ASKED_REPLICAS, "")
    said_then = int(text) if text.isascii() and text.isdigit() and len(text) < 3 else 0
    has_now: int = config.get("num_replicas", 1)
    return max(has_now, said_then)


def stream_differences(stream: Stream, found: Config, replicas: int) -> Iterator[Difference]:
    """How a stream differs from what it must be.

    Args:
        stream: what it must be.
        found: its configuration on the server.
        replicas: how many copies were asked for.
    """
    wanted = stream.config(replicas)
    for setting in (*wanted, *(each for each in OFF if each not in wanted)):
        if why := _why_stream(setting, found.get(setting), wanted.get(setting), wanted):
            is_grave = setting not in SLIGHT and stream.name not in SIDE_STREAMS
            yield Difference(f"stream {stream.name}: {why}", is_grave)


def _why_stream(setting: str, found: Any, wanted: Any, whole: Config) -> str:
    match setting:
        case "name" | "metadata":
            return ""
        case "subjects":
            lacking = _uncovered(wanted, found or ())
            return _lacking(setting, lacking) if lacking else ""
        case "num_replicas":
            return _worded(setting, found, wanted) if (found or 1) < wanted else ""
        case "max_bytes" if whole["discard"] == "new" and wanted <= 0:
            return ""  # what has no room is refused, and the bound is the administrator's
        case "max_msg_size" if wanted <= 0 and (found or 0) >= MESSAGE_BYTES_MAX:
            return ""
        case _ if SERVER_SETS.get(setting) and whole.get(SERVER_SETS[setting]):
            return ""
        case _:
            return (
                "" if plain_value(setting, found) == plain_value(setting, wanted) else _worded(setting, found, wanted)
            )


def consumer_differences(consumer: Consumer, found: Config) -> Iterator[Difference]:
    """How a consumer differs from what it must be, whatever else it delivers, and wherever it began.

    Args:
        consumer: what it must be.
        found: its configuration on the server.
    """
    wanted = consumer.config()
    for setting in ("filter_subjects", "ack_policy", "max_deliver", "ack_wait", "max_ack_pending", *OFF_FOR_CONSUMERS):
        if why := _why_consumer(setting, found, wanted.get(setting)):
            yield Difference(f"{name_of(consumer)}: {why}", setting not in SLIGHT)


def _why_consumer(setting: str, config: Config, wanted: Any) -> str:
    found = config.get(setting)
    match setting:
        case "filter_subjects":
            there = filters_in(config)
            lacking = _uncovered(wanted, there) if there else []
            return _lacking(setting, lacking) if lacking else ""
        case "ack_wait":
            return _worded(setting, found, wanted) if (found or 0) < wanted else ""
        case "max_ack_pending":
            is_less = (found or 0) > 0 and (wanted < 0 or found < wanted)
            return _worded(setting, found, wanted) if is_less else ""
        case "max_deliver":
            return _worded(setting, found, wanted) if (found or -1) > 0 else ""
        case _:
            return "" if (found or None) == (wanted or None) else _worded(setting, found, wanted)


def _uncovered(wanted: Iterable[str], there: Iterable[str]) -> list[str]:
    return [each for each in wanted if not any(matches(wider, each) for wider in there)]


def filters_in(config: Config) -> list[str]:
    """A consumer's filters; the server writes a single one in another place when it was given so."""
    return config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else [])


def changes(before: Config, after: Config) -> list[str]:
    """What became of the settings of a stream or consumer, for a person."""
    settings = [each for each in dict.fromkeys((*after, *before)) if each not in ("metadata", "name")]
    return [
        f"{setting} was {said(setting, before.get(setting))}, is {said(setting, after.get(setting))}"
        for setting in settings
        if plain_value(setting, before.get(setting)) != plain_value(setting, after.get(setting))
    ]


def plain_value(setting: str, value: Any) -> Any:
    """A value in one form, where the server has several for the same."""
    if setting in NUMBERS:
        return max(0, value or 0)
    if setting == "filter_subjects":
        return sorted(value or ())
    return value or None


def _worded(setting: str, found: Any, wanted: Any) -> str:
    return f"{setting} is {said(setting, found)} and must be {said(setting, wanted)}{_harm(setting)}"


def _lacking(setting: str, lacking: list[str]) -> str:
    return f"{setting} must have {', '.join(lacking)}{_harm(setting)}"


def _harm(setting: str) -> str:
    return f" ({HARM[setting]})" if setting in HARM else ""


def said(setting: str, value: Any) -> str:
    """A value of a setting in words."""
    plain = plain_value(setting, value)
    if value is True:
        return "on"
    if not plain or (setting in BOUNDED_BELOW_ZERO and plain < 0):
        return "off" if value is False or setting in OFF else "none"
    if setting in DURATIONS:
        return f"{plain / 1e9:g} s"
    if isinstance(plain, list | tuple):
        return ", ".join(map(str, cast("Iterable[object]", plain)))
    return str(plain)
