"""Answers on their way: sealed before the commit, published after it, and acked once the stream has them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Final

import msgspec

from antiphon.contracts.bounds import TRIES_MAX
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, Envelope, encode
from antiphon.contracts.errors import Ambiguous, Conflict, TooLarge
from antiphon.contracts.headers import traceparent_header
from antiphon.contracts.identity import dashed
from antiphon.contracts.messages import contract_of, name_of
from antiphon.contracts.reader import CommandKind, answer_kind
from antiphon.contracts.subjects import event_subject
from antiphon.link import AlreadyStored, Link, Outcome, Rejected, killpoints
from antiphon.tracing.telemetry.counts import Counts

from .execution import Execution
from .inbox import Answer
from .job import Job, SealedAnswer
from .jobs import Jobs
from .participant import Participant
from .procedures import negative

ANSWER_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 512
"""How large an answer to a command may be: a little below the limit, so that it still fits when a later attempt, with
longer numbers, gets it again, or when a settlement carries it."""
PUBLISH_TRIES_MAX: Final = 10
PUBLISH_AGAIN_SECONDS: Final = 1.0


def fitting(envelope: Envelope, direction: CommandKind) -> bytes:
    """The bytes of an answer.

    Raises:
        TooLarge: they are more than the protocol allows.
    """
    data = encode(envelope)
    if direction == "do" and len(data) > ANSWER_BYTES_MAX:
        raise TooLarge(f"{len(data)} bytes, and the limit is {ANSWER_BYTES_MAX}", subject=envelope.id)
    return data


class Answering:
    """Stores a participant's answers, and counts them.

    Args:
        participant: whose answers these are.
        link: stores events.
        jobs: all jobs of the worker.
        counts: where attempts and duplicates are counted.
    """

    def __init__(self, participant: Participant, link: Link, jobs: Jobs, counts: Counts) -> None:
        self._participant, self._name = participant, participant.name
        self._link, self._jobs, self._counts = link, jobs, counts
        self._loop = asyncio.get_running_loop()

    def seal(self, job: Job, answer: Answer) -> None:
        """Encode the event of an answer, so that after the commit it has only to be sent. A reaction may have none.

        Raises:
            TooLarge: the event would be larger than the protocol allows.
        """
        address, execution, sequence = job.address, job.execution, str(job.delivery.sequence)
        assert address is not None, "what has no address is set aside without an answer"
        job.answer = None
        if not answer.type:
            return
        is_event, tries = job.is_event, execution.tries + execution.lost if execution else 0
        step = execution.route.step if execution and execution.route else address.step
        subject = event_subject(address.saga.path, self._name, _token(answer.type), step, address.attempt)
        data = fitting(
            Envelope(
                id=subject,
                source=self._name,
                type=answer.type,
                time=datetime.now(UTC),
                data=msgspec.Raw(answer.data),
                command="" if is_event else sequence,
                reacts=sequence if is_event else "",
                started=execution.started if execution else None,
                tries=min(tries, TRIES_MAX) if tries > 1 else 0,
                traceparent=job.traceparent,
            ),
            address.direction,
        )
        job.answer = SealedAnswer(answer.type, subject, data)

    def send(self, job: Job) -> None:
        """Publish the sealed answer, and ack the delivery once it is stored; at once where nothing is published."""
        if job.answer is None:
            self._jobs.settle(job)
        else:
            self._publish(job, job.answer)

    def exhaust(self, job: Job, reason: str) -> None:
        """Answer a command with `exhausted`, if its type can be read."""
        contract = contract_of(job.type or _type_in(job.delivery.data))
        if contract is None:
            self._jobs.settle(job)
            return
        self.seal(job, negative(contract, "exhausted", reason))
        self.send(job)

    def count_failed(self, job: Job) -> None:
        """Count an attempt that failed and is followed by another one."""
        self._counts.add("attempts", self._name, name_of(job.type), "failed")

    def _publish(self, job: Job, answer: SealedAnswer) -> None:
        answer.publishes += 1
        headers = traceparent_header(answer.data)
        self._link.publish(answer.subject, answer.data, headers, partial(self._on_outcome, job, answer))

    def _on_outcome(self, job: Job, answer: SealedAnswer, outcome: Outcome) -> None:
        match outcome:
            case int() | AlreadyStored():
                killpoints.reached("worker.event_stored")
                self._count(job, answer, outcome)
                self._jobs.settle(job)
            # The event can be stored once only, so sending it again is safe, and quicker than a redelivery.
            case Ambiguous() if answer.publishes < PUBLISH_TRIES_MAX and not self._jobs.is_draining:
                self._loop.call_later(PUBLISH_AGAIN_SECONDS, self._publish, job, answer)
            case Ambiguous():
                job.log("event.unconfirmed", reason=str(outcome))
                self._jobs.drop(job)
            case Rejected() | Conflict():
                job.log("event.rejected", reason=str(outcome))
                self._jobs.hand_back(job)

    def _count(self, job: Job, answer: SealedAnswer, outcome: Outcome) -> None:
        """Count an attempt whose answer is durable, or an answer that was stored before."""
        execution = job.execution
        kind = "" if execution is None else self._outcome_of(job, execution, answer)
        is_known = isinstance(outcome, AlreadyStored)
        if execution is None or is_known or (execution.started is None and kind != "exhausted"):
            self._counts.add("duplicates", self._name)
            return
        labels = (self._name, name_of(job.type), kind)
        self._counts.add("attempts", *labels)
        if execution.started is not None and self._counts.record is not None:
            self._counts.took("handler_seconds", (datetime.now(UTC) - execution.started).total_seconds(), *labels)

    def _outcome_of(self, job: Job, execution: Execution, answer: SealedAnswer) -> str:
        """How a command was answered, or what a reaction came to."""
        if execution.route is not None:
            refused = execution.route.reaction.refused
            return "refused" if refused is not None and answer.type == refused.__contract__.type else "done"
        kind: CommandKind = execution.address.direction
        if kind == "undo" and job.type in self._participant.settlements:
            kind = "settle"
        return _outcome_in(kind, job.type, answer.type)


# --- types on the wire ------------------------------------------------------------------------------------------------


class _Typed(msgspec.Struct):
    type: str


def _type_in(data: bytes) -> str:
    """The type of a message whose rest may be unreadable; empty if the type is, too."""
    try:
        return msgspec.json.decode(data, type=_Typed).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


@lru_cache(maxsize=1024)
def _outcome_in(kind: CommandKind, sent_type: str, answer_type: str) -> str:
    """How a command, compensation or settlement was answered."""
    return answer_kind(kind, name_of(sent_type), _token(answer_type)) or "done"


@lru_cache(maxsize=1024)
def _token(message_type: str) -> str:
    """What stands in a subject for a type: its name without the version, dashed."""
    return dashed(name_of(message_type))
