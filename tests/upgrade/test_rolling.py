"""The last release is replaced by this one under load, process by process, as deploy/README.md says: coordinators,
participants, and the client last. No saga and no attempt is lost, and nothing waits for a person."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from antiphon.contracts.envelope import decode
from antiphon.contracts.subjects import parse_fact
from antiphon.contracts.topology import EVENTS, PARKED
from antiphon.link import Link
from antiphon.link.setup import api
from tests.support.processes import Child
from tests.support.server import until

from .sagas import PARTICIPANTS
from .scenarios import Scenario
from .steady import AT_ONCE, KINDS, PATIENCE_SECONDS
from .store import NEW, Release, Store, is_ready, old_release, stores, wrongs

WORKERS: Final = 2
ACK_WAIT_SECONDS: Final = 30.0
"""As long as workers of the last release need it, whom somebody else's word on that would surprise."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return old_release(tmp_path_factory.mktemp("old"))


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from stores(tmp_path, request, ACK_WAIT_SECONDS)


@dataclass
class Steady:
    """A client that begins sagas without a pause."""

    child: Child
    file: Path
    outcomes: dict[str, str] = field(default_factory=dict[str, str])
    kinds: Counter[str] = field(default_factory=Counter[str])

    def read(self) -> int:
        """Read how sagas have ended, and return how many have."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        found = [json.loads(line) for line in lines]
        self.outcomes = {each["id"]: each["outcome"] for each in found}
        self.kinds = Counter(each["kind"] for each in found)
        return len(found)

    async def goes_on(self) -> None:
        """Wait until more sagas have ended than were under way."""
        wanted = self.read() + 2 * AT_ONCE
        await until(
            lambda: self.read() >= wanted or self._has_ended(), what="the load to go on", seconds=PATIENCE_SECONDS
        )
        assert not self._has_ended(), self.child.log.read_text()[-3000:]

    def _has_ended(self) -> bool:
        return self.child.process is None or self.child.process.poll() is not None

    def scenarios(self, prefix: str) -> list[Scenario]:
        """What was begun, as many of each kind as there were."""
        return [
            replace(kind, name=f"{prefix}-{kind.name}", copies=self.kinds[kind.name])
            for kind in KINDS
            if self.kinds[kind.name]
        ]


@asynccontextmanager
async def load(store: Store, release: Release) -> AsyncIterator[Steady]:
    """Run a client of a release for the length of a block, and then until all that it began has ended."""
    file = store.folder / f"{release.name}.jsonl"
    steady = Steady(store.child("client", release, "tests.upgrade.steady", release.name, str(file)), file)
    steady.child.launch()
    process = steady.child.process
    assert process is not None
    try:
        yield steady
        steady.child.terminate()
        await until(lambda: process.poll() is not None, what="its sagas to end", seconds=PATIENCE_SECONDS)
        assert process.returncode == 0, f"{steady.child.log.read_text()[-3000:]}\n{store.logs()}"
        steady.read()
    finally:
        process.kill()
        process.wait()


async def test_each_process_is_replaced_under_load_and_nothing_is_lost(old: Release, store: Store) -> None:
    await store.set_up(old)
    with store.running(old, workers=WORKERS):
        await store.ready()
        async with load(store, old) as before:
            await before.goes_on()
            await store.set_up(NEW)
            for child in store.children.values():
                await replace_by(child, NEW)
                await before.goes_on()
        await store.set_up(NEW, "--forget-former-coordinators")
        async with load(store, NEW) as after:
            await after.goes_on()
        link = await store.up.connect("administrator")
        try:
            answers, lost = await answers_of(link)
            parked = (await api(link, f"STREAM.INFO.{PARKED}"))["state"]["last_seq"]
        finally:
            await link.close()
        assert answers
    assert not lost, f"attempts were lost\n{store.logs()}"
    assert parked == 0, "something was parked"
    begun = [*before.scenarios(old.name), *after.scenarios(NEW.name)]
    assert {each.outcome for each in begun} == {"completed", "compensated"}
    found = wrongs(begun, before.outcomes | after.outcomes, await store.effects())
    assert not found, "\n".join([*found[:50], store.logs()])


async def replace_by(child: Child, release: Release) -> None:
    """End a process as an operator does, and have one of another release run in its place."""
    lives = len(child.exits)
    child.environment |= release.environment
    child.program = (release.python, "-m")
    child.signal(signal.SIGTERM)
    await until(lambda: len(child.exits) > lives and is_ready(child), what=f"{child.role} to be replaced")
    assert child.exits[-1] == 0, f"{child.role} did not drain: {child.log.read_text()[-3000:]}"


async def answers_of(link: Link) -> tuple[int, list[str]]:
    """How many answers of participants there are, and those for which more was tried than need be.

    No command is sent again. A command that a worker of the last release hands back is a lost delivery to a worker of
    this one, since the two note what was handed back in different tables: its handler's first call counts as a later
    try then. That takes no attempt from the command, and in a saga that began after the upgrade there is none.
    """
    answers, lost = 0, list[str]()
    async for message in link.scan(EVENTS, ">"):
        fact = parse_fact(message.subject)
        if fact.source in PARTICIPANTS:
            answers += 1
            tries = decode(message.data, message.subject).tries or 1
            if fact.attempt != 1 or (tries != 1 and fact.saga.id.startswith(f"{NEW.name}-")):
                lost.append(f"{message.subject}: sent {fact.attempt} times, {tries} tries")
    return answers, lost
