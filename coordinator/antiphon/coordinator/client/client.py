"""What a service uses to begin sagas and to learn how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

from antiphon.contracts import subjects
from antiphon.contracts.bounds import REASON_CHARS_MAX
from antiphon.contracts.envelope import decode, unpack, unpack_raw
from antiphon.contracts.errors import (
    AlreadySignalled,
    AlreadyStarted,
    Ambiguous,
    AntiphonError,
    DefinitionError,
    OtherVersion,
    PlatformError,
    StartUnread,
    StillRunning,
    Undecodable,
    UnknownSaga,
)
from antiphon.contracts.identity import CLIENT, SagaKey
from antiphon.contracts.messages import Event
from antiphon.contracts.pairs import Pairs
from antiphon.contracts.payloads import (
    CANCEL_TYPE,
    END_TYPE,
    CancelRequest,
    End,
    Prospect,
    ResentAnswer,
    SagaState,
    Status,
    StatusAnswer,
)
from antiphon.contracts.stored import NobodyReads
from antiphon.contracts.topology import SAGA
from antiphon.link import Credentials, Link, Mark
from antiphon.link.pairs import find_pairs, pairs_told

from ..decision.search_keys import require_names
from ..definition.check import require_awaited, require_start
from ..definition.choreography import AnySaga, Choreography
from ..definition.saga import Saga
from ..definition.steps import Signal
from .asking import Asking
from .changes import Change, changes
from .operator import TIMEOUT_SECONDS as DECISION_SECONDS
from .operator import Operator
from .store_once import TIMEOUT_SECONDS, is_started_with, message, raise_if_failed, store_once

S = TypeVar("S", bound=Event)
E = TypeVar("E", bound=Event)

LOOK_SECONDS: Final = 5.0
"""How often a waiting `result` looks for itself, for the case that the word of the end was lost with a connection."""
WHY_SECONDS: Final = 2.0
"""For how long a coordinator is asked why a saga has not ended."""
LOOK_SOON_SECONDS: Final = 0.01
"""How soon it looks again after that word, which may come before the stream holds the end; twice as long each time."""

Outcome = End
"""How a saga ended: `outcome` is completed or compensated, `reason` says why it was compensated."""


class Handle:
    """One saga, as its caller sees it."""

    was_started = False
    """Whether `start` found the saga started already, with the same payload."""
    version = 0
    """The version that a saga which was started already runs with; 0 where nobody said so."""

    def __init__(self, client: Antiphon, key: SagaKey, saga: AnySaga, start: Event | None = None) -> None:
        self._client, self.key, self._saga, self._start = client, key, saga, start

    @property
    def id(self) -> str:
        """The id the saga was started with."""
        return self.key.id

    async def result(self, timeout: float | None = None) -> Outcome:
        """Wait for the saga's end.

        Args:
            timeout: how many seconds to wait; None waits for ever.

        Raises:
            StillRunning: it has not ended by then. It goes on.
            UnknownSaga: by then it was not started. One that is started meanwhile is waited for.
            StartUnread: no coordinator can read its start, so that nothing of it has begun.
            Undecodable: the end that its journal holds cannot be read.
            AlreadyStarted: a saga with this id had been started with another payload, has ended, and was purged but for
                its end, so that `start` did not see it. The start that was stored now begins nothing.
        """
        try:
            async with asyncio.timeout(timeout):
                end = await self._client.end_of(self.key)
        except TimeoutError:
            if self._start is None and await self._client.is_unknown(self.key):
                more = (
                    f"Nothing has started it within {timeout or 0:g} s; a start that comes later is waited for again."
                )
                raise UnknownSaga(self.key.type, self.key.id, more) from None
            raise StillRunning(self.key.type, self.key.id, timeout or 0, await self.stands_still_by()) from None
        if self._start is not None and not is_started_with(end, self._start):
            raise AlreadyStarted(self.key.type, self.key.id)
        return end

    async def stands_still_by(self) -> str:
        """Why the saga does not go on by itself, such as that it waits for a person, in words that follow "since";
        empty where it goes on, and where its start has not been taken in yet."""
        try:
            async with asyncio.timeout(WHY_SECONDS):
                status = await self._client.status_of(self.key)
        except (UnknownSaga, TimeoutError):
            return ""
        except PlatformError as error:
            return str(error).removesuffix(".")
        if status.parked:
            return f"it waits for a person ({status.parked})"
        return f"it is {status.paused}" if status.paused else ""

    async def status(self) -> Status:
        """How the saga stands now, from its journal; of one that was purged, how it ended.

        Raises:
            UnknownSaga: it was never started.
            PlatformError: no coordinator answers, or none that knows this saga's type.
        """
        return await self._client.status_of(self.key)

    async def cancel(self, reason: str, *, timeout: float = TIMEOUT_SECONDS) -> Prospect:
        """Ask for the saga to be undone. It is compensated, unless it ends first; asking twice changes nothing. A saga
        that is started later is not cancelled beforehand: do not start it.

        Args:
            reason: why, for whoever looks later.
            timeout: for how many seconds it is tried to store the wish, as while a cluster chooses a leader.

        Returns:
            "awaited" where the saga is compensated now, "taken" where it is being compensated already or was asked for
            this before, "early" where it is past its point of no return, so that the wish is only noted, and nothing
            where no coordinator said so in time.

        Raises:
            DefinitionError: it is a choreography, which nobody leads.
            UnknownSaga: there is no such saga. Nothing was changed.
            TooLate: it has ended. Nothing was changed.
            Unanswered: nobody knows whether the wish is stored; ask again.
            PlatformError: the wish could not be stored, or no coordinator can tell now whether there is such a saga.
        """
        if isinstance(self._saga, Choreography):
            raise DefinitionError(
                f"saga {self.key} cannot be cancelled: nobody leads it. Let a client publish an event of its own that "
                "the participants react to."
            )
        return await self._client.ask_to_cancel(self.key, reason, timeout, is_started=self._start is not None)

    async def signal(
        self, step: Signal[E], event: E, *, timeout: float = TIMEOUT_SECONDS, wait_for_start: bool = False
    ) -> Prospect:
        """Send what a step waits for, or will wait for once its turn comes. The same again changes nothing.

        Args:
            step: the step, as `Saga.signal` returned it.
            event: what it is told.
            timeout: for how many seconds it is tried to store the signal, as while a cluster chooses a leader.
            wait_for_start: whether the saga may be started later; the signal then waits for that. Make sure of the id:
                what is stored for a mistyped one stays, and counts for whatever saga is started with it.

        Returns:
            "awaited" where the step waits for it, "early" where its turn has not come, "taken" where the saga has got
            this signal before, "unstarted" where it waits for the start, and nothing where no coordinator said so in
            time.

        Raises:
            DefinitionError: the saga waits for no such event.
            AlreadySignalled: it was told something else before. The first one counts; nothing was changed.
            UnknownSaga: there is no such saga. Nothing was changed.
            TooLate: it has ended, is being compensated, or the step's wait is over. Nothing was changed.
            TooLarge: the payload is larger than the protocol allows.
            WrongShape: a field holds what would not arrive as it is, or not at all.
            Unanswered: nobody knows whether the signal is stored; send it again.
            PlatformError: the signal could not be stored, or no coordinator can tell now whether there is such a saga,
                or whether the signal that is stored is the same.
        """
        require_awaited(step, self._saga.name, event)
        return await self._client.send_signal(
            self.key, step.name, event, timeout, is_started=self._start is not None, waits=wait_for_start
        )


class Antiphon:
    """A connection for clients; make one with `Antiphon.connect`."""

    def __init__(self, link: Link) -> None:
        self._link, self._asking = link, Asking(link)
        self._ends: dict[str, list[asyncio.Event]] = {}
        self._heard = set[str]()
        """The saga types whose ends are told to this client; only those that it waits for, which it may hear."""
        self._subscribing = asyncio.Lock()
        self._has_looked_for_pairs = link.pairs.count > 1

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        servers: str | list[str],
        *,
        name: str = "client",
        credentials: Credentials | None = None,
        patient: bool = True,
        streams: int = 0,
    ) -> AsyncGenerator[Antiphon]:
        """Connect for the length of an `async with` block.

        Args:
            servers: URLs of NATS servers.
            name: the connection's name; with accounts, the user's.
            credentials: who connects; taken from the environment when left out.
            patient: whether to try for 5 s where no server listens yet, as a service does that starts beside it.
            streams: over how many pairs of streams sagas are spread; ANTIPHON_STREAMS says it when left out, and where
                neither does, it is asked once it matters.

        Raises:
            PlatformError: the platform is not as it must be; the sentence has the remedy.
        """
        link = await Link.connect(servers, name=name, credentials=credentials, patient=patient)
        if pairs := Pairs(streams) if streams else pairs_told():
            link.spread_over(pairs)
        try:
            yield cls(link)
        finally:
            await link.close()

    async def start(
        self,
        saga: Saga[S] | Choreography[S],
        start: S,
        *,
        id: str,
        timeout: float = TIMEOUT_SECONDS,
        version: int | None = None,
    ) -> Handle:
        """Begin a saga, once: with the same id and payload again, the same saga is meant.

        Args:
            saga: the definition, or the choreography.
            start: the event it begins with.
            id: names the saga; a token of letters, digits, `_` and `-`.
            timeout: for how many seconds it is tried to store the start, as while a cluster chooses a leader.
            version: the version of the definition that it must run with. Left out, it begins with the newest that a
                coordinator has, and one that was started before goes on with its own. Given, a coordinator has to
                answer, before the start is stored and once it has begun.

        Raises:
            AlreadyStarted: the id was used with another payload; nothing was changed. Payloads with equal values are
                the same, also where one was sent before a field with a default was added.
            OtherVersion: it runs, or would begin, with another version than `version`.
            BadIdentity: the id cannot be part of a subject.
            DefinitionError: the saga starts with another event.
            TooLarge: the payload is larger than the protocol allows.
            WrongShape: a field holds what would not arrive as it is, or not at all, or the saga would stand still
                because its definition can make no keys or locks of it.
            TooManyOpen: this client has a bound, and as many sagas of the type open as it may.
            Unanswered: nobody knows whether the start is stored; start it again with the same id.
            PlatformError: the start could not be stored, or one is stored already and no coordinator can tell now
                whether it is the same, or with which version it runs.
        """
        key = SagaKey.of(saga.name, id)
        subject = subjects.start_subject(key)
        require_start(saga, start)
        data = message(subject, CLIENT, start.__contract__.type, start)
        require_names(saga.definition, start)
        if version is not None:
            _require_version(key, await self._asking.of_start(key, start, timeout), version)
        handle = Handle(self, key, saga, start)
        if (stored := await store_once(self._link, subject, data, timeout)) != "now":
            is_unsure = stored == "unsure"
            told = await self._asking.whether_same(key, start, timeout_seconds=timeout, is_unsure=is_unsure)
            if told.verdict != "same":
                raise AlreadyStarted(key.type, key.id, told.reason)
            handle.was_started, handle.version = True, told.version
        if version is not None:
            handle.version = await self._begun_with(key, start, version, timeout)
        return handle

    async def _begun_with(self, key: SagaKey, start: Event, wanted: int, timeout_seconds: float) -> int:
        """Wait until a saga has begun, and check with which version."""
        loop = asyncio.get_running_loop()
        gives_up, pause = loop.time() + timeout_seconds, LOOK_SOON_SECONDS
        while True:
            told = await self._asking.of_start(key, start, timeout_seconds)
            if told.prospect == "passed":
                return 0  # purged but for its end
            if told.prospect == "taken" and told.version:
                _require_version(key, told, wanted)
                return told.version
            if loop.time() > gives_up:
                raise PlatformError(
                    f"saga {key} is started, and has not begun within {timeout_seconds:g} s, so that nobody knows with "
                    "which version it will. Ask again with the same id, which does no harm."
                )
            await asyncio.sleep(pause)
            pause = min(1.0, 2 * pause)

    def handle(self, saga: AnySaga, id: str) -> Handle:
        """A saga that was started elsewhere or earlier."""
        return Handle(self, SagaKey.of(saga.name, id), saga)

    def operator(self, name: str, *, timeout: float = DECISION_SECONDS) -> Operator:
        """Whoever deals with what waits for a person. All that is asked for goes into journals under this name.

        Args:
            name: a token of letters, digits, `_` and `-`; with accounts, the user's.
            timeout: within how many seconds a request shall be stored, and a coordinator decide on it.

        Raises:
            BadIdentity: the name is no token.
        """
        return Operator(self._link, name, timeout)

    def changes(
        self, *, saga_type: str = "", state: SagaState | None = None, after: Mark | None = None
    ) -> AsyncGenerator[Change]:
        """Follow sagas: `async for change in antiphon.changes(state="compensated"):`.

        A change is told when a saga begins, turns, ends, or begins to wait for a person, in the order of SAGA, and at
        least once: none is left out while the loop is slow or the connection is lost, and whoever keeps
        `change.position` together with what was made of the change goes on from there after a crash. What may come
        again is a change of a saga that was under way at that position.

        It reads journals, where everybody's payloads are, so with accounts it takes an operator's user.

        Args:
            saga_type: only sagas of this type.
            state: only changes of sagas that are in this state then.
            after: the position of the last change that was dealt with; None begins now.

        Raises:
            RightsMissing: this user may not read journals.
            OtherStream: the stream does not hold that position any more; begin anew.
        """
        return changes(self._link, saga_type, state, after)

    async def end_of(self, key: SagaKey) -> Outcome:
        """Wait for a saga's end.

        Raises:
            StartUnread: no coordinator can read its start.
        """
        subject = subjects.end_subject(key)
        told, pause = asyncio.Event(), LOOK_SECONDS if key.type in self._heard else await self._hear_ends(key.type)
        asking: asyncio.Future[str] | None = None
        self._ends.setdefault(subject, []).append(told)
        try:
            while True:
                told.clear()  # before the read, so that an end stored meanwhile is not missed
                end = await self._read_end(key, subject)
                if end is not None:
                    return end
                if asking is not None and asking.done() and (unread := asking.result()):
                    raise StartUnread(key.type, key.id, unread)
                await self._link.until(told, pause)
                if asking is None and not told.is_set() and pause == LOOK_SECONDS:
                    asking = asyncio.ensure_future(self._unread(key))
                    asking.add_done_callback(lambda _: told.set())
                # A subscriber may hear of an end before the stream holds it.
                pause = LOOK_SOON_SECONDS if told.is_set() else min(LOOK_SECONDS, 2 * pause)
        finally:
            if asking is not None:
                asking.cancel()
            self._ends[subject].remove(told)
            if not self._ends[subject]:
                del self._ends[subject]

    async def _unread(self, key: SagaKey) -> str:
        """Why coordinators cannot read a saga's start; empty as soon as one says that the saga is under way."""
        while True:
            try:
                return (await self.status_of(key)).unread
            except AntiphonError:  # that the link has failed is told by whatever waits for the end
                await asyncio.sleep(LOOK_SECONDS)

    async def status_of(self, key: SagaKey) -> Status:
        """Ask the coordinators how a saga stands."""
        try:
            data = await self._link.request(subjects.status_subject(key))
        except Ambiguous:
            raise_if_failed(self._link)
            await self._link.leaving.unwell()
            raise PlatformError(
                f"no coordinator answers that has sagas of type {key.type!r}. Start one: antiphon coordinator --app "
                "module:saga, or the local platform: antiphon up."
            ) from None
        self._link.leaving.well()
        try:
            answer = unpack_raw(data, StatusAnswer)
        except Undecodable as error:
            raise PlatformError(f"nobody can tell how {key} stands: the answer cannot be read ({error}).") from None
        if answer.error:
            raise PlatformError(f"the coordinators cannot tell how {key} stands: {answer.error}.")
        if answer.status is None:
            raise UnknownSaga(key.type, key.id)
        return answer.status

    async def end_if_any(self, key: SagaKey) -> Outcome | None:
        """How a saga ended; None where it has not, or was never started.

        Raises:
            PlatformError: this user may not read it.
            Undecodable: the end that its journal holds cannot be read.
        """
        return await self._read_end(key, subjects.end_subject(key))

    async def is_unknown(self, key: SagaKey) -> bool:
        """Whether a coordinator says that a saga was never started; false where none answers."""
        with suppress(PlatformError):
            try:
                await self.status_of(key)
            except UnknownSaga:
                return True
        return False

    async def ask_to_cancel(
        self,
        key: SagaKey,
        reason: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        *,
        is_started: bool = False,
    ) -> Prospect:
        """Store the wish to cancel, if anything can come of it; a second one changes nothing. See `Handle.cancel`."""
        told = await self._asking.of_cancel(key, timeout_seconds, is_started=is_started)
        if told is not None and told.verdict == "same":
            return told.prospect
        subject = subjects.cancel_subject(key)
        data = message(subject, CLIENT, CANCEL_TYPE, CancelRequest(reason=reason[:REASON_CHARS_MAX]))
        await store_once(self._link, subject, data, timeout_seconds)
        return told.prospect if told is not None else ""

    async def send_signal(
        self,
        key: SagaKey,
        signal: str,
        event: Event,
        timeout_seconds: float = TIMEOUT_SECONDS,
        *,
        is_started: bool = False,
        waits: bool = False,
    ) -> Prospect:
        """Store a signal, if anything can come of it; a saga gets it once. See `Handle.signal`."""
        subject = subjects.signal_subject(key, signal)
        data = message(subject, CLIENT, event.__contract__.type, event, early=waits)
        told = await self._asking.of_signal(key, signal, event, timeout_seconds, is_started=is_started, waits=waits)
        if told is not None and told.verdict == "same":
            return told.prospect
        if (stored := await store_once(self._link, subject, data, timeout_seconds)) != "now":
            seconds, is_unsure = timeout_seconds, stored == "unsure"
            again = await self._asking.whether_same(key, event, signal, timeout_seconds=seconds, is_unsure=is_unsure)
            if again.verdict != "same":
                raise AlreadySignalled(key.type, key.id, signal, again.reason)
        return told.prospect if told is not None else ""

    async def prospect_of_signal(self, key: SagaKey, signal: str, event: Event, timeout_seconds: float) -> Prospect:
        """What has come, or may come, of a signal that is stored: "taken" once the journal has it.

        Raises:
            TooLate: the saga came to something else before it took the signal.
        """
        told = await self._asking.of_signal(key, signal, event, timeout_seconds, is_started=True, waits=True)
        return told.prospect if told is not None else ""

    # --- helpers ------------------------------------------------------------------------------------------------------

    async def _hear_ends(self, saga_type: str) -> float:
        """Hear of the ends of sagas of a type from now on; gives how soon to look all the same, since it may take a
        moment until all servers of a cluster know of it."""
        async with self._subscribing:
            if saga_type not in self._heard:
                await self._link.subscribe(subjects.ends_filter(saga_type), self._on_end)
                self._heard.add(saga_type)
        return LOOK_SOON_SECONDS

    async def _read_end(self, key: SagaKey, subject: str) -> Outcome | None:
        try:
            stored = await self._link.get_last(SAGA, subject)
        except Ambiguous as error:
            raise_if_failed(self._link)
            if isinstance(error, NobodyReads) and not self._has_looked_for_pairs:
                self._has_looked_for_pairs = True
                await find_pairs(self._link, _is_not_there)
            return None
        try:
            return unpack(decode(stored.data, subject), END_TYPE, End) if stored else None
        except Undecodable as error:
            raise Undecodable(f"how saga {key} ended cannot be read: {error.reason}", subject=subject) from None

    def _on_end(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        for told in self._ends.get(subject, ()):
            told.set()


async def _is_not_there() -> bool:
    """Nobody reads SAGA, as was seen just now."""
    return False


def _require_version(key: SagaKey, told: ResentAnswer, wanted: int) -> None:
    """Check the version that a saga runs with, or would begin with, as far as it is known."""
    if told.version not in (0, wanted):
        raise OtherVersion(key.type, key.id, told.version, wanted, told.prospect != "unstarted")
