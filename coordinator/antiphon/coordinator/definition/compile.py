"""From what an author declared to a definition: checked as a whole, and with the hash of its shape."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from antiphon.contracts.compat.schema import digest_of
from antiphon.contracts.identity import COORDINATOR, dashed
from antiphon.contracts.messages import (
    AnswerKind,
    Closed,
    Contract,
    Event,
    Refusal,
    Settled,
    Undone,
    answer_name,
    answer_type,
    settle_name,
)
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import Sending

from .check import ancestors, check_complete, is_past_pivot
from .declared import DeclaredChoreography, DeclaredSaga, DeclaredStep
from .definition import CommandTemplate, Definition, EmittedEvent, Expected, Meaning, StepDefinition
from .messages import schemas_of_messages
from .retention import compiled


def compile_saga(saga: DeclaredSaga[Any]) -> Definition:
    """Compile a saga.

    Raises:
        DefinitionError: it is not complete.
    """
    check_complete(saga)
    steps = {step.name: _step(saga, step) for step in saga.steps}
    events = _events(saga)
    answers = {(e.step, token): e for step in saga.steps for token, e in _answers(step)}
    definition = Definition(
        name=saga.name,
        version=saga.version,
        shape=_shape(saga),
        start_type=saga.start.__contract__.type,
        start_shape=saga.start,
        deadline_ns=_ns(saga.deadline),
        backoff=saga.backoff,
        settle_retry=saga.compensation_retry.encode(),
        locks=saga.locks,
        keys=saga.keys,
        steps=steps,
        pivot=next((step.name for step in saga.steps if step.is_pivot), ""),
        is_timed=any(step.timeout is not None or step.is_pivot for step in saga.steps),
        answers=answers,
        sources=tuple(dict.fromkeys((*_asked(steps), *(heard.shape.__contract__.owner for heard in events.values())))),
        children=tuple(compile_saga(step.child) for step in saga.steps if step.child is not None),
        events=events,
        retention=compiled(saga.retention),
    )
    return _with_schemas(definition)


def compile_choreography(saga: DeclaredChoreography[Any]) -> Definition:
    """Compile a choreography: the same, with nothing to do."""
    events = {event.__contract__.type: _heard_in(saga, event) for event in (*saga.flow, *saga.ends)}
    del events[saga.start.__contract__.type]
    definition = Definition(
        name=saga.name,
        version=saga.version,
        shape=_hashed(observed(saga)),
        start_type=saga.start.__contract__.type,
        start_shape=saga.start,
        deadline_ns=_ns(saga.deadline),
        backoff=Retry(),
        settle_retry="",
        locks=None,
        keys=saga.keys,
        steps={},
        pivot="",
        is_timed=False,
        answers={},
        sources=tuple(dict.fromkeys(heard.shape.__contract__.owner for heard in events.values())),
        children=(),
        events=events,
        is_led=False,
        begins=saga.flow[saga.start],
        retention=compiled(saga.retention),
    )
    return _with_schemas(definition)


def _with_schemas(definition: Definition) -> Definition:
    return replace(definition, schemas=digest_of(schemas_of_messages(definition)))


def _heard_in(saga: DeclaredChoreography[Any], event: type[Event]) -> EmittedEvent:
    means: Meaning = "note"
    if event in saga.completes:
        means = "completed"
    elif event in saga.compensates:
        means = "compensated"
    elif event in saga.turns:
        means = "turn"
    return EmittedEvent(event, means, next=saga.flow.get(event, ()))


def _asked(steps: dict[str, StepDefinition]) -> list[str]:
    """The participants that are sent commands."""
    return [step.participant for step in steps.values() if step.kind in ("command", "list")]


def _events(saga: DeclaredSaga[Any]) -> dict[str, EmittedEvent]:
    """What participants emit by themselves in a saga that is led."""
    events = {event.__contract__.type: EmittedEvent(event, "note") for event in saga.recorded}
    for step in saga.steps:
        if step.kind == "event" and step.signal is not None:
            events |= {
                each.__contract__.type: EmittedEvent(each, "step", step.name) for each in (step.signal, *step.unless)
            }
    return events


def _step(saga: DeclaredSaga[Any], step: DeclaredStep) -> StepDefinition:
    return StepDefinition(
        name=step.name,
        kind=step.kind,
        participant=step.command.__contract__.owner if step.command else COORDINATOR,
        after=tuple(earlier.name for earlier in step.after),
        dependents=tuple(later.name for later in saga.steps if step in later.after),
        visible=frozenset(earlier.name for earlier in ancestors(step)),
        do=_do(step),
        undo=_undo(saga, step),
        when=step.when,
        timeout_ns=_ns(step.timeout),
        elements_max=step.elements_max,
        is_pivot=step.is_pivot,
        is_retriable=is_past_pivot(step),
        is_kept=step.needs_no_compensation or is_past_pivot(step),
        signal=step.signal,
        unless=step.unless,
        reply=step.command.__reply__ if step.command else step.signal if step.kind == "event" else None,
        child=step.child.name if step.child else "",
    )


def _do(step: DeclaredStep) -> CommandTemplate | None:
    if step.make is None:
        return None
    shape = step.command or (step.child.start if step.child else None)
    assert shape is not None
    return CommandTemplate(shape.__contract__, shape, step.make, step.retry.encode())


def _undo(saga: DeclaredSaga[Any], step: DeclaredStep) -> CommandTemplate | None:
    if step.undo_command is None or step.undo_make is None:
        return None
    contract = step.undo_command.__contract__
    return CommandTemplate(
        contract, step.undo_command, step.undo_make, saga.compensation_retry.encode(), step.undo_takes
    )


def _answers(step: DeclaredStep) -> list[tuple[str, Expected]]:
    """All answers a step may get, each with its token in subjects."""
    if step.command is None:
        return []
    command, reply = step.command.__contract__, step.command.__reply__
    kinds: tuple[AnswerKind, ...] = ("refused", "exhausted", "superseded")
    owner = command.owner
    found = [(reply.__contract__.token, Expected(step.name, "do", "done", owner, reply.__contract__.type, reply))]
    found += [_plain(step.name, "do", command, kind, Refusal) for kind in kinds]
    found.append(_plain(step.name, "close", command, "closed", Closed))
    if step.undo_command is not None:
        undo = step.undo_command.__contract__
        found.append(_plain(step.name, "undo", undo, "done", Undone))
        found += [_plain(step.name, "undo", undo, kind, Refusal) for kind in kinds]
    if step.is_pivot:
        settle = settle_contract(command)
        found.append(_plain(step.name, "undo", command, "settled", Settled))
        found += [_plain(step.name, "undo", settle, kind, Refusal) for kind in ("exhausted", "superseded")]
    return found


def settle_contract(command: Contract) -> Contract:
    """What the question is called that finds out what became of a pivot's command."""
    return Contract(settle_name(command.name), command.version, command.owner)


def _plain(step: str, direction: Sending, contract: Contract, kind: AnswerKind, shape: Any) -> tuple[str, Expected]:
    expected = Expected(step, direction, kind, contract.owner, answer_type(contract, kind), shape)
    return dashed(answer_name(contract, kind)), expected


def _ns(duration: timedelta | None) -> int:
    return round(duration.total_seconds() * 1e9) if duration else 0


def _shape(saga: DeclaredSaga[Any]) -> str:
    """Twelve digits of a hash over everything that decides how a saga in flight goes on."""
    return _hashed(described(saga))


def _hashed(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def observed(saga: DeclaredChoreography[Any]) -> list[str]:
    """The shape of a choreography in words, a line for the saga and one for each event.

    Who reacts to an event is no part of it: that decides what is said of a saga that is late, and nothing else.
    """
    lines = [f"{saga.name} choreography start={saga.start.__contract__.type} deadline={saga.deadline}"]
    events = [_heard_in(saga, event) for event in (*saga.flow, *saga.ends) if event is not saga.start]
    return lines + sorted(f"{heard.shape.__contract__.type} {heard.means}" for heard in events)


def described(saga: DeclaredSaga[Any]) -> list[str]:
    """The shape in words, a line for the saga and one for each step.

    Times are part of it: a journal says that time was up and not how much time there was, so it must be read by the
    times it was written by. How often and how far apart something is tried is not.
    """
    locks = f" locks={saga.locks.__name__}" if saga.locks else ""
    lines = [f"{saga.name} start={saga.start.__contract__.type} deadline={saga.deadline}{locks}"]
    lines += [" ".join([step.name, step.kind, *_features(step)]) for step in saga.steps]
    return lines + [f"notes {event.__contract__.type}" for event in saga.recorded]


def _features(step: DeclaredStep) -> list[str]:
    features = [f"after={','.join(earlier.name for earlier in step.after)}"] if step.after else []
    if step.command is not None:
        features += [f"do={step.command.__contract__.type}", f"reply={step.command.__reply__.__contract__.type}"]
    if step.undo_command is not None:
        features.append(f"undo={step.undo_command.__contract__.type}")
    if step.when is not None:
        features.append(f"when={step.when.__name__}")
    if step.timeout is not None:
        features.append(f"timeout={step.timeout}")
    if step.signal is not None:
        features.append(f"signal={step.signal.__contract__.type}")
    if step.unless:
        features.append(f"unless={','.join(event.__contract__.type for event in step.unless)}")
    if step.child is not None:
        features.append(f"child={step.child.name}")
    if step.is_pivot:
        features.append("pivot")
    if step.kind == "child" and step.needs_no_compensation:
        features.append("kept")
    return features
