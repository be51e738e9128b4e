"""Trips of the travel agency with real processes that die: every shape of a saga at once, and effects outside."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from msgspec.structs import replace

from antiphon.contracts.errors import TooLate
from antiphon.deploy.chaos import ChaosPlatform
from antiphon.deploy.chaos.disks import why_not
from antiphon.deploy.chaos.trips import LEDGER
from antiphon.trips.messages import TripRequested
from antiphon.trips.partners import PLACE, read_requests
from antiphon.trips.saga import confirmed, trip
from tests.integration.trips.agency import CONFIRMED, PARTICIPANTS, REQUESTED

pytestmark = pytest.mark.chaos("antiphon.trips")

CLOSED = replace(REQUESTED, destination="LYR")
"""Where the hotel is closed."""
DECLINED = replace(REQUESTED, customer_id="t-013")
"""By somebody whose card has expired."""


@pytest.fixture
def partners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the other companies remember what they did; known to the processes of the platform."""
    path = tmp_path / "partners.db"
    monkeypatch.setenv(PLACE, str(path))
    return path


@pytest.fixture
def agency(partners: Path, chaos: ChaosPlatform) -> ChaosPlatform:
    """The platform, and its books."""
    for each in PARTICIPANTS:
        chaos.ledger(each.name, LEDGER)
    return chaos


async def taken(agency: ChaosPlatform, requested: TripRequested) -> str:
    """How a trip ends that is confirmed."""
    async with agency.client() as antiphon:
        saga = await antiphon.start(trip, requested, id=requested.trip_id)
        with suppress(TooLate):  # what cannot be had may be known by now
            await saga.signal(confirmed, CONFIRMED)
        return (await saga.result(timeout=120)).outcome


@pytest.mark.parametrize(("requested", "who"), [(CLOSED, "hotel"), (DECLINED, "payments")], ids=["room", "card"])
async def test_what_is_declined_outside_after_a_death_waits_for_no_person(
    partners: Path, agency: ChaosPlatform, requested: TripRequested, who: str
) -> None:
    agency.at(who, "before_effect")
    assert await taken(agency, requested) == "compensated"
    assert sum(amount for *_, amount in read_requests(partners)) == 0
    await agency.assert_invariants()


@pytest.mark.parametrize("who", ["hotel", "payments"])
async def test_what_was_done_outside_before_a_death_is_done_once(
    partners: Path, agency: ChaosPlatform, who: str
) -> None:
    agency.at(who, "after_effect")
    assert await taken(agency, REQUESTED) == "completed"
    assert [(company, amount) for _, company, _, amount in read_requests(partners)] == [
        ("hotels", REQUESTED.nights),
        ("gateway", REQUESTED.amount),
    ]
    await agency.assert_invariants()


async def test_a_coordinator_that_dies_where_branches_part_sends_each_command_once(agency: ChaosPlatform) -> None:
    agency.at("coordinator", "between_appends", times=3)
    assert await taken(agency, REQUESTED) == "completed"
    assert agency.deaths("coordinator") == 3
    await agency.assert_invariants()


def test_trips_survive_a_storm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "antiphon.deploy", "chaos", "--app", "antiphon.trips", "--saga", "trip"]
    command += ["--load", "antiphon.deploy.chaos.trips:Trips", "--folder", str(tmp_path / "storm"), "--workers", "1"]
    command += ["--without", "fill"] if why_not() else []
    with Popen([*command, "--seed", "12", "--faults", "12", "--every", "2"], stdout=PIPE, text=True) as ran:
        told, _ = ran.communicate()
    assert ran.returncode == 0, told
    assert re.fullmatch(r"chaos: \d+ sagas, 12 faults, 0 violations", told.splitlines()[-1])
    assert re.search(r"^\d+ compensated, \d+ completed; ", told, re.M)
