"""A journal always keeps room for its saga's way out: what fails becomes rarer, and requests are rejected in time."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any, get_args

import pytest

from antiphon.contracts import Command, Compensation, Event, Retry, Unavailable
from antiphon.contracts.envelope import decode
from antiphon.contracts.payloads import Operation, Record
from antiphon.contracts.subjects import Verb
from antiphon.coordinator import Saga, State
from antiphon.coordinator.decision.dues import earliest_ns
from antiphon.coordinator.decision.facts import Answer, Finish, Operated, Send, SendClose, Start
from antiphon.coordinator.decision.history import ENTRIES_MAX
from antiphon.coordinator.decision.room import KEPT_FOR_CLOSES, KEPT_FOR_VERBS, PAUSE_ENTRIES, attempts_left, owed, room
from antiphon.coordinator.testing import rehearse
from antiphon.participants import Participant, Transaction
from antiphon.participants.testing import Service
from tests.unit.decide.life import BEGUN_NS, SECOND, Life

HOUR = 3600 * SECOND
DAY = 24 * HOUR


class Ordered(Event, name="bulk.ordered"):
    pass


class Kept(Event, name="bulk.kept", owner="depot"):
    pass


class Keep(Command[Kept], name="bulk.keep"):
    number: int


class Drop(Compensation[Keep], name="bulk.drop"):
    number: int


def bulk(size: int) -> Saga[Ordered]:
    """A saga with a list of so many elements, which is undone."""
    saga = Saga(Ordered, name="bulk", version=1, deadline=timedelta(days=30))

    @saga.each(at_most=size)
    def keep(s: State[Ordered]) -> list[Keep]:
        return [Keep(number=number) for number in range(size)]

    @keep.compensation
    def drop(s: State[Ordered], command: Keep) -> Drop:
        return Drop(number=command.number)

    return saga


class Bulk(Life):
    """The life of such a saga, all of whose elements were kept, and whose depot is out of order for a while."""

    def __init__(self, size: int) -> None:
        super().__init__(bulk(size))
        self.take(Start(1, self.now_ns, Ordered()))
        self.elements = [name for name in self.history.steps if "-" in name]
        for name in self.elements[1:]:
            self.take(Answer(self._next(), self.now_ns, name, "do", 1, "done", 0, Kept()))
        self.pending: list[Send] = []
        self.note(self.cancel())

    def note(self, entries: list[Any]) -> None:
        self.pending += [each for each in entries if isinstance(each, Send)]

    def answer_all(self, is_there: bool, delay_ns: int = SECOND // 100) -> None:
        """The depot answers what was sent, and what follows at once."""
        while self.pending:
            send = self.pending.pop(0)
            self.now_ns += delay_ns
            self.note(self.answer(send.step, "done" if is_there else "exhausted", "undo", send.attempt))

    def out_of_order_for(self, duration_ns: int) -> None:
        """Nothing works until the time is over."""
        end_ns = self.now_ns + duration_ns
        self.answer_all(is_there=False)
        while (due_ns := earliest_ns(self.history)) and due_ns < end_ns:
            self.note(self.tick(max(due_ns, self.now_ns)))
            self.answer_all(is_there=False)
        self.now_ns = end_ns

    def in_order(self) -> int:
        """All works again; how many nanoseconds it takes until all is undone."""
        begun_ns = self.now_ns
        self.answer_all(is_there=True)
        while self.history.end is None and (due_ns := earliest_ns(self.history)):
            self.note(self.tick(max(due_ns, self.now_ns)))
            self.answer_all(is_there=True)
        return self.now_ns - begun_ns

    def fill(self, left: int) -> None:
        """Have a person use up a journal, until there is room for fewer entries than that."""
        while room(self.history) >= max(left, KEPT_FOR_CLOSES + PAUSE_ENTRIES):
            self.ask("resume" if self.history.paused else "pause")
        if self.history.paused:
            self.ask("resume")

    def ask(self, verb: Verb, step: str = "", asks: bool = True) -> list[Any]:
        operation = Operation(step=step, reason="by hand", asks=verb == "resolve" and asks)
        found = self.take(Operated(self._next(), self.now_ns, "ada", verb, operation))
        self.note(found)
        return found

    def resolve(self, step: str) -> list[Any]:
        """A person has dealt with a step, and its participant takes that for what became of it. Where the journal has
        no room to ask, the participant is not asked."""
        (close,) = self.ask("resolve", step)
        if isinstance(close, SendClose):
            found = self.closed(step)
            self.note(found)
            return found
        assert "a resolve without the participant is still taken" in close.rejected
        return self.ask("resolve", step, asks=False)


@pytest.mark.parametrize(
    ("size", "outage_ns", "bound"),
    [(1, 3 * DAY, 0.05), (50, 600 * SECOND, 0.5), (190, 60 * SECOND, 1.0), (10, 6 * HOUR, 0.05), (50, 6 * HOUR, 0.5)],
)
def test_whatever_was_away_for_long_all_is_undone_by_itself_afterwards(size: int, outage_ns: int, bound: float) -> None:
    life = Bulk(size)
    life.out_of_order_for(outage_ns)
    assert life.history.end is None
    assert room(life.history) >= KEPT_FOR_VERBS
    took_ns = life.in_order()
    assert life.state == "compensated"
    assert len(life.journal) == life.history.entries <= ENTRIES_MAX
    assert took_ns < bound * outage_ns


def test_one_element_that_never_works_does_not_keep_the_others_from_being_undone() -> None:
    life = Bulk(100)
    for _ in range(2000):
        if not life.pending:
            if not (due_ns := earliest_ns(life.history)):
                break
            life.note(life.tick(max(due_ns, life.now_ns)))
            continue
        send = life.pending.pop(0)
        life.now_ns += SECOND // 100
        life.note(life.answer(send.step, "exhausted" if send.step == "keep-7" else "done", "undo", send.attempt))
    phases = life.phases()
    assert phases.pop("keep-7") == "undoing"
    del phases["keep"]
    assert set(phases.values()) == {"undone"}
    assert "keep-7" in life.history.parked
    assert isinstance(life.resolve("keep-7")[-1], Finish)


@pytest.mark.parametrize("size", [100, 150, 190])
@pytest.mark.parametrize("which", ["the first", "the last"])
def test_elements_that_succeed_at_the_second_attempt_are_all_undone(size: int, which: str) -> None:
    life = Bulk(size)
    weak = life.elements[:60] if which == "the first" else life.elements[-60:]
    while life.history.end is None:
        if not life.pending:
            due_ns = earliest_ns(life.history)
            assert due_ns, life.history.parked
            life.note(life.tick(max(due_ns, life.now_ns)))
            continue
        send = life.pending.pop(0)
        life.now_ns += SECOND // 100
        fails = send.step in weak and send.attempt == 1
        life.note(life.answer(send.step, "exhausted" if fails else "done", "undo", send.attempt))
    assert life.state == "compensated"


@pytest.mark.parametrize("size", [150, 190])
def test_where_all_fail_a_person_can_resolve_each_of_them(size: int) -> None:
    life = Bulk(size)
    while earliest_ns(life.history) or life.pending:
        life.answer_all(is_there=False)
        if due_ns := earliest_ns(life.history):
            life.note(life.tick(max(due_ns, life.now_ns)))
    for name in life.elements:
        if life.history.end is None:
            assert isinstance(life.resolve(name)[0], Record)
            assert life.history.steps[name].phase != "done"
    assert life.state == "compensated"
    assert life.history.entries <= ENTRIES_MAX


def test_what_others_depend_on_is_resolved_after_them() -> None:
    life = Life()
    life.start()
    life.answer("book_room")
    life.answer("book_seat")
    life.cancel()
    asked = Operated(life._next(), life.now_ns, "ada", "resolve", Operation(step="book_room", reason="by hand"))
    (record,) = life.take(asked)
    assert isinstance(record, Record)
    assert record.rejected == "book_room does not wait for anybody: it is done"


def test_a_thousand_flaps_leave_room_for_the_way_out() -> None:
    chance = Random(7)
    life = Bulk(150)
    for _ in range(1000):
        if life.history.end is not None:
            break
        is_there = chance.random() < 0.02
        life.answer_all(is_there)
        if not (due_ns := earliest_ns(life.history)):
            break
        life.note(life.tick(max(due_ns, life.now_ns)))
    assert room(life.history) >= 0
    life.in_order()
    while life.history.end is None:
        waiting = next(name for name, step in life.history.steps.items() if step.phase == "undoing")
        life.ask("retry", waiting)
        life.in_order()
    assert life.state == "compensated"


VERBS = [verb for verb in get_args(Verb) if verb != "edit"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 50, 190])
def test_any_mixture_of_verbs_leaves_room_for_the_way_out(seed: int, size: int) -> None:
    chance = Random(seed)
    life = Bulk(size)
    for _ in range(1500):
        if life.history.end is not None:
            break
        verb = chance.choice([each for each in VERBS if each != "resolve"])
        life.ask(verb, chance.choice([*life.elements, ""]) if verb == "retry" else "")
        life.answer_all(is_there=False)
        if chance.random() < 0.1 and (due_ns := earliest_ns(life.history)):
            life.note(life.tick(max(due_ns, life.now_ns)))
            life.answer_all(is_there=False)
    if life.history.paused:
        life.ask("resume")
    for name in life.elements:
        if life.history.end is None and life.history.steps[name].phase == "undoing":
            life.resolve(name)
    assert life.state == "compensated"
    subjects = {message.subject for message in life.journal}
    assert len(subjects) == life.history.entries <= ENTRIES_MAX


def test_of_requests_without_room_one_entry_tells_and_they_are_not_fulfilled_later() -> None:
    life = Bulk(1)
    life.fill(2)
    asked = len(life.facts)
    paused = life.ask("pause")
    assert paused == [Record(by="ada", rejected=paused[0].rejected, full=True)]
    assert "of 900 entries, and the rest is kept for compensations and operators" in paused[0].rejected
    entries = life.history.entries
    again = life.ask("pause")
    assert again[0].full
    assert life.history.entries == entries
    # A read gives the last of a subject's messages, so the first of the two requests is named by nothing.
    journal = {message.subject: message for message in life.journal}
    life.journal = sorted(journal.values(), key=lambda message: message.sequence)
    assert life.refolded().entries == entries
    life.history = life.refolded()
    life.tick(life.now_ns + 90 * SECOND)
    life.undo_fails("keep-0", 1)
    assert life.take(life.facts[asked + 1]) == []
    assert not life.history.paused


def test_an_answer_to_a_command_that_was_not_read_has_an_entry_however_full_the_journal_is() -> None:
    """Acked without one, it would be lost where the journal was read from a replica that lags."""
    life = Bulk(1)
    life.fill(2)
    assert room(life.history) < KEPT_FOR_VERBS

    def answer_again(command: int) -> list[Any]:
        return life.take(Answer(life._next(), life.now_ns, "keep-0", "do", 1, "done", command, Kept()))

    assert answer_again(life.history.sequence) == []
    assert answer_again(life.history.sequence + 1) == [Record()]


def test_a_success_gives_the_next_its_turn() -> None:
    life = Bulk(3)
    life.answer_all(is_there=False)
    first = min(life.elements, key=lambda name: life.history.steps[name].again_ns)
    (sent,) = life.tick(life.history.steps[first].again_ns)
    assert sent == Send(first, "undo", 2)
    following = life.answer(first, "done", "undo", 2)
    assert len(following) == 1
    assert isinstance(following[0], Send)


def test_what_has_no_room_waits_and_a_person_is_told_once() -> None:
    life = Bulk(1)
    life.fill(KEPT_FOR_VERBS + 2)
    life.answer_all(is_there=False)
    assert earliest_ns(life.history) == BEGUN_NS + 30 * DAY or earliest_ns(life.history) == 0
    assert "is kept for compensations: keep-0 wait" in life.history.parked
    records = [decode(each.data, each.subject) for each in life.journal]
    assert sum(b"kept for compensations: " in bytes(each.data) for each in records) == 1
    retried = life.ask("retry", "keep-0")
    assert retried[-1] == Send("keep-0", "undo", 2)
    assert life.history.parked == ""
    assert isinstance(life.answer("keep-0", "done", "undo", 2)[-1], Finish)


def test_what_a_saga_owes_never_grows_but_by_what_it_has_left() -> None:
    """Whatever happens to a saga of the greatest size, its journal is never longer than it may be."""
    life = Life(bulk(200))
    life.take(Start(1, life.now_ns, Ordered()))
    assert life.history.entries + owed(life.history) <= ENTRIES_MAX
    for number in range(199):
        life.take(Answer(life._next(), life.now_ns, f"keep-{number}", "do", 1, "done", 0, Kept()))
        assert life.history.entries + owed(life.history) <= ENTRIES_MAX


# --- what people ask for ----------------------------------------------------------------------------------------------


def test_requests_that_make_no_sense_do_not_use_up_what_is_tried_again() -> None:
    life = Bulk(10)
    life.answer_all(is_there=False)
    for _ in range(900):
        life.ask("retry", "keep-99")
    assert attempts_left(life.history) > 100
    assert not life.ask("retry", "keep-3")[0].rejected
    life.in_order()
    assert life.state == "compensated"


@pytest.mark.parametrize(("size", "step", "hours"), [(1, "keep-0", 24), (10, "", 24), (100, "", 24), (190, "", 3)])
def test_who_asks_every_minute_for_long_can_still_ask_when_it_works_again(size: int, step: str, hours: int) -> None:
    life = Bulk(size)
    life.answer_all(is_there=False)
    for _ in range(hours * 60):
        life.now_ns += 60 * SECOND
        life.ask("retry", step)
        life.answer_all(is_there=False)
        while 0 < earliest_ns(life.history) <= life.now_ns:
            life.note(life.tick(life.now_ns))
            life.answer_all(is_there=False)
    assert room(life.history) >= 0
    for _ in range(60 * 24):
        life.now_ns += 60 * SECOND
        if life.history.end is None:
            life.ask("retry", step)
            life.in_order()
    assert life.state == "compensated"
    assert life.history.entries <= ENTRIES_MAX


def test_a_rejected_request_sends_nothing() -> None:
    life = Bulk(100)
    life.answer_all(is_there=False)
    for _ in range(20):
        entries = life.ask("retry")
        life.answer_all(is_there=False)
        if entries[0].rejected:
            assert len(entries) == 1
    assert room(life.history) >= 0


def test_a_function_that_raised_a_thousand_times_may_be_mended_all_the_same() -> None:
    is_mended = [False]
    saga = Saga(Ordered, name="bulk", version=1, deadline=timedelta(days=30))

    @saga.step()
    def keep(s: State[Ordered]) -> Keep:
        return Keep(number=1)

    @keep.compensation
    def drop(s: State[Ordered]) -> Drop:
        if not is_mended[0]:
            raise KeyError("number")
        return Drop(number=1)

    life = Bulk.__new__(Bulk)
    Life.__init__(life, saga)
    life.pending = []
    life.take(Start(1, life.now_ns, Ordered()))
    life.cancel()
    for _ in range(1000):
        life.ask("retry")
    assert life.history.fault
    assert room(life.history) >= KEPT_FOR_VERBS - 2
    assert life.ask("retry")[0].rejected == "keep raised KeyError('number'), again"
    is_mended[0] = True
    assert life.ask("retry")[-1] == Send("keep", "undo", 1)
    life.answer_all(is_there=True)
    assert life.state == "compensated"


def test_a_person_is_told_although_one_was_told_of_another_step_before() -> None:
    life = Bulk(150)
    life.answer_all(is_there=False)
    first = life.elements[0]
    for _ in range(12):
        life.now_ns += HOUR
        life.ask("retry", first)
        life.answer_all(is_there=False)
    assert life.history.marked
    life.resolve(first)
    life.out_of_order_for(30 * DAY)
    assert attempts_left(life.history) or life.history.parked


# --- past the pivot, where no answer comes in time --------------------------------------------------------------------


class Sold(Event, name="bulk.sold", owner="till"):
    pass


class Sell(Command[Sold], name="bulk.sell"):
    pass


@pytest.mark.parametrize(
    ("size", "timeout_seconds", "outage_ns"),
    [(20, 30, 12 * HOUR), (50, 30, 6 * HOUR), (1, 5, 30 * DAY), (100, 0.3, HOUR)],
)
def test_late_answers_to_all_that_was_sent_again_leave_room_for_what_follows(
    size: int, timeout_seconds: float, outage_ns: int
) -> None:
    saga = Saga(Ordered, name="bulk", version=1, deadline=timedelta(days=60))

    @saga.step(pivot=True)
    def sell(s: State[Ordered]) -> Sell:
        return Sell()

    @saga.each(after=sell, at_most=size, timeout=timedelta(seconds=timeout_seconds))
    def keep(s: State[Ordered]) -> list[Keep]:
        return [Keep(number=number) for number in range(size)]

    @saga.step(after=keep)
    def sell_more(s: State[Ordered]) -> Sell:
        return Sell()

    life = Life(saga)
    sent: list[Send] = []

    def note(entries: list[Any]) -> None:
        sent.extend(each for each in entries if isinstance(each, Send))

    life.take(Start(1, life.now_ns, Ordered()))
    note(life.take(Answer(2, life.now_ns, "sell", "do", 1, "done", 0, Sold())))
    end_ns = life.now_ns + outage_ns
    while 0 < (due_ns := earliest_ns(life.history)) < end_ns:
        note(life.tick(max(due_ns, life.now_ns)))
    life.now_ns = max(end_ns, life.now_ns)
    while sent:
        send = sent.pop(0)
        is_last = send.attempt == life.history.steps[send.step].attempts
        reply = Sold() if send.step == "sell_more" else Kept()
        kind: Any = "done" if is_last else "superseded"
        fact = Answer(
            life._next(), life.now_ns, send.step, "do", send.attempt, kind, 1, reply if is_last else None, kind
        )
        note(life.take(fact))
    while life.history.end is None and (due_ns := earliest_ns(life.history)):
        note(life.tick(max(due_ns, life.now_ns)))
        for send in sent:
            reply = Sold() if send.step == "sell_more" else Kept()
            life.take(Answer(life._next(), life.now_ns, send.step, "do", send.attempt, "done", 1, reply))
        sent.clear()
    assert life.state == "completed"
    assert life.history.entries <= ENTRIES_MAX


# --- with real coordinators and handlers, in memory -------------------------------------------------------------------


@pytest.mark.parametrize(("size", "outage"), [(20, timedelta(minutes=10))])
async def test_a_gateway_that_was_away_is_all_that_it_takes(size: int, outage: timedelta) -> None:
    depot = Participant("depot")
    away = [False]
    kept: set[int] = set()

    @depot.handles(Keep)
    async def keep(command: Keep, tx: Transaction) -> Kept:
        kept.add(command.number)
        return Kept()

    @depot.compensates(Keep)
    async def drop(command: Drop, reply: Kept, tx: Transaction) -> None:
        if away[0]:
            raise Unavailable("the gateway is away")
        kept.remove(command.number)

    saga = Saga(Ordered, name="bulk", version=1, deadline=timedelta(days=30), compensation_retry=Retry(attempts=1))

    @saga.each(at_most=size)
    def keep_all(s: State[Ordered]) -> list[Keep]:
        return [Keep(number=number) for number in range(size)]

    @keep_all.compensation
    def drop_all(s: State[Ordered], command: Keep) -> Drop:
        return Drop(number=command.number)

    saga.wait("think", timedelta(days=20), after=keep_all)
    async with Service.open(depot) as service, rehearse([saga], [service]) as rehearsal:
        order = await rehearsal.start(saga, Ordered())
        assert len(kept) == size
        away[0] = True
        await order.cancel("enough")
        await rehearsal.run(outage)
        assert order.outcome() is None
        away[0] = False
        await rehearsal.run(outage)
        assert order.outcome() == "compensated"
        assert not kept
