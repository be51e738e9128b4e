"""The pytest plugin: `chaos`, my platform to be harmed, and real servers of NATS and PostgreSQL.

pytest loads this in every project that has Antiphon installed, so nothing else is imported before a fixture is asked
for. Fixtures are no coroutines and ask for no event loop: they work with pytest-asyncio in either mode, and without it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from ..local.postgres import Postgres
    from ..local.server import Server
    from .platform import ChaosPlatform

MARK: Final = "chaos"
APPS: Final = "antiphon_apps"
PARTICIPANTS: Final = "antiphon_participants"
POSTGRES: Final = "postgres"
"""What `databases` says of a participant that gets a database of the fixture's PostgreSQL."""

_platform = pytest.StashKey["ChaosPlatform"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What every platform of a project consists of stands in its settings."""
    as_up = "as `antiphon up` takes them"
    parser.addini(APPS, f"Sagas and participants for the fixture `chaos`, {as_up} with --app.", type="args")
    parser.addini(PARTICIPANTS, f"More participants for the fixture `chaos`, {as_up} with --participant.", type="args")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(*apps, participants=(), servers=1, coordinators=1, workers={{}}, databases={{}}, handler_seconds=0, "
        "exporter=False, readmodel=False, small_disks=False, streams=1): what the platform of the fixture `chaos` "
        f"consists of; without apps and participants what {APPS} and {PARTICIPANTS} say.",
    )


@pytest.fixture
def chaos(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChaosPlatform]:
    """My platform as processes, ready: coordinators, participants and servers, which the test may kill and cut off.

    The mark `chaos` says what it consists of, or the project's settings do.
    """
    from .platform import ChaosPlatform, Settings

    marks = {**_defaults(request.config), **_marked(request.node)}
    asked = marks.pop("databases", {})
    postgres = request.getfixturevalue("antiphon_postgres") if POSTGRES in asked.values() else None
    databases = {name: postgres.new_database() if postgres and url == POSTGRES else url for name, url in asked.items()}
    platform = ChaosPlatform(tmp_path / "platform", Settings(**marks, databases=databases, postgres=postgres))
    request.node.stash[_platform] = platform
    try:
        platform.start()
        yield platform
    finally:
        platform.close()


@pytest.fixture
def antiphon_server(tmp_path: Path) -> Iterator[Server]:
    """A real nats-server with JetStream, on a free port. It can be killed and started again on its store."""
    from ..local.server import Server

    with Server(tmp_path / "nats", sync_interval="2m") as server:
        yield server


@pytest.fixture
def antiphon_cluster(tmp_path: Path) -> Iterator[list[Server]]:
    """Three real nats-servers that form a cluster."""
    from ..local.server import Server, seats

    servers = [Server(tmp_path / f"nats-{seat.port}", sync_interval="2m", seat=seat) for seat in seats(3)]
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready()
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture(scope="session")
def antiphon_postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this run's own; `new_database()` makes an empty database. Where it is not installed the test is
    skipped, or fails where ANTIPHON_REQUIRE_POSTGRES is 1."""
    from ..local.postgres import REQUIRED, postgres

    try:
        with postgres() as server:
            yield server
    except LookupError as error:
        if os.environ.get(REQUIRED) == "1":
            raise
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failed test what its processes logged, and what happened in its sagas."""
    report = yield
    if report.failed and (platform := item.stash.get(_platform, None)) is not None:
        if report.when == "call":
            report.sections.extend(_told(platform))
        report.sections.extend((f"log of {name}", lines) for name, lines in platform.logs())
    return report


def _told(platform: ChaosPlatform) -> Iterator[tuple[str, str]]:
    yield "what became of the processes", "\n".join(platform.notes)
    try:
        yield from ((f"saga {name}", lines) for name, lines in platform.timelines())
    except Exception as error:  # a report with less in it is better than none
        yield "sagas", f"they could not be read: {type(error).__name__}: {error}"


def _defaults(config: pytest.Config) -> dict[str, Any]:
    return {"apps": config.getini(APPS), "participants": config.getini(PARTICIPANTS)}


def _marked(node: pytest.Item) -> dict[str, Any]:
    """What the marks of a test say, the nearest first; one that names apps or participants takes the place of both."""
    found: dict[str, Any] = {}
    for mark in node.iter_markers(MARK):
        said = dict(mark.kwargs)
        if mark.args or "participants" in said:
            said = {"participants": (), **said, "apps": mark.args}
        found = {**said, **found}
    return found
