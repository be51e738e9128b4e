"""What a saga's journal obliges its coordinator to tell others: children, a parent, locks, and people. Pure.

Each is one message that can be stored once. A coordinator stores what an entry adds before it acks the fact, and
whoever gets the fact again stores all that the journal implies, so that a crash in between repeats and forgets nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from antiphon.contracts.envelope import Envelope, encode, pack, unpack_raw
from antiphon.contracts.identity import COORDINATOR, LOCK, SagaKey
from antiphon.contracts.payloads import (
    CANCEL_TYPE,
    CHILD_ENDED_TYPE,
    CHILD_START_TYPE,
    LET_GO_TYPE,
    LOCK_ASK_TYPE,
    LOCK_FREE_TYPE,
    CancelRequest,
    ChildStart,
    Empty,
    End,
)
from antiphon.contracts.subjects import (
    ask_subject,
    cancel_subject,
    child_subject,
    free_subject,
    release_subject,
    start_subject,
)

from ..definition.definition import StepDefinition
from .entries import child_key
from .history import History, StepRecord


class Notice(msgspec.Struct, frozen=True):
    """A message that others wait for."""

    subject: str
    type: str
    payload: msgspec.Struct

    def encode(self, time: datetime) -> bytes:
        """The message's bytes."""
        envelope = Envelope(id=self.subject, source=COORDINATOR, type=self.type, time=time, data=pack(self.payload))
        return encode(envelope)


def notices(history: History) -> dict[str, Notice]:
    """All that the journal implies so far, by subject. Nothing for a saga that has neither locks nor relatives."""
    definition = history.definition
    if not definition.children and history.parent is None and definition.locks is None:
        return {}
    found = [*_to_children(history), *_to_parent(history), *_to_locks(history)]
    return {tell.subject: tell for tell in found}


def _to_children(history: History) -> Iterator[Notice]:
    for name, definition in history.definition.steps.items():
        step = history.steps[name]
        if definition.kind == "child" and step.attempts:
            yield from _to_child(history, name, definition, step)


def _to_child(history: History, name: str, definition: StepDefinition, step: StepRecord) -> Iterator[Notice]:
    child = child_key(history.key, name, definition, step.attempts)
    if step.phase in ("sent", "undoing"):
        start = unpack_raw(step.command, ChildStart)
        yield Notice(start_subject(child, COORDINATOR), CHILD_START_TYPE, start)
    if step.phase == "undoing":
        yield Notice(cancel_subject(child, COORDINATOR), CANCEL_TYPE, CancelRequest(reason=history.turned))
    if step.phase == "done" and history.end is not None and not definition.is_kept:
        yield Notice(release_subject(child), LET_GO_TYPE, Empty())


def _to_parent(history: History) -> Iterator[Notice]:
    parent = history.parent
    if parent is None:
        return
    key = SagaKey.of(parent.type, parent.id)
    if history.held or (history.end is not None and history.end.outcome == "completed"):
        subject = child_subject(key, "completed", parent.step, parent.attempt)
        yield Notice(subject, CHILD_ENDED_TYPE, End(outcome="completed"))
    if history.end is not None and history.end.outcome == "compensated":
        yield Notice(child_subject(key, "compensated", parent.step, parent.attempt), CHILD_ENDED_TYPE, history.end)


def _to_locks(history: History) -> Iterator[Notice]:
    """Ask for one lock after the other; free them all at the end."""
    for key in history.asks:
        lock = SagaKey.of(LOCK, key)
        if history.end is not None:
            yield Notice(free_subject(lock, history.key), LOCK_FREE_TYPE, Empty())
        else:
            yield Notice(ask_subject(lock, history.key), LOCK_ASK_TYPE, Empty())
            if key not in history.granted:
                return
