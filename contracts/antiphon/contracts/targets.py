"""What a set-up makes of a stream or consumer, setting by setting, and what would be less safe then. Pure.

The server keeps what `topology` does not name, such as where an administrator placed a stream. What is less safe is
done only for an administrator who has named that kind of loss.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from .bounds import Number
from .counting import counted
from .differences import OFF, OFF_FOR_CONSUMERS, SERVER_SETS, Config, filters_in, plain_value, said
from .subjects import matches
from .topology import ASKED_REPLICAS, Consumer, Stream


class Loss(enum.StrEnum):
    """A kind of change that makes a platform less safe."""

    FEWER_REPLICAS = "fewer-replicas"
    SMALLER_BOUNDS = "smaller-bounds"
    LOST_MESSAGES = "lost-messages"


HALF_OF_THE_ROOM: Final = "half of what the server can set aside"
"""What a bound becomes that nobody gave. It is known once the stream is made."""
UNKNOWN_BOUND: Final = 0
"""The bound of a stream's target that stands for that."""
DECIDED_ONCE: Final = frozenset({"deliver_policy", "opt_start_seq"})
"""Settings of a consumer that only its first set-up gives."""


class SettingChange(msgspec.Struct, frozen=True):
    """One setting of a stream or consumer: what it is, and what it becomes, as the server's API has them."""

    setting: str
    was: Any
    becomes: Any

    @property
    def was_in_words(self) -> str:
        """What it is, for a person."""
        return said(self.setting, self.was)

    @property
    def becomes_in_words(self) -> str:
        """What it becomes, for a person."""
        if self.setting == "max_bytes" and type(self.becomes) is int and self.becomes == UNKNOWN_BOUND:
            return HALF_OF_THE_ROOM
        return said(self.setting, self.becomes)


class Reduction(msgspec.Struct, frozen=True):
    """Why a change is less safe."""

    kind: Loss
    sentence: str


class Stored(msgspec.Struct, frozen=True):
    """What a stream holds.

    Args:
        messages: how many messages.
        bytes: how much they take.
        age_seconds: how old the oldest is; 0 where there is none.
        most_of_a_subject: how many messages the subject has that has most; 1 where nobody looked.
    """

    messages: Number = 0
    bytes: Number = 0
    age_seconds: float = 0.0
    most_of_a_subject: Number = 1


def stream_target(stream: Stream, found: Config | None, replicas: int, most: int) -> dict[str, Any]:
    """The configuration that a stream is to have.

    Args:
        stream: what it must be.
        found: its configuration on the server; None where it is not there.
        replicas: how many copies are asked for.
        most: how many bytes it may take; with -1 what `stream` says. UNKNOWN_BOUND stands until the room is known.
    """
    wanted = stream.config(replicas)
    if most >= 0:
        wanted["max_bytes"] = most
    if found is None:
        return wanted
    off = {each: None for each in OFF if found.get(each) and each not in wanted and not _server_sets(each, wanted)}
    metadata: dict[str, str] = found.get("metadata") or {}
    return {**found, **wanted, **off, "metadata": {**metadata, **wanted["metadata"]}}


def _server_sets(setting: str, wanted: Mapping[str, Any]) -> bool:
    return bool(wanted.get(SERVER_SETS.get(setting, "")))


def consumer_target(consumer: Consumer, found: Config | None) -> dict[str, Any]:
    """The configuration that a consumer is to have. One that is there goes on from where it is.

    Args:
        consumer: what it must be.
        found: its configuration on the server; None where it is not there.
    """
    wanted = consumer.config()
    if found is None:
        return wanted
    kept = {name: value for name, value in found.items() if name != "filter_subject"}
    off = {each: None for each in OFF_FOR_CONSUMERS if kept.get(each)}
    return {**kept, **{name: value for name, value in wanted.items() if name not in DECIDED_ONCE}, **off}


def setting_changes(found: Config, target: Config) -> list[SettingChange]:
    """What becomes of each setting that does not stay as it is."""
    before, after = _comparable(found), _comparable(target)
    return [
        SettingChange(setting, before.get(setting), value)
        for setting, value in after.items()
        if plain_value(setting, before.get(setting)) != plain_value(setting, value)
        or (setting == "max_bytes" and value == UNKNOWN_BOUND)
    ]


def _comparable(config: Config) -> dict[str, Any]:
    settings = {name: value for name, value in config.items() if name not in ("name", "metadata", "filter_subject")}
    if filters := filters_in(config):
        settings["filter_subjects"] = filters
    metadata: dict[str, str] = config.get("metadata") or {}
    return settings | ({ASKED_REPLICAS: metadata[ASKED_REPLICAS]} if ASKED_REPLICAS in metadata else {})


# --- what would be less safe ------------------------------------------------------------------------------------------


def stream_reductions(found: Config, target: Config, replicas_before: int, stored: Stored) -> Iterator[Reduction]:
    """Which changes of a stream make it less safe.

    Args:
        found: its configuration on the server.
        target: the one that it is to have.
        replicas_before: how many copies were asked for.
        stored: what it holds.
    """
    name, replicas = target["name"], target["num_replicas"]
    if replicas < replicas_before:
        sentence = f"stream {name} would have {counted(replicas, 'replica')} instead of {replicas_before}"
        yield Reduction(Loss.FEWER_REPLICAS, sentence)
    was, becomes = plain_value("max_bytes", found.get("max_bytes")), target.get("max_bytes") or 0
    if 0 < becomes < was:
        yield Reduction(Loss.SMALLER_BOUNDS, f"stream {name} might take {becomes} bytes instead of {was}")
    # A stream that refuses what is new keeps all that it has beyond a smaller number.
    messages = 0 if found.get("discard") == target.get("discard") == "new" else stored.messages
    for setting, held, what in (
        ("max_msgs", messages, "messages"),
        ("max_bytes", stored.bytes, "bytes"),
        ("max_age", stored.age_seconds * 1e9, "age"),
        ("max_msgs_per_subject", stored.most_of_a_subject, "messages of one subject"),
    ):
        if is_tighter(setting, found, target) and held > target[setting]:
            bound = f"{setting} would be {said(setting, target[setting])}, which is less than the {what} that it holds"
            yield Reduction(Loss.LOST_MESSAGES, f"stream {name} would lose messages: {bound}")


def is_tighter(setting: str, found: Config, target: Config) -> bool:
    """Whether a bound of a stream is to hold less than it did."""
    was, becomes = plain_value(setting, found.get(setting)), plain_value(setting, target.get(setting))
    return becomes > 0 and (not was or becomes < was)


def removed_filters(found: Config, target: Config) -> list[str]:
    """The filters of a consumer of which what waits would be delivered no more."""
    return [each for each in filters_in(found) if not any(matches(wider, each) for wider in filters_in(target))]


def undelivered(participant: str, waiting: int) -> Reduction:
    """Why a participant would not react to what it was to react to."""
    sentence = f"{participant} would never react to {counted(waiting, 'event')} that it has not finished"
    return Reduction(Loss.LOST_MESSAGES, sentence)
