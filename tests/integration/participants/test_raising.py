"""Whatever an author's code raises or does is an attempt like any other: it costs no place, no process, no silence."""

from __future__ import annotations

import asyncio
import contextlib
import math
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from antiphon.contracts import Command, Refused, Retry, Unavailable, Unrecoverable
from antiphon.contracts.envelope import unpack_raw
from antiphon.contracts.messages import Refusal
from antiphon.participants import Transaction, calling, jobs
from antiphon.participants.inbox import Spent
from antiphon.participants.memory import MemoryDatabase
from tests.support.server import until

from . import stock as stock_module
from .places import PLACES, Place, acting
from .play import Play, come, envelope_of, play, subject_of
from .stock import Gate, Reserve, Reserved, Stock, Store

ONCE = Retry(attempts=1, first_seconds=100.0, factor=1.0, cap_seconds=100.0, jitter=0.0)


class Panic(BaseException):
    """What an extension in Rust raises when it panics."""


def raised() -> dict[str, BaseException]:
    return {
        "panic": Panic("called `unwrap()` on a `None` value"),
        "exit": SystemExit(3),
        "exit-well": SystemExit(0),
        "interrupt": KeyboardInterrupt(),
        "generator": GeneratorExit(),
        "cancelled": asyncio.CancelledError("by what it calls"),
        "group": BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError("one")]),
        "error": ValueError("one"),
    }


class Picky(Command[Reserved], name="stock.picky"):
    what: str

    def __post_init__(self) -> None:
        if self.what != "fine":
            raise {"exit": SystemExit(0), "zero": ZeroDivisionError("Ada"), "value": ValueError("Ada")}[self.what]


@pytest.fixture
async def playing(tmp_path: Path) -> AsyncIterator[Play]:
    async with play(tmp_path) as found:
        yield found


# --- whatever it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
async def test_whatever_is_raised_is_a_failed_attempt_and_leaves_the_place_free(
    place: Place, store: Store, tmp_path: Path
) -> None:
    async with acting(place, tmp_path) as act:
        database, sagas, left = await store.open(), raised(), dict.fromkeys(raised(), 2)

        async def raise_twice(tx: Transaction) -> None:
            left[tx.saga_id] -= 1
            if left[tx.saga_id] >= 0:
                raise sagas[tx.saga_id]

        await act.worker(database, concurrency=1, undo_concurrency=1)
        for saga in sagas:
            await act.prepare(saga)
        act.act(raise_twice)
        messages = {saga: await act.ask(saga) for saga in sagas}
        for saga, message in messages.items():
            await act.is_done(saga)
            assert (await database.note(message, Spent())).failed == 2, saga
        assert len(await store.effects()) == len(sagas) * (1 if place in ("do", "react") else 2)


@pytest.mark.parametrize("place", PLACES)
async def test_what_always_raises_runs_out_of_attempts_and_the_reason_is_its_class(
    place: Place, tmp_path: Path
) -> None:
    async with acting(place, tmp_path) as act:
        sagas = raised()

        async def raise_it(tx: Transaction) -> None:
            raise sagas[tx.saga_id]

        await act.worker()
        for saga in sagas:
            await act.prepare(saga)
        act.act(raise_it)
        for saga, error in sagas.items():
            await act.ask(saga)
            assert await act.reason(saga) == type(error).__name__
        if act.is_asked:
            assert act.calls == len(sagas) * act.retry.attempts


@pytest.mark.parametrize("place", PLACES)
async def test_a_timeout_that_cancels_the_task_itself_is_a_failed_attempt_with_backoff(
    place: Place, tmp_path: Path
) -> None:
    """A helper that cancels without `uncancel()` leaves a task that looks as if somebody wanted it to end."""

    async def time_out(tx: Transaction) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TimeoutError("the gateway is slow") from None

    async def wait_for_nobody(tx: Transaction) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with acting(place, tmp_path) as act:

        async def both(tx: Transaction) -> None:
            try:
                await time_out(tx)
            except TimeoutError:
                await wait_for_nobody(tx)

        await act.worker()
        await act.prepare("s1")
        act.act(both)
        with capture_logs() as lines:
            await act.ask("s1")
            assert await act.reason("s1") == "CancelledError"
        said = [line for line in lines if line["event"] in ("attempt.failed", "attempts.exhausted")]
        assert [line["tries"] for line in said][:3] == [1, 2, 3]


@pytest.mark.parametrize("place", PLACES)
async def test_what_is_cancelled_by_itself_during_a_drain_has_failed_too(place: Place, tmp_path: Path) -> None:
    async with acting(place, tmp_path) as act:
        gate, database = Gate(), MemoryDatabase()
        worker = await act.worker(database)

        async def wait_and_give_up(tx: Transaction) -> None:
            await gate(tx)
            raise asyncio.CancelledError

        await act.prepare("s1")
        act.act(wait_and_give_up)
        message = await act.ask("s1")
        await gate.reached.wait()
        draining = asyncio.create_task(worker.drain(grace_seconds=20.0))
        await until(lambda: worker._jobs.is_draining, what="the drain")
        gate.opened.set()
        await draining
        assert database.spent[message].failed == 1


@pytest.mark.parametrize("place", PLACES)
async def test_whatever_a_drain_makes_of_a_handler_is_no_attempt(place: Place, tmp_path: Path) -> None:
    """Its client turns the cancel into an error of its own, or into a panic."""
    async with acting(place, tmp_path) as act:
        database, inside, errors = MemoryDatabase(), 0, {**raised(), "unavailable": Unavailable("closing")}

        async def translate(tx: Transaction) -> None:
            nonlocal inside
            inside += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise errors[tx.saga_id] from None

        worker = await act.worker(database, undo_concurrency=16)
        for saga in errors:
            await act.prepare(saga)
        act.act(translate)
        messages = [await act.ask(saga) for saga in errors]
        await until(lambda: inside == len(errors), what="all of them inside")
        await worker.drain(grace_seconds=0.0)
        found = [database.spent[message] for message in messages]
        assert found == [Spent(returned=1)] * len(errors)


async def test_a_message_whose_class_raises_anything_is_set_aside_and_the_place_is_free(playing: Play) -> None:
    """The author's own `__post_init__` runs where bytes become a command."""
    stock = Stock()

    @stock.participant.handles(Picky)
    async def pick(command: Picky, tx: Transaction) -> Reserved:
        return Reserved(reservation_id="r-1")

    await playing.worker(stock, concurrency=1)
    for what in ("exit", "zero", "value"):
        data = envelope_of(subject_of(what), Picky(what="fine")).replace(b'"fine"', f'"{what}"'.encode())
        await playing.link.store(subject_of(what), data)
        answer = await playing.answer(what, "stock-picky-exhausted")
        assert "Ada" not in unpack_raw(answer.data, Refusal).reason
    await playing.do("healthy")
    await playing.answer("healthy", "stock-reserved")


# --- refusals and the like --------------------------------------------------------------------------------------------

NO_REASON = "refused without a reason"


class Unprintable:
    def __str__(self) -> str:
        raise ZeroDivisionError


class OutOfStock(Refused):
    def __init__(self, item: str) -> None:
        self.item = item


REFUSALS: list[tuple[Callable[[], Any], str]] = [
    (lambda: Refused(404), "404"),  # type: ignore[arg-type]
    (lambda: Refused(None), NO_REASON),  # type: ignore[arg-type]
    (lambda: Refused, NO_REASON),
    (lambda: Refused(""), NO_REASON),
    (lambda: Refused(Unprintable()), "Unprintable"),  # type: ignore[arg-type]
    (lambda: Refused("half \ud83d a face"), "half \\ud83d a face"),
    (lambda: Refused("x" * 5000), "x" * 1000),
    (lambda: Refused("a\x00b"), "a\x00b"),
    (lambda: OutOfStock("pens"), "pens"),
]


async def test_a_refusal_is_one_whatever_its_reason_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_module, "ANSWER_CHARS_MAX", 2000)
    database = await store.open()
    for number, (make, said) in enumerate(REFUSALS):

        async def refuse(tx: Transaction, make: Callable[[], Any] = make) -> None:
            raise make()

        for _ in range(2):
            assert await Stock(on_reserve=refuse).do(database, saga=f"s{number}") == ("refused", said)


async def test_a_reaction_that_refuses_is_refused_whatever_its_reason_is(tmp_path: Path) -> None:
    async with acting("react", tmp_path) as act:

        async def refuse(tx: Transaction) -> None:
            raise REFUSALS[int(tx.saga_id)][0]()

        act.act(refuse)
        await act.worker()
        for number, (_, said) in enumerate(REFUSALS):
            await act.ask(str(number))
            event = await act.playing.follows(str(number), "stock-short", "on-shop-ordered")
            assert unpack_raw(event.data, Refusal).reason == said


@pytest.mark.parametrize("place", PLACES)
async def test_unavailable_and_unrecoverable_take_any_reason(place: Place, tmp_path: Path) -> None:
    made: dict[str, tuple[Callable[[], Any], str]] = {
        "number": (lambda: Unavailable(503), "503"),  # type: ignore[arg-type]
        "none": (lambda: Unavailable(None), "unavailable without a reason"),  # type: ignore[arg-type]
        "bare": (lambda: Unavailable, "unavailable without a reason"),
        "half": (lambda: Unavailable("half \ud83d"), "half \\ud83d"),
        "for-good": (lambda: Unrecoverable, "unrecoverable without a reason"),
        "for-good-404": (lambda: Unrecoverable(404), "404"),  # type: ignore[arg-type]
        "endless": (lambda: Unavailable("closed", math.inf), "closed"),
        "nan": (lambda: Unavailable("closed", math.nan), "closed"),
        "words": (lambda: Unavailable("closed", "soon"), "closed"),  # type: ignore[arg-type]
    }
    async with acting(place, tmp_path, ONCE) as act:

        async def raise_it(tx: Transaction) -> None:
            raise made[tx.saga_id][0]()

        await act.worker()
        for saga in made:
            await act.prepare(saga)
        act.act(raise_it)
        for saga, (_, said) in made.items():
            await act.ask(saga)
            assert await act.reason(saga) == said


@pytest.mark.parametrize("wait", [timedelta(seconds=0.01), "soon", math.nan, -1.0, None])
async def test_any_wait_that_a_handler_asks_for_leads_to_another_attempt(wait: Any, playing: Play) -> None:
    stock = Stock()

    async def fail_once(tx: Transaction) -> None:
        if len(stock.calls) == 1:
            raise Unavailable("closed", retry_after=wait)

    stock.on_reserve = fail_once
    await playing.worker(stock)
    await playing.do("s1")
    await playing.answer("s1", "stock-reserved")
    assert stock.calls == ["reserve"] * 2


# --- what is said of it -----------------------------------------------------------------------------------------------


def divide(tx: Transaction) -> int:
    return len(tx.saga_id) // 0


@pytest.mark.parametrize("place", PLACES)
async def test_each_failed_attempt_is_one_traceback_with_saga_step_and_attempt(place: Place, tmp_path: Path) -> None:
    async with acting(place, tmp_path) as act:

        async def fail(tx: Transaction) -> None:
            divide(tx)

        await act.worker()
        await act.prepare("s1")
        act.act(fail)
        with capture_logs() as lines:
            await act.ask("s1")
            assert await act.reason("s1") == "ZeroDivisionError"
        told = [line for line in lines if line.get("exc_info")][:3]
        assert [line["tries"] for line in told] == [1, 2, 3]
        for line in told:
            assert (line["saga"], line["step"], line["attempt"]) == (act.key("s1"), act.step, 1)
            assert line["reason"] == "ZeroDivisionError"
            assert line["exc_info"].__traceback__.tb_next is not None, "there is no line of the author's"


async def test_a_panic_shows_where_it_was_raised(playing: Play) -> None:
    async def panic(tx: Transaction) -> None:
        raise Panic("at lib.rs:7")

    await playing.worker(Stock(on_reserve=panic))
    with capture_logs() as lines:
        await playing.do("s1", retry=ONCE)
        await playing.answer("s1", "stock-reserve-exhausted")
    (line,) = [line for line in lines if line.get("exc_info")]
    written = "".join(traceback.format_exception(line["exc_info"]))
    assert "test_raising.py" in written
    assert "in panic" in written
    assert "at lib.rs:7" in written


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", [Refused("sold out"), Unavailable("closed")])
async def test_what_is_said_on_purpose_has_no_traceback(place: Place, error: Exception, tmp_path: Path) -> None:
    if place == "react" and isinstance(error, Refused):
        return  # that is no failure

    async def say(tx: Transaction) -> None:
        raise error

    async with acting(place, tmp_path) as act:
        await act.worker()
        await act.prepare("s1")
        act.act(say)
        with capture_logs() as lines:
            await act.ask("s1")
            if place == "do" and isinstance(error, Refused):
                await act.playing.answer("s1", "stock-reserve-refused")
            else:
                assert await act.reason("s1") == str(error)
        assert [line for line in lines if line.get("exc_info")] == []


@pytest.mark.parametrize("place", PLACES)
async def test_the_text_of_an_error_stays_in_the_log_unless_a_participant_wants_it_to_travel(
    place: Place, tmp_path: Path
) -> None:
    async def fail(tx: Transaction) -> None:
        raise ValueError("card 4929 1234 5678 9012 of Ada \ud83d")

    for texts, said in ((False, "ValueError"), (True, "ValueError: card 4929 1234 5678 9012 of Ada \\ud83d")):
        async with acting(place, tmp_path / str(texts)) as act:
            await act.worker(error_texts=texts)
            await act.prepare("s1")
            act.act(fail)
            await act.ask("s1")
            assert await act.reason("s1") == said


async def test_what_a_handler_returned_by_mistake_is_named_by_its_class_alone(playing: Play) -> None:
    stock = Stock()
    stock.participant.handlers.clear()

    @stock.participant.handles(Reserve)
    async def reserve(command: Reserve, tx: Transaction) -> Reserved:
        return {"card": "4929 1234 5678 9012"}  # type: ignore[return-value]

    await playing.worker(stock)
    await playing.do("s1", retry=ONCE)
    answer = await playing.answer("s1", "stock-reserve-exhausted")
    said = unpack_raw(answer.data, Refusal).reason
    assert said == "the handler of Reserve returned a dict, not Reserved"


async def test_an_error_that_cannot_be_printed_is_an_attempt_too(playing: Play) -> None:
    class Hollow(Exception):
        def __str__(self) -> str:
            raise SystemExit(0)

    async def fail(tx: Transaction) -> None:
        raise Hollow

    await playing.worker(Stock(on_reserve=fail), error_texts=True)
    await playing.do("s1", retry=ONCE)
    answer = await playing.answer("s1", "stock-reserve-exhausted")
    assert unpack_raw(answer.data, Refusal).reason == "Hollow"


# --- overdue ----------------------------------------------------------------------------------------------------------

OVERDUE: dict[str, Any] = {"handler_seconds": 0.2, "ack_wait_seconds": 0.3}


async def stand_still(tx: Transaction) -> None:
    await asyncio.Event().wait()


def deaf_until(free: asyncio.Event) -> Callable[[Transaction], Any]:
    """A handler that goes on however often it is cancelled, until the test lets it go."""

    async def hear_nothing(tx: Transaction) -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    return hear_nothing


@pytest.mark.parametrize("place", PLACES)
async def test_what_is_overdue_is_told_with_where_it_stands_and_has_failed(place: Place, tmp_path: Path) -> None:
    async with acting(place, tmp_path, ONCE) as act:
        await act.worker(**OVERDUE)
        await act.prepare("s1")
        act.act(stand_still)
        with capture_logs() as lines:
            await act.ask("s1")
            said = await act.reason("s1")
        assert said.startswith("its handler had not returned after 0.2 s: it stood at ")
        assert "test_raising.py" in said
        assert "in stand_still" in said
        assert str(tmp_path.anchor + "work") not in said, "a path of this machine"
        line = next(line for line in lines if line["event"] == "handler.overdue")
        assert (line["saga"], line["step"], line["attempt"]) == (act.key("s1"), act.step, 1)
        assert "in stand_still" in line["stack"]
        assert "await asyncio.Event().wait()" in line["stack"]


@pytest.mark.parametrize("place", PLACES)
async def test_a_handler_that_is_deaf_to_cancels_gives_its_place_back_and_has_failed(
    place: Place, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "END_SECONDS", 0.1)
    free = asyncio.Event()
    async with acting(place, tmp_path, ONCE) as act:
        worker = await act.worker(await store.open(), concurrency=1, undo_concurrency=1, **OVERDUE)
        await act.prepare("s1")
        await act.prepare("s2")
        act.act(deaf_until(free))
        try:
            with capture_logs() as lines:
                await act.ask("s1")
                assert (await act.reason("s1")).endswith("and it goes on although it was cancelled")
            line = next(line for line in lines if line["event"] == "handler.deaf")
            assert "in hear_nothing" in line["stack"]
            assert worker.deaf >= 1
            act.act(Stock().on_reserve)
            await act.ask("s2")
            await act.is_done("s2")
        finally:
            free.set()
        await until(lambda: worker.deaf == 0, what="the end of what was deaf")
        before = 0 if place in ("do", "react") else 2
        assert len(await store.effects()) == before + 1


@pytest.mark.parametrize("place", PLACES)
async def test_a_drain_ends_although_a_handler_is_deaf_and_that_is_no_attempt(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "END_SECONDS", 0.1)
    free, database = asyncio.Event(), MemoryDatabase()
    async with acting(place, tmp_path, ONCE, ack_wait_seconds=1.0) as act:
        worker = await act.worker(database, ack_wait_seconds=1.0)
        await act.prepare("s1")
        act.act(deaf_until(free))
        before = act.calls
        message = await act.ask("s1")
        await until(lambda: act.calls > before, what="the call")
        try:
            with capture_logs() as lines:
                await worker.drain(grace_seconds=0.0)
            assert [line["event"] for line in lines].count("handler.deaf") == 1
            assert (worker.held, worker.deaf) == (0, 1)
            assert database.spent[message] == Spent(returned=1)
            act.act(Stock().on_reserve)
            await act.worker(database, ack_wait_seconds=1.0)
            await act.is_done("s1")
        finally:
            free.set()


async def test_a_handler_that_hears_its_cancel_late_and_returns_has_done_it(playing: Play) -> None:
    async def finish(tx: Transaction) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    database = MemoryDatabase()
    worker = await playing.worker(Stock(on_reserve=finish), database)
    await playing.do("s1", retry=ONCE)
    await until(lambda: worker.held == 1, what="the command")
    await worker.drain(grace_seconds=0.0)
    await playing.answer("s1", "stock-reserved")
    assert len(database.effects) == 1


async def test_what_waits_for_its_turn_too_long_was_never_called_and_is_no_attempt(
    playing: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row belongs to another worker, which takes its time."""
    monkeypatch.setattr(jobs, "BUSY_SECONDS", 0.05)
    gate, database = Gate(), MemoryDatabase()
    slow, quick = Stock(on_reserve=gate), Stock()
    holding = asyncio.create_task(slow.do(database, saga="s1"))
    await gate.reached.wait()
    await playing.worker(quick, database, **OVERDUE)
    await playing.do("s1", retry=ONCE)
    message = subject_of("s1", "do", 1)

    async def handed_back() -> bool | None:
        return True if message in database.spent else None

    await come(handed_back, "the hand-back")
    assert database.spent[message].failed == 0
    gate.opened.set()
    await holding
    await playing.answer("s1", "stock-reserved")
    assert quick.calls == []


# --- tasks that a handler makes ---------------------------------------------------------------------------------------


async def _exits() -> None:
    raise SystemExit(3)


async def _interrupts() -> None:
    raise KeyboardInterrupt


async def _in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_exits())


async def _cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


CHILDREN: dict[str, Callable[[], Awaitable[object]]] = {
    "in a time-out": lambda: asyncio.wait_for(_exits(), 5),
    "gathered": lambda: asyncio.gather(_exits(), _interrupts()),
    "in a group": _in_a_group,
    "in a task": lambda: asyncio.ensure_future(_interrupts()),
    "cancelled by itself": _cancels_itself,
}


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN)
async def test_what_a_handlers_own_tasks_raise_is_an_attempt_too(
    child: Callable[[], Awaitable[object]], playing: Play
) -> None:
    stock = Stock()

    async def fail_once(tx: Transaction) -> None:
        if len(stock.calls) == 1:
            await child()

    stock.on_reserve = fail_once
    await playing.worker(stock)
    await playing.do("s1")
    await playing.answer("s1", "stock-reserved")
    assert stock.calls == ["reserve"] * 2
