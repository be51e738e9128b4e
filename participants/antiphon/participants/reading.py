"""A delivery into a command or an event: decoded, checked against its subject, and with whoever handles it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from antiphon.contracts.envelope import Envelope, decode, unpack_raw
from antiphon.contracts.errors import Forged, WrongShape
from antiphon.contracts.messages import Close, Contract, close_name, contract_of
from antiphon.contracts.registration import token
from antiphon.contracts.retry import parse_retry
from antiphon.contracts.subjects import CommandAddress, Direction, parse_command, parse_fact

from . import inbox
from .execution import Execution
from .inbox import Answer
from .job import Job
from .participant import CommandHandler, CompensationHandler, Participant, Settlement
from .procedures import (
    CloseProcedure,
    DoProcedure,
    Procedure,
    ReactProcedure,
    ReactUndoProcedure,
    SettleProcedure,
    UndoProcedure,
    UnhandledProcedure,
)
from .reaction import REACTION_RETRY
from .routing import Route, Routing, Unheard


class NotForUs(Exception):
    """An event was delivered that no version of this participant reacts to."""


class Reader:
    """Reads what is delivered to a participant.

    Args:
        participant: the handlers.
        rested: messages of reactions that killed their worker before and may be called once more.
        lasts: whether the database outlives the process; one that does not forgets its rows together with the effects.
    """

    def __init__(self, participant: Participant, rested: set[str], *, lasts: bool) -> None:
        self._participant, self._rested, self._lasts = participant, rested, lasts
        self._routing = Routing(participant.name, participant.reactions)

    def read(self, job: Job) -> Execution:
        """Read a command, and find out what it asks.

        Raises:
            Unusable: no worker can use it.
        """
        delivery = job.delivery
        address = job.address = parse_command(delivery.subject)
        envelope = _open(job)
        procedure = self._procedure(address, envelope)
        execution = job.execution = Execution(
            address, procedure, _retry(envelope.retry), job.message, delivery.deliveries
        )
        return execution

    def _procedure(self, address: CommandAddress, envelope: Envelope) -> Procedure:
        if address.direction == "close":
            return self._close(address, envelope)
        handler = self._participant.handler(address.direction, envelope.type)
        if handler is None:
            reason = f"{self._participant.name} has no handler for {envelope.type}"
            return UnhandledProcedure(_contract(envelope), address, reason, is_event=False)
        payload = unpack_raw(envelope.data, handler.shape, envelope.id)
        match handler:
            case CommandHandler():
                data = bytes(envelope.data) if handler.is_outside else b""
                return DoProcedure(handler, address, payload, envelope.retriable, data)
            case CompensationHandler():
                is_answered = self._lasts and bool(envelope.answer)
                return UndoProcedure(handler, address, payload, is_answered=is_answered)
            case Settlement():
                return SettleProcedure(handler, address)

    def _close(self, address: CommandAddress, envelope: Envelope) -> Procedure:
        """An operator's close needs no handler: it is about the row alone."""
        contract = _contract(envelope)
        name = contract.name.removesuffix(".close")
        if close_name(name) != contract.name:
            raise Forged(f"a close is not called {envelope.type[:80]!r}", subject=envelope.id)
        close = unpack_raw(envelope.data, Close, envelope.id)
        answer = Answer(close.type, bytes(close.reply)) if close.form == "done" else None
        procedure = inbox.Close(address.attempt, close.form, answer, close.claim, token(close.user))
        return CloseProcedure(Contract(name, contract.version, contract.owner), address, procedure)

    def read_event(self, job: Job) -> Execution:
        """Read an event, and find the reaction to it.

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
            # Perhaps another version of the participant has one.
            reason = f"{self._participant.name} has no handler for {envelope.type}"
            unhandled = UnhandledProcedure(_contract(envelope), job.address, reason, is_event=True)
            job.execution = Execution(job.address, unhandled, REACTION_RETRY, job.message, delivery.deliveries)
            return job.execution
        if route is None:
            raise NotForUs
        reaction = route.reaction
        payload = unpack_raw(envelope.data, reaction.event, delivery.subject)
        direction: Direction = "undo" if reaction.undoes else "do"
        job.address = CommandAddress(where.saga, self._participant.name, route.row, direction, 1)
        procedure = procedure_of(route, job.address, payload)
        job.execution = Execution(job.address, procedure, reaction.retry, job.message, delivery.deliveries)
        job.execution.route, job.execution.has_rested = route, job.message in self._rested
        return job.execution


def procedure_of(route: Route, address: CommandAddress, payload: Any) -> Procedure:
    """What an event asks that a reaction hears."""
    undoes = route.reaction.undoes
    return (
        ReactProcedure(route, address, payload)
        if undoes is None
        else ReactUndoProcedure(route, undoes, address, payload)
    )


def _open(job: Job) -> Envelope:
    """The envelope of what was delivered, if it says the same as its subject."""
    delivery = job.delivery
    envelope = decode(delivery.data, delivery.subject)
    if envelope.id != delivery.subject:
        raise Forged(f"the envelope says {envelope.id[:200]!r}", subject=delivery.subject)
    job.type, job.traceparent = envelope.type, envelope.traceparent
    return envelope


def _contract(envelope: Envelope) -> Contract:
    """The contract that the type of a message names, whether or not its class is known here."""
    if (contract := contract_of(envelope.type)) is None:
        raise WrongShape(f"{envelope.type[:80]!r} is no versioned type", subject=envelope.id)
    return contract


_retry = lru_cache(maxsize=1024)(parse_retry)
"""There are as many different texts as steps in all definitions."""
