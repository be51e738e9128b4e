"""What a participant does, as data: for the flow of messages, and for the registration of its processes."""

from __future__ import annotations

from antiphon.contracts.registration import Capabilities, Handled, Reacted, TakenBack, named, token

from .participant import CommandHandler, CompensationHandler, Participant
from .reaction import Reaction


def capabilities_of(participant: Participant) -> Capabilities:
    """The commands, compensations and reactions of a participant, by names and types alone."""
    return Capabilities(
        name=participant.name,
        commands=tuple(_handled(each) for each in participant.handlers.values()),
        compensations=tuple(_taken_back(each) for each in participant.compensations.values()),
        reactions=tuple(_reacted(each) for each in participant.reactions),
    )


def _handled(handler: CommandHandler) -> Handled:
    return Handled(command=named(handler.command), reply=named(handler.reply), handler=token(handler.call.__name__))


def _taken_back(handler: CompensationHandler) -> TakenBack:
    return TakenBack(
        compensation=named(handler.compensation),
        command=named(handler.command),
        handler=token(handler.call.__name__),
    )


def _reacted(reaction: Reaction) -> Reacted:
    return Reacted(
        event=named(reaction.event),
        handler=token(reaction.name),
        saga_type=reaction.saga_type,
        emits=tuple(map(named, reaction.emits)),
        refused=named(reaction.refused) if reaction.refused else None,
        undoes=token(reaction.undoes.name) if reaction.undoes else "",
        needs_no_compensation=reaction.needs_no_compensation,
        is_signal=reaction.is_signal,
    )
