"""Two definitions of a saga compared: what is different, and what that means for sagas in flight. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from antiphon.contracts.compat.compatibility import differing_fields

from .definition import CommandTemplate, Definition, StepDefinition


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What separates two definitions, in sentences; nothing where they are the same."""

    before: str
    after: str
    """Their labels: name, version, hash of the shape."""
    is_same_shape: bool
    """Whether sagas in flight go on the same way under either."""
    changes: tuple[str, ...]
    meaning: tuple[str, ...]
    """What this means for sagas in flight, and what to do."""


def compare_definitions(before: Definition, after: Definition) -> Difference:
    """Compare two definitions, the older one first."""
    is_same_shape = before.shape == after.shape
    changes = (*_of_saga(before, after), *_of_steps(before, after))
    return Difference(
        before=before.label,
        after=after.label,
        is_same_shape=is_same_shape,
        changes=changes,
        meaning=tuple(_meaning(before, after, is_same_shape, bool(changes))),
    )


# --- what is different ------------------------------------------------------------------------------------------------


def _of_saga(before: Definition, after: Definition) -> list[str]:
    found = _changed("the saga", "name", before.name, after.name)
    found += _changed("the saga", "start event", before.start_type, after.start_type)
    found += _fields("the start event", before.start_type, before.start_shape, after.start_type, after.start_shape)
    found += _changed("the saga", "deadline", _seconds(before.deadline_ns), _seconds(after.deadline_ns))
    found += _changed("the saga", "backoff", before.backoff.encode(), after.backoff.encode())
    found += _changed("the saga", "locks", _function(before.locks), _function(after.locks))
    found += _changed("the saga", "leader", *("coordinators" if each.is_led else "nobody" for each in (before, after)))
    found += _changed("the start event", "who reacts", _names(before.begins), _names(after.begins))
    found += [f"{type_} is not heard any more." for type_ in before.events if type_ not in after.events]
    for type_, heard in after.events.items():
        other = before.events.get(type_)
        if other is None:
            found.append(f"{type_} is heard too.")
        else:
            found += _changed(type_, "meaning", other.means, heard.means)
            found += _changed(type_, "who reacts", _names(other.next), _names(heard.next))
            found += _fields(type_, type_, other.shape, type_, heard.shape)
    return found


def _of_steps(before: Definition, after: Definition) -> list[str]:
    found = [f"step {name} is gone." for name in before.steps if name not in after.steps]
    for name, step in after.steps.items():
        other = before.steps.get(name)
        if other is None:
            found.append(f"step {name} is new{_behind(step)}.")
        else:
            found += _of_step(name, other, step)
    kept = [name for name in before.steps if name in after.steps]
    if kept != [name for name in after.steps if name in before.steps]:
        found.append("the steps stand in another order; that alone changes when nothing is sent.")
    return found


def _of_step(name: str, before: StepDefinition, after: StepDefinition) -> list[str]:
    what = f"step {name}"
    found = _changed(what, "kind", before.kind, after.kind)
    found += _changed(what, "place", _after(before), _after(after))
    found += _of_template(what, "command", before.do, after.do)
    found += _of_template(what, "compensation", before.undo, after.undo)
    found += _changed(what, "participant", before.participant, after.participant)
    found += _changed(what, "reply", _type(before.reply), _type(after.reply))
    found += _fields(f"the reply of {what}", _type(before.reply), before.reply, _type(after.reply), after.reply)
    found += _changed(what, "signal", _type(before.signal), _type(after.signal))
    found += _changed(what, "refusals", _types(before.unless), _types(after.unless))
    found += _changed(what, "child saga", before.child or "none", after.child or "none")
    found += _changed(what, "condition", _function(before.when), _function(after.when))
    found += _changed(what, "timeout", _seconds(before.timeout_ns), _seconds(after.timeout_ns))
    found += _changed(what, "most elements", before.elements_max, after.elements_max)
    if before.is_pivot != after.is_pivot:
        found.append(f"{what} {'is now' if after.is_pivot else 'is no longer'} the point of no return.")
    elif before.is_retriable != after.is_retriable:
        where = "behind" if after.is_retriable else "before"
        found.append(f"{what} now stands {where} the point of no return.")
    elif before.is_kept != after.is_kept and before.undo is None and after.undo is None:
        found.append(f"{what} {'is no longer' if after.is_kept else 'is now'} undone when the saga is compensated.")
    return found


def _of_template(what: str, which: str, before: CommandTemplate | None, after: CommandTemplate | None) -> list[str]:
    types = [order.contract.type if order else "none" for order in (before, after)]
    found = _changed(what, which, *types)
    if before is not None and after is not None:
        found += _fields(f"the {which} of {what}", types[0], before.shape, types[1], after.shape)
        found += _changed(what, f"retry of the {which}", before.retry, after.retry)
    return found


def _changed(what: str, which: str, before: object, after: object) -> list[str]:
    return [] if before == after else [f"{what}: {which} was {before}, and is {after}."]


def _fields(what: str, before_type: str, before: Any, after_type: str, after: Any) -> list[str]:
    """Payloads that differ although their type says that they are the same."""
    if before is None or after is None or before_type != after_type:
        return []
    names = sorted({re.split(r"[.\[{]", field)[0] for field in differing_fields(before, after)})
    if not names:
        return []
    return [
        f"{what} has other fields under the same type {after_type} ({', '.join(names)}): give it another version, "
        "or what is under way cannot be read."
    ]


def _names(participants: tuple[str, ...]) -> str:
    return " and ".join(sorted(participants)) or "nobody"


def _behind(step: StepDefinition) -> str:
    return f", {_after(step)}" if step.after else ""


def _after(step: StepDefinition) -> str:
    return f"after {', '.join(step.after)}" if step.after else "at the beginning"


def _type(event: Any) -> str:
    return event.__contract__.type if event is not None else "none"


def _types(events: tuple[Any, ...]) -> str:
    return ", ".join(map(_type, events)) or "none"


def _function(function: Any) -> str:
    return function.__name__ if function is not None else "none"


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:g} s" if nanoseconds else "none"


# --- what it means ----------------------------------------------------------------------------------------------------


def _meaning(before: Definition, after: Definition, is_same_shape: bool, is_changed: bool) -> list[str]:
    if before.name != after.name:
        return ["These are different sagas; neither takes over what the other began."]
    if is_same_shape and before.version == after.version:
        if is_changed:
            return ["The shape is the same: sagas in flight go on under the newer one, and nothing else is needed."]
        return ["Both are the same."]
    if before.version == after.version:
        return [
            f"Both are version {after.version} and have different shapes. A coordinator that has both refuses to "
            f"start. Give the newer one version={before.version + 1}.",
            f"A coordinator with only the newer one leaves sagas in flight alone: they name the shape {before.shape}.",
        ]
    newer, older = (after, before) if after.version > before.version else (before, after)
    return [
        f"Sagas in flight finish on the version they began with; new ones begin with version {newer.version}.",
        f"Run coordinators with both (--app OLD --app NEW) until no saga of version {older.version} is open.",
        f"A coordinator without version {older.version} leaves its sagas alone, and says so: in its log, in status, "
        "and, after some deliveries, in `antiphon parked`. Once a coordinator has it again, they go on.",
    ]
