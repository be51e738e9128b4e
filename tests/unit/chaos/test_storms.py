"""What `antiphon chaos` plans of itself: only what the sagas that it runs can come by."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from antiphon.deploy.cli.main import app

SAGAS = """
from datetime import timedelta

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator import Saga, State
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
