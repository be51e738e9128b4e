"""A saga lived through without a broker: facts in, entries out, stored as bytes and read back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from antiphon.contracts import SagaKey
from antiphon.contracts.clock import nanoseconds
from antiphon.contracts.messages import AnswerKind, Closed, Event, Verdict
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import Direction
from antiphon.coordinator.decision.author import Author
from antiphon.coordinator.decision.dues import again_ns
from antiphon.coordinator.decision.entries import read_entry
from antiphon.coordinator.decision.facts import Action, Answer, Cancel, Fact, Send, Start, Tick
from antiphon.coordinator.decision.fold import fold
from antiphon.coordinator.decision.history import Entry, History, begin, deadline_ns
from antiphon.coordinator.decision.plan import plan
from antiphon.coordinator.decision.planned import Plan
from antiphon.coordinator.definition.saga import Saga
from tests.support.trip import ASKED, REPLIES, TRIP

KEY = SagaKey.of("trip", "t1")
TIME = datetime(2026, 1, 2, tzinfo=UTC)
SECOND = 1_000_000_000
BEGUN_NS = nanoseconds(TIME)


class Life:
    """One saga: what EVENTS and SAGA hold, and the history a coordinator would have."""

    def __init__(self, saga: Saga[Any] = TRIP) -> None:
        self.definition = saga.definition
        self.history: History = begin(KEY, self.definition)
        self.journal: list[StoredMessage] = []
        self.facts: dict[int, Fact] = {}
        self.now_ns = BEGUN_NS
        self.clock = TIME
        """What the coordinator's clock shows; it need not go with the server's."""
        self.plans: list[Plan] = []
        self.ratio = 1.0
        """The share of sagas that the coordinator which takes the next fact would have sampled."""

    def take(self, fact: Fact, stored_max: int | None = None) -> list[Action]:
        """Have a coordinator handle a fact, and die after `stored_max` entries; what it appended."""
        if not isinstance(fact, Tick):
            self.facts[fact.sequence] = fact
        made = plan(self.history, fact, self.clock, author=Author(error_texts=True), ratio=self.ratio)
        self.plans.append(made)
        for entry in made.entries[:stored_max]:
            sequence = 10 + 3 * len(self.journal)
            self.journal.append(StoredMessage(entry.draft.subject, sequence, self.now_ns, entry.draft.data))
            self.history = replace(entry.after, sequence=sequence)
        return [entry.draft.what for entry in made.entries[:stored_max]]

    # --- facts --------------------------------------------------------------------------------------------------------

    def start(self) -> list[Action]:
        return self.take(Start(self._next(), self.now_ns, ASKED))

    def answer(
        self, step: str, kind: AnswerKind = "done", direction: Direction = "do", attempt: int = 1
    ) -> list[Action]:
        reply = REPLIES[step] if (kind, direction) == ("done", "do") else None
        reason = "" if kind == "done" else f"{kind} it was"
        command = self.history.sequence
        return self.take(Answer(self._next(), self.now_ns, step, direction, attempt, kind, command, reply, reason))

    def undone(self, step: str, attempt: int = 1) -> list[Action]:
        return self.answer(step, "done", "undo", attempt)

    def undo_fails(self, step: str, attempt: int) -> list[Action]:
        return self.answer(step, "exhausted", "undo", attempt)

    def closed(self, step: str, verdict: Verdict = "closed", reply: Event | None = None, **said: Any) -> list[Action]:
        """The participant answers the close that is under way."""
        closing = self.history.steps[step].closing
        number = closing.number if closing is not None else self.history.steps[step].closes
        met = Closed(verdict=verdict, **said)
        command = self.history.sequence
        return self.take(Answer(self._next(), self.now_ns, step, "close", number, "closed", command, reply, closed=met))

    def cancel(self) -> list[Action]:
        return self.take(Cancel(self._next(), self.now_ns, "changed my mind"))

    def tick(self, at_ns: int) -> list[Action]:
        self.now_ns = max(self.now_ns, at_ns)
        return self.take(Tick(self.now_ns))

    def deadline(self) -> list[Action]:
        return self.tick(deadline_ns(self.history))

    def due(self, step: str) -> list[Action]:
        """Let the time come at which a failed compensation is sent again."""
        return self.tick(again_ns(self.history, self.history.steps[step], has_plenty=False))

    def _next(self) -> int:
        return len(self.facts) + 1

    # --- what is seen -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return self.history.state

    def phases(self) -> dict[str, str]:
        return {name: step.phase for name, step in self.history.steps.items()}

    def entries(self) -> list[Entry]:
        """The journal as it is read back from the stored bytes."""
        return [read_entry(message.subject, message.sequence, message.data) for message in self.journal]

    def refolded(self, length: int | None = None) -> History:
        """The history that the first entries of the stored journal give."""
        return fold(begin(KEY, self.definition), self.entries()[:length], self.facts)


def do(step: str) -> Send:
    return Send(step, "do", 1)


def undo(step: str, attempt: int = 1) -> Send:
    return Send(step, "undo", attempt)
