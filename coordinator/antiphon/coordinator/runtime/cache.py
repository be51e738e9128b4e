"""Histories kept between facts. Losing any of it at any time costs a read and nothing else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog
from msgspec.structs import replace

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.pairs import ONE_PAIR, Pairs

from ..decision.entries import Draft
from ..decision.history import History

log = structlog.get_logger()

SAGAS_MAX: Final = 10_000
"""How many histories are kept, about 2 kB each; a saga that fell out costs two direct reads."""


CLOSED_MAX: Final = 500
"""How many histories are kept that further facts of the same kind cannot change."""


class Case:
    """A history with the entry that is on its way to the stream, and the handlers that wait for it."""

    __slots__ = ("has_more", "history", "pending", "waiting")

    def __init__(self) -> None:
        self.history: History
        self.pending: Draft | None = None
        self.has_more = False
        self.waiting: list[Callable[[], None]] = []

    @property
    def is_settled(self) -> bool:
        """Whether it is known where the last entry is stored."""
        return self.pending is None


class Cache:
    """The cases of one coordinator, the oldest first out.

    Args:
        pairs: the pairs of streams that journals are spread over.
    """

    def __init__(self, pairs: Pairs = ONE_PAIR) -> None:
        self._cases: OrderedDict[SagaKey, Case] = OrderedDict()
        self._readers: dict[SagaKey, list[Callable[[], None]]] = {}
        """For each saga that is being read, the handlers that wait for that read."""
        self._pair_of = pairs.pair_of if pairs.count > 1 else None
        self._highest = [0] * pairs.count
        """The highest sequence seen, of each pair."""
        self._closed: OrderedDict[SagaKey, History] = OrderedDict()

    def closed(self, key: SagaKey) -> History | None:
        """A history kept by `keep_closed`."""
        return self._closed.get(key)

    def keep_closed(self, key: SagaKey, history: History) -> None:
        """Keep a history that may be old without harm: the saga has ended, or is a choreography that records no more of
        what somebody says. So a flood of facts that come too late costs one read."""
        self._closed[key] = history
        self._closed.move_to_end(key)
        if len(self._closed) > CLOSED_MAX:
            self._closed.popitem(last=False)

    def drop(self, key: SagaKey) -> None:
        """Keep nothing of a saga."""
        self.forget(key)
        self._closed.pop(key, None)

    def get(self, key: SagaKey) -> Case | None:
        """The case of a saga, if it is kept."""
        return self._cases.get(key)

    def keep(self, key: SagaKey, history: History) -> None:
        """Keep a history that was read, for other facts of the same saga."""
        if key not in self._cases:
            self._add(key).history = history

    def _add(self, key: SagaKey) -> Case:
        case = self._cases[key] = Case()
        if len(self._cases) > SAGAS_MAX:
            self.forget(next(iter(self._cases)))
        return case

    def expect(self, key: SagaKey, history: History, entry: Draft, has_more: bool) -> None:
        """Keep the history that will hold once an entry is stored. With `has_more` further entries follow it."""
        case = self._cases.get(key) or self._add(key)
        case.history, case.pending, case.has_more = history, entry, has_more

    def stored(self, key: SagaKey, entry: Draft, sequence: int) -> None:
        """Take down where an entry is stored, and call the handlers that waited for that."""
        pair = 0 if self._pair_of is None else self._pair_of(key)
        if sequence <= self._highest[pair]:
            log.warning("stream.went_backwards", stored_at=sequence, highest_seen=self._highest[pair])
            self._highest[pair] = sequence
            self._closed.clear()
            for other in list(self._cases):
                self.forget(other)
            return
        self._highest[pair] = sequence
        case = self._cases.get(key)
        if case is None:
            return
        if case.pending is entry:
            case.history, case.pending = replace(case.history, sequence=sequence), None
        elif not case.is_settled:
            return  # the saga was dropped and read meanwhile, and another entry is on its way
        if case.history.end is not None:
            self.forget(key)
        elif case.waiting and not case.has_more:
            self._wake(case)

    def forget(self, key: SagaKey) -> None:
        """Drop a saga; the handlers that waited for it read the journal."""
        case = self._cases.pop(key, None)
        if case is not None:
            self._wake(case)

    def is_read(self, key: SagaKey, then: Callable[[], None]) -> bool:
        """Whether another handler is reading a saga; then `then` is called after that read. If none is, the caller must
        read it, and call `was_read` afterwards."""
        waiting = self._readers.get(key)
        if waiting is None:
            self._readers[key] = []
            return False
        waiting.append(then)
        return True

    def was_read(self, key: SagaKey) -> None:
        """Call the handlers that waited for a read."""
        for go_on in self._readers.pop(key, []):
            go_on()

    def _wake(self, case: Case) -> None:
        waiting, case.waiting = case.waiting, []
        for go_on in waiting:
            go_on()
