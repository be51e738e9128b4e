"""A lock: which saga holds a key, and who waits for it, in the order they asked. Pure.

A lock has a journal of its own, with its own guard. Each entry holds the whole state and takes the place of the one
before it in reads, so a key may be used for ever.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from antiphon.contracts.bounds import Sequence

QUEUE_MAX: Final = 1000
"""How many may wait for one key: with names of the greatest length the state still fits into one message."""

GONE_MAX: Final = 200
"""How many of those freed last are remembered, so that a question that comes late is not taken for a new one."""


class Waiter(msgspec.Struct, frozen=True, array_like=True):
    """A saga (`type/id`) that asked, and where EVENTS holds its question."""

    saga: str
    asked: Sequence


class Lock(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who holds the key, who waits for it, and who was freed lately."""

    holder: str = ""
    queue: tuple[Waiter, ...] = ()
    gone: tuple[str, ...] = ()

    @property
    def sagas(self) -> list[str]:
        """Everybody who has asked and was not freed."""
        return [self.holder] * bool(self.holder) + [each.saga for each in self.queue]


def ask(lock: Lock, saga: str, asked: int) -> Lock:
    """The lock once a saga has asked for it; asking again changes nothing."""
    if saga in lock.gone or saga in lock.sagas:
        return lock
    queue = tuple(sorted((*lock.queue, Waiter(saga, asked)), key=lambda each: each.asked))
    return _granted(replace(lock, queue=queue))


def free(lock: Lock, saga: str) -> Lock:
    """The lock once a saga has ended, whether it held it, waited for it, or had not asked yet."""
    if saga in lock.gone and saga not in lock.sagas:
        return lock
    queue = tuple(each for each in lock.queue if each.saga != saga)
    holder = "" if lock.holder == saga else lock.holder
    return _granted(Lock(holder, queue, (*lock.gone, saga)[-GONE_MAX:]))


def _granted(lock: Lock) -> Lock:
    """Let the first one in, if nobody is."""
    if lock.holder or not lock.queue:
        return lock
    return replace(lock, holder=lock.queue[0].saga, queue=lock.queue[1:])
