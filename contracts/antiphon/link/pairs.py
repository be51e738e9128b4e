"""Over how many pairs of streams the sagas of a platform are spread, found out once by each process.

ANTIPHON_STREAMS says it, as the number that `antiphon setup --streams` was given. Without it a platform is taken to
have one pair, and where that has no stream, the server is asked which streams there are; with accounts only
coordinators and administrators may ask that. A wrong number harms nothing: no stream has the names that it stands for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeVar

import structlog

from antiphon.contracts.bounds import SEQUENCE_MAX
from antiphon.contracts.errors import Ambiguous, AntiphonError, DefinitionError, PlatformError
from antiphon.contracts.pairs import PAIRS_MAX, Pairs, count_in
from antiphon.contracts.stored import NobodyReads
from antiphon.contracts.subjects import EVENTS_FILTER, SAGA_FILTER
from antiphon.contracts.topology import SAGA

from .connection import Link
from .setup import info_of

VARIABLE: Final = "ANTIPHON_STREAMS"
NAMES: Final = "$JS.API.STREAM.NAMES"
ASK_SECONDS: Final = 2.0
"""How long a server may take to say which streams there are. One that refuses to says so at once."""

OF_PAIRS: Final = (SAGA_FILTER, EVENTS_FILTER)
"""What the streams of pairs hold."""

T = TypeVar("T")

log = structlog.get_logger()


def pairs_told() -> Pairs | None:
    """The pairs that ANTIPHON_STREAMS says; None where it is not set.

    Raises:
        PlatformError: it is no number of pairs.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        return Pairs(int(text))
    except (ValueError, DefinitionError):
        raise PlatformError(
            f"{VARIABLE} is {text[:40]!r}, which is no number of pairs of streams. Set it to what `antiphon setup "
            f"--streams` was given, from 1 to {PAIRS_MAX}, or leave it out where there is one pair."
        ) from None


async def find_pairs(link: Link, is_there: Callable[[], Awaitable[bool | None]] | None = None) -> Pairs:
    """Have a connection know its platform's pairs of streams.

    Args:
        link: the connection.
        is_there: whether this process has what it needs of a platform with one pair, None where it may not ask for
            that; a direct read of SAGA when left out.

    Returns:
        The pairs; one, where nobody can tell: then whoever needs a stream finds that it is not there.

    Raises:
        PlatformError: ANTIPHON_STREAMS is no number of pairs, or the streams there are belong to several platforms.
    """
    if link.pairs.count > 1:
        return link.pairs  # somebody has said it
    told = pairs_told()
    if told is None and not (there := await (is_there() if is_there is not None else _answers(link))):
        count = await count_pairs(link)
        if count is None and there is False:  # who may not ask gets a sentence of its own, which has the remedy, too
            remedy = (
                "this user may not ask the server over how many pairs of streams sagas are spread, so one is taken: "
                f"where there are several, set {VARIABLE} to their number (antiphon setup says it)"
            )
            log.warning("pairs.unknown", remedy=remedy)
        told = Pairs(count or 1)
    if told is not None:
        link.spread_over(told)
    return link.pairs


async def _answers(link: Link) -> bool | None:
    """Whether a stream SAGA answers, or may only have no leader for now; None where this user may not read it."""
    # No message is at that sequence, which is the smallest answer.
    found = await _asked(link, f"$JS.API.DIRECT.GET.{SAGA}", link.get_all_at(SAGA, [SEQUENCE_MAX]))
    return None if found is None else not isinstance(found, NobodyReads)


async def is_served(link: Link, stream: str, consumer: str) -> bool | None:
    """Whether there is a consumer, asked by a request that it refuses, so that it delivers nothing; None where this
    user may not pull from it."""
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
    found = await _asked(link, subject, link.request(subject, b"{", ASK_SECONDS))
    return None if found is None else isinstance(found, bytes)


async def count_pairs(link: Link) -> int | None:
    """How many pairs there are by the names of the streams; 0 where there are no streams yet, None where the server
    does not tell.

    Raises:
        PlatformError: the streams belong to several platforms.
    """
    names = list[str]()
    for subject_filter in OF_PAIRS:
        found = await _asked(link, NAMES, info_of(link, "STREAM.NAMES", {"subject": subject_filter}))
        if found is None or isinstance(found, AntiphonError):
            return None
        names += found.get("streams") or ()
    return count_in(names)


async def _asked(link: Link, subject: str, question: Coroutine[None, None, T]) -> T | AntiphonError | None:
    """What comes of a question; None where this user may not ask it."""
    refused, before = asyncio.Event(), link.on_refused.get(subject)
    link.on_refused[subject] = lambda error: refused.set()
    asking, waiting = asyncio.ensure_future(question), asyncio.ensure_future(refused.wait())
    try:
        await asyncio.wait((asking, waiting), timeout=ASK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            return None if refused.is_set() else Ambiguous(f"no answer on {subject} within {ASK_SECONDS:g} s")
        error = asking.exception()
        return error if isinstance(error, AntiphonError) else asking.result()
    finally:
        waiting.cancel()
        asking.cancel()
        if before is None:
            del link.on_refused[subject]
        else:
            link.on_refused[subject] = before
