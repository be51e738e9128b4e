"""`antiphon doctor` on clients with a bound: who has reached it, who copies what they store, whether it holds."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from antiphon.contracts.topology import BOUNDED, EVENTS, Bound
from antiphon.deploy.admin.doctor.clients import clients
from antiphon.deploy.admin.doctor.findings import Deployment, Finding
from antiphon.deploy.admin.doctor.roles import rights
from antiphon.deploy.admin.doctor.streams import copies
from antiphon.deploy.admin.rights import Grant, Rights
from antiphon.link import Link
from antiphon.link.setup import api
from tests.integration.platform.test_bounded_clients import MOST, OTHER, SHOP, SIGNALS, STREAM, TWIN, shops, start_all
from tests.integration.platform.test_bounded_clients import rights as three_clients
from tests.integration.platform.test_coordinator import idle
from tests.processes.test_doctor import told
from tests.processes.test_doctor_rights import folder_of, told_of
from tests.support.server import RIGHTS_FORMS, Form, platform
from tests.support.trip import PARTICIPANTS, TRIP

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def forgotten_sockets() -> Iterator[None]:
    """nats-py leaves the socket of who was not let in to the garbage collector."""
    yield
    gc.collect()


async def test_who_has_reached_a_bound_and_who_is_served_by_nobody_is_told(tmp_path: Path) -> None:
    async with shops(tmp_path, "accounts") as there:
        link = await there.link("administrator")
        deployment = Deployment(link, (there.up.servers,), there.up.credentials("administrator"))
        (unserved,) = await clients(deployment)
        assert unserved.grade == "fault"
        assert f"no coordinator takes what client {SHOP} stores in {STREAM} and {SIGNALS}" in unserved.what
        assert "where one runs, the accounts do not know the bound" in unserved.remedy
        await there.coordinate()
        await there.work(idle)
        shop = await there.client(SHOP)
        (fine,) = await clients(deployment)
        assert (fine.grade, fine.what) == (
            "fine",
            f"client {SHOP} has 0 sagas of type {TRIP.name} open, and may have {MOST}",
        )
        await start_all(shop, [f"s{number}" for number in range(MOST)])
        (full,) = await clients(deployment)
        assert full.grade == "warning"
        assert (
            f"client {SHOP} has {MOST} sagas of type {TRIP.name} open, and may have {MOST}: its next start is refused"
            in full.what
        )
        assert f"antiphon setup --bound {SHOP}={TRIP.name}:NUMBER" in full.remedy


async def test_copies_of_what_such_clients_store_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shops(tmp_path, "accounts") as there:
        link = await there.link("administrator")
        monkeypatch.setattr(Link, "may_be_clustered", True)
        found = await copies(Deployment(link, (there.up.servers,), there.up.credentials("administrator")))
        for stream in (EVENTS, STREAM, SIGNALS):
            assert f"stream {stream} has one copy, in a cluster" in told(found, "warning")


async def test_a_bound_whose_streams_are_not_as_they_must_be_is_told(tmp_path: Path) -> None:
    async with shops(tmp_path, "accounts") as there:
        link = await there.link("administrator")
        deployment = Deployment(link, (there.up.servers,), there.up.credentials("administrator"))
        await api(link, f"CONSUMER.DELETE.{SIGNALS}.{BOUNDED}")
        config = (await api(link, f"STREAM.INFO.{STREAM}"))["config"]
        await api(link, f"STREAM.UPDATE.{STREAM}", {**config, "discard": "old", "discard_new_per_subject": False})
        said = told(await clients(deployment), "fault")
        assert f"there is no consumer {BOUNDED} of stream {SIGNALS}" in said
        assert f"stream {STREAM}: discard is old and must be new" in said
        await there.up.set_up(client_bounds=[Bound(SHOP, TRIP.name, MOST)])
        assert [each.what for each in await clients(deployment) if "no coordinator takes" not in each.what] == []
        await api(link, f"STREAM.DELETE.{STREAM}")
        (half,) = await clients(deployment)
        assert f"there is stream {SIGNALS}, and no stream that bounds" in half.what


@pytest.mark.parametrize("form", [*RIGHTS_FORMS, "pairs"])
async def test_whether_a_bound_holds_is_tried_and_leaves_no_trace(form: Form, tmp_path: Path) -> None:
    def without_a_bound(given: Rights) -> Rights:
        return replace(three_clients(given), bounds={TWIN: [TRIP.name]})

    async def found(made: str, most: int = MOST, named: Sequence[str] = (SHOP, TWIN, OTHER)) -> list[Finding]:
        folder = tmp_path / f"{made}-{most}-{len(named)}"
        folder.mkdir()
        accounts = three_clients if made == "with" else without_a_bound
        with platform(folder, form, participants=PARTICIPANTS, rights=accounts) as up:
            await up.set_up(client_bounds=[Bound(SHOP, TRIP.name, most)] if most else [])
            link = await up.connect("administrator")
            granted = {name: [Grant(TRIP.name)] for name in named}
            deployment = Deployment(
                link,
                (up.servers,),
                up.credentials("administrator"),
                rights_folder=str(folder_of(up, folder)),
                clients=granted,
            )
            findings = [*await rights(deployment), *await clients(deployment)]
            for stream in (*link.pairs.events, *((STREAM, SIGNALS) if most else ())):
                assert (await api(link, f"STREAM.INFO.{stream}"))["state"]["messages"] == 0
            await link.close()
            return findings

    right, wrong = await found("with"), await found("without")
    unset, unnamed = await found("with", most=0), await found("with", named=[OTHER, "shpo"])
    for each in (right, wrong, unset, unnamed):
        assert [one.grade for one in told_of(each, "coordinator")] == ["fine"], told_of(each, "coordinator")
    assert "has no credentials of shpo" in told(unnamed, "warning")
    assert f"what {SHOP} may do was not said" in told(unnamed, "unknown")
    for name in (SHOP, OTHER):
        assert [each.grade for each in told_of(right, name)] == ["fine"]
    (unserved,) = [each for each in right if "no coordinator takes" in each.what]
    assert (unserved.what.rpartition(": ")[2], unserved.remedy) == ("0", "start a coordinator")
    (shop,) = [each for each in wrong if f"do not know the bound of {SHOP}" in each.what]
    assert not [each for each in wrong if "no coordinator takes" in each.what]
    assert (shop.check, shop.grade) == ("clients", "fault")
    assert f"{SHOP} may have more than {MOST} sagas of type {TRIP.name} open: its starts go to EVENTS" in shop.what
    assert f"coordinators may not take what client {SHOP} stores in {STREAM} and {SIGNALS}" in shop.what
    assert f"make the accounts anew with antiphon rights --bound {SHOP}={TRIP.name}" in shop.remedy
    assert f"antiphon setup --forget-bound {SHOP}={TRIP.name}" in shop.remedy
    for each in (wrong, unset):
        (twin,) = [one for one in told_of(each, TWIN) if one.grade == "fault"]
        assert f"{TWIN} can start no saga of type {TRIP.name}" in twin.what
        assert f"antiphon setup --bound {TWIN}={TRIP.name}:NUMBER" in twin.remedy
    assert [each.grade for each in told_of(wrong, OTHER)] == ["fine"]


async def test_a_bound_of_a_stranger_keeps_no_rights_from_being_tried(tmp_path: Path) -> None:
    """As an earlier release set it: for a participant, or under a name that would share a user's variable."""
    with platform(tmp_path, "accounts", participants=PARTICIPANTS) as up:
        await up.set_up(client_bounds=[Bound("read_model", TRIP.name, 1), Bound("opera-tor", TRIP.name, 1)])
        link = await up.connect("administrator")
        for bound in (Bound(PARTICIPANTS[0], TRIP.name, 3), Bound("operator", TRIP.name, 3)):
            for stream in bound.streams:
                await api(link, f"STREAM.CREATE.{stream.name}", stream.config(1))
        folder = str(folder_of(up, tmp_path))
        found = await rights(Deployment(link, (up.servers,), up.credentials("administrator"), rights_folder=folder))
        assert {each.grade for each in found if not each.what.startswith("what client may do")} == {"fine"}, found
        await link.close()
