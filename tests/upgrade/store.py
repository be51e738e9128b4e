"""A server and databases with processes of two releases on them, and what must be true of them in the end."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from antiphon.deploy.local.postgres import Postgres
from tests.support.processes import ROOT, Child, supervised
from tests.support.server import Platform, platform, until
from tests.support.wheel import install, site_packages

from .sagas import GATE, PARTICIPANTS, RELEASE, SAGAS
from .scenarios import Scenario

WHEEL: Final = ROOT / "tests/releases/0.1.0-67d7c3a/antiphon-0.1.0-py3-none-any.whl"
COORDINATORS: Final = ("coordinator-1", "coordinator-2")
READY: Final = re.compile(r"(coordinator|participant)\.ready")


@dataclass(frozen=True)
class Release:
    """Which Antiphon a process runs: that of the tests, or another one in an environment of its own."""

    name: str
    python: str
    modules: str = ""
    """The folder that all of it must come from; the tests' own may come from several."""

    @property
    def environment(self) -> dict[str, str]:
        """What has a process see to it that it is this one."""
        return {RELEASE: self.modules}


NEW: Final = Release("new", sys.executable)


def old_release(folder: Path) -> Release:
    """The release that is kept, installed."""
    programs = install(WHEEL, folder)
    return Release("old", str(programs / "python"), str(site_packages(folder)))


@dataclass
class Store:
    """Streams and databases, and the processes that work on them."""

    up: Platform
    folder: Path
    databases: dict[str, str]
    ack_wait_seconds: float
    """What a killed worker held is delivered again after this time."""
    children: dict[str, Child] = field(default_factory=dict[str, Child])

    @property
    def gate(self) -> Path:
        """What the handlers wait for."""
        return self.folder / "gate"

    @property
    def environment(self) -> dict[str, str]:
        """Of every process."""
        return {**self.up.environment("coordinator"), GATE: str(self.gate), "ANTIPHON_LOG": "json"}

    def child(self, role: str, release: Release, *arguments: str) -> Child:
        """A process of a release."""
        environment = self.environment | release.environment
        name = f"{role}-{release.name}"
        return Child(name, [*arguments], environment, self.folder / f"{name}.log", program=(release.python, "-m"))

    async def set_up(self, release: Release, *options: str) -> None:
        """Do the administrator's step as a release does it, and have what a killed worker held come again in time."""
        names = [word for name in PARTICIPANTS for word in ("--participant", name)]
        await self.run(release, "antiphon.deploy", "setup", *names, "--app", "tests.upgrade.sagas", *options)
        await self.up.set_up(self.ack_wait_seconds, [each.listener for each in PARTICIPANTS.values()])

    @contextmanager
    def running(self, *releases: Release, workers: int = 1) -> Iterator[None]:
        """Run coordinators and participants of each release for the length of a block; then they are killed.

        Args:
            releases: which.
            workers: how many processes each participant has of a release.
        """
        apps = [word for name in SAGAS for word in ("--app", f"tests.upgrade.sagas:{name}")]
        self.children = {}
        for release in releases:
            roles = dict.fromkeys(COORDINATORS, ("antiphon.deploy", "coordinator", *apps))
            roles |= {
                f"{name}-{number}": ("tests.upgrade.participant", name, url, str(self.ack_wait_seconds))
                for name, url in self.databases.items()
                for number in range(1, workers + 1)
            }
            for role, arguments in roles.items():
                child = self.child(role, release, *arguments)
                self.children[child.role] = child
        with supervised(self.children):
            try:
                yield
            finally:
                for child in self.children.values():
                    child.stay_away()

    async def ready(self) -> None:
        """Wait until each process is at work."""
        for child in self.children.values():
            await until(lambda child=child: is_ready(child), what=f"{child.role} at work")  # type: ignore[misc]

    async def run(self, release: Release, *arguments: str) -> None:
        """Run a program of a release to its end."""
        process = await asyncio.create_subprocess_exec(
            release.python,
            "-m",
            *arguments,
            cwd=ROOT,
            env={**os.environ, **self.environment, **release.environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, f"{out.decode()[-6000:]}\n{self.logs()}"

    def logs(self) -> str:
        """The last lines of every process."""
        return "\n".join(
            f"--- {role} {child.exits}\n{child.log.read_text()[-1000:]}" for role, child in self.children.items()
        )

    # --- the databases ------------------------------------------------------------------------------------------------

    async def effects(self) -> list[Effect]:
        """All lines of all ledgers."""
        rows = [await self._rows(name, "SELECT saga, step, what, marker FROM ledger") for name in self.databases]
        return [Effect(*row) for each in rows for row in each]

    async def inbox_states(self) -> set[str]:
        """In which states the rows of the inboxes are."""
        rows = [await self._rows(name, "SELECT DISTINCT state FROM antiphon_inbox") for name in self.databases]
        return {row[0] for each in rows for row in each}

    async def _rows(self, participant: str, query: str) -> Sequence[Any]:
        url = self.databases[participant].replace("sqlite:", "sqlite+aiosqlite:")
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
        try:
            async with engine.connect() as connection:
                return (await connection.execute(text(query))).all()
        finally:
            await engine.dispose()


class Effect(NamedTuple):
    """A line of a ledger."""

    saga: str
    step: str
    what: str
    marker: str


def stores(folder: Path, request: pytest.FixtureRequest, ack_wait_seconds: float) -> Iterator[Store]:
    """An empty one, for a fixture. The bank is in PostgreSQL where there is one, all else in SQLite."""
    databases = {name: f"sqlite:///{folder}/{name}.db" for name in PARTICIPANTS}
    try:
        server: Postgres = request.getfixturevalue("postgres_server")
        databases["bank"] = server.new_database()
    except pytest.skip.Exception:
        pass
    with platform(folder, participants=tuple(PARTICIPANTS)) as up:
        yield Store(up, folder, databases, ack_wait_seconds)


def is_ready(child: Child) -> bool:
    """Whether its present life has begun to work."""
    return child.log.exists() and len(READY.findall(child.log.read_text())) > len(child.exits)


def wrongs_of(scenario: Scenario, outcome: str, effects: Counter[tuple[str, str]]) -> list[str]:
    """What one saga's effects, counted by step and what was done, say against how it ended."""
    found = [f"{step} {what} {count} times" for (step, what), count in effects.items() if count > 1]
    wanted = {"do": {*scenario.done.split()}, "undo": {*scenario.undone.split()}}
    if scenario.outcome == "either":
        wanted["do"] = {"take_item", "ship_parcel"} if outcome == "completed" else {"take_item"}
        wanted["undo"] = set() if outcome == "completed" else {"take_item"}
    elif outcome != scenario.outcome:
        found.append(f"ended {outcome}, not {scenario.outcome}")
    if scenario.or_nothing and not effects:
        return found
    for what, steps in wanted.items():
        seen = {step for step, each in effects if each == what}
        found += [f"{what} {step} is missing" for step in steps - seen]
        found += [f"{what} {step} should not be" for step in seen - steps]
    return found


def by_saga(effects: Iterable[Effect]) -> dict[str, Counter[tuple[str, str]]]:
    """The effects of each saga by its id; those of a child are its parent's, under the child's type."""
    found: dict[str, Counter[tuple[str, str]]] = {}
    for saga, step, what, _ in effects:
        type_, _, id = saga.partition("/")
        if child := re.fullmatch(r"(.+)-fly-\d+-\w+", id):
            id, step = child[1], f"{type_}:{step}"
        found.setdefault(id, Counter())[step, what] += 1
    return found


def wrongs(scenarios: Iterable[Scenario], outcomes: Mapping[str, str], effects: list[Effect]) -> list[str]:
    """All that is wrong with how sagas ended and with what was done in them."""
    seen, found = by_saga(effects), list[str]()
    for scenario in scenarios:
        for id in scenario.ids:
            found += [f"{id}: {each}" for each in wrongs_of(scenario, outcomes[id], seen.pop(id, Counter()))]
            marks = {mark for saga, _, what, mark in effects if saga.endswith(f"/{id}") and what == "undo"}
            if scenario.marker and marks != {scenario.marker}:
                found.append(f"{id}: undone as {marks}, and an operator had said {scenario.marker}")
    return found + [f"{id}: nobody knows this saga" for id in seen]
