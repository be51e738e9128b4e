"""What becomes of the spans of one step: its attempts in both directions, its compensation, its settlement. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from antiphon.contracts.clock import nanoseconds
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.messages import CloseForm, close_name, name_of, settle_name
from antiphon.contracts.reader import Entry, Fact
from antiphon.contracts.subjects import CommandAddress, Sending, commands_filter

from .ids import span_id, trace_id
from .spans import COORDINATOR_SERVICE, FOLLOWS_NS, Open, Span, SpanKind, Value

NOTHING: Final[Mapping[str, Value]] = {}
SYNTHESISED: Final[Mapping[str, Value]] = {"saga.synthesised": True}
QUEUED_NS: Final = 100_000_000
"""A message that waited for its handler for so long has a span for that, and so has one that was tried in vain."""
NO_ANSWER: Final = "no answer"
TRY_SPANS_MAX: Final = 1000
"""How many lost tries of one saga have spans. A participant says how many tries there were, and may say any number."""
CHILD_ROOT: Final = ("", "", 0, "saga")
"""What the span of a whole saga is hashed from, after the saga itself."""


class Attempt(msgspec.Struct):
    """A command that was sent, and its span: that of the queue while nobody has answered, and then the handler's."""

    span: Open
    is_question: bool
    """Whether what is asked is what became of the step's command."""
    sent_ns: int
    performed: str
    """What its span is called once a handler is known to have been called."""
    service: str
    """The participant's."""


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
        self.refused: tuple[int, str] | None = None
        """Of a list: when the first of its elements was refused, and why."""
        self.elements_done = 0


class Spans:
    """Makes spans of one saga and keeps those that are closed, in the order in which they became final."""

    def __init__(self, key: SagaKey) -> None:
        self.key, self.trace_id = key, trace_id(key)
        self.keys: dict[str, Value] = {}
        """What the saga is found by, for every span."""
        self.closed: list[Span] = []
        self.sequence = 0
        """The entry that is being read: whatever is closed now is closed by it."""
        self.last_reactions: dict[str, Open] = {}
        """The last span of each participant that has reacted to something."""
        self._followed: list[Open] = []
        """What followed from messages, each after that in which it lies."""
        self._tries_left = TRY_SPANS_MAX

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
        span.attributes = {"saga.type": self.key.type, "saga.id": self.key.id, **self.keys}
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
        """A command was sent: a publish that is over, and an attempt that waits for its handler."""
        direction, number = command.direction, command.attempt
        ident, name = (step.name, direction, number), name_of(entry.envelope.type)
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
            f"send {name}",
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
            "child saga" if is_child else f"queue {name}",
            sent_ns,
            "consumer",
            attributes={
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                **messaging,
                "saga.participant": "" if is_child else command.participant,
            },
        )
        attempt.link(self.trace_id, publish.span_id, "sent by")
        performed = "child saga" if is_child else _performed(entry.kind, name)
        service = COORDINATOR_SERVICE if is_child else command.participant
        is_question = entry.kind == "settle"
        step.attempts[direction, number] = Attempt(attempt, is_question, sent_ns, performed, service)

    def answered(self, attempt: Attempt, fact: Fact, kind: str, reason: str, at_ns: int) -> int:
        """An attempt has its answer: it lasts from its handler's last call to then. When it really ended."""
        span = attempt.span
        at_ns = max(at_ns, attempt.sent_ns)
        span.name, span.service = attempt.performed, attempt.service
        self._place(span, fact, attempt.sent_ns, at_ns)
        span.attributes["saga.answer"] = kind
        span.attributes["saga.answer.sequence"] = fact.sequence
        if kind in ("exhausted", "superseded", "doubt"):
            span.fail(f"{kind}: {reason}")
        elif reason:
            span.attributes["saga.reason"] = reason
        return self.close(span, at_ns)

    def _place(self, span: Open, fact: Fact, sent_ns: int, answered_ns: int) -> None:
        """Put what a handler did where its participant says that it was, as far as the server's clock allows: from the
        handler's last call to the answer. What was before that is the queue's.

        Args:
            span: the handler's.
            fact: what it answered, or said.
            sent_ns: when the message was stored that it worked on.
            answered_ns: when the answer was.
        """
        if fact.envelope.started is None:
            return
        started_ns, tries = nanoseconds(fact.envelope.started), fact.envelope.tries
        start_ns = min(max(started_ns, sent_ns + FOLLOWS_NS), answered_ns)
        if start_ns != started_ns:
            span.attributes["saga.clock.difference_ms"] = (started_ns - start_ns) / 1e6
        if tries > 1:
            span.attributes["saga.tries"] = tries
        span.attributes["saga.queue_ms"] = (start_ns - sent_ns) / 1e6
        if tries > 1 or start_ns - sent_ns >= QUEUED_NS:
            self._queue(span, sent_ns, start_ns, max(0, tries - 1))
        span.begin_at(start_ns)

    def _queue(self, span: Open, from_ns: int, to_ns: int, lost: int) -> None:
        """A message waited for the handler's last call.

        Of tries that came to nothing the journal knows only how many there were, so they are given equal parts of that
        time; of very many, as many as a saga has spans for.
        """
        shown = min(lost, self._tries_left)
        self._tries_left -= shown
        # Between what it follows and what follows it, where there is room for that.
        gap_ns = FOLLOWS_NS if to_ns - from_ns > 2 * FOLLOWS_NS else 0
        from_ns, to_ns = from_ns + gap_ns, to_ns - gap_ns
        step, direction, number = _ident(span)
        assert span.parent is not None
        sender = span.parent.service
        what = str(span.attributes["cloudevents.event_type"])
        waited = {"saga.participant": span.service, "cloudevents.event_type": what}
        queue = self.open(
            span.parent,
            (step, direction, number, "queue"),
            f"queue {name_of(what)}",
            from_ns,
            service=sender,
            attributes=waited,
        )
        width = max(0, to_ns - queue.start_ns) // max(1, shown)
        for index in range(shown):
            begun = queue.start_ns + index * width
            ident = (step, direction, number, f"try-{index + 1}")
            failed = self.open(
                queue, ident, f"try {name_of(what)}", begun, service=sender, attributes={**SYNTHESISED, **waited}
            )
            failed.fail("came to nothing")
            self.close(failed, begun + width)
        self.close(queue, to_ns)

    def stray(self, root: Open, fact: Fact, attempt: Attempt | None, direction: str, at_ns: int) -> Open:
        """An event that came when nothing waited for it any more, or that no command asked for."""
        address, envelope = fact.address, fact.envelope
        started_ns = nanoseconds(envelope.started) if envelope.started else at_ns
        ident = (address.step, direction, address.attempt, f"late-{address.event}")
        kind = "late answer" if attempt else "event"
        span = self.open(
            root,
            ident,
            f"{kind} {name_of(envelope.type)}",
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
        return span

    def reacted(self, fact: Fact, heard: Heard, reason: str, at_ns: int) -> Open:
        """A participant has reacted to an event: what it did lasts from its handler's last call to what it said.

        Args:
            fact: what the participant said.
            heard: what it reacted to.
            reason: why that turned the saga, if it did.
            at_ns: when it was said.
        """
        address, envelope = fact.address, fact.envelope
        span = self.open(
            self._after(heard, at_ns),
            (address.step, "", address.attempt, f"late-{address.event}"),
            f"on {heard.name}",
            min(heard.at_ns + FOLLOWS_NS, at_ns),
            "consumer",
            address.source,
            {
                "messaging.system": "nats",
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.message.conversation_id": str(self.key),
                "messaging.destination.name": heard.fact.subject,
                "cloudevents.event_type": heard.fact.envelope.type,
                "saga.event": envelope.type,
                "saga.answer.sequence": fact.sequence,
            },
        )
        if heard.span is not span.parent:  # of two references to one span Jaeger keeps the link alone, and no child
            span.link(self.trace_id, heard.span.span_id, "reacts to")
        self._place(span, fact, heard.at_ns, at_ns)
        if reason:
            span.fail(reason)
        self.close(span, at_ns)
        self.last_reactions[span.service] = span
        return span

    def _after(self, heard: Heard, at_ns: int) -> Open:
        """The span in which everything lies that followed from a message. Its service is the sender's, so that Jaeger's
        service graph, which goes by parents, has an edge from whoever said something to whoever reacted."""
        if heard.span.parent is None:
            return heard.span
        if heard.followed is None:
            address = heard.fact.address
            heard.followed = self.open(
                heard.within,
                (address.step, "", address.attempt, f"after-{address.event}"),
                f"after {heard.name}",
                min(heard.at_ns + FOLLOWS_NS, at_ns),
                service=heard.span.service,
                attributes={"cloudevents.event_type": heard.fact.envelope.type},
            )
            self._followed.append(heard.followed)
        return heard.followed

    def close_followed(self) -> None:
        """The saga has ended: what followed from a message lasted until the last of it ended."""
        for span in reversed(self._followed):
            self.close(span, span.latest_ns)


class Heard(msgspec.Struct):
    """A message of EVENTS that a participant may have reacted to."""

    fact: Fact
    span: Open
    """In which it came about."""
    within: Open
    """In which lies what follows from it."""
    at_ns: int
    followed: Open | None = None
    """What followed from it, once something has."""

    @property
    def name(self) -> str:
        """Its type without the version."""
        return name_of(self.fact.envelope.type)


def _performed(kind: str, name: str) -> str:
    """What the span of a handler is called, by what was asked of its participant: each verb can be searched alone."""
    match kind:
        case "settle":
            return f"settle {name.removesuffix(settle_name(''))}"
        case "close":
            return f"close {name.removesuffix(close_name(''))}"
        case _:
            return f"process {name}"


def _ident(span: Open) -> tuple[str, str, int]:
    attributes = span.attributes
    return str(attributes["saga.step"]), str(attributes.get("saga.direction", "")), int(attributes["saga.attempt"])
