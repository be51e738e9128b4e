"""Handlers with effects outside the database: a committed claim, a run, and a fence at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

from antiphon.contracts.errors import DefinitionError, Refused, Unrecoverable
from antiphon.contracts.messages import Closed, Refusal, Settled, Undone, settle_type
from antiphon.contracts.retry import Retry
from antiphon.participants import Outside, Participant, Transaction, open_database
from antiphon.participants.databases import Busy, Database
from antiphon.participants.execution import Execution
from antiphon.participants.inbox import Answer, Close, Row
from antiphon.participants.memory import MemoryTransaction
from antiphon.participants.outside import LostFence, OutsideOver, Terms
from antiphon.participants.perform import Performing
from antiphon.participants.procedures import (
    CloseProcedure,
    DoProcedure,
    NotYet,
    Procedure,
    SettleProcedure,
    UndoProcedure,
)

from .play import play
from .stock import (
    RESERVED,
    Gate,
    Noted,
    Release,
    Reserve,
    Reserved,
    Stock,
    Store,
    address,
    effects,
    seal,
    sqlite_url,
    tables,
)

Hook = Callable[[Outside], Awaitable[None]]
REPLY = Answer("stock.reserved.v1", msgspec.json.encode({"reservation_id": "by hand"}))


async def at_once(outside: Outside) -> None:
    """The outside answers."""


class Shop:
    """A participant whose effects are at a web service that knows keys."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        """How often the service was called with each key; it acts at the first."""
        self.on_do: Hook = at_once
        self.on_undo: Hook = at_once
        self.writes = True
        self.participant = Participant("stock", tables=tables)

        @self.participant.handles(Reserve, outside=True)
        async def reserve(command: Reserve, outside: Outside) -> Reserved:
            self.call(outside)
            await self.on_do(outside)
            if self.writes:
                await note(await outside.begin(), "reserved")
            return RESERVED

        @self.participant.compensates(Reserve, outside=True)
        async def release(command: Release, reserved: Reserved, outside: Outside) -> None:
            assert reserved.reservation_id in (RESERVED.reservation_id, "by hand")
            self.call(outside)
            await self.on_undo(outside)
            if self.writes:
                await note(await outside.begin(), "released")

    def call(self, outside: Outside) -> None:
        self.keys[outside.idempotency_key] = self.keys.get(outside.idempotency_key, 0) + 1


async def note(tx: Transaction, what: str) -> None:
    if isinstance(tx, MemoryTransaction):
        tx.effects.append(Noted(what, tx.idempotency_key))
    else:
        await tx.execute(insert(effects).values(what=what, key=tx.idempotency_key))


class Worker:
    """What one process of the participant does with what is delivered to it."""

    def __init__(self, shop: Shop, database: Database, instance: str = "w1", spare_seconds: float = 60.0) -> None:
        self.shop, self.database = shop, database
        self.performing = Performing(database, Terms(instance, 10.0, spare_seconds))

    async def do(self, attempt: int = 1, *, data: bytes = b"{}", **how: Any) -> object:
        handler = self.shop.participant.handlers[Reserve.__contract__.type]
        where = address("do", attempt)
        return await self.deliver(DoProcedure(handler, where, Reserve(), data=data), f"do {attempt}", **how)

    async def undo(self, attempt: int = 1, **how: Any) -> object:
        handler = self.shop.participant.compensations[Release.__contract__.type]
        return await self.deliver(UndoProcedure(handler, address("undo", attempt), Release()), f"undo {attempt}", **how)

    async def settle(self) -> object:
        handler = self.shop.participant.settlements[settle_type(Reserve.__contract__)]
        return await self.deliver(SettleProcedure(handler, address("undo")), "settle")

    async def close(self, form: Any, claim: int = 0, number: int = 1) -> Closed:
        close = Close(number, form, REPLY if form == "done" else None, claim, "ada")
        procedure = CloseProcedure(Reserve.__contract__, address("do"), close)
        answer = await self.performing.perform(self.execution(procedure, f"close {number}"), seal)
        assert answer.type == "stock.reserve.closed.v1"
        return msgspec.json.decode(answer.data, type=Closed)

    async def deliver(
        self, procedure: Procedure, message: str, *, attempts: int = 3, deliveries: int = 1, is_alone: bool = False
    ) -> object:
        execution = self.execution(procedure, message, attempts, deliveries)
        execution.is_alone = is_alone
        try:
            return said(await self.performing.perform(execution, seal))
        except (LostFence, NotYet):
            raise
        except Exception as error:
            failed = attempts if isinstance(error, Unrecoverable) else 1
            failure = await self.performing.fail(execution, seal, "it failed", failed, lambda _: 0.0)
            return "failed" if failure.answer is None else said(failure.answer)

    def execution(self, procedure: Procedure, message: str, attempts: int = 3, deliveries: int = 1) -> Execution:
        where: Any = procedure
        return Execution(where.address, procedure, Retry(attempts=attempts), message, deliveries)

    async def row(self) -> Row | None:
        async with self.database.begin(address("do")) as inbox:
            row = await inbox.claim()
            if row is None:
                await inbox.leave()
            return row


def said(answer: Answer) -> object:
    """An answer in a word or two."""
    kind = answer.type.removesuffix(".v1").rpartition(".")[2]
    if kind == "done":
        return "undone" if msgspec.json.decode(answer.data, type=Undone).found else "nothing found"
    if kind == "settled":
        return "happened" if msgspec.json.decode(answer.data, type=Settled).happened else "never"
    if kind == "exhausted" and (refusal := msgspec.json.decode(answer.data, type=Refusal)).code == "open":
        assert "look for the key order/s1/reserve there, then resolve the step naming that claim" in refusal.reason
        return "may have happened"
    return kind


async def raise_error(outside: Outside) -> None:
    raise OSError("the line is dead")


async def refuse(outside: Outside) -> None:
    raise Refused("card declined")


async def running(shop: Shop, worker: Worker, gate: Gate) -> asyncio.Task[object]:
    """A run that waits for the outside."""

    async def wait(outside: Outside) -> None:
        gate.reached.set()
        await gate.opened.wait()

    shop.on_do = wait
    run = asyncio.create_task(worker.do())
    await gate.reached.wait()
    shop.on_do = at_once
    return run


# --- the usual way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [True, False])
async def test_a_run_outside_commits_its_effect_with_its_answer(store: Store, writes: bool) -> None:
    shop = Shop()
    worker = Worker(shop, await store.open())
    shop.writes = writes
    assert await worker.do() == "reserved"
    assert await worker.do(deliveries=2) == "reserved"
    row = await worker.row()
    assert row is not None
    assert (row.state, row.claim, row.runs, row.due_at) == ("done", 1, (), None)
    assert await worker.undo() == "undone"
    assert await worker.undo(deliveries=2) == "undone"
    assert await worker.do(2) == "superseded"
    assert shop.keys == {"order/s1/reserve": 1, "order/s1/reserve/undo": 1}
    assert await store.effects() == (["reserved", "released"] if writes else [])


async def test_nothing_is_locked_while_the_outside_is_waited_for(store: Store) -> None:
    gate, shop = Gate(), Shop()
    worker = Worker(shop, await store.open())
    run = await running(shop, worker, gate)
    async with (await store.open()).begin(address("do", saga="s2")) as inbox:
        assert await inbox.claim() is None
        await inbox.leave()
    row = await worker.row()
    assert row is not None
    assert (row.state, row.claim, row.runs) == ("claimed", 1, ("1@w1",))
    gate.opened.set()
    assert await run == "reserved"


async def test_a_claim_that_was_raised_is_a_fence(store: Store) -> None:
    gate, shop = Gate(), Shop()
    one, other = Worker(shop, await store.open()), Worker(shop, await store.open(), "w2")
    stalled = await running(shop, one, gate)
    assert await other.do(deliveries=2, is_alone=True) == "reserved"
    gate.opened.set()
    with pytest.raises(LostFence) as lost:
        await stalled
    assert not lost.value.acted_after_a_no
    assert shop.keys == {"order/s1/reserve": 2}
    assert await store.effects() == ["reserved"]


async def test_the_end_of_a_run_that_lost_its_fence_can_be_noted(store: Store) -> None:
    gate, shop = Gate(), Shop()
    one, other = Worker(shop, await store.open()), Worker(shop, await store.open(), "w2")
    handler = shop.participant.handlers[Reserve.__contract__.type]
    execution = one.execution(DoProcedure(handler, address("do"), Reserve(), data=b"{}"), "do 1")

    async def wait(outside: Outside) -> None:
        gate.reached.set()
        await gate.opened.wait()

    shop.on_do = wait
    stalled = asyncio.create_task(one.performing.perform(execution, seal))
    await gate.reached.wait()
    shop.on_do = at_once
    await other.do(2)
    row = await one.row()
    assert row is not None
    assert (row.state, row.claim, row.runs) == ("done", 2, ("1@w1",))
    gate.opened.set()
    with pytest.raises(LostFence):
        await stalled
    await one.performing.end_run(execution)
    row = await one.row()
    assert row is not None
    assert row.runs == ()


# --- what fails -------------------------------------------------------------------------------------------------------


async def test_a_failed_run_is_tried_again_and_then_left_open(store: Store) -> None:
    shop = Shop()
    worker, shop.on_do = Worker(shop, await store.open()), raise_error
    assert await worker.do() == "failed"
    assert await worker.do(deliveries=2) == "failed"
    row = await worker.row()
    assert row is not None
    assert (row.state, row.claim, row.runs) == ("claimed", 2, ())
    assert await worker.do(deliveries=3) == "exhausted"
    assert await worker.do(deliveries=4) == "exhausted"
    row = await worker.row()
    assert row is not None
    assert (row.state, row.claim) == ("open", 3)
    assert [await worker.undo(), await worker.settle()] == ["may have happened"] * 2
    shop.on_do = at_once
    assert await worker.do(2) == "reserved"
    assert await worker.undo() == "undone"


async def test_what_no_attempt_will_mend_leaves_the_row_open(store: Store) -> None:
    async def give_up(outside: Outside) -> None:
        raise Unrecoverable("the contract is void")

    shop = Shop()
    worker, shop.on_do = Worker(shop, await store.open()), give_up
    assert await worker.do() == "exhausted"
    assert await worker.undo() == "may have happened"


async def test_a_compensation_waits_for_a_run_and_in_the_end_says_that_it_may_have_happened(store: Store) -> None:
    gate, shop = Gate(), Shop()
    worker = Worker(shop, await store.open())
    run = await running(shop, worker, gate)
    for ask in (worker.undo, worker.settle):
        with pytest.raises(NotYet):
            await ask()
    await past_its_time(worker)
    assert await worker.undo() == "may have happened"
    assert await worker.settle() == "may have happened"
    gate.opened.set()
    assert await run == "reserved"  # nobody else has claimed it
    assert await worker.undo(2) == "undone"


async def past_its_time(worker: Worker) -> None:
    async with worker.database.begin(address("do")) as inbox:
        row = await inbox.claim()
        assert row is not None
        await inbox.settle(msgspec.structs.replace(row, due_at=datetime.now(UTC) - timedelta(seconds=1)))


async def test_a_refusal_counts_only_if_no_earlier_run_may_have_acted(store: Store) -> None:
    shop = Shop()
    worker, shop.on_do = Worker(shop, await store.open()), refuse
    assert await worker.do() == "refused"
    assert await worker.do(deliveries=2) == "refused"
    shop.on_do = raise_error
    assert await worker.do(2) == "failed"
    shop.on_do = refuse
    assert await worker.do(2, deliveries=2) == "failed"
    row = await worker.row()
    assert row is not None
    assert row.state == "claimed"


async def test_what_the_outside_says_of_the_key_counts_whatever_an_earlier_run_did(store: Store) -> None:
    """A gateway that declines a card after the first worker died waits for no person."""

    async def decline(outside: Outside) -> None:
        raise Refused("card declined", nothing_outside=True)

    shop = Shop()
    worker, shop.on_do = Worker(shop, await store.open()), raise_error
    assert await worker.do() == "failed"
    shop.on_do = decline
    assert await worker.do(deliveries=2) == "refused"
    row = await worker.row()
    assert row is not None
    assert (row.state, row.runs) == ("refused", ())
    assert await worker.undo() == "nothing found"
    assert shop.keys == {"order/s1/reserve": 2}


async def test_what_the_outside_says_of_the_key_comes_too_late_once_somebody_else_has_the_row(store: Store) -> None:
    shop = Shop()
    gate, one, other = Gate(), Worker(shop, await store.open()), Worker(shop, await store.open(), "w2")

    async def decline(outside: Outside) -> None:
        gate.reached.set()
        await gate.opened.wait()
        raise Refused("card declined", nothing_outside=True)

    shop.on_do = decline
    late = asyncio.create_task(one.do())
    await gate.reached.wait()
    shop.on_do = at_once
    assert await other.do(deliveries=2, is_alone=True) == "reserved"
    gate.opened.set()
    with pytest.raises(LostFence):
        await late
    assert await store.effects() == ["reserved"]


async def test_a_plain_handler_is_not_believed_either_where_a_run_may_have_acted(store: Store) -> None:
    """Another version of the participant has declared the same handler without outside=True."""

    async def out_of_stock(tx: Transaction) -> None:
        raise Refused("out of stock")

    shop = Shop()
    worker, shop.on_do = Worker(shop, await store.open()), raise_error
    assert await worker.do() == "failed"
    plain = Stock(on_reserve=out_of_stock)
    with pytest.raises(Refused):
        await plain.do(worker.database, 2)
    row = await worker.row()
    assert row is not None
    assert (row.state, row.claim) == ("claimed", 1)
    assert await Stock().do(worker.database, 3) == RESERVED
    row = await worker.row()
    assert row is not None
    assert (row.state, row.claim) == ("done", 2), "the run that was outside may not commit any more"


async def test_another_payload_does_not_run_beside_what_may_have_happened(store: Store) -> None:
    shop = Shop()
    worker, shop.on_do = Worker(shop, await store.open()), raise_error
    assert await worker.do() == "failed"
    shop.on_do = at_once
    assert await worker.do(2, data=b'{"pieces":2}') == "exhausted"
    assert await worker.do(2) == "reserved"


async def test_a_cancelled_run_notes_its_end(store: Store) -> None:
    gate, shop = Gate(), Shop()
    worker = Worker(shop, await store.open())
    run = await running(shop, worker, gate)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    row = await worker.row()
    assert row is not None
    assert (row.state, row.runs) == ("claimed", ())


async def test_a_run_whose_transaction_fails_leaves_nothing_of_it(store: Store) -> None:
    async def fail_inside(outside: Outside) -> None:
        await note(await outside.begin(), "half")
        raise OSError("the line is dead")

    shop = Shop()
    worker, shop.on_do = Worker(shop, await store.open()), fail_inside
    assert await worker.do() == "failed"
    shop.on_do = at_once
    assert await worker.do(deliveries=2) == "reserved"
    assert await store.effects() == ["reserved"]


async def test_the_transaction_is_begun_once_and_not_after_the_end(store: Store) -> None:
    kept: list[Outside] = []

    async def keep(outside: Outside) -> None:
        kept.append(outside)
        if len(kept) == 1:
            await outside.begin()

    shop = Shop()
    worker, shop.on_do = Worker(shop, await store.open()), keep
    assert await worker.do() == "failed"  # the handler begins it a second time
    assert await worker.do(deliveries=2) == "reserved"
    with pytest.raises(OutsideOver, match="begun once"):
        await kept[1].begin()


async def test_what_a_dead_process_had_begun_is_ended_by_whoever_knows(store: Store) -> None:
    gate, shop = Gate(), Shop()
    if store.kind == "memory":
        return  # it is gone with its process
    one, other = Worker(shop, await store.open(), "dead"), Worker(shop, await store.open(), "w2")
    run = await running(shop, one, gate)
    await other.database.end_runs("alive")
    row = await other.row()
    assert row is not None
    assert row.runs == ("1@dead",)
    await other.database.end_runs("dead")
    row = await other.row()
    assert row is not None
    assert (row.state, row.runs) == ("claimed", ())
    run.cancel()
    await asyncio.wait({run})


async def test_of_two_runs_in_a_row_only_the_one_of_the_dead_process_is_ended(store: Store) -> None:
    first, second, shop = Gate(), Gate(), Shop()
    if store.kind == "memory":
        return  # it is gone with its process
    one, other = Worker(shop, await store.open(), "dead"), Worker(shop, await store.open(), "w2")
    runs = {await running(shop, one, first), await running(shop, other, second)}
    await other.database.end_runs("dead")
    row = await other.row()
    assert row is not None
    assert row.runs == ("2@w2",)
    with pytest.raises(NotYet):
        await other.close("never", claim=2)
    for run in runs:
        run.cancel()
    await asyncio.wait(runs)


async def test_the_end_of_a_run_whose_claim_was_rolled_back_says_nothing_of_another_run(store: Store) -> None:
    gate, shop = Gate(), Shop()
    worker, other = Worker(shop, await store.open()), Worker(shop, await store.open(), "w2")
    run = await running(shop, worker, gate)
    before = await worker.row()
    handler = shop.participant.handlers[Reserve.__contract__.type]
    execution = other.execution(DoProcedure(handler, address("do"), Reserve()), "do 1")
    execution.claim, execution.run = 1, "1@w2"  # as its transaction had it, before the COMMIT failed
    await other.performing.end_run(execution)
    assert await worker.row() == before
    gate.opened.set()
    assert await run == "reserved"


async def test_whoever_ends_the_runs_of_a_dead_process_waits_for_no_row_of_a_living_one(store: Store) -> None:
    if store.kind != "postgres":
        return  # where a transaction is the database's only one
    gate, shop = Gate(), Shop()
    worker, other = Worker(shop, await store.open(), "alive"), Worker(shop, await store.open(), "w2")
    run = await running(shop, worker, gate)
    async with worker.database.begin(address("do")) as inbox:
        await inbox.claim()
        await asyncio.wait_for(other.database.end_runs("dead"), 120)
    run.cancel()
    await asyncio.wait({run})


async def test_the_end_of_a_run_that_the_database_was_not_told_of_is_told_with_the_next_message(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, shop = Gate(), Shop()
    worker = Worker(shop, await store.open())
    run = await running(shop, worker, gate)
    begin = worker.database.begin

    def away(*given: Any) -> Any:
        raise Busy("the database is away")

    monkeypatch.setattr(worker.database, "begin", away)
    run.cancel()
    await asyncio.wait({run})
    monkeypatch.setattr(worker.database, "begin", begin)
    row = await worker.row()
    assert row is not None
    assert row.runs == ("1@w1",)
    assert (await worker.close("never")).verdict == "doubt"


# --- closes -----------------------------------------------------------------------------------------------------------


async def test_a_close_waits_for_a_run_then_asks_for_a_look_then_counts(store: Store) -> None:
    gate, shop = Gate(), Shop()
    worker = Worker(shop, await store.open())
    run = await running(shop, worker, gate)
    with pytest.raises(NotYet):
        await worker.close("done")
    run.cancel()
    await asyncio.wait({run})
    doubt = await worker.close("done")
    assert (doubt.verdict, doubt.claim, doubt.key) == ("doubt", 1, "order/s1/reserve")
    assert "look there, then resolve again naming claim 1" in doubt.reason
    assert (await worker.close("done", claim=1, number=2)).verdict == "closed"
    assert (await worker.close("done", claim=1, number=2)).verdict == "closed"
    assert await worker.do(deliveries=2) == "superseded"
    assert await worker.settle() == "happened"
    assert await worker.undo() == "undone"


async def test_a_close_of_what_was_never_claimed_stays_in_the_row(store: Store) -> None:
    worker = Worker(Shop(), await store.open())
    assert (await worker.close("done")).verdict == "closed"
    assert (await worker.close("done")).verdict == "closed"
    assert await worker.do() == "superseded"
    assert await worker.settle() == "happened"
    assert await worker.undo() == "undone"


async def test_a_compensation_that_failed_for_the_last_time_leaves_no_run_for_which_a_close_would_wait(
    store: Store,
) -> None:
    shop = Shop()
    worker = Worker(shop, await store.open())
    await worker.do()
    shop.on_undo = raise_error
    assert await worker.undo(attempts=1) == "exhausted"
    told = await worker.close("undone")
    assert (told.verdict, told.claim) == ("doubt", 2)
    assert (await worker.close("undone", told.claim, number=2)).verdict == "closed"


async def test_what_the_machine_has_committed_rejects_a_close(store: Store) -> None:
    shop = Shop()
    worker = Worker(shop, await store.open())
    await worker.do()
    closed = await worker.close("never")
    assert (closed.verdict, closed.reason, closed.attempt) == ("done", "attempt 1 has done it", 1)
    assert (closed.type, bytes(closed.reply)) == ("stock.reserved.v1", msgspec.json.encode(RESERVED))
    assert (await worker.close("undone", number=2)).verdict == "closed"
    assert await worker.undo() == "undone"
    assert shop.keys == {"order/s1/reserve": 1}


async def test_whoever_acted_outside_after_a_close_is_told_so(store: Store) -> None:
    gate, shop = Gate(), Shop()
    worker = Worker(shop, await store.open())
    run = await running(shop, worker, gate)
    async with worker.database.begin(address("do")) as inbox:  # a proof of death that was wrong
        row = await inbox.claim()
        assert row is not None
        await inbox.settle(msgspec.structs.replace(row, runs=()))
    assert (await worker.close("never", claim=1)).verdict == "closed"
    gate.opened.set()
    with pytest.raises(LostFence) as lost:
        await run
    assert lost.value.acted_after_a_no


# --- declaring it -----------------------------------------------------------------------------------------------------


def test_a_handler_takes_what_its_declaration_says() -> None:
    stock = Participant("stock")
    with pytest.raises(DefinitionError, match=r"with outside=True, so its 'tx' is an Outside, not a Transaction"):

        @stock.handles(Reserve, outside=True)  # type: ignore[arg-type]
        async def reserve(command: Reserve, tx: Transaction) -> Reserved:
            return RESERVED

    with pytest.raises(DefinitionError, match=r"without outside=True, so its 'out' is a Transaction, not an Outside"):

        @stock.handles(Reserve)  # type: ignore[arg-type]
        async def reserve_too(command: Reserve, out: Outside) -> Reserved:
            return RESERVED


# --- in a worker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
async def test_a_worker_answers_others_while_one_waits_for_the_outside(kind: str, tmp_path: Path) -> None:
    gate, shop = Gate(), Shop()

    async def wait_for_first(outside: Outside) -> None:
        if outside.saga_id == "slow":
            gate.reached.set()
            await gate.opened.wait()

    shop.on_do = wait_for_first
    database = open_database(sqlite_url(tmp_path) if kind == "sqlite" else "memory:")
    await database.open(tables)
    async with play(tmp_path) as playing:
        await playing.worker(shop, database)
        await playing.do("slow")
        await gate.reached.wait()
        for saga in ("one", "other"):
            await playing.do(saga)
            await playing.answer(saga, "stock-reserved")
        await playing.undo("slow")
        gate.opened.set()
        await playing.answer("slow", "stock-reserved")
        await playing.answer("slow", "stock-release-done")
        await playing.is_settled()
    await database.close()
    assert shop.keys == {
        "order/slow/reserve": 1,
        "order/one/reserve": 1,
        "order/other/reserve": 1,
        "order/slow/reserve/undo": 1,
    }
