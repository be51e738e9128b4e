"""Coordinators whose messages differ under one version, as real processes on one server: what fits goes on side by
side, and what does not is refused before it does harm."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from antiphon.contracts import ContractsChanged, Event, PlatformError, SagaKey, StartUnread, subjects
from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.headers import guard_header
from antiphon.contracts.payloads import Parked
from antiphon.contracts.topology import EVENTS, PARKED, SAGA, participant_consumers
from antiphon.coordinator import Antiphon, Handle, Saga
from antiphon.coordinator.client import client as client_module
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.coordinator.runtime.schemas import agree, open_sagas
from antiphon.coordinator.runtime.serve import attach
from antiphon.link import Delivery, Link
from tests.support.parcels import before, optional, reboxed, renamed
from tests.support.processes import Child
from tests.support.server import FORMS, Platform, platform, until

IN_FLIGHT: Final = 100
SECONDS: Final = 120.0
DEFINITION: Final = before.PARCEL.definition


class Depot:
    """The participant, as a program in another language: it packs at once, and ships once it is told to."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.held: list[Delivery] = []
        self.is_open = False

    async def begin(self) -> None:
        for consumer in participant_consumers("depot"):
            await self._link.pull(consumer.stream, consumer.name, 2 * IN_FLIGHT, self._on_command)

    def open(self) -> None:
        """Ship what waits, and from now on at once."""
        self.is_open = True
        held, self.held = self.held, []
        for delivery in held:
            self._on_command(delivery)

    def _on_command(self, delivery: Delivery) -> None:
        command = subjects.parse_command(delivery.subject)
        if command.step == "ship" and not self.is_open:
            self.held.append(delivery)
            return
        event: Event = before.Packed(parcel="p") if command.step == "pack" else before.Shipped(label="l")
        contract = event.__contract__
        subject = subjects.event_subject(command.saga.path, "depot", contract.token, command.step, command.attempt)
        data = answer(subject, event, str(delivery.sequence))
        self._link.publish(subject, data, "", lambda outcome: delivery.ack())


def answer(subject: str, event: Event, command: str) -> bytes:
    time, type_ = datetime.now(UTC), event.__contract__.type
    return encode(Envelope(id=subject, source="depot", type=type_, time=time, data=pack(event), command=command))


class Town:
    """Everybody there is on one server."""

    def __init__(self, up: Platform, folder: Path, stack: AsyncExitStack) -> None:
        self.up, self.folder, self._stack = up, folder, stack

    async def link(self, user: str) -> Link:
        link = await self.up.connect(user)
        self._stack.push_async_callback(link.close)
        return link

    async def depot(self) -> Depot:
        depot = Depot(await self.link("depot"))
        await depot.begin()
        return depot

    async def client(self) -> Antiphon:
        credentials = self.up.credentials("client")
        return await self._stack.enter_async_context(Antiphon.connect(self.up.servers, credentials=credentials))

    async def coordinate(self, *sagas: Saga[Any]) -> Coordinator:
        """A coordinator in this process."""
        link = await self.link("coordinator")
        coordinator = Coordinator(JetStreamStore(link), [saga.definition for saga in sagas])
        await attach(link, coordinator)
        return coordinator

    @contextmanager
    def process(self, module: str, *options: str) -> Iterator[Child]:
        """A coordinator of its own, with the messages of a module."""
        app = f"tests.support.parcels.{module}:PARCEL"
        environment = {**self.up.environment("coordinator"), "ANTIPHON_LOG": "json"}
        arguments = ["antiphon.deploy", "coordinator", "--app", app, *options]
        child = Child(module, arguments, environment, self.folder / f"{module}.log", program=(sys.executable, "-m"))
        child.launch()
        try:
            yield child
        finally:
            child.terminate()
            child.wait()

    async def parked(self) -> list[Parked]:
        reader = await self.link("administrator")
        return [msgspec.json.decode(it.data, type=Parked) async for it in reader.scan(PARKED, "parked.>")]

    async def kept(self) -> list[str]:
        reader = await self.link("coordinator")
        found = await reader.read_all(SAGA, [subjects.schemas_filter(DEFINITION.label)])
        return [subjects.parse_schemas(each.subject) for each in found]


@asynccontextmanager
async def town(folder: Path, form: Any = "plain") -> AsyncIterator[Town]:
    with platform(folder, form, participants=("depot",)) as up:
        await up.set_up()
        async with AsyncExitStack() as stack:
            yield Town(up, folder, stack)


@pytest.fixture(params=FORMS)
async def there(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, request.param) as everybody:
        yield everybody


async def ready(child: Child) -> None:
    await until(lambda: said(child, "coordinator.ready"), what=f"{child.role} at work")


def said(child: Child, event: str) -> bool:
    return child.log.exists() and f'"{event}"' in child.log.read_text()


async def ended(child: Child) -> str:
    """What a process said that ends by itself with an error."""
    process = child.process
    assert process is not None
    await until(lambda: process.poll() is not None, what=f"the end of {child.role}")
    text = child.log.read_text()
    assert process.returncode == 4, text
    return text


async def started(client: Antiphon, number: int) -> list[Handle]:
    """Sagas of a client with the messages of before, with all that they wait for but the depot."""
    handles = [
        await client.start(before.PARCEL, before.ParcelAsked(item="vase"), id=f"before-{each}")
        for each in range(number)
    ]
    for handle in handles:
        await handle.signal(before.addressed, before.Addressed(town="Brno"))
    return handles


async def started_anew(client: Antiphon, number: int) -> list[Handle]:
    """The same of a client with the newer messages."""
    start = optional.ParcelAsked(item="vase", note="fragile")
    handles = [await client.start(optional.PARCEL, start, id=f"optional-{each}") for each in range(number)]
    for handle in handles:
        await handle.signal(optional.addressed, optional.Addressed(town="Brno"))
    return handles


async def outcomes(handles: list[Handle]) -> set[str]:
    async with asyncio.timeout(SECONDS):
        return {each.outcome for each in await asyncio.gather(*(handle.result() for handle in handles))}


# --- processes side by side -------------------------------------------------------------------------------------------


async def test_optional_fields_beside_the_version_before_park_none_of_a_hundred_sagas_in_flight(tmp_path: Path) -> None:
    async with town(tmp_path) as there:
        depot, client = await there.depot(), await there.client()
        with there.process("before") as old:
            await ready(old)
            handles = await started(client, IN_FLIGHT)
            await until(lambda: len(depot.held) == IN_FLIGHT, what="all sagas in flight")
            with there.process("optional") as new:
                await ready(new)
                handles += await started_anew(client, 30)
                for each in handles[::20]:
                    assert (await each.status()).parked == ""
                depot.open()
                assert await outcomes(handles) == {"completed"}
                with there.process("before") as again:  # one that died, and comes back beside the new one
                    await ready(again)
        assert await there.parked() == []
        assert await there.kept() == [DEFINITION.schemas, optional.PARCEL.definition.schemas]


async def test_a_renamed_field_is_refused_and_named_while_sagas_are_open_and_taken_once_none_is(tmp_path: Path) -> None:
    async with town(tmp_path) as there:
        depot, client = await there.depot(), await there.client()
        with there.process("before") as old:
            await ready(old)
            handles = await started(client, 20)
            await until(lambda: len(depot.held) == 20, what="all sagas in flight")
            with there.process("renamed") as new:
                text = await ended(new)
            assert not said(new, "coordinator.ready")
            assert "messages of parcel.v1." in text
            assert "parcel/before-" in text
            assert "depot.packed.v1: field box was added without a default" in text
            assert "depot.packed.v1: field parcel was removed" in text
            assert "parcel.asked.v1: field currency was added without a default" in text
            assert await there.kept() == [DEFINITION.schemas]
            depot.open()
            assert await outcomes(handles) == {"completed"}
            with there.process("renamed") as new:
                await ready(new)
        assert await there.parked() == []


async def test_who_says_so_starts_all_the_same(tmp_path: Path) -> None:
    async with town(tmp_path) as there:
        depot, client = await there.depot(), await there.client()
        with there.process("before") as old:
            await ready(old)
            await started(client, 3)
            await until(lambda: len(depot.held) == 3, what="all sagas in flight")
        with there.process("renamed", "--incompatible-contracts") as new:
            await ready(new)
            depot.open()
            await until(lambda: new.log.read_text().count('"saga.parked"') == 3, what="all sagas parked")
        reasons = {each.reason for each in await there.parked()}
        assert len(reasons) == 1
        assert "its start cannot be read: ParcelAsked: Object missing required field `currency`" in reasons.pop()


# --- what is kept, and how it is compared -----------------------------------------------------------------------------


async def test_schemas_are_kept_once_by_whoever_is_first(there: Town) -> None:
    links = [await there.link("coordinator") for _ in range(3)]
    await asyncio.gather(*(agree(link, [DEFINITION]) for link in links))
    await agree(links[0], [DEFINITION])
    stored = [each async for each in links[0].scan(SAGA, "saga.schemas.>")]  # each, and not the last of a subject
    assert [each.subject for each in stored] == [subjects.schemas_subject(DEFINITION.label, DEFINITION.schemas)]


async def begun(there: Town, saga: Saga[Any], id: str) -> SagaKey:
    """A saga in flight whose journal an earlier coordinator began."""
    key, link = SagaKey.of("parcel", id), await there.link("coordinator")
    await (await there.client()).start(before.PARCEL, before.ParcelAsked(item="vase"), id=id)
    coordinator = await there.coordinate(saga)
    subject = subjects.command_subject(key, "depot", "pack", "do", 1)
    async with asyncio.timeout(120):
        while not await link.read_all(SAGA, [subject]):
            await asyncio.sleep(0.01)
    assert coordinator.journals.definitions
    return key


async def test_what_was_added_may_be_taken_back_and_what_never_fitted_may_not(tmp_path: Path) -> None:
    """The order in which schemas were kept tells which are the older ones."""
    async with town(tmp_path) as there:
        link = await there.link("coordinator")
        await agree(link, [DEFINITION])
        await agree(link, [optional.PARCEL.definition])
        await begun(there, optional.PARCEL, "p1")
        await agree(link, [DEFINITION])
        with pytest.raises(
            ContractsChanged, match=r"(?s)parcel/p1 for one.*\n  - depot\.packed\.v1: field box was added"
        ):
            await agree(link, [renamed.PARCEL.definition])
        assert await there.kept() == [DEFINITION.schemas, optional.PARCEL.definition.schemas]
        await agree(link, [renamed.PARCEL.definition], incompatible=True)
        assert renamed.PARCEL.definition.schemas in await there.kept()


async def test_to_go_back_is_refused_where_sagas_began_with_what_the_version_before_cannot_read(tmp_path: Path) -> None:
    async with town(tmp_path) as there:
        link = await there.link("coordinator")
        await agree(link, [DEFINITION])
        await agree(link, [reboxed.PARCEL.definition])
        await begun(there, reboxed.PARCEL, "p1")
        with pytest.raises(
            ContractsChanged, match=r"(?s)parcel/p1 for one.*\n  - depot\.packed\.v1: field box was added"
        ):
            await agree(link, [DEFINITION])


async def test_sagas_whose_journals_name_no_schemas_are_taken_as_they_are(tmp_path: Path) -> None:
    async with town(tmp_path) as there:
        link, key = await there.link("coordinator"), SagaKey.of("parcel", "old")
        await (await there.client()).start(before.PARCEL, before.ParcelAsked(item="vase"), id="old")
        subject = subjects.command_subject(key, "depot", "pack", "do", 1)
        entry = Envelope(
            id=subject,
            source="coordinator",
            type="depot.pack.v1",
            time=datetime.now(UTC),
            data=pack(before.Pack(item="vase")),
            cause="e1",
            definition=DEFINITION.label,
        )
        await link.store(subject, encode(entry), guard_header(key, 0))
        await agree(link, [DEFINITION])
        assert [each async for each in open_sagas(link, DEFINITION)] == []
        await agree(link, [renamed.PARCEL.definition])


async def test_only_sagas_in_flight_of_the_same_definition_are_looked_at(tmp_path: Path) -> None:
    async with town(tmp_path) as there:
        link = await there.link("coordinator")
        key = await begun(there, before.PARCEL, "p1")
        assert [each async for each in open_sagas(link, DEFINITION)] == [(key, DEFINITION.schemas)]
        other = msgspec.structs.replace(DEFINITION, shape="0" * 12)
        assert [each async for each in open_sagas(link, other)] == []
        await (await there.client()).handle(before.PARCEL, "p1").cancel("enough")
        subject = subjects.event_subject(key.path, "depot", "depot-unpack-done", "pack", 1)
        undo = subjects.command_subject(key, "depot", "pack", "undo", 1)
        async with asyncio.timeout(120):
            while not (asked := await link.read_all(SAGA, [undo])):
                await asyncio.sleep(0.01)
        done = Envelope(
            id=subject,
            source="depot",
            type="depot.unpack.done.v1",
            time=datetime.now(UTC),
            data=msgspec.Raw(b'{"found":true}'),
            command=str(asked[0].sequence),
        )
        await (await there.link("depot")).store(subject, encode(done))
        async with asyncio.timeout(120):
            while [each async for each in open_sagas(link, DEFINITION)]:
                await asyncio.sleep(0.01)


# --- a client of another version --------------------------------------------------------------------------------------


async def test_a_client_whose_start_lacks_a_field_is_told_which(there: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LOOK_SECONDS", 0.05)
    await there.coordinate(renamed.PARCEL)
    client = await there.client()
    handle = await client.start(before.PARCEL, before.ParcelAsked(item="vase"), id="p1")
    with pytest.raises(StartUnread, match=r"parcel/p1 has not begun: .*ParcelAsked: .*`currency`.*Nothing was done"):
        await handle.result(timeout=120)
    status = await handle.status()
    assert "missing required field `currency`" in status.parked
    await handle.cancel("never mind")
    assert (await handle.result(timeout=120)).reason == "cancelled: never mind"


async def test_how_a_saga_stands_is_told_by_whoever_can_while_coordinators_differ(there: Town) -> None:
    key = await begun(there, before.PARCEL, "p1")
    other = msgspec.structs.replace(DEFINITION, shape="0" * 12, schemas="other")
    strangers = [await there.link("coordinator") for _ in range(3)]
    for link in strangers:
        await attach(link, Coordinator(JetStreamStore(link), [other]))
    handle = (await there.client()).handle(before.PARCEL, key.id)
    for _ in range(20):
        assert (await handle.status()).definition == DEFINITION.label


async def test_that_nobody_can_tell_is_said_too(there: Town) -> None:
    client = await there.client()
    handle = await client.start(before.PARCEL, before.ParcelAsked(item="vase"), id="p1")
    stranger = await there.link("coordinator")
    await attach(stranger, Coordinator(JetStreamStore(stranger), []))
    with pytest.raises(PlatformError, match="no coordinator answers that has sagas of type 'parcel'"):
        await handle.status()
    assert await stranger.read_all(EVENTS, [subjects.start_subject(handle.key)])
