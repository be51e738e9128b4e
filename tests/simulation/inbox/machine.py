"""Two workers, a coordinator, an operator and the outside world around one row of the inbox, and all their next steps.

A worker may pause between any two of its steps for as long as it likes, so a stall needs no step of its own; only that
its lease runs out meanwhile is one, and a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeVar

import msgspec

from antiphon.contracts.messages import CloseForm
from antiphon.participants import inbox
from antiphon.participants.inbox import Row

from .shipped import (
    CLOSE1,
    CLOSE2,
    DO1,
    DO2,
    KIND,
    MESSAGES,
    NO,
    NUMBER,
    OPERATOR,
    SETTLE1,
    SETTLE2,
    UNDO1,
    UNDO2,
    Asked,
    after_plain,
    after_success,
    claimed,
    owns,
    verdict,
)

CLAIMS_MAX: Final = 12
"""Sound rules never get there. Under others two messages may take the claim from each other for ever."""
UNSENT, LIVE, GONE = range(3)
"""Live: in the stream and not acked. Gone: acked, or no longer in the stream."""


class Worker(NamedTuple):
    """What one worker has in hand, and how far it has come."""

    at: str = "idle"
    message: int = -1
    is_stale: bool = False
    """Its lease ran out: somebody else may have the message, too."""
    claim: int = 0
    is_clean: bool = False
    """Its claim found no earlier run whose end nobody knows."""
    got: str = ""
    """What the handler came to, or the answer to be sent."""


class World(NamedTuple):
    """What has happened, whoever knows of it."""

    effect: int = 0
    undone: int = 0
    """Of these two, in the database, committed."""
    outside: int = 0
    outside_undone: int = 0
    """And beyond it: what the outside did under the key of the step."""
    is_declined: bool = False
    """The outside has said no to the key of the step."""
    is_by_hand: bool = False
    """An operator said that it is done."""
    belief: tuple[str, int, int] | None = None
    """What whoever was told "resolved" takes to be true: the form, and what was done and undone then."""


class State(NamedTuple):
    """All of it."""

    row: Row | None = None
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    sent: tuple[int, ...] = (LIVE,) + (UNSENT,) * 7
    said: tuple[frozenset[str], ...] = (frozenset(),) * 8
    """The answers stored to each message."""
    failed: tuple[int, ...] = (0,) * 4
    """Attempts of do1, do2, undo1, undo2 as the database counts them."""
    world: World = World()
    phase: str = "sent"
    """What the coordinator takes the step to be."""
    forms: tuple[CloseForm | None, CloseForm | None] = (None, None)
    """Of the two closes."""
    named: int = 0
    """The claim that the first close was told, and the second one names."""
    seen: tuple[int, int] = (0, 0)
    """What the operator saw outside: done, undone."""
    faults: int = 0


class Config(NamedTuple):
    """A kind of step, a kind of handler for each direction, and how much may go wrong."""

    name: str
    step: str
    """compensable, pivot, retriable, or any: a coordinator that tries again before it undoes."""
    do_outside: bool = False
    undo_outside: bool = False
    faults: int = 2
    attempts: int = 2
    closes: bool = True
    turns: bool = True
    """Whether the saga may turn when the step is done."""
    again: bool = True
    """Whether there is a second undo or settlement."""
    declines: bool = False
    """Whether the outside may say no to a key, which the handler then says of its refusal."""


class Order(NamedTuple):
    """How a worker goes about a message, beside the rules of the inbox. Tests turn one of these into what is naive."""

    exhausted_asks_row: bool = True
    refusal_asks_attempts: bool = True
    refusal_needs_clean: bool = True
    answers_before_commit: bool = False
    resolves_through_inbox: bool = True
    outside_remembers: bool = True
    """No rule of ours but a demand: the outside knows the key also after the compensation."""
    declines_for_good: bool = True
    """The same: a key to which the outside has said no has no effect later."""


T = TypeVar("T")

IDLE: Final = Worker()
RUNNING: Final = ("running", "ran")
OPEN: Final = frozenset({"exhausted", "superseded", "open", "doubt"})
"""Answers that say "not now" or "not any more". All others are definite."""

Step = tuple[str, State]
"""A sentence, and the state after it. Sentences that begin with `!` are faults, with `?` the operator's."""


class Machine:
    """The steps of one configuration."""

    def __init__(self, config: Config, order: Order) -> None:
        self.config, self.order = config, order

    def steps(self, s: State) -> Iterator[Step]:
        """Everything that may happen next."""
        is_locked = any(w.at in ("in transaction", "uncommitted") for w in s.workers)
        for number in (0, 1):
            if number == 1 and s.workers[0] == s.workers[1]:
                break
            yield from self._worker(s, number, is_locked)
        yield from self._coordinator(s)
        yield from self._operator(s)
        if s.faults < self.config.faults:
            yield from self._fault(s)

    def is_outside(self, message: int) -> bool:
        """Whether the handler of a message runs outside a transaction."""
        return message <= UNDO2 and (self.config.do_outside if message <= DO2 else self.config.undo_outside)

    def _is_used_up(self, s: State, message: int) -> bool:
        return message <= UNDO2 and s.failed[message] >= self.config.attempts

    # --- a worker

    def _worker(self, s: State, number: int, is_locked: bool) -> Iterator[Step]:
        w = s.workers[number]
        who = "the worker whose lease ran out: " if w.is_stale else "a worker: "
        match w.at:
            case "idle":
                for message, status in enumerate(s.sent):
                    if status == LIVE and not any(o.message == message and not o.is_stale for o in s.workers):
                        yield f"{who}{MESSAGES[message]} is delivered", put(s, number, Worker("took", message))
            case "took" if not is_locked:
                yield from self._begin(s, number, w, who)
            case "in transaction":
                yield from self._in_transaction(s, number, w, who)
            case "uncommitted":  # only where the answer leaves before the commit
                yield f"{who}commits", self._commit_plain(s, number, w._replace(at="said"))
            case "rolled back" if not is_locked:
                yield from self._after_rollback(s, number, w, who)
            case "running":
                yield from self._run(s, number, w, who)
            case "ran" if not is_locked:
                yield from self._end_run(s, number, w, who)
            case "answering":
                yield f"{who}{MESSAGES[w.message]} is answered: {w.got}", say(s, number, w)
            case "said":
                sent = swap(s.sent, w.message, GONE)
                yield f"{who}acks {MESSAGES[w.message]}", put(s._replace(sent=sent), number, IDLE)
            case _:
                pass  # it waits for the lock

    def _begin(self, s: State, number: int, w: Worker, who: str) -> Iterator[Step]:
        """Lock the row and ask the inbox. One transaction; a plain handler stays inside it."""
        message, name, asked = w.message, MESSAGES[w.message], ask(s, w.message)
        verdicts = {verdict(asked, s.row, is_late) for is_late in (False, True)}
        for found in sorted(verdicts, key=lambda each: (each.action, each.word)):
            if found.action == "back":
                yield f"{who}hands {name} back: the row is {state_of(s.row)}", put(s, number, IDLE)
            elif found.action == "answer":
                yield self._tell(s, number, w, who, found.word, found.row)
            elif self._is_used_up(s, message):
                yield self._tell(s, number, w, who, "exhausted", inbox.given_up(s.row) or s.row)
            elif not self.is_outside(message):
                text = f"{who}locks the row and calls the handler of {name}"
                yield text, put(s, number, w._replace(at="in transaction"))
            elif s.row is None or s.row.claim < CLAIMS_MAX:
                row = claimed(asked, s.row)
                is_clean = s.row is None or s.row.state == "refused"
                text = f"{who}commits claim {row.claim} for {name} and calls its handler"
                running = w._replace(at="running", claim=row.claim, is_clean=is_clean)
                yield text, put(s._replace(row=row), number, running)

    def _tell(self, s: State, number: int, w: Worker, who: str, word: str, row: Row | None) -> Step:
        after = s._replace(row=row)
        if word == "closed" and row != s.row:
            after = after._replace(world=self._believed(s, w.message))
        claim = s.row.claim if word == "doubt" and s.row else 0
        text = f"{who}commits the row as {state_of(row)}, for {MESSAGES[w.message]}: {word}"
        return text, put(after, number, w._replace(at="answering", got=word, claim=claim))

    def _believed(self, s: State, message: int) -> World:
        """What the operator, told "resolved", takes to be true: what was seen outside, or what the row held."""
        form = s.forms[message - CLOSE1]
        assert form is not None
        was_done = state_of(s.row) in ("done", "undone", "undoing")
        seen = (form, *s.seen) if message == CLOSE2 else (form, int(was_done), 0)
        return s.world._replace(belief=seen, is_by_hand=s.world.is_by_hand or form == "done")

    # --- a plain handler: inside the transaction

    def _in_transaction(self, s: State, number: int, w: Worker, who: str) -> Iterator[Step]:
        name = MESSAGES[w.message]
        word = "done" if KIND[w.message] == "do" else "undone"
        if self.order.answers_before_commit:
            yield f"{who}{name} is answered: {word}", say(s, number, w._replace(got=word), at="uncommitted")
        else:
            done = self._commit_plain(s, number, w._replace(at="answering", got=word))
            yield f"{who}commits effect and row of {name}", done
        raised = put(s, number, w._replace(at="rolled back", got="raised"))
        yield f"{who}the handler of {name} raises; rolled back", raised
        if KIND[w.message] == "do" and self.config.step != "retriable":
            refused = put(s, number, w._replace(at="rolled back", got="refused"))
            yield f"{who}the handler of {name} refuses; rolled back", refused

    def _commit_plain(self, s: State, number: int, w: Worker) -> State:
        row = after_plain(ask(s, w.message), s.row)
        return put(s._replace(row=row, world=acted_inside(s.world, w.message)), number, w)

    def _after_rollback(self, s: State, number: int, w: Worker, who: str) -> Iterator[Step]:
        """A second transaction, which asks the inbox again: somebody may have come in between."""
        message, name = w.message, MESSAGES[w.message]
        found = verdict(ask(s, message), s.row, False)
        is_used_up = w.got == "refused" and self._is_used_up(s, message) and self.order.refusal_asks_attempts
        if found.action == "answer" and (w.got == "refused" or self.order.exhausted_asks_row):
            yield self._tell(s, number, w, who, found.word, found.row)
        elif found.action == "back" and self.order.exhausted_asks_row:
            yield f"{who}hands {name} back: the row is {state_of(s.row)}", put(s, number, IDLE)
        elif w.got == "refused" and is_used_up:
            yield self._tell(s, number, w, who, "exhausted", inbox.given_up(s.row) or s.row)
        elif w.got == "refused":
            row = Row("refused", NUMBER[message], NO, s.row.claim if s.row else 0)
            yield f"{who}commits the refusal of {name}", put(s._replace(row=row), number, answering(w, "refused"))
        else:
            yield self._count(s, number, w, who)

    def _count(self, s: State, number: int, w: Worker, who: str) -> Step:
        """Count a failed attempt; answer exhausted in the same transaction when it was the last."""
        message, name = w.message, MESSAGES[w.message]
        failed = min(self.config.attempts, s.failed[message] + 1)
        s = s._replace(failed=swap(s.failed, message, failed))
        if failed < self.config.attempts:
            return f"{who}counts attempt {failed} of {name} and hands it back", put(s, number, IDLE)
        s = s._replace(row=inbox.given_up(s.row) or s.row)
        text = f"{who}counts attempt {failed} of {name}, the last; the row is {state_of(s.row)}"
        return text, put(s, number, answering(w, "exhausted"))

    # --- an outside handler: between a committed claim and a transaction of its own

    def _run(self, s: State, number: int, w: Worker, who: str) -> Iterator[Step]:
        name, world = MESSAGES[w.message], s.world
        if KIND[w.message] == "do" and self.config.declines and not world.outside:
            declined = put(s._replace(world=world._replace(is_declined=True)), number, w._replace(at="ran", got="no"))
            yield f"{who}calls the outside for {name}: it says no to the key", declined
            if world.is_declined and self.order.declines_for_good:
                return
        if KIND[w.message] == "do":
            is_there = world.outside and (self.order.outside_remembers or not world.outside_undone)
            acted = world if is_there else world._replace(outside=world.outside + 1)
        else:
            acted = world._replace(outside_undone=1)
        after = s._replace(world=acted)
        yield f"{who}calls the outside for {name}: it is done there", put(after, number, w._replace(at="ran", got="ok"))
        if acted != world:
            without_answer = put(after, number, w._replace(at="ran", got="raised"))
            yield f"{who}calls the outside for {name}: done there, but its answer does not come", without_answer
        yield f"{who}the handler of {name} raises, nothing done", put(s, number, w._replace(at="ran", got="raised"))
        if KIND[w.message] == "do" and self.config.step != "retriable":
            yield f"{who}the handler of {name} refuses", put(s, number, w._replace(at="ran", got="refused"))

    def _end_run(self, s: State, number: int, w: Worker, who: str) -> Iterator[Step]:
        """The one transaction after a run: under the row's lock, and only if the claim is still its own."""
        message, name, asked = w.message, MESSAGES[w.message], ask(s, w.message)
        assert s.row is not None
        ended = inbox.without_run(s.row, f"{w.claim}@w")
        if not owns(asked, s.row, w.claim):
            text = f"{who}claim {w.claim} is not its own any more: writes that the run ended, drops {name}"
            yield text, put(s._replace(row=ended), number, IDLE)
        elif w.got == "ok":
            row = after_success(asked, ended)
            world = acted_inside(s.world, message)
            done = answering(w, "done" if KIND[message] == "do" else "undone")
            text = f"{who}commits the answer to {name} under claim {w.claim}"
            yield text, put(s._replace(row=row, world=world), number, done)
        elif w.got == "no" or (w.got == "refused" and (w.is_clean or not self.order.refusal_needs_clean)):
            row = msgspec.structs.replace(ended, state="refused", answer=NO, due_at=None)
            text = f"{who}commits the refusal of {name} under claim {w.claim}"
            yield text, put(s._replace(row=row), number, answering(w, "refused"))
        else:
            yield self._count(s._replace(row=ended), number, w, who)

    # --- the coordinator

    def _coordinator(self, s: State) -> Iterator[Step]:
        step, said, sent = self.config.step, s.said, s.sent
        dos, undos, settles = said[DO1] | said[DO2], said[UNDO1] | said[UNDO2], said[SETTLE1] | said[SETTLE2]
        last = said[DO2 if sent[DO2] else DO1]
        yield from self._closed(s)
        match s.phase:
            case "sent":
                if "done" in dos:
                    yield "coordinator: the step is done", s._replace(phase="done")
                if "refused" in last:
                    yield "coordinator: the step was refused", s._replace(phase="refused")
                why = "do is exhausted" if "exhausted" in last else "no answer in time"
                if step in ("retriable", "any") and not sent[DO2]:
                    yield f"coordinator: {why}, sends do2", send(s, DO2)
                if step in ("compensable", "any"):
                    yield f"coordinator: {why}, sends undo1", send(s, UNDO1, "undoing")
                if step == "pivot":
                    yield f"coordinator: {why}, sends settle1", send(s, SETTLE1, "settling")
            case "done" if step in ("compensable", "any", "pivot") and self.config.turns:
                yield "coordinator: the saga turns, sends undo1", send(s, UNDO1, "undoing")
            case "settling":
                if "done" in dos or "happened" in settles:
                    yield "coordinator: the pivot has happened", s._replace(phase="done")
                if "refused" in said[DO1]:
                    yield "coordinator: the pivot was refused", s._replace(phase="refused")
                if "never" in settles:
                    yield "coordinator: the pivot never happened", s._replace(phase="never")
                if not sent[SETTLE2] and self.config.again:
                    yield "coordinator: asks again, sends settle2", send(s, SETTLE2)
            case "undoing":
                if "nothing found" in undos:
                    yield "coordinator: nothing was to undo", s._replace(phase="nothing to undo")
                if "undone" in undos:
                    yield "coordinator: the step is undone", s._replace(phase="undone")
                if not sent[UNDO2] and self.config.again:
                    yield "coordinator: tries again, sends undo2", send(s, UNDO2)
            case _:
                pass  # the step is over

    def _closed(self, s: State) -> Iterator[Step]:
        """What the answer to a close decides: resolved, or what the machine did."""
        if s.phase not in ("sent", "settling", "undoing"):
            return
        is_undoing = s.phase == "undoing"
        for number, form in zip((CLOSE1, CLOSE2), s.forms, strict=True):
            said = s.said[number]
            if "closed" in said and not (is_undoing and form == "done"):
                yield "coordinator: tells the operator that it is resolved", s._replace(phase="resolved")
            elif "done already" in said and not is_undoing:
                yield "coordinator: rejects the resolve, the machine has done it", s._replace(phase="done")
            elif "refused already" in said and not is_undoing:
                yield "coordinator: rejects the resolve, it was refused", s._replace(phase="refused")
            elif "undone already" in said and form == "undone":
                yield "coordinator: rejects the resolve, the machine has undone it", s._replace(phase="undone")
            elif "void already" in said:
                phase = "nothing to undo" if is_undoing else "never"
                yield "coordinator: rejects the resolve, nothing is there", s._replace(phase=phase)

    # --- the operator

    def _forms(self, s: State) -> tuple[CloseForm, ...]:
        match s.phase:
            case "undoing":
                return ("undone",)
            case "settling":
                return ("done", "never")
            case "sent" if self.config.step == "retriable":
                return ("done",)
            case _:
                return ()

    def _operator(self, s: State) -> Iterator[Step]:
        if not self.config.closes:
            return
        if not s.sent[CLOSE1]:
            for form in self._forms(s):
                if self.order.resolves_through_inbox:
                    asked = s._replace(forms=(form, None))
                    yield f"? the operator resolves: {form}; close1 is sent", send(asked, CLOSE1)
                else:
                    belief = (form, int(bool(s.world.outside or s.world.effect)), 0)
                    world = s.world._replace(belief=belief, is_by_hand=form == "done")
                    told = s._replace(phase="resolved", world=world)
                    yield f"? the operator resolves: {form}, and is told so at once", told
        elif "doubt" in s.said[CLOSE1] and not s.sent[CLOSE2]:
            done, undone = self.outside_of(s.world)
            forms = self._forms(s)
            if s.phase == "settling" and done:
                forms = ("done",)
            if s.phase == "undoing":  # done: the machine is to compensate, with the operator's answer
                forms = ("undone", "done") if done and not undone else ("undone",) if done else ("undone", "never")
            for form in forms:
                asked = s._replace(forms=(s.forms[0], form), seen=(done, undone))
                looks = f"looks outside (done {done}, undone {undone})"
                yield f"? the operator {looks}, resolves: {form}; close2 is sent", send(asked, CLOSE2)

    def outside_of(self, world: World) -> tuple[int, int]:
        """What whoever looks finds done and undone, in the database or beyond it."""
        done = world.outside if self.config.do_outside else world.effect
        return done, world.outside_undone if self.config.undo_outside else world.undone

    # --- faults

    def _fault(self, s: State) -> Iterator[Step]:
        s = s._replace(faults=s.faults + 1)
        for number, w in enumerate(s.workers):
            if w.at == "idle":
                continue
            name, row = MESSAGES[w.message], s.row
            if w.at in RUNNING and row is not None:  # whoever gets the dead process's lock ends its runs
                row = inbox.without_run(row, f"{w.claim}@w")
            dead = s._replace(row=row)
            yield f"! the worker with {name} is killed", put(dead, number, IDLE)
            if w.at in ("in transaction", *RUNNING) and w.message <= UNDO2:
                failed = min(self.config.attempts, s.failed[w.message] + 1)
                counted = dead._replace(failed=swap(s.failed, w.message, failed))
                yield f"! the worker with {name} is killed, and that counts as an attempt", put(counted, number, IDLE)
            if w.at in ("in transaction", "uncommitted"):
                yield f"! the database rolls the transaction for {name} back", put(s, number, IDLE)
            if not w.is_stale:
                yield f"! the worker with {name} stalls, its lease runs out", put(s, number, w._replace(is_stale=True))
        if s.sent[DO1] == LIVE and not any(w.message == DO1 for w in s.workers):
            yield "! the message of do1 is gone from the stream", s._replace(sent=swap(s.sent, DO1, GONE))


def ask(s: State, message: int) -> Asked:
    """A message as the inbox sees it."""
    if message < CLOSE1:
        return Asked(message)
    return Asked(message, s.forms[message - CLOSE1], s.named if message == CLOSE2 else 0)


def state_of(row: Row | None) -> str:
    """The state of a row, in a word."""
    return "none" if row is None else row.state


def is_by_operator(row: Row | None) -> bool:
    """Whether a row holds an operator's answer."""
    return row is not None and row.answer == OPERATOR


def acted_inside(world: World, message: int) -> World:
    """The world once the effect of a message is committed."""
    return world._replace(effect=world.effect + 1) if KIND[message] == "do" else world._replace(undone=world.undone + 1)


def answering(w: Worker, word: str) -> Worker:
    """The worker once its answer is durable."""
    return Worker("answering", w.message, w.is_stale, got=word)


def say(s: State, number: int, w: Worker, at: str = "said") -> State:
    """The answer is stored in the stream. All answers to a close have one subject, where the first one stands."""
    is_first = not s.said[w.message]
    if w.message == CLOSE1 and w.got == "doubt" and is_first:
        s = s._replace(named=w.claim)
    if KIND[w.message] != "close" or is_first:
        s = s._replace(said=swap(s.said, w.message, s.said[w.message] | {w.got}))
    return put(s, number, Worker(at, w.message, w.is_stale))


def put(s: State, number: int, w: Worker) -> State:
    """The state with one worker changed. The two are alike, so they are kept in order."""
    other = s.workers[1 - number]
    return s._replace(workers=(w, other) if w <= other else (other, w))


def swap(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    """The values with another one at a place."""
    return (*values[:place], value, *values[place + 1 :])


def send(s: State, message: int, phase: str = "") -> State:
    """The state once a message is in the stream."""
    return s._replace(sent=swap(s.sent, message, LIVE), phase=phase or s.phase)
