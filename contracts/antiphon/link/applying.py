"""The administrator's step, once before anything runs: create and mend streams and consumers, one administrator after
the other."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from antiphon.contracts.counting import counted
from antiphon.contracts.differences import said
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.pairs import base_of
from antiphon.contracts.targets import UNKNOWN_BOUND, Loss
from antiphon.contracts.topology import (
    EVENTS,
    PARKED,
    PARKED_BYTES,
    PARTICIPANT_ACK_WAIT_SECONDS,
    Bound,
    Listener,
    Stream,
)

from .connection import Link
from .preview import Change, Desired, Preview, preview, seconds_in
from .setup import NO_RESOURCES, NO_STORAGE, Bounds, NotChanged, api, delete_consumer, insist, is_final, room_of

log = structlog.get_logger()

TURN: Final = "ANTIPHON_SETUP"
"""A stream that is there while somebody sets up: no two streams have one name, so the second administrator waits."""
TURN_SECONDS_MAX: Final = 60.0
"""How long a set-up may take before another one goes on: who set up has died. A set-up takes a second or two."""
TURN_LOOK_SECONDS: Final = 0.25
ROOM_TRIES_MAX: Final = 20
"""How often a server that has no room for a stream is asked again, a quarter of a second apart."""

CLOSED: Final = "antiphon.forgotten"
"""What a stream's subjects are called in the moment before it is deleted: nobody publishes there."""
PROBE: Final = "ANTIPHON_PROBE"
"""A stream that is made for a moment, to find out how much the server sets aside for one."""
ROOM_EXPONENT_MAX, ROOM_EXPONENT_MIN = 50, 12
"""Between a petabyte and 8 kB."""
BY_DEFAULT: Final = {EVENTS: 1 << (ROOM_EXPONENT_MAX - 1), PARKED: PARKED_BYTES}
"""How much a stream is bound to at most where nobody said otherwise."""
NAME_IN_USE: Final = 10058
"""What the server says to the creation of a stream that is there with another configuration."""
ANEW: Final = (
    "Nothing is deleted for you: end all processes, take a backup (nats stream backup), delete "
    "the stream, and run the same command; or restore it under the settings that it must have."
)
"""What an administrator can do about a stream that cannot be changed."""


async def set_up(
    link: Link,
    participants: Iterable[str | Listener],
    replicas: int = 0,
    ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS,
    events_bytes: int = 0,
    parked_bytes: int = 0,
    *,
    client_bounds: Iterable[Bound] = (),
    allowed: Collection[Loss] = (),
    pairs: int = 0,
) -> Bounds:
    """Create or update all streams and the consumers of the platform and the given participants.

    Coordinators hear the given participants, and those that were set up before. The consumers from which coordinators
    of earlier releases pull facts stay where they are, until `forget_former_facts`. What is as it must be is not
    touched. Of several that set up at once one works after the other.

    Args:
        link: a connection with an administrator's rights.
        participants: the names whose commands shall be delivered. For one that reacts to events, `Participant.listener`
            has what it hears; its name alone leaves its consumer for them as it is.
        replicas: copies of each stream; 3 on a cluster of three. With 0 as many as were asked for before, and one where
            nothing was.
        ack_wait_seconds: how long a command waits for another worker after the one that held it died. Workers extend
            it for all that they hold, every three quarters of a second; those of release 0.1.0-67d7c3a every ten
            seconds, so that below thirty a long handler of theirs meets itself in the inbox, which costs it nothing
            but the wait.
        events_bytes: how much EVENTS may take of the server's room, so that SAGA always has some; all streams of that
            kind together where there are several. With 0 what was set before stays; where nothing was, it is half of
            what can be set aside.
        parked_bytes: the same for PARKED, so that nobody who parks fills the disk. Where nothing was, it is a gigabyte,
            or half of what can be set aside where that is less.
        client_bounds: how many sagas of a type a client may have open. A bound that was set before stays, where no
            other one is given for the same client and type.
        allowed: what may become less safe: fewer replicas, smaller bounds, messages that are lost.
        pairs: over how many pairs of streams sagas are spread, which stays so; with 0 as many as there are, and one
            where there are none.

    Returns:
        How many bytes both may take.

    Raises:
        BadIdentity: no participant may have such a name; nothing was changed.
        LessSafe: something would be less safe, and is not allowed; nothing was changed.
        NotChanged: something stays as it is, because the server lets nobody change it; all else was done.
        PlatformError: the server refused; the sentence says what and why.
    """
    desired = Desired(
        listeners=tuple(Listener(each) if isinstance(each, str) else each for each in participants),
        replicas=replicas,
        ack_wait_seconds=ack_wait_seconds,
        events_bytes=events_bytes,
        parked_bytes=parked_bytes,
        client_bounds=tuple(client_bounds),
        pairs=pairs,
    )
    return await carry_out(link, desired, allowed)


async def carry_out(link: Link, desired: Desired, allowed: Collection[Loss] = ()) -> Bounds:
    """Do what `preview` says; it is looked again once it is this administrator's turn. See `set_up`."""
    found = await preview(link, desired)
    found.require_allowed(allowed)
    if found.pending:
        async with _turn(link):
            found = await preview(link, desired)
            found.require_allowed(allowed)
            return await _apply(link, found)
    return Bounds(found.bound_of(EVENTS), found.bound_of(PARKED))


async def _apply(link: Link, found: Preview) -> Bounds:
    bounds = {each.stream: int(each.config["max_bytes"]) for each in found.changes if not each.consumer}
    shares, unchanged = dict[str, int](), list[str]()
    for change in found.pending:
        try:
            if change.action == "delete":
                await _delete(link, change)
            elif change.consumer:
                await _ensure_consumer(link, change)
            else:
                bounds[change.stream] = await _ensure_stream(link, change, found, shares)
        except NotChanged as error:
            unchanged.append(str(error))
    if unchanged:
        raise NotChanged(" ".join(unchanged))
    return Bounds(sum(bounds[name] for name in found.pairs.events), bounds[PARKED])


async def _delete(link: Link, change: Change) -> None:
    if change.consumer:
        await delete_consumer(link, change.stream, change.consumer)
    else:
        await _delete_stream(link, change)


async def _delete_stream(link: Link, change: Change) -> None:
    """Delete a stream of a client, once it takes nothing more: what is stored after it was looked at is not lost.

    Raises:
        NotChanged: something was stored meanwhile; the stream is as it was.
    """
    closed = {**change.config, "subjects": [f"{CLOSED}.{change.stream}"]}
    _require_done(await insist(link, f"STREAM.UPDATE.{change.stream}", closed), change.what, "change")
    info = await insist(link, f"STREAM.INFO.{change.stream}", {})
    left: int = info.get("state", {}).get("messages", 0)
    if left and not change.reductions:
        _require_done(await insist(link, f"STREAM.UPDATE.{change.stream}", change.config), change.what, "change")
        raise NotChanged(
            f"{change.what} is not deleted: {counted(left, 'message was', 'messages were')} stored in it meanwhile. "
            "End the client's program, and run the same command again once the stream is empty."
        )
    _require_done(await insist(link, f"STREAM.DELETE.{change.stream}", {}), change.what, "delete")


# --- one after the other ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def _turn(link: Link) -> AsyncGenerator[None]:
    """Wait until nobody else sets up, and have others wait for the length of the block."""
    own, has_said = secrets.token_hex(4), False
    stream = Stream(name=TURN, subjects=(f"antiphon.setup.{own}",), settings={"storage": "memory"})
    while True:
        answer = await insist(link, f"STREAM.CREATE.{TURN}", stream.config(1))
        error = answer.get("error")
        if error is None:
            break
        if error.get("err_code") != NAME_IN_USE:
            raise PlatformError(f"the server lets nobody set up: {error.get('description')}.")
        if not has_said:
            log.info("setup.waits", why="another administrator sets up", seconds=TURN_SECONDS_MAX)
            has_said = True
        await _end_if_old(link)
        await asyncio.sleep(TURN_LOOK_SECONDS)
    try:
        yield
    finally:
        await _end_turn(link, stream.subjects)


async def _end_if_old(link: Link) -> None:
    """End the turn of who began it long ago, and died."""
    info = await insist(link, f"STREAM.INFO.{TURN}", {})
    if "error" not in info and seconds_in(info["ts"]) - seconds_in(info["created"]) > TURN_SECONDS_MAX:
        await _end_turn(link, info["config"]["subjects"])


async def _end_turn(link: Link, subjects: Collection[str]) -> None:
    """End a turn, unless the stream is somebody else's by now."""
    info = await insist(link, f"STREAM.INFO.{TURN}", {})
    if "error" in info or info["config"]["subjects"] == [*subjects]:
        await insist(link, f"STREAM.DELETE.{TURN}", {})


# --- streams ----------------------------------------------------------------------------------------------------------


async def _ensure_stream(link: Link, change: Change, found: Preview, shares: dict[str, int]) -> int:
    """Create or change a stream.

    Args:
        link: a connection with an administrator's rights.
        change: what becomes of it.
        found: the whole of which that is a part.
        shares: how much each stream of a kind may take, once that is known.

    Returns:
        How many bytes it may take; -1 where nothing bounds it.

    Raises:
        NotChanged: the server lets nobody change some of it.
    """
    config = change.config
    if config["max_bytes"] == UNKNOWN_BOUND:
        room, kind = await room_of(link, change.stream), base_of(change.stream)
        if kind not in shares:
            half = await _half_of_the_room(link, change.stream, found.replicas, BY_DEFAULT[kind])
            shares[kind] = half // len(found.pairs.names(kind))
        config = {**config, "max_bytes": (room.used if room else 0) + shares[kind]}
    verb = "CREATE" if change.action == "create" else "UPDATE"
    answer = await _insist_on_room(link, f"STREAM.{verb}.{change.stream}", config)
    if verb == "UPDATE" and "error" in answer and answer["error"].get("err_code") not in NO_STORAGE:
        await _change_one_by_one(link, change.stream, config)
    else:
        _require_done(answer, change.what)
    return int(config["max_bytes"])


async def _insist_on_room(link: Link, subject: str, config: dict[str, Any]) -> dict[str, Any]:
    """Ask for a while where there is no room: what a probe has set aside is given back by other servers in a moment.

    Where the server names no peers, `insist` has asked for as long as that may be about to change.
    """
    for _ in range(ROOM_TRIES_MAX):
        answer = await insist(link, subject, config)
        error = answer.get("error", {})
        if error.get("err_code") not in NO_STORAGE or not is_final(error):
            return answer
        await asyncio.sleep(TURN_LOOK_SECONDS)
    return await insist(link, subject, config)


async def _change_one_by_one(link: Link, stream: str, wanted: dict[str, Any]) -> None:
    """Change what can be changed of a stream where the server refuses to change all at once.

    Raises:
        NotChanged: it refuses some of it, which the sentences name.
    """
    answer = await insist(link, f"STREAM.INFO.{stream}", {})
    _require_done(answer, f"stream {stream}")
    config: dict[str, Any] = answer["config"]
    config["metadata"] = {**(config.get("metadata") or {}), **wanted["metadata"]}
    refused = list[str]()
    for _ in range(len(wanted)):  # some can only be changed after others
        refused, is_changed = list[str](), False
        for setting, value in wanted.items():
            if config.get(setting) == value or setting == "metadata":
                continue
            answer = await insist(link, f"STREAM.UPDATE.{stream}", {**config, setting: value})
            if error := answer.get("error"):
                is_state = f"{setting} is {said(setting, config.get(setting))} and must be {said(setting, value)}"
                refused.append(f"{is_state} ({error.get('description')})")
            else:
                config, is_changed = answer["config"], True
        if not is_changed:
            break
    if refused:
        raise NotChanged(f"The server does not change stream {stream}: {'; '.join(refused)}. {ANEW}")


async def _half_of_the_room(link: Link, name: str, replicas: int, most: int) -> int:
    """Half of what another stream could set aside, rounded down to a power of two, and at most `most`, which is one.

    The server tells nobody but its own administrator how much it may store, so a stream is made for a moment that wants
    that much. What is stored without being set aside counts as well.
    """
    used = int((await api(link, "INFO")).get("storage", 0))
    for exponent in range(most.bit_length(), ROOM_EXPONENT_MIN, -1):
        if await _can_set_aside(link, replicas, used + (1 << exponent)):
            return 1 << (exponent - 1)
    raise PlatformError(f"the server has no room for stream {name}; give its jetstream block a larger max_file_store.")


async def _can_set_aside(link: Link, replicas: int, bytes_: int) -> bool:
    own = secrets.token_hex(4)
    stream = Stream(name=f"{PROBE}-{own}", subjects=(f"antiphon.probe.{own}",), settings={"max_bytes": bytes_})
    answer = await insist(link, f"STREAM.CREATE.{stream.name}", stream.config(replicas))
    if error := answer.get("error"):
        if error.get("err_code") in NO_STORAGE:
            return False
        raise PlatformError(f"the server refused to set room aside: {error.get('description')}.")
    await insist(link, f"STREAM.DELETE.{stream.name}", {})
    return True


# --- consumers --------------------------------------------------------------------------------------------------------


async def _ensure_consumer(link: Link, change: Change) -> None:
    """Create or change a consumer.

    Raises:
        NotChanged: the server lets nobody change some of it.
    """
    where = f"{change.stream}.{change.consumer}"
    body = {"stream_name": change.stream, "config": change.config}
    # What it says for a moment of a stream whose replicas it has just begun to place, it says of a full one for good.
    answer = await insist(link, f"CONSUMER.CREATE.{where}", body, passing=[NO_RESOURCES])
    if change.action == "change" and (error := answer.get("error")) and is_final(error):
        differ = "; ".join(
            f"{each.setting} is {each.was_in_words} and must be {each.becomes_in_words}" for each in change.settings
        )
        raise NotChanged(
            f"The server does not change {change.what} ({error.get('description')}): {differ}. End who pulls from it, "
            f"delete it (nats consumer rm {change.stream} {change.consumer}), and run the same command: a new one "
            "delivers what there is once more, which costs time; one for reactions, what comes from then on."
        )
    _require_done(answer, change.what)


def _require_done(answer: dict[str, Any], what: str, verb: str = "create") -> None:
    if error := answer.get("error"):
        raise PlatformError(f"the server refused to {verb} {what}: {error.get('description')}.")
