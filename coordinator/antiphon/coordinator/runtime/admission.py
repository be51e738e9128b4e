"""Which sagas of clients may begin: a bound of open sagas of a type, and none while EVENTS keeps its room for answers.

A bound is off unless it is set. Where it is, this coordinator knows the oldest open sagas of the type, as many as may
be open, by reading the starts in the order of EVENTS and asking which have ended. So a saga begins if fewer than that
many before it are open, whoever decides, and no state is kept that the streams do not hold.

Starts in several pairs of streams have no order among them. So each pair has its share of the bound, and counts its own
sagas: never more are open than may be, and a saga can be refused while other pairs have places left.

The server does not tell who stored a start (it strips the account from what a stream stores, nats-server 2.15.1), so
this bound is for all clients together; `bounded_clients.py` has the one for a single client.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from antiphon.contracts.counting import counted
from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.identity import CLIENT, SagaKey
from antiphon.contracts.pairs import Pairs, pair_in
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import saga_in, saga_source
from antiphon.link.guard import InHand

from ..definition.definition import Definition
from .ports import Store

LOOK_SECONDS: Final = 0.5
"""How old may be what is known of the ends of a type's sagas when one is refused."""
ENDS_PER_READ: Final = 500

Verdict = Callable[[str | None], None]
"""Called with why a saga may not begin, empty if it may; None where that could not be found out."""


def require_bounds(open_max: Mapping[str, int], definitions: Iterable[Definition]) -> None:
    """Check that each type with a bound can have one.

    Raises:
        PlatformError: it has no definition here, or is a choreography.
    """
    is_led = {definition.name: definition.is_led for definition in definitions}
    for saga_type in open_max:
        if saga_type not in is_led:
            raise PlatformError(
                f"a bound is given for sagas of type {saga_type!r}, and this coordinator has none; it has those of "
                f"type {', '.join(sorted(is_led))}."
            )
        if not is_led[saga_type]:
            raise PlatformError(
                f"sagas of type {saga_type!r} cannot be bound: nobody leads them, and their participants begin with "
                "the start itself. Bind sagas that a coordinator leads."
            )


def require_shares(pairs: Pairs, open_max: Mapping[str, int]) -> None:
    """Check that each pair of streams has a share of each bound.

    Raises:
        PlatformError: there are more pairs than sagas of a type that may be open.
    """
    for saga_type, most in open_max.items():
        if most < pairs.count:
            raise PlatformError(
                f"a bound of {most} is given for sagas of type {saga_type!r}, and they are spread over {pairs.count} "
                f"pairs of streams, of which each has an equal share of the bound. Give {pairs.count} or more."
            )


class Admission:
    """What one coordinator knows of the sagas that may begin.

    Args:
        store: the two streams, of each pair.
        open_max: how many sagas that clients started may be open, by type; a type that is not there has no bound.
        after: for each pair the sequence in EVENTS behind which the oldest start of an open saga is.
    """

    def __init__(self, store: Store, open_max: Mapping[str, int], after: Sequence[int] = ()) -> None:
        self._pairs = store.pairs
        begun = after or [0] * self._pairs.count
        self._types = {
            saga_type: [
                OpenSagas(store, stream, saga_type, share, first)
                for stream, share, first in zip(self._pairs.events, self._pairs.shared(most), begun, strict=True)
            ]
            for saga_type, most in open_max.items()
        }
        self.closed = ""
        """Why no saga of a client may begin now; empty if they may."""
        self.allowance = sys.maxsize
        """How many bytes of clients with a bound may be copied into EVENTS until it is looked at again."""

    def judges(self, saga_type: str) -> bool:
        """Whether sagas of a type may be refused at all."""
        return bool(self.closed) or saga_type in self._types

    def judge(self, key: SagaKey, sequence: int, then: Verdict) -> None:
        """Find out whether the saga of a start, which EVENTS holds at `sequence`, may begin."""
        if self.closed or key.type not in self._types:
            then(self.closed)
        else:
            self._types[key.type][self._pairs.pair_of(key)].judge(sequence, then)

    def open(self) -> dict[str, int]:
        """How many sagas of each bounded type are known to be open; at most as many as may be."""
        return {saga_type: sum(len(each.sequences) for each in found) for saga_type, found in self._types.items()}


class OpenSagas:
    """The oldest open sagas of a type in one pair of streams, as many as there may be, and the starts that wait for a
    verdict.

    Args:
        store: the two streams.
        stream: the pair's stream of events.
        saga_type: of these sagas.
        most: how many there may be.
        after: the sequence behind which their starts are read.
    """

    def __init__(self, store: Store, stream: str, saga_type: str, most: int, after: int) -> None:
        self._store, self._stream, self._type, self._most = store, stream, saga_type, most
        self.sequences: list[int] = []
        """Where the stream holds their starts, in order."""
        self._keys: list[SagaKey] = []
        self._read_up_to = after
        self._looked = 0.0
        self._waiting: list[tuple[InHand | None, int, Verdict]] = []
        self._is_busy = False

    def judge(self, sequence: int, then: Verdict) -> None:
        """Find out whether fewer sagas than there may be, with starts before `sequence`, are open."""
        self._waiting.append((self._store.guard.current, sequence, then))
        if not self._is_busy:
            self._go_on()

    def _go_on(self) -> None:
        """Tell whoever can be told; read on for the others."""
        waiting, self._waiting = self._waiting, []
        for whose, sequence, then in waiting:
            verdict = self._verdict(sequence)
            if verdict is None:
                self._waiting.append((whose, sequence, then))
            else:
                self._store.guard.call(whose, then, verdict)
        if not self._waiting or self._is_busy:
            return
        self._is_busy = True
        if len(self.sequences) < self._most:
            self._store.guard.call(
                None, self._store.starts, self._stream, self._type, self._read_up_to, self._on_starts
            )
        else:
            self._look(0)

    def _verdict(self, sequence: int) -> str | None:
        """Why the saga of a start may not begin, empty if it may; None if that is not known yet."""
        if bisect_left(self.sequences, sequence) < self._most:
            return "" if sequence <= self._read_up_to else None
        if self._now() - self._looked > LOOK_SECONDS:
            return None
        of_type = counted(self._most, f"saga of type {self._type} is", f"sagas of type {self._type} are")
        return (
            f"refused, with nothing done: {of_type} open{self._where}, and more there may not be. "
            "Start it under another id once some have ended"
        )

    @property
    def _where(self) -> str:
        """Which of several pairs, for a sentence."""
        pairs = self._store.pairs
        return f" in pair {pair_in(self._stream)} of {pairs.count}, which is its share" if pairs.count > 1 else ""

    def _now(self) -> float:
        return self._store.now().timestamp()

    # --- reading on ---------------------------------------------------------------------------------------------------

    def _on_starts(self, page: list[StoredMessage] | Ambiguous) -> None:
        """Ask which of the next sagas have ended."""
        if isinstance(page, Ambiguous) or not page:  # a replica lags: a start that waits here is stored
            self._fail()
            return
        found = [(each.sequence, key) for each in page if (key := _begun_by_a_client(each)) is not None]
        self._ended([key for _, key in found], partial(self._add, page[-1].sequence, found))

    def _add(self, last: int, found: list[tuple[int, SagaKey]], ended: set[SagaKey]) -> None:
        """Take in sagas that are open, up to as many as there may be."""
        for sequence, key in found:
            if len(self.sequences) >= self._most:
                self._done()
                return
            if key not in ended:
                self.sequences.append(sequence)
                self._keys.append(key)
            self._read_up_to = sequence
        self._read_up_to = last
        self._done()

    def _look(self, first: int) -> None:
        """Ask which sagas have ended meanwhile, from the one at a place on."""
        some = self._keys[first : first + ENDS_PER_READ]
        if not some:
            self._looked = self._now()
            self._done()
        else:
            self._ended(some, partial(self._drop, first))

    def _drop(self, first: int, ended: set[SagaKey]) -> None:
        stay = [place for place in range(len(self._keys)) if place < first or self._keys[place] not in ended]
        looked_at = min(len(self._keys), first + ENDS_PER_READ) - (len(self._keys) - len(stay))
        self.sequences, self._keys = [self.sequences[at] for at in stay], [self._keys[at] for at in stay]
        self._look(looked_at)

    def _ended(self, keys: list[SagaKey], then: Callable[[set[SagaKey]], None]) -> None:
        def report(ended: set[SagaKey] | Ambiguous) -> None:
            if isinstance(ended, Ambiguous):
                self._fail()
            else:
                then(ended)

        self._store.guard.call(None, self._store.ended, keys, report)

    def _done(self) -> None:
        self._is_busy = False
        self._go_on()

    def _fail(self) -> None:
        """Have whoever waits ask again later."""
        self._is_busy = False
        waiting, self._waiting = self._waiting, []
        for whose, _, then in waiting:
            self._store.guard.call(whose, then, None)


def _begun_by_a_client(start: StoredMessage) -> SagaKey | None:
    return saga_in(start.subject) if saga_source(start.subject) == CLIENT else None
