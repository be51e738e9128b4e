"""What a person does with sagas: start, list, show, cancel."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import typer

from antiphon.contracts import wire
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.errors import Ambiguous, PlatformError, StreamMissing, UnknownSaga, Unusable
from antiphon.contracts.topology import EVENTS
from antiphon.contracts.wire import SagaKey, check_token
from antiphon.coordinator.client import Antiphon, Outcome
from antiphon.coordinator.explain import summaries, timeline
from antiphon.coordinator.saga import Saga
from antiphon.link import Link

from .modules import CannotLoad, load
from .picture import print_summaries, print_timeline


async def start_saga(server: str, path: str, id: str, payload: str, timeout: float | None, as_json: bool) -> None:
    """Start a saga; with a timeout, wait for its outcome."""
    saga = _definition(path)
    SagaKey.of(saga.name, id)
    event = unpack_raw(_read(payload), saga.start)
    async with Antiphon.connect(server) as antiphon:
        handle = await antiphon.start(saga, event, id=id)
        outcome = await handle.result(timeout=timeout) if timeout is not None else None
    if as_json:
        typer.echo(msgspec.json.encode(_started(saga.name, id, outcome)))
    elif outcome is None:
        typer.echo(f"saga {handle.key} is started. Follow it: antiphon show {handle.key}")
    else:
        typer.echo(f"saga {handle.key} {outcome.outcome}{': ' if outcome.reason else ''}{outcome.reason}")


async def list_sagas(server: str, saga_type: str, limit: int, as_json: bool) -> None:
    """Print the sagas that were started last."""
    if saga_type != "*":
        check_token(saga_type, "saga type")
    async with _reader(server) as link:
        found = await summaries(link, saga_type, limit)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        print_summaries(found)


async def show_saga(server: str, id: str, as_json: bool) -> None:
    """Print one saga's timeline."""
    async with _reader(server) as link:
        found = await timeline(link, await _find(link, id))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        print_timeline(found)


async def cancel_saga(server: str, id: str, reason: str) -> None:
    """Store the wish to cancel. No coordinator needs to be there; it is heard when one comes."""
    async with _reader(server) as link:
        key = await _find(link, id)
        if await link.get_last(EVENTS, wire.start_subject(key)) is None:
            raise UnknownSaga(key.type, key.id)
    async with Antiphon.connect(server) as antiphon:
        await antiphon.ask_to_cancel(key, reason)
    typer.echo(f"asked saga {key} to cancel: it is compensated, unless it has ended. See: antiphon show {key}")


@asynccontextmanager
async def _reader(server: str) -> AsyncGenerator[Link]:
    """A link to read with; what goes wrong in its block is said with what a person can do about it."""
    link = await Link.connect(server, name="operator")
    try:
        yield link
    except Ambiguous as error:
        if link.failure.done():
            raise link.failure.result() from None
        if "503" in str(error):
            raise StreamMissing(
                "the streams of Antiphon are not on this server. Create them once, as administrator: antiphon setup"
            ) from None
        raise PlatformError(f"the server gave no answer ({error}). Try again, or look at its log.") from None
    finally:
        await link.close()


async def _find(link: Link, id: str) -> SagaKey:
    """The saga a person means by `id` or `type/id`."""
    if "/" in id:
        return _key(id)
    check_token(id, "saga id")
    starts = [message.subject async for message in link.scan(EVENTS, f"evt.*.*.{id}.client.start")]
    keys = [key for subject in starts if (key := _started_at(subject)) is not None]
    match keys:
        case []:
            raise UnknownSaga("*", id)
        case [key]:
            return key
        case _:
            raise CannotLoad(f"several sagas have the id {id}: {', '.join(map(str, keys))}. Give the type as well.")


def _started_at(subject: str) -> SagaKey | None:
    """The saga of a start; none if the start is forged, which anybody may store and must not stop a person here."""
    with suppress(Unusable):
        return wire.parse_fact(subject).saga
    return None


def _definition(path: str) -> Saga[Any]:
    return load(path, cast("type[Saga[Any]]", Saga))


def _key(text: str) -> SagaKey:
    saga_type, _, id = text.partition("/")
    return SagaKey.of(saga_type, id)


def _started(saga_type: str, id: str, outcome: Outcome | None) -> dict[str, str]:
    said = {"outcome": outcome.outcome, "reason": outcome.reason} if outcome else {}
    return {"type": saga_type, "id": id, **said}


def _read(payload: str) -> bytes:
    if not payload.startswith("@"):
        return payload.encode()
    if payload == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(payload[1:]).read_bytes()
    except OSError as error:
        raise CannotLoad(f"cannot read the payload from {payload[1:]}: {error.strerror}.") from None
