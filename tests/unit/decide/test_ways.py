"""Every way a saga can go, beyond steps in a row: facts in, entries out."""

from __future__ import annotations

import msgspec
import pytest

from antiphon.contracts import DefinitionError, SagaKey
from antiphon.contracts.clock import nanoseconds
from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.payloads import End, Operation, Parent, Record
from antiphon.contracts.subjects import Direction, Verb
from antiphon.coordinator.decision.dues import earliest_ns
from antiphon.coordinator.decision.entries import child_key
from antiphon.coordinator.decision.facts import (
    Action,
    Answer,
    ChildEnded,
    Finish,
    Operated,
    Send,
    SendClose,
    Signalled,
    Start,
    Tick,
)
from antiphon.coordinator.decision.history import ENTRIES_MAX, wait_ns
from antiphon.coordinator.decision.plan import plan
from antiphon.coordinator.definition.check import COMMANDS_MAX
from antiphon.coordinator.definition.saga import Saga
from tests.simulation.sagas import (
    BACKOFF,
    DEADLINE,
    TIMEOUT,
    Approved,
    Asked,
    Made,
    Part,
    Shape,
    make_each,
    named,
    saga_of,
)
from tests.unit.decide.life import KEY, TIME, Life, do, undo

PIVOT = Shape((Part(), Part(after=(0,), pivot=True, timed=True), Part(after=(1,), timed=True)))
"""Three steps, the second of which is the point of no return."""


class Way(Life):
    """A life of a saga of any shape."""

    def __init__(self, *parts: Part, shape: Shape | None = None) -> None:
        super().__init__(saga_of(shape or Shape(parts)))
        self.now_ns = nanoseconds(TIME)

    def start(self, *keys: str, parent: Parent | None = None) -> list[Action]:
        return self.take(Start(self._next(), self.now_ns, Asked(keys=keys), parent))

    def answer(
        self, step: str, kind: AnswerKind = "done", direction: Direction = "do", attempt: int = 1
    ) -> list[Action]:
        reply = Made(what=step) if (kind, direction) == ("done", "do") else None
        return self.take(Answer(self._next(), self.now_ns, step, direction, attempt, kind, 0, reply, f"{kind} it was"))

    def settled(self, step: str, happened: bool) -> list[Action]:
        reply = Made(what=step) if happened else None
        return self.take(Answer(self._next(), self.now_ns, step, "undo", 1, "settled", 0, reply))

    def child_ended(self, step: str, end: End, attempt: int = 1) -> list[Action]:
        return self.take(ChildEnded(self._next(), self.now_ns, step, attempt, end))

    def signal(self) -> list[Action]:
        return self.take(Signalled(self._next(), self.now_ns, "work-approved", Approved()))

    def operate(self, verb: Verb, **operation: object) -> list[Action]:
        asked = msgspec.json.decode(msgspec.json.encode({"asks": verb == "resolve", **operation}), type=Operation)
        return self.take(Operated(self._next(), self.now_ns, "ann", verb, asked))

    def timeout(self, step: str) -> list[Action]:
        """Let the time come at which a step has been waited for long enough."""
        return self.tick(self.history.steps[step].timeout_ns)

    def rejected(self) -> str:
        """Why the last request of an operator came to nothing."""
        record = self.plans[-1].entries[0].draft.what
        assert isinstance(record, Record)
        return record.rejected


COMPENSATED = End(outcome="compensated", reason="no")
COMPLETED = End(outcome="completed")
INNER = Shape((Part(),), name="inner")


# --- steps that begin together ----------------------------------------------------------------------------------------


def test_a_list_beside_a_command_is_sent_at_once() -> None:
    life = Way(Part("list", size=2), Part())
    spread, *sent = life.start()
    assert isinstance(spread, Record)
    assert (spread.step, spread.elements, len(spread.commands)) == ("a", 2, 2)
    assert sent == [do("a-0"), do("a-1"), do("b")]


def test_what_a_skipped_step_lets_begin_does_not_wait_for_its_neighbour() -> None:
    life = Way(Part(when=False), Part(), Part(after=(0,)))
    assert life.start() == [Record(step="a", skipped=True), do("b"), do("c")]


def test_an_early_signal_lets_the_next_step_begin_beside_others() -> None:
    life = Way(Part(), Part("signal", after=(0,)), Part(after=(0,)), Part(after=(1,)))
    life.start()
    life.signal()
    assert life.answer("a") == [Record(step="work-approved", awaits=True), do("c"), do("d")]


# --- what comes late --------------------------------------------------------------------------------------------------


def test_a_signal_after_the_turn_changes_nothing() -> None:
    life = Way(Part(), Part("signal", after=(0,)))
    life.start()
    life.answer("a")
    life.cancel()
    assert life.signal() == [Record()]
    assert life.phases()["work-approved"] == "awaiting"


# --- steps past the pivot ---------------------------------------------------------------------------------------------


def past_pivot() -> Way:
    """The pivot is done, and the step after it was sent."""
    life = Way(shape=PIVOT)
    life.start()
    life.answer("a")
    assert life.answer("b") == [do("c")]
    return life


def test_a_step_past_the_pivot_that_times_out_is_sent_again_after_a_backoff() -> None:
    life = past_pivot()
    assert life.timeout("c") == [Record()]
    assert life.history.steps["c"].again_ns == life.now_ns + wait_ns(BACKOFF, KEY, "c", 1)
    assert life.due("c") == [Send("c", "do", 2)]
    assert life.answer("c", attempt=1) == [Finish(COMPLETED)]


def test_nobody_can_declare_that_a_step_past_the_pivot_did_not_happen() -> None:
    life = past_pivot()
    life.operate("resolve", step="c", reason="it never did", happened=False, payload={"what": "c"})
    assert "past the point of no return" in life.rejected()
    assert life.state == "running"
    assert not life.history.turned


def test_a_list_is_resolved_element_by_element() -> None:
    life = Way(Part(pivot=True), Part("list", after=(0,), size=2), Part(after=(1,)))
    life.start()
    life.answer("a")
    life.operate("resolve", step="b", reason="seen", payload={"what": "b"})
    assert "b-0" in life.rejected()
    (close,) = life.operate("resolve", step="b-0", reason="seen", payload={"what": "b-0"})
    assert isinstance(close, SendClose)
    assert life.closed("b-0")[0] == Record(by="ann", step="b-0", request=close.request)
    assert life.answer("b-1") == [do("c")]
    assert life.history.steps["b"].reply == (Made(what="b-0"), Made(what="b-1"))


# --- children ---------------------------------------------------------------------------------------------------------


def with_child() -> Way:
    life = Way(shape=Shape((Part(), Part("child", after=(0,))), child=INNER))
    life.start()
    life.answer("a")
    return life


def test_a_child_that_was_compensated_while_its_parent_stood_still_holds_up_nobody() -> None:
    life = with_child()
    life.operate("pause", reason="let me look")
    life.cancel()
    life.child_ended("b", COMPENSATED)
    life.operate("resume")
    assert life.plans[-1].entries[-1].draft.what == undo("a")
    assert life.undone("a") == [Finish(End(outcome="compensated", reason="cancelled: changed my mind"))]


def test_children_of_two_parents_are_never_the_same_saga() -> None:
    shape = Shape((Part("child"),), child=INNER)
    step = saga_of(shape).definition.steps["a"]
    parents = [("order", "7"), ("return", "7"), ("order", "7-a-1"), ("order-7", "a")]
    steps = ["a", "a", "a", "1"]
    keys = {child_key(SagaKey.of(*parent), name, step, 1) for parent, name in zip(parents, steps, strict=True)}
    assert len(keys) == 4
    long = [child_key(SagaKey.of("order", "x" * 63 + end), "a", step, 1) for end in "yz"]
    assert long[0] != long[1]
    assert child_key(SagaKey.of("order", "7"), "a", step, 2) not in keys


# --- which fact an entry names ---------------------------------------------------------------------------------------


def test_whoever_completes_a_decision_names_the_fact_that_it_is_of() -> None:
    """A coordinator dies between two entries, and an earlier fact is what is delivered next, once more."""
    life = Way(Part(), Part("list", size=3, after=(0,)))
    life.start()
    life.take(Answer(2, life.now_ns, "a", "do", 1, "done", 0, Made(what="a")), stored_max=2)
    assert [entry.cause for entry in life.entries()] == ["e1", "e2", "e2"]
    life.take(life.facts[1])
    assert [entry.cause for entry in life.entries()] == ["e1", "e2", "e2", "e2", "e2"]
    assert life.phases() == {"a": "done", "b": "sent", "b-0": "sent", "b-1": "sent", "b-2": "sent"}


def test_whoever_completes_a_decision_on_a_time_that_came_names_that_time() -> None:
    life = Way(Part(timed=True), Part())
    life.start()
    due = earliest_ns(life.history)
    life.take(Tick(due), stored_max=1)
    life.take(life.facts[1])
    assert [entry.cause for entry in life.entries()] == ["e1", "e1", f"t{due}", f"t{due}"]


# --- the timer --------------------------------------------------------------------------------------------------------


def test_the_start_may_move_no_timer_once_the_journal_has_begun() -> None:
    life = Way(Part(timed=True))
    life.start()
    again = plan(life.history, life.facts[1], TIME, is_repeated=True).timer
    assert again is not None
    assert not again.first
    assert again.due_ns == earliest_ns(life.history)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_the_longest_list_can_be_done_and_undone_within_one_journal() -> None:
    life = Way(Part("list", size=COMMANDS_MAX - 1), Part(after=(0,)))
    life.start()
    elements = [f"a-{number}" for number in range(COMMANDS_MAX - 1)]
    for name in elements:
        life.answer(name)
    life.answer("b", "refused")
    for name in elements:
        life.undone(name)
    assert life.state == "compensated"
    assert life.history.entries < ENTRIES_MAX - 100


def test_a_saga_sends_no_more_commands_than_its_journal_can_hold() -> None:
    with pytest.raises(DefinitionError, match="start a child saga"):
        Way(Part("list", size=COMMANDS_MAX - 1), Part(), Part())
    with pytest.raises(DefinitionError, match="start a child saga"):
        Way(Part(), Part("list", size=COMMANDS_MAX))


def test_no_step_is_called_as_an_element_of_another() -> None:
    saga = Saga(Asked, name="work", version=1, deadline=DEADLINE)
    saga.wait("a-1", TIMEOUT)
    with pytest.raises(DefinitionError, match="one is called as an element of the other"):
        saga.each(needs_no_compensation=True)(named("a", make_each(2)))
