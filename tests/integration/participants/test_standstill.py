"""A worker that stood still for longer than the ack wait says nothing of what it held, and no effect is there twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from antiphon.contracts.topology import COORDINATOR_ACK_WAIT_SECONDS, PARTICIPANT_ACK_WAIT_SECONDS
from antiphon.link import leases
from antiphon.participants.memory import MemoryDatabase
from tests.support.server import until

from .holder import GATE
from .play import come, play
from .stock import Gate, Stock
from .test_takeover import HELD, holder, kind, store_of
from .test_worker import ONCE

__all__ = ["kind"]

HARMLESS_SECONDS = 2.0
ACK_WAIT_SECONDS = 1.0


def test_a_standstill_of_two_seconds_costs_no_lease() -> None:
    """It may begin just before a lease would have been extended."""
    for ack_wait_seconds in (PARTICIPANT_ACK_WAIT_SECONDS, COORDINATOR_ACK_WAIT_SECONDS):
        assert leases.lease_seconds(ack_wait_seconds) + HARMLESS_SECONDS < ack_wait_seconds


async def test_a_worker_that_stood_still_answers_what_it_had_begun_and_does_not_ack_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stood_seconds, now = 0.0, leases.now
    monkeypatch.setattr(leases, "now", lambda: now() + stood_seconds)
    gate, database = Gate(), MemoryDatabase()
    async with play(tmp_path, ack_wait_seconds=300.0) as playing:
        worker = await playing.worker(Stock(on_reserve=gate), database)
        await playing.do("held")
        await gate.reached.wait()
        stood_seconds = 2 * PARTICIPANT_ACK_WAIT_SECONDS
        gate.opened.set()
        await playing.answer("held", "stock-reserved")
        await until(lambda: worker.held == 0)
        await worker._link.flushed()
        assert (await playing.consumer())["num_ack_pending"] == 1, "it may be somebody else's by now"
        await playing.do("fresh")
        await playing.answer("fresh", "stock-reserved")
        assert len(database.effects) == 2


async def test_a_process_that_was_stopped_for_longer_than_the_ack_wait_doubles_no_effect(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sagas = [f"held-{number}" for number in range(HELD)]
    async with (
        store_of(kind, tmp_path, request) as store,
        play(tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS) as playing,
    ):
        for saga in sagas:
            await playing.do(saga, retry=ONCE)
        database = await store.open()
        async with holder(playing, store, tmp_path, ack_wait_seconds=ACK_WAIT_SECONDS) as child:
            child.signal(signal.SIGSTOP)
            worker = await playing.worker(Stock(), database, ack_wait_seconds=ACK_WAIT_SECONDS)
            await until(lambda: worker.counts.totals["redeliveries", ("stock",)] >= HELD, what="all delivered again")
            (tmp_path / GATE).touch()
            child.signal(signal.SIGCONT)

            async def is_lost() -> bool | None:
                return "leases.lost" in child.log.read_text() or None

            await come(is_lost, "the leases given up")
            for saga in sagas:
                await playing.answer(saga, "stock-reserved")
            await playing.is_settled()
        assert await store.effects() == ["reserved"] * HELD
        await playing.close()
        playing.workers.clear()
