"""A delivery into a command or an event: decoded, checked against its subject, and with whoever handles it."""

from __future__ import annotations

from functools import lru_cache

from antiphon.contracts.envelope import Envelope, decode, unpack_raw
from antiphon.contracts.errors import Forged
from antiphon.contracts.retry import parse_retry
from antiphon.contracts.subjects import CommandAddress, Direction, parse_command, parse_fact

from .execution import Execution
from .job import Job
from .participant import AnyHandler, Participant
from .reaction import REACTION_RETRY
from .routing import Route, Routing, Unheard


class NotForUs(Exception):
    """An event was delivered that no version of this participant reacts to."""


class Reader:
    """Reads what is delivered to a participant.

    Args:
        participant: the handlers.
        rested: numbers of reactions that killed their worker before and may be called once more.
    """

    def __init__(self, participant: Participant, rested: set[str]) -> None:
        self._participant, self._rested = participant, rested
        self._routing = Routing(participant.name, participant.reactions)

    def read(self, job: Job) -> tuple[Execution, AnyHandler | None]:
        """Read a command and find its handler; None where this version of the participant has none.

        Raises:
            Unusable: no worker can use it.
        """
        delivery = job.delivery
        address = job.address = parse_command(delivery.subject)
        envelope = _open(job)
        handler = self._participant.handler(address.way, envelope.type)
        payload = unpack_raw(envelope.data, handler.shape, delivery.subject) if handler else None
        retry, is_retriable = _retry(envelope.retry), envelope.retriable
        execution = Execution(address, payload, retry, job.message, delivery.deliveries, is_retriable)
        job.execution = execution
        return execution, handler

    def read_event(self, job: Job) -> tuple[Execution, Route | None]:
        """Read an event and find the reaction to it; None where perhaps another version of the participant has one.

        Raises:
            NotForUs: there is none, and never was.
            Unusable: no worker can use it.
        """
        delivery = job.delivery
        where = parse_fact(delivery.subject)
        envelope = _open(job)
        if envelope.source != where.source:
            raise Forged(f"the envelope's source is {envelope.source[:80]!r}", subject=delivery.subject)
        try:
            route = self._routing.find(where, envelope.type)
        except Unheard:
            job.address = CommandAddress(where.saga, self._participant.name, where.step, "do", 1)
            job.execution = Execution(job.address, None, REACTION_RETRY, job.message, delivery.deliveries)
            return job.execution, None
        if route is None:
            raise NotForUs
        reaction = route.reaction
        payload = unpack_raw(envelope.data, reaction.event, delivery.subject)
        direction: Direction = "undo" if reaction.undoes else "do"
        job.address = CommandAddress(where.saga, self._participant.name, route.row, direction, 1)
        job.execution = Execution(job.address, payload, reaction.retry, job.message, delivery.deliveries, route=route)
        job.execution.has_rested = job.message in self._rested
        return job.execution, route


def _open(job: Job) -> Envelope:
    """The envelope of what was delivered, if it says the same as its subject."""
    delivery = job.delivery
    envelope = decode(delivery.data, delivery.subject)
    if envelope.id != delivery.subject:
        raise Forged(f"the envelope says {envelope.id[:200]!r}", subject=delivery.subject)
    job.type, job.traceparent = envelope.type, envelope.traceparent
    return envelope


_retry = lru_cache(maxsize=1024)(parse_retry)
"""There are as many different texts as steps in all definitions."""
