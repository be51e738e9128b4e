"""The administrator's step, once before anything runs: create streams and consumers. And the check that it was done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from antiphon.contracts.errors import Ambiguous, PlatformError, ServerUnfit
from antiphon.contracts.topology import (
    EVENTS,
    EXPORTER_CONSUMER,
    PARTICIPANT_ACK_WAIT_SECONDS,
    PLATFORM_CONSUMERS,
    REGISTRATIONS,
    STREAMS,
    Consumer,
    Listener,
    Stream,
    check_participant,
    participant_consumers,
    reactions_consumer,
    reactions_consumer_name,
)

from .connection import Link, missing
from .delivery import Pull

TRIES_MAX: Final = 40
WAIT_SECONDS: Final = 0.25
"""A cluster that has just started refuses streams ("no suitable peers") until it has a leader, about a second."""

CONSUMER_SECONDS: Final = 5.0
"""How long a consumer may be away at the start, as it is while a cluster chooses its leader."""
LOOK_AGAIN_SECONDS: Final = 0.2


async def set_up(
    link: Link,
    participants: Iterable[str | Listener],
    replicas: int = 1,
    ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS,
) -> None:
    """Create or update all streams and the consumers of the platform and the given participants.

    Args:
        link: a connection with an administrator's rights.
        participants: the names whose commands shall be delivered. For one that reacts to events, `Participant.listener`
            has what it hears; its name alone leaves its consumer for them as it is.
        replicas: copies of each stream; 3 on a cluster of three.
        ack_wait_seconds: how long a command waits for another worker after the one that held it died. Workers extend
            it for handlers that run long, every ten seconds, so below that a handler may meet itself in the inbox.

    Raises:
        BadIdentity: no participant may have such a name; nothing was changed.
        PlatformError: the server refused; the sentence says what and why.
    """
    # All are looked at before anything is changed: a participant called `exporter` would take the exporter's consumer.
    theirs = [consumer for each in participants for consumer in _consumers(each, ack_wait_seconds)]
    for stream in (*STREAMS, REGISTRATIONS):
        await _ensure_stream(link, stream, replicas)
    for consumer in (*PLATFORM_CONSUMERS, EXPORTER_CONSUMER, *theirs):
        await _ensure_consumer(link, consumer)


def _consumers(participant: str | Listener, ack_wait_seconds: float) -> list[Consumer]:
    listener = Listener(participant) if isinstance(participant, str) else participant
    check_participant(listener.name)
    commands = participant_consumers(listener.name, ack_wait_seconds)
    return [*commands, reactions_consumer(listener, ack_wait_seconds)] if listener.hears else [*commands]


async def require_platform(link: Link, consumers: Iterable[Consumer] = PLATFORM_CONSUMERS) -> None:
    """Check that the streams and the given consumers exist.

    Raises:
        StreamMissing: one does not; the sentence has the command that creates it.
    """
    for stream in STREAMS:
        if "error" in await api(link, f"STREAM.INFO.{stream.name}"):
            raise missing(stream.name)
    for consumer in consumers:
        if "error" in await api(link, f"CONSUMER.INFO.{consumer.stream}.{consumer.name}"):
            raise missing(consumer.stream, consumer.name)


async def left_behind(link: Link, participant: str) -> int | None:
    """How many events wait in the consumer that was made for a participant's reactions; None if it has none."""
    answer = await api(link, f"CONSUMER.INFO.{EVENTS}.{reactions_consumer_name(participant)}")
    return answer["num_pending"] + answer["num_ack_pending"] if "error" not in answer else None


async def forget_reactions(link: Link, participant: str) -> None:
    """Delete the consumer that was made for a participant's reactions; what waits in it will never be reacted to.

    Raises:
        PlatformError: the server refused.
    """
    name = reactions_consumer_name(participant)
    answer = await _insist(link, f"CONSUMER.DELETE.{EVENTS}.{name}", {})
    if error := answer.get("error"):
        raise PlatformError(f"the server refused to delete consumer {name}: {error.get('description')}.")


async def _ensure_stream(link: Link, stream: Stream, replicas: int) -> None:
    config = stream.config(replicas)
    answer = await _insist(link, f"STREAM.CREATE.{stream.name}", config)
    if answer.get("error", {}).get("err_code") == 10058:  # the name is taken by another configuration
        answer = await _insist(link, f"STREAM.UPDATE.{stream.name}", config)
    _require_done(answer, f"stream {stream.name}")


async def _ensure_consumer(link: Link, consumer: Consumer) -> None:
    body = {"stream_name": consumer.stream, "config": consumer.config()}
    answer = await _insist(link, f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}", body)
    _require_done(answer, f"consumer {consumer.name} of stream {consumer.stream}")


def _require_done(answer: dict[str, Any], what: str) -> None:
    if error := answer.get("error"):
        raise PlatformError(f"the server refused to create {what}: {error.get('description')}.")


async def _insist(link: Link, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask until a young cluster has found its leaders."""
    answer: dict[str, Any] = {"error": {"code": 503, "description": "no answer"}}
    for _ in range(TRIES_MAX):
        with contextlib.suppress(Ambiguous):
            answer = await api(link, subject, body)
        if answer.get("error", {}).get("code", 0) < 500:
            break
        await asyncio.sleep(WAIT_SECONDS)
    return answer


async def api(link: Link, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to JetStream's API (ADR-1).

    Raises:
        ServerUnfit: JetStream is not there.
        RightsMissing: this user may not ask.
    """
    try:
        data = await link.request(f"$JS.API.{subject}", msgspec.json.encode(body) if body else b"")
    except Ambiguous:
        if link.failure.done():
            raise link.failure.result() from None
        raise
    answer: dict[str, Any] = msgspec.json.decode(data)
    if answer.get("error", {}).get("err_code") in (10039, 10076):
        raise ServerUnfit(f"JetStream is not enabled for this account: {answer['error'].get('description')}.")
    return answer


async def require_accepted(pulls: Iterable[Pull]) -> None:
    """Check that the server takes the pulls: for those whose account has no streams, who cannot ask about them.

    Raises:
        StreamMissing: a consumer is not there, and not because its leader is being chosen.
        RightsMissing: this user may not pull from it.
    """
    for pull in pulls:
        try:
            async with asyncio.timeout(CONSUMER_SECONDS):
                while not await pull.is_accepted():
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
        except TimeoutError:
            raise missing(pull.stream, pull.consumer) from None
        if pull.link.failure.done():
            raise pull.link.failure.result()
