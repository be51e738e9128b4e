"""What `antiphon chaos` plans of itself: only what the sagas that it runs can come by."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from antiphon.contracts.topology import EXPORTER, READMODEL
from antiphon.deploy.chaos.faults import COORDINATOR_POINTS, PARTICIPANT_POINTS
from antiphon.deploy.chaos.schedule import Schedule, Targets
from antiphon.deploy.chaos.storm import Storm
from antiphon.deploy.chaos.trips import Trips
from antiphon.deploy.cli import storms
from antiphon.deploy.cli.main import app
from antiphon.trips.messages import TripRequested

SAGAS = """
from datetime import timedelta

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator import Saga, State
from antiphon.deploy.chaos import Load, Planned
from antiphon.participants import Participant, Transaction


class Asked(Event, name="booking.asked"):
    rooms: list[str] = []


class Booked(Event, name="hotel.booked", owner="hotel"):
    room: str


class Book(Command[Booked], name="hotel.book"):
    room: str


class Free(Compensation[Book], name="hotel.free"):
    reason: str


hotel = Participant("hotel")


@hotel.handles(Book)
async def on_book(command: Book, tx: Transaction) -> Booked:
    return Booked(room=command.room)


@hotel.compensates(Book)
async def on_free(command: Free, booked: Booked, tx: Transaction) -> None: ...


def saga(name: str, step: str) -> Saga[Asked]:
    made = Saga(Asked, name=name, version=1, deadline=timedelta(hours=1))

    def book(s: State[Asked]) -> Book:
        return Book(room="7")

    def free(s: State[Asked]) -> Free:
        return Free(reason=s.reason)

    book.__name__, free.__name__ = step, f"free_{step}"
    made.step()(book).compensation(free)
    return made


party = saga("party", "party_room")
booking = saga("booking", "booking_room")


class NoLoad:
    pass


class Endless(Load):
    pass


class Picky(Load):
    def __init__(self, seed: int, *, of: str) -> None: ...

    def next(self) -> Planned: ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "sagas_of_storms.py").write_text(SAGAS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "sagas_of_storms", None)
    del sys.modules["sagas_of_storms"]
    return "sagas_of_storms"


@pytest.mark.parametrize("saga", ["party", "booking"])
def test_handlers_fail_only_in_steps_of_the_sagas_that_are_run(module: str, saga: str) -> None:
    words = ["chaos", "--app", module, "--saga", saga, "--plan", "--json", "--only", "fail", "--faults", "20"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    assert {each["step"] for each in json.loads(ran.stdout)["faults"]} == {f"{saga}_room"}


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
async def test_only_the_first_signal_ends_a_storm_and_no_callback_is_cut_short(first: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    told, cut_short = storms.Told(), list[BaseException]()

    def callback() -> None:
        try:
            for each in (first, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), each)
        except BaseException as error:
            cut_short.append(error)

    with told.heard():
        asyncio.get_running_loop().call_soon(callback)
        with pytest.raises(KeyboardInterrupt):
            await told.unless_told(asyncio.sleep(120))
    assert cut_short == []
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_before_a_storm_and_none_after_it_ends_it() -> None:
    told = storms.Told()
    with told.heard():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        for each in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), each)


TRIPS = ("--app", "antiphon.trips", "--load", "antiphon.deploy.chaos.trips:Trips")


def planned(*words: str) -> list[dict[str, Any]]:
    """The faults of a schedule that is only printed."""
    ran = CliRunner().invoke(app, ["chaos", "--plan", "--json", *words])
    assert ran.exit_code == 0, ran.output
    faults: list[dict[str, Any]] = json.loads(ran.stdout)["faults"]
    return faults


def test_where_there_are_branches_and_effects_outside_processes_die_there_too() -> None:
    words = ("--only", "point", "--faults", "60", "--seed", "1")
    faults = planned(*TRIPS, "--saga", "trip", *words)
    own = [each for each in faults if each["target"] not in (EXPORTER, READMODEL)]
    assert {each["point"] for each in own} == {*PARTICIPANT_POINTS, *COORDINATOR_POINTS}
    outside = {each["target"].rpartition("-")[0] for each in faults if each["point"].endswith("_effect")}
    assert outside == {"hotel", "payments"}
    assert not {"before_effect", "between_appends"} & {each["point"] for each in planned(*words)}, "orders have neither"
    alone = {each["point"] for each in planned(*TRIPS, "--saga", "transfer", *words)}
    assert not {"before_effect", "between_appends"} & alone, "nor has the child by itself"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--load", "sagas_of_storms:NoLoad"), "sagas_of_storms:NoLoad is no load: derive it from"),
        (("--load", "sagas_of_storms:Endless"), "sagas_of_storms:Endless is no load: derive it from"),
        (("--load", "sagas_of_storms:Picky"), "sagas_of_storms:Picky cannot be made of a seed: "),
        (("--load", "sagas_of_storms:gone"), "sagas_of_storms:gone is no type"),
        (("--load", "sagas_of_storms:Picky", "--payload", "x"), "--payload and --load both say what is run"),
    ],
)
def test_what_is_no_load_is_refused_before_anything_starts(
    module: str, words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    given = ("--app", module, "--saga", "party", "--faults", "1", "--folder", str(tmp_path / "storm"))
    ran = CliRunner().invoke(app, ["chaos", *given, *words])
    assert ran.exception is not None
    assert sentence in str(ran.exception)
    assert not [*(tmp_path / "storm").glob("nats/**/store")]


def test_a_load_for_the_order_system_is_refused() -> None:
    ran = CliRunner().invoke(app, ["chaos", "--load", "antiphon.deploy.chaos.trips:Trips"])
    assert "--load is for sagas of your own, which --app names" in str(ran.exception)


def test_the_same_seed_asks_for_the_same_trips_to_all_places_for_all_reasons() -> None:
    one, same, other = Trips(1), Trips(1), Trips(2)
    asked = [[load.next().start for _ in range(300)] for load in (one, same, other)]
    assert asked[0] == asked[1] != asked[2]
    assert len({each.destination for each in asked[0] if isinstance(each, TripRequested)}) == 8


@pytest.mark.parametrize("kind", ["fill", "stop"])
def test_a_disk_that_cannot_be_filled_fails_only_who_asked_for_that(
    module: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storms, "why_not", lambda: "nobody may mount anything.")
    words = ["chaos", "--app", module, "--saga", "party", "--plan", "--json", "--only", kind, "--faults", "5"]
    ran = CliRunner().invoke(app, words)
    if kind == "fill":
        assert str(ran.exception) == "a fault of the kind fill is not possible here: nobody may mount anything."
    else:
        assert (ran.exit_code, ran.stderr) == (0, "")


def test_a_kind_that_is_not_possible_and_that_nobody_left_out_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storms, "why_not", lambda: "nobody may mount anything.")
    words = ["chaos", "--servers", "1", "--plan", "--json", "--faults", "5"]
    ran = CliRunner().invoke(app, words)
    assert ran.stderr.splitlines() == [
        "antiphon: no fault of the kind fill is possible here, which fails this run: nobody may mount anything. "
        "--without fill leaves that kind out."
    ], "an outage is left out by --servers 1"
    for left_out in (["--without", "fill"], ["--no-small-disks"], ["--only", "kill"]):
        assert CliRunner().invoke(app, [*words, *left_out]).stderr == ""
    kinds = {each["kind"] for each in planned("--faults", "80", "--without", "kill", "--without", "fill")}
    assert {"stop", "point"} <= kinds
    assert not {"kill", "fill"} & kinds


class Plans:
    """A platform of which is known only what is planned on it."""

    def __init__(self) -> None:
        self.targets, self.left = Targets({}, [], []), list[str]()

    def to_come(self) -> list[str]:
        return self.left


async def test_of_two_faults_alike_the_first_comes_about_although_the_second_does_not() -> None:
    plans: Any = Plans()
    storm = Storm(plans, Schedule(()), cast(Any, None), print)
    plans.left.append("till after_commit")
    first = asyncio.create_task(storm._come_about("till after_commit", 1))
    await asyncio.sleep(0)
    plans.left.append("till after_commit")
    second = asyncio.create_task(storm._come_about("till after_commit", 1))
    await asyncio.sleep(0)
    plans.left.pop()
    await first
    assert not second.done()
    plans.left.pop()
    await second
