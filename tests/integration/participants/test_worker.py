"""The worker over a real server, in both its forms: what it answers, when it acks, and how it stops."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from antiphon.contracts import Command, Event, Refused, SagaKey, Unavailable, Unrecoverable
from antiphon.contracts.envelope import Envelope, encode, unpack_raw
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.messages import Refusal, Settled, Undone
from antiphon.contracts.payloads import More, Parked
from antiphon.contracts.retry import Retry
from antiphon.contracts.subjects import Direction, event_subject
from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import ADVISORIES, PARKED
from antiphon.link import Outcome, Rejected, set_up
from antiphon.link.setup import api, room_of
from antiphon.participants import Transaction, Worker, answering
from antiphon.participants.answering import ANSWER_BYTES_MAX
from antiphon.participants.inbox import Spent
from antiphon.participants.memory import MemoryDatabase
from antiphon.participants.sqlite import SqliteDatabase
from tests.support.server import FORMS, Form, until

from .play import QUICK, TRACEPARENT, Play, envelope_of, play, subject_of
from .stock import Gate, Reserve, Reserved, Stock, effects_in, tables

ONCE = Retry(attempts=1)


@pytest.fixture
async def playing(tmp_path: Path) -> AsyncIterator[Play]:
    async with play(tmp_path) as found:
        yield found


def reason(answer: Envelope) -> str:
    return unpack_raw(answer.data, Refusal).reason


async def refuse(tx: Transaction) -> None:
    raise Refused("out of stock")


async def fail(tx: Transaction) -> None:
    raise Unavailable("the shelf is stuck")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_a_command_is_answered_with_its_event_and_acked(form: Form, tmp_path: Path) -> None:
    async with play(tmp_path, form) as playing:
        await playing.worker(Stock())
        sequence = await playing.do("s1", attempt=2)
        answer = await playing.answer("s1", "stock-reserved", attempt=2)
        assert answer.id == event_subject(SagaKey.of("order", "s1").path, "stock", "stock-reserved", "reserve", 2)
        assert (answer.source, answer.type, answer.command) == ("stock", "stock.reserved.v1", str(sequence))
        assert answer.traceparent == TRACEPARENT
        assert unpack_raw(answer.data, Reserved) == Reserved(reservation_id="r-1")
        assert answer.started is not None
        assert answer.started <= answer.time
        await playing.is_settled()


async def test_a_refusal_an_end_of_attempts_and_a_compensation_have_answers_of_their_own(playing: Play) -> None:
    stock = Stock(on_reserve=refuse)
    await playing.worker(stock)
    await playing.do("refused")
    refused = await playing.answer("refused", "stock-reserve-refused")
    assert (refused.type, reason(refused)) == ("stock.reserve.refused.v1", "out of stock")
    stock.on_reserve = fail
    await playing.do("exhausted")
    exhausted = await playing.answer("exhausted", "stock-reserve-exhausted")
    assert (exhausted.type, reason(exhausted)) == ("stock.reserve.exhausted.v1", "the shelf is stuck")
    await playing.undo("early")
    nothing = await playing.answer("early", "stock-release-done")
    assert (nothing.type, unpack_raw(nothing.data, Undone)) == ("stock.release.done.v1", Undone(found=False))
    await playing.do("early")
    late = await playing.answer("early", "stock-reserve-superseded")
    assert (late.type, reason(late)) == ("stock.reserve.superseded.v1", "it was undone or ruled out before")
    await playing.is_settled()
    await playing.is_settled("undo")


async def test_a_compensation_is_answered_for_each_of_its_attempts_and_acts_once(playing: Play) -> None:
    stock = Stock()
    await playing.worker(stock)
    await playing.do("s1")
    await playing.answer("s1", "stock-reserved")
    for attempt in (1, 2):
        await playing.undo("s1", attempt)
        answer = await playing.answer("s1", "stock-release-done", attempt)
        assert unpack_raw(answer.data, Undone) == Undone(found=True)
    assert stock.calls == ["reserve", "release"]


@pytest.mark.parametrize("form", FORMS)
async def test_what_became_of_a_command_can_be_asked(form: Form, tmp_path: Path) -> None:
    async with play(tmp_path, form) as playing:
        stock = Stock()
        await playing.worker(stock)
        await playing.do("there")
        await playing.answer("there", "stock-reserved")
        for attempt in (1, 2):
            sequence = await playing.settle("there", attempt)
            answer = await playing.answer("there", "stock-reserve-settled", attempt)
            assert (answer.type, answer.command, answer.started) == ("stock.reserve.settled.v1", str(sequence), None)
            settled = unpack_raw(answer.data, Settled)
            assert (settled.happened, settled.type) == (True, "stock.reserved.v1")
            assert unpack_raw(settled.reply, Reserved) == Reserved(reservation_id="r-1")
        await playing.settle("absent")
        assert bytes((await playing.answer("absent", "stock-reserve-settled")).data) == b'{"happened":false}'
        await playing.do("absent")
        await playing.answer("absent", "stock-reserve-superseded")
        await playing.is_settled()
        await playing.is_settled("undo")
        assert stock.calls == ["reserve"]


async def test_the_largest_answer_can_still_be_settled(playing: Play) -> None:
    stock = Stock()
    await playing.worker(stock)
    await playing.do("small")
    around = len(encode(await playing.answer("small", "stock-reserved"))) + 16
    stock.reservation_id = "r" * (ANSWER_BYTES_MAX - around)
    await playing.do("large")
    await playing.answer("large", "stock-reserved")
    await playing.settle("large")
    answer = await playing.answer("large", "stock-reserve-settled")
    assert len(encode(answer)) > ANSWER_BYTES_MAX
    reply = unpack_raw(unpack_raw(answer.data, Settled).reply, Reserved)
    assert reply.reservation_id == stock.reservation_id


async def test_the_handler_is_called_as_often_as_the_command_allows(playing: Play) -> None:
    stock = Stock(on_reserve=fail, on_release=refuse)
    await playing.worker(stock)
    await playing.do("s1")
    assert reason(await playing.answer("s1", "stock-reserve-exhausted")) == "the shelf is stuck"
    assert stock.calls == ["reserve"] * 3
    stock.on_reserve = Stock().on_reserve
    await playing.do("s2")
    await playing.answer("s2", "stock-reserved")
    await playing.undo("s2")
    assert reason(await playing.answer("s2", "stock-release-exhausted")) == "out of stock"
    assert stock.calls.count("release") == 3


async def test_past_the_pivot_a_refusal_is_an_attempt_like_any_other(playing: Play) -> None:
    stock = Stock(on_reserve=refuse)
    await playing.worker(stock)
    await playing.send("s1", "do", 1, Reserve(), QUICK, retriable=True)
    assert reason(await playing.answer("s1", "stock-reserve-exhausted")) == "out of stock"
    assert stock.calls == ["reserve"] * 3
    stock.on_reserve = Stock().on_reserve
    await playing.send("s1", "do", 2, Reserve(), QUICK, retriable=True)
    await playing.answer("s1", "stock-reserved", attempt=2)
    await playing.is_settled()


@pytest.mark.parametrize("direction", ["do", "undo"])
async def test_what_cannot_be_mended_is_exhausted_at_once(playing: Play, direction: Direction) -> None:
    async def give_up(tx: Transaction) -> None:
        raise Unrecoverable("the shelf is gone")

    stock = Stock(on_release=give_up)
    await playing.worker(stock)
    if direction == "undo":
        await playing.do("s1")
        await playing.answer("s1", "stock-reserved")
        await playing.undo("s1")
        answer = await playing.answer("s1", "stock-release-exhausted")
    else:
        stock.on_reserve = give_up
        await playing.do("s1")
        answer = await playing.answer("s1", "stock-reserve-exhausted")
    assert reason(answer) == "the shelf is gone"
    assert stock.calls.count("reserve" if direction == "do" else "release") == 1
    await playing.is_settled(direction)


async def test_an_unexpected_error_is_an_attempt_and_told_by_its_class(playing: Play) -> None:
    async def break_down(tx: Transaction) -> None:
        raise ZeroDivisionError("one by none")

    stock = Stock(on_reserve=break_down)
    await playing.worker(stock)
    await playing.do("s1", retry=ONCE)
    assert reason(await playing.answer("s1", "stock-reserve-exhausted")) == "ZeroDivisionError"


async def test_a_handler_that_is_cancelled_by_what_it_calls_has_failed(playing: Play) -> None:
    async def give_up(tx: Transaction) -> None:
        raise asyncio.CancelledError

    await playing.worker(Stock(on_reserve=give_up))
    await playing.do("s1")
    assert reason(await playing.answer("s1", "stock-reserve-exhausted")) == "CancelledError"


async def test_a_handler_that_never_returns_is_cancelled_and_has_failed(playing: Play) -> None:
    async def hang(tx: Transaction) -> None:
        await asyncio.Event().wait()

    await playing.worker(Stock(on_reserve=hang), handler_seconds=0.2, ack_wait_seconds=0.3)
    await playing.do("s1", retry=ONCE)
    answer = await playing.answer("s1", "stock-reserve-exhausted")
    assert reason(answer).startswith("its handler had not returned after 0.2 s: it stood at ")


async def test_commands_that_are_cancelled_with_their_process_have_not_failed(tmp_path: Path) -> None:
    """They are lost, since a handler may have ended the loop: another delivery calls the handler alone."""
    gate = Gate()
    async with play(tmp_path, ack_wait_seconds=0.5) as playing:
        worker = await playing.worker(Stock(on_reserve=gate))
        sequence = await playing.do("s1", retry=ONCE)
        await gate.reached.wait()
        (job,) = worker._jobs.held
        assert job.task is not None
        job.task.cancel()  # as the end of the loop does, before anybody has called drain
        await until(lambda: job not in worker._jobs.held)
        gate.opened.set()
        answer = await playing.answer("s1", "stock-reserved")
        assert answer.command == str(sequence)


async def test_the_next_attempt_waits_as_long_as_the_handler_asks(playing: Play) -> None:
    called: list[float] = []

    async def wait(tx: Transaction) -> None:
        called.append(time.monotonic())
        if len(called) == 1:
            raise Unavailable("closed", retry_after=0.3)

    await playing.worker(Stock(on_reserve=wait), chance=lambda: 0.0)
    await playing.do("s1")
    await playing.answer("s1", "stock-reserved")
    assert called[1] - called[0] >= 0.3


async def test_an_answer_larger_than_the_protocol_allows_leaves_no_effect(playing: Play) -> None:
    database = MemoryDatabase()
    await playing.worker(Stock(reservation_id="r" * 300_000), database)
    await playing.do("s1")
    assert "cannot be sent" in reason(await playing.answer("s1", "stock-reserve-exhausted"))
    assert database.effects == []


# --- acks -------------------------------------------------------------------------------------------------------------


async def test_a_command_is_acked_after_its_event_is_stored(playing: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost confirmation: the event is sent again, found stored, and only then is the command acked."""
    monkeypatch.setattr(answering, "PUBLISH_AGAIN_SECONDS", 0.05)
    worker = await playing.worker(Stock())
    answered = spoil_first(worker, lambda outcome: Ambiguous("lost"))
    await playing.do("s1")
    await playing.answer("s1", "stock-reserved")
    await playing.is_settled()
    assert [type(outcome).__name__ for outcome in answered] == ["int", "AlreadyStored"]


async def test_a_rejected_event_sends_the_command_back_and_comes_from_the_inbox(playing: Play) -> None:
    stock = Stock()
    worker = await playing.worker(stock, chance=lambda: 0.0)
    spoil_first(worker, lambda outcome: Rejected("the stream is full"))
    await playing.do("s1", retry=ONCE)
    await playing.answer("s1", "stock-reserved")
    await playing.is_settled()
    assert stock.calls == ["reserve"]


def spoil_first(worker: Worker, change: Callable[[Outcome], Outcome]) -> list[Outcome]:
    """Have the first publish end otherwise than it did; gives all outcomes as the server meant them."""
    link, real, seen = worker._link, worker._link.publish, list[Outcome]()

    def publish(subject: str, data: bytes, headers: str, then: Callable[[Outcome], None]) -> None:
        def hear(outcome: Outcome) -> None:
            seen.append(outcome)
            then(change(outcome) if len(seen) == 1 else outcome)

        real(subject, data, headers, hear)

    link.publish = publish  # type: ignore[method-assign]
    return seen


async def test_a_handler_that_runs_long_keeps_its_command(tmp_path: Path) -> None:
    async with play(tmp_path, ack_wait_seconds=0.6) as playing:
        gate = Gate()
        stock = Stock(on_reserve=gate)
        await playing.worker(stock, ack_wait_seconds=0.6)
        await playing.do("s1")
        await gate.reached.wait()
        await asyncio.sleep(1.5)  # two and a half times the ack wait
        assert (await playing.consumer())["num_redelivered"] == 0
        gate.opened.set()
        await playing.answer("s1", "stock-reserved")
        assert stock.calls == ["reserve"]


async def test_a_worker_that_lost_its_lease_and_goes_on_commits_nothing_twice(tmp_path: Path) -> None:
    async with play(tmp_path, ack_wait_seconds=0.3) as playing:
        gate, database = Gate(), MemoryDatabase()
        slow, other = Stock(on_reserve=gate), Stock(reservation_id="r-2")
        await playing.worker(slow, database, ack_wait_seconds=100.0)
        await playing.do("s1", retry=ONCE)
        await gate.reached.wait()
        second = await playing.worker(other, database)
        await until(lambda: second.held == 1 or slow.calls == ["reserve"] * 2, what="the redelivery")
        gate.opened.set()
        await playing.answer("s1", "stock-reserved")
        await playing.is_settled()
        assert effects_in(database) == ["reserved"]
        assert (slow.calls, other.calls) == (["reserve"], [])


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_bytes_that_are_no_command_are_parked_and_the_rest_goes_on(form: Form, tmp_path: Path) -> None:
    async with play(tmp_path, form) as playing:
        subject = subject_of("s1")
        sequence = await playing.link.store(subject, b'{"specversion":"1.0", "type":')
        await playing.worker(Stock())
        await playing.do("s2")
        await playing.answer("s2", "stock-reserved")
        stored = await playing.parked()
        parked = msgspec.json.decode(stored.data, type=Parked)
        assert stored.subject == "parked.undecodable.stock.coordinator"
        assert (parked.stream, parked.sequence, parked.subject) == ("SAGA", sequence, subject)
        assert parked.data == b'{"specversion":"1.0", "type":'
        assert "no JSON" in parked.reason
        await playing.is_settled()
        assert await playing.answers("s1") == []


async def test_a_command_of_the_wrong_shape_is_parked_and_answered(playing: Play) -> None:
    subject = subject_of("s1")
    await playing.link.store(subject, envelope_of(subject, Reserve(), data=msgspec.Raw(b'{"pieces":"many"}')))
    await playing.worker(Stock())
    assert "Reserve: Expected `int`, got `str` - at `$.pieces`" in reason(
        await playing.answer("s1", "stock-reserve-exhausted")
    )
    stored = await playing.parked()
    assert stored.subject == "parked.undecodable.stock.coordinator"
    assert "$.pieces" in msgspec.json.decode(stored.data, type=Parked).reason
    await playing.is_settled()


async def test_an_envelope_that_is_wrong_is_answered_by_what_it_says_it_is(playing: Play) -> None:
    await playing.link.store(subject_of("s1"), b'{"specversion":"1.0","type":"stock.reserve.v1"}')
    await playing.worker(Stock())
    assert "the envelope is wrong" in reason(await playing.answer("s1", "stock-reserve-exhausted"))
    await playing.is_settled()


async def test_a_message_too_large_for_the_protocol_is_parked_in_part(playing: Play) -> None:
    await playing.link.store(subject_of("s1"), b"x" * 900_000)
    await playing.worker(Stock())
    parked = msgspec.json.decode((await playing.parked()).data, type=Parked)
    assert (parked.kind, len(parked.data)) == ("undecodable", 512 * 1024)
    assert "900000 bytes" in parked.reason
    await playing.is_settled()


async def test_an_envelope_that_contradicts_its_subject_is_parked_as_forged_and_not_answered(playing: Play) -> None:
    await playing.link.store(subject_of("s1"), envelope_of(subject_of("s2"), Reserve()))
    stock = Stock()
    await playing.worker(stock)
    parked = await playing.parked()
    assert parked.subject == "parked.forged.stock.coordinator"
    await playing.is_settled()
    assert await playing.answers("s1") == await playing.answers("s2") == []
    assert stock.calls == []


async def test_an_unknown_type_waits_for_a_worker_that_knows_it(playing: Play) -> None:
    """As while a new version of the participant is being rolled out."""
    old, new = Stock(), Stock()
    old.participant.handlers.clear()
    first = await playing.worker(old)
    await playing.do("s1", retry=Retry(attempts=1000, first_seconds=0.01, factor=1.0, cap_seconds=0.01))
    await until(lambda: first.pulls[0].held == 0, what="the first hand-back")
    await playing.worker(new)
    await playing.answer("s1", "stock-reserved")
    assert (len(old.calls), len(new.calls)) == (0, 1)


async def test_a_type_that_nobody_knows_is_parked_and_answered_when_its_attempts_run_out(playing: Play) -> None:
    stock = Stock()
    stock.participant.compensations.clear()
    await playing.worker(stock)
    await playing.undo("s1")
    assert "no handler for stock.release.v1" in reason(await playing.answer("s1", "stock-release-exhausted"))
    assert (await playing.parked()).subject == "parked.unhandled.stock.coordinator"
    await playing.is_settled("undo")


# --- bounds -----------------------------------------------------------------------------------------------------------


class Slow(Event, name="stock.slow", owner="stock"):
    pass


class DoSlowly(Command[Slow], name="stock.do-slowly"):
    pass


async def test_no_more_is_fetched_than_is_performed_at_once(playing: Play) -> None:
    gate = Gate()
    worker = await playing.worker(Stock(on_reserve=gate), concurrency=4, undo_concurrency=2)
    for number in range(20):
        await playing.do(f"s{number}")
    await until(lambda: worker.held == 4, what="four commands held")
    async with asyncio.timeout(120):  # the server acks a message before it counts it for the consumers
        while (await playing.consumer())["num_pending"] != 16:
            await asyncio.sleep(0.01)
    assert (await playing.consumer())["num_ack_pending"] == worker.held == 4
    gate.opened.set()
    await playing.is_settled()


async def test_a_handler_may_bear_less_than_the_rest(playing: Play) -> None:
    stock, running, most = Stock(), 0, 0

    @stock.participant.handles(DoSlowly, concurrency=2)
    async def do_slowly(command: DoSlowly, tx: Transaction) -> Slow:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return Slow()

    await playing.worker(stock, concurrency=8)
    for number in range(16):
        await playing.send(f"s{number}", "do", 1, DoSlowly(), QUICK)
    await playing.is_settled()
    assert most == 2


async def test_commands_do_not_wait_behind_compensations_that_hang(playing: Play) -> None:
    gate = Gate()
    stock = Stock(on_release=gate)
    worker = await playing.worker(stock, concurrency=2)
    for number in range(5):
        await playing.do(f"s{number}")
        await playing.answer(f"s{number}", "stock-reserved")
        await playing.undo(f"s{number}")
    await until(lambda: worker.held == 1, what="a compensation that hangs")
    await playing.do("healthy")
    await playing.answer("healthy", "stock-reserved")
    assert worker.held == 1, "the compensation does not hang any more"
    gate.opened.set()


# --- drain ------------------------------------------------------------------------------------------------------------


async def test_a_drain_lets_handlers_finish(playing: Play) -> None:
    gate = Gate()
    worker = await playing.worker(Stock(on_reserve=gate))
    await playing.do("s1")
    await gate.reached.wait()
    draining = asyncio.create_task(worker.drain(grace_seconds=10.0))
    gate.opened.set()
    await draining
    assert worker.held == 0
    await playing.answer("s1", "stock-reserved")
    await playing.is_settled()


async def test_what_a_drain_hands_back_is_no_attempt(playing: Play) -> None:
    gate, database = Gate(), MemoryDatabase()
    worker = await playing.worker(Stock(on_reserve=gate), database)
    await playing.do("s1", retry=ONCE)
    await gate.reached.wait()
    await worker.drain(grace_seconds=0.0)
    assert worker.held == 0
    await playing.worker(Stock(), database)
    answer = await playing.answer("s1", "stock-reserved")
    assert answer.type == "stock.reserved.v1"
    assert len(database.effects) == 1


async def test_what_a_drain_hands_back_is_not_suspected_of_having_killed_a_worker(playing: Play) -> None:
    gate, database, sagas = Gate(), MemoryDatabase(), [f"s{number}" for number in range(4)]
    worker = await playing.worker(Stock(on_reserve=gate), database)
    for saga in sagas:
        await playing.do(saga, retry=ONCE)
    await until(lambda: worker.held == 4, what="four commands held")
    await worker.drain(grace_seconds=0.0)
    stock = Stock(on_reserve=Gate())
    await playing.worker(stock, database)
    await until(lambda: len(stock.calls) == 4, what="all four performed side by side")


async def test_what_the_database_could_not_be_told_it_is_told_later(playing: Play, tmp_path: Path) -> None:
    database = SqliteDatabase(f"sqlite+aiosqlite:///{tmp_path / 'stock.db'}", busy_timeout_seconds=0.01)
    await database.open(tables)
    stock = Stock()
    worker = await playing.worker(stock, database)
    other = sqlite3.connect(tmp_path / "stock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await playing.do("s1", retry=ONCE)
    await until(lambda: worker._tally.pending, what="something the database could not be told")
    other.execute("ROLLBACK")
    other.close()
    await playing.answer("s1", "stock-reserved")
    assert worker._tally.pending == {}
    assert (await database.note(subject_of("s1", "do", 1), Spent())).returned > 0
    await database.close()


async def test_a_drain_in_the_middle_of_much_work_costs_no_attempt(playing: Play) -> None:
    """The requests that stand at the server must not go on fetching, for each delivery would count."""
    database, done = MemoryDatabase(), 300
    first = await playing.worker(Stock(), database, concurrency=8)
    for number in range(done // 3):
        await playing.do(f"s{number}", retry=ONCE)
    draining = asyncio.create_task(first.drain())
    for number in range(done // 3, done):
        await playing.do(f"s{number}", retry=ONCE)
    await draining
    assert len(database.effects) < done
    await playing.worker(Stock(), database)
    for number in range(done):
        await playing.answer(f"s{number}", "stock-reserved")
    await playing.is_settled()
    assert len(database.effects) == done


async def test_a_locked_database_costs_no_attempt(playing: Play, tmp_path: Path) -> None:
    database = SqliteDatabase(f"sqlite+aiosqlite:///{tmp_path / 'stock.db'}", busy_timeout_seconds=0.01)
    await database.open(tables)
    other = sqlite3.connect(tmp_path / "stock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    stock = Stock()
    await playing.worker(stock, database, chance=lambda: 0.0)
    await playing.do("s1", retry=ONCE)
    while (await playing.consumer())["num_redelivered"] == 0:
        await asyncio.sleep(0.02)
    other.execute("ROLLBACK")
    other.close()
    await playing.answer("s1", "stock-reserved")
    await playing.is_settled()
    assert stock.calls == ["reserve"]
    await database.close()


async def test_the_public_client_carries_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_PUBLIC_CLIENT", "1")
    async with play(tmp_path) as playing:
        worker = await playing.worker(Stock())
        await playing.do("s1")
        await playing.answer("s1", "stock-reserved")
        await playing.undo("s1")
        assert unpack_raw((await playing.answer("s1", "stock-release-done")).data, Undone) == Undone(found=True)
        await worker.drain()


async def test_what_parked_has_no_room_for_is_counted_and_ended(playing: Play) -> None:
    config = (await api(playing.administrator, f"STREAM.INFO.{PARKED}"))["config"]
    await api(playing.administrator, f"STREAM.UPDATE.{PARKED}", {**config, "max_msgs_per_subject": 2})
    for number in range(1, 9):
        await playing.link.store(subject_of(f"s{number}"), envelope_of(subject_of("other"), Reserve()))
    await playing.worker(Stock())
    await playing.is_settled()
    found = [stored async for stored in playing.administrator.scan(PARKED, "parked.>")]
    kept = [stored for stored in found if stored.subject == "parked.forged.stock.coordinator"]
    counted = [stored for stored in found if stored.subject == "parked.forged-more.stock.coordinator"]
    assert len(found) == len(kept) + len(counted)
    # Told at the first, second and fourth that is refused, of six; the third time there is no room for that either.
    assert [len(kept), *(msgspec.json.decode(stored.data, type=More).count for stored in counted)] == [2, 1, 1]


async def test_without_any_room_in_parked_a_command_is_answered_ended_and_logged(playing: Play) -> None:
    await playing.administrator.store("parked.forged.stock.other", bytes(100))
    room = await room_of(playing.administrator, PARKED)
    assert room is not None
    await set_up(playing.administrator, [], parked_bytes=room.used + 1, allowed=[Loss.SMALLER_BOUNDS])
    subject = subject_of("s1")
    with capture_logs() as lines:
        await playing.link.store(subject, envelope_of(subject, Reserve(), data=msgspec.Raw(b'{"pieces":"many"}')))
        await playing.worker(Stock())
        assert "$.pieces" in reason(await playing.answer("s1", "stock-reserve-exhausted"))
        await playing.is_settled()
    (line,) = [line for line in lines if line["event"] == "parked.full"]
    assert "maximum bytes exceeded" in line["reason"]
    assert "$.pieces" in line["reason"]
    ended = [stored async for stored in playing.administrator.scan(ADVISORIES, "$JS.EVENT.ADVISORY.>")]
    assert ["$.pieces" in json.loads(stored.data)["reason"] for stored in ended] == [True], "and the server has it, too"
