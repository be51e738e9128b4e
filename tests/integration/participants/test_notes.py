"""What a process holds is noted where another one reads it as soon as the first is dead, and not before."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from antiphon.contracts import PlatformError
from antiphon.participants import note_files, note_rows, open_database
from antiphon.participants.notes import Left, Notes, open_notes
from tests.support.server import until

from .stock import sqlite_url

HELD = ("$JS.ACK.SAGA.stock.1.7.3.1700000000000000000.0", "$JS.ACK.SAGA.stock.1.8.4.1700000000000000000.0")

Opened = Callable[..., Notes]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A participant's database."""
    monkeypatch.setattr(note_rows, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(note_rows, "RESTART_SECONDS", 0)
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    found: str = request.getfixturevalue("postgres_server").new_database()
    return found


@asynccontextmanager
async def notes(url: str, instance: str, participant: str = "stock") -> AsyncIterator[Notes]:
    """The notes as one process sees them."""
    found = open_notes(url, participant, instance)
    assert found is not None
    await found.open()
    try:
        yield found
    finally:
        await found.close()


HOLDER = """
import asyncio, sys
from antiphon.participants.notes import open_notes
async def hold():
    notes = open_notes(sys.argv[1], sys.argv[2], "holder")
    await notes.open()
    notes.write(sys.argv[3:])
    await asyncio.sleep(0.2)
    print("held", flush=True)
    await asyncio.sleep(600)
asyncio.run(hold())
"""


class Holder:
    """A process that holds something."""

    def __init__(self, url: str, participant: str = "stock") -> None:
        self._arguments = [sys.executable, "-c", HOLDER, url, participant, *HELD]

    async def __aenter__(self) -> Holder:
        self.process = await asyncio.create_subprocess_exec(*self._arguments, stdout=asyncio.subprocess.PIPE)
        assert self.process.stdout is not None
        assert await self.process.stdout.readline() == b"held\n"
        return self

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def __aexit__(self, *_: object) -> None:
        await self.kill()


async def left_to(heir: Notes) -> list[Left]:
    """What the dead have left, once there is something: a database notices the end of a session a moment later."""
    found: list[Left] = []
    async with asyncio.timeout(120):
        while not (found := await heir.dead(is_starting=True)):
            await asyncio.sleep(0.02)
    return found


async def test_what_a_killed_process_held_is_left_to_another(url: str) -> None:
    async with notes(url, "heir") as heir, Holder(url) as holder:
        assert await heir.dead(is_starting=True) == []
        await holder.kill()
        (left,) = await left_to(heir)
        assert (left.instance, left.replies) == ("holder", HELD)
        assert left.age_seconds >= 0
        await heir.forget(left)
        assert await heir.dead(is_starting=True) == []


async def test_a_process_that_stands_still_is_not_dead(url: str) -> None:
    async with notes(url, "heir") as heir, Holder(url) as holder:
        os.kill(holder.process.pid, signal.SIGSTOP)
        assert await heir.dead(is_starting=True) == []
        os.kill(holder.process.pid, signal.SIGCONT)


async def test_only_one_gets_what_is_left_and_the_next_one_if_that_dies_too(url: str) -> None:
    async with notes(url, "heir") as heir:
        async with notes(url, "first") as first, Holder(url) as holder:
            await holder.kill()
            assert [left.instance for left in await left_to(first)] == ["holder"]
            assert await heir.dead(is_starting=True) == []
            assert [left.instance for left in await first.dead(is_starting=True)] == ["holder"], "not yet forgotten"
        assert [left.instance for left in await left_to(heir)] == ["holder"]


async def test_who_waited_for_what_another_has_taken_over_meanwhile_gets_nothing(url: str) -> None:
    async with notes(url, "heir") as heir, notes(url, "other") as other, Holder(url) as holder:
        await holder.kill()
        for left in await left_to(heir):
            await heir.forget(left)
        assert await other.dead(is_starting=True) == []


async def test_who_gets_a_lock_after_its_file_was_removed_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has taken over between the opening of the file and its lock."""
    url = sqlite_url(tmp_path)
    async with notes(url, "heir") as heir, notes(url, "other") as other, Holder(url) as holder:
        assert isinstance(other, note_files.NoteFiles)
        await holder.kill()
        locked = other._locked

        def locked_late(file: int) -> bool:
            (other._folder / "stock.holder").unlink()
            return locked(file)

        monkeypatch.setattr(other, "_locked", locked_late)
        monkeypatch.setattr(other, "_others", lambda: iter(["stock.holder"]))
        assert await other.dead(is_starting=True) == []
        assert await heir.dead(is_starting=True) == []


async def test_the_processes_of_another_participant_are_left_alone(url: str) -> None:
    async with notes(url, "heir") as heir, Holder(url, "billing") as holder:
        await holder.kill()
        async with notes(url, "its own", "billing") as billing:
            (left,) = await left_to(billing)
            assert await heir.dead(is_starting=True) == []
            await billing.forget(left)


async def test_a_process_that_ends_in_order_leaves_nothing(url: str) -> None:
    async with notes(url, "heir") as heir:
        async with notes(url, "other") as other:
            other.write(HELD)
        assert await heir.dead(is_starting=True) == []


async def test_the_last_note_counts_however_short_it_is(url: str) -> None:
    async with notes(url, "heir") as heir:
        other = open_notes(url, "stock", "other")
        assert other is not None
        await other.open()
        other.write(HELD)
        other.write(HELD[1:])
        await asyncio.sleep(0.1)  # PostgreSQL: what is written soon
        await _die(other)
        (left,) = await left_to(heir)
        assert left.replies == HELD[1:]


async def _die(dead: Notes) -> None:
    """Let go of the lock as a process that dies does, which removes nothing."""
    if isinstance(dead, note_files.NoteFiles):
        assert dead._file is not None
        os.close(dead._file)
        dead._file = None
    elif isinstance(dead, note_rows.NoteRows):
        await dead._disconnect()
        await dead._engine.dispose()


def test_a_note_that_was_being_written_when_its_process_died_says_nothing() -> None:
    text_of_both = "\n".join(HELD).encode()
    note = note_files.HEAD % (1, len(text_of_both), zlib.crc32(text_of_both)) + text_of_both
    assert note_files._read("torn", note).replies == HELD
    assert note_files._read("torn", note.replace(b"1.8.4", b"1.9.5")).replies == ()
    assert note_files._read("torn", note[:-1]).replies == ()
    assert note_files._read("torn", note[:5]).replies == ()
    assert note_files._read("torn", b"").replies == ()


async def test_a_file_that_is_not_locked_yet_is_made_anew(tmp_path: Path) -> None:
    """Another process looks between the making of a file and its lock, and removes it."""
    url = sqlite_url(tmp_path)
    async with notes(url, "heir") as heir:
        assert isinstance(heir, note_files.NoteFiles)
        other = open_notes(url, "stock", "other")
        assert isinstance(other, note_files.NoteFiles)
        (heir._folder / "stock.other.new").touch()
        assert await heir.dead(is_starting=True) == []
        assert not (heir._folder / "stock.other.new").exists()
        await other.open()
        other.write(HELD)
        assert await heir.dead(is_starting=True) == []
        await _die(other)
        assert [left.replies for left in await left_to(heir)] == [HELD]


async def test_a_session_that_was_lost_is_begun_anew_with_its_lock(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(note_rows, "RESTART_SECONDS", 0)
    url: str = request.getfixturevalue("postgres_server").new_database()
    async with notes(url, "holder") as holder, notes(url, "heir") as heir:
        assert isinstance(holder, note_rows.NoteRows)
        holder.write(HELD)
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
        async with engine.connect() as connection:
            kill = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = :number"
            number = holder._lock_number & 0xFFFFFFFF
            assert (await connection.execute(text(kill), {"number": number})).all() == [(True,)]
        await engine.dispose()

        former = holder._session

        def writes_again() -> bool:
            holder.write(HELD)
            return holder._session not in (None, former) and not holder._is_failing

        await until(writes_again)
        assert await heir.dead(is_starting=False) == [], "it has spoken lately"


async def test_behind_a_pooler_that_knows_no_prepared_statement_a_note_is_sent_whole(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(note_rows, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(note_rows, "RESTART_SECONDS", 0)
    url: str = request.getfixturevalue("postgres_server").new_database()
    async with notes(url, "heir") as heir:
        other = open_notes(url, "stock", "other")
        assert isinstance(other, note_rows.NoteRows)
        await other.open()
        assert other._session is not None
        await other._session.execute(text("DEALLOCATE antiphon_note"))  # as where another session has the next turn
        for held in (HELD[:1], HELD):
            other.write(held)
            await asyncio.gather(*filter(None, [other._writing]))
        assert not other._is_failing
        await _die(other)
        assert [left.replies for left in await left_to(heir)] == [HELD]


async def test_after_a_start_of_the_database_nobody_is_taken_for_dead(request: pytest.FixtureRequest) -> None:
    """All sessions were lost, and their processes live."""
    url: str = request.getfixturevalue("postgres_server").new_database()
    async with notes(url, "heir") as heir:
        other = open_notes(url, "stock", "other")
        assert isinstance(other, note_rows.NoteRows)
        await other.open()
        await _die(other)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(note_rows, "RESTART_SECONDS", 10**9)
            assert await heir.dead(is_starting=True) == []
        assert await left_to(heir)


def test_what_lives_in_memory_leaves_nothing() -> None:
    assert open_notes("memory:", "stock", "one") is None
    assert open_notes("sqlite://", "stock", "one") is None


@pytest.mark.parametrize("open_", [lambda url: open_notes(url, "stock", "w1"), open_database])
def test_what_is_no_database_of_a_participant_is_called_so(open_: Callable[[str], object]) -> None:
    with pytest.raises(
        PlatformError,
        match=r"what was given \(not shown, .*\) is no database that a participant can use\. Give sqlite:///path",
    ):
        open_("foo.db")
