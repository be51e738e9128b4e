"""What a client does where a start or a signal is there already: it asks the coordinators whether that is the same."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.errors import Ambiguous, PlatformError, Undecodable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import ResentAnswer
from antiphon.link import Link

from ..decision.sameness import resent
from .store_once import raise_if_failed

ASK_SECONDS: Final = 10.0
"""How long coordinators are asked: longer than one takes to be started in the place of one that died."""
ANSWER_SECONDS: Final = 2.5
"""How long each question waits for its answer; whoever is not sure answers after a second."""
PAUSE_SECONDS: Final = 0.25


async def ask_whether_same(
    link: Link, key: SagaKey, event: Event, signal: str = "", *, timeout_seconds: float = ASK_SECONDS
) -> ResentAnswer:
    """Whether the start that is stored, or the signal, is this event.

    Args:
        link: a client's connection.
        key: the saga's.
        event: what was to be stored.
        signal: the step that waits for it; empty for a start.
        timeout_seconds: for how long coordinators are asked at most.

    Raises:
        PlatformError: no coordinator can tell now; nothing is known of what is stored.
    """
    subject, question = subjects.same_subject(key, signal), msgspec.json.encode(resent(event))
    loop = asyncio.get_running_loop()
    gives_up = loop.time() + min(timeout_seconds, ASK_SECONDS)
    while loop.time() < gives_up:
        try:
            return unpack_raw(await link.request(subject, question, ANSWER_SECONDS), ResentAnswer)
        except (Ambiguous, Undecodable):  # a later release may say what this one does not know
            raise_if_failed(link)
            await asyncio.sleep(PAUSE_SECONDS)
    what = f"the signal {signal} of saga {key}" if signal else f"the start of saga {key}"
    raise PlatformError(
        f"{what} is stored already, and whether it is the same cannot be told now: no coordinator answers that has "
        "sagas of this type. Nothing was changed. Try again, once one runs: antiphon coordinator --app module:saga."
    )
