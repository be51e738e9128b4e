"""A saga forgotten while coordinators are killed on the way, with its rows in inboxes and in a read model."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from pathlib import Path
from typing import Any, Final

import pytest

from antiphon.contracts import SagaKey
from antiphon.contracts.topology import EVENTS, PARKED, SAGA
from antiphon.link import Link
from antiphon.link.killpoints import POINTS
from antiphon.order.data import load_orders
from antiphon.order.saga import order
from tests.support.commands import run_antiphon
from tests.support.processes import PARTICIPANTS, Fleet, fleet, run_orders
from tests.support.server import Platform, platform

from .test_retention import left_of, linked

ORDERS: Final = load_orders()[1:4]
FORGOTTEN: Final = ORDERS[1]
KEY: Final = SagaKey.of(order.name, FORGOTTEN.order_id)


async def antiphon(up: Platform, *arguments: str) -> str:
    """What the command line prints."""
    environment = {**os.environ, **up.environment("operator"), "COLUMNS": "200"}
    ran = await asyncio.to_thread(run_antiphon, arguments, environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


async def holding(link: Link, text: str) -> list[str]:
    """The subjects of all messages that hold some text."""
    found = list[str]()
    for stream in (SAGA, EVENTS, PARKED):
        found += [each.subject async for each in link.scan(stream, ">") if text.encode() in each.data]
    return found


def rows(running: Fleet, saga: SagaKey) -> dict[str, int]:
    """How many rows of a saga each inbox has."""
    counts: dict[str, int] = {}
    for name, url in running.databases.items():
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            (counts[name],) = connection.execute(
                "SELECT count(*) FROM antiphon_inbox WHERE saga_id = ?", [saga.id]
            ).fetchone()
        connection.close()
    return counts


@pytest.mark.parametrize("point", sorted(each for each in POINTS if each.startswith("forget.")))
async def test_coordinators_killed_while_they_forget_leave_nothing_of_it(point: str, tmp_path: Path) -> None:
    with platform(tmp_path) as up:
        await up.set_up()
        with fleet(up, tmp_path, dict.fromkeys(("coordinator-1", "coordinator-2"), f"{point}:1")) as running:
            report = await run_orders(up, running, ORDERS)
            assert report.completed + report.compensated == len(ORDERS)
            model = f"sqlite:///{tmp_path}/model.db"
            await antiphon(up, "readmodel", "--database", model, "--once")
            options = [f"--database={name}={url}" for name, url in running.databases.items()]
            said = await antiphon(up, "forget", str(KEY), "--reason", "request 17", "--as", "ada", "--json", *options)
            told: dict[str, Any] = json.loads(said)
            assert told["forgotten"].endswith(": request 17")
            assert told["answers"] == dict.fromkeys(PARTICIPANTS, 1)
            assert told["inboxes_left"] == []
            assert [child.was_killed for name, child in running.children.items() if "coordinator" in name].count(True)
            async with linked(up, "administrator") as link:
                assert await holding(link, FORGOTTEN.recipient) == []
                assert await left_of(link, KEY) == ["saga.*.c.end"]
                for other in (ORDERS[0], ORDERS[2]):
                    assert len(await holding(link, other.recipient)) > 1
                    assert rows(running, SagaKey.of(order.name, other.order_id)) == dict.fromkeys(PARTICIPANTS, 1)
            assert rows(running, KEY) == dict.fromkeys(PARTICIPANTS, 0)
            await antiphon(up, "readmodel", "--database", model, "--once")
            listed = json.loads(await antiphon(up, "list", "--database", model, "--json"))
            assert {each["id"] for each in listed} == {each.order_id for each in ORDERS}
            with sqlite3.connect(f"{tmp_path}/model.db") as connection:
                stored = connection.execute("SELECT saga FROM antiphon_keys_v1").fetchall()
            connection.close()
            assert (str(KEY),) not in stored
            shown = await antiphon(up, "show", str(KEY))
            assert "forgotten by ada" in shown
