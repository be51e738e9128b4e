"""How clients and operators store what can be stored once: tried again until it is certain that it is there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.errors import Ambiguous, PlatformError, StreamMissing, TooManyOpen, Unanswered
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import End
from antiphon.contracts.stored import NoPlace, NoRoom
from antiphon.contracts.subjects import is_start, saga_in
from antiphon.link import AlreadyStored, Link, NobodyStores, Rejected

from ..decision.sameness import has_digest, resent

TIMEOUT_SECONDS: Final = 20.0
"""How long a message is tried again while the server does not store it, unless the caller says otherwise. A cluster
took up to eight seconds to replace a leader that was killed. Each message may be sent twice safely."""

PAUSE_SECONDS: Final = 0.25

ELECTING: Final = (
    " A cluster takes nothing while it chooses a leader, for some seconds. Where it stays so the streams are missing: "
    "create them once, as administrator: "
)
"""What no stream that answers may mean in a cluster."""


def message(subject: str, source: str, type_: str, payload: msgspec.Struct, *, early: bool = False) -> bytes:
    """The bytes of a message that begins here.

    Args:
        early: of a signal, whether it waits for the start of its saga.

    Raises:
        TooLarge: they are more than the protocol allows.
        WrongShape: a field holds what would not arrive as it is, or not at all.
    """
    now, data = datetime.now(UTC), pack(payload)
    return encode(Envelope(id=subject, source=source, type=type_, time=now, data=data, early=early))


def is_started_with(end: End, payload: Event) -> bool:
    """Whether an end may be that of the saga which this payload starts, as far as the digest in it tells.

    Only the digest is left where the start was purged. What was started before a field with a default was added is the
    same, so such fields are left out one after the other, the last first.
    """
    again = resent(payload)
    return end.start == "" or has_digest(end.start, again.type, again.data, again.defaults)


Stored = Literal["now", "before", "unsure"]
"""When a message was stored: by this call, before it, or by whom is not known, since an earlier try had no answer."""


async def store_once(link: Link, subject: str, data: bytes, timeout_seconds: float = TIMEOUT_SECONDS) -> Stored:
    """Store a message whose subject takes one, unless there is one already.

    Args:
        link: a connection that may store it.
        subject: where.
        data: its bytes.
        timeout_seconds: for how long it is tried again, as while a cluster chooses a leader.

    Raises:
        Unanswered: it may be stored or not; ask again.
        TooManyOpen: it is a start, and this client has as many sagas open as it may.
        PlatformError: it could not be stored; the sentence says why.
    """
    attempts = Attempts(link, subject, data)
    try:
        async with asyncio.timeout(timeout_seconds):
            while (stored := await attempts.store()) is None:
                await asyncio.sleep(PAUSE_SECONDS)
        return stored
    except TimeoutError:
        raise_if_failed(link)
        raise attempts.unanswered(timeout_seconds) from None


class Attempts:
    """One message that is tried until it is certain that it is stored, and what was said last."""

    def __init__(self, link: Link, subject: str, data: bytes) -> None:
        self._link, self._subject, self._data = link, subject, data
        self._why, self._remedy = "the server did not answer", ""
        self._is_first = True

    async def store(self) -> Stored | None:
        """Try once: when it was stored; None if nobody knows whether it is.

        Raises:
            StreamMissing: no stream has the subject, and none is about to.
            TooManyOpen: this client has as many sagas open as it may.
            PlatformError: the server refused it, or the connection is of no use.
        """
        try:
            stored = await self._stored()
            self._link.leaving.well()
            return stored
        except NoPlace:
            raise _no_place(self._subject) from None
        except NoRoom as error:
            raise PlatformError(
                f"the server has no room for {self._subject}, so nothing has changed: {error}. Try again once an "
                "administrator has made room (deploy/README.md, Room)."
            ) from None
        except Rejected as error:
            raise PlatformError(
                f"the server refused to store {self._subject}, so nothing has changed: {error}. Mend that and try "
                "again."
            ) from None
        except Ambiguous as error:
            raise_if_failed(self._link)
            self._note(error)
            self._is_first = False
            await self._link.leaving.unwell()
            return None

    async def _stored(self) -> Stored:
        try:
            await self._link.store(self._subject, self._data)
        except AlreadyStored:
            return "before" if self._is_first else "unsure"
        return "now"

    def _note(self, error: Ambiguous) -> None:
        is_nobody = isinstance(error, NobodyStores)
        if is_nobody and not self._link.may_be_clustered:
            raise StreamMissing(
                f"no stream stores {self._subject}. Create the streams once, as administrator: {self._setup()}"
            )
        self._why = "no stream took it" if is_nobody else f"the server gave no certain answer ({error})"
        self._remedy = f"{ELECTING}{self._setup()}" if is_nobody else ""

    def _setup(self) -> str:
        """The command that makes the stream. What a client with a bound stores has a stream of its own, and the client
        is not told whether its account has one."""
        key, login = saga_in(self._subject), self._link.login
        if key is None or not login:
            return "antiphon setup"
        bound = f"antiphon setup --bound {login}={key.type}:NUMBER"
        return f"antiphon setup; or where the account of {login} was made with antiphon rights --bound: {bound}"

    def unanswered(self, timeout_seconds: float) -> Unanswered:
        """The error for a time that is over."""
        return Unanswered(self._subject, timeout_seconds, self._why, self._remedy)


def _no_place(subject: str) -> TooManyOpen | PlatformError:
    """The error for a client with a bound that has reached it."""
    key = saga_in(subject)
    if key is not None and is_start(subject):
        return TooManyOpen(key.type, key.id)
    return PlatformError(
        f"{subject} was not stored, and nothing has changed: too much of what this client has stored before waits for "
        "a coordinator. Try again in some seconds, once one runs and EVENTS has room (deploy/README.md, Room)."
    )


def raise_if_failed(link: Link) -> None:
    """Say what is wrong with the link, if that explains a missing answer.

    Raises:
        PlatformError: the connection is lost for good, or a right is missing.
    """
    if link.failure.done():
        raise link.failure.result().with_traceback(None)
