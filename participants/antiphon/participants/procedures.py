"""What one message asks of the inbox: which rule decides about it, which code of an author's it calls, and what the row
and the answer are then. One class for each kind of message; how it is performed is the same for all (`perform.py`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from antiphon.contracts.envelope import pack, unpack_raw
from antiphon.contracts.errors import Refused, Unavailable, Unusable
from antiphon.contracts.messages import (
    AnswerKind,
    Closed,
    Contract,
    Event,
    Refusal,
    Settled,
    Undone,
    answer_type,
    closed_type,
)
from antiphon.contracts.subjects import CommandAddress

from . import inbox
from .inbox import (
    SILENCE,
    AlreadyUndone,
    AnotherWas,
    Answer,
    CloseCounts,
    InDoubt,
    MachineWas,
    MayHaveHappened,
    NothingToUndo,
    OtherPayload,
    Row,
    RowIsMissing,
    RowState,
    RunCompensation,
    RunHandler,
    SendAgain,
    Superseded,
    Wait,
)
from .participant import CommandHandler, CompensationHandler, Settlement
from .reaction import Reaction
from .reasons import OwnWords, clean, reason_of
from .routing import Route
from .transaction import idempotency_key

Run = RunHandler | RunCompensation
"""The author's code is to be called."""
Known = (
    SendAgain
    | Superseded
    | OtherPayload
    | NothingToUndo
    | RowIsMissing
    | AlreadyUndone
    | MayHaveHappened
    | AnotherWas
    | Wait
    | CloseCounts
    | MachineWas
    | InDoubt
)
"""The row says it all."""
Decision = Run | Known
RUNS = (RunHandler, RunCompensation)


ROW_IS_MISSING: Final = (
    "its participant has answered that it was done, and the database of this process does not know of it: processes of "
    "the participant use different databases, or this one is older. Nothing was taken back"
)


class NotYet(OwnWords):
    """Something else has to end first; the message is handed back, and this was no attempt."""


class AlreadyDone(OwnWords):
    """This once-per-saga reaction already ran for another event."""


class NobodyKnows(OwnWords):
    """The reaction that is to be taken back was begun outside the database, and its event does not come again."""


class NoHandler(OwnWords):
    """This worker has no handler for the type of a message. Another version of the participant may have one."""


class WrongReply(OwnWords, TypeError):
    """An author's function returned another class than its annotation says."""


class Procedure(Protocol):
    """What one message asks."""

    @property
    def state(self) -> RowState:
        """That of the row while a run outside a transaction is under way."""
        ...

    @property
    def mark(self) -> int:
        """The attempt or the mark that such a run leaves in the row."""
        ...

    @property
    def is_outside(self) -> bool:
        """Whether the author's code runs outside a transaction, between two of them."""
        ...

    @property
    def is_slow(self) -> bool:
        """Whether the statements of the author's code take long."""
        ...

    @property
    def has_attempts(self) -> bool:
        """Whether its attempts may run out: a coordinator then takes the matter over."""
        ...

    def decide(self, row: Row | None) -> Decision:
        """What to do, by the rules of the inbox."""
        ...

    async def call(self, decision: Run, given: Any) -> Answer:
        """Call the author's code with the transaction, or with what stands for one outside; gives its answer.

        Raises:
            Exception: whatever it raised.
        """
        ...

    def done(self, row: Row | None, decision: Run, answer: Answer) -> Row:
        """The row once the author's code has answered."""
        ...

    def known(self, row: Row | None, decision: Known) -> tuple[Answer, Row | None]:
        """The answer to a message for which nothing is to be called, and the row to be written, if any.

        Raises:
            NotYet: something else has to end first.
            AlreadyDone: the reaction has run for another event.
            NobodyKnows: it may have happened outside, and there is nobody to be told but a person.
        """
        ...

    def refusal(self, refused: Refused) -> Answer | None:
        """The answer that says no; None where a refusal is an error like others."""
        ...

    def negative(self, kind: AnswerKind, reason: str) -> Answer:
        """An exhausted or superseded answer."""
        ...

    @property
    def digest(self) -> str:
        """Of the payload; empty where payloads are not compared."""
        ...


class _Base:
    state: RowState = "claimed"
    is_outside = is_slow = False
    has_attempts = True

    def __init__(self, contract: Contract, address: CommandAddress, payload: Any) -> None:
        self.contract, self.address, self.payload = contract, address, payload
        self.mark = address.attempt

    @property
    def digest(self) -> str:
        return ""

    def refusal(self, refused: Refused) -> Answer | None:
        return None

    def negative(self, kind: AnswerKind, reason: str) -> Answer:
        return negative(self.contract, kind, reason)

    async def call(self, decision: Run, given: Any) -> Answer:
        raise AssertionError(f"a {type(self).__name__} calls nobody")

    def done(self, row: Row | None, decision: Run, answer: Answer) -> Row:
        raise AssertionError(f"a {type(self).__name__} calls nobody")


class DoProcedure(_Base):
    """Carry a command out.

    Args:
        handler: of the command.
        is_retriable: its saga can only go forward, so that a refusal is an error like others.
        data: the payload's bytes.
    """

    def __init__(
        self,
        handler: CommandHandler,
        address: CommandAddress,
        payload: Any,
        is_retriable: bool = False,
        data: bytes = b"",
    ) -> None:
        super().__init__(handler.command.__contract__, address, payload)
        self._handler, self._is_retriable, self._data = handler, is_retriable, data
        self.is_outside, self.is_slow = handler.is_outside, handler.is_slow

    @property
    def digest(self) -> str:
        """Of the payload, for runs outside a transaction."""
        return hashlib.sha256(self._data).hexdigest()[:32] if self._data else ""

    def decide(self, row: Row | None) -> Decision:
        """As the table says; the digest is looked at only where a run was begun."""
        digest = self.digest if row is not None and row.digest else ""
        return inbox.on_do(row, self.mark, digest)

    async def call(self, decision: Run, given: Any) -> Answer:
        """Call the handler."""
        reply = await self._handler.call(self.payload, given)
        if type(reply) is not self._handler.reply:
            command, expected = self._handler.command.__name__, self._handler.reply.__name__
            raise WrongReply(f"the handler of {command} returned {_a(reply)}, not {expected}")
        return Answer(self._handler.reply.__contract__.type, _readable(reply))

    def done(self, row: Row | None, decision: Run, answer: Answer) -> Row:
        """Done, with the answer."""
        return _ended(row, "done", self.mark, answer)

    def known(self, row: Row | None, decision: Known) -> tuple[Answer, Row | None]:
        """As stored, superseded, or exhausted where another payload may have happened."""
        match decision:
            case SendAgain(answer):
                return answer, None
            case Superseded(reason):
                return self.negative("superseded", reason), None
            case OtherPayload():
                reason = "another payload may have happened outside; resolve that attempt first"
                return self.negative("exhausted", reason), None
            case _:
                raise AssertionError(f"a command is not told {decision}")

    def refusal(self, refused: Refused) -> Answer | None:
        """A refused answer, unless the saga can only go forward."""
        return None if self._is_retriable else self.negative("refused", reason_of(refused))


class UndoProcedure(_Base):
    """Take a command's effect back, if there is one."""

    state: RowState = "undoing"

    def __init__(
        self, handler: CompensationHandler, address: CommandAddress, payload: Any, *, is_answered: bool = False
    ) -> None:
        super().__init__(handler.compensation.__contract__, address, payload)
        self._handler, self.is_outside, self.is_slow = handler, handler.is_outside, handler.is_slow
        self._is_answered = is_answered

    def decide(self, row: Row | None) -> Decision:
        """As the table says."""
        now = datetime.now(UTC) if row is not None and row.due_at else None
        return inbox.on_undo(row, self.mark, now, is_answered=self._is_answered)

    async def call(self, decision: Run, given: Any) -> Answer:
        """Call the compensation with what was answered then."""
        assert isinstance(decision, RunCompensation)
        await self._handler.call(self.payload, _stored_event(decision.answer, (self._handler.reply,)), given)
        return self._undone(found=True)

    def done(self, row: Row | None, decision: Run, answer: Answer) -> Row:
        """Undone; the answer of the command stays."""
        assert isinstance(decision, RunCompensation)
        assert row is not None
        return _ended(row, "undone", row.attempt, decision.answer)

    def known(self, row: Row | None, decision: Known) -> tuple[Answer, Row | None]:
        """Nothing found, undone before, or not to be known."""
        match decision:
            case NothingToUndo(attempt):
                return self._undone(found=False), _ended(row, "void", attempt, None)
            case AlreadyUndone(found):
                return self._undone(found=found), None
            case Superseded(reason):
                return self.negative("superseded", reason), None
            case RowIsMissing():
                return self.negative("exhausted", ROW_IS_MISSING), None
            case MayHaveHappened():
                return may_have_happened(self.contract, self.address, row), inbox.given_up(row)
            case Wait(reason):
                raise NotYet(reason)
            case _:
                raise AssertionError(f"a compensation is not told {decision}")

    def _undone(self, *, found: bool) -> Answer:
        return Answer(answer_type(self.contract, "done"), _encode(Undone(found=found)))


class SettleProcedure(_Base):
    """Say what became of a command: it happened, with the answer given then; or it did not, and then never will."""

    def __init__(self, handler: Settlement, address: CommandAddress) -> None:
        super().__init__(handler.command.__contract__, address, None)

    def decide(self, row: Row | None) -> Decision:
        """As the table says."""
        return inbox.on_settle(row, datetime.now(UTC) if row is not None and row.due_at else None)

    def known(self, row: Row | None, decision: Known) -> tuple[Answer, Row | None]:
        """What became of it."""
        match decision:
            case SendAgain(stored):
                settled = Settled(happened=True, type=stored.type, reply=msgspec.Raw(stored.data))
                return self._settled(settled), None
            case NothingToUndo(attempt):
                return self._settled(Settled(happened=False)), _ended(row, "void", attempt, None)
            case AlreadyUndone():
                return self._settled(Settled(happened=False)), None
            case MayHaveHappened():
                return may_have_happened(_question(self.contract), self.address, row), inbox.given_up(row)
            case Wait(reason):
                raise NotYet(reason)
            case _:
                raise AssertionError(f"a question is not told {decision}")

    def negative(self, kind: AnswerKind, reason: str) -> Answer:
        """An answer that goes by the name of the question."""
        return negative(_question(self.contract), kind, reason)

    def _settled(self, settled: Settled) -> Answer:
        return Answer(answer_type(self.contract, "settled"), _encode(settled))


class ReactProcedure(_Base):
    """React to an event. A reaction is tried for ever, so it has no attempts that run out."""

    has_attempts = False

    def __init__(self, route: Route, address: CommandAddress, payload: Any) -> None:
        super().__init__(route.reaction.event.__contract__, address, payload)
        self._reaction, self.mark = route.reaction, route.mark
        self.is_outside, self.is_slow = route.reaction.is_outside, route.reaction.is_slow

    def decide(self, row: Row | None) -> Decision:
        """As the table says."""
        return inbox.on_event(row, self.mark)

    async def call(self, decision: Run, given: Any) -> Answer:
        """Call the reaction."""
        return _follows(self._reaction, await self._reaction.call(self.payload, given))

    def done(self, row: Row | None, decision: Run, answer: Answer) -> Row:
        """Done, with what followed."""
        return _ended(row, "done", self.mark, answer)

    def known(self, row: Row | None, decision: Known) -> tuple[Answer, Row | None]:
        """What followed then, or nothing."""
        match decision:
            case SendAgain(answer):
                return answer, None
            case Superseded():
                return SILENCE, None
            case AnotherWas():
                raise AlreadyDone("this follows once in a saga, because it can be undone, and another event came first")
            case Wait(reason):
                raise NotYet(reason)
            case _:
                raise AssertionError(f"an event is not told {decision}")

    def refusal(self, refused: Refused) -> Answer | None:
        """The event that is declared for it."""
        shape = self._reaction.refused
        if shape is None:
            return None
        event = msgspec.convert({"reason": reason_of(refused)}, shape)
        return Answer(shape.__contract__.type, _encode(event))


class ReactUndoProcedure(_Base):
    """Take back on an event what another reaction did, if it did; if not, it never will."""

    state: RowState = "undoing"
    has_attempts = False

    def __init__(self, route: Route, undoes: Reaction, address: CommandAddress, payload: Any) -> None:
        super().__init__(route.reaction.event.__contract__, address, payload)
        self._reaction, self._undoes, self.mark = route.reaction, undoes, route.mark
        self.is_outside, self.is_slow = route.reaction.is_outside, route.reaction.is_slow

    def decide(self, row: Row | None) -> Decision:
        """As the table says."""
        return inbox.on_undoing_event(row, self.mark, datetime.now(UTC) if row is not None and row.due_at else None)

    async def call(self, decision: Run, given: Any) -> Answer:
        """Call the reaction with what was published then."""
        assert isinstance(decision, RunCompensation)
        stored = _stored_event(decision.answer, self._undoes.emits)
        return _follows(self._reaction, await self._reaction.call(self.payload, stored, given))

    def done(self, row: Row | None, decision: Run, answer: Answer) -> Row:
        """Undone, with what followed from that."""
        return _ended(row, "undone", self.mark, answer)

    def known(self, row: Row | None, decision: Known) -> tuple[Answer, Row | None]:
        """What followed then, or nothing."""
        match decision:
            case SendAgain(answer):
                return answer, None
            case NothingToUndo(mark):
                return SILENCE, _ended(row, "void", mark, None)
            case AlreadyUndone() | Superseded():
                return SILENCE, None
            case MayHaveHappened():
                raise NobodyKnows(
                    "what is to be taken back may have happened outside, and its event did not come again"
                )
            case Wait(reason):
                raise NotYet(reason)
            case _:
                raise AssertionError(f"an event is not told {decision}")


class CloseProcedure(_Base):
    """Close a step, as an operator resolves it."""

    def __init__(self, contract: Contract, address: CommandAddress, close: inbox.Close) -> None:
        super().__init__(contract, address, close)
        self._close = close

    def decide(self, row: Row | None) -> Decision:
        """As the table says."""
        return inbox.on_close(row, self._close)

    def known(self, row: Row | None, decision: Known) -> tuple[Answer, Row | None]:
        """Whose word counts."""
        match decision:
            case CloseCounts(written):
                return self._closed(Closed(verdict="closed")), written
            case MachineWas(verdict, attempt, stored):
                return self._closed(_machine_was(verdict, attempt, stored)), None
            case InDoubt(claim):
                is_back = row is not None and row.state in ("undoing", "done")
                key = idempotency_key(self.address, "undo" if is_back else "do")
                where = f"claim {claim} may have done it outside, under the key {key}"
                reason = f"{where}; look there, then resolve again naming claim {claim}"
                return self._closed(Closed(verdict="doubt", reason=reason, claim=claim, key=key)), None
            case Wait(reason):
                raise NotYet(reason)
            case _:
                raise AssertionError(f"a close is not told {decision}")

    def _closed(self, closed: Closed) -> Answer:
        return Answer(closed_type(self.contract), _encode(closed))


class UnhandledProcedure(_Base):
    """A message for which there is no handler here. What another version of the participant has done stands."""

    def __init__(self, contract: Contract, address: CommandAddress, reason: str, *, is_event: bool) -> None:
        super().__init__(contract, address, None)
        self._reason, self._is_event = reason, is_event
        self.has_attempts = not is_event

    def decide(self, row: Row | None) -> Decision:
        """Of commands what the row says; whether `undo` is a compensation or a question is not known."""
        if self._is_event or self.address.direction != "do":
            return RunHandler()
        return inbox.on_do(row, self.mark)

    async def call(self, decision: Run, given: Any) -> Answer:
        """There is nobody to call."""
        raise NoHandler(self._reason)

    def known(self, row: Row | None, decision: Known) -> tuple[Answer, Row | None]:
        """What another version of the participant has answered."""
        match decision:
            case SendAgain(answer):
                return answer, None
            case Superseded(reason):
                return self.negative("superseded", reason), None
            case _:
                raise AssertionError(f"a command is not told {decision}")


def negative(contract: Contract, kind: AnswerKind, reason: str) -> Answer:
    """A refused, exhausted or superseded answer."""
    return Answer(answer_type(contract, kind), _encode(Refusal(reason=clean(reason))))


def may_have_happened(contract: Contract, address: CommandAddress, row: Row | None) -> Answer:
    """The answer of whoever asks about a row that is open."""
    claim, key = row.claim if row is not None else 0, idempotency_key(address, "do")
    reason = (
        f"the end of claim {claim} is not known; look for the key {key} there, then resolve the step naming that claim"
    )
    return Answer(answer_type(contract, "exhausted"), _encode(Refusal(reason=reason, code="open")))


def _ended(row: Row | None, state: RowState, attempt: int, answer: Answer | None) -> Row:
    """The row after its end; what is known of its claims stays."""
    if row is None or not row.claim:
        return Row(state, attempt, answer, closed=row.closed if row else "")
    return msgspec.structs.replace(row, state=state, attempt=attempt, answer=answer, due_at=None)


def _question(command: Contract) -> Contract:
    """The name by which the answers to a settlement go that are no answer to its question."""
    return Contract(f"{command.name}.settle", command.version, command.owner)


def _machine_was(verdict: str, attempt: int, stored: Answer | None) -> Closed:
    match verdict:
        case "done" if stored is not None:
            reason = f"attempt {attempt} has done it"
            return Closed(
                verdict="done", reason=reason, attempt=attempt, type=stored.type, reply=msgspec.Raw(stored.data)
            )
        case "refused" if stored is not None:
            refused = unpack_raw(stored.data, Refusal).reason
            return Closed(verdict="refused", reason=refused, attempt=attempt)
        case "undone":
            return Closed(verdict="undone", reason="it has been undone", attempt=attempt)
        case _:
            return Closed(verdict="void", reason="there is no effect, and there never will be one", attempt=attempt)


# --- what an author's code gives --------------------------------------------------------------------------------------


def _follows(reaction: Reaction, event: Event | None) -> Answer:
    """What a reaction returned, if it may."""
    if event is None and reaction.may_be_silent:
        return SILENCE
    if event is None or type(event) not in reaction.emits:
        expected = " or ".join([each.__name__ for each in reaction.emits] + ["None"] * reaction.may_be_silent)
        raise WrongReply(f"the reaction {reaction.name} returned {_a(event)}, not {expected}")
    return Answer(event.__contract__.type, _readable(event))


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
