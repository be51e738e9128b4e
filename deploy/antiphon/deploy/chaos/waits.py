"""What a saga that has not ended waits for, where that is another saga: a lock that one holds, or its parent. Pure.

The other one is judged by itself, so whoever waits for it is no news.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import COORDINATOR, LOCK, SagaKey
from antiphon.contracts.payloads import ChildStart

from .evidence import Evidence, SagaEvidence


class Waits:
    """Who waits for whom.

    Args:
        evidence: of the run.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._sagas = evidence.sagas

    def for_another(self, saga: SagaEvidence) -> SagaKey | None:
        """The saga under way that another one waits for; None if it waits for none."""
        if parent := _parent_that_holds(saga):
            return parent if self._is_open(parent) else None
        lacking = _lacking(saga)
        return next((key for key in self._holders[lacking] if key != saga.key), None) if lacking else None

    @cached_property
    def _holders(self) -> dict[str, list[SagaKey]]:
        """The sagas under way that hold a lock, by the lock."""
        found = defaultdict[str, list[SagaKey]](list)
        for key, saga in self._sagas.items():
            if saga.end is None:
                for lock in _granted(saga):
                    found[lock].append(key)
        return found

    def _is_open(self, key: SagaKey) -> bool:
        saga = self._sagas.get(key)
        return saga is not None and saga.end is None


def _lacking(saga: SagaEvidence) -> str:
    """The lock that a saga has asked for and does not have; empty if there is none."""
    granted = {*_granted(saga)}
    records = (entry.record for entry in saga.read.entries if entry.record is not None)
    return next((lock for record in records for lock in record.asks if lock not in granted), "")


def _granted(saga: SagaEvidence) -> Iterator[str]:
    for fact in saga.read.facts:
        if (fact.address.source, fact.address.event) == (COORDINATOR, "granted") and fact.address.key[0] == LOCK:
            yield fact.address.key[1]


def _parent_that_holds(saga: SagaEvidence) -> SagaKey | None:
    """The parent of a child that has done all its steps, and must not end before the parent lets it."""
    if not any(entry.record is not None and entry.record.held for entry in saga.read.entries):
        return None
    start = next((fact for fact in saga.read.facts if fact.kind == "start"), None)
    try:
        parent = unpack_raw(start.envelope.data, ChildStart).parent if start is not None else None
    except Unusable:
        return None  # I6 says so
    return SagaKey.of(parent.type, parent.id) if parent is not None else None
