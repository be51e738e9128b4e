"""What a service uses to begin sagas and to learn how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from antiphon.contracts import wire
from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import (
    AlreadyStarted,
    Ambiguous,
    PlatformError,
    StillRunning,
    StreamMissing,
    UnknownSaga,
)
from antiphon.contracts.messages import CLIENT, Event
from antiphon.contracts.platform import CANCEL_TYPE, END_TYPE, CancelRequest, End, Status, StatusAnswer
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.contracts.wire import SagaKey
from antiphon.link import AlreadyStored, Credentials, Link, Rejected

from .saga import Saga

S = TypeVar("S", bound=Event)

PATIENCE_SECONDS: Final = 30.0
"""How long a start or a cancel is tried again while the server gives no answer. Both may be stored twice safely."""

PAUSE_SECONDS: Final = 0.25
LOOK_SECONDS: Final = 5.0
"""How often a waiting `result` looks for itself, for the case that the word of the end was lost with a connection."""

Outcome = End
"""How a saga ended: `outcome` is completed or compensated, `reason` says why it was compensated."""


class Handle:
    """One saga, as its caller sees it."""

    def __init__(self, client: Antiphon, key: SagaKey) -> None:
        self._client, self.key = client, key

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
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._client.end_of(self.key)
        except TimeoutError:
            raise StillRunning(self.key.type, self.key.id, timeout or 0) from None

    async def status(self) -> Status:
        """How the saga stands now, from its journal.

        Raises:
            UnknownSaga: it was never started.
            PlatformError: no coordinator answers, or none that knows this saga's type.
        """
        return await self._client.status_of(self.key)

    async def cancel(self, reason: str) -> None:
        """Ask for the saga to be undone. It is compensated, unless it ends first; asking twice changes nothing.

        Raises:
            PlatformError: the wish could not be stored.
        """
        await self._client.ask_to_cancel(self.key, reason)


class Antiphon:
    """A connection for clients; make one with `Antiphon.connect`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ends: dict[str, list[asyncio.Event]] = {}

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, servers: str | list[str], *, name: str = "client", credentials: Credentials | None = None
    ) -> AsyncGenerator[Antiphon]:
        """Connect for the length of an `async with` block.

        Args:
            servers: URLs of NATS servers.
            name: the connection's name; with accounts, the user's.
            credentials: who connects; taken from the environment when left out.

        Raises:
            PlatformError: the platform is not as it must be; the sentence has the remedy.
        """
        link = await Link.connect(servers, name=name, credentials=credentials)
        try:
            client = cls(link)
            await link.subscribe(wire.ENDS_FILTER, client._on_end)
            yield client
        finally:
            await link.close()

    async def start(self, saga: Saga[S], start: S, *, id: str) -> Handle:
        """Begin a saga, once: with the same id and payload again, the same saga is meant.

        Args:
            saga: the definition.
            start: the event it begins with.
            id: names the saga; a token of letters, digits, `_` and `-`.

        Raises:
            AlreadyStarted: the id was used with another payload; nothing was changed.
            BadIdentity: the id cannot be part of a subject.
            TooLarge: the payload is larger than the protocol allows.
            PlatformError: the start could not be stored.
        """
        key = SagaKey.of(saga.name, id)
        subject = wire.start_subject(key)
        data = _encode(subject, start.__contract__.type, start)
        if not await self._store(subject, data):
            await self._require_same(key, subject, start)
        return Handle(self, key)

    def handle(self, saga: Saga[Any], id: str) -> Handle:
        """A saga that was started elsewhere or earlier."""
        return Handle(self, SagaKey.of(saga.name, id))

    async def end_of(self, key: SagaKey) -> Outcome:
        """Wait for a saga's end."""
        subject = wire.end_subject(key)
        told = asyncio.Event()
        self._ends.setdefault(subject, []).append(told)
        try:
            while True:
                told.clear()  # before the read, so that an end stored meanwhile is not missed
                end = await self._read_end(subject)
                if end is not None:
                    return end
                await self._link.until(told, LOOK_SECONDS)
        finally:
            self._ends[subject].remove(told)
            if not self._ends[subject]:
                del self._ends[subject]

    async def status_of(self, key: SagaKey) -> Status:
        """Ask the coordinators how a saga stands."""
        try:
            data = await self._link.request(wire.status_subject(key))
        except Ambiguous:
            self._raise_if_failed()
            raise PlatformError(
                "no coordinator answers. Start one: antiphon coordinator --app module:saga, or the local platform: "
                "antiphon up."
            ) from None
        answer = msgspec.json.decode(data, type=StatusAnswer)
        if answer.error:
            raise PlatformError(f"the coordinators cannot tell how {key} stands: {answer.error}.")
        if answer.status is None:
            raise UnknownSaga(key.type, key.id)
        return answer.status

    async def ask_to_cancel(self, key: SagaKey, reason: str) -> None:
        """Store the wish to cancel; a second one changes nothing."""
        subject = wire.cancel_subject(key)
        await self._store(subject, _encode(subject, CANCEL_TYPE, CancelRequest(reason=reason)))

    # --- helpers ------------------------------------------------------------------------------------------------------

    async def _store(self, subject: str, data: bytes) -> bool:
        """Store a message whose subject takes one; false if there was one already."""
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + PATIENCE_SECONDS
        while True:
            try:
                await self._link.store(subject, data)
                return True
            except AlreadyStored:
                return False
            except Rejected as error:
                raise PlatformError(f"the server refused to store {subject}: {error}.") from None
            except Ambiguous as error:
                self._raise_if_failed()
                if "503" in str(error):
                    raise StreamMissing(
                        f"no stream stores {subject}. Create the streams once, as administrator: antiphon setup"
                    ) from None
                if loop.time() > patience_ends:
                    raise PlatformError(
                        f"the server does not answer ({error}); nobody knows whether it stored {subject}. "
                        "Try again with the same id."
                    ) from None
                await asyncio.sleep(PAUSE_SECONDS)

    async def _require_same(self, key: SagaKey, subject: str, start: Event) -> None:
        """Compare a start with the one that was first."""
        stored = await self._link.get_last(EVENTS, subject)
        if stored is None:
            raise PlatformError(f"saga {key} was started before, but its start cannot be read. Try again.")
        envelope = decode(stored.data, subject)
        if envelope.type != start.__contract__.type or bytes(envelope.data) != bytes(pack(start)):
            raise AlreadyStarted(key.type, key.id)

    async def _read_end(self, subject: str) -> Outcome | None:
        try:
            stored = await self._link.get_last(SAGA, subject)
        except Ambiguous:
            self._raise_if_failed()
            return None
        return unpack(decode(stored.data, subject), END_TYPE, End) if stored else None

    def _on_end(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        for told in self._ends.get(subject, ()):
            told.set()

    def _raise_if_failed(self) -> None:
        if self._link.failure.done():
            raise self._link.failure.result()


def _encode(subject: str, type_: str, payload: msgspec.Struct) -> bytes:
    envelope = Envelope(id=subject, source=CLIENT, type=type_, time=datetime.now(UTC), data=pack(payload))
    return encode(envelope)
