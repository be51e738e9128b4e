"""The JSON that a person gives on the command line: read in whatever encoding an editor writes, and checked for fields
that nothing would read."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.compat.schema import Contracts, JsonSchema, schema_of
from antiphon.contracts.envelope import decode, unpack, unpack_raw
from antiphon.contracts.errors import Ambiguous, Unusable
from antiphon.contracts.hints import meant
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import SCHEMAS_TYPE
from antiphon.contracts.reader import Entry, Journal
from antiphon.contracts.topology import SAGA
from antiphon.contracts.values import without_halves
from antiphon.link import Link

from ..modules import CannotLoad

E = TypeVar("E", bound=Event)

MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""How a text begins that says its own encoding. UTF-32 before UTF-16, whose mark begins in the same way."""

MALFORMED: Final = re.compile(r"JSON is malformed: (?P<what>.*) \(byte (?P<byte>\d+)\)")
"""How msgspec says where a text is no JSON."""


def read_event(payload: str, shape: type[E]) -> E:
    """The event that a person gives as JSON.

    Raises:
        CannotLoad: there is no such file, it is no text, or it has a field that the event has not.
        Undecodable: it is no JSON, or does not fit the contract.
    """
    data = read_payload(payload)
    require_known_fields(data, shape.__name__, schema_of(shape))
    return unpack_raw(data, shape)


def read_payload(payload: str) -> bytes:
    """The JSON that a person gives, as UTF-8: as it is, from a file, or from stdin.

    Raises:
        CannotLoad: there is no such file, it is no text, it is empty, or it is no JSON.
    """
    data, where = read_given(payload)
    _require_json(data, payload, where)
    return data


def read_given(payload: str) -> tuple[bytes, str]:
    """The text that a person gives, as UTF-8, and where it was found; as `read_payload`, but it may be no JSON.

    Raises:
        CannotLoad: there is no such file, it is no text, or it is empty.
    """
    if not payload.startswith("@"):
        data, where = payload.encode("utf-8", "surrogateescape"), "what was given"
    elif payload == "@":
        raise CannotLoad("there is no name behind the @ of the payload. Write @order.json, or @- for stdin.")
    elif payload == "@-":
        where = "stdin"
        data = as_utf8(sys.stdin.buffer.read(), where)
    else:
        where = payload[1:]
        try:
            data = as_utf8(Path(where).read_bytes(), where)
        except OSError as error:
            raise CannotLoad(f"cannot read the payload from {where}: {error.strerror}.") from None
    if not data.strip():
        raise CannotLoad(f"there is no payload in {where}: it is empty. A message without fields is written {{}}.")
    return data, where


def _require_json(data: bytes, payload: str, where: str) -> None:
    """Refuse what is no JSON, with the place; and tell who has named a file without the sign for it."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if without_halves(data) is not None:
            return
        if _means_file(payload):
            source = "stdin" if payload == "-" else "a file"
            raise CannotLoad(f"{payload} is no JSON. To read it from {source}, write @{payload}") from None
        raise CannotLoad(f"{where} is no JSON: {_said(data, str(error))}. Nothing was sent.") from None
    except RecursionError:
        return  # whoever reads it by its contract says so


def _means_file(payload: str) -> bool:
    """Whether what is no JSON is the name of a file, or of stdin."""
    if payload.startswith("@"):
        return False
    try:
        return payload == "-" or payload.endswith(".json") or Path(payload).is_file()
    except (OSError, ValueError):
        return False  # too long for a name, or with a zero in it


def _said(data: bytes, sentence: str) -> str:
    """What a decoder has said, with the line and column in the place of the byte."""
    found = MALFORMED.fullmatch(sentence)
    if found is None:
        return "it ends before it is complete" if "truncated" in sentence else sentence
    before = data[: int(found["byte"])].decode("utf-8", "replace")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return f"{found['what']} at line {line}, column {column}"


def as_utf8(data: bytes, where: str) -> bytes:
    """JSON in UTF-8, without a mark, whatever Unicode encoding it was written in: Windows writes UTF-16, and a mark.

    Args:
        data: the JSON as it was written.
        where: where it was found, for the error's sentence.

    Raises:
        CannotLoad: it is in no Unicode encoding.
    """
    try:
        return data.decode(_encoding_of(data)).encode()
    except UnicodeError:
        raise CannotLoad(
            f"what was read from {where} is no text in UTF-8 or UTF-16. Save it as UTF-8; in PowerShell: … | Out-File "
            "-Encoding utf8"
        ) from None


def _encoding_of(data: bytes) -> str:
    """By its mark; else by its first characters, which in JSON are ASCII, so that zeros tell how wide each is."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return encoding
    match [byte != 0 for byte in data[:4]]:
        case [True, False, False, False]:
            return "utf-32-le"
        case [False, False, False, True]:
            return "utf-32-be"
        case [True, False, *_]:
            return "utf-16-le"
        case [False, True, *_]:
            return "utf-16-be"
        case _:
            return "utf-8"


def require_known_fields(
    data: bytes, name: str, schema: JsonSchema, definitions: Mapping[str, JsonSchema] | None = None
) -> None:
    """Refuse JSON with a field that its contract has not. On the wire such a field is passed over, since a newer sender
    may know more; a person has misspelt it.

    Args:
        data: what was written.
        name: what the message is called.
        schema: its JSON Schema.
        definitions: what that refers to, where it does not hold it itself.

    Raises:
        CannotLoad: there is such a field.
    """
    try:
        written: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # whoever reads it says what is wrong with it
    fields = _Fields(definitions if definitions is not None else schema.get("$defs", {}))
    for where, field, known in fields.unknown(written, schema, name):
        hint = meant(field, known, "it has") if known else "it has no fields."
        raise CannotLoad(f"{where} has no field {field!r}; {hint} Nothing was sent.")


async def require_known_by_journal(link: Link, key: SagaKey, step: str, data: bytes, *, is_reply: bool) -> None:
    """The same for what an operator sends in the place of a step's command, or as its reply, by the schemas with which
    the saga began. What these do not tell is left to the coordinator.

    Raises:
        CannotLoad: there is a field that the contract has not.
    """
    journal = Journal()
    with suppress(Unusable, Ambiguous):
        entries = [journal.entry(each) for each in await link.read_all(SAGA, [subjects.journal_filter(key)])]
        first = entries[0].envelope if entries else None
        if first is None or not first.schemas:
            return
        kept = await link.read_all(SAGA, [subjects.schemas_subject(first.definition, first.schemas)])
        contracts = unpack(decode(kept[0].data, kept[0].subject), SCHEMAS_TYPE, Contracts) if kept else None
        type_ = _type_of(entries, contracts, step, is_reply) if contracts is not None else ""
        if contracts is not None and type_ in contracts.schemas:
            require_known_fields(data, type_, contracts.schemas[type_], contracts.definitions)


def _type_of(entries: Sequence[Entry], contracts: Contracts, step: str, is_reply: bool) -> str:
    """The type of what a step was sent last, or of what it waits for; empty where the journal does not say it."""
    found = ""
    for entry in entries:
        if entry.command is not None and entry.command.step == step and entry.kind in ("do", "undo"):
            found = entry.envelope.type
        elif is_reply and entry.record is not None and entry.record.step == step and entry.envelope.awaits:
            return entry.envelope.awaits
    described = contracts.messages.get(found)
    if not is_reply or described is None:
        return found
    return described.about if described.kind == "command" else ""


class _Fields:
    """Finds fields that a schema does not have."""

    def __init__(self, definitions: Mapping[str, JsonSchema]) -> None:
        self._definitions = definitions

    def unknown(self, written: Any, schema: JsonSchema, where: str) -> Iterator[tuple[str, str, list[str]]]:
        """In which object, what each is called, and what that has instead."""
        schema = self._resolved(schema)
        if "anyOf" in schema:
            schema = self._meant(written, schema)
        if isinstance(written, dict):
            objects = cast("dict[str, Any]", written)
            known: dict[str, JsonSchema] | None = schema.get("properties")
            others = schema.get("additionalProperties")
            for name, value in objects.items():
                if known is not None and name in known:
                    yield from self.unknown(value, known[name], f"{where}.{name}")
                elif isinstance(others, dict):
                    yield from self.unknown(value, cast("JsonSchema", others), f"{where}.{name}")
                elif known is not None:
                    yield where, name, [*known]
        elif isinstance(written, list):
            first: list[JsonSchema] = schema.get("prefixItems", [])
            rest = schema.get("items")
            for number, value in enumerate(cast("list[object]", written)):
                item = first[number] if number < len(first) else rest
                if isinstance(item, dict):
                    yield from self.unknown(value, cast("JsonSchema", item), f"{where}[{number}]")

    def _resolved(self, schema: JsonSchema) -> JsonSchema:
        while "$ref" in schema:
            schema = self._definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        return schema

    def _meant(self, written: Any, schema: JsonSchema) -> JsonSchema:
        """Which of several is meant: by the tag, else the only one for an object or for a list; nothing where that does
        not tell."""
        tag = schema.get("discriminator")
        if tag is not None and isinstance(written, dict):
            told = str(cast("dict[str, Any]", written).get(tag["propertyName"]))
            return self._resolved({"$ref": tag["mapping"][told]}) if told in tag["mapping"] else {}
        kind = "object" if isinstance(written, dict) else "array"
        several = [self._resolved(each) for each in schema["anyOf"]]
        found = [each for each in several if each.get("type") == kind or "anyOf" in each]
        if len(found) != 1:
            return {}
        return self._meant(written, found[0]) if "anyOf" in found[0] else found[0]
