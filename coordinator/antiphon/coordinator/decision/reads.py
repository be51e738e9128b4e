"""Which subjects of EVENTS are read of a saga: those at which its definition has something stand. Pure.

Never all that a source has written: then whoever may write there could make a saga unreadable by writing much. What a
journal names besides is read by its place in the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from antiphon.contracts.identity import COORDINATOR, LOCK, SagaKey
from antiphon.contracts.subjects import (
    cancel_subject,
    child_subject,
    event_filter,
    event_subject,
    granted_subject,
    release_subject,
    signal_subject,
    start_subjects,
)

from ..definition.definition import Definition, Expected
from ..definition.versions import Versions
from .history import History, StepRecord

EXPECTED_MAX: Final = 200
"""So many subjects are read together with a journal, in one request of some 20 kB."""

ATTEMPTS_READ: Final = 4
"""The answers to so many attempts at a step are looked for, the latest ones. Older ones are delivered, if they come."""


def expected_subjects(key: SagaKey, versions: Versions) -> list[str]:
    """Where the facts of a saga stand in which nothing is tried twice: read together with its journal, of which nothing
    is known then.

    Of a choreography these are filters, since its definition does not say what an event is a reaction to.
    """
    found = dict.fromkeys(start_subjects(key))
    for definition in versions.definitions:
        found |= dict.fromkeys(_expected(key, definition) if definition.is_led else _declared(key, definition))
    return list(found)[:EXPECTED_MAX]


def _expected(key: SagaKey, definition: Definition) -> Iterator[str]:
    for (name, token), answer in definition.answers.items():
        if answer.kind in ("done", "settled") and not definition.steps[name].elements_max:
            yield event_subject(key.path, answer.source, token, name, 1)
    for step in definition.steps.values():
        if step.kind == "child":
            yield child_subject(key, "completed", step.name, 1)
        elif step.kind == "signal":
            yield signal_subject(key, step.name)


def _declared(key: SagaKey, definition: Definition) -> Iterator[str]:
    for heard in definition.events.values():
        contract = heard.shape.__contract__
        yield event_filter(key, contract.owner, contract.token)


def is_heard_early(definition: Definition) -> bool:
    """Whether others may say something to a saga before it begins: what its steps wait for, rather than ask for."""
    return any(step.kind in ("signal", "event") for step in definition.steps.values())


def early_subjects(key: SagaKey, definition: Definition) -> list[str]:
    """Where that stands, and a wish to cancel."""
    found = [cancel_subject(key), cancel_subject(key, COORDINATOR)]
    found += [signal_subject(key, step.name) for step in definition.steps.values() if step.kind == "signal"]
    for heard in definition.events.values():
        if heard.step:
            contract = heard.shape.__contract__
            found.append(event_filter(key, contract.owner, contract.token))
    return found


def awaited_subjects(history: History) -> list[str]:
    """Where anything would stand that a saga which is led waits for now, whether or not it was delivered."""
    key = history.key
    found = early_subjects(key, history.definition)
    answers = _answers_by_step(history.definition)
    for name, step in history.steps.items():
        found += _answers_of(history, name, step, answers)
    found += [granted_subject(key, SagaKey.of(LOCK, lock)) for lock in history.asks if lock not in history.granted]
    if history.parent is not None:
        found.append(release_subject(key))
    return found


def _answers_by_step(definition: Definition) -> dict[str, list[tuple[str, Expected]]]:
    found: dict[str, list[tuple[str, Expected]]] = {}
    for (step, token), answer in definition.answers.items():
        found.setdefault(step, []).append((token, answer))
    return found


def _answers_of(
    history: History, name: str, step: StepRecord, answers: dict[str, list[tuple[str, Expected]]]
) -> Iterator[str]:
    """Where the answers stand that may still come to a step, or to an element of one."""
    key, definition = history.key, history.definition.step(name)
    if definition.kind == "child" and step.phase in ("sent", "undoing", "unknown"):
        for outcome in ("completed", "compensated"):
            yield child_subject(key, outcome, name, step.attempts)
    numbers = {
        "do": _latest(step.attempts) if step.phase in ("sent", "settling") else (),
        "undo": _latest(step.undo_attempts) if step.phase in ("undoing", "settling") else (),
        "close": (step.closing.number,) if step.closing is not None else (),
    }
    for token, answer in answers.get(definition.name, ()):
        for number in numbers[answer.direction]:
            yield event_subject(key.path, answer.source, token, name, number)


def _latest(attempts: int) -> range:
    return range(max(1, attempts - ATTEMPTS_READ + 1), attempts + 1)
