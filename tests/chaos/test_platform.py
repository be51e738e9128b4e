"""The platform of the pytest plugin, harmed in every way that it offers: sagas go on, and what is wrong is named."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import convert, to_builtins
from msgspec.structs import replace

from antiphon.contracts.errors import PlatformError, StillRunning
from antiphon.coordinator import Antiphon, Handle
from antiphon.deploy.chaos import ChaosPlatform
from antiphon.deploy.chaos.disks import why_not
from antiphon.deploy.chaos.network import SERVER
from antiphon.deploy.local.styles import Style
from antiphon.link.killpoints import HANGS, RAISED
from antiphon.order.choreographed.messages import OrderCreated
from antiphon.order.choreographed.saga import choreographed_order
from antiphon.order.data import load_orders
from antiphon.order.saga import order
from tests.support.server import until

from . import careless

SERVICES = [f"antiphon.order.{name}" for name in ("saga", "inventory", "billing", "shipping")]
ORDERS = [each for each in load_orders()[:20] if each.order_id != "order-0001"]  # whose customer cannot pay

WHY_NO_DISKS = why_not()
SERVERS = [f"{SERVER}-{number}" for number in (1, 2, 3)]

shop = pytest.mark.chaos(*SERVICES)


@asynccontextmanager
async def one_order(chaos: ChaosPlatform, number: int) -> AsyncIterator[tuple[Antiphon, Handle]]:
    async with chaos.client() as antiphon:
        placed = ORDERS[number]
        yield antiphon, await antiphon.start(order, placed, id=placed.order_id)


async def is_going_on(handle: Handle) -> bool:
    try:
        await handle.result(timeout=2)
    except StillRunning:
        return True
    return False


async def completes(handle: Handle) -> bool:
    return (await handle.result(timeout=120)).outcome == "completed"


@shop
async def test_a_process_that_stands_still_is_waited_for_and_named(chaos: ChaosPlatform) -> None:
    chaos.stop("billing")
    async with one_order(chaos, 0) as (_, handle):
        assert await is_going_on(handle)
        with pytest.raises(PlatformError, match=r"billing is stopped: `chaos.go_on\('billing'\)`"):
            await chaos.restart("billing")
        with pytest.raises(
            AssertionError, match=r"billing is left: it is stopped(.|\n)*I1 order/order-0002: it has not"
        ) as told:
            await chaos.assert_invariants(within_seconds=1)
        assert "reserve_inventory" in str(told.value), "the timeline is there"
        chaos.go_on("billing")
        assert await completes(handle)
    assert chaos.deaths("billing") == 0
    await chaos.assert_invariants()


@shop
async def test_what_is_cut_off_is_waited_for_and_goes_on_when_it_is_healed(chaos: ChaosPlatform) -> None:
    chaos.partition("billing")
    async with one_order(chaos, 1) as (_, handle):
        assert await is_going_on(handle)
        with pytest.raises(AssertionError, match="billing and nats-server is left: nothing passes between them"):
            await chaos.assert_invariants(within_seconds=1)
        chaos.heal()
        assert await completes(handle)
    chaos.slow("coordinator", "nats-server", seconds=0.05)
    async with one_order(chaos, 2) as (_, handle):
        assert await completes(handle)
    await chaos.assert_invariants()


@shop
async def test_a_restart_drains_and_a_death_does_not(chaos: ChaosPlatform) -> None:
    await chaos.restart("coordinator")
    await chaos.restart("shipping")
    chaos.kill("inventory", stays_dead=True)
    with pytest.raises(PlatformError, match="inventory is to stay dead"):
        await chaos.ready()
    async with one_order(chaos, 3) as (_, handle):
        assert await is_going_on(handle)
        await chaos.restart("inventory")
        assert await completes(handle)
    chaos.kill("billing")
    await until(lambda: chaos.deaths("billing") == 1, what="its death")
    await chaos.ready()
    exits = {name: child.exits for name, child in chaos.processes.items()}
    killed = [-signal.SIGKILL]
    assert exits == {"coordinator-1": [0], "shipping": [0], "inventory": killed, "billing": killed}
    await chaos.assert_invariants()


@shop
async def test_servers_die_and_come_back(chaos: ChaosPlatform) -> None:
    async with one_order(chaos, 4) as (_, handle):
        chaos.kill(SERVER)
        assert await completes(handle)
    chaos.kill(SERVER, stays_dead=True)
    with pytest.raises(AssertionError, match=r"^nats-server is left: it stays dead: `await chaos\.restart` starts it$"):
        await chaos.assert_invariants()
    await chaos.restart(SERVER)
    async with one_order(chaos, 5) as (_, handle):
        assert await completes(handle)
    await chaos.assert_invariants()


@shop
async def test_handlers_fail_as_planned_and_are_called_again(chaos: ChaosPlatform) -> None:
    chaos.fail_next("reserve_inventory", times=2)
    with pytest.raises(
        AssertionError, match=r"inventory is left: a fault was planned that did not come about, do\.reserve"
    ):
        await chaos.assert_invariants()
    async with one_order(chaos, 6) as (_, handle):
        assert await completes(handle)
    assert [each.exits for each in chaos.processes.values()] == [[], [], [], []]
    await chaos.assert_invariants()
    with pytest.raises(PlatformError, match="performs a step 'reserve_nothing'"):
        chaos.fail_next("reserve_nothing")
    with pytest.raises(PlatformError, match="schedule_shipping has nothing that could fail in the direction undo"):
        chaos.fail_next("schedule_shipping", direction="undo")


@pytest.mark.chaos(*SERVICES, handler_seconds=2.0)
async def test_what_is_no_exception_is_a_failed_attempt_of_a_process_that_lives(
    chaos: ChaosPlatform, tmp_path: Path
) -> None:
    for error in RAISED:
        chaos.raise_next("reserve_inventory", error)
    async with chaos.client() as antiphon:
        handles = [await antiphon.start(order, each, id=each.order_id) for each in ORDERS[:6]]
        assert all([await completes(handle) for handle in handles])
    assert [each.exits for each in chaos.processes.values()] == [[], [], [], []]
    assert not chaos.to_come()
    await chaos.assert_invariants()
    with pytest.raises(PlatformError, match="cannot be made to raise 'OSError': SystemExit, "):
        chaos.raise_next("reserve_inventory", "OSError")


@pytest.mark.parametrize("how", HANGS)
@pytest.mark.chaos(*SERVICES, handler_seconds=2.0, workers={"inventory": 2})
async def test_a_handler_that_hangs_costs_an_attempt_and_its_saga_ends(chaos: ChaosPlatform, how: str) -> None:
    chaos.hang_next("reserve_inventory", how, seconds=6.0 if how == "block" else 0.0)
    async with chaos.client() as antiphon:
        handles = [await antiphon.start(order, each, id=each.order_id) for each in ORDERS[:6]]
        assert all([await completes(handle) for handle in handles])
    assert not chaos.to_come()
    await chaos.assert_invariants()
    with pytest.raises(PlatformError, match="hangs in one of the ways wait, deaf, block"):
        chaos.hang_next("reserve_inventory", "block")


@pytest.mark.chaos(*SERVICES, exporter=True, readmodel=True)
async def test_exporter_and_read_model_have_all_of_it_whatever_becomes_of_them(chaos: ChaosPlatform) -> None:
    chaos.stop("backend")
    chaos.at("exporter", "before_send")
    chaos.at("readmodel", "before_commit", times=2)
    async with chaos.client() as antiphon:
        handles = [await antiphon.start(order, each, id=each.order_id) for each in ORDERS[:3]]
        await chaos.poison("client", sagas=[handle.key for handle in handles])
        assert all([await completes(handle) for handle in handles])
        with pytest.raises(AssertionError) as told:
            await chaos.assert_invariants(within_seconds=5)
        assert "backend is left: it is stopped" in str(told.value)
        assert "I8 order/order-0002: the tracing backend lacks" in str(told.value)
        assert "I10 consumer exporter of SAGA has" in str(told.value)
        chaos.go_on("backend")
        chaos.kill("readmodel", stays_dead=True)
        assert await completes(await antiphon.start(order, ORDERS[3], id=ORDERS[3].order_id))
        with pytest.raises(AssertionError, match="I14 order/order-0005: the read model has no row of it"):
            await chaos.assert_invariants(within_seconds=5)
        await chaos.restart("readmodel")
        chaos.kill("exporter")
        await chaos.restart("exporter")
    assert (chaos.deaths("exporter"), chaos.deaths("readmodel")) == (2, 3)
    await chaos.assert_invariants()


@pytest.mark.chaos(*SERVICES, readmodel=True)
async def test_sagas_wait_for_a_database_that_another_process_has_locked(chaos: ChaosPlatform) -> None:
    for name in ("inventory", "readmodel"):
        await chaos.lock(name)
    async with one_order(chaos, 0) as (_, handle):
        assert await is_going_on(handle)
        with pytest.raises(AssertionError, match=r"inventory is left: its database is locked: `await chaos\.unlock`"):
            await chaos.assert_invariants(within_seconds=1)
        for name in ("inventory", "readmodel"):
            await chaos.unlock(name)
        assert await completes(handle)
    await chaos.assert_invariants()
    with pytest.raises(PlatformError, match="'till' has no SQLite database to lock: inventory, billing, shipping, rea"):
        await chaos.lock("till")


@pytest.mark.skipif(bool(WHY_NO_DISKS), reason=WHY_NO_DISKS)
@pytest.mark.chaos(*SERVICES, small_disks=True)
async def test_sagas_wait_for_a_disk_that_is_full(chaos: ChaosPlatform) -> None:
    chaos.fill("inventory")
    async with chaos.client() as antiphon:
        handles = [await antiphon.start(order, each, id=each.order_id) for each in ORDERS[:3]]
        assert await is_going_on(handles[0])
        with pytest.raises(AssertionError, match=r"inventory is left: its disk is full: `chaos\.free` ends that"):
            await chaos.assert_invariants(within_seconds=1)
        chaos.kill("inventory")
        chaos.free("inventory")
        assert all([await completes(handle) for handle in handles])
    await chaos.assert_invariants()
    with pytest.raises(PlatformError, match="'till' has no small disk: inventory, billing, shipping"):
        chaos.fill("till")


@pytest.mark.chaos(*SERVICES, databases={"billing": "postgres"})
async def test_a_postgresql_that_is_killed_costs_no_effect(chaos: ChaosPlatform) -> None:
    chaos.kill("postgres", stays_dead=True)
    async with chaos.client() as antiphon:
        handles = [await antiphon.start(order, each, id=each.order_id) for each in ORDERS[:3]]
        assert await is_going_on(handles[0])
        await chaos.restart("postgres")
        assert all([await completes(handle) for handle in handles])
        chaos.kill("postgres")
        await until(lambda: chaos.serves("postgres"), what="PostgreSQL started again")
        assert await completes(await antiphon.start(order, ORDERS[3], id=ORDERS[3].order_id))
    await chaos.assert_invariants()
    with pytest.raises(PlatformError, match="'billing' has no SQLite database to lock"):
        await chaos.lock("billing")


@pytest.mark.parametrize("user", ["client", "billing"])
@shop
async def test_what_a_hostile_user_publishes_is_parked_and_sagas_end(chaos: ChaosPlatform, user: str) -> None:
    chaos.stop("shipping")
    async with chaos.client() as antiphon:
        handles = [await antiphon.start(order, each, id=each.order_id) for each in ORDERS[:3]]
        await chaos.poison(user, times=2, sagas=[handle.key for handle in handles])
        chaos.go_on("shipping")
        assert all([await completes(handle) for handle in handles])
    await chaos.assert_invariants()
    with pytest.raises(PlatformError, match=f"there is no message 'rude' of {user}: noise, oversize"):
        await chaos.poison(user, "rude")
    with pytest.raises(PlatformError, match="there is no user 'till' here: client, inventory"):
        await chaos.poison("till")


@shop
async def test_coordinators_die_at_points_of_their_own(chaos: ChaosPlatform) -> None:
    chaos.at("coordinator", "after_append", times=2)
    async with one_order(chaos, 7) as (_, handle):
        assert await completes(handle)
    assert chaos.deaths("coordinator") == 2
    await chaos.assert_invariants()
    with pytest.raises(PlatformError, match="there is no point 'after_commit': on_delivery, between_appends"):
        chaos.at("coordinator", "after_commit")
    with pytest.raises(PlatformError, match="there is no 'stock' here: coordinator-1, inventory"):
        chaos.kill("stock")


@pytest.mark.chaos(*SERVICES, servers=3, coordinators=2, workers={"billing": 2})
async def test_of_a_cluster_one_server_may_be_cut_off_and_one_worker_stand_still(chaos: ChaosPlatform) -> None:
    chaos.partition("nats-server-1")
    chaos.stop("billing-1")
    chaos.kill("coordinator-1", stays_dead=True)
    async with chaos.client() as antiphon:
        handles = [await antiphon.start(order, each, id=each.order_id, timeout=60) for each in ORDERS[8:12]]
        assert all([(await handle.result(timeout=120)).outcome for handle in handles])
    chaos.heal()
    chaos.go_on("billing")
    await chaos.restart("coordinator-1")
    await chaos.assert_invariants()


@pytest.mark.chaos(*SERVICES, servers=3)
async def test_processes_leave_a_server_that_is_cut_off_from_the_others_and_can_still_be_reached(
    chaos: ChaosPlatform,
) -> None:
    cut_off, *others = SERVERS
    chaos.partition("client", cut_off)
    for other in others:  # until they sit where they will be of no use
        chaos.partition("billing", other)
        chaos.partition("coordinator", other)
    async with one_order(chaos, 13) as (_, handle):
        assert await completes(handle)
    for other in others:
        chaos.heal("billing", other)
        chaos.heal("coordinator", other)
        chaos.partition(cut_off, other)
    async with one_order(chaos, 14) as (_, handle):
        assert await completes(handle)
    chaos.heal()
    await chaos.assert_invariants()


@pytest.mark.chaos(*SERVICES, servers=3)
async def test_a_client_leaves_a_server_that_is_cut_off_from_the_others_and_can_still_be_reached(
    chaos: ChaosPlatform,
) -> None:
    cut_off, *others = SERVERS
    for other in others:  # until the client sits where it will be of no use
        chaos.partition("client", other)
    async with chaos.client() as antiphon:
        first, second = ORDERS[15:17]
        assert await completes(await antiphon.start(order, first, id=first.order_id))
        for other in others:
            chaos.heal("client", other)
            chaos.partition(cut_off, other)
        assert await completes(await antiphon.start(order, second, id=second.order_id, timeout=120))
    chaos.heal()
    await chaos.assert_invariants()


@pytest.mark.chaos("tests.chaos.careless")
async def test_a_handler_that_writes_past_its_transaction_is_found_out(chaos: ChaosPlatform, tmp_path: Path) -> None:
    chaos.ledger("till", careless.charges)
    chaos.at("till", "before_commit")
    async with chaos.client() as antiphon:
        handle = await antiphon.start(careless.sale, careless.Bought(amount=7), id="sale-1")
        assert await completes(handle)
    with pytest.raises(AssertionError) as told:
        await chaos.assert_invariants()
    first, sentence, *timeline = str(told.value).splitlines()
    assert first == "1 violation of what must hold:"
    assert sentence == "I3 sale/sale-1: till has 2 lines of what step charge has done: line 1, line 2"
    assert any(re.search(r"coordinator .*charge", line) for line in timeline)


@pytest.fixture(autouse=True)
def careless_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the till writes; set before its process is started."""
    (tmp_path / "charges").touch()
    monkeypatch.setenv(careless.LEDGER, str(tmp_path / "charges"))


@pytest.mark.chaos(Style.CHOREOGRAPHED.saga, participants=[*Style.CHOREOGRAPHED.participants.values()])
async def test_a_choreography_is_checked_as_well(chaos: ChaosPlatform) -> None:
    chaos.at("billing", "after_commit")
    chaos.at("shipping", "before_commit")
    chaos.at("coordinator", "after_append")
    async with chaos.client() as antiphon:
        placed = [replace(each, address="PO Box 7") for each in ORDERS[:1]] + ORDERS[1:4]
        starts = [convert(to_builtins(each), OrderCreated) for each in placed]
        handles = [await antiphon.start(choreographed_order, each, id=each.order_id) for each in starts]
        for user in ("client", "inventory"):
            await chaos.poison(user, sagas=[handle.key for handle in handles])
        outcomes = [(await handle.result(timeout=120)).outcome for handle in handles]
    assert outcomes == ["compensated", "completed", "completed", "completed"]
    await chaos.assert_invariants()
