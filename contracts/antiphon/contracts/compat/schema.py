"""Contracts as data that outlives the code: what a message is called, who writes and reads it, and its JSON Schema."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, cast

import msgspec
from msgspec import inspect

from ..bounds import Number
from ..fields import schema_of_object
from ..messages import Command, Compensation, Message

MessageKind = Literal["event", "command", "compensation"]
JsonSchema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
"""The dialect of JSON Schema that msgspec writes."""


class Described(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a message beyond its fields."""

    kind: MessageKind
    name: str
    version: Number
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
    schema = msgspec.json.schema(message, schema_hook=schema_of_object)
    _Times(schema.get("$defs", {})).say(inspect.type_info(message), schema)
    return {"$schema": DIALECT, "$id": message.__contract__.type, **schema}


def schemas_of(
    messages: Sequence[type[msgspec.Struct]], ref_template: str = "#/$defs/{name}"
) -> tuple[tuple[JsonSchema, ...], dict[str, JsonSchema]]:
    """The JSON Schemas of the payloads of messages, and of what they share, by the name in its references."""
    schemas, definitions = msgspec.json.schema_components(
        messages, ref_template=ref_template, schema_hook=schema_of_object
    )
    times = _Times(definitions)
    for message, schema in zip(messages, schemas, strict=True):
        times.say(inspect.type_info(message), schema)
    return schemas, definitions


def contracts_of(described: Mapping[type[Message], Described]) -> Contracts:
    """Messages by their descriptions, with their schemas, without what is written there for people to read."""
    schemas, definitions = schemas_of(list(described))
    return Contracts(
        {each.type: each for each in described.values()},
        dict(zip((each.type for each in described.values()), map(_bare, schemas), strict=True)),
        {name: _bare(schema) for name, schema in definitions.items()},
    )


def _bare(schema: Any) -> Any:
    """A schema without descriptions, which change nothing. A field may be called `description`, too."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]  # pyright: ignore[reportUnknownVariableType] # of JSON
    if not isinstance(schema, dict):
        return schema
    found = cast("JsonSchema", schema)
    return {
        name: {field: _bare(each) for field, each in part.items()} if name == "properties" else _bare(part)
        for name, part in found.items()
        if name != "description"
    }


DIGEST_DIGITS: Final = 16
"""How much of a hash tells the schemas of one definition apart."""


def digest_of(contracts: Contracts) -> str:
    """What contracts are known by: the same for the same messages, whoever computes it."""
    data = msgspec.json.encode(contracts, order="deterministic")
    return hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]


class _Times:
    """Adds `format: date-time` or `time` to schemas; msgspec does so only where a zone is prescribed."""

    def __init__(self, definitions: Mapping[str, JsonSchema]) -> None:
        self._definitions = definitions
        self._seen: set[str] = set()

    def say(self, info: inspect.Type, schema: JsonSchema) -> None:
        """Complete the schema of a type, and what it refers to."""
        match info:
            case inspect.Metadata(type=inner):
                self.say(inner, schema)
            case inspect.DateTimeType():
                schema.setdefault("format", "date-time")
            case inspect.TimeType():
                schema.setdefault("format", "time")
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
                self._fields(info, schema)
            case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
                self.say(info.item_type, schema.get("items", {}))
            case inspect.TupleType():
                for each, part in zip(info.item_types, schema.get("prefixItems", ()), strict=False):
                    self.say(each, part)
            case inspect.DictType():
                self.say(info.value_type, schema.get("additionalProperties", {}))
            case inspect.UnionType():
                self._members(info, schema)
            case _:
                pass

    def _fields(
        self, info: inspect.StructType | inspect.DataclassType | inspect.TypedDictType, schema: JsonSchema
    ) -> None:
        reference = str(schema.get("$ref", ""))
        if reference and reference not in self._seen:
            self._seen.add(reference)
            properties = self._definitions[reference.rpartition("/")[2]].get("properties", {})
            for field in info.fields:
                self.say(field.type, properties.get(field.encode_name, {}))

    def _members(self, info: inspect.UnionType, schema: JsonSchema) -> None:
        """Each member of a union, which has at most one of a JSON type, and objects that are told apart by a tag."""
        members = list(alternatives(schema))
        for each in info.types:
            inner = each.type if isinstance(each, inspect.Metadata) else each
            for member in members:
                if self._is_of(inner, member):
                    self.say(inner, member)

    def _is_of(self, info: inspect.Type, schema: JsonSchema) -> bool:
        match info:
            case inspect.DateTimeType() | inspect.TimeType():
                return schema.get("type") == "string"
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
                referred = self._definitions.get(str(schema.get("$ref", "")).rpartition("/")[2], {})
                return referred.get("title") == info.cls.__name__
            case inspect.DictType():
                return schema.get("type") == "object"
            case _:
                return schema.get("type") == "array"


def alternatives(schema: JsonSchema) -> Iterator[JsonSchema]:
    """The members of a union, also of one within it; a schema that is none."""
    if "anyOf" not in schema:
        yield schema
    for each in schema.get("anyOf", ()):
        yield from alternatives(each)


def _about(message: type[Message]) -> str:
    if issubclass(message, Command):
        return message.__reply__.__contract__.type
    if issubclass(message, Compensation):
        return message.__undoes__.__contract__.type
    return ""
