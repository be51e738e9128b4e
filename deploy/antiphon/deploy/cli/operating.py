"""What an operator does from the command line: look at what is parked, and ask for retries, edits, pauses and so on."""

from __future__ import annotations

import getpass
import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.foreign_text import harmless
from antiphon.contracts.identity import TOKEN_CHARS_MAX, SagaKey
from antiphon.contracts.payloads import Request
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.client.operator import MessageVerbs, Operator, PauseVerbs, SagaVerbs
from antiphon.coordinator.reading.parked import dismissals, parked_message, waiting_page
from antiphon.coordinator.views.parked import Message
from antiphon.link import Credentials, Link

from ..render.tables import print_dismissals, print_waiting
from ..render.terminal import say, say_json
from .sagas import find, only_for, reader, with_link

OF_CLIENTS: Final = "A client cancels and signals sagas from its own program, with handle.cancel and handle.signal."

LIMIT: Final = 50
"""How many entries are printed unless somebody wants more."""


class NotNamed(AntiphonError):
    """Nobody knows who asks. The sentence has the remedy."""


async def list_parked(server: str, page: int, limit: int, as_json: bool) -> None:
    """Print a page of what waits for a person."""
    async with reader(server) as link:
        found, has_more = await waiting_page(link, page, limit)
    if as_json:
        say_json([with_link(each, each.saga) for each in found])
        return
    print_waiting(found)
    if has_more:
        say(f"more waits: antiphon parked --page {page + 1}{f' --limit {limit}' * (limit != LIMIT)}")


async def list_dismissed(server: str, as_json: bool) -> None:
    """Print what operators said of messages that were set aside."""
    async with reader(server) as link:
        found = await dismissals(link)
    if as_json:
        said = [(number, each) for number, record in sorted(found.items()) for each in record]
        say_json([{"number": number, **msgspec.structs.asdict(each)} for number, each in said])
    else:
        print_dismissals(found)


async def ask_of_message(
    server: str,
    user: str,
    timeout: float,
    as_json: bool,
    number: int,
    ask: Callable[[MessageVerbs], Awaitable[Request]],
) -> str:
    """Ask it of a message that was set aside, and print it; why it was rejected, or an empty text."""
    name = user or who_asks()
    with only_for("operators"):
        async with Antiphon.connect(server, name=name, patient=False) as antiphon:
            request = await ask(antiphon.operator(name, timeout=timeout).message(number))
    if as_json:
        say_json(request)
    elif request.is_accepted:
        done = "dismissed" if request.verb == "dismiss" else "to be handled once more"
        say(
            f"message {number} is {done}, asked for by {request.user}. "
            f"PARKED keeps it: antiphon parked --message {number}"
        )
    return f"message {number}: {request.verb} is rejected: {request.rejected}." if request.rejected else ""


async def show_parked(server: str, sequence: int, as_json: bool) -> None:
    """Print one message that was set aside."""
    async with reader(server) as link:
        found = await parked_message(link, sequence)
    if as_json:
        say_json(found)
    else:
        say(*_described(found))


async def operate(
    server: str,
    user: str,
    timeout: float,
    as_json: bool,
    whom: str | tuple[str, str],
    one: Callable[[SagaVerbs], Awaitable[Request]],
    all: Callable[[PauseVerbs], Awaitable[Request]] | None,
    check: Callable[[Link, SagaKey], Awaitable[None]] | None = None,
) -> str:
    """Ask, wait for the decision, and print it; why it was rejected, or an empty text.

    Args:
        whom: a saga's id, or a kind (type or participant) and a name.
        check: refuses what a person has misspelt, before it is asked of a saga.
        one: asks it of a saga.
        all: asks it of a saga type or a participant.
    """
    name = user or who_asks()
    with only_for("operators", OF_CLIENTS):
        said, request = await _decided(server, name, timeout, whom, one, all, check)
    if as_json:
        say_json(request)
    elif request.is_accepted:
        say(f"{said}: {request.verb} is accepted, asked for by {request.user}.")
    return f"{said}: {request.verb} is rejected: {request.rejected}." if request.rejected else ""


async def _decided(
    server: str,
    name: str,
    timeout: float,
    whom: str | tuple[str, str],
    one: Callable[[SagaVerbs], Awaitable[Request]],
    all: Callable[[PauseVerbs], Awaitable[Request]] | None,
    check: Callable[[Link, SagaKey], Awaitable[None]] | None,
) -> tuple[str, Request]:
    """What was asked about, in words, and the request that was decided on."""
    async with Antiphon.connect(server, name=name, patient=False) as antiphon:
        operator = antiphon.operator(name, timeout=timeout)
        if isinstance(whom, str):
            async with reader(server) as link:
                key = await find(link, whom)
                if check is not None:
                    await check(link, key)
            return f"saga {key}", await one(operator.saga(key.type, key.id))
        assert all is not None
        return " ".join(whom), await all(_pause_verbs(operator, *whom))


def _pause_verbs(operator: Operator, kind: str, name: str) -> PauseVerbs:
    return operator.saga_type(name) if kind == "type" else operator.participant(name)


def who_asks() -> str:
    """The connection's user, or whoever is logged in here."""
    try:
        name = Credentials.from_environment().login or getpass.getuser()
    except (OSError, KeyError):
        raise NotNamed("nobody knows who you are here. Say so: --as NAME.") from None
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:TOKEN_CHARS_MAX]


_DONE: Final = {"dismiss": "dismissed", "resend": "sent again"}


def _described(found: Message) -> list[str]:
    parked = found.parked
    return [
        f"{parked.kind}: {parked.reason}",
        f"noticed by {parked.noticed_by}, {found.since[:19].replace('T', ' ')}",
        *([f"written by {parked.source}"] if parked.source else []),
        *(
            f"{_DONE[said.verb]} by {said.user}, {said.at[:19].replace('T', ' ')}: {said.reason}"
            for said in found.record
        ),
        f"stored in {parked.stream} at {parked.sequence}, subject {parked.subject}",
        f"{len(parked.data)} bytes:",
        *_readable(parked.data),
    ]


def _readable(data: bytes) -> list[str]:
    """Bytes as text if all of it can be seen, in lines that are indented where there are several, so that none of them
    passes for one of ours; else in hexadecimal with what can be printed of them beside it."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    lines = text.replace("\t", "    ").split("\n")
    if text and all(line == harmless(line) for line in lines):
        return lines if len(lines) == 1 else [f"    {line}" for line in lines]
    rows = [data[first : first + 16] for first in range(0, len(data), 16)]
    return [f"{number * 16:08x}  {row.hex(' '):<47}  {_printable(row)}" for number, row in enumerate(rows)]


def _printable(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
