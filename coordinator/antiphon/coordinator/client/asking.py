"""What a client asks the coordinators before it stores a signal or a wish to cancel, and where one is there already."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.errors import (
    AlreadySignalled,
    AlreadyStarted,
    Ambiguous,
    PlatformError,
    TooLate,
    Undecodable,
    UnknownSaga,
)
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Event
from antiphon.contracts.payloads import CANCEL_TYPE, NO_PAYLOAD, Prospect, Resent, ResentAnswer
from antiphon.link import Link

from ..decision.sameness import resent
from .store_once import raise_if_failed

ASK_SECONDS: Final = 10.0
"""How long coordinators are asked: longer than one takes to be started in the place of one that died."""
ANSWER_SECONDS: Final = 2.5
"""How long each question waits for its answer; whoever is not sure answers after a second."""
PAUSE_SECONDS: Final = 0.25
QUESTIONS_MAX: Final = 16
"""Questions of one client under way at once. A coordinator looks at no more than 32."""

EARLY: Final = "A signal for a saga that is started later is sent with wait_for_start=True, or --wait-for-start."
UNANSWERED: Final = (
    "no coordinator answers that has sagas of this type. Try again, once one runs: antiphon coordinator --app "
    "module:saga."
)


class Asking:
    """The questions of one client.

    Args:
        link: its connection.
    """

    def __init__(self, link: Link) -> None:
        self._link, self._places = link, asyncio.Semaphore(QUESTIONS_MAX)

    async def whether_same(
        self, key: SagaKey, event: Event, signal: str = "", *, timeout_seconds: float, is_unsure: bool
    ) -> ResentAnswer:
        """Whether the start that is stored, or the signal, is this event, and with which version a saga runs.

        Args:
            key: the saga's.
            event: what was to be stored.
            signal: the step that waits for it; empty for a start.
            timeout_seconds: for how long coordinators are asked at most.
            is_unsure: whether the caller itself may have stored it. The coordinators may then be moving to another
                server, as the caller was, so that it is worth waiting for them.

        Raises:
            PlatformError: no coordinator can tell now; nothing is known of what is stored.
        """
        question = resent(event, prospect=not signal)
        subject = subjects.same_subject(key, signal)
        told = await self._ask(subject, question, timeout_seconds, is_stored=True, is_patient=is_unsure)
        if told is None:
            what = f"the signal {signal} of saga {key}" if signal else f"the start of saga {key}"
            raise PlatformError(
                f"{what} is stored already{', perhaps by this very call' if is_unsure else ''}, and whether it is the "
                f"same cannot be told now{'' if is_unsure else ', and nothing was changed'}: {UNANSWERED}"
            )
        return told

    async def of_start(self, key: SagaKey, event: Event, timeout_seconds: float) -> ResentAnswer:
        """Whether a saga is started, with this event, and with which version it runs or would begin.

        Raises:
            AlreadyStarted: it was started with another payload.
            PlatformError: no coordinator can tell now.
        """
        told = await self._ask(subjects.same_subject(key), resent(event, prospect=True), timeout_seconds)
        if told is None or not told.prospect:
            raise PlatformError(
                f"with which version saga {key} runs, or would begin, cannot be told now, and nothing was changed: "
                f"{UNANSWERED}"
            )
        if told.verdict in ("other", "unread"):
            raise AlreadyStarted(key.type, key.id, told.reason)
        return told

    async def of_signal(
        self, key: SagaKey, signal: str, event: Event, timeout_seconds: float, *, is_started: bool, waits: bool
    ) -> ResentAnswer | None:
        """What may come of a signal; None where no coordinator says so, and the saga is started, or may be later.

        Args:
            key: the saga's.
            signal: the step that waits for it.
            event: the signal.
            timeout_seconds: for how long coordinators are asked at most.
            is_started: whether the saga is known to be started.
            waits: whether the signal may come before the start.

        Raises:
            AlreadySignalled: the saga was told something else before.
            UnknownSaga: it is not started, and the signal was not to wait for that.
            TooLate: nothing can come of it any more.
            PlatformError: no coordinator can tell now.
        """
        subject, question = subjects.same_subject(key, signal), resent(event, prospect=True)
        told = await self._ask(subject, question, timeout_seconds, asks_once=is_started or waits)
        if told is not None and told.verdict in ("other", "unread"):
            raise AlreadySignalled(key.type, key.id, signal, told.reason)
        if told is not None and told.verdict == "same" and not told.prospect:  # by a coordinator of an earlier release
            return told
        return _checked(told, key, f"the signal {signal}", is_started, waits)

    async def of_cancel(self, key: SagaKey, timeout_seconds: float, *, is_started: bool) -> ResentAnswer | None:
        """What may come of a wish to cancel, as of a signal; one that was stored before counts as taken."""
        subject, question = subjects.same_cancel_subject(key), Resent(type=CANCEL_TYPE, data=NO_PAYLOAD, prospect=True)
        told = await self._ask(subject, question, timeout_seconds, asks_once=is_started)
        if told is not None and told.verdict == "same" and told.prospect != "unstarted":
            return msgspec.structs.replace(told, prospect="taken")
        return _checked(told, key, "the wish to cancel", is_started, waits=False, early="")

    async def _ask(
        self,
        subject: str,
        question: Resent,
        timeout_seconds: float,
        *,
        asks_once: bool = False,
        is_stored: bool = False,
        is_patient: bool = False,
    ) -> ResentAnswer | None:
        """Ask until a coordinator answers; None if none does.

        Args:
            subject: where it is asked.
            question: what is asked.
            timeout_seconds: for how long.
            asks_once: whether silence is answer enough.
            is_stored: whether something is known to be stored: a coordinator that finds nothing reads from a replica
                that lags.
            is_patient: whether they are asked for all of that time, however long it is.
        """
        data, loop = msgspec.json.encode(question), asyncio.get_running_loop()
        gives_up = loop.time() + (timeout_seconds if is_patient else min(timeout_seconds, ASK_SECONDS))
        while (left := gives_up - loop.time()) > 0:
            told = await self._ask_once(subject, data, min(left, ANSWER_SECONDS))
            is_busy = told is not None and told.verdict == "busy"
            if told is not None and not is_busy and not (is_stored and told.verdict == "none"):
                return told
            if asks_once and not is_busy:
                return None
            await asyncio.sleep(min(PAUSE_SECONDS, left))
        return None

    async def _ask_once(self, subject: str, data: bytes, seconds: float) -> ResentAnswer | None:
        try:
            async with self._places:
                answer = await self._link.request(subject, data, seconds)
        except Ambiguous:
            raise_if_failed(self._link)
            await self._link.leaving.unwell()
            return None
        self._link.leaving.well()
        try:
            return unpack_raw(answer, ResentAnswer)
        except Undecodable:  # a later release may say what this one does not know
            return None


def _checked(
    told: ResentAnswer | None, key: SagaKey, what: str, is_started: bool, waits: bool, early: str = EARLY
) -> ResentAnswer | None:
    prospect: Prospect = told.prospect if told is not None else ""
    match prospect:
        case "unstarted" if not waits:
            raise UnknownSaga(key.type, key.id, early)
        case "passed":
            raise TooLate(key.type, key.id, what, told.why if told else "")
        case "" if not (waits or is_started):
            raise PlatformError(
                f"what would come of {what} for saga {key} cannot be told now, and nothing was changed: {UNANSWERED}"
            )
        case _:
            return told
