"""What the pages in deploy/docs have people type is typed, in order, in a project of its own whose platform runs."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from antiphon.link import Link
from tests.support.reader import Reader
from tests.support.server import until
from tests.unit.packaging.project import ROOT
from tests.unit.packaging.readme import Block, blocks, python_of

PAGES = ROOT / "deploy/docs"
UP = Block("sh", 0, ("make up",), runs=True)

STAND_IN = """
try:
    import fastapi
except ImportError:  # what the page uses of it; the project does not depend on it
    import sys
    from types import ModuleType, SimpleNamespace

    class HTTPException(Exception):
        def __init__(self, status_code, detail=""):
            super().__init__(detail)
            self.status_code = status_code

    class FastAPI:
        def __init__(self, *, lifespan):
            self.state = SimpleNamespace()

        def put(self, path, status_code=200):
            return lambda function: function

        get = delete = put

    fastapi = sys.modules["fastapi"] = ModuleType("fastapi")
    fastapi.FastAPI, fastapi.HTTPException, fastapi.Request = FastAPI, HTTPException, object
    fastapi.Path = lambda pattern: pattern
"""
CALLS = """
import asyncio, os
from types import SimpleNamespace

async def status_of(coming):
    try:
        await coming
    except HTTPException as error:
        return error.status_code

async def ended(*order):
    while (told := await place(*order)) == {"state": "running"}:  # after two seconds
        pass
    return told

async def main():
    app.state.servers = os.environ["NATS_URL"]
    request = SimpleNamespace(app=app)
    async with connected(app):
        order = ("kettle", 1, "ada", 100)
        assert await ended("web-1", *order, request) == {"state": "completed", "reason": ""}
        assert await ended("web-1", *order, request) == {"state": "completed", "reason": ""}
        assert await status_of(place("web-1", "grinder", 1, "ada", 100, request)) == 409
        assert (await ended("web-2", "kettle", 1, "ada", 99_900, request))["state"] == "compensated"
        assert await look("web-1", request) == {"state": "completed", "reason": ""}
        assert await status_of(look("web-3", request)) == 404
        assert await status_of(cancel("web-1", request)) == 409
        assert await status_of(cancel("web-3", request)) == 404
        await ended("web-4", *order, request)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody in a new project whose platform runs."""
    folder = tmp_path_factory.mktemp("project")
    # The code under test is whatever this environment imports.
    who = Reader(folder, Path(sys.executable).parent, PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    who.types("python -m antiphon.deploy new shop")
    who.folder = folder / "shop"
    with who.leaves_running(UP) as platform:
        asyncio.run(until(lambda: "ready: " in platform.said(), seconds=60, what="the platform"))
        yield who


@pytest.mark.parametrize("page", ["operating", "contracts", "traces"])
def test_what_a_page_has_people_type_works(page: str, reader: Reader) -> None:
    for block in blocks((PAGES / f"{page}.md").read_text()):
        if block.language == "sh" and block.runs:
            for line in block.lines:
                reader.types(line)


def test_a_saga_that_was_forgotten_as_the_page_says_does_nothing_a_second_time(reader: Reader) -> None:
    start = "antiphon start shop.saga:order --id order-42 --wait --payload"
    reader.types(f"{start} @order.json")
    for block in blocks((PAGES / "deletion.md").read_text()):
        for line in block.lines if block.language == "sh" and block.runs else ():
            reader.types(line)
    assert "forgotten by" in reader.types("antiphon show order/order-42")
    assert "completed" in reader.types(f"{start} @order.json")
    reader.types(start + """ '{"item": "grinder", "quantity": 1, "customer": "ada", "amount": 1}' # exit code 1""")
    with closing(sqlite3.connect(reader.folder / ".antiphon/up/billing.db")) as books:
        charged = books.execute("SELECT amount FROM charges WHERE charge_id = 'charge-order-42'").fetchall()
    assert charged == [(9_900,)]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Link]:
    link = await Link.connect(url, name="administrator")
    try:
        yield link
    finally:
        await link.close()


def test_the_web_service_of_the_page_starts_orders(reader: Reader) -> None:
    program = STAND_IN + python_of((PAGES / "fastapi.md").read_text()) + CALLS
    (reader.folder / "web.py").write_text(program)
    reader.types(f"{sys.executable} web.py")
    listed = json.loads(reader.types("antiphon list --json"))
    assert {each["id"]: each["state"] for each in listed if each["id"].startswith("web-")} == {
        "web-1": "completed",
        "web-2": "compensated",
        "web-4": "completed",
    }
