"""Answers clients who ask whether a start or a signal that is there already is the one that they wanted to store.

They may not read EVENTS, where everybody's payloads are. A coordinator reads what is stored and says no more than
whether it is the same. What it cannot tell it leaves to others: silence tells nobody anything wrong, and whoever asked
asks again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import Final

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, decode
from antiphon.contracts.errors import AntiphonError, Undecodable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import Resent, ResentAnswer
from antiphon.contracts.topology import EVENTS
from antiphon.link import Link
from antiphon.link.faults import say
from antiphon.link.reading import Pages

from ..decision.sameness import compare
from ..definition.versions import Versions
from .request_queue import OTHERS, SOURCES_MAX, Pace, RequestQueue, source_of

OPEN_MAX: Final = 64
OPEN_OF_ONE_MAX: Final = 32
"""Questions under way at once, of all and of one source. Those above it get no answer, and none is kept to be answered
later: clients ask rarely, and each may send 256 KiB."""

PER_SECOND: Final = 200
"""Questions a second of one source, after a burst of as many: more than that would keep facts waiting."""

QUESTION_BYTES_MAX: Final = 2 * MESSAGE_BYTES_MAX
"""A message, and the names of its fields once more."""

LATE_SECONDS: Final = 1.0
"""How long a coordinator that cannot read what is stored leaves the word to one that can."""

_decode_question = msgspec.json.Decoder(Resent).decode


class Comparing:
    """The questions that one coordinator answers.

    Args:
        link: its connection.
        definitions: its definitions, by saga type.
        requests: counts and names those that are not looked at.
    """

    def __init__(self, link: Link, definitions: dict[str, Versions], requests: RequestQueue) -> None:
        self._link, self._definitions, self._requests = link, definitions, requests
        self._open: Counter[str] = Counter()
        """Questions under way, by source."""
        self._paces: dict[str, Pace] = {}

    def on_question(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        """A client asks."""
        if not reply or len(data) > QUESTION_BYTES_MAX:
            return
        source = source_of(reply, headers)
        if self._has_place(source):
            self._link.guard.call(_Question(subject), self._take, source, subject, reply, data)
        else:
            self._requests.shed(source)

    def _has_place(self, source: str) -> bool:
        if self._open.total() >= OPEN_MAX or self._open[source] >= OPEN_OF_ONE_MAX:
            return False
        now, name = time.monotonic(), source if source in self._paces or len(self._paces) < SOURCES_MAX else OTHERS
        if name not in self._paces:
            self._paces[name] = Pace(PER_SECOND, PER_SECOND, now)
        return self._paces[name].passes(now)

    def _take(self, source: str, subject: str, reply: str, data: bytes) -> None:
        try:
            key, signal = subjects.parse_same(subject)
            again = _decode_question(data)
        except (AntiphonError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # whoever asks so gets no answer
        stored = subjects.signal_subject(key, signal) if signal else subjects.start_subject(key)
        shape = self._shape(key, signal, again)
        self._open[source] += 1
        self._link.read(EVENTS, [stored], partial(self._on_read, source, shape, again, reply))

    def _on_read(self, source: str, shape: type[Event] | None, again: Resent, reply: str, found: Pages) -> None:
        self._open -= Counter({source: 1})  # whoever has none left is forgotten
        if not isinstance(found, list) or not found:
            return  # a replica that lags does not have it yet
        told = _answer(shape, found[0].data, found[0].subject, again)
        if told is None:
            return
        answer = partial(self._link.answer, reply, msgspec.json.encode(told))
        if told.verdict == "unread":
            asyncio.get_running_loop().call_later(LATE_SECONDS, answer)
        else:
            answer()

    def _shape(self, key: SagaKey, signal: str, again: Resent) -> type[Event] | None:
        """The class of the event that is asked about, in whichever version has it."""
        versions = self._definitions.get(key.type)
        for definition in versions.definitions if versions else ():
            step = definition.steps.get(signal)
            shape = (step.signal if step and step.kind == "signal" else None) if signal else definition.start_shape
            if shape is not None and shape.__contract__.type == again.type:
                return shape
        return None


def _answer(shape: type[Event] | None, data: bytes, subject: str, again: Resent) -> ResentAnswer | None:
    try:
        return compare(shape, decode(data, subject), again)
    except Undecodable as error:
        return ResentAnswer(verdict="unread", reason=error.reason)


class _Question:
    """One question. That answering it raised is worth a line of the log, and no answer."""

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def failed(self, error: BaseException) -> None:
        """Say so, and nothing to whoever asked."""
        say("same.faulty", error, self._subject)
