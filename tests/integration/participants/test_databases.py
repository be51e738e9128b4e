"""Effects exactly once over memory, SQLite and PostgreSQL: what the inbox keeps from one delivery to the next."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antiphon.contracts import Event, PlatformError, Refused, Unavailable, WrongShape
from antiphon.contracts.retry import Retry
from antiphon.deploy.local.postgres import Postgres
from antiphon.participants import Transaction, open_database
from antiphon.participants.attempts import Suspect, Tally
from antiphon.participants.databases import Busy, Database
from antiphon.participants.engines import open_engine
from antiphon.participants.execution import Execution
from antiphon.participants.inbox import Answer, Spent
from antiphon.participants.outside import Terms
from antiphon.participants.perform import Performing
from antiphon.participants.procedures import DoProcedure
from antiphon.participants.sqlite import LOCKED_TRIES_MAX, SqliteDatabase
from tests.support.server import until

from .stock import FOUND, NOT_FOUND, RESERVED, Gate, Reserve, Stock, Store, address, read, seal, sqlite_url, tables

BLOCKED_SECONDS = 0.2
"""How long we watch that something does not happen."""


class Other(Event, name="stock.other", owner="stock"):
    pass


class Newer(Event, name="stock.reserved", version=2, owner="stock"):
    shelf: str


async def refuse(tx: Transaction) -> None:
    raise Refused("out of stock")


async def fail(tx: Transaction) -> None:
    raise Unavailable("the shelf is stuck")


async def assert_waits(task: asyncio.Task[object]) -> None:
    """It has not come to an end, and does not for a while."""
    await asyncio.wait({task}, timeout=BLOCKED_SECONDS)
    assert not task.done()


# --- a command --------------------------------------------------------------------------------------------------------


async def test_a_command_is_carried_out_and_answered(store: Store) -> None:
    stock = Stock()
    assert await stock.do(await store.open()) == RESERVED
    assert await store.effects() == ["reserved"]


async def test_a_redelivered_command_is_answered_from_the_inbox(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database)
    stock.reservation_id = "another"
    assert await stock.do(database, deliveries=2) == RESERVED
    assert await stock.do(await store.open(), deliveries=3) == RESERVED
    assert stock.calls == ["reserve"]
    assert await store.effects() == ["reserved"]


async def test_a_later_attempt_gets_the_answer_of_the_one_that_did_it(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database, attempt=1)
    assert await stock.do(database, attempt=2) == RESERVED
    assert await store.effects() == ["reserved"]


async def test_an_earlier_attempt_is_superseded_by_the_one_that_did_it(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database, attempt=2)
    assert await stock.do(database, attempt=1) == ("superseded", "attempt 2 has been answered")
    assert await store.effects() == ["reserved"]


async def test_sagas_of_the_same_id_and_other_steps_do_not_meet(store: Store) -> None:
    stock, database = Stock(), await store.open()
    for saga in ("s1", "s2", "S1"):
        assert await stock.do(database, saga=saga) == RESERVED
    assert await store.effects() == ["reserved"] * 3


async def test_a_failed_handler_leaves_nothing_and_is_called_again(store: Store) -> None:
    stock, database = Stock(on_reserve=fail), await store.open()
    with pytest.raises(Unavailable):
        await stock.do(database)
    assert await store.effects() == []
    assert await Stock().do(database, deliveries=2) == RESERVED


async def test_a_refusal_is_stored_without_the_effect_and_given_again(store: Store) -> None:
    stock, database = Stock(on_reserve=refuse), await store.open()
    assert await stock.do(database) == ("refused", "out of stock")
    assert await stock.do(database, deliveries=2) == ("refused", "out of stock")
    assert stock.calls == ["reserve"]
    assert await store.effects() == []


async def test_a_later_attempt_after_a_refusal_looks_again(store: Store) -> None:
    database = await store.open()
    await Stock(on_reserve=refuse).do(database, attempt=1)
    assert await Stock().do(database, attempt=2) == RESERVED
    assert await store.effects() == ["reserved"]


async def test_a_refusal_past_the_pivot_is_not_remembered(store: Store) -> None:
    database = await store.open()
    for deliveries in (1, 2):
        with pytest.raises(Refused, match="out of stock"):
            await Stock(on_reserve=refuse).do(database, deliveries=deliveries, is_retriable=True)
    assert await Stock().do(database, deliveries=3, is_retriable=True) == RESERVED
    assert await store.effects() == ["reserved"]


async def test_an_answer_too_large_to_be_sent_leaves_no_effect(store: Store) -> None:
    stock, database = Stock(reservation_id="r" * 2000), await store.open()
    assert await stock.do(database) == ("exhausted", "its answer cannot be sent: 2021 bytes; nothing was done")
    assert await store.effects() == []
    assert await stock.undo(database) == NOT_FOUND


async def test_a_handler_that_answers_with_another_event_leaves_no_effect(store: Store) -> None:
    stock, database = Stock(), await store.open()
    handler = stock.participant.handlers["stock.reserve.v1"]
    stock.participant.handlers["stock.reserve.v1"] = replace(handler, reply=Other)
    with pytest.raises(TypeError, match="returned"):
        await stock.do(database)
    assert await store.effects() == []


async def test_an_answer_that_nobody_could_read_leaves_no_effect(store: Store) -> None:
    from_a_row: Any = 7
    stock, database = Stock(reservation_id=from_a_row), await store.open()
    with pytest.raises(WrongShape, match="Reserved: Expected `str`, got `int`"):
        await stock.do(database)
    assert await store.effects() == []
    assert await stock.undo(database) == NOT_FOUND


async def test_a_handler_knows_the_saga_it_acts_for(store: Store) -> None:
    seen: list[object] = []

    async def look(tx: Transaction) -> None:
        seen.append((tx.saga_type, tx.saga_id, tx.step, tx.attempt, tx.idempotency_key))

    stock, database = Stock(on_reserve=look, on_release=look), await store.open()
    await stock.do(database, attempt=2)
    await stock.undo(database, attempt=7)
    assert seen == [
        ("order", "s1", "reserve", 2, "order/s1/reserve"),
        ("order", "s1", "reserve", 7, "order/s1/reserve/undo"),
    ]


# --- a compensation ---------------------------------------------------------------------------------------------------


async def test_a_compensation_gets_what_was_answered_then(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database)
    assert await stock.undo(database) == FOUND
    assert stock.released == [RESERVED]
    assert await store.effects() == ["reserved", "released"]


async def test_a_compensation_delivered_twice_acts_once(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database)
    answers = [await stock.undo(database, deliveries=n) for n in (1, 2)]
    answers.append(await stock.undo(await store.open(), attempt=2))
    assert all(answer == FOUND for answer in answers)
    assert await store.effects() == ["reserved", "released"]


async def test_two_workers_with_one_compensation_act_once(store: Store) -> None:
    stock, one, other = Stock(), await store.open(), await store.open()
    await stock.do(one)
    first, second = asyncio.create_task(stock.undo(one)), asyncio.create_task(stock.undo(other))
    assert (await first, await second) == (FOUND, FOUND)
    assert await store.effects() == ["reserved", "released"]


async def test_a_compensation_that_overtakes_its_command_leaves_a_tombstone(store: Store) -> None:
    stock, database = Stock(), await store.open()
    assert await stock.undo(database) == NOT_FOUND
    for attempt in (1, 2):
        assert await stock.do(database, attempt) == ("superseded", "it was undone or ruled out before")
    assert await stock.undo(database, deliveries=2) == NOT_FOUND
    assert stock.calls == []
    assert await store.effects() == []


async def test_what_was_undone_is_not_done_again(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database)
    await stock.undo(database)
    for attempt in (1, 2):
        assert await stock.do(database, attempt, deliveries=2) == ("superseded", "it was undone or ruled out before")
    assert await store.effects() == ["reserved", "released"]


async def test_a_refused_command_has_nothing_to_undo_and_stays_undone(store: Store) -> None:
    database = await store.open()
    await Stock(on_reserve=refuse).do(database)
    stock = Stock()
    assert await stock.undo(database) == NOT_FOUND
    assert await stock.do(database, attempt=2) == ("superseded", "it was undone or ruled out before")
    assert stock.calls == []


async def test_a_compensation_that_failed_finds_the_effect_again(store: Store) -> None:
    database = await store.open()
    await Stock().do(database)
    for failing in (fail, refuse):
        with pytest.raises((Unavailable, Refused)):
            await Stock(on_release=failing).undo(database)
    assert await store.effects() == ["reserved"]
    assert await Stock().undo(database, attempt=2) == FOUND
    assert await store.effects() == ["reserved", "released"]


# --- what became of a command -----------------------------------------------------------------------------------------


async def test_what_happened_is_settled_with_what_was_answered_then(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database)
    stock.reservation_id = "another"
    for attempt, each in ((1, database), (1, await store.open()), (2, database)):
        assert await stock.settle(each, attempt) == RESERVED
    assert await stock.do(database, deliveries=2) == RESERVED
    assert stock.calls == ["reserve"]
    assert await store.effects() == ["reserved"]


async def test_what_never_happened_never_will_once_that_was_said(store: Store) -> None:
    stock, database = Stock(), await store.open()
    for attempt, each in ((1, database), (1, await store.open()), (2, database)):
        assert await stock.settle(each, attempt) is None
    for attempt in (1, 2):
        assert await stock.do(database, attempt) == ("superseded", "it was undone or ruled out before")
    assert await stock.settle(database, deliveries=2) is None
    assert stock.calls == []
    assert await store.effects() == []


async def test_what_failed_is_settled_as_never_happened(store: Store) -> None:
    database = await store.open()
    with pytest.raises(Unavailable):
        await Stock(on_reserve=fail).do(database)
    assert await Stock().settle(database) is None
    assert await Stock().do(database, deliveries=2) == ("superseded", "it was undone or ruled out before")


async def test_what_was_refused_is_settled_as_never_happened_and_not_looked_at_again(store: Store) -> None:
    database = await store.open()
    await Stock(on_reserve=refuse).do(database)
    assert await Stock().settle(database) is None
    assert await Stock().do(database, attempt=2) == ("superseded", "it was undone or ruled out before")
    assert await store.effects() == []


async def test_what_was_undone_is_still_settled_as_it_happened(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database)
    await stock.undo(database)
    assert await stock.settle(database) == RESERVED
    assert await store.effects() == ["reserved", "released"]


async def test_a_settlement_that_meets_its_command_in_a_transaction_waits_and_sees(store: Store) -> None:
    gate = Gate()
    stock, one, other = Stock(on_reserve=gate), await store.open(), await store.open()
    doing = asyncio.create_task(stock.do(one))
    await gate.reached.wait()
    asking = asyncio.create_task(stock.settle(other))
    await assert_waits(asking)
    gate.opened.set()
    assert await doing == RESERVED
    assert await asking == RESERVED


async def test_a_settlement_that_waited_for_a_failure_rules_the_command_out(store: Store) -> None:
    gate = Gate()

    async def fail_later(tx: Transaction) -> None:
        await gate(tx)
        raise Unavailable("the shelf is stuck")

    stock, one, other = Stock(on_reserve=fail_later), await store.open(), await store.open()
    doing = asyncio.create_task(stock.do(one))
    await gate.reached.wait()
    asking = asyncio.create_task(stock.settle(other))
    await assert_waits(asking)
    gate.opened.set()
    assert await asking is None
    with contextlib.suppress(Unavailable):  # its failure is counted before the question has the row, or after
        assert await doing == ("superseded", "it was undone or ruled out before")
    assert await Stock().do(one, deliveries=2) == ("superseded", "it was undone or ruled out before")
    assert await store.effects() == []


async def test_of_a_settlement_and_its_command_at_once_both_say_the_same(store: Store) -> None:
    """Whoever claims the row first: either the effect is there and both say so, or neither ever will have one."""
    for number in range(20):
        stock, one, other = Stock(), await store.open(), await store.open()
        saga = f"s{number}"
        did, settled = await asyncio.gather(stock.do(one, saga=saga), stock.settle(other, saga=saga))
        assert (did, settled) in [(RESERVED, RESERVED), (("superseded", "it was undone or ruled out before"), None)]


# --- two at once ------------------------------------------------------------------------------------------------------


async def test_a_compensation_that_meets_its_command_in_a_transaction_waits_and_compensates(store: Store) -> None:
    gate = Gate()
    stock, one, other = Stock(on_reserve=gate), await store.open(), await store.open()
    doing = asyncio.create_task(stock.do(one))
    await gate.reached.wait()
    undoing = asyncio.create_task(stock.undo(other))
    await assert_waits(undoing)
    gate.opened.set()
    assert await doing == RESERVED
    assert await undoing == FOUND
    assert await store.effects() == ["reserved", "released"]


async def test_a_command_delivered_again_while_it_runs_waits_and_commits_nothing_twice(store: Store) -> None:
    """The first worker has lost its lease, does not know it, and goes on."""
    gate = Gate()
    slow, quick = Stock(on_reserve=gate), Stock(reservation_id="r-2")
    one, other = await store.open(), await store.open()
    first = asyncio.create_task(slow.do(one))
    await gate.reached.wait()
    second = asyncio.create_task(quick.do(other, deliveries=2))
    await assert_waits(second)
    gate.opened.set()
    assert (await first, await second) == (RESERVED, RESERVED)
    assert quick.calls == []
    assert await store.effects() == ["reserved"]


async def test_a_later_attempt_waits_for_an_earlier_one_that_still_runs(store: Store) -> None:
    gate = Gate()
    slow, quick = Stock(on_reserve=gate), Stock(reservation_id="r-2")
    one, other = await store.open(), await store.open()
    first = asyncio.create_task(slow.do(one, attempt=1))
    await gate.reached.wait()
    second = asyncio.create_task(quick.do(other, attempt=2))
    gate.opened.set()
    assert (await first, await second) == (RESERVED, RESERVED)
    assert await store.effects() == ["reserved"]


async def test_a_compensation_that_waited_for_a_refusal_finds_nothing(store: Store) -> None:
    """Between the rollback and the stored refusal the row is free: whoever comes first, there is never an effect."""
    gate = Gate()

    async def refuse_later(tx: Transaction) -> None:
        await gate(tx)
        raise Refused("out of stock")

    stock, one, other = Stock(on_reserve=refuse_later), await store.open(), await store.open()
    doing = asyncio.create_task(stock.do(one))
    await gate.reached.wait()
    undoing = asyncio.create_task(stock.undo(other))
    await assert_waits(undoing)
    gate.opened.set()
    assert await undoing == NOT_FOUND
    assert await doing in (("refused", "out of stock"), ("superseded", "it was undone or ruled out before"))
    assert (await Stock().do(one, attempt=2)) == ("superseded", "it was undone or ruled out before")
    assert await store.effects() == []


async def test_a_cancelled_handler_leaves_nothing(store: Store) -> None:
    gate = Gate()
    stock, one, other = Stock(on_reserve=gate), await store.open(), await store.open()
    doing = asyncio.create_task(stock.do(one))
    await gate.reached.wait()
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert await Stock().do(one) == RESERVED
    assert await Stock().do(other, deliveries=2) == RESERVED
    assert await store.effects() == ["reserved"]


async def test_a_connection_that_is_cancelled_while_it_opens_is_the_next_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))
    database = await store.open()
    await database.close()
    begun, go_on, real, opened = threading.Event(), threading.Event(), sqlite3.connect, list[sqlite3.Connection]()

    def connect(*arguments: Any, **options: Any) -> Any:
        begun.set()
        go_on.wait(120)
        opened.append(real(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    doing = asyncio.create_task(Stock().do(database))
    await asyncio.to_thread(begun.wait)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    go_on.set()
    assert await Stock().do(database) == RESERVED
    assert len(opened) == 1
    await store.close()


async def test_a_worker_whose_connection_is_lost_commits_nothing(postgres_server: Postgres) -> None:
    store = Store("postgres", postgres_server.new_database())
    gate = Gate()
    one, other = await store.open(), await store.open()
    first = asyncio.create_task(Stock(on_reserve=gate).do(one))
    await gate.reached.wait()
    second = asyncio.create_task(Stock(reservation_id="r-2").do(other, deliveries=2, is_alone=True))
    await assert_waits(second)
    await end_other_transactions(postgres_server, store)
    await asyncio.wait_for(second, 120)
    gate.opened.set()
    with pytest.raises(Busy):
        await first
    assert await store.effects() == ["reserved"]
    await store.close()


async def end_other_transactions(server: Postgres, store: Store) -> None:
    """What an administrator, or a network that drops connections, does to a transaction that idles."""
    database = await store.open()
    async with database.begin(address("do", saga="unrelated")) as inbox:
        await inbox.transaction.connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE state = 'idle in transaction' AND datname = current_database() AND pid <> pg_backend_pid()"
        )


# --- attempts ---------------------------------------------------------------------------------------------------------


async def test_failures_are_attempts_until_they_run_out(store: Store) -> None:
    stock, database = Stock(on_reserve=fail), await store.open()
    for deliveries in (1, 2):
        with pytest.raises(Unavailable):
            await stock.do(database, deliveries=deliveries)
    assert await stock.do(database, deliveries=3) == ("exhausted", "the shelf is stuck")
    again = await stock.do(database, deliveries=4)
    assert again == ("exhausted", "no attempt is left: 3 failed, and 0 took the worker with them")
    assert len(stock.calls) == 3


async def test_what_was_handed_back_is_no_attempt(store: Store) -> None:
    stock, database = Stock(), await store.open()
    assert await database.note("do 1", Spent(returned=1)) == Spent(returned=1)
    assert await (await store.open()).note("do 1", Spent(returned=3)) == Spent(returned=4)
    assert await stock.do(database, deliveries=5) == RESERVED


async def test_a_lost_delivery_has_its_command_performed_alone_or_not_at_all(store: Store) -> None:
    stock, database = Stock(), await store.open()
    for deliveries in (2, 7):
        with pytest.raises(Suspect):
            await stock.do(database, deliveries=deliveries)
    assert stock.calls == []
    assert await stock.do(database, deliveries=8, is_alone=True) == RESERVED
    assert await stock.do(database, deliveries=9) == RESERVED


async def test_only_what_was_lost_alone_is_an_attempt(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await database.note("do 1", Spent(alone=3))
    answer = await stock.do(database, deliveries=5, is_alone=True)
    assert answer == ("exhausted", "no attempt is left: 0 failed, and 3 took the worker with them")
    assert stock.calls == []


async def test_that_a_command_is_performed_alone_is_durable_before_it_begins(store: Store) -> None:
    database = await store.open()
    await Tally(database).begin_alone("evt.1")
    assert (await Tally(database).read("evt.1")).alone == 1


async def test_what_fails_alone_is_an_attempt_and_suspected_no_longer(store: Store) -> None:
    stock, database = Stock(on_reserve=fail), await store.open()
    with pytest.raises(Unavailable):
        await stock.do(database, deliveries=6, is_alone=True)
    with pytest.raises(Unavailable):
        await stock.do(database, deliveries=7)
    assert await stock.do(database, deliveries=8) == ("exhausted", "the shelf is stuck")


async def test_a_failure_that_finds_its_command_done_by_another_worker_answers_so(store: Store) -> None:
    """Not even the last failure says that no attempt is left, where the row says what became of it."""
    stalled, other = Stock(on_reserve=fail), Stock()
    performing, execution = prepared(stalled, await store.open())
    with pytest.raises(Unavailable):
        await performing.perform(execution, seal)
    assert await other.do(await store.open(), deliveries=2, is_alone=True) == RESERVED
    failure = await performing.fail(execution, seal, "the shelf is stuck", 3, lambda _: 0.0)
    assert failure.answer is not None
    assert (read(failure.answer), failure.is_exhausted) == (RESERVED, False)


async def test_a_refusal_that_comes_after_exhausted_is_not_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled, database = Stock(on_reserve=refuse), await store.open()
    performing, execution = prepared(stalled, database)
    store_refusal = performing._refuse

    async def refuse_late(*given: Any) -> Answer:
        inbox = given[-1]
        await inbox.note(execution.message, Spent(failed=3))  # by another worker, which has said exhausted
        return await store_refusal(*given)

    monkeypatch.setattr(performing, "_refuse", refuse_late)
    assert read(await performing.perform(execution, seal)) == ("exhausted", "no attempt is left")
    assert await stalled.undo(database) == NOT_FOUND


def prepared(stock: Stock, database: Database) -> tuple[Performing, Execution]:
    """The first delivery of the command, in the hands of a worker."""
    where = address("do", 1)
    procedure = DoProcedure(stock.participant.handlers[Reserve.__contract__.type], where, Reserve())
    return Performing(database, Terms("w", 10.0, 1.0)), Execution(where, procedure, Retry(attempts=3), "do 1", 1)


async def test_several_workers_note_into_one_sum(store: Store) -> None:
    databases = [await store.open() for _ in range(4)]
    await asyncio.gather(*(each.note("do 1", Spent(1, 2, 3)) for each in databases))
    assert await databases[0].note("do 1", Spent(alone=-12)) == Spent(4, 8, 0)


async def test_an_answer_that_is_there_is_given_however_often_it_is_asked_for(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database)
    assert await stock.do(database, deliveries=100) == RESERVED
    assert await stock.undo(database) == FOUND
    assert await stock.undo(database, deliveries=100) == FOUND


async def test_a_compensation_whose_answer_changed_its_shape_is_unavailable(store: Store) -> None:
    stock, database = Stock(), await store.open()
    await stock.do(database)
    handler = stock.participant.compensations["stock.release.v1"]
    stock.participant.compensations["stock.release.v1"] = replace(handler, reply=Newer)
    with pytest.raises(Unavailable, match=r"stock\.reserved\.v1"):
        await stock.undo(database)


# --- a database that cannot be had ------------------------------------------------------------------------------------


async def test_a_locked_database_is_busy_and_no_handler_is_called(tmp_path: Path) -> None:
    database = SqliteDatabase(sqlite_url(tmp_path), busy_timeout_seconds=0.02)
    await database.open(tables)
    stock = Stock()
    other = sqlite3.connect(tmp_path / "stock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy, match="locked"):
        await stock.do(database)
    with pytest.raises(Busy):
        await database.note("m1", Spent(returned=1))
    assert stock.calls == []
    other.execute("ROLLBACK")
    other.close()
    assert await stock.do(database) == RESERVED
    await database.close()


async def test_a_transaction_begins_where_the_lock_was_gone_after_more_than_one_busy_timeout(tmp_path: Path) -> None:
    database, stock = SqliteDatabase(sqlite_url(tmp_path), busy_timeout_seconds=0.05), Stock()
    await database.open(tables)
    other = sqlite3.connect(tmp_path / "stock.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    doing = asyncio.create_task(stock.do(database))
    await asyncio.wait({doing}, timeout=0.05 * (LOCKED_TRIES_MAX - 1))
    assert not doing.done()
    other.execute("ROLLBACK")
    assert await doing == RESERVED
    other.close()
    await database.close()


async def test_a_connection_whose_opening_is_cancelled_twice_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    connect = sqlite3.connect

    class Noted(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            closed.set()

    def slowly(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opening.set()
        go_on.wait(120)
        return connect(*arguments, factory=Noted, **options)

    engine = open_engine(sqlite_url(tmp_path))
    monkeypatch.setattr(sqlite3, "connect", slowly)

    async def use() -> None:
        async with engine.begin():
            raise AssertionError("it was cancelled")

    using = asyncio.create_task(use())
    await until(opening.is_set, what="the opening")
    for _ in range(2):
        using.cancel()
        await asyncio.sleep(0.01)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    await until(closed.is_set, what="its end")
    await engine.dispose()


async def test_a_lock_that_is_soon_gone_is_waited_for(tmp_path: Path) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))
    database, stock = await store.open(), Stock()
    other = sqlite3.connect(tmp_path / "stock.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, lambda: other.execute("ROLLBACK"))
    release.start()
    assert await stock.do(database) == RESERVED
    release.join()
    other.close()
    await store.close()


async def test_a_database_that_is_away_is_busy(postgres_server: Postgres) -> None:
    url = postgres_server.new_database().replace(str(postgres_server.port), "1")
    database = open_database(url)
    with pytest.raises(Busy):
        await Stock().do(database)
    with pytest.raises(PlatformError, match="cannot be used"):
        await database.open()
    await database.close()


async def test_workers_that_start_together_create_the_tables_once(store: Store) -> None:
    databases = await asyncio.gather(*(store.open() for _ in range(4)))
    assert await Stock().do(databases[-1]) == RESERVED


async def test_sqlite_syncs_every_commit_and_writes_ahead(tmp_path: Path) -> None:
    store = Store("sqlite", sqlite_url(tmp_path))
    database = await store.open()
    async with database.begin(address("do")) as inbox:
        connection = inbox.transaction.connection
        found = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in ("synchronous", "journal_mode")
        ]
    assert found == [2, "wal"]
    await store.close()


async def test_a_database_in_memory_has_no_connection() -> None:
    database = open_database("memory:")
    async with database.begin(address("do")) as inbox:
        with pytest.raises(LookupError, match="sqlite"):
            _ = inbox.transaction.connection


@pytest.mark.parametrize("url", ["", "mysql://host/name", "stock.db"])
def test_an_unknown_database_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(PlatformError, match="sqlite:///path"):
        open_database(url)


async def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/absent/stock.db")
    with pytest.raises(PlatformError, match=r"absent/stock.db cannot be used.*Check"):
        await database.open()
    await database.close()
