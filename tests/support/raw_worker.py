"""Participants of the trip, played over a raw link: as small as a program in another language could be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.identity import dashed
from antiphon.contracts.messages import AnswerKind, Closed, Event, Refusal, Undone, closed_name, closed_type
from antiphon.contracts.stored import AlreadyStored, Outcome
from antiphon.contracts.topology import participant_consumers
from antiphon.coordinator.definition.definition import Definition
from antiphon.link import Delivery, Link
from tests.support.trip import ASKED, REPLIES, TRIP

Play = Callable[[subjects.CommandAddress], AnswerKind | None]
"""How a command is answered; None leaves it without an answer."""


Close = Callable[[subjects.CommandAddress], Closed | None]
"""How a close is answered; None leaves it without an answer."""


def yielding(command: subjects.CommandAddress) -> Closed | None:
    """Every operator's word is taken."""
    return Closed(verdict="closed")


def willing(command: subjects.CommandAddress) -> AnswerKind | None:
    """Everything succeeds."""
    return "done"


def start_message(key: SagaKey, event: Event = ASKED) -> tuple[str, bytes]:
    """What a client stores to begin a saga."""
    subject = subjects.start_subject(key)
    return subject, _envelope(subject, "client", event.__contract__.type, event)


def answer_message(
    command: subjects.CommandAddress, sequence: int, kind: AnswerKind, definition: Definition = TRIP.definition
) -> tuple[str, bytes]:
    """What a participant stores to answer a command that SAGA holds at `sequence`."""
    token, expected = next(
        (token, expected)
        for (step, token), expected in definition.answers.items()
        if (step, expected.direction, expected.kind) == (command.step, command.direction, kind)
    )
    payload: msgspec.Struct = Refusal(reason=f"{kind} it was")
    if kind == "done":
        payload = REPLIES[command.step] if command.direction == "do" else Undone(found=True)
    subject = subjects.event_subject(command.saga.path, command.participant, token, command.step, command.attempt)
    return subject, _envelope(subject, command.participant, expected.type, payload, str(sequence))


def closed_message(
    command: subjects.CommandAddress, sequence: int, met: Closed, definition: Definition = TRIP.definition
) -> tuple[str, bytes]:
    """What a participant stores to answer a close that SAGA holds at `sequence`."""
    do = definition.step(command.step).do
    assert do is not None
    token = dashed(closed_name(do.contract.name))
    subject = subjects.event_subject(command.saga.path, command.participant, token, command.step, command.attempt)
    return subject, _envelope(subject, command.participant, closed_type(do.contract), met, str(sequence))


def _envelope(subject: str, source: str, type_: str, payload: msgspec.Struct, command: str = "") -> bytes:
    time = datetime.now(UTC)
    return encode(Envelope(id=subject, source=source, type=type_, time=time, data=pack(payload), command=command))


class RawWorker:
    """All participants of the trip, each over its own link; counts how often each command was stored, and not how often
    it was delivered: without an inbox a second delivery, as on a busy machine, is acted on like the first."""

    def __init__(self, links: dict[str, Link], play: Play = willing, close: Close = yielding) -> None:
        self.links, self.play, self.close = links, play, close
        self.acted: Counter[subjects.CommandAddress] = Counter()
        self._sequences = set[int]()

    async def begin(self) -> None:
        """Pull the commands of every participant, in both directions, and closes."""
        for name, link in self.links.items():
            for consumer in link.pairs.spread(participant_consumers(name)):
                await link.pull(consumer.stream, consumer.name, 20, self._on_command)

    def steps(self, key: SagaKey, direction: subjects.Direction = "do") -> list[str]:
        """What was acted on for a saga, in this order."""
        return [c.step for c in self.acted if c.saga == key and c.direction == direction]

    def _on_command(self, delivery: Delivery) -> None:
        command = subjects.parse_command(delivery.subject)
        answer = self._answer(command, delivery.sequence)
        if answer is None:
            delivery.drop()
            return
        if delivery.sequence not in self._sequences:
            self._sequences.add(delivery.sequence)
            self.acted[command] += 1

        def settle(outcome: Outcome) -> None:
            if isinstance(outcome, int | AlreadyStored):
                delivery.ack()
            else:
                delivery.hand_back(0.2)

        subject, data = answer
        self.links[command.participant].publish(subject, data, "", settle)

    def _answer(self, command: subjects.CommandAddress, sequence: int) -> tuple[str, bytes] | None:
        if command.is_close:
            met = self.close(command)
            return closed_message(command, sequence, met) if met is not None else None
        kind = self.play(command)
        return answer_message(command, sequence, kind) if kind is not None else None
