"""Group commit: the transactions of many commands over one SQLite connection, one after the other, durable together.

Commands that are ready share one transaction of the database, each in a savepoint. Savepoints are a stack, so a command
has its turn to itself. Whoever ended well waits for the COMMIT that all of them have in common; whoever raised takes
back its savepoint and leaves at once. What may wait for a disk runs on the database's thread, and nothing else touches
the connection meanwhile.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from contextlib import suppress
from typing import Final

from antiphon.link import killpoints

from .databases import Busy, Manner, ShareFailed
from .engines import first_line, trouble_of
from .reasons import Misuse
from .thread import Thread

MEMBERS_MAX: Final = 64
"""How many commands share a transaction: enough that its fsync costs each of them little, and few enough that the loop
turns between two groups."""
GROUP_SECONDS: Final = 0.010
"""How long after its BEGIN a group takes members."""
AGAIN_SECONDS: Final = 0.003
"""How far apart a database that another process has locked is tried."""
ROOM_SECONDS: Final = 0.006
"""How long the lock stays free after a COMMIT for another process that wants it: twice as long as that one waits."""
CONTENDED_SECONDS: Final = 1.0
"""How long after another process had the lock it is thought to want it again."""

BEGIN: Final = "BEGIN IMMEDIATE"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
SAVEPOINT: Final = "SAVEPOINT antiphon"
RELEASE: Final = "RELEASE antiphon"
TAKE_BACK: Final = "ROLLBACK TO antiphon"


class SavepointLost(Misuse):
    """A handler ended the savepoint in which its command is performed, which only the worker may."""


class Member:
    """One command's part in a group."""

    __slots__ = ("commit", "manner", "since", "turn")

    def __init__(self, manner: Manner, since: float) -> None:
        self.manner, self.since = manner, since
        loop = asyncio.get_running_loop()
        self.turn: asyncio.Future[None] = loop.create_future()
        """Done once the member has the connection to itself."""
        self.commit: asyncio.Future[None] = loop.create_future()
        """Done once the group is durable, or failed."""


class Group:
    """The members of one transaction of the database."""

    __slots__ = ("begun", "is_shared", "released", "taken")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.taken = 0
        """How many members had their turn."""
        self.is_shared = True
        self.released: list[Member] = []
        """Members that ended well and wait for the COMMIT."""

    def takes(self, member: Member, now: float) -> bool:
        """Whether a member may join."""
        if self.taken == 0:
            return True
        is_open = self.is_shared and self.taken < MEMBERS_MAX and now - self.begun < GROUP_SECONDS
        return is_open and member.manner == "shared"


class Writer:
    """All transactions over one connection.

    Args:
        connection: in autocommit mode, with a busy timeout of 0; used by nobody else, except by who has the turn.
        thread: of this connection.
        lock_seconds: how long another process's lock is waited for.
    """

    def __init__(self, connection: sqlite3.Connection, thread: Thread, lock_seconds: float) -> None:
        self.connection, self._thread, self._lock_seconds = connection, thread, lock_seconds
        self._waiting: deque[Member] = deque()
        self._holder: Member | None = None
        """Who has the turn."""
        self._group: Group | None = None
        """Whose transaction is open, if its COMMIT has not begun."""
        self._committing: asyncio.Future[None] | None = None
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        """Until the database is tried again, or another process was left time enough."""
        self._refused_since = -1.0
        """When the lock was first refused to those who wait for it now; negative where it was not."""
        self._contended = -CONTENDED_SECONDS
        """When another process had the lock."""

    async def enter(self, manner: Manner = "shared") -> Member:
        """Wait for a turn, and begin.

        Raises:
            Busy: the database could not be had.
        """
        if self._is_closed:
            raise Busy(_CLOSED)
        member = Member(manner, asyncio.get_running_loop().time())
        self._waiting.append(member)
        self._advance()
        try:
            await member.turn
        except asyncio.CancelledError:
            if self.has_turn(member):
                self._pass_on()
            elif member in self._waiting:
                self._waiting.remove(member)
            raise
        if not self.has_turn(member):
            raise Busy(_CLOSED)
        try:
            self.connection.execute(SAVEPOINT)
        except sqlite3.Error as error:
            self._pass_on()
            raise Busy(f"{_NO_BEGIN}: {first_line(error)}") from error
        return member

    async def leave(self, member: Member) -> None:
        """End well: give the turn to the next member, and wait until all is durable.

        Raises:
            Busy: SQLite rolled the transaction back, or the database failed at the COMMIT, or was closed.
            ShareFailed: the COMMIT failed, perhaps through another member's fault.
            SavepointLost: the member had ended its savepoint by itself.
            sqlite3.Error: the COMMIT failed, and through nobody else's fault.
        """
        if not self.is_open(member):
            raise self._abandoned(member)
        try:
            self.connection.execute(RELEASE)
        except sqlite3.Error:
            raise self._abandoned(member) from None
        killpoints.reached("worker.released")
        assert self._group is not None
        self._group.released.append(member)
        self._pass_on()
        await member.commit

    def give_up(self, member: Member) -> Exception | None:
        """End badly: take back what the member did, and give the turn to the next one.

        Returns:
            None, or what became of the transaction where all of it was rolled back before.
        """
        try:
            if self.is_open(member):
                self.connection.execute(TAKE_BACK)
                self.connection.execute(RELEASE)
                self._pass_on()
                return None
        except sqlite3.Error:
            pass
        return self._abandoned(member)

    def take_back(self) -> None:
        """Undo what whoever has the turn did so far."""
        self.connection.execute(TAKE_BACK)

    def has_turn(self, member: Member) -> bool:
        """Whether the connection is a member's now."""
        return self._holder is member

    def is_open(self, member: Member) -> bool:
        """Whether a member has the turn, and its transaction is still there: SQLite ends one by itself where a disk is
        full or fails, and would commit each further statement by itself."""
        return self._holder is member and self.connection.in_transaction

    async def close(self) -> None:
        """Let the COMMIT end that has begun, roll back what is open, and begin nothing more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail_waiting(_CLOSED, None)
        if self._committing is not None:
            await asyncio.wait((self._committing,))
        group, self._holder, self._group = self._group, None, None
        for member in group.released if group is not None else ():
            _fail(member.commit, Busy, _CLOSED, None)
        await self._thread.run(self._roll_back)

    # --- the next thing to do -----------------------------------------------------------------------------------------

    def _pass_on(self) -> None:
        self._holder = None
        self._advance()

    def _advance(self) -> None:
        """Give the turn to who waits, or commit; nothing where somebody has the turn or the disk."""
        if self._holder is not None or self._committing is not None or self._timer is not None:
            return
        while self._waiting and self._waiting[0].turn.done():
            self._waiting.popleft()  # cancelled, and its task does not know it yet
        if self._group is None and not (self._waiting and self._begin()):
            return
        group, now = self._group, asyncio.get_running_loop().time()
        assert group is not None
        if self._waiting and group.takes(self._waiting[0], now):
            self._give_turn(self._waiting.popleft(), group)
        else:
            self._commit(group)

    def _give_turn(self, member: Member, group: Group) -> None:
        self._holder = member
        group.taken += 1
        group.is_shared = member.manner == "shared"
        member.turn.set_result(None)

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._advance()

    # --- BEGIN --------------------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Begin a transaction with the write lock, on the loop: that waits for nothing but another process."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            if self.connection.in_transaction:  # what a failed ROLLBACK left
                self.connection.execute(ROLLBACK)
            self.connection.execute(BEGIN)
        except sqlite3.Error as error:
            if trouble_of(error) == "locked":
                self._refused(now, error)
            else:
                self._fail_waiting(_NO_BEGIN, error)
            return False
        self._refused_since = -1.0
        self._group = Group(now)
        return True

    def _refused(self, now: float, error: sqlite3.Error) -> None:
        """Another process has the lock: try again, for as long as each of those that wait may."""
        self._contended = now
        if self._refused_since < 0:
            self._refused_since = now
        while self._waiting and now - max(self._waiting[0].since, self._refused_since) >= self._lock_seconds:
            _fail(self._waiting.popleft().turn, Busy, _NO_BEGIN, error)
        if self._waiting:
            self._wait(AGAIN_SECONDS)
        else:
            self._refused_since = -1.0

    # --- COMMIT -------------------------------------------------------------------------------------------------------

    def _commit(self, group: Group) -> None:
        """Make the group durable, on the thread: an fsync may take its time. No member's task runs this."""
        self._group = None
        work = self._committed if group.released else self._roll_back
        self._committing = self._thread.run(work)
        self._committing.add_done_callback(lambda done: self._on_end(group, done))

    def _committed(self) -> None:
        try:
            self.connection.execute(COMMIT)
        except BaseException:  # SQLite's want of memory is Python's
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # the next BEGIN tries it again
            if self.connection.in_transaction:
                self.connection.execute(ROLLBACK)

    def _on_end(self, group: Group, done: asyncio.Future[None]) -> None:
        self._committing = None
        error = done.exception()
        for member in group.released:
            if error is not None:
                _fail(member.commit, _meaning(error, len(group.released)), "the commit failed", error)
            elif not member.commit.done():
                member.commit.set_result(None)
        if asyncio.get_running_loop().time() - self._contended < CONTENDED_SECONDS:
            self._wait(ROOM_SECONDS)
        else:
            self._advance()

    def _abandoned(self, member: Member) -> Exception:
        """The transaction of the one who has the turn is gone, or cannot be gone on with: end it for all.

        Returns:
            What that means for the one who has the turn.
        """
        if not self.has_turn(member):
            return Busy(_CLOSED)
        group = self._group
        assert group is not None
        own: Exception | None = None
        kind: type[Exception] = Busy
        why = "SQLite rolled the transaction back"
        if self.connection.in_transaction:
            # The savepoint is not there: what is whose is not known any more.
            own = SavepointLost("the handler ended the savepoint of its command, which only the worker may")
            kind, why = ShareFailed, "another command's handler ended its own savepoint"
            self._roll_back()
        for each in group.released:
            _fail(each.commit, kind, why, None)
        self._group = None
        self._pass_on()
        return own or kind(why)

    def _fail_waiting(self, why: str, error: BaseException | None) -> None:
        while self._waiting:
            _fail(self._waiting.popleft().turn, Busy, why, error)


_CLOSED: Final = "the database is closed"
_NO_BEGIN: Final = "no transaction can be begun"


def _meaning(error: BaseException, members: int) -> type[Exception] | None:
    """What an error of the COMMIT is for each of the members; None where it is theirs as it is.

    Only a constraint that is looked at then, such as a deferred foreign key, is a member's fault.
    """
    if not isinstance(error, sqlite3.IntegrityError):
        return Busy
    return ShareFailed if members > 1 else None


def _fail(future: asyncio.Future[None], kind: type[Exception] | None, why: str, error: BaseException | None) -> None:
    """Each has an exception of its own: raised in several tasks, one would gather the tracebacks of all."""
    if future.done():
        return
    if kind is None:
        failed = error
    else:
        failed = kind(f"{why}: {first_line(error)}" if error is not None else why)
        failed.__cause__ = error
    assert failed is not None
    future.set_exception(failed)
    future.exception()  # looked at: who waited for it may have been cancelled
