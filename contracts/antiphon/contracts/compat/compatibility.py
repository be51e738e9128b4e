"""What breaks, and for whom, when one version of the contracts takes the place of another.

Old and new code run side by side while they are rolled out, and journals and inboxes hold what was written before. So
each message is looked at twice: what new code reads of what old code wrote, and what old code reads of what new code
writes. A new field with a default breaks neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from ..messages import Message
from .schema import Contracts, Described, JsonSchema, alternatives, schemas_of

Readers = Literal["new", "old", "both", "default"]
"""Whose code cannot read: the new one what was written before, the old one what is written from now on, or either. With
`default` old code reads on, but a default instead of what was meant."""

LOWER_BOUNDS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER_BOUNDS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
FORMS: Final = ("pattern", "format", "multipleOf", "contentEncoding")
"""Constraints of which it cannot be told whether another one allows more or less."""


class Change(msgspec.Struct, frozen=True):
    """One incompatible change of a message."""

    message: str
    field: str
    """The way to it, as in `order.items[].quantity`; empty where it is about the whole message."""
    what: str
    breaks: str
    """Whom it breaks, and how."""
    remedy: str

    @property
    def sentence(self) -> str:
        """All of it."""
        field = f"field {self.field} " if self.field else ""
        return f"{self.message}: {field}{self.what}. {self.breaks} {self.remedy}"


class _Difference(msgspec.Struct, frozen=True):
    field: str
    what: str
    readers: Readers


def compare_contracts(old: Contracts, new: Contracts) -> list[Change]:
    """All incompatible changes from the old contracts to the new ones; what was only added is none."""
    found: list[Change] = []
    for type_, before in sorted(old.messages.items()):
        after = new.messages.get(type_)
        if after is None:
            found.append(_removed(before, old, new))
        else:
            found += _changed(before, after)
            comparison = _Comparison(old.definitions, new.definitions)
            differences = comparison.between(old.schemas[type_], new.schemas[type_], "")
            found += [_of_field(before, after, each) for each in differences]
    return found


def differing_fields(old: type[Message], new: type[Message]) -> list[str]:
    """The fields in which two classes of one type differ so that what one writes breaks the other, sorted.

    Args:
        old, new: two declarations of a message. Classes that differ in name or module only are the same.
    """
    (before,), old_definitions = schemas_of([old])
    (after,), new_definitions = schemas_of([new])
    return sorted({each.field for each in _Comparison(old_definitions, new_definitions).between(before, after, "")})


# --- a message as a whole ---------------------------------------------------------------------------------------------


def _removed(before: Described, old: Contracts, new: Contracts) -> Change:
    newer = [each for each in new.messages.values() if each.name == before.name and each.version > before.version]
    alike = [
        each.type
        for each in new.messages.values()
        if each.type not in old.messages and each.kind == before.kind and each.name != before.name
        if _fields(new, each.type) == _fields(old, before.type)
    ]
    what = "is gone"
    if newer:
        what = f"is gone, and only {newer[0].type} is left"
    elif alike:
        what = f"is gone, and {alike[0]} looks like it under another name"
    breaks = f"{_code('Old', before.writers)} still writes it, and nobody can read it."
    if before.kind != "event":
        breaks = f"Sagas in flight still send it to {before.owner}, and are answered with exhausted."
    return Change(before.type, "", what, breaks, "Keep it beside its successor until nothing uses it any more.")


def _fields(contracts: Contracts, type_: str) -> Any:
    resolved = _resolved(contracts.schemas[type_], contracts.definitions)
    return resolved.get("properties"), resolved.get("required")


def _changed(before: Described, after: Described) -> Iterator[Change]:
    if before.kind != after.kind:
        yield _of_message(before, f"is {_a(after.kind)} now, and was {_a(before.kind)}", "Each waits for the other.")
    if before.owner != after.owner:
        yield _of_message(
            before,
            f"is owned by {after.owner} now, and was by {before.owner}",
            f"What {before.owner} publishes is refused as forged, and {after.owner} knows nothing of what "
            f"{before.owner} did: it cannot answer for it or take it back.",
        )
    if before.about != after.about:
        verb = "earns" if before.kind == "command" else "undoes"
        yield _of_message(
            before,
            f"{verb} {after.about} now, and {before.about} before",
            f"{_code('Old', before.writers)} cannot use what {before.owner} answers.",
        )


def _of_message(before: Described, what: str, breaks: str) -> Change:
    return Change(before.type, "", what, breaks, f"Give it another name, or {_next(before)}.")


# --- fields -----------------------------------------------------------------------------------------------------------


def _of_field(before: Described, after: Described, difference: _Difference) -> Change:
    writers = _together(before.writers, after.writers)
    readers = _together(before.readers, after.readers)
    phrases: list[str] = []
    if difference.readers in ("new", "both"):
        phrases.append(f"{_code('New', readers)} cannot read what {_code('old', writers)} wrote or is still writing.")
    if difference.readers in ("old", "both"):
        phrases.append(f"{_code('Old', readers)} cannot read what {_code('new', writers)} writes.")
    if difference.readers == "default":
        phrases.append(f"{_code('Old', readers)} takes its default, because {_code('new', writers)} leaves it out.")
    remedy = f"Take it back, or {_next(before)}."
    return Change(before.type, difference.field, difference.what, " ".join(phrases), remedy)


def _next(before: Described) -> str:
    return f"declare version={before.version + 1} beside it and let this one go when nothing uses it any more"


def _together(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*before, *after)))


def _code(age: str, who: tuple[str, ...]) -> str:
    return f"{age} code of {' and '.join(who) or 'others'}"


class _Comparison:
    """Two schemas side by side."""

    def __init__(self, old: Mapping[str, JsonSchema], new: Mapping[str, JsonSchema]) -> None:
        self._old, self._new = old, new
        self._seen: set[tuple[str, str]] = set()
        """Pairs of references that are being compared: a schema may contain itself."""

    def between(self, old: JsonSchema, new: JsonSchema, field: str) -> Iterator[_Difference]:
        """Where the two differ in a way that breaks somebody."""
        names = old.get("$ref", ""), new.get("$ref", "")
        if any(names):
            if names in self._seen:
                return
            self._seen.add(names)
        before, after = _members(old, self._old), _members(new, self._new)
        if len(before) == len(after) == 1:
            (one,), (other,) = before.values(), after.values()
            yield from self._single(one, other, field)
        else:
            yield from self._unions(before, after, field)
        self._seen.discard(names)

    def _single(self, old: JsonSchema, new: JsonSchema, field: str) -> Iterator[_Difference]:
        before, after = _resolved(old, self._old), _resolved(new, self._new)
        if _key(before) == _key(after):
            yield from self._same_type(before, after, field)
        else:
            yield from _retyped(before, after, field)

    def _unions(
        self, before: Mapping[str, JsonSchema], after: Mapping[str, JsonSchema], field: str
    ) -> Iterator[_Difference]:
        for key, gone in before.items():
            if key not in after:
                yield _Difference(field, f"may not be {_named(_resolved(gone, self._old))} any more", "new")
        for key, come in after.items():
            if key not in before:
                yield _Difference(field, f"may be {_named(_resolved(come, self._new))} now", "old")
        for key in before:
            if key in after:
                yield from self.between(before[key], after[key], field)

    def _same_type(self, old: JsonSchema, new: JsonSchema, field: str) -> Iterator[_Difference]:
        yield from _bounds(old, new, field)
        yield from _values(old, new, field)
        if old.get("type") == "object":
            yield from self._properties(old, new, field)
        for key, where in (("items", f"{field}[]"), ("additionalProperties", f"{field}{{}}")):
            if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
                yield from self.between(old[key], new[key], where)
        for place, (before, after) in enumerate(
            zip(old.get("prefixItems", ()), new.get("prefixItems", ()), strict=False)
        ):
            yield from self.between(before, after, f"{field}[{place}]")

    def _properties(self, old: JsonSchema, new: JsonSchema, field: str) -> Iterator[_Difference]:
        before: dict[str, JsonSchema] = old.get("properties", {})
        after: dict[str, JsonSchema] = new.get("properties", {})
        demanded_before, demanded = set(old.get("required", ())), set(new.get("required", ()))
        for name in before:
            where = f"{field}.{name}" if field else name
            if name not in after:
                yield _Difference(where, "was removed", "old" if name in demanded_before else "default")
            else:
                if name in demanded - demanded_before:
                    yield _Difference(where, "must be there now, and could be left out", "new")
                if name in demanded_before - demanded:
                    yield _Difference(where, "may be left out now, and had to be there", "old")
                yield from self.between(before[name], after[name], where)
        for name in after:
            where = f"{field}.{name}" if field else name
            if name not in before and name in demanded:
                yield _Difference(where, "was added without a default", "new")
            if name not in before and old.get("additionalProperties") is False:
                yield _Difference(where, "was added, and unknown fields were forbidden", "old")


def _retyped(old: JsonSchema, new: JsonSchema, field: str) -> Iterator[_Difference]:
    what = f"is {_named(new)} now, and was {_named(old)}"
    match old.get("type"), new.get("type"):
        case "integer", "number":
            yield _Difference(field, what, "old")
        case "number", "integer":
            yield _Difference(field, what, "new")
        case _:
            yield _Difference(field, what, "both")


def _bounds(old: JsonSchema, new: JsonSchema, field: str) -> Iterator[_Difference]:
    for name in (*LOWER_BOUNDS, *UPPER_BOUNDS):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        what = f"has the {_words(name)} {_bound(after)}, and had {_bound(before)}"
        is_tighter = before is None or (after is not None and (after > before) == (name in LOWER_BOUNDS))
        yield _Difference(field, what, "new" if is_tighter else "old")
    for name in FORMS:
        before, after = old.get(name), new.get(name)
        if before != after:
            what = f"has the {_words(name)} {_bound(after)}, and had {_bound(before)}"
            yield _Difference(field, what, "new" if before is None else "old" if after is None else "both")


def _values(old: JsonSchema, new: JsonSchema, field: str) -> Iterator[_Difference]:
    """Fixed values: of an enumeration, or the one that tells the members of a union apart."""
    before, after = _allowed(old), _allowed(new)
    if before is None and after is None:
        return
    if before is None or after is None:
        yield _Difference(field, f"may be {_list(after)} now, and could be {_list(before)}", "old" if before else "new")
        return
    if gone := [value for value in before if value not in after]:
        yield _Difference(field, f"may not be {_list(gone)} any more", "new")
    if come := [value for value in after if value not in before]:
        yield _Difference(field, f"may be {_list(come)} now", "old")


def _allowed(schema: JsonSchema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _members(schema: JsonSchema, definitions: Mapping[str, JsonSchema]) -> dict[str, JsonSchema]:
    """The members of a union by what tells them apart, objects by their tags; a schema that is none has one."""
    members = [*alternatives(schema)]
    resolved = [_resolved(each, definitions) for each in members]
    return {f"{_key(each)} {_tag(each)}": member for each, member in zip(resolved, members, strict=True)}


def _resolved(schema: JsonSchema, definitions: Mapping[str, JsonSchema]) -> JsonSchema:
    reference = schema.get("$ref")
    return definitions[reference.rpartition("/")[2]] if reference else schema


def _key(schema: JsonSchema) -> str:
    """A schema's JSON type; what only lists values is told apart by theirs."""
    if "type" in schema:
        return str(schema["type"])
    allowed = _allowed(schema)
    return type(allowed[0]).__name__.replace("str", "string").replace("int", "integer") if allowed else "any"


def _tag(schema: JsonSchema) -> str:
    """The first field of an object that can have one value only; msgspec wants one where objects are in a union."""
    allowed = (_allowed(schema["properties"][name]) for name in schema.get("required", ()) if "properties" in schema)
    return next((str(values[0]) for values in allowed if values and len(values) == 1), "")


def _named(schema: JsonSchema) -> str:
    key = _key(schema)
    return _a(str(schema.get("title", key)) if key == "object" else key) if key != "null" else "null"


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiouAEIOU' else 'a'} {word}"


def _words(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)


def _bound(value: object) -> str:
    return "none" if value is None else str(value)


def _list(values: list[Any] | None) -> str:
    return "anything" if values is None else " or ".join(msgspec.json.encode(value).decode() for value in values)
