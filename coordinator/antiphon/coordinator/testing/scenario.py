"""A saga's definition put to the test in sentences: what happens, and what the saga does then.

No broker, no event loop and no clock: facts go into the very decision that coordinators make, and its entries come out.

    declined = (
        given(order, OrderPlaced(...))
        .sends(reserve_inventory, ReserveInventory(...))
        .when(reserve_inventory, InventoryReserved(...))
        .when_refused(charge_customer, "card declined")
    )
    declined.compensates(reserve_inventory).when_undone(reserve_inventory).is_compensated("card declined")

What begins with `when`, and `after`, happens to the saga; everything else says what it did, and raises an
`AssertionError` that tells the whole story if it did not. A scenario is a value: each method returns another one and
changes nothing, so several tests may go on from one beginning.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NoReturn, TypeVar, cast, overload

import msgspec
from msgspec.structs import replace

from antiphon.contracts.clock import moment
from antiphon.contracts.envelope import decode, pack, through_the_wire, unpack_raw
from antiphon.contracts.hints import meant
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import AnswerKind, Closed, Command, Compensation, Event
from antiphon.contracts.payloads import ChildStart, End, Operation, Record
from antiphon.contracts.subjects import Direction, Verb

from ..decision.dues import earliest_ns
from ..decision.entries import Draft
from ..decision.facts import (
    Answer,
    Cancel,
    ChildEnded,
    Fact,
    Granted,
    Happened,
    Operated,
    Send,
    SendClose,
    Signalled,
    Start,
    Tick,
)
from ..decision.history import History, begin, deadline_ns
from ..decision.plan import plan
from ..definition.check import require_start
from ..definition.choreography import Choreography
from ..definition.declared import DeclaredStep
from ..definition.definition import element
from ..definition.saga import Saga
from ..definition.steps import Awaited, Child, ListStep, OptionalStep, Signal, Step, Wait
from .story import Said, as_it_stands
from .twice import TwiceAuthor

S = TypeVar("S", bound=Event)
R = TypeVar("R", bound=Event)
C = TypeVar("C", bound=Command[Any])

Sending = Step[Any, Command[R]] | OptionalStep[Any, Command[R]] | ListStep[Any, Command[R]]
"""A step that sends commands which earn this reply."""

Undoable = Step[Any, C] | OptionalStep[Any, C] | ListStep[Any, C]
"""A step that sends this command."""

BEGINNING_NS: Final = 1_750_000_000_000_000_000
"""When a scenario begins: some day in June 2025."""


def given(saga: Saga[S] | Choreography[S], start: S, *, id: str = "test") -> Scenario:
    """A saga that has just been started.

    Args:
        saga: its definition, or a choreography.
        start: the event it begins with.
        id: what it is called.

    Raises:
        DefinitionError: the definition is not complete, or starts with another event.
        WrongShape: a field of the event holds what would not arrive as it is.
    """
    require_start(saga, start)
    nothing = Scenario(begin(SagaKey.of(saga.name, id), saga.definition), (), (), {}, BEGINNING_NS, 0)
    return nothing.take(Start(1, BEGINNING_NS, through_the_wire(start)), f"it is started with {start!r}")


class Scenario:
    """A saga, what has happened to it and what it did. Made by `given`."""

    __slots__ = ("_commands", "_count", "_fresh", "_history", "_last", "_now_ns", "_story")

    def __init__(
        self,
        history: History,
        story: tuple[str, ...],
        fresh: tuple[Said, ...],
        commands: dict[tuple[str, Direction, int], int],
        now_ns: int,
        count: int,
        last: Fact | None = None,
    ) -> None:
        self._history, self._story, self._fresh = history, story, fresh
        self._commands, self._now_ns, self._count, self._last = commands, now_ns, count, last

    def __str__(self) -> str:
        """The story so far."""
        heading = f"saga {self._history.key}:"
        return "\n".join([heading, *self._story, f"  Now it is {as_it_stands(self._history)}."])

    # --- participants answer ------------------------------------------------------------------------------------------

    @overload
    def when(
        self, step: Step[Any, Command[R]] | OptionalStep[Any, Command[R]], reply: R, *, attempt: int = 0
    ) -> Scenario: ...
    @overload
    def when(self, step: ListStep[Any, Command[R]], reply: R, *, element: int, attempt: int = 0) -> Scenario: ...

    def when(self, step: DeclaredStep, reply: Event, *, element: int = -1, attempt: int = 0) -> Scenario:
        """A participant has done what it was told, and answers. An answer may be late, and come twice.

        Args:
            step: the step whose command it answers.
            reply: the event.
            element: of a step over a list, which of its commands, counted from 0.
            attempt: which command of this step; the last one when left out.

        Raises:
            AssertionError: that command was never sent, or is answered with another event.
        """
        self._require_answer(step, reply)
        return self._answered(step, element, "do", attempt, "done", reply, f"answers {reply!r}")

    def when_refused(self, step: DeclaredStep, reason: str, *, element: int = -1, attempt: int = 0) -> Scenario:
        """A participant says no: nothing happened."""
        return self._answered(step, element, "do", attempt, "refused", None, f"is refused: {reason}", reason)

    def when_exhausted(self, step: DeclaredStep, reason: str, *, element: int = -1, attempt: int = 0) -> Scenario:
        """A participant's attempts ran out: nobody knows whether it happened."""
        return self._answered(step, element, "do", attempt, "exhausted", None, f"is exhausted: {reason}", reason)

    def when_timed_out(self, step: DeclaredStep, *, element: int = -1) -> Scenario:
        """Nothing is heard of a step until its timeout, or its `within`, has passed."""
        name = _name(step, element)
        if not self._record(name).timeout_ns:
            self._fail(f"{name} waits for nothing that has a time, so it cannot time out")
        return self._until(self._record(name).timeout_ns, f"{name} is not heard of in time")

    def when_undone(self, step: DeclaredStep, *, element: int = -1, attempt: int = 0) -> Scenario:
        """A participant has compensated a step. The step of a child is undone by `when_child_compensated`."""
        return self._answered(step, element, "undo", attempt, "done", None, "is undone")

    def when_undo_failed(
        self, step: DeclaredStep, reason: str, *, element: int = -1, attempt: int = 0, outside: bool = False
    ) -> Scenario:
        """A participant could not compensate a step, however often it tried; with `outside` since nobody knows whether
        its command has happened outside the database."""
        said, code = f"is not undone: {reason}", "open" if outside else ""
        return self._answered(step, element, "undo", attempt, "exhausted", None, said, reason, code)

    def when_all_undone(self) -> Scenario:
        """Every compensation is answered until none is left, in the order they were sent."""
        scenario = self
        while waiting := [name for name, step in scenario._history.steps.items() if step.phase == "undoing"]:
            name = min(waiting, key=lambda each: scenario._commands[each, "undo", scenario._last_attempt(each, "undo")])
            if scenario._history.definition.step(name).kind == "child":
                end = End(outcome="compensated", reason=scenario._history.turned)
                scenario = scenario._child_ended(name, end)
            else:
                scenario = scenario._answered_by_name(name, "undo", 0, "done", None, "is undone")
        return scenario

    def when_settled(self, step: Step[Any, Command[R]], reply: R | None) -> Scenario:
        """The participant says what became of the pivot: its reply was this, or it never happened and never will."""
        if reply is not None:
            self._require_answer(step, reply)
        said = "turns out not to have happened" if reply is None else f"turns out to have been answered with {reply!r}"
        return self._answered(step, -1, "undo", 0, "settled", reply, said)

    # --- time and the world outside -----------------------------------------------------------------------------------

    def after(self, duration: timedelta) -> Scenario:
        """Time passes, and whatever becomes due meanwhile happens."""
        return self._until(self._now_ns + round(duration.total_seconds() * 1e9), f"{duration} pass")

    def when_due(self) -> Scenario:
        """Time passes until the next thing the saga waits for is due: a retry, a timeout, the deadline."""
        due_ns = earliest_ns(self._history)
        if not due_ns:
            self._fail("nothing is ever due")
        return self._until(max(due_ns, self._now_ns), "the next thing is due")

    def when_deadline_passed(self) -> Scenario:
        """Time passes until the saga's deadline."""
        return self._until(max(self._now_ns, deadline_ns(self._history)), "its deadline passes")

    def when_signalled(self, step: Signal[R], event: R) -> Scenario:
        """A client sends the event that a step waits for, now or later."""
        self._require_own(step)
        if type(event) is not step.signal:
            self._fail(f"{step.name} waits for {_shape(step.signal)}, and not for {type(event).__name__}")
        fact = Signalled(self._count + 1, self._now_ns, step.name, through_the_wire(event))
        return self.take(fact, f"{step.name} is signalled with {event!r}")

    def when_happened(self, event: Event) -> Scenario:
        """A participant emits an event by itself, which the saga knows.

        Raises:
            AssertionError: the saga does not know it, and a coordinator would park it.
        """
        if event.__contract__.type not in self._history.definition.events:
            self._fail(f"the saga does not know {event.__contract__.type}; let it wait for it, or note it")
        return self.take(Happened(self._count + 1, self._now_ns, through_the_wire(event)), f"{event!r} happens")

    def when_cancelled(self, reason: str, *, user: str = "") -> Scenario:
        """A client wants the saga undone, or an operator does, who is named."""
        if user:
            return self._operated(user, "cancel", Operation(reason=reason))
        return self.take(Cancel(self._count + 1, self._now_ns, reason), f"it is cancelled: {reason}")

    def when_child_completed(self, step: Child[Any]) -> Scenario:
        """The saga that a step started has done all its steps."""
        return self._child_ended(step.name, End(outcome="completed"))

    def when_child_compensated(self, step: Child[Any], reason: str) -> Scenario:
        """The saga that a step started was compensated: by itself, or because this one is."""
        return self._child_ended(step.name, End(outcome="compensated", reason=reason))

    def when_granted(self, lock: str) -> Scenario:
        """The saga gets a lock that it asked for."""
        return self.take(Granted(self._count + 1, self._now_ns, lock), f"the lock {lock} is granted")

    def when_repeated(self) -> Scenario:
        """What happened last is delivered once more."""
        assert self._last is not None
        return self.take(self._last, "the same is delivered again")

    # --- operators ----------------------------------------------------------------------------------------------------

    def when_retried(self, user: str, step: DeclaredStep | None = None, *, element: int = -1) -> Scenario:
        """An operator wants tried again now what waits to be, or one step of it."""
        return self._operated(user, "retry", Operation(step=_name(step, element) if step else ""))

    @overload
    def when_edited(self, user: str, step: Sending[R], command: Command[R], *, element: int = -1) -> Scenario: ...
    @overload
    def when_edited(self, user: str, step: Undoable[C], command: Compensation[C], *, element: int = -1) -> Scenario: ...

    def when_edited(self, user: str, step: DeclaredStep, command: msgspec.Struct, *, element: int = -1) -> Scenario:
        """An operator puts another command in the place of the one that failed."""
        return self._operated(user, "edit", replace(Operation(step=_name(step, element)), payload=pack(command)))

    def when_resolved(
        self,
        user: str,
        step: Sending[R] | Awaited[R],
        reason: str,
        *,
        reply: R | None = None,
        happened: bool | None = None,
        element: int = -1,
        claim: int = 0,
        met: Closed | None = None,
        found: R | None = None,
        without_participant: bool = False,
    ) -> Scenario:
        """An operator has seen to a step by hand, and its participant, where there is one, was asked and has answered.

        Args:
            user: who.
            step: the step.
            reason: what was found or done.
            reply: what the step has earned, where its reply is looked at.
            happened: of a pivot, whether its effect is there; False of an event that will never come.
            element: of a step over a list, which of its commands, counted from 0.
            claim: the claim after which the operator has looked outside.
            met: what the participant says; that it takes the operator's word when left out.
            found: with the verdict done, what the participant had answered.
            without_participant: that the participant is not asked.
        """
        operation = Operation(
            step=_name(step, element),
            reason=reason,
            happened=happened,
            claim=claim,
            asks=not without_participant,
        )
        if reply is not None:
            operation = replace(operation, payload=pack(reply))
        return self._operated(user, "resolve", operation)._met(operation.step, met or Closed(verdict="closed"), found)

    def _met(self, name: str, met: Closed, found: Event | None) -> Scenario:
        """A participant answers the close that was just sent, if one was."""
        asked = next((each.action for each in self._fresh if isinstance(each.action, SendClose)), None)
        if asked is None:
            return self
        event = None if found is None else through_the_wire(found)
        sequence = self._history.sequence
        fact = Answer(self._count + 1, self._now_ns, name, "close", asked.number, "closed", sequence, event, closed=met)
        story = (*self._story, f"  {name} is asked about, and its participant says: {met.verdict}")
        return self._taken(fact, story, self._fresh)

    def when_paused(self, user: str, reason: str) -> Scenario:
        """An operator has the saga stand still."""
        return self._operated(user, "pause", Operation(reason=reason))

    def when_resumed(self, user: str) -> Scenario:
        """An operator lets it go on."""
        return self._operated(user, "resume", Operation())

    # --- what the saga did --------------------------------------------------------------------------------------------

    def sends(
        self, step: Sending[R], command: Command[R] | None = None, *, element: int = -1, attempt: int = 0
    ) -> Scenario:
        """It sent a step's command, because of what happened last.

        Args:
            step: the step.
            command: the command; any when left out.
            element: of a step over a list, which of its commands, counted from 0.
            attempt: which attempt of the coordinator's this is; any when left out.
        """
        return self._sent(_name(step, element), "do", command, attempt)

    @overload
    def compensates(
        self, step: Undoable[C], command: Compensation[C], *, element: int = -1, attempt: int = 0
    ) -> Scenario: ...
    @overload
    def compensates(self, step: DeclaredStep, *, element: int = -1, attempt: int = 0) -> Scenario: ...

    def compensates(
        self, step: DeclaredStep, command: Compensation[Any] | None = None, *, element: int = -1, attempt: int = 0
    ) -> Scenario:
        """It sent a step's compensation, or cancelled the saga that a step started, because of what happened last."""
        return self._sent(_name(step, element), "undo", command, attempt)

    def settles(self, step: Step[Any, Any]) -> Scenario:
        """It asked what became of the pivot."""
        return self._sent(step.name, "undo", None, 0)

    def starts(self, step: Child[S], event: S) -> Scenario:
        """It started another saga."""
        return self._sent(step.name, "do", event, 0)

    def skips(self, step: OptionalStep[Any, Any]) -> Scenario:
        """It left a step out, because its `when` said no."""
        return self._recorded(Record(step=step.name, skipped=True), f"{step.name} to be skipped")

    def waits_for(self, step: Signal[Any] | Awaited[Any] | Wait) -> Scenario:
        """It has come to a step that waits for a signal, or for time."""
        return self._recorded(Record(step=step.name, awaits=True), f"{step.name} to be waited for")

    def asks_for(self, *locks: str) -> Scenario:
        """It asked for these locks."""
        return self._recorded(Record(asks=locks), f"the locks {', '.join(locks)} to be asked for")

    def rejects(self, user: str, reason: str = "") -> Scenario:
        """It did not do what an operator asked for last; a part of the reason may be given."""
        actions = [said.action for said in self._fresh]
        if not any(isinstance(a, Record) and a.by == user and a.rejected and reason in a.rejected for a in actions):
            self._fail(f"expected {user}'s request to be rejected{f' with {reason!r}' * bool(reason)}")
        return self

    def sends_nothing(self) -> Scenario:
        """It sent neither a command nor a compensation because of what happened last."""
        if any(isinstance(said.action, Send) for said in self._fresh):
            self._fail("expected nothing to be sent")
        return self

    def has_compensated(self, *steps: DeclaredStep) -> Scenario:
        """Exactly these steps were compensated so far, in this order."""
        found, wanted = list(dict.fromkeys(self._compensations())), [step.name for step in steps]
        if found != wanted:
            self._fail(f"expected {_list(wanted)} to be compensated in this order, and it was {_list(found)}")
        return self

    # --- how it stands ------------------------------------------------------------------------------------------------

    def is_running(self) -> Scenario:
        """It goes forward."""
        return self._stands("running", "")

    def is_compensating(self, reason: str = "") -> Scenario:
        """It goes back; a part of the reason may be given."""
        return self._stands("compensating", reason)

    def is_completed(self) -> Scenario:
        """It has ended well."""
        return self._stands("completed", "")

    def is_compensated(self, reason: str = "") -> Scenario:
        """It has ended undone; a part of the reason may be given."""
        return self._stands("compensated", reason)

    def is_parked(self, reason: str = "") -> Scenario:
        """It waits for a person; a part of the reason may be given."""
        if not self._history.parked or reason not in self._history.parked:
            found = self._history.parked or "it is not parked"
            self._fail(f"expected it to be parked{f' with {reason!r}' * bool(reason)}, but {found}")
        return self

    def is_not_parked(self) -> Scenario:
        """It waits for nobody."""
        if self._history.parked:
            self._fail(f"expected it not to be parked, but {self._history.parked}")
        return self

    def has_noted(self, reason: str) -> Scenario:
        """It recorded a deadline or a cancel that came past its pivot; a part of the reason may be given."""
        if not self._history.noted or reason not in self._history.noted:
            self._fail(f"expected it to have noted {reason!r}, and it noted {self._history.noted!r}")
        return self

    # --- helpers ------------------------------------------------------------------------------------------------------

    def take(self, fact: Fact, happening: str) -> Scenario:
        """Have a coordinator handle a fact.

        Args:
            fact: what has become known.
            happening: the same as a clause, for the story.
        """
        return self._taken(fact, (*self._story, f"  {happening}"), ())

    def _taken(self, fact: Fact, story: tuple[str, ...], fresh: tuple[Said, ...]) -> Scenario:
        history, commands = self._history, dict(self._commands)
        for entry in plan(history, fact, moment(self._now_ns), author=TwiceAuthor()).entries:
            said = _said(entry.after, entry.draft)
            history = replace(entry.after, sequence=history.sequence + 1)
            if isinstance(entry.draft.what, Send):
                send = entry.draft.what
                commands[send.step, send.direction, send.attempt] = history.sequence
            fresh, story = (*fresh, said), (*story, f"    it {said}")
        count = self._count if isinstance(fact, Tick) else max(self._count, fact.sequence)
        return Scenario(history, story, fresh, commands, self._now_ns, count, fact)

    def _until(self, end_ns: int, happening: str) -> Scenario:
        """Let time pass, one due thing after the other."""
        scenario, story, fresh = self, (*self._story, f"  {happening}"), cast("tuple[Said, ...]", ())
        while True:
            due_ns = earliest_ns(scenario._history)
            at_ns = min(max(due_ns, scenario._now_ns), end_ns) if due_ns else end_ns
            scenario = scenario._at(at_ns)._taken(Tick(at_ns), story, fresh)
            story, fresh = scenario._story, scenario._fresh
            if at_ns >= end_ns and not 0 < earliest_ns(scenario._history) <= end_ns:
                return scenario

    def _at(self, now_ns: int) -> Scenario:
        return Scenario(self._history, self._story, self._fresh, self._commands, now_ns, self._count, self._last)

    def _answered(
        self,
        step: DeclaredStep,
        element: int,
        direction: Direction,
        attempt: int,
        kind: AnswerKind,
        reply: Event | None,
        said: str,
        reason: str = "",
        code: str = "",
    ) -> Scenario:
        self._require_own(step)
        return self._answered_by_name(_name(step, element), direction, attempt, kind, reply, said, reason, code)

    def _answered_by_name(
        self,
        name: str,
        direction: Direction,
        attempt: int,
        kind: AnswerKind,
        reply: Event | None,
        said: str,
        reason: str = "",
        code: str = "",
    ) -> Scenario:
        attempt = attempt or self._last_attempt(name, direction)
        command = self._commands.get((name, direction, attempt))
        if command is None:
            what = "command" if direction == "do" else "compensation"
            self._fail(f"the {what} of {name} was never sent, so nobody can answer it")
        event = None if reply is None else through_the_wire(reply)
        fact = Answer(self._count + 1, self._now_ns, name, direction, attempt, kind, command, event, reason, code)
        return self.take(fact, f"{name} {said}")

    def _require_own(self, step: DeclaredStep) -> None:
        """A step of another saga may be called like one of this one."""
        definition = self._history.definition
        if step.name not in definition.steps:
            self._fail(f"{definition.name} has no step {step.name}; {meant(step.name, definition.steps, 'it has')}")

    def _require_answer(self, step: DeclaredStep, reply: Event) -> None:
        self._require_own(step)
        steps = self._history.definition.steps.values()
        expected = self._history.definition.step(step.name).reply
        if expected is not None and type(reply) is not expected:
            others = [each.name for each in steps if each.reply is type(reply)]
            hint = f"; did you mean {' or '.join(others)}?" if others else ""
            self._fail(f"{step.name} is answered with {expected.__name__}, and not with {type(reply).__name__}{hint}")

    def _child_ended(self, name: str, end: End) -> Scenario:
        attempt = self._last_attempt(name, "do")
        if not attempt:
            self._fail(f"the saga of {name} was never started, so it cannot end")
        fact = ChildEnded(self._count + 1, self._now_ns, name, attempt, end)
        return self.take(fact, f"the saga that {name} started is {end.outcome}{': ' * bool(end.reason)}{end.reason}")

    def _operated(self, user: str, verb: Verb, operation: Operation) -> Scenario:
        fact = Operated(self._count + 1, self._now_ns, user, verb, operation)
        about = "".join(f" {part}" for part in (operation.step, operation.reason) if part)
        return self.take(fact, f"{user} asks to {verb}{about}")

    def _last_attempt(self, name: str, direction: Direction) -> int:
        return max((n for step, way, n in self._commands if (step, way) == (name, direction)), default=0)

    def _compensations(self) -> list[str]:
        """The steps of all compensations sent so far, in order; a pivot that is settled is not compensated."""
        sent = sorted(
            (sequence, name) for (name, direction, _), sequence in self._commands.items() if direction == "undo"
        )
        names = [self._history.definition.step(name).name for _, name in sent]
        return [name for name in names if name != self._history.definition.pivot]

    def _record(self, name: str) -> Any:
        if name not in self._history.steps:
            self._fail(f"there is no {name} yet")
        return self._history.steps[name]

    def _sent(self, name: str, direction: Direction, message: object, attempt: int) -> Scenario:
        found = [said for said in self._fresh if _is_send(said, name, direction)]
        what = "sent" if direction == "do" else "compensated"
        if not found:
            self._fail(f"expected {name} to be {what}, and it was not")
        last = found[-1]
        if message is not None and last.message != message:
            self._fail(f"expected {name} to be {what} with\n  {message!r}\nand it was\n  {last.message!r}")
        if attempt and isinstance(last.action, Send) and last.action.attempt != attempt:
            self._fail(f"expected attempt {attempt} of {name}, and it was attempt {last.action.attempt}")
        return self

    def _recorded(self, record: Record, what: str) -> Scenario:
        if not any(said.action == record for said in self._fresh):
            self._fail(f"expected {what}, and it was not")
        return self

    def _stands(self, state: str, reason: str) -> Scenario:
        found = self._history.state
        if found != state or reason not in self._history.turned:
            because = f" because of {reason!r}" * bool(reason)
            self._fail(f"expected it to be {state}{because}, and it is {as_it_stands(self._history)}")
        return self

    def _fail(self, sentence: str) -> NoReturn:
        raise AssertionError(f"{sentence}{'' if sentence.endswith(('.', '?')) else '.'}\n\n{self}")


def _said(history: History, entry: Draft) -> Said:
    """What an entry does, with the message it carries."""
    send = entry.what
    if not isinstance(send, Send):
        return Said(send)
    step, data = history.definition.step(send.step), decode(entry.data, entry.subject).data
    if history.steps[send.step].phase == "settling":
        return Said(send, "what became of it?")
    if step.kind != "child":
        return Said(send, unpack_raw(data, step.template(send.direction).shape))
    if send.direction == "undo":
        return Said(send, "cancel")
    return Said(send, unpack_raw(unpack_raw(data, ChildStart).event, step.template("do").shape))


def _is_send(said: Said, name: str, direction: Direction) -> bool:
    return isinstance(said.action, Send) and (said.action.step, said.action.direction) == (name, direction)


def _name(step: DeclaredStep, number: int) -> str:
    """What histories call a step, or an element of one."""
    if step.kind != "list":
        return step.name
    if number < 0:
        raise AssertionError(f"{step.name} is over a list; say which of its commands is meant: element=0.")
    return element(step.name, number)


def _shape(event: type[Event] | None) -> str:
    return "no signal" if event is None else event.__name__


def _list(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
