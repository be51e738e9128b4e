"""Teams name their messages as they like: a name that looks like one of the platform's own is read as what it is.

Every view is looked at: the status, the journal alone, the list, what is parked, the timeline, the trace.
"""

from datetime import timedelta
from typing import Any

import pytest

from antiphon.contracts import Command, Compensation, Event, SagaKey, subjects
from antiphon.contracts.envelope import decode
from antiphon.contracts.errors import DefinitionError
from antiphon.contracts.messages import AnswerKind
from antiphon.contracts.stored import Delivered, SagaPages
from antiphon.contracts.subjects import CommandAddress
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.definition.steps import State
from antiphon.coordinator.views.parked import waits_of
from antiphon.coordinator.views.standing import standing
from antiphon.coordinator.views.summary import Overview, read_cause, read_told, tell, unread
from antiphon.coordinator.views.timeline import timeline_of
from antiphon.flow.graph import build
from antiphon.flow.lookup import who
from antiphon.participants.answering import _outcome_in
from antiphon.tracing.projection.project import project
from tests.conformance.fleet import Fleet
from tests.support.raw_worker import _envelope, answer_message, start_message
from tests.support.trip import BACKOFF

BARE = ("start", "cancel", "signal", "resolve", "child.compensated")
"""What clients, operators and coordinators call their messages, in subjects of their own."""
KINDS = (
    "refused",
    "exhausted",
    "superseded",
    "done",
    "settled",
    "settle",
    "settle.exhausted",
    "close",
    "closed",
    *BARE,
)
KEY = SagaKey.of("library", "l1")


class Asked(Event, name="library.asked"):
    book: str


class Paid(Event, name="bank.paid", owner="bank"):
    amount: int


class Pay(Command[Paid], name="bank.pay"):
    amount: int


class Handed(Event, name="hotel.handed", owner="hotel"):
    book: str


class HandOver(Command[Handed], name="hotel.hand"):
    book: str


def reply_name(kind: str) -> str:
    return kind if kind in BARE else f"loan.{kind}"


def make_library(kind: str, is_pivot: bool) -> Saga[Asked]:
    """A loan whose reply and whose compensation, and another command, have names that end as the platform's do."""

    class Lent(Event, name=reply_name(kind), owner="hotel"):
        book: str

    class Lend(Command[Lent], name="library.lend"):
        book: str

    class TakeBack(Compensation[Lend], name=f"return.{kind}"):
        book: str

    saga = Saga(Asked, name="library", version=1, deadline=timedelta(days=1), backoff=BACKOFF)

    @saga.step(pivot=is_pivot, needs_no_compensation=not is_pivot)
    def pay(s: State[Asked]) -> Pay:
        return Pay(amount=1)

    @saga.step(after=pay)
    def lend(s: State[Asked]) -> Lend:
        return Lend(book=s.start.book)

    if not is_pivot:

        @lend.compensation
        def take_back(s: State[Asked]) -> TakeBack:
            return TakeBack(book=s.start.book)

    @saga.step(after=lend, needs_no_compensation=not is_pivot)
    def hand_over(s: State[Asked]) -> HandOver:
        return HandOver(book=s[lend].book)

    return saga


class Library(Fleet):
    def answer(self, delivery: Delivered) -> None:
        command = subjects.parse_command(delivery.subject)
        if command.is_close:
            super().answer(delivery)
            return
        kind = self.play(command)
        if kind is None:
            return
        if kind == "done" and command.direction == "do":
            reply: Any = self.definition.steps[command.step].reply
            event = Paid(amount=1) if reply is Paid else reply(book="b")
            contract = reply.__contract__
            subject = subjects.event_subject(
                KEY.path, command.participant, contract.token, command.step, command.attempt
            )
            self.put(subject, _envelope(subject, command.participant, contract.type, event, str(delivery.sequence)))
        else:
            self.put(*answer_message(command, delivery.sequence, kind, self.definition))
        delivery.ack()

    def pages(self) -> SagaPages:
        entries = self.platform.read(SAGA, [subjects.journal_filter(KEY)])
        return SagaPages(entries, self.platform.read(EVENTS, [subjects.saga_events_filter(KEY)]))

    def row(self) -> Overview:
        pages = self.pages()
        by_sequence = {message.sequence: message for message in pages.events}
        row = unread(KEY)
        for message in pages.entries:
            told = read_told(message)
            assert told is not None
            cause = by_sequence.get(told.cause_sequence)
            row = tell(row, told, read_cause(cause) if cause else None)
        return row

    def seen(self) -> list[tuple[str, str]]:
        """The state and why it is parked, by each of those who tell."""
        pages, history, row = self.pages(), self.history(KEY), self.row()
        read = standing(pages.entries, pages.events)
        told = timeline_of(KEY, pages)
        parked = "; ".join(each.reason for each in waits_of(KEY, pages))
        return [
            (history.state, history.parked),
            (read.state, read.parked),
            (row.state, row.parked),
            (told.state, told.parked),
            (history.state, parked),
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_that_looks_like_a_failure_ends_the_wait_in_every_view(kind: str) -> None:
    def play(command: CommandAddress) -> AnswerKind | None:
        if command.step == "lend":
            return "exhausted" if command.attempt <= 5 else "done"
        return "done" if command.step == "pay" else None

    fleet = Library(saga=make_library(kind, is_pivot=True), play=play)
    fleet.put(*start_message(KEY, Asked(book="b")))
    fleet.run(15)
    assert all("the command of lend was tried" in parked for _, parked in fleet.seen())
    fleet.run(2000)
    assert fleet.seen() == [("running", "")] * 5
    assert fleet.row().steps == ("hand_over",)
    pages = fleet.pages()
    assert fleet.row().started_ns == pages.events[0].stored_ns
    (reply,) = (line for line in timeline_of(KEY, pages).lines if line.text == f"{reply_name(kind)}.v1")
    assert (reply.kind, reply.late) == ("answer", False)
    spans = {(span.name, span.attributes.get("saga.outcome")) for span in project(KEY, *_of(pages)).spans}
    assert ("lend", "done") in spans


@pytest.mark.parametrize("kind", KINDS)
def test_a_compensation_that_looks_like_a_question_turns_the_saga_in_every_view(kind: str) -> None:
    def play(command: CommandAddress) -> AnswerKind | None:
        if command.direction == "undo":
            return "exhausted" if command.attempt == 1 else None
        return "refused" if command.step == "hand_over" else "done"

    fleet = Library(saga=make_library(kind, is_pivot=False), play=play)
    fleet.put(*start_message(KEY, Asked(book="b")))
    fleet.run(15)
    assert {state for state, _ in fleet.seen()} == {"compensating"}
    pages = fleet.pages()
    told = timeline_of(KEY, pages).lines
    assert [line.kind for line in told if line.stream == SAGA and line.step == "lend"][:3] == [
        "command",
        "compensation",
        "compensation",
    ]
    assert [line.kind for line in told if line.stream == EVENTS and line.step == "lend"] == ["answer", "unknown"]
    assert "hand_over was refused: refused it was" in fleet.row().reason
    names = [span.name for span in project(KEY, *_of(pages)).open]
    assert "undo lend" in names


def _of(pages: SagaPages) -> tuple[Any, Any]:
    for message in (*pages.entries, *pages.events):
        assert decode(message.data, message.subject).id == message.subject
    return pages.entries, pages.events


# --- names that cannot be told apart ----------------------------------------------------------------------------------


def declare(command: str, reply: str, compensation: str = "", is_pivot: bool = False) -> None:
    class Lent(Event, name=reply, owner="hotel"):
        book: str

    class Lend(Command[Lent], name=command):
        book: str

    if compensation:

        class TakeBack(Compensation[Lend], name=compensation):
            book: str

    saga = Saga(Asked, name="library", version=1, deadline=timedelta(days=1))

    @saga.step(pivot=is_pivot, needs_no_compensation=not is_pivot)
    def lend(s: State[Asked]) -> Lend:
        return Lend(book=s.start.book)

    assert saga.definition.steps


@pytest.mark.parametrize(
    ("command", "reply", "compensation", "is_pivot"),
    [
        ("loan", "loan.refused", "", False),
        ("loan", "loan.exhausted", "", False),
        ("loan", "loan-superseded", "", False),
        ("loan", "loan.made", "loan", False),
        ("loan", "loan.made", "loan.settle", False),
        ("loan", "loan.closed", "", False),
        ("loan", "loan-closed", "loan.back", True),
        ("loan", "loan.made", "loan.close", False),
        ("loan", "loan.back.done", "loan.back", False),
        ("loan", "loan.back.exhausted", "loan.back", False),
        ("loan", "loan.settled", "", True),
        ("loan", "loan.settle.exhausted", "", True),
    ],
)
def test_a_name_that_is_the_platforms_in_its_step_is_refused(
    command: str, reply: str, compensation: str, is_pivot: bool
) -> None:
    with pytest.raises(DefinitionError, match="another name"):
        declare(command, reply, compensation, is_pivot)


@pytest.mark.parametrize(
    ("command", "reply", "compensation", "is_pivot"),
    [
        ("loan", "loan.done", "", False),
        ("loan", "loan.done", "loan.back", False),
        ("loan", "loan.settled", "loan.back", False),
        ("loan", "loan.settle.exhausted", "loan.refused", False),
        ("loan.settle", "loan.refused", "", True),
        ("loan", "loan.close", "loan.back.close", False),
        ("loan", "loan.made", "loan.closed", False),
    ],
)
def test_a_name_that_only_looks_like_it_is_taken(command: str, reply: str, compensation: str, is_pivot: bool) -> None:
    declare(command, reply, compensation, is_pivot)


@pytest.mark.parametrize("kind", ["refused", "exhausted", "superseded", "settled", "done"])
def test_a_worker_counts_a_reply_as_done_whatever_its_name(kind: str) -> None:
    assert _outcome_in("do", "library.lend.v1", f"loan.{kind}.v1") == "done"
    assert _outcome_in("undo", "loan.settle.v1", "loan.settle.done.v1") == "done"
    assert _outcome_in("do", "loan.v1", "loan.refused.v1") == "refused"
    assert _outcome_in("settle", "loan.settle.v1", "loan.settled.v1") == "settled"


@pytest.mark.parametrize("kind", ["refused", "exhausted", "superseded"])
def test_the_flow_tells_an_event_from_an_answer_of_that_name(kind: str) -> None:
    flow = build([make_library(kind, is_pivot=True)])
    (event,) = who(flow, f"loan.{kind}")
    (answer,) = who(flow, f"library.lend.{kind}")
    assert (event.kind, answer.kind) == ("an event", "an answer to library.lend")


@pytest.mark.parametrize("name", BARE)
def test_an_event_that_turns_a_saga_is_told_as_what_it_is(name: str) -> None:
    class Fine(Event, name="hotel.fine", owner="hotel"):
        book: str

    class NotFine(Event, name=name, owner="hotel"):
        book: str

    class PayBack(Compensation[Pay], name="bank.pay-back"):
        amount: int

    saga = Saga(Asked, name="library", version=1, deadline=timedelta(days=1), backoff=BACKOFF)

    @saga.step()
    def pay(s: State[Asked]) -> Pay:
        return Pay(amount=1)

    @pay.compensation
    def pay_back(s: State[Asked]) -> PayBack:
        return PayBack(amount=1)

    saga.awaits(Fine, after=pay, unless=NotFine)
    fleet = Library(saga=saga, play=lambda command: "done" if command.direction == "do" else None)
    fleet.put(*start_message(KEY, Asked(book="b")))
    fleet.run(15)
    subject = subjects.event_subject(
        KEY.path, "hotel", NotFine.__contract__.token, subjects.reaction_step("library-asked", ""), 1
    )
    fleet.put(subject, _envelope(subject, "hotel", NotFine.__contract__.type, NotFine(book="b"), ""))
    fleet.run(15)
    assert {state for state, _ in fleet.seen()} == {"compensating"}
    reasons = [fleet.history(KEY).turned, fleet.row().reason]
    assert all(name in reason for reason in reasons), reasons
