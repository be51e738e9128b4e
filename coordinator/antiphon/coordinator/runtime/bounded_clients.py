"""What clients with a bound store, copied into EVENTS.

Such a client writes nothing into EVENTS. Its starts go to a stream of its own, which takes as many as sagas may be open
and refuses the next one. Any coordinator copies a start to the subject at which every other client stores it, so that
whoever comes first there wins. While EVENTS is nearly full nothing is copied: what is left there is for the answers of
sagas that have begun. Between two looks at that no more is copied than there was room for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from antiphon.contracts import subjects
from antiphon.contracts.errors import Forged, RightsMissing
from antiphon.contracts.identity import CLIENT
from antiphon.contracts.stored import AlreadyStored, Outcome
from antiphon.contracts.topology import BOUNDED, BOUNDED_STARTS, parse_bounded_stream
from antiphon.link import Delivery, Link, Pull
from antiphon.link.setup import bounded_streams

from .admission import Admission
from .answers import KEPT
from .bounded_places import Places, attempted

LOOK_SECONDS: Final = 2.0
"""How soon a client with a new bound is served."""
FREE_SECONDS: Final = 5.0
"""How often it is looked for places that nobody has freed."""
REFUSED_SECONDS: Final = 15.0
"""After how long it is tried again what this user may not do."""
HELD_MAX: Final = 50
"""Messages of one client and saga type that a coordinator copies at once."""
HAND_BACK_SECONDS: Final = 1.0
CLOSED_SECONDS: Final = 5.0
"""How long a message waits before it is tried again while EVENTS is nearly full, or fills too fast."""
OVERHEAD_BYTES: Final = 64
"""What a stream needs for a message beside its subject and its bytes, and a little more."""
USED: Final = (f"$JS.ACK.{{}}.{BOUNDED}.>", "$JS.API.DIRECT.GET.{}", "$JS.API.STREAM.MSG.DELETE.{}")
"""What is used of such a stream beside the pull. A bound may be set for a client that the accounts do not know: a name
that was mistyped, or accounts that were not made anew. Nobody else may have to wait for that."""
NAMES: Final = "$JS.API.STREAM.NAMES"
REMEDY: Final = (
    "make the accounts anew (antiphon rights --bound), and have the server reload them; or where a name is mistyped, "
    "antiphon setup --forget-bound"
)

log = structlog.get_logger()


class BoundedClients:
    """The pulls of one coordinator from the streams of clients with a bound.

    Args:
        link: a connection with a coordinator's rights.
        admission: says while nothing may begin.
    """

    def __init__(self, link: Link, admission: Admission) -> None:
        self._link, self._admission, self.places = link, admission, Places(link)
        self.pulls: dict[str, Pull] = {}
        """By the stream."""
        self._heard: set[str] = set()
        """The saga types whose ends are told."""
        self._refused: dict[str, float] = {}
        """When the server last refused something to this user."""
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Pull from the streams that are there, and keep looking for others until the link is closed."""
        self._link.on_refused[NAMES] = partial(self._refuse, NAMES)
        self._tasks = [asyncio.ensure_future(self._keep(self.look, LOOK_SECONDS))]
        self._tasks.append(asyncio.ensure_future(self._keep(self.free_ended, FREE_SECONDS)))
        self._link.on_close.append(self.stop_looking)

    def stop_looking(self) -> None:
        """Leave it at the streams that are known, and free no more places."""
        for task in self._tasks:
            task.cancel()
        self.places.stop()

    async def _keep(self, work: Callable[[], Awaitable[None]], every_seconds: float) -> None:
        """Do something again and again, apart from everything else: neither may wait for what the other waits for."""
        while not self._link.failure.done():
            await attempted(work())
            await asyncio.sleep(every_seconds)

    async def free_ended(self) -> None:
        """Free the places of all sagas that have ended.

        Raises:
            Ambiguous: the server did not say which sagas have ended.
        """
        await self.places.free_ended([stream for stream in self.pulls if _is_of_starts(stream)])

    # --- whose messages are pulled ------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Pull from the streams that have come, and from those no more that have gone.

        Raises:
            Ambiguous: the server gave no answer.
        """
        if self._is_refused(NAMES):
            return
        there = await bounded_streams(self._link)
        for gone in [each for each, pull in self.pulls.items() if each not in there and pull.refused]:
            await self.pulls.pop(gone).leave()
        for stream in there:
            if stream not in self.pulls and not self._is_refused(stream):
                await self._pull(stream)

    async def _pull(self, stream: str) -> None:
        pull = Pull(self._link, stream, BOUNDED, HELD_MAX, self.take, **KEPT)
        for subject in (pull.request_subject, *(each.format(stream) for each in USED)):
            self._link.on_refused[subject] = partial(self._refuse, stream)
        _, _, saga_type = parse_bounded_stream(stream) or ("", "", "")
        for subject in _copied_to(saga_type):
            self._link.on_refused[subject] = partial(self._refuse_type, saga_type)
        self.pulls[stream] = pull
        if _is_of_starts(stream):
            await self._hear_ends(stream)
        await pull.start()
        if stream not in self._refused:
            log.info("client.bounded", stream=stream)

    async def _hear_ends(self, stream: str) -> None:
        """Hear of the ends of a type's sagas, so that places are freed at once and not by looking alone."""
        _, _, saga_type = parse_bounded_stream(stream) or ("", "", "")
        ends = subjects.ends_filter(saga_type)
        if ends not in self._heard:
            self._heard.add(ends)
            self._link.on_refused[ends] = partial(self._refuse, ends)
            await self._link.subscribe(ends, self.places.on_end)

    def _is_refused(self, what: str) -> bool:
        now = asyncio.get_running_loop().time()
        return now - self._refused.get(what, -REFUSED_SECONDS) < REFUSED_SECONDS

    def _refuse(self, what: str, error: RightsMissing) -> None:
        """Ask no more for a while: the accounts may be made anew."""
        if what not in self._refused:
            log.warning("client.refused", what=what, reason=str(error), remedy=REMEDY)
        self._refused[what] = asyncio.get_running_loop().time()
        if (pull := self.pulls.pop(what, None)) is not None:
            pull.stop()
            self._link.drop_pull(pull)
        self.places.leave(what)

    def _refuse_type(self, saga_type: str, error: RightsMissing) -> None:
        """What is copied may be stored no more, as where the accounts were made anew without a bound of that type."""
        for stream in list(self.pulls):
            if (parse_bounded_stream(stream) or ("", "", ""))[2] == saga_type:
                self._refuse(stream, error)

    # --- what is copied -----------------------------------------------------------------------------------------------

    def take(self, delivery: Delivery) -> None:
        """Copy a message into EVENTS, to the subject at which clients without a bound store it."""
        if self._refused.pop(delivery.stream, None) is not None:  # the accounts were made anew
            log.info("client.bounded", stream=delivery.stream)
        try:
            said = subjects.parse_bounded(delivery.subject)
        except Forged as error:
            log.warning("client.forged", stream=delivery.stream, subject=delivery.subject, reason=error.reason)
            delivery.end(error.reason)
            if _is_of_starts(delivery.stream):  # from the other stream the end removes it
                self.places.free_soon(delivery.stream, delivery.sequence)
            return
        if self._admission.closed or self._admission.allowance <= 0:
            delivery.hand_back(CLOSED_SECONDS)
        else:
            self._admission.allowance -= len(delivery.data) + len(said.stored_at) + OVERHEAD_BYTES
            self._link.publish(said.stored_at, delivery.data, "", partial(self._copied, delivery, said))

    def _copied(self, delivery: Delivery, said: subjects.BoundedAddress, outcome: Outcome) -> None:
        if not isinstance(outcome, int | AlreadyStored):
            log.info("client.handed_back", subject=delivery.subject, why=str(outcome))
            delivery.hand_back(HAND_BACK_SECONDS)
            return
        if said.is_start:
            self.places.take(said.saga, delivery.stream, delivery.sequence)
        delivery.ack()
        if said.is_start and isinstance(outcome, AlreadyStored):
            self.places.look_soon(said.saga)


def _copied_to(saga_type: str) -> tuple[str, ...]:
    """The subjects to which is copied what clients with a bound store about sagas of a type."""
    starts = subjects.starts_filter(saga_type, source=CLIENT)
    return starts, subjects.cancels_filter(saga_type), subjects.signals_filter(saga_type)


def _is_of_starts(stream: str) -> bool:
    return stream.startswith(f"{BOUNDED_STARTS}=")
