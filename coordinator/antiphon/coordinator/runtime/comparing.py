"""Answers clients who ask whether a start or a signal that is there already is the one that they wanted to store.

They may not read EVENTS, where everybody's payloads are. A coordinator reads what is stored and says no more than
whether it is the same. What it cannot tell it leaves to others: silence tells nobody anything wrong, and whoever asked
asks again.
"""

from __future__ import annotations

import asyncio
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

OPEN_MAX: Final = 32
"""Questions under way at once. Those above it get no answer: clients ask rarely, and each may send 256 KiB."""

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
    """

    def __init__(self, link: Link, definitions: dict[str, Versions]) -> None:
        self._link, self._definitions = link, definitions
        self._open = 0

    def on_question(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        """A client asks."""
        if reply and self._open < OPEN_MAX and len(data) <= QUESTION_BYTES_MAX:
            self._link.guard.call(_Question(subject), self._take, subject, reply, data)

    def _take(self, subject: str, reply: str, data: bytes) -> None:
        try:
            key, signal = subjects.parse_same(subject)
            again = _decode_question(data)
        except (AntiphonError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # whoever asks so gets no answer
        stored = subjects.signal_subject(key, signal) if signal else subjects.start_subject(key)
        self._open += 1
        self._link.read(EVENTS, [stored], partial(self._on_read, self._shape(key, signal, again), again, reply))

    def _on_read(self, shape: type[Event] | None, again: Resent, reply: str, found: Pages) -> None:
        self._open -= 1
        if not isinstance(found, list) or not found:
            return  # a replica that lags does not have it yet
        told = _answer(shape, found[0].data, found[0].subject, again)
        if told is None:
            return
        answer = partial(self._link.send, reply, msgspec.json.encode(told))
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
