"""What the trace says of some sagas, in words."""

from __future__ import annotations

from collections.abc import Mapping

from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import SAGA
from antiphon.tracing.projection.ids import span_id, trace_id
from antiphon.tracing.projection.project import Projection, project
from antiphon.tracing.projection.spans import Span
from tests.integration.tracing.voyage import KEY, MINUTE_NS, QUICK_NS, Voyage


class Scripted(Voyage):
    """A voyage in which only what the test says goes wrong. Answers take five milliseconds."""

    def __init__(self, script: Mapping[tuple[str, str, int], list[AnswerKind]]) -> None:
        super().__init__(1, trouble=0.0, only="nothing")
        self.script, self.answers = script, 0

    def _delay_ns(self, kind: AnswerKind) -> int:
        self.answers += 1
        return QUICK_NS + self.answers * 1000  # no two at one instant

    def _kinds(self, command: CommandAddress) -> list[AnswerKind]:
        return self.script.get((command.step, command.direction, command.attempt), ["done"])


def trace(script: Mapping[tuple[str, str, int], list[AnswerKind]]) -> Projection:
    voyage = Scripted(script).live()
    return project(KEY, voyage.entries(), voyage.events())


def one(projection: Projection, name: str, step: str = "") -> Span:
    (found,) = (s for s in projection.spans if s.name == name and step in ("", s.attributes.get("saga.step")))
    return found


def test_a_step_without_an_answer_ends_when_its_time_is_up() -> None:
    told = trace({("book_room", "do", 1): []})
    step = one(told, "book_room")
    assert (step.status, step.message) == ("error", "unknown: no answer in time")
    assert 10 * MINUTE_NS <= step.end_ns - step.start_ns <= 10 * MINUTE_NS + 10**9
    assert [event.name for event in step.events] == ["timed out"]
    attempt = lost(told, "book_room")
    assert (attempt.message, attempt.attributes["saga.lost"]) == ("no answer", True)
    assert (attempt.parent_id, attempt.end_ns) == (step.span_id, step.end_ns)


def lost(told: Projection, step: str) -> Span:
    (found,) = (s for s in told.spans if s.attributes.get("saga.lost") and s.attributes["saga.step"] == step)
    return found


def test_a_pivot_that_is_exhausted_is_settled_within_its_step() -> None:
    told = trace({("depart", "do", 1): ["exhausted"]})
    step, settlement = one(told, "depart"), one(told, "settle depart")
    assert settlement.parent_id == step.span_id
    assert settlement.start_ns >= step.start_ns
    assert settlement.end_ns == step.end_ns
    assert step.attributes["saga.outcome"] == ("done" if settlement.attributes["saga.happened"] else "refused")


def test_a_refusal_turns_the_saga_and_what_was_done_is_undone_with_a_link_to_it() -> None:
    told = trace({("charge_card", "do", 1): ["refused"]})
    assert told.outcome == "compensated"
    root, step, undo = told.spans[-1], one(told, "charge_card"), one(told, "undo book_seat")
    assert (root.status, root.message) == ("error", "compensated: charge_card was refused: refused it was")
    assert (step.status, step.message) == ("error", "refused: refused it was")
    assert [(link.span_id, link.why) for link in undo.links] == [(one(told, "book_seat").span_id, "undoes")]
    assert "undo charge_card" not in {span.name for span in told.spans}


def test_a_compensation_that_fails_is_tried_again_within_one_span_and_parked_at_last() -> None:
    script: dict[tuple[str, str, int], list[AnswerKind]] = {("charge_card", "do", 1): ["refused"]}
    for number in range(1, 5):
        script["book_seat", "undo", number] = ["exhausted"]
    told = trace(script)
    undo = one(told, "undo book_seat")
    attempts = [s for s in told.spans if s.parent_id == undo.span_id and s.kind == "consumer"]
    assert [s.attributes["saga.attempt"] for s in attempts] == [1, 2, 3, 4, 5]
    assert [s.status for s in attempts] == ["error"] * 4 + ["unset"]
    assert [e.name for e in undo.events] == ["attempt exhausted", "retry"] * 4
    assert told.was_parked
    assert told.retries == 4
    assert "tried 3 times" in one(told, "parked").message


def test_an_attempt_is_linked_to_the_message_it_works_on_and_to_nobody_elses() -> None:
    told = trace({})
    attempt = next(s for s in told.spans if s.span_id == span_id(KEY, "book_seat", "do", 1, "attempt"))
    publish = next(s for s in told.spans if s.span_id == span_id(KEY, "book_seat", "do", 1, "publish"))
    assert (attempt.kind, attempt.service, attempt.name) == ("consumer", "airline", "process airline.book")
    assert (publish.kind, publish.service, publish.name) == ("producer", "antiphon", "send airline.book")
    assert [(link.span_id, link.why) for link in attempt.links] == [(publish.span_id, "sent by")]
    assert publish.end_ns <= attempt.start_ns


def test_what_waits_has_a_span_for_that_which_ends_with_its_step() -> None:
    told = trace({})
    for step, wait in (("visa-granted", "wait for visa.granted"), ("nap", "wait for time")):
        assert one(told, wait).parent_id == one(told, step).span_id
        assert one(told, wait).end_ns == one(told, step).end_ns


def test_a_list_with_a_refused_element_says_which_and_why() -> None:
    told = trace({("load_bags-1", "do", 1): ["refused"]})
    step = one(told, "load_bags")
    assert (step.status, step.message) == ("error", "refused: load_bags-1: refused it was")


def test_an_attempt_begins_with_the_handlers_last_call() -> None:
    """The tries before, and the wait for a worker that was killed, are the queue's and not its participant's."""

    told = trace({})
    for attempt in (span for span in told.spans if span.attributes.get("saga.tries")):
        (queue,) = (
            span
            for span in told.spans
            if span.parent_id == attempt.parent_id
            and span.name.startswith("queue ")
            and span.attributes["saga.attempt"] == attempt.attributes["saga.attempt"]
        )
        tries = [span for span in told.spans if span.parent_id == queue.span_id]
        assert len(tries) == int(attempt.attributes["saga.tries"]) - 1
        assert {span.service for span in (queue, *tries)} == {"antiphon"}
        assert queue.end_ns <= attempt.start_ns
        assert attempt.service == queue.attributes["saga.participant"]
    assert [span for span in told.spans if span.attributes.get("saga.tries")]


def test_parent_and_child_have_a_trace_each_and_point_to_each_other() -> None:
    voyage = Scripted({}).live()
    parent, child = (project(key, voyage.entries(key), voyage.events(key)) for key in voyage.sagas())
    attempt, root = one(parent, "child saga"), child.spans[-1]
    assert root.trace_id == trace_id(child.key) != attempt.trace_id
    assert ("starts", root.trace_id, root.span_id) in [(k.why, k.trace_id, k.span_id) for k in attempt.links]
    assert ("started by", attempt.trace_id, attempt.span_id) in [(k.why, k.trace_id, k.span_id) for k in root.links]


def test_late_answers_are_seen_beside_what_they_came_too_late_for() -> None:
    class Slow(Scripted):
        def _kinds(self, command: CommandAddress) -> list[AnswerKind]:
            if (command.step, command.direction) == ("book_room", "do"):
                (sent,) = (m for m in self.platform.streams[SAGA] if ".book_room.do." in m.subject)
                self.platform.later_ns(10 * MINUTE_NS + 10**9, lambda: self._answer(command, sent.sequence, "done"))
                return []
            if (command.step, command.direction) == ("book_seat", "undo"):
                return ["exhausted"] if command.attempt < 9 else ["done"]
            return ["done"]

    voyage = Slow({}).live()
    told = project(KEY, voyage.entries(), voyage.events())
    late = one(told, "late answer hotel.booked")
    assert late.start_ns > one(told, "book_room").end_ns
    assert [link.span_id for link in late.links] == [span_id(KEY, "book_room", "do", 1, "attempt")]
