"""A storm: sagas run through a platform while a schedule of faults is carried out on it, and all is checked then."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import combinations
from typing import Final, TypeVar, cast

from antiphon.contracts.counting import counted
from antiphon.contracts.errors import Ambiguous, PlatformError
from antiphon.contracts.identity import SagaKey
from antiphon.coordinator import Antiphon
from antiphon.link.killpoints import call_name

from .evidence import BOUND_SECONDS
from .loads import Load, Planned
from .network import SERVER
from .platform import ChaosPlatform
from .running import RunningPlatform
from .schedule import LEADER, Fault, Schedule, sort_of
from .score import Ran, Score, Struck, duration_of, kinds_of, leader_kills_of, outcomes_of, rows_of

COMES_ABOUT_SECONDS: Final = 60.0
"""Within what time a process must come by a point at which it shall die, and a handler be called that shall fail."""
SERVES_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.02
TOLD_SECONDS: Final = 10.0
"""How often it is told how many sagas have ended."""
AT_ONCE: Final = 10

T = TypeVar("T")


class Storm:
    """Runs once.

    Args:
        chaos: a platform that serves, one of its own or one that others have started.
        schedule: what is done to it.
        load: what runs meanwhile.
        say: told what happens, in lines.
        seconds: how long it goes on at least; until all faults are over in any case.
        at_once: how many sagas are under way at a time.
        within_seconds: within what time after the last fault all sagas must have ended.
        missing: what was asked for and cannot be, in sentences; it fails the storm.
    """

    def __init__(
        self,
        chaos: ChaosPlatform | RunningPlatform,
        schedule: Schedule,
        load: Load,
        say: Callable[[str], None],
        *,
        seconds: float = 0.0,
        at_once: int = AT_ONCE,
        within_seconds: float = BOUND_SECONDS,
        missing: Iterable[str] = (),
    ) -> None:
        self._chaos, self._schedule, self._load, self._tell = chaos, schedule, load, say
        self._seconds, self._at_once, self._within_seconds = seconds, at_once, within_seconds
        self._targets = chaos.targets
        self._began = time.monotonic()
        self._is_over = False
        self._ran, self._struck, self._impossible = list[Ran](), list[Struck](), [*missing]
        self._planned = Counter[str]()
        """How often each fault was planned that comes about when somebody comes by."""

    async def run(self) -> Score:
        """Run it, wait until all is settled, and check."""
        await self._load.prepare(cast(ChaosPlatform, self._chaos))  # one that runs already has databases and books, too
        self._began = time.monotonic()
        telling = asyncio.create_task(self._tell_now_and_then())
        async with self._chaos.client() as antiphon:
            sagas = [asyncio.create_task(self._run_sagas(antiphon)) for _ in range(self._at_once)]
            try:
                await self._carry_out(sagas)
                await self._see_one_through()
                self._is_over = True
                self._say("the storm is over; waiting for the sagas that are under way")
                done, _ = await asyncio.wait(sagas, timeout=self._within_seconds)
                for task in done:
                    task.result()
            finally:
                for task in (telling, *sagas):
                    task.cancel()
                await asyncio.gather(telling, *sagas, return_exceptions=True)
        seconds = self._now()
        self._say("checking what must hold")
        verdict = await self._chaos.judge(within_seconds=self._within_seconds)
        unheard = sum(not each.outcome for each in self._ran)
        self._impossible += verdict.left
        if unheard and not verdict.violations:
            self._impossible.append(f"{unheard} clients did not hear of a start or an end, and nothing else is wrong")
        ended = sum(each.ended is not None for each in self._ran)
        return Score(
            seed=self._schedule.seed,
            seconds=round(seconds, 1),
            sagas=len(self._ran),
            faults=len(self._struck),
            outcomes=outcomes_of(self._ran),
            rate=round(ended / seconds, 1),
            duration=duration_of(self._ran),
            kinds=kinds_of(self._struck, self._ran),
            leader_kills=leader_kills_of(self._struck),
            rows=rows_of(self._struck, self._ran),
            impossible=self._impossible,
            violations=[str(each) for each in verdict.violations],
            told=verdict.told,
        )

    # --- sagas --------------------------------------------------------------------------------------------------------

    async def _run_sagas(self, antiphon: Antiphon) -> None:
        """Run one saga after the other."""
        while not self._is_over:
            await self._run_saga(antiphon, self._load.next())

    async def _run_saga(self, antiphon: Antiphon, planned: Planned) -> None:
        ran = Ran(f"{planned.saga.name}/{planned.id}", self._now())
        self._ran.append(ran)
        handle = await _until_told(lambda: antiphon.start(planned.saga, planned.start, id=planned.id))
        await _until_told(lambda: planned.meanwhile(handle))
        ran.outcome = (await _until_told(handle.result)).outcome
        ran.ended = self._now()

    async def _see_one_through(self) -> None:
        """Go on until a saga that began after the last fault has ended; that none does is for the invariants to say."""
        since = self._now()
        with suppress(PlatformError):
            await _until(
                lambda: any(each.ended is not None and each.began >= since for each in self._ran),
                self._within_seconds,
                "no saga ends",
            )

    async def _tell_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(TOLD_SECONDS)
            ended = sum(each.ended is not None for each in self._ran)
            self._say(f"{counted(ended, 'saga has ended', 'sagas have ended')}, {len(self._ran) - ended} are under way")

    # --- faults -------------------------------------------------------------------------------------------------------

    async def _carry_out(self, sagas: list[asyncio.Task[None]]) -> None:
        """Carry out the schedule. What fails as nothing may fail ends it."""
        faults = [asyncio.create_task(self._carry_out_one(fault)) for fault in self._schedule.faults]
        faults.append(asyncio.create_task(asyncio.sleep(self._seconds)))
        under_way: set[asyncio.Task[None]] = {*faults}
        try:
            while under_way:
                done, _ = await asyncio.wait({*under_way, *sagas}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                under_way -= done
        finally:
            for task in faults:
                task.cancel()
            await asyncio.gather(*faults, return_exceptions=True)

    async def _carry_out_one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at - self._now())
        try:
            await self._strike(fault)
        except PlatformError as error:
            self._impossible.append(f"{fault} (at {fault.at:g} s) was not possible: {error}")
            self._say(self._impossible[-1])

    async def _strike(self, fault: Fault) -> None:
        chaos, target = self._chaos, await self._named(fault.target)
        if fault.kind in ("kill", "stop", "restart", "partition", "slow"):
            await self._serving(target)
        match fault.kind:
            case "kill":
                before, struck = chaos.pids(target), self._note(fault, target)
                chaos.kill(target)
                await self._whole(struck, lambda: not before & chaos.pids(target))
            case "restart":
                before, struck = chaos.pids(target), self._note(fault, target)
                await chaos.restart(target)
                await self._whole(struck, lambda: not before & chaos.pids(target))
            case "stop":
                self._note(fault, target)
                chaos.stop(target)
                await asyncio.sleep(fault.seconds)
                chaos.go_on(target)
            case _:
                await self._strike_own(fault, self._own, target)

    @property
    def _own(self) -> ChaosPlatform:
        """The platform, which only its own test harms in every way.

        Raises:
            PlatformError: others have started it.
        """
        if isinstance(self._chaos, RunningPlatform):
            raise PlatformError("others have started this platform, whose processes can be harmed only")
        return self._chaos

    async def _strike_own(self, fault: Fault, chaos: ChaosPlatform, target: str) -> None:
        """Do what is possible on a platform of our own alone."""
        other = await self._named(fault.other)
        match fault.kind:
            case "partition":
                self._note(fault, target)
                chaos.partition(target, other)
                await asyncio.sleep(fault.seconds)
                chaos.heal(target, other)
            case "slow":
                self._note(fault, target)
                chaos.slow(target, other, seconds=fault.delay)
                await asyncio.sleep(fault.seconds)
                chaos.slow(target, other, seconds=0)
            case "point":
                before = chaos.pids(target)
                chaos.at(target, fault.point, fault.times)
                await self._come_about(f"{target} {fault.point}", fault.times)
                await self._whole(self._note(fault, target), lambda: before != chaos.pids(target))
            case "fail" | "raise" | "hang":
                self._plan_calls(fault)
                await self._come_about(f" {call_name(fault.step, fault.direction)}", fault.times)
                self._note(fault, target)
            case "outage":
                await self._serving(SERVER)
                await self._carry_out_outage(fault, self._note(fault, target))
            case "lock":
                self._note(fault, target)
                await chaos.lock(target)
                await asyncio.sleep(fault.seconds)
                await chaos.unlock(target)
            case "fill":
                self._note(fault, target)
                chaos.fill(target)
                await asyncio.sleep(fault.seconds)
                chaos.free(target)
            case "poison":
                self._note(fault, target)
                await chaos.poison(target, fault.message, fault.times, sagas=self._under_way())
            case _:
                raise AssertionError(f"{fault.kind} is no fault")

    async def _carry_out_outage(self, fault: Fault, struck: Struck) -> None:
        """Have a cluster be without a quorum for a while."""
        chaos, others = self._own, [each for each in self._targets.servers if each != fault.target]
        match fault.how:
            case "kill":
                for each in others:
                    chaos.kill(each, stays_dead=True)
                await asyncio.sleep(fault.seconds)
                for each in others:
                    await chaos.restart(each)
                for each in others:
                    await self._serving(each)
                    chaos.troubles.end(each)
                struck.whole = self._now()
            case "stop":
                for each in others:
                    chaos.stop(each)
                await asyncio.sleep(fault.seconds)
                for each in others:
                    chaos.go_on(each)
            case _:
                ways = [*combinations(self._targets.servers, 2)]
                for one, other in ways:
                    chaos.partition(one, other)
                await asyncio.sleep(fault.seconds)
                for one, other in ways:
                    chaos.heal(one, other)

    def _plan_calls(self, fault: Fault) -> None:
        """Plan what the next calls of a handler do."""
        step, times, direction = fault.step, fault.times, fault.direction
        match fault.kind:
            case "raise":
                self._own.raise_next(step, fault.error, times, direction=direction)
            case "hang":
                self._own.hang_next(step, fault.how, times, seconds=fault.seconds, direction=direction)
            case _:
                self._own.fail_next(step, times, direction=direction)

    def _under_way(self) -> list[SagaKey]:
        """The sagas that have begun and not ended."""
        names = (each.name.split("/") for each in self._ran if each.ended is None)
        return [SagaKey.of(type_, id) for type_, id in names]

    async def _named(self, name: str) -> str:
        return await self._chaos.leader() if name == LEADER else name

    def _note(self, fault: Fault, target: str) -> Struck:
        struck = Struck(fault, sort_of(fault, self._targets), target, self._now())
        self._struck.append(struck)
        self._say(f"{fault} ({target})" if LEADER in (fault.target, fault.other) else str(fault))
        return struck

    async def _whole(self, struck: Struck, has_ended: Callable[[], bool]) -> None:
        """Wait until what has ended serves again."""
        await _until(has_ended, SERVES_SECONDS, f"{struck.target} does not end, or is not started again")
        await self._serving(struck.target)
        struck.whole = self._now()
        for server in self._targets.servers:
            if struck.target in (server, SERVER):
                self._chaos.troubles.end(server)
        self._say(f"{struck.target} serves again after {struck.whole - struck.at:.1f} s")

    async def _serving(self, name: str) -> None:
        """Wait until all of a name serve, so that a fault hits what is there."""
        try:
            async with asyncio.timeout(SERVES_SECONDS):
                while not await asyncio.to_thread(self._chaos.serves, name):  # it may ask a server that stands still
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise PlatformError(f"{name} does not serve within {SERVES_SECONDS:g} s") from None

    async def _come_about(self, planned: str, times: int) -> None:
        """Wait until what was planned so many times has come about. Of several alike the first that was planned comes
        about first."""
        self._planned[planned] += times
        mine = self._planned[planned]

        def has_come() -> bool:
            left = sum(each.endswith(planned) for each in self._own.to_come())
            return self._planned[planned] - left >= mine

        await _until(has_come, COMES_ABOUT_SECONDS, "nothing came by there")

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _say(self, line: str) -> None:
        self._tell(f"{self._now():7.1f} s  {line}")


async def _until_told(ask: Callable[[], Awaitable[T]]) -> T:
    """What a client is told, who asks again as long as the platform cannot say."""
    while True:
        with suppress(PlatformError, Ambiguous):
            return await ask()
        await asyncio.sleep(AGAIN_SECONDS)


async def _until(holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait for something.

    Raises:
        PlatformError: it does not come to be; with a sentence.
    """
    gives_up = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > gives_up:
            raise PlatformError(f"{otherwise} within {seconds:g} s")
        await asyncio.sleep(LOOK_SECONDS)
