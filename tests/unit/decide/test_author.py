"""What was sent once is never computed again: an author's functions may answer as they like at every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import msgspec
import pytest

from antiphon.contracts import Command, Compensation, Event, Refused
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, decode, unpack
from antiphon.contracts.errors import DefinitionError
from antiphon.contracts.payloads import RECORD_TYPE, ChildStart, End, Operation, Record
from antiphon.contracts.stored import StoredMessage
from antiphon.coordinator import Saga, State
from antiphon.coordinator.decision.author import Author
from antiphon.coordinator.decision.facts import Answer, Cancel, ChildEnded, Granted, Operated, Send, Start
from antiphon.coordinator.decision.history import History, begin
from antiphon.coordinator.decision.lists import SPREAD_BYTES_MAX
from antiphon.coordinator.decision.notices import notices
from antiphon.coordinator.decision.plan import plan
from tests.unit.decide.life import BEGUN_NS, KEY, TIME, Life

DAYS = timedelta(days=9)


class Ordered(Event, name="pens.ordered"):
    items: frozenset[str] = frozenset({"cap", "pen", "ink"})


class Kept(Event, name="pens.kept", owner="stock"):
    shelf: int


class Keep(Command[Kept], name="pens.keep"):
    item: str
    call: int = 0


class Drop(Compensation[Keep], name="pens.drop"):
    item: str
    shelf: int | None = None
    call: int = 0


class Sold(Event, name="pens.sold", owner="till"):
    pass


class Sell(Command[Sold], name="pens.sell"):
    call: int


class Fickle:
    """A saga whose functions answer otherwise at every call, as a process with another hash seed, a later time or a
    newer version would."""

    def __init__(self, items: Callable[[int], list[str]] = lambda call: [f"{call}-a", f"{call}-b"]) -> None:
        self.calls: dict[str, Iterator[int]] = {}
        saga = self.saga = Saga(Ordered, name="pens", version=1, deadline=timedelta(days=9))

        @saga.step()
        def keep_one(s: State[Ordered]) -> Keep:
            return Keep(item=f"one-{self.call('keep_one')}")

        @keep_one.compensation
        def drop_one(s: State[Ordered], command: Keep, reply: Kept | None) -> Drop:
            return Drop(item=command.item, shelf=reply.shelf if reply else None, call=self.call("drop_one"))

        @saga.each(after=keep_one, at_most=150)
        def keep_all(s: State[Ordered]) -> list[Keep]:
            call = self.call("keep_all")
            return [Keep(item=item, call=call) for item in items(call)]

        @keep_all.compensation
        def drop_all(s: State[Ordered], command: Keep, reply: Kept | None) -> Drop:
            return Drop(item=command.item, shelf=reply.shelf if reply else None, call=self.call("drop_all"))

        @saga.step(after=keep_all, pivot=True)
        def sell(s: State[Ordered]) -> Sell:
            return Sell(call=self.call("sell"))

        @saga.each(after=sell, at_most=2)
        def send_all(s: State[Ordered]) -> list[Keep]:
            return [Keep(item=f"sent-{self.call('send_all')}")]

    def call(self, function: str) -> int:
        return next(self.calls.setdefault(function, count(1)))


class Shop(Life):
    """The life of a fickle saga, of which every coordinator that goes on with it begins by reading the journal."""

    def __init__(self, fickle: Fickle) -> None:
        super().__init__(fickle.saga)

    def take(self, fact: Any, stored_max: int | None = None) -> Any:
        self.history = self.refolded()
        return super().take(fact, stored_max)

    def begin(self) -> None:
        self.take(Start(self._next(), self.now_ns, Ordered()))

    def kept(self, step: str, shelf: int = 7) -> None:
        self.take(Answer(self._next(), self.now_ns, step, "do", 1, "done", 0, Kept(shelf=shelf)))

    def answer_refused(self, step: str) -> None:
        self.take(Answer(self._next(), self.now_ns, step, "do", 1, "refused", 0, reason="no"))

    def payload(self, step: str, direction: str = "do", attempt: int = 1) -> dict[str, Any]:
        """What was sent."""
        (found,) = [message for message in self.journal if f".{step}.{direction}.{attempt}" in message.subject]
        return dict(msgspec.json.decode(decode(found.data, found.subject).data))

    def sent(self) -> list[str]:
        return [read.what.step for read in self.entries() if isinstance(read.what, Send)]


def shop_with_all_kept(fickle: Fickle | None = None) -> Shop:
    life = Shop(fickle or Fickle())
    life.begin()
    life.kept("keep_one", shelf=1)
    life.kept("keep_all-0", shelf=2)
    life.kept("keep_all-1", shelf=3)
    return life


def test_a_list_is_asked_for_once_and_its_elements_are_what_was_said() -> None:
    fickle = Fickle()
    life = shop_with_all_kept(fickle)
    assert [life.payload(f"keep_all-{number}")["item"] for number in (0, 1)] == ["1-a", "1-b"]
    assert next(fickle.calls["keep_all"]) == 2


def test_all_commands_of_a_list_are_in_the_journal_before_the_first_is_sent() -> None:
    life = Shop(Fickle())
    life.begin()
    life.take(Answer(life._next(), life.now_ns, "keep_one", "do", 1, "done", 0, Kept(shelf=1)), stored_max=1)
    assert life.sent() == ["keep_one"]
    for fact in list(life.facts.values()):  # the next coordinator is another process
        life.take(fact)
    assert [life.payload(f"keep_all-{number}")["item"] for number in (0, 1)] == ["1-a", "1-b"]


def test_a_list_too_large_for_one_entry_stands_in_several_and_goes_out_when_it_is_whole() -> None:
    large = "x" * (SPREAD_BYTES_MAX // 3)
    fickle = Fickle(items=lambda call: [f"{call}-{number}-{large}" for number in range(7)])
    life = Shop(fickle)
    life.begin()
    life.kept("keep_one")
    records = [decode(each.data, each.subject) for each in life.journal if ".rec." in each.subject]
    spreads = [unpack(each, RECORD_TYPE, Record) for each in records]
    assert [(each.first, len(each.commands), each.elements) for each in spreads] == [
        (0, 2, -1),
        (2, 2, -1),
        (4, 2, -1),
        (6, 1, 7),
    ]
    assert max(len(each.data) for each in life.journal) < MESSAGE_BYTES_MAX
    assert life.sent() == ["keep_one", *(f"keep_all-{number}" for number in range(7))]


@pytest.mark.parametrize("stored", [1, 2, 3])
def test_a_list_that_was_torn_while_it_was_written_down_is_asked_for_anew_as_nothing_of_it_was_sent(
    stored: int,
) -> None:
    large = "x" * (SPREAD_BYTES_MAX // 3)
    fickle = Fickle(items=lambda call: [f"{call}-{number}-{large}" for number in range(7)])
    life = Shop(fickle)
    life.begin()
    life.take(Answer(life._next(), life.now_ns, "keep_one", "do", 1, "done", 0, Kept(shelf=1)), stored_max=stored)
    assert life.sent() == ["keep_one"]
    for fact in list(life.facts.values()):
        life.take(fact)
    items = [life.payload(f"keep_all-{number}")["item"] for number in range(7)]
    assert items == [f"2-{number}-{large}" for number in range(7)]
    assert life.refolded() == life.history


def test_a_compensation_is_given_the_very_command_and_reply_that_it_undoes() -> None:
    life = shop_with_all_kept()
    life.cancel()  # the pivot is in flight
    life.answer_refused("sell")
    assert life.payload("keep_all-0", "undo") == {"item": "1-a", "shelf": 2, "call": 1}
    assert life.payload("keep_all-1", "undo") == {"item": "1-b", "shelf": 3, "call": 2}


def test_a_compensation_of_what_may_have_happened_is_given_no_reply() -> None:
    life = Shop(Fickle())
    life.begin()
    life.kept("keep_one")
    life.kept("keep_all-1", shelf=3)
    life.cancel()
    assert life.payload("keep_all-0", "undo")["shelf"] is None
    assert life.payload("keep_all-1", "undo")["shelf"] == 3


def test_a_compensation_that_failed_is_sent_again_as_it_was() -> None:
    life = shop_with_all_kept()
    life.cancel()
    life.answer_refused("sell")
    first = life.payload("keep_all-0", "undo")
    life.undo_fails("keep_all-0", 1)
    life.due("keep_all-0")
    assert life.payload("keep_all-0", "undo", 2) == first


def test_an_element_past_the_pivot_is_sent_again_as_it_was() -> None:
    life = shop_with_all_kept()
    life.take(Answer(life._next(), life.now_ns, "sell", "do", 1, "done", 0, Sold()))
    first = life.payload("send_all-0")
    life.answer("send_all-0", "exhausted")
    life.due("send_all-0")
    assert life.payload("send_all-0", "do", 2) == first == {"item": "sent-1", "call": 0}


def test_what_an_operator_edits_is_what_is_sent_and_what_is_undone() -> None:
    life = shop_with_all_kept()
    life.cancel()
    life.answer_refused("sell")
    life.undo_fails("keep_all-0", 1)
    payload = msgspec.Raw(b'{"item": "by hand"}')
    operation = Operation(step="keep_all-0", payload=payload)
    life.take(Operated(life._next(), life.now_ns, "ann", "edit", operation))
    assert life.payload("keep_all-0", "undo", 2)["item"] == "by hand"
    life.undo_fails("keep_all-0", 2)
    life.due("keep_all-0")
    assert life.payload("keep_all-0", "undo", 3)["item"] == "by hand"


# --- journals of the release before ---------------------------------------------------------------------------------


def as_before(journal: list[StoredMessage]) -> list[StoredMessage]:
    """A journal as it was written before lists stood in it."""
    found: list[StoredMessage] = []
    for message in journal:
        envelope = decode(message.data, message.subject)
        if envelope.type != RECORD_TYPE or b"commands" not in bytes(envelope.data):
            found.append(message)
            continue
        record = unpack(envelope, RECORD_TYPE, Record)
        plain = msgspec.structs.replace(record, commands=())
        data = msgspec.json.encode(msgspec.structs.replace(envelope, data=msgspec.Raw(msgspec.json.encode(plain))))
        found.append(StoredMessage(message.subject, message.sequence, message.stored_ns, data))
    return found


def test_of_a_journal_of_the_release_before_what_was_sent_stands_and_only_the_rest_is_asked_for() -> None:
    fickle = Fickle()
    life = Shop(fickle)
    life.begin()
    life.take(Answer(life._next(), life.now_ns, "keep_one", "do", 1, "done", 0, Kept(shelf=1)), stored_max=2)
    life.journal = as_before(life.journal)
    for fact in list(life.facts.values()):
        life.take(fact)
    assert life.payload("keep_all-0")["item"] == "1-a"
    assert life.payload("keep_all-1")["item"] == "2-b"
    life.kept("keep_all-0")
    life.kept("keep_all-1")
    life.cancel()
    life.answer_refused("sell")
    assert [life.payload(f"keep_all-{number}", "undo")["item"] for number in (0, 1)] == ["1-a", "2-b"]


def test_a_list_of_the_release_before_that_has_become_shorter_parks_the_saga_with_a_sentence() -> None:
    fickle = Fickle(items=lambda call: ["a", "b"][: 3 - call])
    life = Shop(fickle)
    life.begin()
    life.take(Answer(life._next(), life.now_ns, "keep_one", "do", 1, "done", 0, Kept(shelf=1)), stored_max=2)
    life.journal = as_before(life.journal)
    for fact in list(life.facts.values()):
        life.take(fact)
    assert life.history.fault == "keep_all made a list of 1 commands, and had made a longer one before"


# --- children, keys, locks, conditions ------------------------------------------------------------------------------


def test_another_attempt_at_a_child_begins_it_with_the_same_event_under_another_id() -> None:
    calls = count(1)
    inner: Saga[Ordered] = Saga(Ordered, name="inner", version=1, deadline=DAYS)

    @inner.step(needs_no_compensation=True)
    def look(s: State[Ordered]) -> Sell:
        return Sell(call=0)

    outer: Saga[Ordered] = Saga(Ordered, name="outer", version=1, deadline=DAYS)

    @outer.step(pivot=True)
    def sell(s: State[Ordered]) -> Sell:
        return Sell(call=0)

    @outer.child(inner, after=sell)
    def again(s: State[Ordered]) -> Ordered:
        return Ordered(items=frozenset({str(next(calls))}))

    life = Life(outer)
    life.take(Start(1, life.now_ns, Ordered()))
    life.take(Answer(2, life.now_ns, "sell", "do", 1, "done", 0, Sold()))
    life.take(ChildEnded(3, life.now_ns, "again", 1, End(outcome="compensated", reason="no")))
    life.due("again")
    starts = [decode(each.data, each.subject) for each in life.journal if ".coordinator.again." in each.subject]
    first, second = [msgspec.json.decode(each.data, type=ChildStart) for each in starts]
    assert bytes(first.event) == bytes(second.event)
    assert (first.parent.attempt, second.parent.attempt) == (1, 2)
    assert first.child != second.child
    told = [tell.payload for tell in notices(life.refolded()).values() if isinstance(tell.payload, ChildStart)]
    assert [bytes(each.event) for each in told] == [bytes(second.event)]


def test_what_a_saga_is_found_by_is_what_was_said_first() -> None:
    calls = count(1)

    def found_by(start: Ordered) -> dict[str, str]:
        return {"call": str(next(calls))}

    saga = Saga(Ordered, name="pens", version=1, deadline=DAYS, keys=found_by, locks=needed)

    @saga.step(needs_no_compensation=True)
    def look(s: State[Ordered]) -> Sell:
        return Sell(call=0)

    life = Shop.__new__(Shop)
    Life.__init__(life, saga)
    life.begin()
    life.take(Granted(2, life.now_ns, "a"))
    life.take(Granted(3, life.now_ns, "b"))
    assert life.sent() == ["look"]
    keys = [decode(each.data, each.subject).keys for each in life.journal]
    assert keys == [{"call": "1"}] * len(life.journal)


def needed(start: Ordered) -> list[str]:
    return ["a", "b"]


class Panic(BaseException):
    """As a Rust extension raises it."""


@pytest.mark.parametrize("error", [Panic, SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError, Refused("no")])
@pytest.mark.parametrize("function", ["command", "list", "when", "keys", "locks", "compensation"])
def test_whatever_an_authors_function_raises_parks_its_saga_and_names_no_value(error: Any, function: str) -> None:
    def fail(where: str) -> None:
        if where == function:
            raise error

    def found_by(start: Ordered) -> dict[str, str]:
        fail("keys")
        return {}

    def holds(start: Ordered) -> list[str]:
        fail("locks")
        return ["a"]

    def is_wanted(s: State[Ordered]) -> bool:
        fail("when")
        return True

    saga = Saga(Ordered, name="pens", version=1, deadline=DAYS, keys=found_by, locks=holds)

    @saga.step(when=is_wanted)
    def keep_one(s: State[Ordered]) -> Keep:
        fail("command")
        return Keep(item="secret")

    @keep_one.compensation
    def drop_one(s: State[Ordered]) -> Drop:
        fail("compensation")
        return Drop(item="secret")

    @saga.each(needs_no_compensation=True)
    def keep_all(s: State[Ordered]) -> list[Keep]:
        fail("list")
        return []

    history: History = begin(KEY, saga.definition)
    facts = (
        Start(1, BEGUN_NS, Ordered()),
        Granted(2, BEGUN_NS, "a"),
        Cancel(3, BEGUN_NS, "enough"),
    )
    raised: list[BaseException | None] = []
    for fact in facts:
        made = plan(history, fact, TIME)
        history = made.entries[-1].after if made.entries else history
        raised += [made.error] if made.fault else []
        if history.fault:
            break
    name = {
        "when": "keep_one",
        "compensation": "keep_one",
        "list": "keep_all",
        "command": "keep_one",
        "keys": "found_by",
    }
    kind = error if isinstance(error, type) else type(error)
    assert history.fault == f"{name.get(function, 'holds')} raised {kind.__name__}"
    assert isinstance(raised[0], kind)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"a"}, "a set, not a list"),
        ((Keep(item=item) for item in "ab"), "a generator, not a list"),
        (None, "a NoneType, not a list"),
        ([Sell(call=1)], "a Sell, not the command it is annotated with"),
        ([Keep(item="a")] * 151, "a list of 151 commands, and at_most=150 are allowed"),
    ],
)
def test_a_list_that_is_none_parks_the_saga_before_anything_is_sent(made: Any, reason: str) -> None:
    saga = Saga(Ordered, name="pens", version=1, deadline=DAYS)

    @saga.each(needs_no_compensation=True, at_most=150)
    def keep_all(s: State[Ordered]) -> list[Keep]:
        return made  # type: ignore[no-any-return] # the author's mistake

    found = plan(begin(KEY, saga.definition), Start(1, BEGUN_NS, Ordered()), TIME)
    assert found.fault == f"keep_all made {reason}"
    assert len(found.entries) == 1


def test_a_compensation_that_takes_something_else_is_refused_with_what_it_is_given() -> None:
    def of_another(s: State[Ordered], command: Sell) -> Drop: ...  # type: ignore[empty-body]
    def with_too_much(s: State[Ordered], command: Keep, reply: Kept | None, more: int) -> Drop: ...  # type: ignore[empty-body]
    def with_a_sure_reply(s: State[Ordered], command: Keep, reply: Kept) -> Drop: ...  # type: ignore[empty-body]

    for function, sentence in (
        (of_another, "its argument 'command' is given a Keep"),
        (with_too_much, "takes 4 arguments"),
        (with_a_sure_reply, "its argument 'reply' is given a Kept | None"),
    ):
        saga = Saga(Ordered, name="pens", version=1, deadline=DAYS)

        @saga.step()
        def keep_one(s: State[Ordered]) -> Keep:
            return Keep(item="a")

        with pytest.raises(DefinitionError, match=sentence):
            keep_one.compensation(function)  # type: ignore[arg-type] # pyright: ignore


def test_a_reason_says_once_that_a_saga_was_cancelled() -> None:
    life = Shop(Fickle())
    life.begin()
    life.take(Cancel(life._next(), life.now_ns, "cancelled: cancelled by ada", by_parent=True))
    assert life.history.turned == "cancelled: cancelled by ada"


class Odd:
    """What raises wherever it is looked at, as arrays of some libraries do."""

    def __bool__(self) -> bool:
        raise Panic

    def __iter__(self) -> Iterator[Keep]:
        raise Panic

    def __repr__(self) -> str:
        raise Panic


class OddList(list[Keep]):
    def __iter__(self) -> Iterator[Keep]:
        raise Panic


class OddError(Exception):
    def __repr__(self) -> str:
        raise Panic


@pytest.mark.parametrize("error_texts", [False, True])
@pytest.mark.parametrize("function", ["when", "list", "error", "command"])
def test_what_raises_when_it_is_looked_at_parks_its_saga_too(function: str, error_texts: bool) -> None:
    saga = Saga(Ordered, name="pens", version=1, deadline=DAYS)

    def is_wanted(s: State[Ordered]) -> bool:
        return Odd() if function == "when" else True  # type: ignore[return-value] # the author's mistake

    @saga.step(needs_no_compensation=True, when=is_wanted)
    def keep_one(s: State[Ordered]) -> Keep:
        if function == "error":
            raise OddError
        return Odd() if function == "command" else Keep(item="a")  # type: ignore[return-value] # the author's mistake

    @saga.each(needs_no_compensation=True)
    def keep_all(s: State[Ordered]) -> list[Keep]:
        return OddList() if function == "list" else []

    made = plan(begin(KEY, saga.definition), Start(1, BEGUN_NS, Ordered()), TIME, author=Author(error_texts))
    assert made.fault
