"""A stream read on and on from a position, without a consumer: each message once, in stream order, none left out.

Whoever reads keeps the position, and may keep it in the same transaction as what was made of the messages. No consumer
of the server remembers anything, so nothing on the server can contradict it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final, Protocol

import msgspec

from antiphon.contracts.bounds import Sequence
from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import saga_in

from .reading import BATCH_MAX

ALL: Final = ">"
"""Whoever wants a part reads all and picks: the server gives 60,000 messages a second of a whole stream, 7,000 under a
filter, even one that all of them match (2.15.1, 80,000 messages, one connection)."""
LAG_SECONDS_MAX: Final = 5.0
"""How long a replica may be behind before a position that it does not have is taken to be gone."""
OTHERS_MAX: Final = 2
"""By how many messages besides the last one a stream is known again, each of another saga: one saga may be forgotten
while nobody reads."""
LOOK_SECONDS: Final = 0.1
"""How often a stream is asked whether there is more. An answer takes the server about 0.1 ms."""


class Mark(msgspec.Struct, frozen=True):
    """A message that was read, by which the stream is known again. Sequence 0 is the beginning."""

    sequence: Sequence = 0
    subject: str = ""
    stored_ns: Sequence = 0


class Reads(Protocol):
    """A link, as far as streams are read over it."""

    async def next_page(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = BATCH_MAX
    ) -> list[StoredMessage]:
        """The next messages of a stream that match, from a sequence on; see `Link.next_page`."""
        ...

    async def read_all(self, stream: str, filters: list[str]) -> list[StoredMessage]:
        """The last message of every subject that matches; see `Link.read_all`."""
        ...


class OtherStream(AntiphonError):
    """The stream does not hold the message at a position that was read: it was restored from a backup, made anew, or
    purged. What was made of it may be wrong and has to be made again."""


class Tail:
    """Reads a stream from a mark on.

    Args:
        link: a connection that may read the stream directly.
        stream: its name.
        mark: the last message that was read.
        stays: whether a message is never replaced and may therefore be a mark; all may be, unless this says otherwise.
        position: without a mark, the sequence behind which to begin.
        others: earlier messages by which the stream is known again once the one at the mark was deleted, the latest
            first.
    """

    def __init__(
        self,
        link: Reads,
        stream: str,
        mark: Mark = Mark(),  # noqa: B008 - frozen
        stays: Callable[[StoredMessage], bool] = lambda message: True,
        position: int = 0,
        others: Iterable[Mark] = (),
    ) -> None:
        self._link, self._stream, self.mark, self._stays = link, stream, mark, stays
        self.others = tuple(others)
        self._position = mark.sequence or position
        self._missing_since: float | None = None

    @property
    def position(self) -> int:
        """The sequence up to which it has read: that of the mark, or of what came behind it and does not stay."""
        return self._position

    async def read(self) -> list[StoredMessage]:
        """The next messages; empty if there are none yet.

        What is read begins with the message at the mark, so that nothing is taken from a stream that is not the same.

        Raises:
            OtherStream: the message at the mark is another, or has been missing for longer than a replica may lag.
            Ambiguous: there was no whole answer; read again.
        """
        found = await self._next()
        if found:
            self._position = found[-1].sequence
            self._note(found)
        return found

    def _note(self, found: list[StoredMessage]) -> None:
        """Keep the last message, and the last ones of other sagas."""
        before = [each for each in (self.mark, *self.others) if each.sequence]
        latest = (mark_of(message) for message in reversed(found) if self._stays(message))
        kept, sagas = list[Mark](), set[SagaKey | None]()
        for mark in chain(latest, before):
            if (saga := saga_in(mark.subject)) not in sagas:
                sagas.add(saga)
                kept.append(mark)
            if len(kept) > OTHERS_MAX:
                break
        if kept:
            self.mark, self.others = kept[0], tuple(kept[1:])

    async def _next(self) -> list[StoredMessage]:
        if not self.mark.sequence:
            return await self._link.next_page(self._stream, ALL, self._position + 1)
        if self._position == self.mark.sequence:
            page = await self._link.next_page(self._stream, ALL, self._position)
            if not self._is_deleted(page):
                return page[1:] if self._has_mark(page) else []
        else:  # behind the mark there was nothing but messages that do not stay
            page = await self._link.next_page(self._stream, ALL, self.mark.sequence, most=1)
            if not self._is_deleted(page) and not self._has_mark(page):
                return []
        if self._is_deleted(page) and not await self._is_known_by_others():
            self._has_mark(page)
            return []
        return await self._link.next_page(self._stream, ALL, self._position + 1)

    def _is_deleted(self, page: list[StoredMessage]) -> bool:
        """Whether a page that was to begin with the message at the mark shows nothing where that stood."""
        return not page or page[0].sequence != self.mark.sequence

    async def _is_known_by_others(self) -> bool:
        """Whether the stream holds an earlier message that was read, and before the mark nothing that came later.

        A stream that is restored from a backup goes on below the mark, with messages that are stored after it.
        """
        for other in self.others:
            page = await self._link.next_page(self._stream, ALL, other.sequence)
            if page and mark_of(page[0]) == other:
                return not await self._goes_on_before_the_mark(page)
        return False

    async def _goes_on_before_the_mark(self, page: list[StoredMessage]) -> bool:
        """Whether there are messages up to the mark's sequence that were stored after the one at the mark; there may be
        many pages of them."""
        mark = self.mark
        while page and not any(each.stored_ns > mark.stored_ns for each in page if each.sequence <= mark.sequence):
            if page[-1].sequence >= mark.sequence:
                return False
            page = await self._link.next_page(self._stream, ALL, page[-1].sequence + 1)
        return bool(page)

    def _has_mark(self, page: list[StoredMessage]) -> bool:
        """Whether a page begins with the message at the mark; false where the replica that answered may just lag."""
        if not page:
            self._wait_for_the_mark()
            return False
        if mark_of(page[0]) != self.mark:
            raise OtherStream(
                f"stream {self._stream} has another message than the one that was read at {self.mark.sequence}: it was "
                "restored from a backup, made anew, or purged."
            )
        self._missing_since = None
        return True

    def _wait_for_the_mark(self) -> None:
        """A replica that lags has nothing from the mark on; so has a stream that went backwards, but for good."""
        now = asyncio.get_running_loop().time()
        if self._missing_since is None:
            self._missing_since = now
        elif now - self._missing_since > LAG_SECONDS_MAX:
            raise OtherStream(
                f"stream {self._stream} ends before {self.mark.sequence}, up to where it was read: it went backwards, "
                "as one does that is restored from a backup, or it was purged."
            )


def mark_of(message: StoredMessage) -> Mark:
    """What a message is known again by."""
    return Mark(message.sequence, message.subject, message.stored_ns)
