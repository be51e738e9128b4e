"""`antiphon wait`: whether a platform can run sagas, and what is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from antiphon.contracts.counting import counted
from antiphon.contracts.errors import Ambiguous, PlatformError, RightsMissing, ServerUnfit, ServerUnreachable
from antiphon.contracts.identity import COORDINATOR, SagaKey, check_token
from antiphon.contracts.subjects import JOURNALS_FILTER, REGISTRATIONS_FILTER, saga_events_filter
from antiphon.contracts.topology import REGISTRATIONS, SAGA, check_participant
from antiphon.coordinator.definition.capabilities import capabilities_of, participants_of
from antiphon.flow.running import Running, read_running
from antiphon.link import Link
from antiphon.link.pairs import find_pairs
from antiphon.participants.participant import Participant

from ..modules import CannotLoad
from ..render.plain import warn
from ..render.terminal import say, say_json
from .flows import load_parts

LOOK_SECONDS: Final = 0.25


class Wanted(msgspec.Struct, frozen=True):
    """What must run: versions of sagas by type, 0 for any, and participants. Empty where what runs says it."""

    sagas: frozenset[tuple[str, int]] = frozenset()
    participants: frozenset[str] = frozenset()


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a platform."""

    ready: bool
    missing: tuple[str, ...]
    coordinators: int = 0
    """How many processes say that they are coordinators."""
    sagas: tuple[str, ...] = ()
    """The versions of sagas that they serve."""
    participants: tuple[str, ...] = ()


async def wait_until_ready(
    server: str, apps: Sequence[str], types: Sequence[str], participants: Sequence[str], timeout: float, as_json: bool
) -> bool:
    """Look until nothing is missing or the time is up, and print what was found; whether it is ready."""
    wanted = _wanted(apps, types, participants)
    gives_up, said = time.monotonic() + timeout, ""
    while True:
        found = await _look(server, wanted)
        left = gives_up - time.monotonic()
        if found.ready or left <= 0:
            break
        if not as_json and (now := "; ".join(found.missing)) != said:
            said = now
            warn(f"antiphon: waits for {said}")
        await asyncio.sleep(min(LOOK_SECONDS, left))
    if as_json:
        say_json(found)
    elif found.ready:
        whom = f"participants {', '.join(found.participants)}" if found.participants else "no participants"
        say(f"ready: {counted(found.coordinators, 'coordinator')} of {', '.join(found.sagas)}, and {whom}.")
    else:
        warn(f"antiphon: not ready within {timeout:g} s. Missing: {'; '.join(found.missing)}.")
    return found.ready


def _wanted(apps: Sequence[str], types: Sequence[str], participants: Sequence[str]) -> Wanted:
    parts = load_parts(apps) if apps else []
    own = [part for part in parts if isinstance(part, Participant)]
    sagas = [part.definition for part in parts if not isinstance(part, Participant)]
    for name in participants:
        check_participant(name)
    if apps and not parts:
        raise CannotLoad(f"there is nothing to wait for in {', '.join(apps)}.")
    needed = participants_of(capabilities_of(sagas).sagas)
    return Wanted(
        frozenset(
            {
                *((definition.name, definition.version) for definition in sagas),
                *((check_token(saga_type, "saga type"), 0) for saga_type in types),
            }
        ),
        frozenset({*participants, *(part.name for part in own), *needed}),
    )


async def _look(server: str, wanted: Wanted) -> Readiness:
    try:
        link = await Link.connect(server, name="operator", patient=False)
    except (ServerUnreachable, ServerUnfit) as error:
        return Readiness(ready=False, missing=(str(error).rstrip("."),))
    try:
        running = await _running(link)
    except Ambiguous:
        if isinstance(failed := link.failure.result() if link.failure.done() else None, RightsMissing):
            raise failed from None
        return Readiness(ready=False, missing=("the streams, or their leaders (as administrator: antiphon setup)",))
    except PlatformError as error:
        return Readiness(ready=False, missing=(str(error).rstrip("."),))
    finally:
        await link.close()
    return _readiness(running, wanted)


async def _running(link: Link) -> Running:
    """What says that it runs, once all streams answer."""
    await find_pairs(link)
    await link.get_latest(SAGA, JOURNALS_FILTER)
    for events in link.pairs.events:
        await link.read_all(events, [saga_events_filter(SagaKey.of("nothing", "nothing"))])
    return read_running(
        [(each.subject, each.data) async for each in link.scan(REGISTRATIONS.name, REGISTRATIONS_FILTER)]
    )


def _readiness(running: Running, wanted: Wanted) -> Readiness:
    coordinators = [each for each in running.honest if each.name == COORDINATOR]
    served = [saga for each in coordinators for saga in each.sagas]
    here = {each.name for each in running.honest if each.name != COORDINATOR}
    sagas = {(saga.name, saga.version) for saga in served} | {(saga.name, 0) for saga in served}
    needed = wanted.participants or (frozenset() if wanted.sagas else frozenset(participants_of(served)))
    missing = [] if coordinators else ["a coordinator (antiphon coordinator --app MODULE:SAGA)"]
    if coordinators:
        missing += [f"a coordinator of {_named(*saga)}" for saga in sorted(wanted.sagas - sagas)]
    missing += [f"participant {name}" for name in sorted(needed - here)]
    return Readiness(
        ready=not missing,
        missing=tuple(missing),
        coordinators=len(coordinators),
        sagas=tuple(sorted({_named(saga.name, saga.version) for saga in served})),
        participants=tuple(sorted(here)),
    )


def _named(saga_type: str, version: int) -> str:
    return f"{saga_type} v{version}" if version else saga_type
