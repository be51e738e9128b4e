"""Messages of a hostile user: what a client or a participant may publish, and nobody can use. The platform sets each
aside for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Final

import msgspec

from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, Envelope, encode, pack
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import CLIENT, COORDINATOR, LOCK, SagaKey
from antiphon.contracts.payloads import CANCEL_TYPE, CancelRequest
from antiphon.contracts.subjects import (
    BY_ITSELF,
    cancel_subject,
    event_subject,
    same_subject,
    signal_subject,
    start_subject,
    status_subject,
)
from antiphon.coordinator.client.store_once import store_once
from antiphon.coordinator.definition.definition import Definition
from antiphon.link import Link

OVERSIZE_BYTES: Final = MESSAGE_BYTES_MAX + 64 * 1024
"""More than a message may have, and less than the server takes."""
STORED_SECONDS: Final = 60.0
NOISE: Final = b"\x00\xff no message at all"
TOKEN: Final = "poison"
"""How the ids of made-up sagas, and the names of events that nobody knows, begin."""


class Message(msgspec.Struct, frozen=True):
    """One message of a hostile user.

    Args:
        subject: where it is published.
        data: its bytes.
        kept: what PARKED must list because of it: the subject, or the saga that it starts as `type/id`; empty of a
            question, which nobody keeps.
    """

    subject: str
    data: bytes
    kept: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether the server stores it."""
        return bool(self.kept)


@dataclass(frozen=True)
class Aim:
    """What a hostile user publishes at.

    Args:
        user: `client`, or a participant's name.
        victim: a saga that is under way, or none.
        definition: of sagas of the victim's type.
        number: of the message, which makes its subject unique.
    """

    user: str
    victim: SagaKey
    definition: Definition
    number: int

    @property
    def nobody(self) -> SagaKey:
        """A saga that was never started."""
        return SagaKey.of(self.victim.type, f"{TOKEN}-{self.number}")

    @property
    def by_itself(self) -> str:
        """Where the participant says to the victim what nobody knows."""
        event, step = f"{TOKEN}-{self.number}", f"{BY_ITSELF}{TOKEN}"
        return event_subject(self.victim.path, self.user, event, step, 1)


def _at(subject: str, data: bytes) -> Iterator[Message]:
    yield Message(subject, data, subject)


def _said(subject: str, source: str, type_: str, payload: msgspec.Struct) -> bytes:
    now = datetime.now(UTC)
    return encode(Envelope(id=subject, source=source, type=type_, time=now, data=pack(payload)))


def _oversize(subject: str, source: str) -> bytes:
    """A cancel that would be sound with a shorter reason."""
    sound = _said(subject, source, CANCEL_TYPE, CancelRequest(reason="?"))
    return sound.replace(b'"?"', b'"' + b"?" * OVERSIZE_BYTES + b'"')


def _deep(subject: str, source: str) -> bytes:
    """The same with lists in lists in the place of a reason."""
    sound = _said(subject, source, CANCEL_TYPE, CancelRequest(reason="?"))
    return sound.replace(b'"?"', b"[" * 100_000 + b"]" * 100_000)


def _start(aim: Aim) -> Iterator[Message]:
    yield Message(start_subject(aim.nobody), NOISE, str(aim.nobody))


def _questions(aim: Aim) -> Iterator[Message]:
    for key in (aim.victim, aim.nobody):
        yield from (Message(subject, NOISE) for subject in (status_subject(key), same_subject(key)))


def _heard(aim: Aim) -> Iterator[Message]:
    """Noise where others hear the participant: they react to what it says there."""
    for heard in aim.definition.events.values():
        contract = heard.shape.__contract__
        if contract.owner == aim.user:
            step = f"{BY_ITSELF}{TOKEN}"
            yield from _at(event_subject(aim.nobody.path, aim.user, contract.token, step, 1), NOISE)


def _answers(aim: Aim) -> Iterator[Message]:
    """Noise in the place of an answer to what it was never asked."""
    for (step, event), expected in aim.definition.answers.items():
        if expected.source == aim.user:
            yield from _at(event_subject(aim.nobody.path, aim.user, event, step, 1), NOISE)


def _cancel(key: SagaKey, data: Callable[[str, str], bytes]) -> Iterator[Message]:
    subject = cancel_subject(key)
    yield from _at(subject, data(subject, CLIENT))


Form = Callable[[Aim], Iterator[Message]]

CLIENT_FORMS: Final[Mapping[str, Form]] = {
    "noise": lambda aim: _cancel(aim.victim, lambda subject, source: NOISE),
    "oversize": lambda aim: _cancel(aim.nobody, _oversize),
    "deep": lambda aim: _cancel(aim.nobody, _deep),
    "orphan": lambda aim: _cancel(aim.nobody, lambda at, by: _said(at, by, CANCEL_TYPE, CancelRequest(reason="?"))),
    "unknown": lambda aim: _at(signal_subject(aim.victim, f"{TOKEN}-{aim.number}"), NOISE),
    "start": _start,
    "question": _questions,
}
"""What a client may publish, by name: bytes that are no message, one that is too large, lists in lists, a cancel of a
saga that was never started, a signal that nobody waits for, a start that cannot be read, and questions."""

PARTICIPANT_FORMS: Final[Mapping[str, Form]] = {
    "noise": lambda aim: _at(aim.by_itself, NOISE),
    "oversize": lambda aim: _at(aim.by_itself, _oversize(aim.by_itself, aim.user)),
    "deep": lambda aim: _at(aim.by_itself, _deep(aim.by_itself, aim.user)),
    "forged": lambda aim: _at(aim.by_itself, _said(aim.by_itself, COORDINATOR, CANCEL_TYPE, CancelRequest(reason="?"))),
    "unknown": lambda aim: _at(
        aim.by_itself, _said(aim.by_itself, aim.user, "nobody.knows.v1", CancelRequest(reason="?"))
    ),
    "lock": lambda aim: _at(event_subject(SagaKey.of(LOCK, aim.nobody.id).path, aim.user, "ask", "x", 1), NOISE),
    "answer": _answers,
    "heard": _heard,
}
"""What a participant may publish: as a client, and a message in a coordinator's name, an event that nobody knows, a
word about a lock, an answer that cannot be read, and the same of an event to which others react."""


def forms_of(user: str) -> Mapping[str, Form]:
    """What a user may publish."""
    return CLIENT_FORMS if user == CLIENT else PARTICIPANT_FORMS


@dataclass
class Planted:
    """What hostile users have stored, as PARKED must list it."""

    messages: set[str] = field(default_factory=set[str])
    """By subject."""
    sagas: set[str] = field(default_factory=set[str])
    """Sagas that a start which cannot be read has begun, as `type/id`."""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def is_of(self, subject: str, saga: SagaKey | None) -> bool:
        """Whether a message is a hostile user's, or is about a saga that one has begun."""
        return subject in self.messages or (saga is not None and str(saga) in self.sagas)

    def note(self, message: Message) -> None:
        """Remember a message that is stored."""
        if message.kept == message.subject:
            self.messages.add(message.subject)
        elif message.kept:
            self.sagas.add(message.kept)


def messages_of(
    user: str, form: str, times: int, victims: Sequence[SagaKey], definitions: Iterable[Definition], planted: Planted
) -> Iterator[Message]:
    """What a hostile user publishes.

    Args:
        user: `client`, or a participant's name.
        form: one of `forms_of`; each of them when empty.
        times: how many of each.
        victims: sagas that are under way, which are taken in turn; made-up ones when there are none.
        definitions: of all sagas.
        planted: counts the messages.

    Raises:
        PlatformError: there is no such form, or no saga to publish at.
    """
    known, by_type = forms_of(user), {each.name: each for each in definitions}
    if form and form not in known:
        raise PlatformError(f"there is no message {form!r} of {user}: {', '.join(known)}.")
    if not by_type:
        raise PlatformError("there is no saga here that a message could be published at.")
    first = next(iter(by_type))
    for _ in range(times):
        for make in [known[form]] if form else known.values():
            number = next(planted.numbers)
            victim = victims[number % len(victims)] if victims else SagaKey.of(first, f"{TOKEN}-{number}")
            yield from make(Aim(user, victim, by_type[victim.type], number))


async def publish(link: Link, messages: Iterable[Message], planted: Planted) -> None:
    """Publish what a hostile user does, and remember what the server has stored.

    Raises:
        PlatformError: the server did not store it; the sentence says why.
    """
    for message in messages:
        if message.is_stored:
            await store_once(link, message.subject, message.data, STORED_SECONDS)
            planted.note(message)
        else:
            link.send(message.subject, message.data, reply=link.new_inbox())
    await link.flushed()
