"""Requests of clients on their way to an answer: few at once beside the facts, and a bounded number of each source.

A request is worth less than a fact: whoever asked can ask again. So only a few are in hand at any moment, their number
a second is bounded, and of those that wait each source has its turn. What one source asks beyond its places is shed,
the newest first, with an answer that says so, or in silence where even these answers would be a flood.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol

import structlog

from antiphon.contracts.headers import asking_account
from antiphon.contracts.subjects import inbox_owner
from antiphon.tracing.telemetry.counts import Counts

log = structlog.get_logger()

AT_ONCE: Final = 4
"""Requests in hand at any moment: an eighth of the sagas that a coordinator reads at once."""
PER_SECOND: Final = 200
"""Requests a second, while more are waiting. One costs a coordinator about a millisecond."""
BURST: Final = 100
"""Requests that are taken without a pause after a quiet time."""
WAITING_MAX: Final = 1_000
"""Places for requests that wait, shared evenly between the sources that have any there and one more: a source alone has
half of them, and whoever comes next finds room."""
USEFUL_SECONDS: Final = 5.0
"""After so long whoever asked has given up."""
BUSY_PER_SECOND: Final = 200
"""How many shed requests a second are answered; the others are not, since their answers would be a flood as well."""
SOURCES_MAX: Final = 100
"""So many sources are told apart in logs and metrics; further ones, which anybody can make up, are others."""
OTHERS: Final = "others"
SAY_SECONDS: Final = 10.0
"""How far apart lines of the log about one source are."""


class Request(Protocol):
    """What somebody asked. It is begun or refused, once; whoever is begun calls `done` of the queue, once."""

    def begin(self) -> None:
        """Find the answer and send it."""

    def refuse(self, sentence: str) -> None:
        """Answer that it cannot be answered now."""


class Pace:
    """Lets so many things a second pass, and a number of them at once after a quiet time.

    Args:
        per_second: how many.
        burst: how many at once.
        now: the time in seconds.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._at = float(burst), now

    def passes(self, now: float) -> bool:
        """Whether one more may pass now, by the time in seconds; then it has."""
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class RequestQueue:
    """The requests of one coordinator.

    Args:
        counts: where those that were shed are counted.
        now: the time in seconds.
        later: calls after a delay in seconds.
    """

    def __init__(
        self, counts: Counts, now: Callable[[], float], later: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self._counts, self._now, self._later = counts, now, later
        self._waiting: OrderedDict[str, deque[tuple[float, Request]]] = OrderedDict()
        """By source, each request with the time at which it came."""
        self._in_hand = 0
        self._pace, self._busy = Pace(PER_SECOND, BURST, now()), Pace(BUSY_PER_SECOND, BUSY_PER_SECOND, now())
        self._is_called = self._is_going_on = False
        self._shed: Counter[str] = Counter()
        self._said: dict[str, float] = {}

    def take(self, source: str, request: Request) -> None:
        """Begin a request now or later, or refuse it.

        Args:
            source: who asks, as far as the server tells; see `source_of`.
            request: what is asked.
        """
        waiting = self._waiting.get(source, ())
        if len(waiting) >= WAITING_MAX // (len(self._waiting) + 1):
            self._refuse(source, request)
            return
        self._waiting.setdefault(source, deque()).append((self._now(), request))
        self._go_on()

    def done(self) -> None:
        """A request that was begun needs nothing more."""
        self._in_hand -= 1
        self._go_on()

    def waiting(self) -> dict[str, int]:
        """How many requests wait, by source, of the first sources that have any there."""
        return {source: len(requests) for source, requests in islice(self._waiting.items(), SOURCES_MAX)}

    def _go_on(self) -> None:
        """Begin what may be begun, each source in its turn."""
        if self._is_going_on:
            return  # a request that was begun just now is done already, and the loop below goes on
        self._is_going_on = True
        try:
            while self._waiting and self._in_hand < AT_ONCE:
                if not self._pace.passes(self._now()):
                    self._call_later()
                    return
                self._begin_next()
        finally:
            self._is_going_on = False

    def _begin_next(self) -> None:
        request = self._next()
        if request is not None:
            self._in_hand += 1
            request.begin()

    def _next(self) -> Request | None:
        """The oldest request of that source that is still of use; the source's next turn is after all others'."""
        source, requests = self._waiting.popitem(last=False)
        oldest, found = self._now() - USEFUL_SECONDS, None
        while requests and found is None:
            came, request = requests.popleft()
            found = request if came >= oldest else None
        if requests:
            self._waiting[source] = requests
        return found

    def _call_later(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._later(1 / PER_SECOND, self._called)

    def _called(self) -> None:
        self._is_called = False
        self._go_on()

    def shed(self, source: str) -> str:
        """Count a request that is not looked at, and say so now and then.

        Returns:
            What its source is called.
        """
        name = self.name_of(source)
        self._counts.add("requests_shed", name)
        self._shed[name] += 1
        now = self._now()
        if now - self._said.get(name, -SAY_SECONDS) >= SAY_SECONDS:
            self._said[name] = now
            log.warning("requests.shed", source=name, count=self._shed.pop(name))
        return name

    def name_of(self, source: str) -> str:
        """What a source is called in logs and metrics: only so many have a name of their own."""
        return source if source in self._said or len(self._said) < SOURCES_MAX else OTHERS

    def _refuse(self, source: str, request: Request) -> None:
        name = self.shed(source)
        if self._busy.passes(self._now()):
            request.refuse(f"too many requests of {name} wait already; ask again in a second")


def source_of(reply: str, headers: bytes | None) -> str:
    """Who sent a request: its account, where it came from another one, which the server says; else whose inbox its
    answer goes to, which whoever asks says."""
    return (asking_account(headers) if headers else "") or inbox_owner(reply)
