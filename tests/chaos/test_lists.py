"""A list is decided once: whoever goes on with it, with whatever hash seed and in whatever version, sends the same.

Real coordinators, with sets whose order differs from process to process, killed and deployed anew while sagas run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest
from structlog.testing import capture_logs

from antiphon.contracts import SagaKey, StillRunning, subjects
from antiphon.contracts.envelope import decode
from antiphon.contracts.payloads import CHILD_START_TYPE, RECORD_TYPE
from antiphon.contracts.topology import PARKED, SAGA
from antiphon.coordinator.client.client import Antiphon, Handle
from antiphon.coordinator.reading.parked import waiting
from antiphon.link import Link
from antiphon.participants import Worker
from antiphon.participants.memory import MemoryDatabase
from tests.support.processes import Child, supervised
from tests.support.server import Platform, platform, until

from .baskets import BY_A_PERSON, BY_ITSELF, DEPLOY, DEPLOYS, BasketFilled, Deploy, Shop, deployed, lined_up

SAGAS: Final = int(os.environ.get("ANTIPHON_BASKETS", "60"))
"""Divisible by three, and more in a longer campaign."""
REFUSED: Final = SAGAS // 3
ITEMS: Final = 30
LAST_ELEMENT: Final = f"reserve_items-{ITEMS - 1}"
ENDED_SECONDS: Final = 200.0
SEED, OTHER_SEED = "1", "2"
NAMES: Final = ("coordinator-1", "coordinator-2")


class Stage:
    """Coordinators as processes, the shop beside the test, and the client."""

    def __init__(self, up: Platform, folder: Path, link: Link, antiphon: Antiphon) -> None:
        self.up, self.folder, self.link, self.antiphon = up, folder, link, antiphon
        self.shop, self.children = Shop(), dict[str, Child]()
        self.handles: list[Handle] = []
        self.started: dict[str, BasketFilled] = {}

    def coordinator(self, name: str, seed: str, kill_at: str = "") -> Child:
        """One more coordinator, of the first deploy."""
        environment = {**self.up.environment("coordinator"), "PYTHONHASHSEED": seed, DEPLOY: DEPLOYS[0]}
        child = Child(name, ["tests.chaos.baskets"], environment, self.folder / f"{name}.log", kill_at)
        self.children[name] = child
        return child

    async def ready(self) -> None:
        """Wait until every coordinator is in its present life."""
        for child in self.children.values():
            await until(lambda child=child: is_ready(child), what=f"{child.role} at work")  # type: ignore[misc]

    async def start(self, saga: str, sagas: int = SAGAS, refused_each: int = 0) -> None:
        """Start sagas with thirty items each; one in `refused_each` will not be able to pay."""
        definition = deployed(DEPLOYS[0])[saga]

        async def one(number: int) -> None:
            items = [f"item-{number}-{each}" for each in range(ITEMS)]
            is_refused = bool(refused_each) and number % refused_each == 0
            filled = BasketFilled(items=frozenset(items), listed=items, is_refused=is_refused)
            handle = await self.antiphon.start(definition, filled, id=f"b{number}")
            self.handles.append(handle)
            self.started[str(handle.key)] = filled

        await asyncio.gather(*(one(number) for number in range(sagas)))

    async def reserved(self, count: int) -> None:
        """Wait until so many items are reserved."""
        await until(lambda: len(self.shop.reserved) >= count, what=f"{count} items reserved")

    async def dies_and_is_deployed(self, child: Child, deploy: Deploy, seed: str = OTHER_SEED) -> None:
        """Kill a coordinator, and have another deploy of it take its place."""
        self.will_be(child, deploy, seed)
        child.kill()
        await self.replaced(child)

    def will_be(self, child: Child, deploy: Deploy, seed: str = OTHER_SEED) -> None:
        """What its next life is."""
        child.environment |= {DEPLOY: deploy, "PYTHONHASHSEED": seed}

    async def replaced(self, child: Child) -> None:
        """Wait until it lives again."""
        await until(lambda: child.exits, what=f"the death of {child.role}")
        await self.ready()

    # --- the verdict --------------------------------------------------------------------------------------------------

    async def assert_right(self, may_leave_out: bool = False, **outcomes: int) -> None:
        """Wait until all sagas have ended, so many completed and so many compensated, and look for what is wrong."""
        ended = dict(zip(self.started, await asyncio.gather(*map(outcome_of, self.handles)), strict=True))
        wrongs = await self.wrongs(ended, may_leave_out)
        assert not wrongs, f"{short(wrongs)}\n{self.logs()}"
        assert Counter(ended.values()) == outcomes

    async def wrongs(self, ended: Mapping[str, str], may_leave_out: bool) -> list[str]:
        """All that is not as it must be with sagas that have ended so."""
        found = [f"{each.saga} waits for a person: {each.reason}" for each in await waiting(self.link)]
        found += [f"parked: {each.subject}" for each in await self.link.read_all(PARKED, ["parked.>"])]
        effects, undone = by_saga(self.shop.reserved), by_saga(self.shop.released)
        for handle in self.handles:
            key = str(handle.key)
            journal = await read_journal(self.link, handle.key)
            found += [f"{key}: {wrong}" for wrong in journal.wrongs()]
            wanted = self.started[key].items
            if may_leave_out and ("do", LAST_ELEMENT) not in journal.payloads:  # spread by the deploy that does
                wanted = frozenset(lined_up("one left out", wanted))
            found += [f"{key}: {wrong}" for wrong in wrongs_of(ended[key], wanted, effects[key], undone[key])]
        return found

    def logs(self) -> str:
        """The last lines of every coordinator, without those of its everyday."""
        found = list[str]()
        for name, child in self.children.items():
            lines = child.log.read_text().splitlines()
            told = [line for line in lines if "fact.handed_back" not in line and "found_facts" not in line]
            found += [f"--- {name} {child.exits}", *told[-8:]]
        return "\n".join(found)


async def outcome_of(handle: Handle) -> str:
    """How a saga ended, or that it did not."""
    try:
        return (await handle.result(timeout=ENDED_SECONDS)).outcome
    except StillRunning:
        return "not ended"


class Journal(msgspec.Struct):
    """The payloads of a saga's commands, by direction and step (or element), in the order of attempts; and faults."""

    payloads: dict[tuple[str, str], list[bytes]]
    faults: list[str]

    def wrongs(self) -> list[str]:
        """Faults, attempts that differ, and compensations of another element."""
        found = [f"fault: {fault}" for fault in self.faults]
        for (direction, step), payloads in self.payloads.items():
            if len(set(payloads)) > 1:
                found.append(f"{direction} {step} was tried with different payloads")
            if direction == "undo" and "reserve_items" in step and payloads[0] != self.payloads["do", step][0]:
                found.append(f"{step} is compensated as another")
        return found


async def read_journal(link: Link, key: SagaKey) -> Journal:
    """What a saga's journal sent."""
    journal = Journal({}, [])
    for message in await link.read_all(SAGA, [subjects.journal_filter(key)]):
        envelope, command = decode(message.data, message.subject), subjects.parse_entry(message.subject).command
        if command is not None:
            payload = bytes(envelope.data)
            if envelope.type == CHILD_START_TYPE:  # where the attempt stands, too
                payload = msgspec.json.encode(msgspec.json.decode(payload)["event"])
            journal.payloads.setdefault((command.direction, command.step), []).append(payload)
        elif envelope.type == RECORD_TYPE and (fault := msgspec.json.decode(envelope.data).get("fault")):
            journal.faults.append(fault)
    return journal


def wrongs_of(
    outcome: str, wanted: Iterable[str], effects: list[tuple[str, ...]], undone: list[tuple[str, ...]]
) -> list[str]:
    """What the ledger says against an outcome: each item is reserved once, and taken back once where it must be."""
    count = Counter(item for (item,) in effects)
    found = [f"{item} was done twice" for item in count if count[item] > 1]
    found += [f"{item} was done, and nobody asked for it" for item in count.keys() - set(wanted)]
    found += [f"{item} was never done" for item in set(wanted) - count.keys()]
    found += [f"{was} was compensated as {named}" for named, was in undone if named != was]
    if Counter(was for _, was in undone) != (count if outcome == "compensated" else Counter()):
        found.append(f"{outcome} with {len(undone)} of {len(effects)} effects undone")
    return found


def by_saga(ledger: Iterable[tuple[str, ...]]) -> dict[str, list[tuple[str, ...]]]:
    """The lines of a ledger without their saga, by saga."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for saga, *rest in ledger:
        found.setdefault(saga, []).append(tuple(rest))
    return Grouped(found)


class Grouped(dict[str, list[tuple[str, ...]]]):
    """Nothing for a saga that did nothing."""

    def __missing__(self, saga: str) -> list[tuple[str, ...]]:
        return []


def is_ready(child: Child) -> bool:
    """Whether its present life has begun to work."""
    return child.log.exists() and child.log.read_text().count("coordinator.ready") > len(child.exits)


def short(wrongs: list[str]) -> str:
    """How many of each kind, and the first few."""
    kinds = Counter(" ".join(word for word in wrong.split()[1:] if "-" not in word) for wrong in wrongs)
    return "\n".join([f"{len(wrongs)} wrong", *map(str, kinds.most_common(8)), *wrongs[:8]])


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """A platform and the shop; coordinators are the test's."""
    with platform(folder, participants=("shelf", "till")) as up, capture_logs():  # of all that fails on purpose
        await up.set_up()
        async with Antiphon.connect(up.servers, name="client") as antiphon:
            link = await up.connect("administrator")
            stage = Stage(up, folder, link, antiphon)
            links, workers = list[Link](), list[Worker]()
            for participant in stage.shop.participants():
                links.append(await up.connect(participant.name))
                workers.append(Worker(participant, links[-1], MemoryDatabase(), concurrency=200))
                await workers[-1].start()
            try:
                yield stage
            finally:
                for worker in workers:
                    await worker.drain(grace_seconds=0.0)
                for each in (*links, link):
                    await each.close()


# --- two coordinators -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("saga", ["frozen", "listed"])
async def test_two_coordinators_send_each_element_of_a_set_once(saga: str, tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        for name, seed in zip(NAMES, (SEED, OTHER_SEED), strict=True):
            stage.coordinator(name, seed)
        with supervised(stage.children):
            await stage.ready()
            await stage.start(saga, refused_each=3)
            await stage.assert_right(completed=SAGAS - REFUSED, compensated=REFUSED)


@pytest.mark.parametrize("saga", ["frozen", "listed"])
async def test_coordinators_killed_at_random_send_each_element_of_a_set_once(saga: str, tmp_path: Path) -> None:
    chance = random.Random(saga)
    async with staged(tmp_path) as stage:
        for name, seed in zip(NAMES, (SEED, OTHER_SEED), strict=True):
            stage.coordinator(name, seed)
        with supervised(stage.children):
            await stage.ready()
            starting = asyncio.ensure_future(stage.start(saga, refused_each=3))
            for kill in range(6):
                await stage.reserved(SAGAS * ITEMS // 8 * kill + chance.randrange(SAGAS * ITEMS // 12))
                child = stage.children[chance.choice(NAMES)]
                stage.will_be(child, DEPLOYS[0], str(chance.randrange(1, 2**32)))
                child.kill()
            await starting
            await stage.assert_right(completed=SAGAS - REFUSED, compensated=REFUSED)
            assert any(child.was_killed for child in stage.children.values())


# --- one coordinator, and another after it ----------------------------------------------------------------------------


@pytest.mark.parametrize("deploy", DEPLOYS)
async def test_each_compensation_names_the_element_that_was_reserved(deploy: Deploy, tmp_path: Path) -> None:
    """After a restart with another hash seed, and after deploys whose functions make another list of the same set."""
    async with staged(tmp_path) as stage:
        only = stage.coordinator("coordinator-1", SEED)
        with supervised(stage.children):
            await stage.ready()
            await stage.start("held")
            await stage.reserved(SAGAS * ITEMS)
            await stage.dies_and_is_deployed(only, deploy)
            await asyncio.gather(*(handle.cancel("changed their mind") for handle in stage.handles))
            await stage.assert_right(compensated=SAGAS)


@pytest.mark.parametrize("deploy", DEPLOYS)
async def test_an_element_past_the_pivot_is_tried_again_as_itself(deploy: Deploy, tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        only = stage.coordinator("coordinator-1", SEED)
        with supervised(stage.children):
            await stage.ready()
            stage.shop.is_stuck = True
            await stage.start("paid")
            await stage.reserved(SAGAS * ITEMS // 2)
            await until(lambda: stage.shop.failed >= SAGAS * ITEMS // 2, what="the others failed once")
            await stage.dies_and_is_deployed(only, deploy)
            stage.shop.is_stuck = False
            await stage.assert_right(completed=SAGAS)


@pytest.mark.parametrize("deploy", DEPLOYS)
async def test_a_list_that_was_begun_goes_on_with_the_commands_it_began_with(deploy: Deploy, tmp_path: Path) -> None:
    """The coordinator dies when some elements of several lists were sent, and the next one is another deploy."""
    async with staged(tmp_path) as stage:
        only = stage.coordinator("coordinator-1", SEED, f"coordinator.between_appends:{SAGAS * ITEMS // 3}")
        with supervised(stage.children):
            await stage.ready()
            stage.will_be(only, deploy)
            await stage.start("frozen", refused_each=3)
            await stage.replaced(only)
            await stage.assert_right(deploy == "one left out", completed=SAGAS - REFUSED, compensated=REFUSED)
            assert only.was_killed


# --- single steps -----------------------------------------------------------------------------------------------------


async def test_a_later_attempt_carries_the_payload_of_the_first_whatever_its_function_says(tmp_path: Path) -> None:
    """Compensations, steps past the pivot and children, whose functions draw lots and look at the clock."""
    async with staged(tmp_path) as stage:
        stage.coordinator("coordinator-1", SEED)
        with supervised(stage.children):
            await stage.ready()
            stage.shop.is_stuck = True
            await stage.start(BY_ITSELF.name, sagas=20, refused_each=2)
            await until(lambda: stage.shop.failed >= 30, what="every first attempt that fails")
            stage.shop.is_stuck = False
            await assert_repeated(stage)


async def test_a_person_who_has_it_tried_again_has_the_same_tried_again(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.coordinator("coordinator-1", SEED)
        with supervised(stage.children):
            await stage.ready()
            stage.shop.is_stuck = True
            await stage.start(BY_A_PERSON.name, sagas=20, refused_each=2)
            async with asyncio.timeout(120):
                while len(await waiting(stage.link)) < 30:
                    await asyncio.sleep(0.05)
            stage.shop.is_stuck = False
            operator = stage.antiphon.operator("ada")
            asked = [operator.saga(BY_A_PERSON, handle.id).retry() for handle in stage.handles]
            assert all(request.is_accepted for request in await asyncio.gather(*asked))
            await assert_repeated(stage)


async def assert_repeated(stage: Stage) -> None:
    """Each of the three was tried more than once, and every time with the same payload."""
    outcomes = await asyncio.gather(*map(outcome_of, stage.handles))
    assert Counter(outcomes) == {"completed": 10, "compensated": 10}, stage.logs()
    tried = Counter[str]()
    for handle in stage.handles:
        journal = await read_journal(stage.link, handle.key)
        assert journal.wrongs() == []
        again = {f"{direction} {step}" for (direction, step), sent in journal.payloads.items() if len(sent) > 1}
        tried.update(again)
    assert tried == {"undo note_basket": 10, "do post_card": 10, "do say_thanks": 10}
