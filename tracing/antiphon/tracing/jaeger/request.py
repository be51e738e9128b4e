"""What Jaeger asks for, read from its messages and checked: they may come from anybody. Pure."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from antiphon.contracts.errors import AntiphonError

from .query import DEPTH, FOREVER_NS, Query, shown
from .storage_pb2 import AnyValue, TraceQueryParameters

DEPTH_MAX: Final = 1_500
"""How many sagas are searched for at most; as many as Jaeger's page can ask for."""
TEXT_MAX: Final = 1_024
ATTRIBUTES_MAX: Final = 32


class BadQuery(AntiphonError):
    """Jaeger, or whoever asks in its place, must ask otherwise."""


def query_of(asked: TraceQueryParameters) -> Query:
    """Read what is asked for.

    Raises:
        BadQuery: it makes no sense, or is more than is answered here.
    """
    if asked.filter:
        raise BadQuery("structured filters are not answered here; ask by service, operation, attributes and times.")
    if len(asked.attributes) > ATTRIBUTES_MAX:
        raise BadQuery(f"{len(asked.attributes)} attributes are asked for; give at most {ATTRIBUTES_MAX}.")
    since_ns, until_ns = interval(asked.start_time_min, asked.start_time_max, "start time")
    shortest_ns, longest_ns = interval(asked.duration_min, asked.duration_max, "duration")
    return Query(
        short(asked.service_name, "the service"),
        short(asked.operation_name, "the operation"),
        {short(each.key, "an attribute"): _text(each.key, each.value) for each in asked.attributes},
        since_ns,
        until_ns,
        shortest_ns,
        longest_ns,
        min(asked.search_depth, DEPTH_MAX) if asked.search_depth > 0 else DEPTH,
    )


def interval(least: Timestamp | Duration, most: Timestamp | Duration, what: str) -> tuple[int, int]:
    """From when until when, or how long; an end that is not given, which is 0, does not count.

    Raises:
        BadQuery: nothing lies between.
    """
    first, last = (end.seconds * 1_000_000_000 + end.nanos for end in (least, most))
    if first < 0 or last < 0:
        raise BadQuery(f"the {what} is asked for from {first} ns to {last} ns; neither may be negative.")
    if last and last < first:
        raise BadQuery(f"the least {what}, {first} ns, is more than the greatest, {last} ns: swap them.")
    return first, last or FOREVER_NS


def short(text: str, what: str) -> str:
    """A text that is not too long.

    Raises:
        BadQuery: it is.
    """
    if len(text) > TEXT_MAX:
        raise BadQuery(f"{what} is named by {len(text)} characters; give at most {TEXT_MAX}.")
    return text


def _text(key: str, value: AnyValue) -> str:
    """A value, which must be one of those that spans have.

    Raises:
        BadQuery: it is none.
    """
    match value.WhichOneof("value"):
        case "string_value":
            return short(value.string_value, f"the value of {key}")
        case "bool_value":
            return shown(value.bool_value)
        case "int_value":
            return shown(value.int_value)
        case "double_value":
            return shown(value.double_value)
        case _:
            raise BadQuery(f"the attribute {key[:TEXT_MAX]} must be a text, a number, true or false.")
