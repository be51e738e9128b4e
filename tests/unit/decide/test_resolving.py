"""A resolve asks the step's participant first: what its inbox has committed decides, whichever answer comes first."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from antiphon.contracts.envelope import decode, pack
from antiphon.contracts.messages import Close, Closed, Event, Verdict, ends_step
from antiphon.contracts.payloads import End, Operation, Record
from antiphon.coordinator.decision.facts import Action, Answer, Finish, Operated, SendClose
from antiphon.coordinator.decision.room import CLOSE_ENTRIES, room
from tests.simulation.sagas import Made, Part
from tests.support.trip import REPLIES
from tests.unit.decide.life import SECOND, Life, do, undo
from tests.unit.decide.test_ways import PIVOT, Way

DOUBT: dict[str, Any] = {"claim": 3, "key": "trip/t1/book_seat"}


class Stuck(Life):
    """A trip whose card was refused, and whose seat is not given back however often that is tried."""

    def __init__(self, attempts: int = 1) -> None:
        super().__init__()
        self.start()
        self.answer("book_room")
        self.answer("book_seat")
        self.answer("charge_card", "refused")
        for attempt in range(1, attempts + 1):
            self.undo_fails("book_seat", attempt)
            if attempt < attempts:
                self.due("book_seat")

    def resolve(
        self, step: str = "book_seat", user: str = "ada", asks: bool = True, reason: str = "slip 7", **said: Any
    ) -> list[Action]:
        operation = Operation(step=step, reason=reason, asks=asks, **said)
        return self.take(Operated(self._next(), self.now_ns, user, "resolve", operation))

    def rejection(self) -> str:
        """Why the last request came to nothing."""
        record = self.plans[-1].entries[0].draft.what
        assert isinstance(record, Record)
        return record.rejected

    def open(self, step: str = "book_seat", attempt: int = 1, code: str = "open") -> list[Action]:
        """The participant does not know whether the command has happened outside."""
        return self.take(
            Answer(self._next(), self.now_ns, step, "undo", attempt, "exhausted", 1, None, "claim 3 is open", code)
        )


def test_a_request_without_a_reason_comes_to_nothing_whoever_sends_it() -> None:
    life = Stuck()
    life.resolve(reason="")
    assert life.rejection() == "say why: a reason is missing"
    assert life.phases()["book_seat"] == "undoing"


def test_the_participant_is_asked_before_an_operators_word_counts() -> None:
    life = Stuck()
    (close,) = life.resolve()
    request = len(life.facts)
    assert close == SendClose("book_seat", 1, request, Close(form="undone", user="ada", reason="slip 7"))
    assert life.phases()["book_seat"] == "undoing"
    assert life.closed("book_seat") == [Record(by="ada", step="book_seat", request=request), undo("book_room")]
    assert life.phases()["book_seat"] == "undone"
    assert life.history.steps["book_seat"].reason == "resolved by ada: slip 7"
    assert life.undone("book_room") == [Finish(End(outcome="compensated", reason=life.history.turned))]


def test_what_the_machine_has_undone_rejects_the_request_and_counts() -> None:
    life = Stuck()
    life.resolve()
    verdict, *rest = life.closed("book_seat", "undone", attempt=3)
    assert isinstance(verdict, Record)
    assert verdict.rejected == "attempt 3 has undone it"
    assert rest == [undo("book_room")]


@pytest.mark.parametrize("verdict", ["undone", "void"])
def test_the_machines_own_answer_counts_while_a_close_is_out_and_the_request_has_its_verdict(verdict: Verdict) -> None:
    life = Stuck()
    life.resolve()
    assert life.undone("book_seat") == [undo("book_room")]
    (record,) = life.closed("book_seat", verdict, attempt=1)
    assert isinstance(record, Record)
    assert record.rejected
    assert life.phases()["book_seat"] == "undone"


def test_a_close_that_was_taken_before_the_compensation_found_it_undone_is_accepted() -> None:
    life = Stuck()
    life.resolve()
    life.undone("book_seat")
    assert life.closed("book_seat") == [Record(by="ada", step="book_seat", request=6)]


def test_a_row_in_doubt_leaves_the_saga_parked_until_somebody_has_looked_and_names_the_claim() -> None:
    life = Stuck(attempts=0)
    assert life.open()[-1] == Record(step="book_seat", parked="book_seat may have happened outside: claim 3 is open")
    assert life.history.parked == "book_seat may have happened outside: claim 3 is open"
    life.resolve()
    (verdict,) = life.closed("book_seat", "doubt", **DOUBT)
    assert isinstance(verdict, Record)
    assert verdict.rejected == (
        "claim 3 may have done it outside, under the key trip/t1/book_seat; "
        "look there, then resolve again naming claim 3"
    )
    assert life.phases()["book_seat"] == "undoing"
    assert life.history.parked
    (close,) = life.resolve(claim=3)
    assert isinstance(close, SendClose)
    assert (close.number, close.close.claim) == (2, 3)
    assert life.closed("book_seat")[1:] == [undo("book_room")]


def test_what_never_was_is_closed_so_and_needs_no_compensation() -> None:
    life = Stuck(attempts=0)
    life.open()
    (close,) = life.resolve(claim=3, happened=False)
    assert isinstance(close, SendClose)
    assert close.close.form == "never"
    assert life.closed("book_seat")[1:] == [undo("book_room")]
    assert life.phases()["book_seat"] == "undone"


def test_what_did_happen_is_compensated_by_the_machine_with_the_operators_answer() -> None:
    life = Stuck(attempts=0)
    life.open()
    reply = pack(REPLIES["book_seat"])
    life.resolve(payload=reply)
    assert "only where the command itself may have happened outside, a claim and a reply say" in life.rejection()
    (close,) = life.resolve(claim=3, payload=reply)
    assert isinstance(close, SendClose)
    assert (close.close.form, close.close.type) == ("done", REPLIES["book_seat"].__contract__.type)
    assert life.closed("book_seat")[1:] == [undo("book_seat", 2)]
    assert life.history.parked == ""
    assert life.undone("book_seat", 2) == [undo("book_room")]


def test_a_compensation_that_is_open_parks_at_once_and_is_tried_on() -> None:
    life = Stuck(attempts=0)
    life.open()
    assert life.due("book_seat") == [undo("book_seat", 2)]
    assert life.undone("book_seat", 2) == [undo("book_room")]
    assert life.history.parked == ""


def test_a_failure_that_is_not_open_is_tried_ten_times_before_anybody_is_called() -> None:
    life = Stuck(attempts=0)
    assert life.open(code="") == [Record()]
    assert life.history.parked == ""


def test_further_attempts_go_on_beside_a_close_so_that_a_lost_one_stops_nothing() -> None:
    life = Stuck()
    life.resolve()
    assert life.due("book_seat") == [undo("book_seat", 2)]


def test_a_second_resolve_waits_for_the_answer_to_the_first() -> None:
    life = Stuck()
    life.resolve()
    life.resolve(user="bob")
    assert life.rejection().startswith("a close is under way since 2026-01-02T00:00:00")
    assert "asked for by ada" in life.rejection()
    life.closed("book_seat", "doubt", **DOUBT)
    assert isinstance(life.resolve(user="bob")[0], SendClose)


@pytest.mark.parametrize("is_asked_before", [False, True])
def test_without_its_participant_a_step_is_resolved_at_once(is_asked_before: bool) -> None:
    life = Stuck()
    if is_asked_before:
        life.resolve()
    assert life.resolve(asks=False) == [Record(by="ada", unasked=True), undo("book_room")]
    assert life.phases()["book_seat"] == "undone"


def test_an_attempt_that_acts_on_what_was_resolved_without_its_participant_is_set_aside_for_a_person() -> None:
    life = Stuck()
    life.resolve(asks=False)
    life.answer("book_seat", "exhausted", "undo")
    assert life.plans[-1].accused == ""
    life.undone("book_seat")
    sentence = "book_seat was resolved by ada without its participant, and attempt 1 has undone it all the same"
    assert life.plans[-1].accused.startswith(sentence)
    life.undone("book_room")
    assert life.state == "compensated"
    fact = next(fact for fact in life.facts.values() if isinstance(fact, Answer) and fact.direction == "undo")
    life.take(Answer(life._next(), life.now_ns, "book_seat", "undo", 2, "done", 1))
    assert "attempt 2 has undone it all the same" in life.plans[-1].accused
    life.take(fact)
    assert life.plans[-1].accused == ""


def test_nothing_found_is_nothing_done_twice() -> None:
    life = Stuck()
    life.resolve(asks=False)
    life.take(Answer(life._next(), life.now_ns, "book_seat", "undo", 1, "done", 1, found=False))
    assert life.plans[-1].accused == ""


def test_an_answer_of_before_the_request_accuses_nobody() -> None:
    life = Stuck()
    life.resolve(asks=False)
    done = next(f for f in life.facts.values() if isinstance(f, Answer) and (f.step, f.kind) == ("book_seat", "done"))
    life.take(done)
    assert life.plans[-1].accused == ""


def test_a_claim_is_named_of_what_a_participant_holds_and_asks_it() -> None:
    life = Stuck()
    life.resolve(claim=3, asks=False)
    assert life.rejection() == "name a claim, or do not ask the participant; not both"
    waiting = Way(Part("event"))
    waiting.start()
    waiting.operate("resolve", step="work-delivered", reason="seen", claim=3, payload={})
    assert waiting.rejected() == "no participant holds work-delivered, so there is no claim of it"


def test_the_answer_to_an_earlier_close_is_not_taken_for_one_to_a_later() -> None:
    life = Stuck()
    life.resolve()
    life.closed("book_seat", "doubt", **DOUBT)
    life.resolve(claim=3)
    met = Closed(verdict="closed")
    assert life.take(Answer(life._next(), 1, "book_seat", "close", 1, "closed", 1, closed=met)) == [Record()]
    assert life.phases()["book_seat"] == "undoing"


def test_a_compensation_that_fails_on_after_its_command_was_found_done_calls_a_person_again() -> None:
    life = Stuck(attempts=0)
    life.open()
    life.resolve(claim=3, payload=pack(REPLIES["book_seat"]))
    life.closed("book_seat")
    found = life.open(attempt=2)
    assert found == [Record(step="book_seat", parked="book_seat may have happened outside: claim 3 is open")]


def test_a_command_that_may_have_happened_outside_parks_its_saga_once_that_is_to_be_undone() -> None:
    life = Life()
    life.start()
    life.answer("book_room")
    fact = Answer(life._next(), life.now_ns, "book_seat", "do", 1, "exhausted", 1, None, "claim 1 is open", "open")
    assert life.take(fact) == [undo("book_seat")]
    assert life.history.parked == "book_seat may have happened outside: claim 1 is open"


def test_a_close_out_when_the_saga_ends_is_answered_to_nobody() -> None:
    life = Stuck()
    life.resolve()
    life.undone("book_seat")
    life.undone("book_room")
    assert life.state == "compensated"
    assert life.closed("book_seat") == []


def test_a_journal_is_read_back_as_it_was_lived() -> None:
    life = Stuck()
    life.resolve()
    life.closed("book_seat", "doubt", **DOUBT)
    life.resolve(claim=3)
    life.closed("book_seat")
    for length in range(len(life.journal) + 1):
        assert life.refolded(length).entries == length
    assert life.refolded().steps == life.history.steps


def test_a_resolve_that_an_earlier_release_stores_counts_at_once_as_it_did_then() -> None:
    life = Stuck()
    asked = msgspec.json.decode(b'{"step":"book_seat","reason":"slip 7"}', type=Operation)
    fact = Operated(life._next(), life.now_ns, "ada", "resolve", asked)
    assert life.take(fact) == [Record(by="ada", unasked=True), undo("book_room")]
    assert life.refolded().steps["book_seat"].phase == "undone"


def test_a_paused_saga_asks_all_the_same() -> None:
    life = Stuck()
    life.take(Operated(life._next(), life.now_ns, "ada", "pause", Operation(reason="look")))
    assert isinstance(life.resolve()[0], SendClose)
    assert life.closed("book_seat") == [Record(by="ada", step="book_seat", request=7)]


# --- pivots, and steps past them --------------------------------------------------------------------------------------


def settling() -> Way:
    life = Way(shape=PIVOT)
    life.start()
    life.answer("a")
    life.timeout("b")
    assert life.history.steps["b"].phase == "settling"
    return life


@pytest.mark.parametrize(
    ("verdict", "form", "phase"),
    [
        ("closed", "done", "done"),
        ("closed", "never", "refused"),
        ("done", "never", "done"),
        ("refused", "done", "refused"),
        ("void", "done", "refused"),
        ("undone", "done", "settling"),
        ("doubt", "never", "settling"),
    ],
)
def test_a_pivot_is_what_its_participant_says(verdict: Verdict, form: str, phase: str) -> None:
    life = settling()
    if form == "done":
        life.operate("resolve", step="b", reason="seen", payload={"what": "by hand"})
    else:
        life.operate("resolve", step="b", reason="seen", happened=False)
    reply: Event | None = Made(what="machine") if verdict == "done" else None
    record, *rest = life.closed("b", verdict, reply, reason="no")
    assert isinstance(record, Record)
    assert bool(record.rejected) == (verdict != "closed")
    assert life.history.steps["b"].phase == phase
    if phase == "done":
        assert life.history.steps["b"].reply == Made(what="by hand" if verdict == "closed" else "machine")
        assert rest == [do("c")]
    if phase == "refused":
        assert rest == [undo("a")]


def test_a_step_past_the_pivot_is_closed_with_its_reply() -> None:
    life = Way(shape=PIVOT)
    life.start()
    life.answer("a")
    life.answer("b")
    (close,) = life.operate("resolve", step="c", reason="sent by hand", payload={"what": "parcel"})
    assert isinstance(close, SendClose)
    assert close.close.form == "done"
    assert life.closed("c", "void")[1:] == []
    assert life.history.steps["c"].phase == "sent"
    life.operate("resolve", step="c", reason="sent by hand", payload={"what": "parcel"})
    assert life.closed("c")[1:] == [Finish(End(outcome="completed"))]


def test_a_reply_that_no_answer_could_carry_is_rejected() -> None:
    life = settling()
    life.operate("resolve", step="b", reason="seen", payload={"what": "x" * 250_000})
    assert "bytes, and 245760 are the most" in life.rejected()


def test_what_nobody_holds_is_resolved_at_once() -> None:
    life = Way(Part("event"))
    life.start()
    asked = life.operate("resolve", step="work-delivered", reason="seen", payload={})
    assert asked == [Record(by="ann"), Finish(End(outcome="completed"))]


# --- room -------------------------------------------------------------------------------------------------------------


def test_a_close_owes_its_verdict_and_gives_back_what_it_took() -> None:
    life = Stuck()
    before = room(life.history)
    life.resolve()
    assert room(life.history) == before - CLOSE_ENTRIES
    life.closed("book_seat", "doubt", **DOUBT)
    assert room(life.history) == before - CLOSE_ENTRIES


def test_a_third_close_and_further_ones_have_the_pace_of_retries() -> None:
    life = Stuck()
    asked = 0
    for _ in range(500):
        life.now_ns += SECOND
        if isinstance(life.resolve()[0], SendClose):
            asked += 1
            life.closed("book_seat", "doubt", **DOUBT)
    assert 2 < asked < 150
    assert room(life.history) >= 0
    assert "has room for that again at" in life.rejection()


@pytest.mark.parametrize("goes_back", [True, False])
def test_doubt_ends_nothing_and_a_word_that_is_taken_ends_all_but_the_way_back(goes_back: bool) -> None:
    assert not ends_step("undone", "doubt", goes_back)
    assert ends_step("never", "closed", goes_back)
    assert ends_step("done", "closed", goes_back) is not goes_back
    assert ends_step("done", "done", goes_back) is not goes_back
    assert ends_step("undone", "undone", goes_back) is goes_back
    assert not ends_step("done", "undone", goes_back)


def told_of(life: Life, step: str) -> list[str]:
    """Which answer each of a step's compensations names."""
    return [decode(each.data, each.subject).answer for each in life.journal if f".{step}.undo." in each.subject]


def test_a_compensation_names_the_answer_that_its_command_is_done_in_each_attempt() -> None:
    life = Stuck(attempts=3)
    (answered,) = (
        each.sequence
        for each in life.facts.values()
        if isinstance(each, Answer) and each.step == "book_seat" and each.kind == "done"
    )
    assert told_of(life, "book_seat") == [str(answered)] * 3


def test_what_nobody_has_answered_is_compensated_without_naming_an_answer() -> None:
    life = Life()
    life.start()
    life.answer("book_room")
    life.answer("book_seat", "exhausted")
    assert told_of(life, "book_seat") == [""], "nobody knows what became of it"
    assert told_of(life, "book_room") == []
    life.undone("book_seat")
    assert told_of(life, "book_room") == ["2"]
