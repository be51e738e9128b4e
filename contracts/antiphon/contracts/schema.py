"""Contracts as data that outlives the code: what a message is called, who writes and reads it, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from .messages import Command, Compensation, Message

MessageKind = Literal["event", "command", "compensation"]
JsonSchema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
"""The dialect of JSON Schema that msgspec writes."""


class Described(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a message beyond its fields."""

    kind: MessageKind
    name: str
    version: int
    owner: str
    about: str = ""
    """The versioned type of the event a command earns, or of the command a compensation undoes."""
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """The versioned tag that travels."""
        return f"{self.name}.v{self.version}"


class Contracts(msgspec.Struct, frozen=True):
    """All messages of a platform at one time, by their versioned types."""

    messages: Mapping[str, Described]
    schemas: Mapping[str, JsonSchema]
    """The schema of each message's payload, by the same."""
    definitions: Mapping[str, JsonSchema]
    """What `$ref` names in them: the last part of the reference is the key."""


def describe(message: type[Message], writers: Iterable[str] = (), readers: Iterable[str] = ()) -> Described:
    """A message's contract as data."""
    contract = message.__contract__
    return Described(
        kind=kind_of(message),
        name=contract.name,
        version=contract.version,
        owner=contract.owner,
        about=_about(message),
        writers=tuple(writers),
        readers=tuple(readers),
    )


def kind_of(message: type[Message]) -> MessageKind:
    """Which of the three a message is."""
    if issubclass(message, Command):
        return "command"
    return "compensation" if issubclass(message, Compensation) else "event"


def schema_of(message: type[Message]) -> JsonSchema:
    """The JSON Schema of a message's payload, complete in itself."""
    return {"$schema": DIALECT, "$id": message.__contract__.type, **msgspec.json.schema(message)}


def _about(message: type[Message]) -> str:
    if issubclass(message, Command):
        return message.__reply__.__contract__.type
    if issubclass(message, Compensation):
        return message.__undoes__.__contract__.type
    return ""
