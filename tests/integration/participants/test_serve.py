"""The participant's process: told to stop it loses nothing, and what it lacks at the start is a sentence."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from antiphon.contracts import PlatformError, RightsMissing, ServerUnreachable, StreamMissing
from antiphon.participants import open_database, serve
from tests.support.server import platform, until

from .play import Play, play
from .stock import Stock, Store, sqlite_url
from .test_worker import ONCE

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def process(
    playing: Play, folder: Path, grace_seconds: float, module: str = "process"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The stock as a process of its own, with its files in the folder."""
    arguments = [playing.up.servers, sqlite_url(folder), str(grace_seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", f"tests.integration.participants.{module}", *arguments]
    child = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_handler_finish_and_the_process_ends_well(number: int, tmp_path: Path) -> None:
    async with play(tmp_path) as playing, process(playing, tmp_path, grace_seconds=20.0) as child:
        await playing.do("s1")
        await until((tmp_path / "s1.called").exists, what="the handler")
        child.send_signal(number)
        (tmp_path / "s1.go").touch()
        assert await child.wait() == 0
        await playing.answer("s1", "stock-reserved")
        await playing.is_settled()


async def test_what_a_handler_cannot_finish_within_the_grace_is_handed_back_and_no_attempt(tmp_path: Path) -> None:
    async with play(tmp_path) as playing:
        async with process(playing, tmp_path, grace_seconds=0.1) as child:
            await playing.do("s1", retry=ONCE)
            await until((tmp_path / "s1.called").exists, what="the handler")
            child.terminate()
            assert await child.wait() == 0
        store = Store("sqlite", sqlite_url(tmp_path))
        await playing.worker(Stock(), await store.open())
        await playing.answer("s1", "stock-reserved")
        assert await store.effects() == ["reserved"]
        await store.close()


@pytest.mark.parametrize("saga", ["exits", "interrupts"])
async def test_a_handler_that_wants_the_process_to_end_has_failed_and_the_process_goes_on(
    saga: str, tmp_path: Path
) -> None:
    async with play(tmp_path) as playing, process(playing, tmp_path, 0.1, "wild") as child:
        await playing.do(saga)
        await playing.answer(saga, "stock-reserve-exhausted")
        await playing.do("healthy")
        await playing.answer("healthy", "stock-reserved")
        assert child.returncode is None
        child.terminate()
        assert await child.wait() == 0


async def test_a_process_that_is_told_to_end_does_although_something_in_it_never_will(tmp_path: Path) -> None:
    """All of them at once, because each waits as long as it would in production."""

    async def ends(saga: str, number: signal.Signals) -> None:
        folder, what = tmp_path / f"{saga}-{number}", f"{saga} and {number.name}"
        folder.mkdir()
        async with play(folder, ack_wait_seconds=0.5) as playing:
            async with process(playing, folder, 0.1, "wild") as child:
                await playing.do(saga, retry=ONCE)
                await until((folder / f"{saga}.called").exists, what=f"the handler of {what}")
                child.send_signal(number)
                code = await asyncio.wait_for(child.wait(), 120)
                assert code == 1, f"{what}: its exit code says that something was left"
            store = Store("sqlite", sqlite_url(folder))
            await playing.worker(Stock(), await store.open())
            await playing.answer(saga, "stock-reserved")
            assert await store.effects() == ["reserved"], what
            await store.close()

    numbers = (signal.SIGTERM, signal.SIGINT)
    await asyncio.gather(*(ends(saga, number) for saga in ("deaf", "threads", "blocks") for number in numbers))


async def test_a_consumer_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["antiphon.link.setup"], "CONSUMER_SECONDS", 0.2)
    with platform(tmp_path, participants=("billing",)) as up:
        await up.set_up()
        with pytest.raises(StreamMissing, match=r"no consumer stock of .* SAGA.*antiphon setup --participant stock"):
            await serve(Stock().participant, up.servers, "memory:")


async def test_a_stream_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["antiphon.link.setup"], "CONSUMER_SECONDS", 0.2)
    with platform(tmp_path, participants=()) as up, pytest.raises(StreamMissing, match="Create it once, as admin"):
        await serve(Stock().participant, up.servers, "memory:")


async def test_a_server_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ServerUnreachable, match="no NATS server answers"):
        await serve(Stock().participant, "nats://127.0.0.1:1", "memory:")


async def test_a_right_that_is_missing_ends_the_process_with_its_subject(tmp_path: Path) -> None:
    with platform(tmp_path, "accounts", participants=("stock", "billing")) as up:
        await up.set_up()
        with pytest.raises(RightsMissing, match=r"(?i)CONSUMER\.MSG\.NEXT\.SAGA\.stock"):
            await serve(Stock().participant, up.servers, "memory:", credentials=up.credentials("billing"))


async def test_a_database_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    async with play(tmp_path) as playing:
        with pytest.raises(PlatformError, match="cannot be used"):
            await serve(Stock().participant, playing.up.servers, f"sqlite:///{tmp_path}/absent/stock.db")


EXTRAS = [("sqlite:///x", "aiosqlite", "sqlite"), ("postgresql://x/y", "asyncpg", "postgres")]


@pytest.mark.parametrize(("url", "module", "extra"), EXTRAS)
def test_a_missing_extra_is_named(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PlatformError, match=rf"pip install 'antiphon\[{extra}\]'"):
        open_database(url)


async def test_a_worker_over_memory_needs_no_sqlalchemy() -> None:
    code = "import sys, antiphon.participants as p; p.open_database('memory:'); sys.exit('sqlalchemy' in sys.modules)"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await child.wait() == 0
