"""Which of a participant's reactions an event is for, and what the reaction is called on the wire and in the inbox."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.contracts.errors import Forged
from antiphon.contracts.identity import CLIENT, dashed
from antiphon.contracts.messages import Contract
from antiphon.contracts.subjects import FactAddress, reaction_step

from .reaction import Reaction


@dataclass(frozen=True, slots=True)
class Route:
    """An event and the reaction to it."""

    reaction: Reaction
    row: str
    """The step of the inbox row. Who takes an effect back knows the reaction, and not which event that was on; so an
    effect that may be taken back happens once in a saga, and its row is named after the reaction alone."""
    step: str
    """The step in the subject of what follows."""
    mark: int
    """Tells the event from others of one saga that have the same row."""


class Unheard(Exception):
    """This participant has no reaction to an event that was delivered. Another version of it may have one."""


class Routing:
    """All reactions of a participant.

    Args:
        participant: its name.
        reactions: as they were declared.
    """

    def __init__(self, participant: str, reactions: Sequence[Reaction]) -> None:
        self._participant, self._reactions = participant, reactions
        self._undone = [each.undoes for each in reactions if each.undoes is not None]

    def find(self, where: FactAddress, event_type: str) -> Route | None:
        """The reaction to an event, or None where it is known that there is none.

        Args:
            where: what the event's subject says.
            event_type: what its envelope says.

        Raises:
            Forged: the type belongs to another subject.
            Unheard: the event was delivered because another version of the participant reacts to it.
        """
        name, _, version = event_type.rpartition(".v")
        if where.token and dashed(name) != where.token:
            raise Forged(f"the envelope's type is {event_type[:80]!r}, and the subject says {where.token!r}")
        near = [each for each in self._reactions if _is_near(each, where)]
        for reaction in near:
            if reaction.event.__contract__.type == event_type:
                return self._route(reaction, where)
        if any(each.event.__contract__.type == event_type and _is_of(each, where) for each in self._reactions):
            raise Forged(f"{event_type[:80]!r} is no {'signal' if where.is_signal else 'start'} here")
        # A newer event must not be lost to a new version of this participant that is just being rolled out. An older
        # one, or another start, is known and was left out.
        if near and not (version.isdigit() and int(version) > max(_known(near, name), default=int(version))):
            return None
        raise Unheard(f"{self._participant} does not react to {event_type[:80]} of saga type {where.saga.type}")

    def _route(self, reaction: Reaction, where: FactAddress) -> Route:
        event = reaction.event.__contract__.token
        # A start and a signal come once, and their subjects name no step of a participant.
        said_at = "" if where.source == CLIENT else where.step
        step = reaction_step(event, said_at)
        return Route(reaction, self._row(reaction, event, said_at), step, _mark(event, said_at))

    def _row(self, reaction: Reaction, event: str, said_at: str) -> str:
        if reaction.undoes is not None:
            return reaction_step(reaction.undoes.event.__contract__.token, "")
        return reaction_step(event, "" if reaction in self._undone else said_at)


def _is_of(reaction: Reaction, where: FactAddress) -> bool:
    """Whether a reaction hears such a source in such a saga."""
    return reaction.event.__contract__.owner == where.source and reaction.saga_type in ("", where.saga.type)


def _is_near(reaction: Reaction, where: FactAddress) -> bool:
    """Whether what a reaction hears is stored at such a subject, whatever its type. A start is nothing but what a
    client stores as one: a signal with the same event begins no saga, and nothing may follow from it."""
    if not _is_of(reaction, where):
        return False
    if where.source == CLIENT and reaction.is_signal != where.is_signal:
        return False
    return where.is_start or reaction.event.__contract__.token == where.token


def _known(reactions: Sequence[Reaction], name: str) -> list[int]:
    """The versions of an event that have reactions."""
    contracts: list[Contract] = [each.event.__contract__ for each in reactions]
    return [contract.version for contract in contracts if contract.name == name]


def _mark(event: str, said_at: str) -> int:
    """31 bits, as much as the smallest integer of a database holds."""
    return int.from_bytes(hashlib.sha256(f"{event}.{said_at}".encode()).digest()[:4]) >> 1
