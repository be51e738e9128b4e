"""The trace of a saga as a function of its journal: `project(key, entries, events)`. Pure.

The journal is read entry by entry. Every span is closed by the entry that shows its end, and is never touched again, so
the spans that a longer journal gives begin with those that a shorter one gave, to the byte.

A saga's time is that of the server, and it never runs backwards: an entry stands no earlier than the one before it, and
a fact no later than the entry that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import msgspec

from antiphon.contracts.bounds import digits_of
from antiphon.contracts.clock import duration_ns
from antiphon.contracts.envelope import decode, unpack, unpack_raw
from antiphon.contracts.errors import BadIdentity, Unusable
from antiphon.contracts.identity import LOCK, SagaKey
from antiphon.contracts.messages import Verdict, ends_step, name_of
from antiphon.contracts.payloads import (
    CANCEL_TYPE,
    CHILD_START_TYPE,
    CancelRequest,
    ChildStart,
    End,
    Operation,
    Parent,
    Record,
)
from antiphon.contracts.reader import Entry, Fact, Journal, cause_ns
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import VERBS, CommandAddress, Sending

from .ids import span_id, trace_id
from .sampling import decision_in
from .span_builder import CHILD_ROOT, Attempt, Heard, Spans, Step
from .spans import COORDINATOR_SERVICE, FOLLOWS_NS, Open, Span

KEY_ATTRIBUTE: Final = "saga.key"
"""Below it stands what a saga is found by, a name for each."""


class Projection(msgspec.Struct, frozen=True):
    """The spans of one saga, as far as its messages tell."""

    key: SagaKey
    spans: tuple[Span, ...] = ()
    """Those that are final, in the order in which they became so; of an ended saga all, the root last."""
    open: tuple[Span, ...] = ()
    """Those that are not, as they look at the last entry, each after its parent."""
    read_to: int = 0
    """The last entry that was read, by its sequence."""
    lacks: int = 0
    """The fact that the next entry names and that was not among the messages, by its sequence; 0 if none lacks."""
    outcome: str = ""
    """Completed or compensated; empty while it runs."""
    turned: bool = False
    """Whether it goes, or went, backward."""
    retries: int = 0
    was_parked: bool = False
    sampled: bool | None = None
    """Whether the trace is sampled, as the first command says; None before it."""
    sampled_by: int = 0
    """The sequence of that command."""

    @property
    def duration_ns(self) -> int:
        """How long an ended saga took."""
        return self.spans[-1].end_ns - self.spans[-1].start_ns if self.outcome else 0


def project(key: SagaKey, entries: Iterable[StoredMessage], events: Iterable[StoredMessage]) -> Projection:
    """The trace of a saga.

    Args:
        key: the saga.
        entries: its journal, or the beginning of it, in stream order.
        events: its messages in EVENTS, in any order; those that the journal does not name are not looked at.

    Raises:
        Unusable: a journal entry cannot be read. A fact that it names and that cannot be read is an event of the root.
    """
    found = {message.sequence: message for message in events}
    saga, journal = _Saga(key), Journal()
    for message in entries:
        entry = journal.entry(message)
        cause = saga.new_fact(entry)
        if cause and cause not in found:
            return saga.projection(cause)
        saga.take(journal, entry, found[cause] if cause else None)
    return saga.projection(0)


def exportable(projection: Projection, sequences: Iterable[int]) -> list[Span]:
    """The spans that became final with the given entries."""
    wanted = frozenset(sequences)
    return [span for span in projection.spans if span.closed_by in wanted]


class _Saga:
    """The state of reading one journal."""

    def __init__(self, key: SagaKey) -> None:
        self.key = key
        self.spans = Spans(key)
        self.root: Open = Open("", "", "", "internal", "", 0, None)
        self.steps: dict[str, Step] = {}
        self.named: set[int] = set()
        self.now_ns = 0
        """When the last entry was stored, or a little later."""
        self.told_ns = 0
        """The latest time that a fact or a timer told of, which is what the coordinator counts timeouts from."""
        self.turned = False
        self.heard: dict[int, Heard] = {}
        """What participants may have reacted to, by its sequence in EVENTS."""
        self.commanded: set[str] = set()
        """The participants that commands were sent to."""
        self.said: set[str] = set()
        """The types of what participants said by themselves."""
        self.locks: list[str] = []
        self.lock: Open | None = None
        self.paused: Open | None = None
        self.outcome = ""
        self.retries = self.entries = 0
        self.was_parked = False
        self.sampled: bool | None = None
        self.sampled_by = 0

    def projection(self, lacks: int) -> Projection:
        """What was found so far."""
        pictures = tuple(_pictures(self.root, self.now_ns)) if self.entries and not self.outcome else ()
        return Projection(
            self.key,
            tuple(self.spans.closed),
            pictures,
            self.spans.sequence,
            lacks,
            self.outcome,
            self.turned,
            self.retries,
            self.was_parked,
            self.sampled,
            self.sampled_by,
        )

    def new_fact(self, entry: Entry) -> int:
        """The fact that an entry is the first to name; 0 if there is none."""
        return 0 if entry.cause_sequence in self.named else entry.cause_sequence

    def take(self, journal: Journal, entry: Entry, message: StoredMessage | None) -> None:
        """Read one entry, with the message of the fact that it names first."""
        self.spans.sequence = entry.sequence
        self.now_ns = max(self.now_ns, entry.at_ns)
        due_ns = cause_ns(entry.envelope.cause)
        at_ns = self._cause_ns(due_ns, message)
        if entry.envelope.keys:
            self.spans.keys |= {f"{KEY_ATTRIBUTE}.{name}": value for name, value in entry.envelope.keys.items()}
            self.root.attributes |= self.spans.keys
        if not self.entries:
            self._begin(entry, message, at_ns)
        self.entries += 1
        if message is not None:
            self.named.add(message.sequence)
            self._hear(journal, message, entry, at_ns)
        elif due_ns is not None:
            self._tick(due_ns, at_ns)
        if entry.command is not None:
            self._sent(entry, entry.command, at_ns)
        elif entry.record is not None:
            self._recorded(entry, entry.record, at_ns)
        elif entry.end is not None:
            self._end(entry.end, at_ns)

    def _cause_ns(self, due_ns: int | None, message: StoredMessage | None) -> int:
        """When that happened which an entry is about: the fact that it names, or the time that had come."""
        if message is not None:
            self.told_ns = max(self.told_ns, message.stored_ns)
            at_ns = message.stored_ns
        else:
            at_ns = self.now_ns if due_ns is None else due_ns
        return max(self.root.start_ns, min(at_ns, self.now_ns))

    def _begin(self, entry: Entry, message: StoredMessage | None, at_ns: int) -> None:
        self.root = self.spans.open(None, CHILD_ROOT, f"saga {self.key.type}", at_ns)
        self.root.attributes["saga.definition"] = entry.envelope.definition
        self.root.attributes["messaging.message.conversation_id"] = str(self.key)
        parent = _parent_of(message)
        if parent is not None:
            key, step = parent
            self.root.attributes["saga.parent"] = str(key)
            self.root.link(trace_id(key), span_id(key, step.step, "do", step.attempt, "attempt"), "started by")
        started = self.spans.open(self.root, ("", "", 0, "started"), "saga started", at_ns)
        self.spans.close(started, self.now_ns)

    # --- what became known --------------------------------------------------------------------------------------------

    def _hear(self, journal: Journal, message: StoredMessage, entry: Entry, at_ns: int) -> None:
        """Learn from a fact. One that cannot be read is told of as such, and the rest of the journal goes on."""
        try:
            self._learn(journal.fact(message), entry, at_ns)
        except Unusable:
            self.root.event("unreadable", at_ns, subject=message.subject)

    def _learn(self, fact: Fact, entry: Entry, at_ns: int) -> None:
        address = fact.address
        self._note(fact, self.root, self.root, at_ns)
        match address.source, address.event:
            case (("client" | "coordinator"), "start"):
                pass
            case (("client" | "coordinator"), "cancel"):
                reason = unpack(fact.envelope, CANCEL_TYPE, CancelRequest).reason
                self.root.event("cancel asked", at_ns, by=address.source, reason=reason)
            case "client", "signal":
                self._signalled(fact, at_ns)
            case "coordinator", "granted" if address.key[0] == LOCK:
                self._granted(at_ns)
            case "coordinator", ("child-completed" | "child-compensated" as event):
                self._child_ended(fact, event.removeprefix("child-"), at_ns)
            case "coordinator", event:
                self.root.event(event, at_ns)
            case "operator", _ if entry.kind == "close":
                pass  # the close itself begins what the operator waits for
            case "operator", verb if verb in VERBS:
                self._operated(fact, entry.record or Record(), at_ns)
            case _ if fact.kind == "closed":
                self._closed(fact, entry.record or Record(), at_ns)
            case _ if fact.kind == "event":
                self._said_by_itself(fact, entry.record or Record(), at_ns)
            case _:
                self._answered(fact, at_ns)

    def _note(self, fact: Fact, span: Open, within: Open, at_ns: int) -> None:
        """Whoever reacts to this is linked to the span in which it came about, and lies in that of what followed."""
        self.heard[fact.sequence] = Heard(fact, span, within, at_ns)

    def _said_by_itself(self, fact: Fact, record: Record, at_ns: int) -> None:
        """A participant said something that nobody had commanded: by itself, or on what it heard."""
        reacts = fact.envelope.reacts
        heard = self.heard.get(digits_of(reacts) or 0)
        if heard is None:
            self._stray(fact, None, "", at_ns)
        else:
            has_more = record.turned and fact.reason and fact.reason not in record.turned
            reason = f"{record.turned}: {fact.reason}" if has_more else record.turned
            span = self.spans.reacted(fact, heard, reason, at_ns)
            self._note(fact, span, span.parent or self.root, at_ns)
        self.said.add(fact.envelope.type)
        for step in self.steps.values():
            if step.waits and step.signal == fact.envelope.type and not step.is_over:
                step.span.event("event", at_ns, type=fact.envelope.type)
                self._over(step, "done", "", at_ns)

    def _answered(self, fact: Fact, at_ns: int) -> None:
        """A participant said something: an answer to an attempt, or something that nobody waits for any more."""
        step, answers = self.steps.get(fact.address.step), fact.answers
        attempt = step.attempts.get((answers.direction, answers.attempt)) if step and answers else None
        if step is None or answers is None or attempt is None:
            self._stray(fact, None, "", at_ns)
        else:
            self._settle_attempt(step, attempt, fact, answers.direction, at_ns)

    def _stray(self, fact: Fact, attempt: Attempt | None, direction: str, at_ns: int) -> None:
        self._note(fact, self.spans.stray(self.root, fact, attempt, direction, at_ns), self.root, at_ns)

    def _settle_attempt(self, step: Step, attempt: Attempt, fact: Fact, direction: Sending, at_ns: int) -> None:
        kind = "done" if fact.kind == "undone" else fact.kind
        reason = "" if kind in ("done", "settled") else fact.reason
        if attempt.span.is_closed:  # a second answer; while the step is not over, it counts all the same
            self._stray(fact, attempt, direction, at_ns)
            ended_ns = at_ns
        else:
            ended_ns = self.spans.answered(attempt, fact, kind, reason, at_ns)
            self._note(fact, attempt.span, self.root, at_ns)
        if direction == "do":
            self._did(step, kind, reason, ended_ns)
        elif attempt.is_question:
            if step.settlement is None or step.settlement.is_closed:
                return  # the command's own answer came first
            self._settled(step, step.settlement, kind, fact.has_happened, reason, ended_ns)
        elif step.undo is not None and not step.undo.is_closed:
            self._undid(step.undo, kind, reason, ended_ns)

    def _did(self, step: Step, kind: str, reason: str, at_ns: int) -> None:
        if step.is_over or step.lost:
            return
        match kind:
            case "done":
                self._over(step, "done", "", at_ns)
            case "refused" | "exhausted" if step.is_retriable:
                step.span.event(f"attempt {kind}", at_ns, reason=reason)
                step.due_ns = 0
            case "refused":
                self._over(step, "refused", reason, at_ns)
            case "exhausted":
                step.lost, step.due_ns = (at_ns, reason), 0
            case _:
                pass

    def _undid(self, span: Open, kind: str, reason: str, at_ns: int) -> None:
        if kind == "done":
            span.attributes["saga.outcome"] = "undone"
            self.spans.close(span, at_ns)
        else:
            span.event(f"attempt {kind}", at_ns, reason=reason)

    def _settled(self, step: Step, span: Open, kind: str, happened: bool, reason: str, at_ns: int) -> None:
        if kind != "settled":
            span.event(f"attempt {kind}", at_ns, reason=reason)
            return
        span.attributes["saga.happened"] = happened
        at_ns = self.spans.close(span, at_ns)
        step.settlement = None
        self._over(step, "done" if happened else "refused", "" if happened else "it never happened", at_ns)

    def _over(self, step: Step, outcome: str, reason: str, at_ns: int) -> None:
        """A step has its outcome."""
        if step.is_over or step.span.is_closed:
            return
        step.is_over, step.due_ns, step.lost = True, 0, None
        step.span.attributes["saga.outcome"] = outcome
        if reason:
            step.span.attributes["saga.reason"] = reason
        if outcome in ("refused", "unknown"):
            step.span.fail(f"{outcome}: {reason}" if reason else outcome)
        at_ns = self.spans.close(step.span, at_ns)
        parent = step.parent
        if parent is None:
            return
        if outcome == "refused":
            parent.refused = parent.refused or (at_ns, f"{step.name}: {reason}" if reason else step.name)
        elif outcome == "done":
            parent.elements_done += 1
            if parent.elements_done == parent.elements:
                self._over(parent, "done", "", at_ns)

    def _signalled(self, fact: Fact, at_ns: int) -> None:
        step = self.steps.get(fact.address.step)
        if step is None or step.is_over:
            self.root.event("signal", at_ns, step=fact.address.step, type=fact.envelope.type)
        else:
            step.span.event("signal", at_ns, type=fact.envelope.type)
            self._over(step, "done", "", at_ns)

    def _granted(self, at_ns: int) -> None:
        if self.lock is not None:
            self.spans.close(self.lock, at_ns)
        self._ask_next(at_ns)

    def _child_ended(self, fact: Fact, outcome: str, at_ns: int) -> None:
        step = self.steps.get(fact.address.step)
        attempt = step.attempts.get(("do", fact.address.attempt)) if step else None
        if step is None or attempt is None:
            self.root.event(f"child {outcome}", at_ns, step=fact.address.step)
            return
        if step.undo is not None and not step.undo.is_closed and outcome == "compensated":
            for (direction, _), each in step.attempts.items():
                if direction == "undo" and not each.span.is_closed:
                    at_ns = self.spans.answered(each, fact, "done", "", at_ns)
            self._undid(step.undo, "done", "", at_ns)
        elif not attempt.span.is_closed and not step.is_over:
            reason = unpack_raw(fact.envelope.data, End).reason
            kind = "done" if outcome == "completed" else "refused"
            at_ns = self.spans.answered(attempt, fact, kind, reason, at_ns)
            self._did(step, kind, reason and f"the saga it started was compensated: {reason}", at_ns)
        else:
            self.root.event(f"child {outcome}", at_ns, step=step.name)

    def _operated(self, fact: Fact, record: Record, at_ns: int) -> None:
        verb = fact.address.event
        operation = unpack_raw(fact.envelope.data, Operation)
        ident = ("", "", self.entries, f"operator-{verb}")
        span = self.spans.open(self.root, ident, f"operator {verb}", at_ns)
        said = {"saga.operator": record.by, "saga.reason": operation.reason, "saga.step": operation.step}
        span.attributes |= {name: value for name, value in said.items() if value}
        if record.rejected:
            span.fail(f"rejected: {record.rejected}")
        self.spans.close(span, self.now_ns)
        if not record.rejected:
            self._apply_request(verb, operation, at_ns)

    def _apply_request(self, verb: str, operation: Operation, at_ns: int) -> None:
        match verb:
            case "pause" if self.paused is None:
                self.paused = self.spans.open(self.root, ("", "", self.entries, "paused"), "paused", at_ns)
                self.paused.attributes["saga.reason"] = operation.reason
            case "resume" if self.paused is not None:
                self.spans.close(self.paused, at_ns)
                self.paused = None
            case "resolve" if operation.step in self.steps:
                self._resolve(self.steps[operation.step], operation.happened is not False, at_ns)
            case _:
                pass

    def _ask_to_close(self, entry: Entry, command: CommandAddress, step: Step, cause_ns: int) -> None:
        """An operator's request was sent on to the step's participant, and lasts until that has answered."""
        close = entry.close
        ident = (step.name, "close", command.attempt, "operator-resolve")
        span = self.spans.open(self.root, ident, "operator resolve", cause_ns)
        span.attributes |= {"saga.operator": close.user, "saga.reason": close.reason}
        if close.claim:
            span.attributes["saga.claim"] = close.claim
        self.spans.send(step, span, entry, command, cause_ns, self.now_ns)
        step.closes[command.attempt] = close.form, span

    def _closed(self, fact: Fact, record: Record, at_ns: int) -> None:
        """A participant has answered a close: the operator's word counts, or what the participant did."""
        step, number = self.steps.get(fact.address.step), fact.address.attempt
        if step is None or number not in step.closes or not record.by:
            self._stray(fact, None, "close", at_ns)
            return
        (form, span), closed, attempt = step.closes.pop(number), fact.closed, step.attempts["close", number]
        at_ns = self.spans.answered(attempt, fact, closed.verdict, closed.reason, at_ns)
        if record.rejected:
            span.fail(f"rejected: {record.rejected}")
        self.spans.close(span, max(at_ns, self.now_ns))
        goes_back = step.undo is not None or self.turned
        if not ends_step(form, closed.verdict, goes_back):
            return
        if closed.verdict == "closed":
            self._resolve(step, form != "never", at_ns)
        elif goes_back:
            if step.undo is not None and not step.undo.is_closed:
                self._undid(step.undo, "done", "", at_ns)
        else:
            self._found(step, closed.verdict, closed.reason, at_ns)

    def _found(self, step: Step, verdict: Verdict, reason: str, at_ns: int) -> None:
        """What had become of a command, by the participant's word on a close."""
        if step.is_over:
            return
        if step.settlement is not None:
            at_ns = self.spans.close(step.settlement, at_ns)
            step.settlement = None
        match verdict:
            case "done":
                self._over(step, "done", "", at_ns)
            case "refused":
                self._over(step, "refused", reason, at_ns)
            case _:
                self._over(step, "refused", "it never happened", at_ns)

    def _resolve(self, step: Step, happened: bool, at_ns: int) -> None:
        """A person said what became of a step that could not be brought to an end otherwise."""
        if step.undo is not None and not step.undo.is_closed:
            step.undo.attributes["saga.resolved"] = True
            self._undid(step.undo, "done", "", at_ns)
        elif not step.is_over:
            step.span.attributes["saga.resolved"] = True
            if step.settlement is not None:
                at_ns = self.spans.close(step.settlement, at_ns)
                step.settlement = None
            self._over(step, "done" if happened else "refused", "" if happened else "it never happened", at_ns)

    def _tick(self, due_ns: int, at_ns: int) -> None:
        """Time has come: for some that is what they waited for, for others it is too late."""
        self.told_ns = max(self.told_ns, due_ns)
        for step in self.steps.values():
            if not 0 < step.due_ns <= self.told_ns or step.is_over:
                continue
            step.due_ns = 0
            if step.waits and not step.signal:
                self._over(step, "done", "", at_ns)
            elif step.waits:
                self._over(step, "refused", "it did not come in time", at_ns)
            else:
                step.span.event("timed out", at_ns)
                if not step.is_retriable:
                    step.lost = (at_ns, "no answer in time")

    # --- what was done about it ---------------------------------------------------------------------------------------

    def _sent(self, entry: Entry, command: CommandAddress, cause_ns: int) -> None:
        if self.sampled is None:
            self.sampled, self.sampled_by = decision_in(entry.envelope.traceparent), entry.sequence
        step = self.steps.get(command.step) or self._step(command.step, cause_ns)
        self.commanded.add(command.participant)
        if entry.kind == "close":
            self._ask_to_close(entry, command, step, cause_ns)
            return
        if command.attempt > 1:
            self.retries += 1
        if command.direction == "do":
            step.is_retriable = entry.envelope.retriable
            step.lost, step.due_ns = None, self._due_ns(entry)
            parent = step.span
            if command.attempt > 1:
                parent.event("retry", self.now_ns, attempt=command.attempt)
        elif entry.kind == "settle" and not step.is_over:
            parent = self._settlement(step, cause_ns)
        else:
            self._turn(cause_ns)
            parent = self._compensation(step, cause_ns)
        self.spans.send(step, parent, entry, command, cause_ns, self.now_ns)
        if entry.envelope.type == CHILD_START_TYPE:
            _link_child(step.attempts["do", command.attempt].span, entry)

    def _step(self, name: str, start_ns: int) -> Step:
        """Begin a step; an element of a list lies in the list's."""
        token, _, number = name.rpartition("-")
        place = digits_of(number)
        whole = self.steps.get(token) if place is not None else None
        parent = whole.span if whole is not None and not whole.is_over else self.root
        title = f"{token} element" if whole else name
        span = self.spans.open(parent, (name, "do", 0, "step"), title, self._after(start_ns))
        if whole is not None and place is not None:
            span.attributes["saga.element"] = place
        step = self.steps[name] = Step(span, name, whole)
        return step

    def _after(self, at_ns: int) -> int:
        """When something begins that follows from what was at a time: a little later, as Jaeger's page wants it."""
        return max(at_ns, min(at_ns + FOLLOWS_NS, self.now_ns))

    def _settlement(self, step: Step, cause_ns: int) -> Open:
        if step.settlement is None:
            reason = step.lost[1] if step.lost else ""
            step.lost, step.due_ns = None, 0
            ident = (step.name, "undo", 0, "settle")
            step.settlement = self.spans.open(step.span, ident, f"settle {step.name}", self._after(cause_ns))
            step.span.event("outcome unknown", cause_ns, reason=reason)
        return step.settlement

    def _compensation(self, step: Step, cause_ns: int) -> Open:
        if step.undo is None:
            ident = (step.name, "undo", 0, "undo")
            step.undo = self.spans.open(self.root, ident, f"undo {step.span.name}", self._after(cause_ns))
            if "saga.element" in step.span.attributes:
                step.undo.attributes["saga.element"] = step.span.attributes["saga.element"]
            step.undo.link(self.spans.trace_id, step.span.span_id, "undoes")
        elif not step.undo.is_closed:
            step.undo.event("retry", self.now_ns)
        return step.undo

    def _due_ns(self, entry: Entry) -> int:
        """As the coordinator counts it: from the entry, and never from before the latest time the server told."""
        within_ns = duration_ns(entry.envelope.within)
        return max(entry.time_ns, self.told_ns) + within_ns if within_ns else 0

    def _recorded(self, entry: Entry, record: Record, cause_ns: int) -> None:
        if record.fault:
            self._park("", record.fault)
        elif record.parked:
            self._park(record.step, record.parked)
        elif record.asks:
            self.locks = list(record.asks)
            self._ask_next(cause_ns)
        elif record.skipped:
            self.root.event("skipped", self.now_ns, step=record.step)
        elif record.held:
            self.root.event("waits for its parent", self.now_ns)
        elif record.awaits:
            self._await(entry, record.step, cause_ns)
        elif record.elements >= 0:
            step = self._step(record.step, cause_ns)
            step.elements = record.elements
            step.span.attributes["saga.elements"] = record.elements
            if not record.elements:
                self._over(step, "done", "", self.now_ns)

    def _await(self, entry: Entry, name: str, cause_ns: int) -> None:
        step = self._step(name, cause_ns)
        step.waits, step.signal, step.due_ns = True, entry.envelope.awaits, self._due_ns(entry)
        step.span.attributes["saga.awaits"] = entry.envelope.awaits or "time"
        what = name_of(step.signal) if step.signal else "time"
        self.spans.open(step.span, (name, "do", 0, "wait"), f"wait for {what}", step.span.start_ns)
        is_signalled = any(e.name == "signal" and e.attributes["saga.step"] == name for e in self.root.events)
        if step.signal and (is_signalled or step.signal in self.said):
            self._over(step, "done", "", self.now_ns)  # it came before it was waited for

    def _ask_next(self, at_ns: int) -> None:
        self.lock = None
        if self.locks:
            key = self.locks.pop(0)
            self.lock = self.spans.open(self.root, ("", "", 0, f"lock-{key}"), "wait for lock", self._after(at_ns))
            self.lock.attributes["saga.lock"] = key

    def _park(self, step: str, reason: str) -> None:
        """A person is needed: that is worth a span at once, long before what it is about comes to an end."""
        self.was_parked = True
        ident = (step, "", self.entries, "parked")
        span = self.spans.open(self.root, ident, "parked", self.now_ns)
        span.attributes["saga.reason"] = reason
        span.fail(reason)
        self.spans.close(span, self.now_ns)
        self.root.event("parked", self.now_ns, step=step, reason=reason)

    def _turn(self, at_ns: int) -> None:
        """The saga is seen to go backward: what was in flight has no known outcome from here on."""
        if self.turned:
            return
        self.turned = True
        self.root.event("turned", at_ns)
        # Elements before their lists, so that a list is closed when its elements are.
        for step in sorted(self.steps.values(), key=lambda step: step.parent is None):
            if step.is_over:
                continue
            if step.refused is not None:
                self._over(step, "refused", step.refused[1], step.refused[0])
                continue
            ended_ns, reason = step.lost or (at_ns, "" if step.waits else "the saga turned before there was an answer")
            self._over(step, "abandoned" if step.waits else "unknown", reason, ended_ns)

    def _end(self, end: End, cause_ns: int) -> None:
        if end.outcome == "compensated":
            self._turn(cause_ns)
        self.outcome = end.outcome
        attributes = self.root.attributes
        attributes["saga.outcome"] = end.outcome
        attributes["saga.entries"] = self.entries
        if self.retries:
            attributes["saga.retries"] = self.retries
        if end.outcome == "completed":
            self.root.status = "ok"
        else:
            attributes["saga.reason"] = end.reason
            self.root.fail(f"compensated: {end.reason}")
        self.spans.close_followed()
        self._tell_services(end)
        self.spans.close(self.root, self.now_ns)

    def _tell_services(self, end: End) -> None:
        """The outcome is found by a search for any service that took part. Of one that nobody has commanded it stands
        at the end of its own last reaction: below the root it would look like a call of the coordinator's."""
        for service in sorted({span.service for span in self.spans.closed} - {COORDINATOR_SERVICE}):
            ident = ("", "", 0, f"ended-{service}")
            own = None if service in self.commanded else self.spans.last_reactions.get(service)
            parent, at_ns = (own, own.latest_ns - 1) if own else (self.root, self.now_ns)
            told = self.spans.open(parent, ident, "saga ended", at_ns, "internal", service)
            told.attributes["saga.outcome"] = end.outcome
            if end.reason:
                told.attributes["saga.reason"] = end.reason
            self.spans.close(told, at_ns)


def _pictures(span: Open, now_ns: int) -> Iterable[Span]:
    yield span.seen(now_ns)
    for child in span.children:
        yield from _pictures(child, now_ns)


def _parent_of(message: StoredMessage | None) -> tuple[SagaKey, Parent] | None:
    """Who started the saga, if another saga did and says so in what can be read."""
    if message is None:
        return None
    with suppress(Unusable):
        envelope = decode(message.data, message.subject)
        if envelope.type == CHILD_START_TYPE:
            parent = unpack_raw(envelope.data, ChildStart).parent
            return SagaKey.of(parent.type, parent.id), parent
    return None


def _link_child(attempt: Open, entry: Entry) -> None:
    """Point to the trace of the saga that a step starts."""
    child = unpack_raw(entry.envelope.data, ChildStart).child
    try:
        key = SagaKey.of(*child.split("/"))
    except (BadIdentity, TypeError):
        return  # a journal from before it was written there
    attempt.attributes["saga.child"] = str(key)
    attempt.link(trace_id(key), span_id(key, *CHILD_ROOT), "starts")
