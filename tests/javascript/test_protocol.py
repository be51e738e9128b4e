"""The participant in JavaScript, command by command, as contracts/README.md has it; on a server with accounts."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from antiphon.contracts.envelope import MESSAGE_BYTES_MAX
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.registration import Capabilities, claims
from antiphon.contracts.subjects import REGISTRATIONS_FILTER, Direction, command_subject, event_subject
from antiphon.contracts.topology import EVENTS, PARKED, REGISTRATIONS, SAGA
from antiphon.flow.running import Running, compare_running, read_running
from antiphon.link import Link
from antiphon.link.setup import api
from antiphon.order.data import load_customers
from tests.support.processes import Child, supervised
from tests.support.server import Platform, platform

from . import node

STEP: Final = "charge_customer"
CHARGE, REFUND, SETTLE = "payment.charge.v1", "payment.refund.v1", "payment.charge.settle.v1"
TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUICK: Final = "2/0.01/1/0.01"
"""Two attempts, ten milliseconds apart."""

RICH: Final = max((each for each in load_customers() if each.card == "valid"), key=lambda each: each.limit).customer_id
POOR: Final = next(each.customer_id for each in load_customers() if each.card == "expired")
_numbers = count(1)


@dataclass
class Scene:
    """A server, the participant on it, and a coordinator's link through which the test sends commands."""

    up: Platform
    link: Link
    administrator: Link
    folder: Path
    saga: SagaKey

    def charge(self, customer: str = RICH) -> dict[str, Any]:
        return {"order_id": self.saga.id, "customer_id": customer, "amount": 100, "reservation_id": "r"}

    async def send(
        self, kind: str, attempt: int = 1, data: dict[str, Any] | None = None, bytes_: bytes | None = None, **more: Any
    ) -> int:
        """Append a command as a coordinator would; returns its sequence."""
        subject = self.subject(kind, attempt)
        envelope = {
            "specversion": "1.0",
            "id": subject,
            "source": "coordinator",
            "type": kind,
            "time": "2026-11-23T09:15:00.003000Z",
            "data": {"order_id": self.saga.id, "reason": "the test"} if data is None else data,
            **more,
        }
        return await self.link.store(subject, json.dumps(envelope).encode() if bytes_ is None else bytes_)

    def subject(self, kind: str, attempt: int) -> str:
        direction: Direction = "undo" if kind in (REFUND, SETTLE) else "do"
        return command_subject(self.saga, "billing", STEP, direction, attempt)

    async def answer(self, kind: str, attempt: int = 1) -> dict[str, Any]:
        """Wait for an answer of a type; returns its envelope."""
        token = kind.rpartition(".v")[0].replace(".", "-")
        subject = event_subject(self.saga.path, "billing", token, STEP, attempt)
        async with asyncio.timeout(120):
            while (found := await self.administrator.get_last(EVENTS, subject)) is None:
                await asyncio.sleep(0.01)
        envelope: dict[str, Any] = json.loads(found.data)
        assert (envelope["id"], envelope["type"], envelope["source"]) == (subject, kind, "billing")
        return envelope

    async def parked(self, kind: str, sequence: int) -> dict[str, Any]:
        """Wait until the command of a sequence is parked."""
        async with asyncio.timeout(120):
            while True:
                async for stored in self.link.scan(PARKED, f"parked.{kind}.billing.coordinator"):
                    message: dict[str, Any] = json.loads(stored.data)
                    if message["sequence"] == sequence:
                        return message
                await asyncio.sleep(0.01)

    async def is_idle(self) -> None:
        """Wait until no command is held or waits: all are acked or ended."""
        async with asyncio.timeout(120):
            for name in ("billing", "billing-undo"):
                while (info := await self.consumer(name))["num_ack_pending"] + info["num_pending"]:
                    await asyncio.sleep(0.01)

    async def consumer(self, name: str) -> dict[str, Any]:
        return await api(self.administrator, f"CONSUMER.INFO.{SAGA}.{name}")

    def ledger(self) -> list[tuple[str, int]]:
        """What was done for this test's saga."""
        query = "SELECT entry, amount FROM ledger WHERE saga = ? ORDER BY number"
        with closing(sqlite3.connect(self.folder / "billing.db")) as database:
            return list(database.execute(query, (str(self.saga),)))

    def logged(self, text: str) -> bool:
        """Whether the participant has said something about this test's saga."""
        lines = (self.folder / "billing.log").read_text().splitlines()
        return any(text in line and f".{self.saga.id}." in line for line in lines)

    def set_card(self, customer: str, state: str) -> None:
        """Have a card be valid, or not."""
        with closing(sqlite3.connect(self.folder / "billing.db")) as database, database:
            database.execute("UPDATE cards SET state = ? WHERE customer_id = ?", (state, customer))


@asynccontextmanager
async def connected(up: Platform, folder: Path) -> AsyncIterator[Scene]:
    """A saga of its own for one test."""
    async with AsyncExitStack() as stack:
        links = [await up.connect(user) for user in ("coordinator", "administrator")]
        for link in links:
            stack.push_async_callback(link.close)
        yield Scene(up, links[0], links[1], folder, SagaKey.of("order", f"order-{next(_numbers)}"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Path]]:
    """One server and one participant for the tests of this file that kill nobody."""
    node.require_packages()
    folder = tmp_path_factory.mktemp("javascript")
    with platform(folder, "accounts") as up:
        asyncio.run(up.set_up())
        with supervised({"billing": node.billing(up, folder)}):
            yield up, folder


@pytest.fixture
async def scene(running: tuple[Platform, Path]) -> AsyncIterator[Scene]:
    async with connected(*running) as scene:
        yield scene


# --- what runs --------------------------------------------------------------------------------------------------------


async def test_it_is_known_to_run_until_it_drains(tmp_path: Path) -> None:
    node.require_packages()
    with platform(tmp_path, "accounts") as up:
        await up.set_up()
        billing = node.billing(up, tmp_path, ANTIPHON_PROGRAM_VERSION="7 of Tuesday")
        with supervised({"billing": billing}):
            (found,) = (await running_when(up, 1)).registrations
            assert [each.command.type for each in found.commands] == [CHARGE]
            assert [(each.compensation.type, each.command.type) for each in found.compensations] == [(REFUND, CHARGE)]
            assert (found.name, found.version, claims(found)) == ("billing", "7 of Tuesday", [])
            findings = compare_running(
                [Capabilities(name="billing", commands=found.commands)], await look_as_operator(up)
            )
            assert [finding.about for finding in findings] == [f"compensation {REFUND}"], "it runs, and takes that too"
            billing.is_away = True
            billing.terminate()
            assert (await running_when(up, 0)).unreadable == ()


async def running_when(up: Platform, count: int) -> Running:
    """What runs, once as many processes have said so."""
    async with asyncio.timeout(120):
        while len((found := await look_as_operator(up)).registrations) != count:
            await asyncio.sleep(0.02)
    return found


async def look_as_operator(up: Platform) -> Running:
    link = await up.connect("operator")
    stored = [(each.subject, each.data) async for each in link.scan(REGISTRATIONS.name, REGISTRATIONS_FILTER)]
    await link.close()
    return read_running(stored)


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_an_answer_echoes_sequence_and_trace_of_its_command(scene: Scene) -> None:
    sequence = await scene.send(CHARGE, data=scene.charge(), traceparent=TRACEPARENT)
    answer = await scene.answer("payment.charged.v1")
    assert (answer["command"], answer["traceparent"]) == (str(sequence), TRACEPARENT)
    assert answer["data"] == {"charge_id": f"charge-{scene.saga.id}", "customer_id": RICH, "amount": 100}
    assert answer["started"] <= answer["time"]
    assert "tries" not in answer


async def test_a_command_that_was_done_is_answered_from_the_inbox_and_a_lower_attempt_is_superseded(
    scene: Scene,
) -> None:
    await scene.send(CHARGE, 2, scene.charge())
    first = await scene.answer("payment.charged.v1", 2)
    await scene.send(CHARGE, 3, scene.charge())
    assert (again := await scene.answer("payment.charged.v1", 3))["data"] == first["data"]
    assert "started" not in again
    await scene.send(CHARGE, 1, scene.charge())
    assert (await scene.answer("payment.charge.superseded.v1", 1))["data"]["reason"]
    await scene.send(CHARGE, 2, scene.charge())  # as a redelivery: its answer is stored already, so it is acked
    await scene.is_idle()
    assert scene.ledger() == [("charged", 100)]


async def test_a_refusal_is_remembered_for_its_attempt_and_not_for_a_later_one(scene: Scene) -> None:
    await scene.send(CHARGE, 1, scene.charge(POOR))
    refusal = await scene.answer("payment.charge.refused.v1", 1)
    assert refusal["data"] == {"reason": f"card declined: the card of {POOR} is expired"}
    scene.set_card(POOR, "valid")
    try:
        await scene.send(CHARGE, 1, scene.charge(POOR))
        await scene.is_idle()
        assert scene.ledger() == []
        await scene.send(CHARGE, 2, scene.charge(POOR))
        await scene.answer("payment.charged.v1", 2)
    finally:
        scene.set_card(POOR, "expired")


async def test_a_compensation_gives_back_what_was_answered_then_and_only_once(scene: Scene) -> None:
    await scene.send(CHARGE, data=scene.charge())
    await scene.answer("payment.charged.v1")
    for attempt in (1, 2):
        await scene.send(REFUND, attempt)
        assert (await scene.answer("payment.refund.done.v1", attempt))["data"] == {"found": True}
    await scene.send(CHARGE, 2, scene.charge())
    await scene.answer("payment.charge.superseded.v1", 2)
    assert scene.ledger() == [("charged", 100), ("refunded", -100)]


@pytest.mark.parametrize("refused_before", [False, True])
async def test_a_compensation_of_nothing_leaves_a_tombstone(scene: Scene, refused_before: bool) -> None:
    if refused_before:
        await scene.send(CHARGE, data=scene.charge(POOR))
        await scene.answer("payment.charge.refused.v1")
    for attempt in (1, 2):
        await scene.send(REFUND, attempt)
        assert (await scene.answer("payment.refund.done.v1", attempt))["data"] == {"found": False}
    await scene.send(CHARGE, 2, scene.charge())
    await scene.answer("payment.charge.superseded.v1", 2)
    assert scene.ledger() == []


async def test_a_settlement_tells_what_was_answered(scene: Scene) -> None:
    await scene.send(CHARGE, data=scene.charge())
    charged = await scene.answer("payment.charged.v1")
    await scene.send(SETTLE, data={})
    settled = (await scene.answer("payment.charge.settled.v1"))["data"]
    assert settled == {"happened": True, "type": "payment.charged.v1", "reply": charged["data"]}


async def test_a_settlement_of_what_did_not_happen_rules_it_out(scene: Scene) -> None:
    await scene.send(SETTLE, data={})
    assert (await scene.answer("payment.charge.settled.v1"))["data"] == {"happened": False}
    await scene.send(CHARGE, 2, scene.charge())
    await scene.answer("payment.charge.superseded.v1", 2)
    assert scene.ledger() == []


# --- attempts ---------------------------------------------------------------------------------------------------------


async def test_a_refusal_past_the_pivot_is_tried_again_and_not_remembered(scene: Scene) -> None:
    await scene.send(CHARGE, 1, scene.charge(POOR), retriable=True, retry=QUICK)
    exhausted = await scene.answer("payment.charge.exhausted.v1", 1)
    assert exhausted["data"]["reason"].startswith("card declined")
    assert exhausted["tries"] == 2
    scene.set_card(POOR, "valid")
    try:
        await scene.send(CHARGE, 2, scene.charge(POOR), retriable=True, retry=QUICK)
        await scene.answer("payment.charged.v1", 2)
    finally:
        scene.set_card(POOR, "expired")


async def test_a_failed_attempt_comes_again_after_its_delay_and_may_succeed(scene: Scene) -> None:
    await scene.send(CHARGE, 1, scene.charge(POOR), retriable=True, retry="2/1/1/1/0")
    async with asyncio.timeout(120):
        while not scene.logged("an attempt failed"):
            await asyncio.sleep(0.01)
    scene.set_card(POOR, "valid")
    try:
        charged = await scene.answer("payment.charged.v1", 1)
    finally:
        scene.set_card(POOR, "expired")
    assert charged["tries"] == 2


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "change"),
    {
        "no payload as agreed": ("undecodable", {"data": {"amount": "much"}}),
        "no envelope": ("undecodable", {"source": 7}),
        "too large": ("undecodable", {"definition": "x" * MESSAGE_BYTES_MAX}),
        "another subject": ("forged", {"id": "saga.1.order.order-1.c.cmd.billing.charge_customer.do.1"}),
    }.values(),
    ids=["payload", "envelope", "size", "forged"],
)
async def test_a_command_that_cannot_be_used_is_parked_and_frees_its_saga(
    scene: Scene, kind: str, change: dict[str, Any]
) -> None:
    attributes: dict[str, Any] = {"data": scene.charge(), "attempt": 7} | change
    sequence = await scene.send(CHARGE, **attributes)
    parked = await scene.parked(kind, sequence)
    assert (parked["noticed_by"], parked["subject"]) == ("billing", scene.subject(CHARGE, 7))
    assert base64.b64decode(parked["data"]).startswith(b'{"specversion"')
    if kind != "forged":
        await scene.answer("payment.charge.exhausted.v1", 7)
    await scene.is_idle()
    assert scene.ledger() == []


async def test_no_json_is_parked_with_its_bytes(scene: Scene) -> None:
    sequence = await scene.send(CHARGE, bytes_=b"\xff")
    assert (await scene.parked("undecodable", sequence))["data"] == "/w=="
    await scene.is_idle()


async def test_a_command_without_a_handler_is_parked_after_its_attempts(scene: Scene) -> None:
    sequence = await scene.send("payment.charge.v2", data={}, retry=QUICK)
    assert "payment.charge.v2" in (await scene.parked("unhandled", sequence))["reason"]
    await scene.answer("payment.charge.exhausted.v2")
    await scene.is_idle()


# --- lives and deaths -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def alone(folder: Path, start: Callable[[Platform], Child]) -> AsyncIterator[tuple[Scene, Child]]:
    """A server with short leases, and a participant that may die."""
    node.require_packages()
    with platform(folder) as up:
        await up.set_up(ack_wait_seconds=1.0)
        child = start(up)
        with supervised({child.role: child}):
            async with connected(up, folder) as scene:
                yield scene, child


async def test_a_command_that_kills_its_worker_ends_exhausted(tmp_path: Path) -> None:
    """The first death may have been another's fault, so it does not count; the second one does."""
    point = "worker.in_transaction:1"
    async with alone(tmp_path, lambda up: node.billing(up, tmp_path, kill_at=f"{point} {point}")) as (scene, child):
        await scene.send(CHARGE, data=scene.charge())
        assert "died" in (await scene.answer("payment.charge.exhausted.v1"))["data"]["reason"]
        assert child.exits == [-signal.SIGKILL, -signal.SIGKILL]
        assert scene.ledger() == []
        await scene.send(REFUND)
        assert (await scene.answer("payment.refund.done.v1"))["data"] == {"found": False}


async def test_a_handler_that_takes_longer_than_the_lease_is_not_called_again(tmp_path: Path) -> None:
    async with alone(tmp_path, lambda up: node.child(up, tmp_path, "slow.mjs", "1800")) as (scene, child):
        await scene.send(CHARGE)
        await scene.answer("payment.charged.v1")
        assert child.log.read_text().count("called for") == 1
        assert (await scene.consumer("billing"))["delivered"]["consumer_seq"] == 1  # it was not even delivered again


async def test_a_terminated_participant_finishes_what_it_does_and_hands_back_the_rest(tmp_path: Path) -> None:
    async with alone(tmp_path, lambda up: node.child(up, tmp_path, "slow.mjs", "700")) as (scene, child):
        await scene.send(CHARGE, 1)
        await scene.send("payment.charge.v1", 2)
        async with asyncio.timeout(120):
            while "called for" not in child.log.read_text() or (await scene.consumer("billing"))["num_pending"]:
                await asyncio.sleep(0.01)
        child.terminate()
        await scene.answer("payment.charged.v1", 1)
        await scene.answer("payment.charged.v1", 2)  # by its next life, out of the inbox
        assert child.exits == [0]
        assert child.log.read_text().count("called for") == 1
        assert "draining" in child.log.read_text()
