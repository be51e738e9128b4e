"""One ended saga forgotten at once, because an operator says so: all that was said in it, and not that it was.

The request is a message of EVENTS and is purged with the others, last of all. Until then it comes again, whoever died
in between, and each step done twice is done once.

1. The end is written anew under the journal's guard: who had it forgotten, when and why, in the place of the reason.
2. All else that SAGA holds of the saga is deleted.
3. PARKED loses the saga, and each message that was one of its own.
4. EVENTS loses the saga, the request at the very end.

The bytes of the messages are overwritten in the server's files.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import structlog
from msgspec.structs import replace

from antiphon.contracts import clock, headers, subjects
from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import Ambiguous, Conflict, Unusable
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.payloads import END_TYPE, End, Operation, parked_kind, read_parked, verb_type
from antiphon.contracts.stored import Delivered, StoredMessage
from antiphon.contracts.subjects import FORGET, FactAddress
from antiphon.contracts.topology import EVENTS, PARKED, SAGA
from antiphon.link import Link
from antiphon.link.killpoints import reached
from antiphon.link.purging import delete, erase

from .journals import Journals
from .parking import HAND_BACK_SECONDS, Parking

log = structlog.get_logger()

PAGE: Final = 500


class Forgetting:
    """The requests to forget a saga that one coordinator serves.

    Args:
        link: a connection that may read, write and purge the streams.
        journals: whose cache forgets the saga, too.
        parking: takes what is no request.
    """

    def __init__(self, link: Link, journals: Journals, parking: Parking) -> None:
        self._link, self._journals, self._parking = link, journals, parking
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, address: FactAddress, delivery: Delivered) -> None:
        """Serve a request."""
        task = asyncio.get_running_loop().create_task(self._serve(address, delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, address: FactAddress, delivery: Delivered) -> None:
        try:
            envelope = decode(delivery.data, delivery.subject)
            asked = unpack(envelope, verb_type(FORGET), Operation)
            await self._forget(address.saga, address.key[0], asked.reason, delivery)
        except Unusable as error:
            self._parking.park(delivery, parked_kind(error), str(error))
        except (Ambiguous, Conflict) as error:
            log.info("saga.not_forgotten_yet", saga=str(address.saga), reason=str(error))
            delivery.hand_back(HAND_BACK_SECONDS)
        except Exception as error:
            self._parking.faulty(delivery, error)

    async def _forget(self, key: SagaKey, user: str, reason: str, delivery: Delivered) -> None:
        found = await self._link.read_all(SAGA, [subjects.end_subject(key)])
        if not found:
            self._parking.park(delivery, "unhandled", f"saga {key} has not ended, so that it cannot be forgotten yet")
            return
        self._journals.cache.drop(key)
        last = await self._end_forgotten(key, found[0], user, reason)
        reached("forget.end_replaced")
        await erase(self._link, SAGA, subjects.whole_saga_filter(key), but=last)
        reached("forget.journal_purged")
        await erase(self._link, PARKED, subjects.parked_saga_subject(key))
        async for sequence in self._parked_of(key):
            await delete(self._link, PARKED, sequence, erases=True)
        reached("forget.parked_purged")
        await erase(self._link, EVENTS, subjects.saga_events_filter(key), but=delivery.sequence)
        await delete(self._link, delivery.stream, delivery.sequence, erases=True)
        self._journals.cache.drop(key)
        delivery.ack()
        log.info("saga.forgotten", saga=str(key), by=user)

    async def _end_forgotten(self, key: SagaKey, stored: StoredMessage, user: str, reason: str) -> int:
        """The sequence of an end that says nothing of what happened; it is written if there is none yet."""
        envelope = decode(stored.data, stored.subject)
        end = unpack(envelope, END_TYPE, End)
        if end.forgotten:
            return stored.sequence
        now = self._journals.store.now()
        said = f"by {user} on {clock.rfc3339(clock.nanoseconds(now))[:10]}: {reason}"
        data = pack(replace(end, reason="", forgotten=said))
        anew = Envelope(id=stored.subject, source=COORDINATOR, type=END_TYPE, time=now, data=data, cause=envelope.cause)
        return await self._link.store(stored.subject, encode(anew), headers.guard_header(key, stored.sequence))

    async def _parked_of(self, key: SagaKey) -> AsyncIterator[int]:
        """Where PARKED holds messages that belong to a saga."""
        after = 0
        while page := await self._link.next_page(PARKED, subjects.PARKED_FILTER, after + 1, PAGE):
            after = page[-1].sequence
            for message in page:
                with suppress(Unusable):
                    if subjects.saga_in(read_parked(message.subject, message.data).subject) == key:
                        yield message.sequence
