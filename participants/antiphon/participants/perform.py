"""One command or event under the inbox's rules: one transaction, one answer, wherever it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from antiphon.contracts.envelope import pack, unpack_raw
from antiphon.contracts.errors import Refused, TooLarge, Unavailable, Unusable
from antiphon.contracts.messages import AnswerKind, Contract, Event, Refusal, Settled, Undone, answer_type
from antiphon.link import killpoints

from .attempts import Exhausted, count_attempt
from .databases import Database
from .execution import Execution
from .inbox import (
    SILENCE,
    AlreadyUndone,
    AnotherWas,
    Answer,
    NothingToUndo,
    Row,
    RunCompensation,
    RunHandler,
    SendAgain,
    Superseded,
    on_do,
    on_event,
    on_settle,
    on_undo,
    on_undoing_event,
)
from .participant import AnyHandler, CommandHandler, CompensationHandler, Settlement
from .reaction import Reaction
from .reasons import OwnWords, clean, reason_of
from .routing import Route
from .transaction import Transaction

Seal = Callable[[Answer], None]
"""Makes the event of an answer, ready to be sent: before the commit, so that nothing is done that cannot be said.

Raises:
    TooLarge: the event would be larger than the protocol allows.
"""


class AlreadyDone(OwnWords):
    """This once-per-saga reaction already ran for another event."""


class WrongReply(OwnWords, TypeError):
    """An author's function returned another class than its annotation says."""


async def perform(handler: AnyHandler | Route, execution: Execution, database: Database, seal: Seal) -> Answer:
    """Answer a command, a compensation, a settlement or an event; see the function for each."""
    match handler:
        case Route():
            return await react(handler, execution, database, seal)
        case CommandHandler():
            return await carry_out(handler, execution, database, seal)
        case CompensationHandler():
            return await take_back(handler, execution, database, seal)
        case Settlement():
            return await settle(handler, execution, database, seal)


async def carry_out(handler: CommandHandler, execution: Execution, database: Database, seal: Seal) -> Answer:
    """Perform a command, unless the inbox says that it was, or must not be.

    Returns:
        The answer, which is sealed and durable.

    Raises:
        Busy: the database could not be had; this was no attempt.
        Suspect: the handler may be called only when it is performed alone.
        Exhausted: the attempts have run out, or there is no way to answer.
        Exception: whatever the handler raised; nothing happened. A refusal of a retriable command is such an error.
    """
    contract = handler.command.__contract__
    try:
        async with database.begin(execution.address) as inbox:
            match on_do(await inbox.claim(), execution.address.attempt):
                case RunHandler():
                    await count_attempt(execution, inbox)
                    answer = await execution.call.make(partial(_reply, handler, execution.payload, inbox.transaction))
                    _seal_or_give_up(seal, answer)
                    killpoints.reached("worker.in_transaction")
                    await inbox.settle(Row("done", execution.address.attempt, answer))
                case decision:
                    answer = _known_answer(contract, decision)
                    seal(answer)
    except Refused as refusal:
        if execution.is_retriable:
            raise
        return await _refuse(contract, execution, database, seal, refusal)
    killpoints.reached("worker.committed")
    return answer


async def take_back(handler: CompensationHandler, execution: Execution, database: Database, seal: Seal) -> Answer:
    """Perform a compensation, if there is an effect to take back.

    Returns and raises the same as `carry_out`. A refusal counts as any other error: an effect cannot be left in place.
    """
    contract = handler.compensation.__contract__
    async with database.begin(execution.address) as inbox:
        row = await inbox.claim()
        match on_undo(row):
            case RunCompensation(stored):
                await count_attempt(execution, inbox)
                await execution.call.make(partial(_take_back, handler, execution.payload, stored, inbox.transaction))
                answer = _undone(contract, found=True)
                seal(answer)
                killpoints.reached("worker.in_transaction")
                await inbox.settle(Row("undone", row.attempt if row else 0, stored))
            case NothingToUndo(attempt):
                answer = _undone(contract, found=False)
                seal(answer)
                await inbox.settle(Row("void", attempt))
            case AlreadyUndone(found):
                answer = _undone(contract, found=found)
                seal(answer)
    killpoints.reached("worker.committed")
    return answer


async def settle(handler: Settlement, execution: Execution, database: Database, seal: Seal) -> Answer:
    """Say what became of a command: it happened, with the answer given then; or it did not, and then never will.

    No handler is called. A command that is inside its transaction is waited for, because claiming its row waits.

    Returns and raises the same as `carry_out`.
    """
    contract = handler.command.__contract__
    async with database.begin(execution.address) as inbox:
        match on_settle(await inbox.claim()):
            case SendAgain(stored):
                answer = _settled(contract, Settled(happened=True, type=stored.type, reply=msgspec.Raw(stored.data)))
            case NothingToUndo(attempt):
                answer = _settled(contract, Settled(happened=False))
                await inbox.settle(Row("void", attempt))
            case AlreadyUndone():
                answer = _settled(contract, Settled(happened=False))
        seal(answer)
        killpoints.reached("worker.in_transaction")
    killpoints.reached("worker.committed")
    return answer


async def react(route: Route, execution: Execution, database: Database, seal: Seal) -> Answer:
    """React to an event, unless the inbox says that this was done, or must not be.

    Returns:
        What follows, which is sealed and durable; `SILENCE` where nothing does.

    Raises:
        Busy: the database could not be had; this was no attempt.
        Suspect: the function may be called only when it is performed alone.
        Resting: it has killed its worker too often to be called just now.
        Exception: whatever the function raised; nothing happened.
    """
    reaction = route.reaction
    if reaction.undoes is not None:
        return await _take_back_on(route, reaction.undoes, execution, database, seal)
    try:
        async with database.begin(execution.address) as inbox:
            match on_event(await inbox.claim(), route.mark):
                case RunHandler():
                    await count_attempt(execution, inbox)
                    answer = await execution.call.make(
                        partial(_reaction, reaction, execution.payload, inbox.transaction)
                    )
                    _seal_or_give_up(seal, answer)
                    killpoints.reached("worker.in_transaction")
                    await inbox.settle(Row("done", route.mark, answer))
                case decision:
                    answer = _known_reaction(decision)
                    seal(answer)
    except Refused as refusal:
        if reaction.refused is None:
            raise
        return await _refuse_event(route, reaction.refused, execution, database, seal, refusal)
    killpoints.reached("worker.committed")
    return answer


async def _take_back_on(route: Route, undoes: Reaction, execution: Execution, database: Database, seal: Seal) -> Answer:
    """Take back what another reaction did, if it did; if not, it never will."""
    reaction, answer = route.reaction, SILENCE
    async with database.begin(execution.address) as inbox:
        match on_undoing_event(await inbox.claim(), route.mark):
            case RunCompensation(stored):
                await count_attempt(execution, inbox)
                undo = partial(_undoing_reaction, reaction, undoes, execution.payload, stored, inbox.transaction)
                answer = await execution.call.make(undo)
                _seal_or_give_up(seal, answer)
                killpoints.reached("worker.in_transaction")
                await inbox.settle(Row("undone", route.mark, answer))
            case SendAgain(answer):
                seal(answer)
            case NothingToUndo(mark):
                await inbox.settle(Row("void", mark))
            case AlreadyUndone():
                pass
    killpoints.reached("worker.committed")
    return answer


def negative(contract: Contract, kind: AnswerKind, reason: str) -> Answer:
    """A refused, exhausted or superseded answer."""
    return Answer(answer_type(contract, kind), _encode(Refusal(reason=clean(reason))))


async def _refuse(contract: Contract, execution: Execution, database: Database, seal: Seal, refusal: Refused) -> Answer:
    """Store a refusal, after all that the handler did was undone.

    The row was free for a moment, so the rules are asked again: a compensation may have come in between.
    """
    answer = negative(contract, "refused", reason_of(refusal))
    async with database.begin(execution.address) as inbox:
        match on_do(await inbox.claim(), execution.address.attempt):
            case RunHandler():
                await inbox.settle(Row("refused", execution.address.attempt, answer))
            case decision:
                answer = _known_answer(contract, decision)
        seal(answer)
    killpoints.reached("worker.committed")
    return answer


async def _refuse_event(
    route: Route, refused: type[Event], execution: Execution, database: Database, seal: Seal, refusal: Refused
) -> Answer:
    """Store a refusal, as with a command: in a second transaction, which asks the row again."""
    event = msgspec.convert({"reason": reason_of(refusal)}, refused)
    answer = Answer(refused.__contract__.type, _encode(event))
    async with database.begin(execution.address) as inbox:
        match on_event(await inbox.claim(), route.mark):
            case RunHandler():
                await inbox.settle(Row("refused", route.mark, answer))
            case decision:
                answer = _known_reaction(decision)
        seal(answer)
    killpoints.reached("worker.committed")
    return answer


def _known_answer(contract: Contract, decision: SendAgain | Superseded) -> Answer:
    match decision:
        case SendAgain(answer):
            return answer
        case Superseded(reason):
            return negative(contract, "superseded", reason)


def _known_reaction(decision: SendAgain | Superseded | AnotherWas) -> Answer:
    match decision:
        case SendAgain(answer):
            return answer
        case Superseded():
            return SILENCE
        case AnotherWas():
            raise AlreadyDone("this follows once in a saga, because it can be undone, and another event came first")


# --- an author's code, with what it is given and what is made of what it gives ----------------------------------------


async def _reply(handler: CommandHandler, command: Any, tx: Transaction) -> Answer:
    return _done(handler, await handler.call(command, tx))


async def _take_back(handler: CompensationHandler, compensation: Any, stored: Answer, tx: Transaction) -> None:
    await handler.call(compensation, _stored_event(stored, (handler.reply,)), tx)


async def _reaction(reaction: Reaction, event: Any, tx: Transaction) -> Answer:
    return _follows(reaction, await reaction.call(event, tx))


async def _undoing_reaction(
    reaction: Reaction, undoes: Reaction, event: Any, stored: Answer, tx: Transaction
) -> Answer:
    return _follows(reaction, await reaction.call(event, _stored_event(stored, undoes.emits), tx))


def _follows(reaction: Reaction, event: Event | None) -> Answer:
    """What a reaction returned, if it may."""
    if event is None and reaction.may_be_silent:
        return SILENCE
    if event is None or type(event) not in reaction.emits:
        expected = " or ".join([each.__name__ for each in reaction.emits] + ["None"] * reaction.may_be_silent)
        raise WrongReply(f"the reaction {reaction.name} returned {_a(event)}, not {expected}")
    return Answer(event.__contract__.type, _readable(event))


def _done(handler: CommandHandler, reply: object) -> Answer:
    if type(reply) is not handler.reply:
        expected = handler.reply.__name__
        raise WrongReply(f"the handler of {handler.command.__name__} returned {_a(reply)}, not {expected}")
    return Answer(handler.reply.__contract__.type, _readable(reply))


def _a(returned: object) -> str:
    """What was returned, by its class: a value would travel with the reason."""
    return "None" if returned is None else f"a {type(returned).__name__}"


def _readable(event: Any) -> bytes:
    """The bytes of an event, which were read back: what a row of a database gave may have another type than the
    contract says, and nobody could read it once it is committed.

    Raises:
        WrongShape: it does not fit its contract.
    """
    return bytes(pack(event))


def _undone(contract: Contract, *, found: bool) -> Answer:
    return Answer(answer_type(contract, "done"), _encode(Undone(found=found)))


def _settled(contract: Contract, settled: Settled) -> Answer:
    return Answer(answer_type(contract, "settled"), _encode(settled))


def _seal_or_give_up(seal: Seal, answer: Answer) -> None:
    try:
        seal(answer)
    except TooLarge as error:
        raise Exhausted(f"its answer cannot be sent: {error.reason}; nothing was done") from None


def _stored_event(stored: Answer, shapes: Sequence[type[Event]]) -> Event:
    """What was answered then, if today's contract can still read it."""
    shape = next((each for each in shapes if each.__contract__.type == stored.type), None)
    if shape is None:
        expected = " or ".join(each.__contract__.type for each in shapes)
        raise Unavailable(f"the effect was answered with {stored.type}, and whoever takes it back takes {expected}")
    try:
        return unpack_raw(stored.data, shape)
    except Unusable as error:
        raise Unavailable(f"the stored answer does not fit its contract any more: {reason_of(error)}") from None


_encode = msgspec.json.Encoder().encode
