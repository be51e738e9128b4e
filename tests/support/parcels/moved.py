"""The depot is called attic now."""

from __future__ import annotations

from datetime import timedelta

from antiphon.contracts import Command, Compensation, Event
from antiphon.coordinator import Saga, State


class ParcelAsked(Event, name="parcel.asked"):
    item: str


class Packed(Event, name="depot.packed", owner="attic"):
    parcel: str


class Pack(Command[Packed], name="depot.pack"):
    item: str


class Unpack(Compensation[Pack], name="depot.unpack"):
    reason: str


class Shipped(Event, name="depot.shipped", owner="attic"):
    label: str


class Ship(Command[Shipped], name="depot.ship"):
    parcel: str


class Addressed(Event, name="parcel.addressed"):
    town: str


PARCEL = Saga(ParcelAsked, name="parcel", version=1, deadline=timedelta(hours=1))


@PARCEL.step()
def pack(s: State[ParcelAsked]) -> Pack:
    return Pack(item=s.start.item)


@pack.compensation
def unpack(s: State[ParcelAsked]) -> Unpack:
    return Unpack(reason=s.reason)


addressed = PARCEL.signal(Addressed)


@PARCEL.step(after=(pack, addressed), needs_no_compensation=True)
def ship(s: State[ParcelAsked]) -> Ship:
    return Ship(parcel=s[pack].parcel)
