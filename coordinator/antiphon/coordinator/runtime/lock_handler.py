"""A saga's request for a lock, or the end of a saga that had asked, on its way into the lock's journal.

The order is that of a saga's facts: read, decide, append under the lock's guard, tell the holder, then ack. A message
that is delivered again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
import structlog

from antiphon.contracts.envelope import Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.identity import COORDINATOR, SagaKey
from antiphon.contracts.payloads import LOCK_GRANTED_TYPE, LOCK_STATE_TYPE, Empty
from antiphon.contracts.stored import AlreadyStored, Delivered, Outcome, StoredMessage
from antiphon.contracts.subjects import FactAddress, granted_subject, state_subject
from antiphon.link.faults import say
from antiphon.link.killpoints import reached

from ..decision.locks import QUEUE_MAX, Lock, ask, free
from .parking import HAND_BACK_SECONDS
from .ports import Store

log = structlog.get_logger()

TRIES_MAX: Final = 10
"""Conflicts in a row before the message is handed back: many sagas may want one key at one moment."""

Faulty = Callable[[Delivered, BaseException], None]
"""Deals with a message whose handling raised."""


class LockHandler:
    """One message for a lock, or a look after it, and how far it has come."""

    __slots__ = ("_address", "_delivery", "_faulty", "_key", "_store", "_tries")

    def __init__(
        self,
        store: Store,
        key: SagaKey,
        delivery: Delivered | None = None,
        address: FactAddress | None = None,
        faulty: Faulty | None = None,
    ) -> None:
        self._store, self._key, self._delivery, self._address = store, key, delivery, address
        self._faulty = faulty
        self._tries = 0

    @classmethod
    def of(cls, store: Store, address: FactAddress, delivery: Delivered, faulty: Faulty) -> LockHandler:
        """For a message of EVENTS."""
        return cls(store, address.saga, delivery, address, faulty)

    @classmethod
    def look_after(cls, store: Store, key: SagaKey) -> LockHandler:
        """For a lock that a saga has waited for long: free those who have ended."""
        return cls(store, key)

    def begin(self) -> None:
        """Deal with the message under a guard of its own."""
        self._store.guard.call(self, self.run)

    def failed(self, error: BaseException) -> None:
        """Have the message come again, or be parked; what was only looked after is looked after again in any case."""
        if self._delivery is not None and self._faulty is not None:
            self._faulty(self._delivery, error)
        else:
            say("lock.faulty", error, lock=self._key.id)

    def run(self) -> None:
        """Read the lock."""
        self._store.last(state_subject(self._key), self._on_state)

    def _on_state(self, stored: StoredMessage | Ambiguous | None) -> None:
        if isinstance(stored, Ambiguous):
            self._hand_back(str(stored))
            return
        lock, guard = (_state(stored), stored.sequence) if stored else (Lock(), 0)
        asking = self._asking()
        suspects = {*lock.sagas} if self._address is None else {asking} - {""}
        self._store.ended([_key(saga) for saga in suspects], partial(self._on_ended, lock, guard, asking))

    def _on_ended(self, lock: Lock, guard: int, asking: str, ended: set[SagaKey] | Ambiguous) -> None:
        if isinstance(ended, Ambiguous):
            self._hand_back(str(ended))
            return
        after = lock
        for key in sorted(ended):
            after = free(after, str(key))
        if asking and _key(asking) not in ended:
            if len(lock.queue) >= QUEUE_MAX:
                self._hand_back(f"{QUEUE_MAX} sagas wait for it")
                return
            assert self._delivery is not None
            after = ask(after, asking, self._delivery.sequence)
        elif self._address is not None and self._address.event == "free":
            after = free(after, "/".join(self._address.key))
        if after == lock:
            self._tell(after)
        else:
            self._append(after, guard)

    def _append(self, lock: Lock, guard: int) -> None:
        subject = state_subject(self._key)
        data = self._message(subject, LOCK_STATE_TYPE, lock)

        def on_stored(outcome: Outcome) -> None:
            if isinstance(outcome, int):
                reached("coordinator.lock_appended")
                self._tell(lock)
            elif isinstance(outcome, Conflict) and self._tries < TRIES_MAX:
                self._tries += 1
                self.run()
            else:
                self._hand_back(str(outcome))

        self._store.append(self._key, subject, data, guard, False, on_stored)

    def _tell(self, lock: Lock) -> None:
        """Tell the holder, who may not have been told before a crash."""
        if not lock.holder:
            self._finish()
            return
        subject = granted_subject(_key(lock.holder), self._key)

        def on_told(outcome: Outcome) -> None:
            if isinstance(outcome, int | AlreadyStored):
                self._finish()
            else:
                self._hand_back(str(outcome))

        self._store.tell(subject, self._message(subject, LOCK_GRANTED_TYPE, Empty()), on_told)

    def _asking(self) -> str:
        """The saga that asks, if this is a question."""
        return "/".join(self._address.key) if self._address is not None and self._address.event == "ask" else ""

    def _message(self, subject: str, type_: str, payload: msgspec.Struct) -> bytes:
        time = self._store.now()
        return encode(Envelope(id=subject, source=COORDINATOR, type=type_, time=time, data=pack(payload)))

    def _finish(self) -> None:
        if self._delivery is not None:
            self._delivery.ack()

    def _hand_back(self, why: str) -> None:
        log.info("lock.handed_back", lock=self._key.id, why=why)
        if self._delivery is not None:
            self._delivery.hand_back(HAND_BACK_SECONDS)


def _key(saga: str) -> SagaKey:
    return SagaKey.of(*saga.split("/"))


def _state(stored: StoredMessage) -> Lock:
    return unpack(decode(stored.data, stored.subject), LOCK_STATE_TYPE, Lock)
