"""The exporter: journal entries in, spans that they made final out, over OTLP; acked once the backend has them.

It holds nothing that it could lose. Which spans an entry makes final follows from the journal, so an entry that is
delivered again makes the same spans again, to the byte, and a backend that has them already sees no difference. While
the backend is away or slow the entries in hand are kept and no more are pulled; nobody else notices. Spans that it
rejects are kept as well, and do not stop those of other sagas.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, Protocol

import structlog
from msgspec.structs import replace

from antiphon.contracts.errors import Ambiguous, AntiphonError, Unusable
from antiphon.contracts.headers import traceparent_header
from antiphon.contracts.identity import SagaKey, digest
from antiphon.contracts.stored import Delivered, pending_in
from antiphon.contracts.subjects import is_end, parse_entry
from antiphon.contracts.topology import EXPORTER, EXPORTER_ACK_WAIT_SECONDS
from antiphon.link import Delivery, Link, Pull
from antiphon.link.faults import class_of, say
from antiphon.link.killpoints import reached

from ..projection.project import Projection, exportable
from ..projection.sampling import decision_in, is_sampled
from ..projection.spans import Span
from .backlog import Backlog
from .otlp import Failure
from .reading import NotThere, Purged, read_projection

log = structlog.get_logger()

ENTRIES_HELD_MAX: Final = 1000
"""Entries in hand at once: few enough to be exported well within the ack wait, many enough that a busy saga is read
once and not once for each of its entries."""

GATHER_SECONDS: Final = 0.2
"""How long entries are gathered, for the same reason."""

READS_MAX: Final = 8
"""Sagas read at the same time; the server has others to serve."""

SPANS_MAX: Final = 500
"""Spans in one request, about half a megabyte."""

PAUSE_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 15.0
"""How soon, and how late at most, a backend that failed is tried again."""

ANSWER_SECONDS: Final = 1.0
"""After how long it is asked why there is no answer yet: the SDK tries again for ten seconds before it gives up."""

TELL_SECONDS: Final = 60.0
"""How often it is said that the backend does not take what it is sent, for as long as that lasts."""

SLOW_SECONDS: Final = 10.0
"""What takes so long is exported although it was not sampled."""

GONE_SECONDS: Final = 24 * 3600.0
"""An entry so old whose journal is not there any more, or not the facts it names, is given up: its saga was purged."""
LATE_SECONDS_MAX: Final = 600.0
"""How late at most an entry is looked at again that could not be read."""

QUICK_DELIVERIES: Final = 5
"""So often the distance doubles, to half a minute. From then on it is a part of the entry's age."""

FAULTY_DELIVERIES_MAX: Final = 5
"""After so many deliveries an entry is given up of whose saga no trace can be made: other versions have had a try."""

AWAY: Final = "away"
REJECTED: Final = "rejected"
UNREADABLE: Final = "unreadable"
FAULTY: Final = "faulty"
"""What failures are counted as: the backend gives no answer, or refuses; a saga cannot be read; a mistake of ours."""

Send = Callable[[Sequence[Span]], Awaitable[bool]]
"""Hands spans to the backend; true once it has them."""


What = Literal["entries_exported", "spans_exported", "export_failures"]


class Counting(Protocol):
    """Counts what an exporter does."""

    def add(self, what: What, *labels: str) -> None:
        """Count one."""

    def add_many(self, what: What, count: int, *labels: str) -> None:
        """Count several."""


class Uncounted:
    """Counts nothing."""

    def add(self, what: What, *labels: str) -> None:
        """Do nothing."""

    def add_many(self, what: What, count: int, *labels: str) -> None:
        """Do nothing."""


class Sent(Enum):
    """What became of spans."""

    TAKEN = auto()
    REJECTED = auto()
    STOPPED = auto()
    """The exporter was told to end before the backend took them."""


@dataclass(frozen=True)
class Work:
    """Entries of one saga in hand, and the spans to be exported with them."""

    key: SagaKey
    entries: list[Delivered]
    spans: list[Span]


class Exporter:
    """Exports the traces of all sagas over one link.

    Args:
        link: a connection that may pull the exporter's consumer and read both streams.
        send: hands spans to the backend.
        why: why the backend did not take what was sent last.
        endpoint: where the backend is, for the log.
        ratio: the share that is exported while it runs, of sagas whose journal does not say it.
        slow_seconds: how long a saga takes that is exported at its end in any case.
        counts: what it has done, for metrics.
    """

    def __init__(
        self,
        link: Link,
        send: Send,
        *,
        why: Callable[[], Failure | None] = lambda: None,
        endpoint: str = "",
        ratio: float = 1.0,
        slow_seconds: float = SLOW_SECONDS,
        counts: Counting | None = None,
    ) -> None:
        self._counts, self.backlog = counts or Uncounted(), Backlog()
        self._link, self._send, self._ratio, self._slow_ns = link, send, ratio, round(slow_seconds * 1e9)
        self._why, self._endpoint = why, endpoint
        self._raised: Failure | None = None
        """That handing over what was sent last raised, and what."""
        self._pause_seconds = PAUSE_SECONDS
        self._told: tuple[str, float] | None = None
        """What was said last of a backend that takes nothing, and when; None while it takes what it is sent."""
        self._held: list[Delivered] = []
        self._came = asyncio.Event()
        self._stopped = asyncio.Event()
        self._reads = asyncio.Semaphore(READS_MAX)

    async def start(self) -> list[Pull]:
        """Begin to pull, from each pair of streams, and to hold what comes."""
        pairs = self._link.pairs
        return [
            await self._link.pull(stream, EXPORTER, places, self._take, EXPORTER_ACK_WAIT_SECONDS)
            for stream, places in zip(pairs.saga, pairs.shared(ENTRIES_HELD_MAX), strict=True)
        ]

    async def run(self, pulls: Iterable[Pull]) -> None:
        """Export until `stop`; what is in hand then comes again, to whoever exports next."""
        try:
            while not self._stopped.is_set():
                await self._came.wait()
                await self._pause(GATHER_SECONDS)
                self._came.clear()
                if self._stopped.is_set():
                    break
                batch, self._held = self._held, []
                await self._export_or_say(batch)
        finally:
            await asyncio.gather(*(pull.drain() for pull in pulls))
            for held in self._held:
                self._hand_back(held)

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped.set()
        self._came.set()

    def _take(self, delivery: Delivery) -> None:
        if _is_entry(delivery.subject):
            self._held.append(delivery)
            self.backlog.came(delivery, pending_in(delivery.reply))
            self._came.set()
        else:
            delivery.ack()  # the state of a lock, or of what stands still: no saga

    async def _export_or_say(self, batch: list[Delivered]) -> None:
        """Export some entries. A mistake in this file must not end the process: they come again, ever later."""
        try:
            await self._export(batch)
        except Exception as error:
            say("exporter.faulty", error, entries=len(batch))
            self._counts.add("export_failures", FAULTY)
            for held in batch:
                self._hand_back(held, _later(held))

    def _ack(self, held: Delivered) -> None:
        held.ack()
        self.backlog.done(held)

    def _hand_back(self, held: Delivered, seconds: float = 0.0) -> None:
        held.hand_back(seconds)
        self.backlog.put_off(held, seconds)

    def _settle(self, work: Iterable[Work], *, is_exported: bool) -> None:
        for held in (held for each in work for held in each.entries):
            if is_exported:
                self._ack(held)
                self._counts.add("entries_exported")
            else:
                self._hand_back(held)

    async def _export(self, batch: list[Delivered]) -> None:
        """Export what some entries make final."""
        reached("exporter.pulled")
        by_saga = defaultdict[SagaKey, list[Delivered]](list)
        for held in batch:
            by_saga[parse_entry(held.subject).saga].append(held)
        found = await asyncio.gather(*(self._read(key, entries) for key, entries in by_saga.items()))
        read = zip(by_saga.items(), found, strict=True)
        work = [Work(key, entries, spans) for (key, entries), spans in read if spans is not None]
        reached("exporter.projected")
        sent = await self._insist(_in_order(work))
        reached("exporter.exported")
        if sent is Sent.REJECTED:
            await self._export_each(work)
        else:
            self._settle(work, is_exported=sent is Sent.TAKEN)

    async def _export_each(self, work: list[Work]) -> None:
        """Export saga by saga what was rejected together, so that one whose spans cannot be taken stops no other.

        If the backend takes none it is the backend that has to be mended: then all stay in hand.
        """
        rejected = list[Work]()
        for each in work:
            failure = self._failure()
            sent = await self._insist(_in_order([each])) if failure is None or failure.is_about_spans else Sent.REJECTED
            if sent is Sent.REJECTED:
                rejected.append(each)
            else:
                self._settle([each], is_exported=sent is Sent.TAKEN)
        if len(rejected) == len(work) and not (self._raised and self._raised.is_ours):
            self._held = [held for each in rejected for held in each.entries] + self._held
            self._came.set()
            await self._pause_longer()
            return
        for each in rejected:
            later = _later(each.entries[0])
            log.error("trace.rejected", saga=str(each.key), spans=len(each.spans), again_in_seconds=later)
            for held in each.entries:
                self._hand_back(held, later)

    async def _read(self, key: SagaKey, entries: list[Delivered]) -> list[Span] | None:
        """The spans to be exported with some entries of a saga; None after the entries were settled in another way."""
        has_ended = any(is_end(held.subject) for held in entries)
        if not has_ended and any(_decision_of(held) is False for held in entries):
            return []
        try:
            async with self._reads:
                projection = await read_projection(self._link, key, max(held.sequence for held in entries))
            if is_chosen(projection, self._ratio):
                return _newly_final(projection, {held.sequence for held in entries}, self._ratio)
            return list(projection.spans) if has_ended and is_remarkable(projection, self._slow_ns) else []
        except Exception as error:
            if not isinstance(error, Ambiguous | Unusable):
                say("trace.faulty", error.__cause__ or error, saga=str(key))
            self._look_later(key, entries, error)
            return None

    def _look_later(self, key: SagaKey, entries: list[Delivered], error: Exception) -> None:
        if not isinstance(error, Purged):
            self._counts.add("export_failures", UNREADABLE)
        for held in entries:
            if _is_hopeless(held, error):
                reason = str(error) if isinstance(error, AntiphonError) else class_of(error)
                write = log.info if isinstance(error, Purged) else log.error
                write("trace.given_up", saga=str(key), sequence=held.sequence, reason=reason)
                self._ack(held)
            else:
                self._hand_back(held, _later(held))

    async def _insist(self, spans: list[Span]) -> Sent:
        """Send all spans, however long the backend is away."""
        for first in range(0, len(spans), SPANS_MAX):
            while not await self._offer(spans[first : first + SPANS_MAX]):
                if self._stopped.is_set():
                    return Sent.STOPPED
                failure = self._failure() or Failure("it does not say why")
                self._tell(failure, len(spans))
                self._counts.add("export_failures", REJECTED if failure.is_rejection else AWAY)
                if failure.is_rejection:
                    return Sent.REJECTED
                await self._pause_longer()
                if self._stopped.is_set():
                    return Sent.STOPPED
            self._counts.add_many("spans_exported", len(spans[first : first + SPANS_MAX]))
        if spans and self._told:
            log.info("backend.back", endpoint=self._endpoint)
        if spans:
            self._told, self._pause_seconds = None, PAUSE_SECONDS
        return Sent.TAKEN

    async def _offer(self, spans: list[Span]) -> bool:
        """Send spans, and say what is in the way while that takes long."""
        sending = asyncio.ensure_future(self._sent(spans))
        while not (await asyncio.wait((sending,), timeout=ANSWER_SECONDS))[0]:
            if failure := self._why():
                self._tell(failure, len(spans))
        return sending.result()

    async def _sent(self, spans: list[Span]) -> bool:
        """Hand spans over. What that raises, down to SystemExit in a thread of the SDK, is a failure like any other."""
        self._raised = None
        try:
            return await self._send(spans)
        except BaseException as error:
            say("backend.faulty", error, endpoint=self._endpoint)
            self._raised = Failure(f"handing spans over raised {class_of(error)}", is_ours=True)
            return False

    def _failure(self) -> Failure | None:
        """Why the backend did not take what was sent last."""
        return self._raised or self._why()

    def _tell(self, failure: Failure, spans: int) -> None:
        """Say that the backend did not take something: at once where that is news, and else now and then."""
        event, now = "backend.rejects" if failure.is_rejection else "backend.away", time.monotonic()
        if self._told and self._told[0] == event and now - self._told[1] < TELL_SECONDS:
            return
        self._told = event, now
        known = {"status": failure.status, "body": failure.body}
        values = {name: value for name, value in known.items() if value}
        write = log.error if failure.is_rejection else log.warning
        write(event, endpoint=self._endpoint, reason=failure.reason, spans=spans, **values)

    async def _pause_longer(self) -> None:
        """Wait before the backend is tried again, each time longer."""
        await self._pause(self._pause_seconds)
        self._pause_seconds = min(PAUSE_SECONDS_MAX, 2 * self._pause_seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the exporter is stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            pass


def is_chosen(projection: Projection, ratio: float) -> bool:
    """Whether a saga is sampled: as its first command says, or by the ratio where none was sent yet."""
    key = projection.key
    return is_sampled(digest(key.type, key.id), ratio) if projection.sampled is None else projection.sampled


def _newly_final(projection: Projection, sequences: set[int], ratio: float) -> list[Span]:
    """What some entries of a sampled saga make final; with the command that says so, also what was left out before."""
    spans = exportable(projection, sequences)
    if projection.sampled_by not in sequences or is_chosen(replace(projection, sampled=None), ratio):
        return spans
    return [each for each in projection.spans if each.closed_by < projection.sampled_by or each.closed_by in sequences]


def _decision_of(held: Delivered) -> bool | None:
    """What an entry in hand says of its saga; None unless it is a command."""
    return decision_in(traceparent_header(held.data).removeprefix("traceparent: ").strip())


def is_remarkable(projection: Projection, slow_ns: int) -> bool:
    """Whether an ended saga is worth looking at although its trace was not sampled."""
    return (
        projection.outcome == "compensated"
        or projection.retries > 0
        or projection.was_parked
        or projection.duration_ns >= slow_ns
    )


def _in_order(work: Iterable[Work]) -> list[Span]:
    """In the order of the stream, so that a saga's root goes last."""
    return sorted((span for each in work for span in each.spans), key=lambda span: span.closed_by)


def _later(held: Delivered) -> float:
    """In how many seconds an entry comes again: soon at first, and the later the older it is.

    Its deliveries alone do not tell how often it was looked at in vain: each lost lease is one.
    """
    age_seconds = time.time() - held.stored_ns / 1e9
    return min(LATE_SECONDS_MAX, max(2.0 ** min(held.deliveries, QUICK_DELIVERIES), age_seconds / 4))


def _is_hopeless(held: Delivered, error: Exception) -> bool:
    """Whether another look at an entry would find no more than this one."""
    match error:
        case Purged(is_certain=True):
            return True
        case NotThere():
            return time.time() - held.stored_ns / 1e9 > GONE_SECONDS
        case Ambiguous():
            return False
        case Unusable():
            return True
        case _:
            return held.deliveries >= FAULTY_DELIVERIES_MAX


def _is_entry(subject: str) -> bool:
    try:
        parse_entry(subject)
    except Unusable:
        return False
    return True


class NotTaken(AntiphonError):
    """The backend did not take the trace of a saga; as many others had been exported before.

    Args:
        key: the saga.
        count: how many were.
    """

    def __init__(self, key: SagaKey, count: int) -> None:
        super().__init__(f"the backend did not take the trace of saga {key}")
        self.key, self.count = key, count


async def reexport(
    link: Link, keys: Iterable[SagaKey], send: Send, slow_seconds: float = SLOW_SECONDS, ratio: float = 1.0
) -> int:
    """Export the traces of some sagas again, as far as they are final, and return how many there were.

    Those that the exporter would have exported: `slow_seconds` and `ratio` are as there.

    Raises:
        Ambiguous: a saga could not be read.
        NotTaken: the backend is away, or takes no traces.
    """
    count = 0
    for key in keys:
        projection = await read_projection(link, key)
        if is_chosen(projection, ratio) or is_remarkable(projection, round(slow_seconds * 1e9)):
            for first in range(0, len(projection.spans), SPANS_MAX):
                if not await send(projection.spans[first : first + SPANS_MAX]):
                    raise NotTaken(key, count)
            count += 1
    return count
