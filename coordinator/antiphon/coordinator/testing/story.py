"""What a scenario has gone through so far, in lines that a person reads when an expectation failed."""

from __future__ import annotations

from typing import assert_never

import msgspec

from antiphon.contracts.counting import counted
from antiphon.contracts.payloads import Record

from ..decision.facts import Action, Finish, Send, SendClose
from ..decision.history import History


class Said(msgspec.Struct, frozen=True):
    """Something a saga did: an entry of its journal, with the message in it if it is a command."""

    action: Action
    message: object = None

    def __str__(self) -> str:
        match self.action:
            case Send(step, direction, attempt):
                again = f", attempt {attempt}" if attempt > 1 else ""
                return f"{'sends' if direction == 'do' else 'compensates'} {step}{again}: {self.message!r}"
            case SendClose(step, number, _, close):
                again = f", for the {number}. time" if number > 1 else ""
                return f"asks the participant of {step} to close it as {close.form}{again}"
            case Record() as record:
                return recorded(record)
            case Finish(end):
                return f"ends {end.outcome}{': ' if end.reason else ''}{end.reason}"
            case _:
                assert_never(self.action)


def recorded(record: Record) -> str:
    """What an entry that sends no command says."""
    for is_so, sentence in (
        (record.rejected, f"rejects what {record.by} asks for: {record.rejected}"),
        (record.by, f"does what {record.by} asks for"),
        (record.fault, f"stands still: {record.fault}"),
        (record.skipped, f"skips {record.step}"),
        (record.awaits, f"waits for {record.step}"),
        (record.parked, f"waits for a person: {record.parked}"),
        (record.elements >= 0, f"makes {counted(record.elements, 'command')} of {record.step}"),
        (record.commands, f"makes commands of {record.step}, from {record.first} on"),
        (record.asks, f"asks for {', '.join(record.asks)}"),
        (record.turned, f"turns: {record.turned}"),
        (record.held, "has done all its steps, and waits for its parent"),
    ):
        if is_so:
            return sentence
    return "records it"


def as_it_stands(history: History) -> str:
    """Where all steps of a saga are, in one line."""
    steps = ", ".join(f"{name} {step.phase}" for name, step in history.steps.items())
    return f"{history.state}{': ' if history.turned else ''}{history.turned} ({steps})"
