"""What a person does with sagas: start, signal, list, show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.errors import (
    Ambiguous,
    AntiphonError,
    PlatformError,
    RightsMissing,
    Undecided,
    UnknownSaga,
    Unusable,
)
from antiphon.contracts.identity import SagaKey, check_token
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import Prospect
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.client import Antiphon, Handle, Outcome
from antiphon.coordinator.definition.choreography import AnySaga
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.reading.sagas import started_last, timeline
from antiphon.link import Link, NobodyReads
from antiphon.link.connection import streams_missing
from antiphon.link.pairs import find_pairs
from antiphon.tracing.projection.links import checked_link

from ..modules import CannotLoad, load_saga
from ..render.plain import warn
from ..render.tables import print_summaries, print_timeline
from ..render.terminal import say, say_json
from .filters import more_than
from .payloads import read_event

HOLD_SECONDS: Final = 1.0
"""How far apart it is asked what a saga stands still by that is waited for."""

LOOK_SECONDS: Final = 0.1
"""How far apart a coordinator is asked whether a signal has arrived."""


async def start_saga(
    server: str, path: str, id: str, payload: str, version: int | None, waits: bool, timeout: float, as_json: bool
) -> None:
    """Start a saga within a time; wait for its outcome, for as long again, where `waits` says so."""
    saga = _definition(path)
    link = checked_link(SagaKey.of(saga.name, id))
    event = read_event(payload, saga.start)
    async with Antiphon.connect(server, patient=False) as antiphon:
        handle = await antiphon.start(saga, event, id=id, timeout=timeout, version=version)
        outcome = await (_wait_for(handle, timeout) if waits else _end_of(antiphon, handle))
    if as_json:
        say_json(_started(handle, outcome, link))
        return
    say(_of_start(handle, saga.definition.version, outcome, waits))
    if link:
        say(link)


async def _wait_for(handle: Handle, timeout: float) -> Outcome:
    """Wait for a saga's end, and say meanwhile what it stands still by."""
    telling = asyncio.create_task(_tell_what_holds(handle, timeout))
    try:
        return await handle.result(timeout=timeout)
    finally:
        telling.cancel()


async def _tell_what_holds(handle: Handle, timeout: float) -> None:
    """Say once of each reason that the saga does not go on by itself."""
    said = {""}
    while True:
        await asyncio.sleep(HOLD_SECONDS)
        with suppress(AntiphonError):
            if (why := await handle.stands_still_by()) not in said:
                said.add(why)
                warn(
                    f"antiphon: saga {handle.key} has not ended, since {why}. It is waited for, up to {timeout:g} s "
                    "in all; Ctrl-C ends the waiting, not the saga."
                )


async def _end_of(antiphon: Antiphon, handle: Handle) -> Outcome | None:
    """How a saga ended that was started before; None where it has not, or where this user may not read that."""
    with suppress(PlatformError):
        return await antiphon.end_if_any(handle.key) if handle.was_started else None
    return None


def _of_start(handle: Handle, version: int, outcome: Outcome | None, waits: bool) -> str:
    """What became of a start, in a sentence."""
    key, ended = handle.key, ""
    if outcome is not None:
        ended = f"{outcome.outcome}{': ' if outcome.reason else ''}{outcome.reason}"
    if not handle.was_started:
        return f"saga {key} {ended}" if ended else f"saga {key} is started. Follow it: antiphon show {key}"
    other = ""
    if handle.version not in (0, version):
        other = f" It runs with version {handle.version}, and {version} is the version here."
    if waits:
        return f"saga {key} {ended}.{other}" if other else f"saga {key} {ended}"
    if ended:
        return f"saga {key} was started before, with the same payload, and has ended: {ended}.{other}"
    return f"saga {key} was started before, with the same payload. Follow it: antiphon show {key}.{other}"


async def list_sagas(server: str, saga_type: str, limit: int, as_json: bool) -> None:
    """Print the sagas that were started last."""
    if saga_type != "*":
        check_token(saga_type, "saga type")
    async with reader(server) as link:
        found, total = await started_last(link, saga_type, limit)
    if as_json:
        say_json(found)
    else:
        print_summaries(found, saga_type)
    if total > limit:
        warn(f"antiphon: {more_than(limit, total)}")


async def show_saga(server: str, id: str, as_json: bool) -> None:
    """Print one saga's timeline."""
    async with reader(server) as link:
        found = await timeline(link, await find(link, id))
    if as_json:
        say_json(with_link(found, f"{found.type}/{found.id}"))
    else:
        print_timeline(found)


async def signal_saga(
    server: str, path: str, id: str, name: str, payload: str, waits: bool, timeout: float, as_json: bool
) -> None:
    """Send a signal, checked against the definition, and say what became of it: the first one counts, so a wrong one
    could not be taken back."""
    saga = _definition(path)
    named, _, saga_id = id.rpartition("/")
    if named not in ("", saga.name):
        raise CannotLoad(
            f"{id} is of type {named}, and {path} is the saga {saga.name}. Name its own definition by --app."
        )
    steps = saga.steps if isinstance(saga, Saga) else ()
    wanted = {step.name: step.signal for step in steps if step.kind == "signal" and step.signal is not None}
    if (shape := wanted.get(name)) is None:
        known = f"it waits for {', '.join(wanted)}" if wanted else "it waits for none"
        raise CannotLoad(f"saga {saga.name} has no signal {name!r}; {known}.")
    event = read_event(payload, shape)
    async with Antiphon.connect(server, patient=False) as antiphon:
        key = antiphon.handle(saga, saga_id).key
        prospect = await antiphon.send_signal(key, name, event, timeout, waits=waits)
        if prospect not in ("taken", "unstarted"):
            await _until_taken(antiphon, key, name, event, timeout)
    if as_json:
        say_json({"type": key.type, "id": key.id, "signal": name, "prospect": prospect or "taken"})
    else:
        say(BECAME[prospect].format(saga=key, name=name))


BECAME: Final[Mapping[Prospect, str]] = {
    "awaited": "saga {saga} waited for {name}, and has it now.",
    "early": "saga {saga} has {name} now. Step {name} takes it as soon as its turn comes.",
    "taken": "saga {saga} has got {name} before, with the same payload. Nothing was changed.",
    "unstarted": "{name} is stored. There is no saga {saga} yet; once it is started it gets this.",
    "": "saga {saga} has {name} now.",
}
"""What is said of a signal, by what was expected of it before it was stored."""


async def _until_taken(antiphon: Antiphon, key: SagaKey, name: str, event: Event, timeout: float) -> None:
    """Wait until the journal has a signal.

    Raises:
        Undecided: it has not in time.
        TooLate: the saga came to something else before.
    """
    gives_up = time.monotonic() + timeout
    while await antiphon.prospect_of_signal(key, name, event, timeout) != "taken":
        if time.monotonic() > gives_up:
            raise Undecided(f"saga {key}", "signal", timeout)
        await asyncio.sleep(LOOK_SECONDS)


@contextmanager
def only_for(whom: str, otherwise: str = "") -> Generator[None]:
    """Say of a right that is missing in the block whose it is. A user of another role is not to be given it.

    Args:
        whom: the role.
        otherwise: what others can do in its place, as a sentence.
    """
    try:
        yield
    except RightsMissing as error:
        if not error.refused:
            raise
        remedy = f"That is for {whom} alone: set NATS_USER and NATS_PASSWORD to theirs."
        anew = "Where such a user lacks it, have the accounts made anew (deploy/README.md, What each role needs)."
        sentence = " ".join(filter(None, (f"{error.refused}.", remedy, otherwise, anew)))
        raise RightsMissing(sentence, error.refused) from None


@asynccontextmanager
async def reader(server: str) -> AsyncGenerator[Link]:
    """A link to read with; what goes wrong in its block is said with what a person can do about it."""
    link = await Link.connect(server, name="operator", patient=False)
    try:
        with only_for("operators"):
            try:
                await find_pairs(link)
                yield link
            except Ambiguous as error:
                raise _unread(link, error) from None
    finally:
        await link.close()


def _unread(link: Link, error: Ambiguous) -> PlatformError:
    if link.failure.done():
        return link.failure.result()
    if isinstance(error, NobodyReads):
        return streams_missing(link.may_be_clustered)
    return PlatformError(f"the server gave no answer ({error}). Try again, or look at its log.")


async def find(link: Link, id: str) -> SagaKey:
    """The saga a person means by `id` or `type/id`."""
    if "/" in id:
        return _key(id)
    check_token(id, "saga id")
    starts = [message.subject async for message in link.scan(EVENTS, subjects.starts_filter(saga_id=id))]
    keys = [key for subject in starts if (key := _started_at(subject)) is not None]
    if not keys:  # of one that was purged the end is left
        keys = [
            subjects.parse_entry(end.subject).saga async for end in link.scan(SAGA, subjects.ends_filter(saga_id=id))
        ]
    match keys:
        case []:
            raise UnknownSaga("", id)
        case [key]:
            return key
        case _:
            raise CannotLoad(f"several sagas have the id {id}: {', '.join(map(str, keys))}. Give the type as well.")


def _started_at(subject: str) -> SagaKey | None:
    """The saga of a start; none if the start is forged, which anybody may store and must not stop a person here."""
    with suppress(Unusable):
        return subjects.parse_fact(subject).saga
    return None


def _definition(path: str) -> AnySaga:
    return load_saga(path)


def _key(text: str) -> SagaKey:
    saga_type, _, id = text.partition("/")
    return SagaKey.of(saga_type, id)


def _started(handle: Handle, outcome: Outcome | None, link: str) -> dict[str, object]:
    said = {"outcome": outcome.outcome, "reason": outcome.reason} if outcome else {}
    before: dict[str, object] = {"was_started": True} if handle.was_started else {}
    if handle.version:
        before["version"] = handle.version
    return {"type": handle.key.type, "id": handle.key.id, **before, **said, **({"trace": link} if link else {})}


def with_link(told: msgspec.Struct, saga: str) -> dict[str, object]:
    """What is told of a saga, given as type/id, with the link to its trace where Jaeger's address is known."""
    link = checked_link(_key(saga)) if saga else ""
    fields: dict[str, object] = msgspec.structs.asdict(told)
    return {**fields, "trace": link} if link else fields
