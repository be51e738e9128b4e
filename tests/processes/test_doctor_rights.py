"""`antiphon doctor --rights`: each role's rights are tried with its credentials, and no trace of that is left."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.contracts.identity import SagaKey
from antiphon.contracts.pairs import ONE_PAIR
from antiphon.contracts.subjects import command_subject
from antiphon.contracts.topology import BUCKETS, EVENTS, SAGA
from antiphon.deploy.admin.doctor.findings import Deployment, Finding
from antiphon.deploy.admin.doctor.roles import _changes, concrete, refused_of, rights
from antiphon.deploy.admin.rights import EVERYTHING, Grant, Rights
from antiphon.link import Link
from antiphon.link.setup import api, consumer_configs
from tests.support.raw_worker import start_message
from tests.support.server import RIGHTS_FORMS, Form, Platform, platform

PARTICIPANTS = ("inventory", "billing")
KEY = SagaKey.of("order", "order-1")


@pytest.fixture(autouse=True)
def forgotten_sockets() -> Iterator[None]:
    """nats-py leaves the socket of who was not let in to the garbage collector."""
    yield
    gc.collect()


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def folder_of(up: Platform, folder: Path) -> Path:
    """The credentials as `antiphon rights` writes them."""
    if up.form == "jwt":
        return folder / "creds"
    (folder / "secrets").mkdir()
    for name, each in up.logins.users.items():
        (folder / "secrets" / f"{name}.env").write_text(f"NATS_USER={each.user}\nNATS_PASSWORD={each.password}\n")
    return folder / "secrets"


def told_of(findings: list[Finding], user: str) -> list[Finding]:
    return [each for each in findings if each.what.startswith(f"{user} ")]


async def everything(link: Link) -> dict[str, Any]:
    """What is stored, set up, and delivered."""
    found: dict[str, Any] = {"streams": sorted((await api(link, "STREAM.NAMES"))["streams"])}
    for stream in (*link.pairs.streams(), *BUCKETS):
        info = await api(link, f"STREAM.INFO.{stream.name}")
        found[stream.name] = info["config"], {**info["state"], "consumer_count": 0}
    for stream_name, name in await consumer_configs(link):
        info = await api(link, f"CONSUMER.INFO.{stream_name}.{name}")
        keys = ("config", "num_pending", "num_ack_pending", "num_redelivered", "delivered", "ack_floor", "paused")
        found[f"{stream_name}.{name}"] = {key: info.get(key) for key in keys}
    return found


async def with_something_of_everybodys(up: Platform, link: Link) -> None:
    await up.set_up()
    await link.store(*start_message(KEY))
    for name in PARTICIPANTS:
        await link.store(command_subject(KEY, name, "reserve", "do", 1), b"{}")


@pytest.mark.parametrize("form", [*RIGHTS_FORMS, "pairs"])
async def test_each_role_may_do_what_it_must_and_trying_that_leaves_no_trace(form: Form, tmp_path: Path) -> None:
    with platform(tmp_path, form, participants=PARTICIPANTS) as up:
        link = await up.connect("administrator")
        await with_something_of_everybodys(up, link)
        before = await everything(link)
        deployment = Deployment(
            link,
            (up.servers,),
            up.credentials("administrator"),
            rights_folder=str(folder_of(up, tmp_path)),
            clients={"client": [EVERYTHING]},
        )
        found = await rights(deployment)
        assert {each.grade for each in found} == {"fine"}, found
        users = {*PARTICIPANTS, "coordinator", "client", "operator", "readmodel", "exporter"}
        assert {each.what.partition(" ")[0] for each in found} == users
        assert await everything(link) == before
        narrower = replace(deployment, clients={"client": [Grant("order", ("start",))]}, starts={"billing": ["refund"]})
        found = await rights(narrower)
        (too_much,) = told_of(found, "client")
        assert too_much.grade == "fault"
        assert "antiphon.same.antiphon-doctor" in too_much.what
        assert too_much.what.endswith("more, which is not for it")
        assert "antiphon rights" in too_much.remedy
        (too_little,) = told_of(found, "billing")
        assert "evt.antiphon-doctor.refund.antiphon-doctor.client.start" in too_little.what
        assert too_little.what.endswith("which it needs")
        assert await everything(link) == before
        await link.close()


async def test_a_client_that_may_do_more_with_its_sagas_than_was_granted_is_told(tmp_path: Path) -> None:
    def of_orders(rights: Rights) -> Rights:
        return dataclasses.replace(rights, clients={"client": [Grant("order")]})

    with platform(tmp_path, "accounts", participants=PARTICIPANTS, rights=of_orders) as up:
        await up.set_up()
        link, folder = await up.connect("administrator"), folder_of(up, tmp_path)
        own, granted = up.credentials("administrator"), {"client": [Grant("order")]}
        deployment = Deployment(link, (up.servers,), own, rights_folder=str(folder), clients=granted)
        assert {each.grade for each in await rights(deployment)} == {"fine"}
        found = await rights(replace(deployment, clients={"client": [Grant("order", ("start",))]}))
        (client,) = told_of(found, "client")
        assert client.grade == "fault"
        assert "evt.antiphon-doctor.order.antiphon-doctor.client.cancel" in client.what
        assert "antiphon.status.order.antiphon-doctor" in client.what
        await link.close()


async def test_what_is_sent_changes_nothing_whoever_sends_it(tmp_path: Path) -> None:
    """The administrator may use every subject that is tried."""
    with platform(tmp_path, "accounts", participants=PARTICIPANTS) as up:
        link = await up.connect("administrator")
        await with_something_of_everybodys(up, link)
        before = await everything(link)
        accounts = Rights(PARTICIPANTS, {"client": [EVERYTHING]}).accounts()
        tried = {concrete(each) for account in accounts for user in account.users for each in user.publish}
        tried |= {*_changes(ONE_PAIR), concrete("saga.>"), f"$JS.API.CONSUMER.MSG.NEXT.{SAGA}.inventory"}
        stored = {command_subject(KEY, "inventory", "reserve", "do", 2), start_message(SagaKey.of("order", "o-2"))[0]}
        tried |= {f"$JS.API.STREAM.{verb}.{EVENTS}" for verb in ("PURGE", "DELETE", "UPDATE", "CREATE")}
        assert await refused_of(link, sorted(tried | stored)) == set()
        assert await everything(link) == before
        await link.close()


async def test_who_is_not_let_in_and_who_is_not_known_is_told(tmp_path: Path) -> None:
    with platform(tmp_path, "accounts", participants=PARTICIPANTS) as up:
        await up.set_up()
        link, folder = await up.connect("administrator"), folder_of(up, tmp_path)
        (folder / "inventory.env").write_text("NATS_USER=inventory\nNATS_PASSWORD=old\n")
        (folder / "shop.env").write_text("NATS_USER=shop\nNATS_PASSWORD=x\n")
        deployment = Deployment(link, (up.servers,), up.credentials("administrator"), rights_folder=str(folder))
        found = await rights(deployment)
        (inventory,), (shop,) = told_of(found, "inventory"), [each for each in found if "what shop may do" in each.what]
        assert inventory.grade == "fault"
        assert inventory.what.startswith("inventory is not let in")
        assert (shop.grade, "--client shop=TYPE" in shop.remedy) == ("unknown", True)
        (unasked,) = await rights(replace(deployment, rights_folder=""))
        assert (unasked.grade, unasked.remedy) == ("unknown", "--rights FOLDER, which antiphon rights wrote")
        await link.close()
