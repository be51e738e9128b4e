"""What an operator asks of a saga, of a saga type or of a participant, and what became of it.

Each request is a fact of its own in EVENTS, under the operator's name. A coordinator decides on it and says so in the
journal; whoever asked waits for that entry.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from antiphon.contracts import clock, identity, subjects
from antiphon.contracts.envelope import Envelope, decode, pack, unpack, unpack_raw
from antiphon.contracts.errors import (
    Ambiguous,
    AntiphonError,
    NotEnded,
    OlderCoordinators,
    PlatformError,
    TooLate,
    Unclosed,
    Undecided,
    Undecodable,
    UnknownSaga,
    Unusable,
)
from antiphon.contracts.identity import COORDINATOR, OPERATOR, PARKED_MESSAGE, PARTICIPANT, SAGA_TYPE, SagaKey, dashed
from antiphon.contracts.messages import Closed, close_name, closed_name, name_of
from antiphon.contracts.pairs import base_of
from antiphon.contracts.payloads import (
    END_TYPE,
    NO_PAYLOAD,
    PAUSE_STATE_TYPE,
    RECORD_TYPE,
    End,
    OnceMore,
    Operation,
    Parked,
    PauseState,
    Record,
    Request,
    verb_type,
)
from antiphon.contracts.reader import cause_sequence
from antiphon.contracts.registration import CLOSES_WIRE, read_registration
from antiphon.contracts.stored import NobodyReads, StoredMessage, TooManySubjects
from antiphon.contracts.subjects import FORGET, MessageVerb, Verb, registration_subject
from antiphon.contracts.topology import EVENTS, REGISTRATIONS, SAGA
from antiphon.link import Link
from antiphon.link.connection import missing
from antiphon.link.pairs import find_pairs

from ..definition.choreography import AnySaga
from ..definition.declared import DeclaredStep
from ..reading.parked import parked_message
from ..views.parked import Message
from ..views.standing import standing
from .store_once import PAUSE_SECONDS, message, raise_if_failed, store_once

TIMEOUT_SECONDS: Final = 15.0
"""How long a request is tried and its decision waited for: longer than a cluster needs to choose a leader, and than a
fact needs that was in the hands of a coordinator which died."""

LOOK_SECONDS: Final = 0.01
LOOK_SECONDS_MAX: Final = 0.5

Payload = msgspec.Struct | bytes
"""A command, compensation or reply, or its JSON, which the coordinator checks against the contract."""


WANT_REASON: Final = frozenset({"cancel", "pause", "resolve", "dismiss", "resend"})
"""What is asked for with a reason, which stands in the record for as long as that is kept."""


class NoReason(AntiphonError):
    """A person asked for something without saying why."""

    def __init__(self, verb: str) -> None:
        super().__init__(f"the reason to {verb} is empty. Say why: it is all that whoever looks later will know.")


class Operator:
    """A person who asks; made by `Antiphon.operator`."""

    def __init__(self, link: Link, name: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.link, self.name = link, identity.check_token(name, "operator")
        self.timeout_seconds = timeout_seconds
        self._knows_pairs = False

    def saga(self, saga: AnySaga | str, id: str) -> SagaVerbs:
        """What may be asked of one saga, given by its definition or its type, and its id."""
        return SagaVerbs(self, SagaKey.of(saga if isinstance(saga, str) else saga.name, id))

    def saga_type(self, saga: AnySaga | str) -> PauseVerbs:
        """What may be asked of all sagas of a type at once."""
        return PauseVerbs(self, SagaKey.of(SAGA_TYPE, saga if isinstance(saga, str) else saga.name))

    def participant(self, name: str) -> PauseVerbs:
        """What may be asked of a participant."""
        return PauseVerbs(self, SagaKey.of(PARTICIPANT, name))

    def message(self, number: int) -> MessageVerbs:
        """What may be asked of a message that was set aside, by where PARKED holds it."""
        return MessageVerbs(self, number)

    async def tell(self, key: SagaKey, verb: MessageVerb, operation: Operation) -> Request:
        """Store a request that nobody decides on.

        Raises:
            NoReason: it wants one.
            Unanswered: nobody knows whether it is stored.
            PlatformError: it could not be stored.
        """
        _require_reason(verb, operation)
        await self.find_pairs()
        subject = subjects.verb_subject(key, self.name, verb, secrets.token_hex(8))
        await store_once(
            self.link, subject, message(subject, OPERATOR, verb_type(verb), operation), self.timeout_seconds
        )
        (stored,) = await self.link.read_all(EVENTS, [subject])
        return _request(stored, self.name, verb, operation.reason)

    async def ask(
        self,
        key: SagaKey,
        verb: Verb,
        operation: Operation,
        look: Callable[[Request], Awaitable[Request | None]],
        late: Callable[[int], Awaitable[Undecided | None]] | None = None,
    ) -> Request:
        """Store a request and look until somebody has decided on it.

        Args:
            key: the saga, saga type or participant that it is about.
            verb: what is asked.
            operation: the particulars.
            look: looks whether it is decided.
            late: tells, of a request by its sequence, what is known of it where nobody has decided in time.

        Raises:
            NoReason: it wants one.
            Undecided: nobody has in time.
            Unanswered: nobody knows whether it is stored.
            PlatformError: it could not be stored.
        """
        _require_reason(verb, operation)
        await self.find_pairs()
        deadline = asyncio.get_running_loop().time() + self.timeout_seconds
        subject = subjects.verb_subject(key, self.name, verb, secrets.token_hex(8))
        data = message(subject, OPERATOR, verb_type(verb), operation)
        await store_once(self.link, subject, data, self.timeout_seconds)

        async def stored() -> Request | None:
            found = await self.read(EVENTS, [subject])
            return _request(found[0], self.name, verb, operation.reason) if found else None

        request: Request | None = None
        try:
            async with asyncio.timeout_at(deadline):
                request = await _insist(stored)
                return await _insist(partial(look, request))
        except TimeoutError:
            known = await late(request.sequence) if late is not None and request is not None else None
            raise known or Undecided(_spoken(key), verb, self.timeout_seconds) from None

    async def forget(self, saga: AnySaga | str, id: str, reason: str) -> End:
        """Have all that was said in a saga forgotten, at once and for good: its journal, its events, and what PARKED
        has of it. What stays is its end, without its reason, and who had it forgotten, when and why.

        Args:
            saga: the definition, or its type.
            id: the saga's.
            reason: why; it stays.

        Returns:
            The end as it stands now.

        Raises:
            UnknownSaga: there is no such saga.
            NotEnded: it has not ended. Nothing was changed; the sentence says what brings it to its end.
            Undecided: no coordinator has done it in time; it is done as soon as one can.
            PlatformError: the request could not be stored.
        """
        key = SagaKey.of(saga if isinstance(saga, str) else saga.name, id)
        await self.find_pairs()
        if await self._end_of(key) is None:
            await self.require_started(key)
            raise await self._not_ended(key)
        subject = subjects.verb_subject(key, self.name, FORGET, secrets.token_hex(8))
        data = message(subject, OPERATOR, verb_type(FORGET), Operation(reason=reason))
        await store_once(self.link, subject, data, self.timeout_seconds)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                while True:
                    end = await self._end_of(key)
                    if end is not None and end.forgotten and not await self.link.read_all(EVENTS, [subject]):
                        return end
                    await asyncio.sleep(LOOK_SECONDS_MAX)
        except TimeoutError:
            raise Undecided(_spoken(key), FORGET, self.timeout_seconds) from None

    async def _not_ended(self, key: SagaKey) -> NotEnded:
        """The error for a saga that has not ended, by how its journal says that it stands."""
        entries = await self.link.read_all(SAGA, [subjects.journal_filter(key)])
        events = list[StoredMessage]()
        with suppress(Ambiguous, TooManySubjects):  # without them what was parked once is taken to be so still
            events = await self.link.read_all(EVENTS, [subjects.saga_events_filter(key)])
        found = standing(entries, events)
        return NotEnded(key.type, key.id, found.state, found.parked)

    async def _end_of(self, key: SagaKey) -> End | None:
        """How a saga ended, as the leader or a replica says."""
        found = await self.link.read_all(SAGA, [subjects.end_subject(key)])
        return unpack(decode(found[0].data, found[0].subject), END_TYPE, End) if found else None

    async def require_no_older_coordinator(self) -> None:
        """Check that no coordinator runs that could not read a journal in which a step is closed, as far as they say
        that they run.

        Raises:
            OlderCoordinators: one does.
        """
        older: list[str] = []
        with suppress(Ambiguous):  # where nobody can tell, nobody is refused
            async for stored in self.link.scan(REGISTRATIONS.name, registration_subject(COORDINATOR, "*")):
                with suppress(Unusable):
                    found = read_registration(stored.subject, stored.data) if stored.data else None
                    older += [found.instance] if found is not None and found.wire < CLOSES_WIRE else []
        raise_if_failed(self.link)
        if older:
            raise OlderCoordinators(older)

    async def require_started(self, key: SagaKey) -> None:
        """Check that there is such a saga; asked again in a cluster, which may be choosing a leader.

        Raises:
            UnknownSaga: there is none.
            TooLate: it has ended, and was purged but for its end.
            PlatformError: that cannot be read.
        """
        await self.find_pairs()
        deadline = asyncio.get_running_loop().time() + self.timeout_seconds
        while True:
            try:
                if await self.link.read_all(EVENTS, subjects.start_subjects(key)):
                    return
                if await self.link.read_all(SAGA, [subjects.end_subject(key)]):
                    raise TooLate(key.type, key.id, "the request", "it has ended, and was purged but for its end")
                raise UnknownSaga(key.type, key.id)
            except Ambiguous as error:
                raise_if_failed(self.link)
                if not self.link.may_be_clustered or asyncio.get_running_loop().time() > deadline:
                    raise _unread(error) from None
            await asyncio.sleep(PAUSE_SECONDS)

    async def find_pairs(self) -> None:
        """Find out, once, over how many pairs of streams sagas are spread."""
        if not self._knows_pairs:
            await find_pairs(self.link)
            self._knows_pairs = True

    async def read(self, stream: str, filters: list[str]) -> list[StoredMessage]:
        """Read a stream; nothing where there was no answer."""
        try:
            return await self.link.read_all(stream, filters)
        except Ambiguous:
            raise_if_failed(self.link)
            return []


class SagaVerbs:
    """What an operator may ask of one saga.

    Each verb returns what became of it: whether it was accepted, or why it was rejected, because it came too late or
    makes no sense; then nothing was changed. All of them raise `UnknownSaga` if there is no such saga, `TooLate` if
    nothing but its end is left, `Undecided` if no coordinator decides in time, and `PlatformError` if the request could
    not be stored.
    """

    def __init__(self, operator: Operator, key: SagaKey) -> None:
        self._operator, self.key = operator, key

    async def retry(self, step: DeclaredStep | str = "") -> Request:
        """Try again now what waits to be tried again.

        Args:
            step: only this step, or an element of one, which is called `<step>-<number>`; all that wait by default.
        """
        return await self._ask("retry", Operation(step=_name(step)))

    async def edit(self, step: DeclaredStep | str, payload: Payload) -> Request:
        """Send another command, or compensation, in the place of the one that fails, now and from now on.

        Args:
            step: whose.
            payload: the command, which must fit its contract.
        """
        return await self._ask("edit", Operation(step=_name(step), payload=_raw(payload)))

    async def resolve(
        self,
        step: DeclaredStep | str,
        reason: str,
        reply: Payload | None = None,
        happened: bool | None = None,
        *,
        claim: int = 0,
        without_participant: bool = False,
    ) -> Request:
        """Say what has become of a step, having dealt with it by hand.

        Where a participant holds the step, it is asked first, and what it has committed decides: an attempt that has
        done it counts, and the request is rejected with that. Where an attempt may have acted outside its database, the
        request is rejected with the number of the claim and the key under which it acted: look there, then ask again
        and name that claim.

        Args:
            step: whose command, compensation or settlement is not answered.
            reason: what was done, for whoever looks later.
            reply: what the step has earned, where later steps may look at it.
            happened: of a pivot that is being settled, or an event that is waited for and that may turn the saga: False
                says that it did not happen and never will. Make sure of that first, with whoever would do it.
            claim: the claim after which you have looked outside, as a rejected request named it.
            without_participant: count at once, although an attempt may still run. Should it do what you did, its answer
                is parked as a fault.

        Raises:
            OlderCoordinators: one is registered that could not go on with the saga; not without its participant.
            Unclosed: the participant has not answered in time; its answer decides whenever it comes.
        """
        payload = NO_PAYLOAD if reply is None else _raw(reply)
        if not without_participant:
            await self._operator.require_no_older_coordinator()
        return await self._ask(
            "resolve",
            Operation(
                step=_name(step),
                reason=reason,
                payload=payload,
                happened=happened,
                claim=claim,
                asks=not without_participant,
            ),
        )

    async def cancel(self, reason: str) -> Request:
        """Have the saga undone; past its point of no return that is only recorded, and the saga goes on."""
        return await self._ask("cancel", Operation(reason=reason))

    async def pause(self, reason: str) -> Request:
        """Have the saga stand still: what happens is recorded, and nothing is sent."""
        return await self._ask("pause", Operation(reason=reason))

    async def resume(self) -> Request:
        """Have the saga go on."""
        return await self._ask("resume", Operation())

    async def _ask(self, verb: Verb, operation: Operation) -> Request:
        await self._operator.require_started(self.key)
        return await self._operator.ask(self.key, verb, operation, self._look, self._late)

    async def _look(self, request: Request) -> Request | None:
        """The request as the journal names it, or the end that came before it."""
        end = subjects.end_subject(self.key)
        entries = await self._operator.read(SAGA, [subjects.records_filter(self.key), end])
        for entry in entries:
            envelope = _opened(entry)
            if envelope is None or envelope.type != RECORD_TYPE or not envelope.cause.startswith("e"):
                continue
            record = unpack(envelope, RECORD_TYPE, Record)
            if request.sequence == (record.request or cause_sequence(envelope.cause)):
                return msgspec.structs.replace(request, rejected=record.rejected)
        if entries and entries[-1].subject == end:
            return await self._ended(request, unpack(decode(entries[-1].data, end), END_TYPE, End).outcome)
        return None

    async def _ended(self, request: Request, outcome: str) -> Request | None:
        """The request by the end of its saga. If a participant was asked about it before, its answer counts: an ended
        journal names it no more, and a compensation that it was told of may have been answered first."""
        close = await self._close(request.sequence)
        if close is None:
            return msgspec.structs.replace(request, rejected=f"the saga has ended: it is {outcome}")
        answers = await self._operator.read(EVENTS, [_answer_subject(close)])
        if not answers:
            return None
        closed = unpack_raw(decode(answers[0].data, answers[0].subject).data, Closed)
        is_taken = closed.verdict == "closed"
        return msgspec.structs.replace(request, rejected="" if is_taken else f"the saga has ended: it is {outcome}")

    async def _late(self, sequence: int) -> Undecided | None:
        close = await self._close(sequence)
        if close is None:
            return None
        participant = subjects.parse_command(close.id).participant
        return Unclosed(_spoken(self.key), str(self.key), participant, self._operator.timeout_seconds)

    async def _close(self, sequence: int) -> Envelope | None:
        """The close that was sent on a request, given by where EVENTS holds it; none where none was."""
        entries = await self._operator.read(SAGA, [subjects.closes_filter(self.key)])
        found = (_opened(entry) for entry in entries)
        return next((each for each in found if each is not None and cause_sequence(each.cause) == sequence), None)


class PauseVerbs:
    """What an operator may ask of a saga type or of a participant.

    Each verb returns what became of it: whether it was accepted, or why it was rejected; then nothing was changed. They
    raise `Undecided` if no coordinator decides in time, and `PlatformError` if the request could not be stored.
    """

    def __init__(self, operator: Operator, key: SagaKey) -> None:
        self._operator, self.key = operator, key

    async def pause(self, reason: str) -> Request:
        """Have all sagas of the type stand still, where what happens is recorded and nothing is sent; or deliver no
        commands, compensations and events to the participant. What is under way at this moment still arrives."""
        return await self._operator.ask(self.key, "pause", Operation(reason=reason), self._look)

    async def resume(self) -> Request:
        """Have them go on."""
        return await self._operator.ask(self.key, "resume", Operation(), self._look)

    async def state(self) -> PauseState:
        """Whether they stand still, and the last requests."""
        stored = await self._operator.read(SAGA, [subjects.state_subject(self.key)])
        return (
            unpack(decode(stored[0].data, stored[0].subject), PAUSE_STATE_TYPE, PauseState) if stored else PauseState()
        )

    async def _look(self, request: Request) -> Request | None:
        decided = (await self.state()).requests
        return next((each for each in decided if each.sequence == request.sequence), None)


class MessageVerbs:
    """What an operator may ask of a message that was set aside. Who asked, when and why stays in EVENTS.

    Each verb raises `UnknownMessage` if PARKED holds no such message, and `PlatformError` if the request could not be
    stored.
    """

    def __init__(self, operator: Operator, number: int) -> None:
        self._operator, self.number = operator, number
        self._key = SagaKey.of(PARKED_MESSAGE, str(number))

    async def dismiss(self, reason: str) -> Request:
        """List the message no more: nothing is to be done about it."""
        found = await self._message()
        if found.parked.saga is not None:
            return self._rejected("dismiss", reason, _of_saga(found.parked.saga))
        if found.dismissal is not None and found.dismissal.verb == "dismiss":
            return self._rejected(
                "dismiss", reason, f"{found.dismissal.user} has dismissed it: {found.dismissal.reason}"
            )
        return await self._operator.tell(self._key, "dismiss", Operation(reason=reason))

    async def resend(self, reason: str) -> Request:
        """Have a coordinator handle the message once more, now that what stood in its way is mended. It is listed no
        more, unless it is set aside again."""
        parked = (await self._message()).parked
        if wrong := _not_resent(parked):
            return self._rejected("resend", reason, wrong)
        payload = pack(OnceMore(subject=parked.subject))
        return await self._operator.tell(self._key, "resend", Operation(reason=reason, payload=payload))

    async def _message(self) -> Message:
        """The message.

        Raises:
            UnknownMessage: there is none.
            PlatformError: it cannot be read.
        """
        try:
            return await parked_message(self._operator.link, self.number)
        except Ambiguous as error:
            raise_if_failed(self._operator.link)
            raise _unread(error) from None

    def _rejected(self, verb: MessageVerb, reason: str, why: str) -> Request:
        return Request(sequence=0, at="", user=self._operator.name, verb=verb, reason=reason, rejected=why)


def _require_reason(verb: Verb | MessageVerb, operation: Operation) -> None:
    if verb in WANT_REASON and not operation.reason.strip():
        raise NoReason(verb)


def _of_saga(key: SagaKey) -> str:
    return f"it says that saga {key} waits for a person; see `antiphon show {key}`"


def _not_resent(parked: Parked) -> str:
    """Why a message that was set aside cannot be handled once more by a coordinator."""
    if parked.saga is not None:
        return _of_saga(parked.saga)
    if parked.noticed_by != COORDINATOR:
        return (
            f"participant {parked.noticed_by} has set it aside: a reaction is tried again by itself, and a command by "
            "`antiphon retry` of its saga's step"
        )
    return "" if base_of(parked.stream) == EVENTS else f"it is no message of {EVENTS}"


def _unread(error: Ambiguous) -> PlatformError:
    if isinstance(error, NobodyReads):
        return missing(EVENTS)
    return PlatformError(f"the server gave no answer ({error}). Try again, or look at its log.")


async def _insist(look: Callable[[], Awaitable[Request | None]]) -> Request:
    """Look again and again, ever less often, until something is found."""
    pause = LOOK_SECONDS
    while (found := await look()) is None:
        await asyncio.sleep(pause)
        pause = min(LOOK_SECONDS_MAX, pause * 1.5)
    return found


def _answer_subject(close: Envelope) -> str:
    """Where EVENTS holds the answer to a close."""
    asked = subjects.parse_command(close.id)
    name = closed_name(name_of(close.type).removesuffix(close_name("")))
    return subjects.event_subject(asked.saga.path, asked.participant, dashed(name), asked.step, asked.attempt)


def _request(stored: StoredMessage, user: str, verb: Verb | MessageVerb, reason: str) -> Request:
    return Request(sequence=stored.sequence, at=clock.rfc3339(stored.stored_ns), user=user, verb=verb, reason=reason)


def _opened(entry: StoredMessage) -> Envelope | None:
    """The envelope of a journal entry; none where that cannot be read, because another one may hold the decision."""
    try:
        return decode(entry.data, entry.subject)
    except Undecodable:
        return None


def _name(step: DeclaredStep | str) -> str:
    return step if isinstance(step, str) else step.name


def _raw(payload: Payload) -> msgspec.Raw:
    if not isinstance(payload, bytes):
        return pack(payload)
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(f"the payload is no JSON: {error}") from None
    return msgspec.Raw(payload)


def _spoken(key: SagaKey) -> str:
    """A saga, saga type or participant as people call it."""
    match key.type:
        case identity.SAGA_TYPE:
            return f"saga type {key.id}"
        case identity.PARTICIPANT:
            return f"participant {key.id}"
        case _:
            return f"saga {key}"


HaltVerbs = PauseVerbs
"""The name that `PauseVerbs` had first; programs written with it stay as they are."""
