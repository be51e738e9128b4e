"""Answers clients who ask whether a start or a signal that is there already is the one that they wanted to store, and
what may come of a signal or a wish to cancel.

They may not read EVENTS, where everybody's payloads are, nor journals. A coordinator reads what is stored and says no
more than whether it is the same, and whether anything can come of it. What it cannot tell it leaves to others: silence
tells nobody anything wrong, and whoever asked asks again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, decode, unpack
from antiphon.contracts.errors import Ambiguous, AntiphonError, Undecodable, Unusable
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import END_TYPE, End, Resent, ResentAnswer, start_digest
from antiphon.contracts.stored import NotRead, StoredMessage
from antiphon.contracts.subjects import SameAddress
from antiphon.contracts.topology import EVENTS
from antiphon.link import Link
from antiphon.link.faults import say
from antiphon.link.reading import Pages

from ..decision.prospects import Told, prospect_of
from ..decision.replay import Replayed
from ..decision.sameness import NONE, SAME, compare, compare_by_digest
from .journals import Journals
from .request_queue import BUSY_PER_SECOND, OTHERS, SOURCES_MAX, Pace, RequestQueue, source_of

OPEN_MAX: Final = 64
OPEN_OF_ONE_MAX: Final = 32
"""Questions under way at once, of all and of one source. Those above it are told to ask again, and none is kept to be
answered later: clients ask rarely, and each may send 256 KiB."""

PER_SECOND: Final = 200
"""Questions a second of one source, after a burst of as many: more than that would keep facts waiting."""

QUESTION_BYTES_MAX: Final = 2 * MESSAGE_BYTES_MAX
"""A message, and the names of its fields once more."""

LATE_SECONDS: Final = 1.0
"""How long a coordinator that cannot read what is stored leaves the word to one that can."""

BUSY: Final = msgspec.json.encode(ResentAnswer(verdict="busy"))

_decode_question = msgspec.json.Decoder(Resent).decode


class Comparing:
    """The questions that one coordinator answers.

    Args:
        link: its connection.
        journals: its definitions, and how sagas stand.
        requests: counts and names those that are not looked at.
    """

    def __init__(self, link: Link, journals: Journals, requests: RequestQueue) -> None:
        self._link, self._journals, self._requests = link, journals, requests
        self._open: Counter[str] = Counter()
        """Questions under way, by source."""
        self._paces: dict[str, Pace] = {}
        self._busy = Pace(BUSY_PER_SECOND, BUSY_PER_SECOND, time.monotonic())

    def on_question(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        """A client asks."""
        if not reply or len(data) > QUESTION_BYTES_MAX:
            return
        source = source_of(reply, headers)
        if self._has_place(source):
            self._take(source, subject, reply, data)
        else:
            self._requests.shed(source)
            if self._busy.passes(time.monotonic()):
                self._link.answer(reply, BUSY)

    def _has_place(self, source: str) -> bool:
        if self._open.total() >= OPEN_MAX or self._open[source] >= OPEN_OF_ONE_MAX:
            return False
        now, name = time.monotonic(), source if source in self._paces or len(self._paces) < SOURCES_MAX else OTHERS
        if name not in self._paces:
            self._paces[name] = Pace(PER_SECOND, PER_SECOND, now)
        return self._paces[name].passes(now)

    def _take(self, source: str, subject: str, reply: str, data: bytes) -> None:
        try:
            address = subjects.parse_same(subject)
            again = _decode_question(data)
        except (AntiphonError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # whoever asks so gets no answer
        if address.saga.type not in self._journals.definitions:
            return
        self._open[source] += 1
        _Question(self._link, self._journals, address, again, reply, partial(self._left, source)).begin()

    def _left(self, source: str) -> None:
        self._open -= Counter({source: 1})  # whoever has none left is forgotten


class _Question:
    """One question on its way to its answer.

    Args:
        link: where it came from.
        journals: how sagas stand.
        address: what it is about.
        again: what was to be stored.
        reply: where the answer goes.
        leave: called once, when nothing is read for it any more.
    """

    __slots__ = ("_address", "_again", "_journals", "_left", "_link", "_reply", "_verdict")

    def __init__(
        self,
        link: Link,
        journals: Journals,
        address: SameAddress,
        again: Resent,
        reply: str,
        leave: Callable[[], None],
    ) -> None:
        self._link, self._journals, self._address, self._again = link, journals, address, again
        self._reply, self._verdict = reply, NONE
        self._left: Callable[[], None] | None = leave

    def begin(self) -> None:
        """Read what is stored."""
        self._link.guard.call(self, self._link.read, EVENTS, [self._address.stored_at], self._on_stored)

    def failed(self, error: BaseException) -> None:
        """Say so, and nothing to whoever asked."""
        say("same.faulty", error, self._address.stored_at)
        self._leave()

    def _leave(self) -> None:
        if self._left is not None:
            self._left()
            self._left = None

    def _on_stored(self, found: Pages) -> None:
        if isinstance(found, list) and found and self._address.what == "start":
            # Of a saga that was purged the start that is stored may be one that came later, and began nothing.
            store, subject = self._journals.store, subjects.end_subject(self._address.saga)
            store.guard.call(self, store.last, subject, partial(self._on_end, found[0]))
        else:
            self._go_on(self._compared(found) if isinstance(found, list) else None)

    def _on_end(self, start: StoredMessage, end: StoredMessage | Ambiguous | None) -> None:
        if isinstance(end, Ambiguous):
            self._go_on(None)
            return
        if end is not None and (digest := _digest_of_another(end, start)):
            self._go_on(compare_by_digest(digest, self._again))
        else:
            self._go_on(self._compared([start]))

    def _go_on(self, verdict: ResentAnswer | None) -> None:
        if verdict is None or not self._again.prospect:
            self._leave()
            self._answer(verdict if verdict is not NONE else None)  # a replica that lags does not have it yet
            return
        self._verdict = verdict
        key = self._address.saga
        versions, store = self._journals.definitions[key.type], self._journals.store
        store.guard.call(self, self._journals.read, key, versions, self._on_saga)

    def _compared(self, found: list[StoredMessage]) -> ResentAnswer | None:
        if not found:
            return NONE
        if self._address.what == "cancel":
            return SAME
        try:
            return compare(self._shape(), decode(found[0].data, found[0].subject), self._again)
        except Undecodable as error:
            return ResentAnswer(verdict="unread", reason=error.reason)

    def _on_saga(self, result: Replayed | Exception) -> None:
        told = prospect_of(self._address, result)
        if told is not None and told.prospect == "unstarted":
            starts = subjects.start_subjects(self._address.saga)
            self._journals.store.facts_by_leader(starts, partial(self._on_starts, told))
        else:
            self._tell(told)

    def _on_starts(self, told: Told, found: list[StoredMessage] | NotRead) -> None:
        """The leader has no start either; if it has one, a replica lags, and whoever asked asks again."""
        self._tell(told if found == [] else None)

    def _tell(self, told: Told | None) -> None:
        self._leave()
        if told is not None:
            version = told.version if self._address.what == "start" else 0
            said = msgspec.structs.replace(self._verdict, prospect=told.prospect, why=told.why, version=version)
            self._answer(said)
        elif self._verdict is not NONE:
            self._answer(self._verdict, is_sure=False)

    def _answer(self, told: ResentAnswer | None, is_sure: bool = True) -> None:
        if told is None:
            return
        answer = partial(self._link.answer, self._reply, msgspec.json.encode(told))
        if told.verdict == "unread" or not is_sure:
            asyncio.get_running_loop().call_later(LATE_SECONDS, answer)
        else:
            answer()

    def _shape(self) -> type[Event] | None:
        """The class of the event that is asked about, in whichever version has it."""
        signal = self._address.signal
        for definition in self._journals.definitions[self._address.saga.type].definitions:
            step = definition.steps.get(signal)
            shape = (step.signal if step and step.kind == "signal" else None) if signal else definition.start_shape
            if shape is not None and shape.__contract__.type == self._again.type:
                return shape
        return None


def _digest_of_another(end: StoredMessage, start: StoredMessage) -> str:
    """The digest of the start that a saga ended with, if the one that is stored has another; else empty."""
    try:
        digest = unpack(decode(end.data, end.subject), END_TYPE, End).start
        stored = decode(start.data, start.subject)
    except Unusable:
        return ""  # the comparison says that it cannot be read
    return digest if start_digest(stored.type, stored.data) != digest else ""
