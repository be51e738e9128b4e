"""What becomes of the spans of one step: its attempts in both directions, its compensation, its settlement. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from antiphon.contracts.clock import nanoseconds
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.messages import CloseForm, name_of
from antiphon.contracts.reader import Entry, Fact
from antiphon.contracts.subjects import CommandAddress, Sending, commands_filter

from .ids import span_id, trace_id
from .spans import COORDINATOR_SERVICE, Open, Span, SpanKind, Value

NOTHING: Final[Mapping[str, Value]] = {}
SYNTHESISED: Final[Mapping[str, Value]] = {"saga.synthesised": True}
NO_ANSWER: Final = "no answer"
CHILD_ROOT: Final = ("", "", 0, "saga")
"""What the span of a whole saga is hashed from, after the saga itself."""


class Attempt(msgspec.Struct):
    """A command that was sent, and its span, which is open while nobody has answered it."""

    span: Open
    is_question: bool
    """Whether what is asked is what became of the step's command."""
    sent_ns: int


class Step:
    """The spans of a step, or of an element of one, that are not closed yet, and what is known of it."""

    def __init__(self, span: Open, name: str, parent: Step | None = None) -> None:
        self.span, self.name, self.parent = span, name, parent
        self.is_over = False
        self.attempts: dict[tuple[Sending, int], Attempt] = {}
        self.closes: dict[int, tuple[CloseForm, Open]] = {}
        """The closes that are not answered, by their number: as what, and the operator's request."""
        self.is_retriable = False
        self.undo: Open | None = None
        self.settlement: Open | None = None
        self.lost: tuple[int, str] | None = None
        """When and why its outcome became unknown, until the journal shows what followed from that."""
        self.due_ns = 0
        """When it will have been waited for long enough; 0 if there is no such time."""
        self.signal = ""
        self.waits = False
        self.elements = -1
        self.elements_done = 0


class Spans:
    """Makes spans of one saga and keeps those that are closed, in the order in which they became final."""

    def __init__(self, key: SagaKey) -> None:
        self.key, self.trace_id = key, trace_id(key)
        self.closed: list[Span] = []
        self.sequence = 0
        """The entry that is being read: whatever is closed now is closed by it."""

    def open(
        self,
        parent: Open | None,
        ident: tuple[str, str, int, str],
        name: str,
        start_ns: int,
        kind: SpanKind = "internal",
        service: str = COORDINATOR_SERVICE,
        attributes: Mapping[str, Value] = NOTHING,
    ) -> Open:
        """Begin a span; `ident` is its step, direction, attempt and kind, as for `span_id`."""
        span = Open(self.trace_id, span_id(self.key, *ident), name, kind, service, start_ns, parent)
        step, direction, attempt, _ = ident
        span.attributes = {"saga.type": self.key.type, "saga.id": self.key.id}
        mine: dict[str, Value] = {"saga.step": step, "saga.direction": direction, "saga.attempt": attempt}
        span.attributes |= {name: value for name, value in {**mine, **attributes}.items() if value not in ("", 0)}
        return span

    def close(self, span: Open, at_ns: int) -> int:
        """End a span and all that is still open in it; attempts among that have had no answer. When it really ended."""
        for child in list(span.children):
            if child.kind == "consumer":
                child.attributes["saga.lost"] = True
                child.fail(NO_ANSWER)
            self.close(child, max(at_ns, span.latest_ns))
        closed = span.closed(at_ns, self.sequence)
        self.closed.append(closed)
        return closed.end_ns

    # --- commands and answers -----------------------------------------------------------------------------------------

    def send(self, step: Step, parent: Open, entry: Entry, command: CommandAddress, cause_ns: int, at_ns: int) -> None:
        """A command was sent: a publish that is over, and an attempt that begins."""
        direction, number = command.direction, command.attempt
        ident = (step.name, direction, number)
        messaging: dict[str, Value] = {
            "messaging.system": "nats",
            "messaging.destination.name": entry.subject,
            "messaging.destination.template": commands_filter(command.participant, direction),
            "messaging.message.conversation_id": str(self.key),
            "cloudevents.event_type": entry.envelope.type,
        }
        publish = self.open(
            parent,
            (*ident, "publish"),
            f"send {command.participant}",
            cause_ns,
            "producer",
            attributes={
                "messaging.operation.type": "send",
                "messaging.operation.name": "publish",
                **messaging,
                "saga.sequence": entry.sequence,
            },
        )
        sent_ns = self.close(publish, at_ns)
        is_child = command.participant == COORDINATOR
        attempt = self.open(
            parent,
            (*ident, "attempt"),
            "child saga" if is_child else f"process {command.participant}",
            sent_ns,
            "consumer",
            COORDINATOR_SERVICE if is_child else command.participant,
            {"messaging.operation.type": "process", "messaging.operation.name": "process", **messaging},
        )
        attempt.link(self.trace_id, publish.span_id, "sent by")
        step.attempts[direction, number] = Attempt(attempt, entry.kind == "settle", sent_ns)

    def answered(self, attempt: Attempt, fact: Fact, kind: str, reason: str, at_ns: int) -> int:
        """An attempt has its answer: it lasts from its handler's first call to then. When it really ended."""
        span = attempt.span
        envelope = fact.envelope
        at_ns = max(at_ns, attempt.sent_ns)
        if envelope.started is not None:
            self._place(attempt, nanoseconds(envelope.started), envelope.tries, at_ns, kind)
        span.attributes["saga.answer"] = kind
        span.attributes["saga.answer.sequence"] = fact.sequence
        if kind in ("exhausted", "superseded", "doubt"):
            span.fail(f"{kind}: {reason}")
        elif reason:
            span.attributes["saga.reason"] = reason
        return self.close(span, at_ns)

    def _place(self, attempt: Attempt, started_ns: int, tries: int, answered_ns: int, kind: str) -> None:
        """Put an attempt where its participant says that it was, as far as the server's clock allows.

        Of tries that came to nothing the journal knows only how many there were, so they are given equal parts of the
        time from the command to the last try's start. With any of them the attempt begins with the command.
        """
        span = attempt.span
        start_ns = min(max(started_ns, attempt.sent_ns), answered_ns)
        if start_ns != started_ns:
            span.attributes["saga.clock.difference_ms"] = (started_ns - start_ns) / 1e6
        lost = max(0, tries - 1)
        if lost:
            span.attributes["saga.tries"] = tries
            _, direction, number = _ident(span)
            step = str(span.attributes["saga.step"])
            width = (start_ns - attempt.sent_ns) // lost
            for index in range(lost):
                begun = attempt.sent_ns + index * width
                ident = (step, direction, number, f"try-{index + 1}")
                failed = self.open(span, ident, span.name, begun, "internal", span.service, SYNTHESISED)
                failed.fail("came to nothing")
                self.close(failed, begun + width)
        else:
            span.attributes["saga.queue_ms"] = (start_ns - attempt.sent_ns) / 1e6
            span.begin_at(start_ns)

    def stray(self, root: Open, fact: Fact, attempt: Attempt | None, direction: str, at_ns: int) -> None:
        """An event that came when nothing waited for it any more, or that no command asked for."""
        address, envelope = fact.address, fact.envelope
        started_ns = nanoseconds(envelope.started) if envelope.started else at_ns
        ident = (address.step, direction, address.attempt, f"late-{address.event}")
        name = f"late answer {address.source}" if attempt else f"event {name_of(envelope.type)}"
        span = self.open(
            root,
            ident,
            name,
            min(started_ns, at_ns),
            "consumer",
            address.source,
            {
                "messaging.system": "nats",
                "messaging.operation.type": "process",
                "cloudevents.event_type": envelope.type,
                "saga.late": attempt is not None,
            },
        )
        span.attributes["saga.answer.sequence"] = fact.sequence
        if attempt is not None:
            span.link(self.trace_id, attempt.span.span_id, "answers")
        self.close(span, at_ns)


def _ident(span: Open) -> tuple[str, str, int]:
    attributes = span.attributes
    return str(attributes["saga.step"]), str(attributes["saga.direction"]), int(attributes["saga.attempt"])
