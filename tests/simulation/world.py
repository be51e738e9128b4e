"""A world of one saga: what the streams, the participants and the clock hold, and every move that may come next.

Nothing here waits or guesses. A coordinator is the pure plan and the writes it asks for, in their order, of which any
number may have been made when it dies; a participant is its inbox's own rules. Children and locks are as others see
them: they are told something, and answer in their own time.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any, Final

import msgspec

from antiphon.contracts import Event, SagaKey
from antiphon.contracts.clock import moment
from antiphon.contracts.messages import AnswerKind, Close, Closed
from antiphon.contracts.payloads import (
    CANCEL_TYPE,
    CHILD_START_TYPE,
    LET_GO_TYPE,
    LOCK_ASK_TYPE,
    LOCK_FREE_TYPE,
    NO_PAYLOAD,
    End,
    Operation,
    Parent,
)
from antiphon.contracts.subjects import Direction, Sending
from antiphon.coordinator.decision.author import Author
from antiphon.coordinator.decision.dues import earliest_ns, is_far
from antiphon.coordinator.decision.entries import Draft, child_key
from antiphon.coordinator.decision.facts import (
    Answer,
    Cancel,
    ChildEnded,
    Fact,
    Finish,
    Granted,
    Happened,
    LetGo,
    Operated,
    Send,
    SendClose,
    Signalled,
    Start,
    Tick,
)
from antiphon.coordinator.decision.history import History, StepRecord, begin
from antiphon.coordinator.decision.notices import Notice
from antiphon.coordinator.decision.plan import full_plan, plan
from antiphon.coordinator.decision.planned import Plan, Planned, Timer
from antiphon.coordinator.definition.definition import Definition, StepDefinition
from antiphon.participants import inbox
from antiphon.participants.inbox import AlreadyUndone, NothingToUndo, Row, RunCompensation, RunHandler, SendAgain
from tests.simulation.sagas import SECOND, Approved, Asked, Delivered, Made, Shape, Undeliverable, saga_of

KEY: Final = SagaKey.of("work", "w1")
BEGUN_NS: Final = 1_750_000_000 * SECOND
SWEEP_NS: Final = 30 * SECOND
"""When the sweeper looks."""
SAID: Final[dict[str, Event]] = {"delivered": Delivered(), "undeliverable": Undeliverable()}
"""What somebody may say by himself; he says one of both."""
ANSWERED: Final = inbox.Answer("made", b"")

Name = tuple[Any, ...]
"""What a fact is called: the same fact, the same name, in whatever order the world goes."""

Move = tuple[Any, ...]
CommandName = tuple[str, Sending, int]


class Budget(msgspec.Struct, frozen=True):
    """How much may go wrong in one world."""

    crashes: int = 1
    """Coordinators that die between two writes, or before their ack."""
    duplicates: int = 1
    """Facts and commands that are delivered again after they were acked."""
    failures: int = 2
    """Refusals, and commands whose attempts run out."""
    slowness: int = 1
    """Times at which the timer fires although somebody still has something to do."""
    cancels: int = 1
    pauses: int = 0
    closes: int = 0
    """Steps that an operator has dealt with by hand, and whose participants are asked."""


class World(msgspec.Struct):
    """All there is, at one moment."""

    history: History
    now_ns: int
    budget: Budget
    entries: tuple[Planned, ...] = ()
    facts: dict[Name, Fact] = {}
    """What EVENTS holds, and what the timer has said."""
    pending: tuple[Name, ...] = ()
    """What is not acked, in the order it was stored: a world's moves are the same in every run."""
    seen: frozenset[Name] = frozenset()
    """What was delivered before."""
    commands: tuple[CommandName, ...] = ()
    """What participants have not acked."""
    sent: tuple[CommandName, ...] = ()
    payloads: dict[tuple[str, Direction], bytes] = {}
    """What was sent by each step and element, whatever the attempt."""
    rows: dict[str, Row] = {}
    closes: dict[tuple[str, int], Close] = {}
    """What participants were asked to close, by step and number."""
    timer_ns: int = 0
    told: frozenset[str] = frozenset()
    asked: tuple[str, ...] = ()
    """Locks that were asked for."""
    freed: frozenset[str] = frozenset()
    children: dict[tuple[str, int], str] = {}
    """What became of each child: open, completed or compensated."""
    cancelled: frozenset[tuple[str, int]] = frozenset()
    let_go: frozenset[tuple[str, int]] = frozenset()
    plans: dict[Name, Plan] = {}
    """What coordinators would do about facts, where that was asked for already."""

    def key(self) -> tuple[Any, ...]:
        """All that decides how it may go on: two worlds with one key have the same future.

        Times count from now, and where the journal's entries are stored does not matter.
        """
        now, history = self.now_ns, self.history
        steps = history.steps.values()
        return (
            tuple((s.phase, s.attempts, s.undo_attempts, s.closes, bool(s.closing), *_times(now, s)) for s in steps),
            history.gate_ns > now and history.gate_ns - now,
            (
                history.started_ns - now,
                history.now_ns - now,
                bool(history.turned),
                bool(history.noted),
                history.fault,
                history.overdue,
            ),
            (bool(history.paused), history.marked, frozenset(history.signals), history.asks, history.granted),
            (history.held, history.let_go, history.end and history.end.outcome),
            frozenset((name, getattr(self.facts[name], "at_ns", now) - now) for name in self.pending),
            (frozenset(self.facts), self.seen, frozenset(self.commands), frozenset(self.sent)),
            frozenset((step, row.state, row.attempt, row.closed) for step, row in self.rows.items()),
            (*_from(now, self.timer_ns), self.budget, self.told, self.freed, self.cancelled, self.let_go),
            frozenset(self.children.items()),
        )


def _from(now_ns: int, *times_ns: int) -> list[int]:
    """Times as they are from now on; 0 stays what it is, none."""
    return [at_ns and at_ns - now_ns for at_ns in times_ns]


def _times(now_ns: int, step: StepRecord) -> list[int]:
    return _from(now_ns, step.timeout_ns, step.again_ns, step.since_ns)


class Broken(AssertionError):
    """An invariant does not hold."""


def require(holds: object, what: str) -> None:
    if not holds:
        raise Broken(what)


class Model:
    """One saga's rules: from a world to the moves that are possible, and from a move to the next world."""

    def __init__(self, shape: Shape, parent: Parent | None = None, keys: tuple[str, ...] = ()) -> None:
        self.shape = shape
        self.definition: Definition = saga_of(shape).definition
        self.start = Asked(keys=keys)
        self.parent = parent
        self.numbers: dict[Name, int] = {}

    def begin(self, budget: Budget) -> World:
        """A world in which the start has just been stored."""
        world = World(begin(KEY, self.definition), BEGUN_NS, budget, plans={})
        self._store(world, ("start",), Start(self._number(("start",)), BEGUN_NS, self.start, self.parent))
        return world

    # --- what may come next -------------------------------------------------------------------------------------------

    def moves(self, world: World) -> list[Move]:
        """Everything that may happen now. Where the list begins with none that is free, nothing more will happen."""
        free: list[Move] = [("deliver", name) for name in world.pending]
        for command in world.commands:
            free += [("handle", command, outcome) for outcome in self._outcomes(world, command)]
        free += [("grant", lock) for lock in world.asked if ("granted", lock) not in world.facts]
        free += self._child_moves(world) + self._parent_moves(world)
        if world.history.paused and ("resume",) not in world.facts:
            free.append(("operate", "resume"))
        if self._signal and ("signal",) not in world.facts:
            free.append(("signal",))
        if self.definition.events and not any(("happen", said) in world.facts for said in SAID):
            free += [("happen", said) for said in SAID]
        is_idle = not (world.pending or world.commands)
        if world.timer_ns and is_idle:
            free.append(("fire",))
        if is_idle and _is_left_to_sweeper(world):
            free.append(("sweep",))
        return free + self._trouble(world, is_idle)

    def _trouble(self, world: World, is_idle: bool) -> list[Move]:
        """What need not happen, and is paid for from the budget."""
        budget, found = world.budget, list[Move]()
        if budget.crashes:
            found += [("crash", name, cut) for name in world.pending for cut in range(self._writes_of(world, name) + 1)]
        if budget.duplicates:
            found += [("again", name) for name in world.facts if name not in world.pending]
            found += [("rehandle", command) for command in world.sent if command not in world.commands]
        if budget.slowness and world.timer_ns and not is_idle:
            found.append(("fire",))
        if budget.cancels and ("cancel",) not in world.facts:
            found.append(("cancel",))
        if budget.cancels and self.parent is not None and ("recall",) not in world.facts:
            found.append(("recall",))
        if budget.pauses and ("pause",) not in world.facts and world.history.entries:
            found.append(("operate", "pause"))
        if budget.closes:
            found += self._resolves(world)
        return found

    def _resolves(self, world: World) -> list[Move]:
        """What an operator may say of each step that waits for its participant: one that is settled was done or never
        was."""
        found: list[Move] = []
        for name, step in world.history.steps.items():
            definition = self.definition.step(name)
            if definition.kind not in ("command", "list") or step.elements or step.closing is not None:
                continue
            if step.phase == "undoing":
                found.append(("resolve", name, "undone", step.closes))
            elif step.phase == "settling":
                found += [("resolve", name, form, step.closes) for form in ("done", "never")]
            elif step.phase == "sent" and definition.is_retriable:
                found.append(("resolve", name, "done", step.closes))
        return [move for move in found if move not in world.facts]

    def _outcomes(self, world: World, command: CommandName) -> list[str]:
        """How a participant may deal with a command: as the inbox says, or by dying after the commit."""
        step, direction, attempt = command
        if direction == "close":
            return ["known"]
        decision = _decide(world.rows.get(step), direction, attempt)
        may_fail = world.budget.failures > 0
        is_retriable = self.definition.step(step).is_retriable
        match decision:
            case RunHandler():
                refusal = ["refused"] if may_fail and not is_retriable else []
                return ["done", *refusal, *["exhausted"] * may_fail, *["died"] * (world.budget.crashes > 0)]
            case RunCompensation() if _is_settlement(world, command):
                return ["known", *["exhausted"] * may_fail]
            case RunCompensation():
                return ["done", *["exhausted"] * may_fail, *["died"] * (world.budget.crashes > 0)]
            case _:
                return ["known"]

    def _child_moves(self, world: World) -> list[Move]:
        found: list[Move] = []
        for child, state in world.children.items():
            if state == "open" and child not in world.cancelled:
                found.append(("child", child, "completed"))
            if (child in world.cancelled and state != "compensated") or (state == "open" and world.budget.failures):
                found.append(("child", child, "compensated"))
        return found

    def _parent_moves(self, world: World) -> list[Move]:
        """Once its child is done, a parent ends and lets it go, or has it compensated."""
        is_over = ("release",) in world.facts or ("recall",) in world.facts
        return [] if is_over or not world.history.held else [("release",), ("recall",)]

    @cached_property
    def _signal(self) -> str:
        return next((step.name for step in self.definition.steps.values() if step.kind == "signal"), "")

    # --- what comes of it ---------------------------------------------------------------------------------------------

    def after(self, world: World, move: Move) -> World:
        """The world after a move.

        Raises:
            Broken: an invariant does not hold.
        """
        source, world = world, copy(world)
        world.plans = {}
        match move:
            case ("deliver", name):
                self._deliver(world, self._plan(source, name), name, None)
            case ("crash", name, cut):
                world.budget = msgspec.structs.replace(world.budget, crashes=world.budget.crashes - 1)
                self._deliver(world, self._plan(source, name), name, cut)
            case ("again", name):
                world.budget = msgspec.structs.replace(world.budget, duplicates=world.budget.duplicates - 1)
                self._deliver(world, self._plan(source, name), name, None)
            case ("handle", command, outcome):
                world.commands = tuple(other for other in world.commands if other != command)
                self._handle(world, command, outcome)
            case ("rehandle", command):
                world.budget = msgspec.structs.replace(world.budget, duplicates=world.budget.duplicates - 1)
                self._handle(world, command, self._outcomes(world, command)[0])
            case ("fire",):
                self._fire(world)
            case ("sweep",):
                world.now_ns += SWEEP_NS
                self._store(world, ("tick", world.now_ns), Tick(world.now_ns))
            case ("cancel",):
                world.budget = msgspec.structs.replace(world.budget, cancels=world.budget.cancels - 1)
                self._happen(world, ("cancel",), lambda n: Cancel(n, world.now_ns, "no"))
            case ("release",):
                self._happen(world, move, lambda n: LetGo(n, world.now_ns))
            case ("recall",):
                self._happen(world, move, lambda n: Cancel(n, world.now_ns, "no", by_parent=True))
            case ("signal",):
                self._happen(world, move, lambda n: Signalled(n, world.now_ns, self._signal, Approved()))
            case ("happen", said):
                self._happen(world, move, lambda n: Happened(n, world.now_ns, SAID[said]))
            case ("operate", verb):
                if verb == "pause":
                    world.budget = msgspec.structs.replace(world.budget, pauses=world.budget.pauses - 1)
                asked = Operation(reason="let me look")
                self._happen(world, (verb,), lambda n: Operated(n, world.now_ns, "ann", verb, asked))
            case ("resolve", step, form, _):
                world.budget = msgspec.structs.replace(world.budget, closes=world.budget.closes - 1)
                given = msgspec.Raw(msgspec.json.encode(Made(what=step))) if form == "done" else NO_PAYLOAD
                happened = False if form == "never" else None
                said = Operation(step=step, reason="by hand", payload=given, happened=happened, asks=True)
                self._happen(world, move, lambda n: Operated(n, world.now_ns, "ann", "resolve", said))
            case ("grant", lock):
                self._happen(world, ("granted", lock), lambda n: Granted(n, world.now_ns, lock))
            case ("child", child, outcome):
                self._end_child(world, child, outcome)
            case _:
                raise ValueError(move)
        return world

    def _fire(self, world: World) -> None:
        if world.pending or world.commands:
            world.budget = msgspec.structs.replace(world.budget, slowness=world.budget.slowness - 1)
        world.now_ns, world.timer_ns = max(world.now_ns, world.timer_ns), 0
        self._store(world, ("tick", world.now_ns), Tick(world.now_ns))

    def _end_child(self, world: World, child: tuple[str, int], outcome: str) -> None:
        if outcome == "compensated" and child not in world.cancelled:
            world.budget = msgspec.structs.replace(world.budget, failures=world.budget.failures - 1)
        world.children = {**world.children, child: outcome}
        end = End(outcome="completed") if outcome == "completed" else End(outcome="compensated", reason="no")
        step, attempt = child
        self._happen(world, ("child", child, outcome), lambda n: ChildEnded(n, world.now_ns, step, attempt, end))

    # --- coordinators -------------------------------------------------------------------------------------------------

    def _plan(self, world: World, name: Name) -> Plan:
        """What a coordinator does about a fact."""
        made = world.plans.get(name)
        if made is None:
            fact, author = world.facts[name], Author()
            made = plan(world.history, fact, moment(world.now_ns), name in world.seen, author=author)
            _require_full(world, made, fact, name in world.seen, author)
            _require_replay(world, made, fact, self.shape.fickle)
            world.plans[name] = made
        return made

    def _writes_of(self, world: World, name: Name) -> int:
        """How many durable writes a fact asks for; a coordinator may die before each, and before its ack."""
        made = self._plan(world, name)
        return len(made.entries) + (made.timer is not None) + len(made.notices)

    def _deliver(self, world: World, made: Plan, name: Name, cut: int | None) -> None:
        """Have a coordinator handle a fact; with a cut it dies after so many writes."""
        fact = world.facts[name]
        world.seen |= {name}
        first = [made.timer] if made.timer is not None and made.timer.first else []
        later = [made.timer] if made.timer is not None and not made.timer.first else []
        for write in [*first, *made.entries, *later, *made.notices][:cut]:
            match write:
                case Planned():
                    self._append(world, write, fact)
                case Notice():
                    self._tell(world, write)
                case Timer() if not (write.first and world.timer_ns):
                    world.timer_ns = write.due_ns
                case _:
                    pass  # the first timer, which is set already
        if cut is None:
            _require_woken(world, name)
            is_named = isinstance(fact, Tick) or fact.sequence in world.history.named
            require(is_named or world.history.end is not None, f"{name} was acked and is not in the journal")
            world.pending = tuple(other for other in world.pending if other != name)

    def _append(self, world: World, entry: Planned, fact: Fact) -> None:
        before, what = world.history, entry.draft.what
        require(before.end is None, "something was written after the end")
        subject = entry.draft.subject
        require(all(subject != other.draft.subject for other in world.entries), f"{subject} was written twice")
        world.entries += (entry,)
        world.history = msgspec.structs.replace(entry.after, sequence=len(world.entries))
        if isinstance(what, Finish):
            world.timer_ns = 0
        if isinstance(what, SendClose):
            asked: CommandName = (what.step, "close", what.number)
            world.commands += (asked,)
            world.sent += (asked,)
            world.closes = {**world.closes, (what.step, what.number): what.close}
        if isinstance(what, Send):
            definition = self.definition.step(what.step)
            _require_sendable(before, entry.after, definition, what, fact)
            _require_as_before(world, entry.draft, what)
            if definition.kind in ("command", "list"):
                command = (what.step, what.direction, what.attempt)
                world.commands += (command,)
                world.sent += (command,)

    def _tell(self, world: World, tell: Notice) -> None:
        if tell.subject in world.told:
            return
        world.told |= {tell.subject}
        match tell.type:
            case str(type_) if type_ == CHILD_START_TYPE:
                world.children = {**world.children, self._child_of(world, tell): "open"}
            case str(type_) if type_ == CANCEL_TYPE:
                world.cancelled |= {self._child_of(world, tell)}
            case str(type_) if type_ == LET_GO_TYPE:
                world.let_go |= {self._child_of(world, tell)}
            case str(type_) if type_ == LOCK_ASK_TYPE:
                world.asked += (tell.subject.split(".")[3],)
            case str(type_) if type_ == LOCK_FREE_TYPE:
                world.freed |= {tell.subject.split(".")[3]}
            case _:
                pass  # to its parent

    def _child_of(self, world: World, tell: Notice) -> tuple[str, int]:
        id_ = tell.subject.split(".")[3]
        for name, step in world.history.steps.items():
            definition = self.definition.step(name)
            if definition.kind == "child":
                for attempt in range(1, step.attempts + 1):
                    if child_key(KEY, name, definition, attempt).id == id_:
                        return name, attempt
        raise Broken(f"{tell.subject} is for no child")

    # --- participants -------------------------------------------------------------------------------------------------

    def _handle(self, world: World, command: CommandName, outcome: str) -> None:
        step, direction, attempt = command
        row = world.rows.get(step)
        if direction == "close":
            self._close(world, step, attempt, row)
            return
        decision = _decide(row, direction, attempt)
        kind: AnswerKind = "exhausted" if outcome == "exhausted" else "done"
        is_settlement = _is_settlement(world, command)
        match decision:
            case RunHandler() if outcome in ("done", "died"):
                world.rows = {**world.rows, step: Row("done", attempt, ANSWERED)}
            case RunHandler() if outcome == "refused":
                world.rows = {**world.rows, step: Row("refused", attempt, ANSWERED)}
                kind = "refused"
            case RunHandler():
                pass
            case RunCompensation() if is_settlement:
                kind = "settled" if outcome == "known" else kind
            case RunCompensation() if outcome in ("done", "died"):
                self._require_dependents_undone(world, step)
                world.rows = {**world.rows, step: Row("undone", row.attempt if row else 0, ANSWERED)}
            case RunCompensation():
                pass
            case NothingToUndo(attempt=seen):
                world.rows = {**world.rows, step: Row("void", seen)}
                kind = "settled" if is_settlement else "done"
            case AlreadyUndone():
                kind = "settled" if is_settlement else "done"
            case SendAgain():
                kind = "done" if row is not None and row.state == "done" else "refused"
            case _:
                kind = "superseded"
        if outcome in ("refused", "exhausted"):
            world.budget = msgspec.structs.replace(world.budget, failures=world.budget.failures - 1)
        if outcome == "died":
            world.budget = msgspec.structs.replace(world.budget, crashes=world.budget.crashes - 1)
            world.commands += (command,)
            return
        self._answer(world, command, kind)

    def _close(self, world: World, step: str, number: int, row: Row | None) -> None:
        """A participant's inbox says whose word counts."""
        close = world.closes[step, number]
        given = ANSWERED if close.form == "done" else None
        decision = inbox.on_close(row, inbox.Close(number, close.form, given, close.claim, close.user))
        reply, verdict = None, "closed"
        if isinstance(decision, inbox.CloseCounts):
            if decision.row is not None:
                world.rows = {**world.rows, step: decision.row}
        else:
            assert isinstance(decision, inbox.MachineWas), "nothing is outside here"
            verdict = decision.verdict
            reply = Made(what=step) if verdict == "done" else None
        met = Closed(verdict=verdict, reason="no", attempt=1)  # type: ignore[arg-type] # pyright: ignore
        name = ("answer", step, "close", number, "closed")
        self._happen(
            world, name, lambda n: Answer(n, world.now_ns, step, "close", number, "closed", 0, reply, closed=met)
        )

    def _answer(self, world: World, command: CommandName, kind: AnswerKind) -> None:
        step, direction, attempt = command
        row = world.rows.get(step)
        is_there = row is not None and row.state == "done"
        reply = Made(what=step) if (kind, direction) == ("done", "do") or (kind == "settled" and is_there) else None
        name = ("answer", step, direction, attempt, kind)
        self._happen(world, name, lambda n: Answer(n, world.now_ns, step, direction, attempt, kind, 0, reply, kind))

    def _require_dependents_undone(self, world: World, step: str) -> None:
        for later in self._dependents(self.definition.step(step)):
            if later.is_kept:
                continue
            for name, row in world.rows.items():
                is_part = self.definition.step(name) is later
                require(not (is_part and row.state == "done"), f"{step} was undone before {name}, which came after it")

    def _dependents(self, step: StepDefinition) -> list[StepDefinition]:
        found = [self.definition.steps[name] for name in step.dependents]
        return found + [later for each in found for later in self._dependents(each)]

    # --- facts --------------------------------------------------------------------------------------------------------

    def _happen(self, world: World, name: Name, make: Any) -> None:
        """Store something in EVENTS, where its subject takes one."""
        if name not in world.facts:
            self._store(world, name, make(self._number(name)))

    def _store(self, world: World, name: Name, fact: Fact) -> None:
        world.facts = {**world.facts, name: fact}
        world.pending += (name,)

    def _number(self, name: Name) -> int:
        """The fact's sequence: the same in all worlds, so that it does not matter in which order things were stored."""
        return self.numbers.setdefault(name, len(self.numbers) + 1)

    # --- where nothing more will happen -------------------------------------------------------------------------------

    def require_well_ended(self, world: World) -> None:
        """What must hold once nothing more will happen.

        Raises:
            Broken: it does not.
        """
        history = world.history
        if history.end is None:
            is_told = history.fault and self.shape.broken
            require(is_told, f"the saga stands still and nobody is told: {history.fault} {phases(history)}")
            return
        require(not world.timer_ns, "the timer of an ended saga is still set")
        is_completed = history.end.outcome == "completed"
        for name, step in history.steps.items():
            definition = self.definition.step(name)
            if definition.kind == "child":
                self._require_child(world, name, definition, is_completed)
            elif definition.kind == "command" or name not in self.definition.steps:
                _require_effect(world, name, definition, is_completed and step.phase != "skipped")
        require(world.freed.issuperset(history.asks), f"locks are still held: {history.asks}")
        is_heard = self.parent is None or any(f".child-{history.state}." in subject for subject in world.told)
        require(is_heard, f"the parent does not know that it is {history.state}")

    def _require_child(self, world: World, name: str, definition: StepDefinition, is_completed: bool) -> None:
        found = {attempt: state for (step, attempt), state in world.children.items() if step == name}
        if is_completed:
            attempts = world.history.steps[name].attempts
            require(found.get(attempts) == "completed", f"child {name} has not completed")
            is_loose = definition.is_kept or (name, attempts) in world.let_go
            require(is_loose, f"child {name} was not let go")
        elif not definition.is_kept:
            require(all(state == "compensated" for state in found.values()), f"child {name} was not compensated")
            require(not any(step == name for step, _ in world.let_go), f"child {name} was let go")


def _require_effect(world: World, name: str, definition: StepDefinition, is_wanted: bool) -> None:
    row = world.rows.get(name)
    state = row.state if row else "none"
    if is_wanted:
        require(state == "done", f"the saga is completed, and the effect of {name} is {state}")
    elif not definition.is_kept or definition.is_retriable:
        require(state != "done", f"the saga is {world.history.state}, and the effect of {name} is there")


def _require_as_before(world: World, sent: Draft, send: Send) -> None:
    """What was sent once is sent again as it was, and undone as what it was."""
    if world.history.steps[send.step].phase == "settling" or not sent.payload:
        return
    payload = msgspec.json.decode(sent.payload)
    payload = payload.get("event", payload) if "parent" in payload else payload  # of a child, of which another begins
    said = msgspec.json.encode(payload)
    before = world.payloads.get((send.step, send.direction), said)
    require(said == before, f"{send.step} was sent as {said!r}, and was {before!r} before")
    world.payloads = {**world.payloads, (send.step, send.direction): said}
    if send.direction == "undo" and "what" in payload:
        done = msgspec.json.decode(world.payloads[send.step, "do"])
        require(payload["what"] == done["what"], f"{send.step} did {done}, and is undone as {payload}")


def _decide(row: Row | None, direction: Sending, attempt: int) -> inbox.OnDo | inbox.OnUndo:
    return inbox.on_do(row, attempt) if direction == "do" else inbox.on_undo(row)


def _is_settlement(world: World, command: CommandName) -> bool:
    """Whether a command is the question what became of a pivot: one may be undone as well, where it was done."""
    step, direction, attempt = command
    if direction == "close":
        return False
    sent = next(entry.draft for entry in world.entries if entry.draft.what == Send(step, direction, attempt))
    return b".settle.v" in sent.data


def _require_sendable(before: History, after: History, definition: StepDefinition, send: Send, fact: Fact) -> None:
    """A command goes out once what it comes after is over, a compensation for what happened or may have."""
    if send.direction == "do":
        require(not after.turned, f"{send.step} was sent by a saga that is compensating")
        require(after.granted.issuperset(after.asks), f"{send.step} was sent before all locks were granted")
        over = all(after.steps[earlier].phase in ("done", "skipped") for earlier in definition.after)
        require(over, f"{send.step} was sent before what it comes after was over")
        require(send.attempt == 1 or definition.is_retriable, f"{send.step} was sent again")
        return
    phase = before.steps[send.step].phase if send.step in before.steps else "waiting"
    require(phase in ("sent", "done", "unknown", "undoing", "settling"), f"{send.step} was undone while {phase}")
    if isinstance(fact, Answer) and (fact.step, fact.direction, fact.kind) == (send.step, "do", "refused"):
        require(phase != "sent", f"{send.step} was refused and undone")


def _require_woken(world: World, name: Name) -> None:
    """Unless somebody still has something to do about a fact, the timer is set for the first thing that is due, or that
    is so far away that the sweeper comes before."""
    due_ns = earliest_ns(world.history)
    if due_ns and not set(world.pending) - {name} and not _is_left_to_sweeper(world):
        require(0 < world.timer_ns <= due_ns, f"something is due at {due_ns}, and the timer at {world.timer_ns}")


def _is_left_to_sweeper(world: World) -> bool:
    """Whether the first thing that is due is far away, and has no timer yet."""
    due_ns = earliest_ns(world.history)
    return is_far(world.history, due_ns) and not 0 < world.timer_ns <= due_ns


def _require_full(world: World, made: Plan, fact: Fact, is_repeated: bool, author: Author) -> None:
    """What is planned the quick way is what is planned the full way, byte by byte, and so is the history it leads to.

    The same author is asked, who answers a second time as he did the first.
    """
    full = full_plan(world.history, fact, moment(world.now_ns), is_repeated, "", author, 1.0, "")
    require(_without_error(made) == _without_error(full), f"planned quickly {made}, and in full {full}")


def _without_error(made: Plan) -> Plan:
    """What a function raises, it raises anew each time."""
    return msgspec.structs.replace(made, error=None)


def _require_replay(world: World, made: Plan, fact: Fact, is_fickle: bool) -> None:
    """Whoever finds a beginning of the plan in the journal plans the rest of it, byte by byte; where functions answer
    otherwise each time, the same entries."""
    for count in range(1, len(made.entries)):
        rest = [each.draft for each in plan(made.entries[count - 1].after, fact, moment(world.now_ns), True).entries]
        left = [each.draft for each in made.entries[count:]]
        are_same = [each.subject for each in rest] == [each.subject for each in left] if is_fickle else rest == left
        require(are_same, f"the rest of {fact} became another")


def phases(history: History) -> dict[str, str]:
    return {name: step.phase for name, step in history.steps.items()}
